"""Promises of `dups --apply` and `--undo`: no file is lost, whatever happens between the look and the last step."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import another_writer, run_cli
from letting_go import EXTRA, build, digests, dups, found, journal, move, shown

from analysis.duplicates import apply, files
from analysis.duplicates.runs import named
from analysis.errors import RunInvalid
from search.errors import IndexDamaged
from search.index import Index
from search.upkeep.backup import backup

pytest_plugins = ("duplicates_fixtures",)


def test_nothing_changes_without_apply_and_the_answer_says_what_would(base: Path) -> None:
    before = found(base)
    told = run_cli("dups", base / "i.index").stdout
    assert "3 groups: 4 extra files" in told
    sizes = re.search(r"4 extra files, (.*) kB \((\d+)% of (.*) kB\)", told)
    assert sizes, told
    extra, share, whole = sizes.groups()
    assert abs(float(extra) / float(whole) - float(share) / 100) < 0.01
    assert float(whole) == pytest.approx(
        sum(one.stat().st_size for one in (base / "photos").rglob("*.*")) / 1e3, abs=0.1
    )
    assert "Nothing was changed" in told
    assert dups(base)["run"] is None
    assert found(base) == before
    assert not (base / "i.index" / "duplicates").exists()


@pytest.mark.parametrize("action", ["move", "hardlink", "delete"])
def test_extra_files_go_and_come_back_with_permissions_and_times(base: Path, action: str) -> None:
    before, photos = found(base), base / "photos"
    run = dups(base, "--apply", move(base) if action == "move" else action, *["--yes"] * (action == "delete"))["run"]
    equal = [name for name in EXTRA if not name.startswith("raw")]
    assert run["done"] == run["steps"] == (3 if action == "hardlink" else 4)
    assert run["over"]
    now = found(base)
    if action == "move":
        assert {f"trash/photos/{name}" for name in EXTRA} < set(now)
        assert digests(base) == sorted(digest for digest, _, _ in before.values())
    if action == "hardlink":
        for name in equal:
            assert (photos / name).samefile(photos / "2024" / f"{name[7]}.png")
    else:
        assert not any((photos / name).exists() for name in EXTRA)
        assert dups(base)["groups"] == []
    assert shown(base) == {name.removeprefix("photos/") for name in now if name.startswith("photos")}
    if action == "delete":
        refused = run_cli("dups", base / "i.index", "--undo", run["name"], check=2)
        assert "cannot be brought back" in refused.stderr
        return
    back = dups(base, "--undo", run["name"])["run"]
    assert back["undone"] == run["done"]
    assert found(base) == before
    assert action != "move" or list((base / "trash").iterdir()) == []
    assert shown(base) == {name.removeprefix("photos/") for name in before}
    report = build(base)
    assert (report.unchanged, report.missing, report.added, report.updated) == (7, 0, 0, 0)
    assert "taken back already" in run_cli("dups", base / "i.index", "--undo", run["name"], check=2).stderr


def test_a_move_on_one_disk_says_that_it_frees_nothing_yet(base: Path) -> None:
    told = run_cli("dups", base / "i.index", "--apply", move(base)).stdout
    assert f"a move frees nothing until you delete {base / 'trash'}." in told


def test_what_builds_have_dropped_meanwhile_comes_back_all_the_same(base: Path) -> None:
    before = found(base)
    name = dups(base, "--apply", move(base))["run"]["name"]
    assert build(base, prune=True, prune_all=True).removed == 1  # a.bmp, whose only file went
    dups(base, "--undo", name)
    assert found(base) == before
    report = build(base)
    assert (report.unchanged, report.added) == (6, 1)


def test_a_build_names_the_run_that_moved_what_is_missing(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    command = ("build", base / "photos", "--index", base / "i.index")
    told = run_cli(*command).stderr
    assert "1 file missing from the disk" in told
    assert f"1 of these was moved by dups, run {name}. To take it back: lookalike dups" in told
    assert f"--undo {name}\n" in told
    log, kept = journal(base), journal(base).read_bytes()
    log.write_bytes(b"damaged\n" + kept)
    assert "moved by dups" not in run_cli(*command).stderr
    log.write_bytes(kept)
    dups(base, "--undo", name)
    (base / "photos" / "raw" / "a.bmp").unlink()
    assert "moved by dups" not in run_cli(*command).stderr


def test_a_backup_takes_the_journals_along(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    run_cli("backup", base / "i.index", base / "copy.index")
    assert run_cli("verify", base / "copy.index").returncode == 0
    log = base / "copy.index" / "duplicates" / f"{name}.jsonl"
    assert log.read_bytes() == journal(base).read_bytes()
    log.write_text("half\n" + log.read_text())
    assert "is damaged in line 1" in run_cli("verify", base / "copy.index", check=65).stderr


def test_a_moved_file_that_was_touched_comes_back_as_it_was(base: Path) -> None:
    before = found(base)
    if os.geteuid() == 0:
        os.chown(base / "photos" / "backup" / "b.png", 1234, 1235)
    name = dups(base, "--apply", move(base))["run"]["name"]
    moved = base / "trash" / "photos" / "backup" / "b.png"
    moved.chmod(0o600)
    os.utime(moved)
    if os.geteuid() == 0:
        os.chown(moved, 0, 0)
    shutil.rmtree(base / "photos" / "backup")
    dups(base, "--undo", name)
    assert found(base) == before
    if os.geteuid() == 0:
        facts = (base / "photos" / "backup" / "b.png").stat()
        assert (facts.st_uid, facts.st_gid) == (1234, 1235)


@pytest.mark.parametrize("action", ["move", "delete"])
def test_an_interrupted_run_goes_on_under_its_own_request_only(
    base: Path, action: str, interrupt: Callable[[int], None]
) -> None:
    words = ["--apply", move(base) if action == "move" else action, "--protect", "2024"]
    yes = ["--yes"] if action == "delete" else []
    interrupt(1)
    run = dups(base, *words, *yes, check=130)["run"]
    assert (run["done"], run["over"]) == (1, False)
    interrupt(-1)
    before = found(base)
    others = (
        ["--apply", "delete" if action == "move" else move(base)],
        ["--apply", "hardlink"],
        ["--apply", "move=" + str(base / "elsewhere")],
        words[:2],
        [*words, "--tier", "bytes"],
        [*words, "--keep", "format"],
    )
    for other in others:
        refused = run_cli("dups", base / "i.index", *other, "--yes", check=2).stderr
        assert f"The run {run['name']} was interrupted" in refused
        assert "--protect 2024" in refused
        assert f"--undo {run['name']}" in refused
    assert "was interrupted" in run_cli("dups", base / "i.index").stderr
    assert found(base) == before
    done = dups(base, *words, *yes)["run"]
    assert (done["name"], done["done"], done["over"]) == (run["name"], 4, True)


def test_interrupted_runs_can_be_taken_back_and_interrupted_deletes_given_up(
    base: Path, interrupt: Callable[[int], None]
) -> None:
    before = found(base)
    interrupt(2)
    run = dups(base, "--apply", move(base), check=130)["run"]
    interrupt(-1)
    dups(base, "--undo", run["name"])
    assert found(base) == before
    interrupt(2)
    run = dups(base, "--apply", "delete", "--yes", check=130)["run"]
    interrupt(-1)
    left = found(base)
    assert "--yes" in run_cli("dups", base / "i.index", "--undo", run["name"], check=2).stderr
    given_up = dups(base, "--undo", run["name"], "--yes", check=3)["run"]
    assert (given_up["done"], given_up["over"], len(given_up["skipped"])) == (2, True, 2)
    assert found(base) == left
    assert "cannot be brought back" in run_cli("dups", base / "i.index", "--undo", run["name"], check=2).stderr
    assert dups(base, "--apply", move(base))["run"]["done"] == 2


def test_an_interrupted_undo_ends_before_another_run(base: Path, interrupt: Callable[[int], None]) -> None:
    before = found(base)
    name = dups(base, "--apply", move(base))["run"]["name"]
    interrupt(1)
    dups(base, "--undo", name, check=130)
    interrupt(-1)
    assert "was being taken back" in run_cli("dups", base / "i.index", "--apply", move(base), check=2).stderr
    assert dups(base, "--undo", name)["run"]["undone"] == 4
    assert found(base) == before


def test_nobody_else_writes_from_the_first_look_to_the_last_step(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with another_writer(base / "i.index"):
        assert "Another process" in run_cli("dups", base / "i.index", "--apply", move(base), check=75).stderr
    lock = f"write_lock(Path({str(base / 'i.index')!r}))"
    code = f"from pathlib import Path; from search.lock import write_lock\nwith {lock}: pass"
    tried = []

    def locked(real: Callable[..., Any]) -> Callable[..., Any]:
        def work(*words: Any, **options: Any) -> Any:
            ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            tried.append("IndexLocked" in ended.stderr)
            return real(*words, **options)

        return work

    from analysis.duplicates import find

    monkeypatch.setattr(find, "find", locked(find.find))
    monkeypatch.setattr(apply.Applying, "_end", locked(apply.Applying._end))
    dups(base, "--apply", move(base))
    assert tried == [True, True]


@pytest.mark.parametrize("action", ["move", "hardlink", "delete"])
def test_a_file_whose_kept_one_has_changed_stays(
    base: Path, action: str, between: Callable[[Callable[[], object]], None]
) -> None:
    kept = base / "photos" / "2024" / "b.png"
    facts, data = kept.stat(), bytearray(kept.read_bytes())
    data[-3] ^= 1

    def change() -> None:
        kept.write_bytes(data)
        os.utime(kept, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # only its content tells

    between(change)
    words = ["--apply", move(base) if action == "move" else action, *["--yes"] * (action == "delete")]
    run = dups(base, "--tier", "bytes", *words, check=3)["run"]
    assert [Path(one["path"]).name for one in run["skipped"]] == ["b.png"]
    assert "would stay" in run["skipped"][0]["why"]
    assert (base / "photos" / "backup" / "b.png").exists()
    assert not any(Path(name).name.startswith(".") for name in found(base))


@pytest.mark.parametrize("action", ["move", "hardlink", "delete"])
def test_two_indexes_that_let_go_each_others_kept_file_leave_one(
    base: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one file that is seen through two mounts: what is set aside is not where the other one looks."""
    before = digests(base)
    with Index.open(base / "i.index") as index:
        backup(index, base / "other.index").close()
    check, runs = apply._check_stays, []
    words = ["--tier", "bytes", "--apply", f"{action}={base / 'trash'}" if action == "move" else action, "--yes"]

    def meanwhile(step: Any) -> os.stat_result:
        if not runs:
            runs.append(step)
            run_cli("dups", base / "other.index", "--keep", "folder:backup", *words, check=None)
        return check(step)

    monkeypatch.setattr(apply, "_check_stays", meanwhile)
    dups(base, "--keep", "folder:2024", *words, check=None)
    assert set(digests(base)) == set(before)
    assert not any(Path(name).name.startswith(".") for name in found(base))


def test_a_file_that_is_written_to_after_it_was_read_stays(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited, read = base / "photos" / "backup" / "b.png", files.read

    def reading(file: Path, *words: Any) -> Any:
        seen = read(file, *words)
        if file == edited:
            edited.write_bytes(b"edited")
        return seen

    monkeypatch.setattr(apply, "read", reading)
    run = dups(base, "--apply", "delete", "--yes", check=3)["run"]
    assert [one["path"] for one in run["skipped"]] == [str(edited)]
    assert edited.read_bytes() == b"edited"


def test_links_and_what_lies_below_them_are_left(base: Path, between: Callable[[Callable[[], object]], None]) -> None:
    photos, elsewhere = base / "photos", base / "elsewhere"

    def link() -> None:
        (photos / "backup").rename(elsewhere)
        (photos / "backup").symlink_to(elsewhere)
        (photos / "raw" / "a.bmp").rename(base / "a.bmp")
        (photos / "raw" / "a.bmp").symlink_to(base / "a.bmp")

    between(link)
    run = dups(base, "--apply", "delete", "--yes", check=3)["run"]
    assert run["done"] == 0
    assert {one["why"].rpartition(" is ")[2] for one in run["skipped"]} == {"a link, or lies in a linked folder"}
    assert {path.name for path in elsewhere.iterdir()} == {"a.png", "a (1).png", "b.png"}
    assert (base / "a.bmp").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.EPERM])
def test_an_error_about_one_file_leaves_this_file(base: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refusing(self: Path, to: Path) -> Path:
        if self.name == "a.png":
            raise OSError(number, os.strerror(number))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refusing)
    before = found(base)
    run = dups(base, "--apply", move(base), check=3)["run"]
    assert run["done"] == 3
    assert [one["why"] for one in run["skipped"]] == [os.strerror(number)]
    monkeypatch.undo()
    dups(base, "--undo", run["name"])
    assert found(base) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_broken_disk_stops_the_run_which_then_goes_on(
    base: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, to: Path) -> None:
        if Path(to).name == "b.png" and not full.mended:
            raise OSError(number, os.strerror(number))
        link(file, to)

    link = os.link
    full.mended = False
    monkeypatch.setattr(os, "link", full)
    stopped = run_cli("dups", base / "i.index", "--apply", move(base), check=74)
    assert "give the same command again" in stopped.stderr
    assert shown(base) >= {"backup/b.png"}
    full.mended = True
    run = dups(base, "--apply", move(base))["run"]
    assert (run["done"], run["skipped"]) == (4, [])


def test_steps_that_were_done_and_not_noted_are_found_out(base: Path) -> None:
    before = found(base)
    for action in (move(base), "hardlink"):
        name = dups(base, "--apply", action)["run"]["name"]
        lines = journal(base).read_text().splitlines(keepends=True)
        end = max(number for number, line in enumerate(lines) if "begin" in line)
        journal(base).write_text("".join(lines[: end + 1]) + '{"don')
        dups(base, "--undo", name)
        assert found(base) == before


def test_undo_takes_back_only_what_the_merge_added(base: Path) -> None:
    with Index.open(base / "i.index", writable=True) as index, index.writer() as writer:
        ids = {Path(record.paths[0]).name: record.id for record in index.catalog.page(0, 100)[0]}
        writer.describe(ids["a.png"], labels=["both", "own"], metadata={"rating": 1, "place": "Rome"})
        writer.describe(ids["a.bmp"], labels=["both", "given"], metadata={"rating": 5, "city": "Oslo", "year": 7})
    name = dups(base, "--apply", move(base), "--keep", "folder:2024")["run"]["name"]
    with Index.open(base / "i.index", writable=True) as index, index.writer() as writer:
        kept = index.image(ids["a.png"])
        assert kept.labels == ("both", "given", "own")
        assert kept.metadata == {"rating": 1, "place": "Rome", "city": "Oslo", "year": 7}
        assert '"rating": 5' in journal(base).read_text()
        assert index.image(ids["a.bmp"]).missing
        writer.describe(ids["a.png"], labels=[*kept.labels, "later"], metadata={**kept.metadata, "year": 8})
    dups(base, "--undo", name)
    with Index.open(base / "i.index") as index:
        kept = index.image(ids["a.png"])
        assert kept.labels == ("both", "later", "own")
        assert kept.metadata == {"rating": 1, "place": "Rome", "year": 8}
        assert index.image(ids["a.bmp"]).labels == ("both", "given")


def test_undo_needs_its_drives(base: Path) -> None:
    before = found(base)
    name = dups(base, "--apply", move(base))["run"]["name"]
    for place in ("photos", "trash"):
        (base / place).rename(base / "unplugged")
        refused = run_cli("dups", base / "i.index", "--undo", name, check=2).stderr
        assert f"{base / place} is not there" in refused
        (base / place).mkdir()  # as an empty mount point, which lies on another device
        lines = journal(base).read_text()
        head = json.loads(lines.partition("\n")[0])
        head["devices"][str(base / place)] += 1
        journal(base).write_text(json.dumps(head) + "\n" + lines.partition("\n")[2])
        assert "connect" in run_cli("dups", base / "i.index", "--undo", name, check=2).stderr
        assert list((base / place).iterdir()) == []
        (base / place).rmdir()
        (base / "unplugged").rename(base / place)
    dups(base, "--undo", name)  # a drive may have another number than before
    assert found(base) == before


def test_undo_replaces_nothing_and_brings_the_rest_when_it_can(base: Path) -> None:
    before = found(base)
    name = dups(base, "--apply", move(base))["run"]["name"]
    other = base / "photos" / "backup" / "b.png"
    other.write_bytes(b"other")
    (left,) = dups(base, "--undo", name, check=3)["run"]["skipped"]
    assert left["path"] == str(other)
    assert "is there already" in left["why"]
    assert other.read_bytes() == b"other"
    other.unlink()
    told = run_cli("dups", base / "i.index", "--undo", name).stdout
    assert re.search(r"(\d+) of \1 files of run", told), told
    assert f"{base / 'trash'} stays: delete it, if it is empty." in told
    assert found(base) == before


def test_the_folder_above_a_link_is_the_one_that_the_system_takes(base: Path, tmp_path: Path) -> None:
    (tmp_path / "drive" / "inner").mkdir(parents=True)
    (base / "link").symlink_to(tmp_path / "drive" / "inner")
    run_cli("dups", base / "i.index", "--apply", f"move={base / 'link'}/../gone")
    assert [path for path in (tmp_path / "drive" / "gone").rglob("*") if path.is_file()]
    assert not (base / "gone").exists()


def test_folders_that_hold_or_are_held_by_what_is_indexed_are_refused(base: Path) -> None:
    (base / "link").symlink_to(base / "photos")
    (base / "holder").mkdir()
    (base / "holder" / "photos").symlink_to(base / "photos" / "2024")  # what would be made in it
    (base / "file").touch()
    before = found(base)
    for folder in ("photos", "photos/trash", ".", "i.index/trash", "i.index", "link", "link/x", "holder", "file"):
        refused = run_cli("dups", base / "i.index", "--apply", f"move={base / folder}", check=2).stderr
        assert "is not a folder" in refused if folder == "file" else "Name a folder elsewhere" in refused
    assert found(base) == before
    assert not (base / "i.index" / "duplicates").exists()


def test_a_moved_file_takes_no_name_that_another_one_has(
    base: Path, between: Callable[[Callable[[], object]], None]
) -> None:
    trash = base / "trash" / "photos" / "backup"
    trash.mkdir(parents=True)
    (trash / "a.png").write_bytes(b"mine")
    between(lambda: (trash / "b.png").write_bytes(b"mine, too"))
    run = dups(base, "--apply", move(base), check=3)["run"]
    assert (trash / "a.png").read_bytes() == b"mine"
    assert (trash / "a (2).png").exists()
    assert [Path(one["path"]).name for one in run["skipped"]] == ["b.png"]
    assert (trash / "b.png").read_bytes() == b"mine, too"
    assert (base / "photos" / "backup" / "b.png").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_files_are_copied_and_compared_where_there_are_no_links(
    base: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another disk, and where a file system has no links at all."""
    link, copyfile, before = os.link, shutil.copyfile, found(base)

    def refusing(file: Path, to: Path) -> None:
        if number == errno.EPERM or ("trash" in Path(file).parts) != ("trash" in Path(to).parts):
            raise OSError(number, os.strerror(number))
        link(file, to)

    def failing(source: Path, to: Path) -> None:
        copyfile(source, to)
        if source.name == "b.png":
            to.write_bytes(b"what a broken cable makes of it")

    monkeypatch.setattr(os, "link", refusing)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", failing)
        run = dups(base, "--apply", move(base), check=3)["run"]
    assert "not what was written" in run["skipped"][0]["why"]
    assert (base / "photos" / "backup" / "b.png").exists()
    moved = {name.removeprefix("trash/"): seen for name, seen in found(base).items() if name.startswith("trash")}
    assert moved == {
        name: seen for name, seen in before.items() if name.removeprefix("photos/") in EXTRA and "b.png" not in name
    }
    dups(base, "--undo", run["name"])
    assert found(base) == before


def test_a_journal_that_is_damaged_is_refused(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    before, whole = found(base), journal(base).read_text().splitlines()
    damaged = [
        [*whole[:3], "half a li", *whole[3:]],
        [*whole[:3], "[1]", *whole[3:]],
        [*whole[:-1], '{"begin": 99}', whole[-1]],
        [*whole[:-1], '{"begin": "1"}', whole[-1]],
        [*whole[:-1], '{"begin": 1, "done": 1}', whole[-1]],
        [*whole[:-1], '{"begun": 1}', whole[-1]],
        [whole[0], whole[1].replace('"root"', '"rot"'), *whole[2:]],
        [whole[0], whole[1].replace('"size": ', '"size": "1", "mode": '), *whole[2:]],
        whole[:3],
        [],
    ]
    for lines in damaged:
        journal(base).write_text("".join(f"{line}\n" for line in lines))
        assert "is damaged in line" in run_cli("dups", base / "i.index", "--undo", name, check=65).stderr
        with Index.open(base / "i.index") as index, pytest.raises(IndexDamaged):
            named(index, name)
    assert found(base) == before


def test_a_journal_of_a_later_format_is_refused(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    journal(base).write_text(journal(base).read_text().replace('"format": 1', '"format": 2'))
    with Index.open(base / "i.index") as index, pytest.raises(RunInvalid, match="format"):
        named(index, name)
    assert "There is no run" in run_cli("dups", base / "i.index", "--undo", "../x", check=2).stderr


def test_each_step_is_on_the_disk_before_it_is_begun(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, fsync, order = Path.rename, os.fsync, []

    def syncing(descriptor: int) -> None:
        fsync(descriptor)
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().suffix)

    def renaming(self: Path, to: Path) -> Path:
        order.append("rename")
        notes = journal(base).read_text().splitlines()
        assert json.loads(notes[-1]) == {"begin": order.count("rename") - 1}
        assert ".jsonl" in order[-order[::-1].index("rename", 1) :] if order.count("rename") > 1 else ".jsonl" in order
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "rename", renaming)
    dups(base, "--apply", move(base))
    assert order.count("rename") == 4


def test_erase_strikes_paths_from_journals_and_leaves_the_rest_to_undo(
    base: Path, interrupt: Callable[[int], None]
) -> None:
    photos = base / "photos"
    name = dups(base, "--apply", move(base), "--protect", "2024/a.png", "--keep", "folder:2024/b.png,oldest")["run"][
        "name"
    ]
    run_cli("remove", base / "i.index", "--erase", photos / "2024" / "a.png")
    told = journal(base).read_text()
    assert "a.png" not in told
    assert "a (1)" not in told
    assert "raw/a.bmp" in told  # another image, whose kept one is erased
    with Index.open(base / "i.index") as index:
        other = next(one.id for one in index.catalog.page(0, 100)[0] if one.paths[0].endswith("a.bmp"))
    run_cli("remove", base / "i.index", other)
    run_cli("remove", base / "i.index", "--erase", photos / "raw" / "a.bmp")  # after it was removed
    assert "a.bmp" not in journal(base).read_text()
    dups(base, "--undo", name)
    assert (photos / "backup" / "b.png").exists()
    interrupt(0)
    dups(base, "--apply", move(base), check=130)
    refused = run_cli("remove", base / "i.index", "--erase", photos / "2024" / "b.png", check=2).stderr
    assert "was interrupted" in refused


def test_only_equal_files_are_linked(base: Path) -> None:
    assert (
        "--tier bytes" in run_cli("dups", base / "i.index", "--tier", "pixels", "--apply", "hardlink", check=2).stderr
    )
    told = run_cli("dups", base / "i.index", "--apply", "hardlink").stderr
    assert "left: 1 file of other bytes" in told
    assert not (base / "photos" / "raw" / "a.bmp").samefile(base / "photos" / "2024" / "a.png")


def test_reflink_shares_blocks_or_says_that_it_cannot(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found(base)
    run = dups(base, "--apply", "reflink", check=None)["run"] if (reflinks := _reflinks(base)) else None
    if not reflinks:
        run = dups(base, "--apply", "reflink", check=3)["run"]
        assert {one["why"] for one in run["skipped"]} == {
            "its file system cannot share blocks (reflink) with the file that stays"
        }
        assert found(base) == before

        def copied(source: Path, draft: Path, _: Path, facts: files.Facts) -> None:
            files.copy(source, draft, sha256(source.read_bytes()).hexdigest(), facts)

        monkeypatch.setattr(apply, "reflink", copied)
        inode = (base / "photos" / "backup" / "b.png").stat().st_ino
        run = dups(base, "--apply", "reflink")["run"]
        assert (base / "photos" / "backup" / "b.png").stat().st_ino != inode
    assert run is not None
    assert run["done"] == 3
    assert found(base) == before
    dups(base, "--undo", run["name"])
    assert found(base) == before


def _reflinks(base: Path) -> bool:
    try:
        kept = base / "photos" / "2024" / "a.png"
        files.reflink(kept, base / "x", kept, files.facts_of(kept))
    except files.FileLeft:
        return False
    (base / "x").unlink()
    return True


def test_delete_asks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found(base)
    command = ["dups", base / "i.index", "--apply", "delete"]
    assert "--yes" in run_cli(*command, check=2).stderr
    monkeypatch.setattr("analysis.duplicates.cli._can_ask", lambda as_json: not as_json)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert "Nothing was changed" in run_cli(*command, check=1).stderr
    assert found(base) == before
    assert not (base / "i.index" / "duplicates").exists()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    assert "deleted" in run_cli(*command).stdout
    assert len(found(base)) < len(before)


def test_words_that_are_none_are_refused(base: Path) -> None:
    for wrong in ("move", "shred", "hardlink=x", "move="):
        assert "move=FOLDER" in run_cli("dups", base / "i.index", "--apply", wrong, check=2).stderr
    assert "works only alone" in run_cli("dups", base / "i.index", "--undo", "x", "--tier", "bytes", check=2).stderr
    assert "There is no run" in run_cli("dups", base / "i.index", "--undo", "x", check=2).stderr
