"""Ways in which a run over duplicates could lose a file, or what the index knows of one; none does."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import run_cli
from letting_go import build, digests, dups, found, journal, move, shown
from PIL import Image

from analysis.duplicates import apply, files, plan
from analysis.duplicates.runs import named
from search.index import Index

pytest_plugins = ("duplicates_fixtures",)
KEEP = ("--keep", "folder:2024")


def set_aside(base: Path) -> list[str]:
    return [name for name in found(base) if Path(name).name.startswith(".lookalike")]


def ids(base: Path) -> dict[str, str]:
    """Images by the names of their files."""
    with Index.open(base / "i.index") as index:
        return {Path(path).name: one.id for one in index.catalog.page(0, 100)[0] for path in one.paths}


def describe(base: Path, name: str, *labels: str, **metadata: object) -> None:
    with Index.open(base / "i.index", writable=True) as index, index.writer() as writer:
        writer.describe(ids(base)[name], labels=labels, metadata=metadata)


def described(base: Path, name: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    with Index.open(base / "i.index") as index:
        one = index.image(ids(base)[name])
        return one.labels, dict(one.metadata)


def spoil(kept: Path) -> None:
    """Change a file that is to stay, so that only its content tells."""
    facts, data = kept.stat(), bytearray(kept.read_bytes())
    data[-3] ^= 1
    kept.write_bytes(data)
    os.utime(kept, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def cut(base: Path, *, state: bool = False) -> None:
    """Take from the journal what comes after the last step was begun: the process was killed there."""
    lines = journal(base).read_text().splitlines(keepends=True)
    end = max(number for number, line in enumerate(lines) if '"begin"' in line)
    journal(base).write_text("".join(lines[: end + 1] + ['{"state": "finished"}\n'] * state))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ESTALE, errno.ENOENT])
def test_a_file_that_cannot_get_its_name_back_stops_the_run_which_then_gives_it_back(
    base: Path, number: int, monkeypatch: pytest.MonkeyPatch, between: Callable[[Callable[[], object]], None]
) -> None:
    put = files.put

    def refused(source: Path, to: Path) -> None:
        if ".aside" in source.name:
            raise OSError(number, os.strerror(number), str(to))
        put(source, to)

    between(lambda: spoil(base / "photos" / "2024" / "b.png"))
    words = ("--tier", "bytes", "--apply", "delete", "--yes")
    with monkeypatch.context() as patched:
        patched.setattr(files, "put", refused)
        stopped = run_cli("dups", base / "i.index", *words, check=74).stderr
    (aside,) = set_aside(base)
    assert str(base / aside) in stopped
    assert "the same command again" in " ".join(stopped.split())
    run = dups(base, *words, check=3)["run"]
    assert run["over"]
    assert [Path(one["path"]).name for one in run["skipped"]] == ["b.png"]
    assert set_aside(base) == []
    assert (base / "photos" / "backup" / "b.png").exists()


def test_undo_gives_back_what_a_finished_deletion_left_set_aside(base: Path) -> None:
    name = dups(base, "--apply", "delete", "--yes", *KEEP)["run"]["name"]
    with Index.open(base / "i.index") as index:
        run = named(index, name)
    step = run.steps[0]
    assert step is not None
    run.names(0).aside(step.file).write_bytes(step.kept.read_bytes())  # as a run that could not put it back left it
    lines = journal(base).read_text().splitlines(keepends=True)
    lines = [line for line in lines if line != '{"done": 0}\n']
    journal(base).write_text("".join([*lines[:-1], '{"skip": 0, "why": "it failed"}\n', lines[-1]]))
    assert "cannot be brought back" in run_cli("dups", base / "i.index", "--undo", name, check=2).stderr
    assert step.file.exists()
    assert set_aside(base) == []


@pytest.mark.parametrize("action", ["move", "delete"])
def test_a_drive_that_goes_away_stops_the_run(base: Path, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, off, check, checks = base / "photos", base / "off", apply._check_stays, []

    def gone(*words: Any) -> Any:
        checks.append(words)
        if len(checks) == 2:
            photos.rename(off)
        return check(*words)

    before = digests(base)
    words = ["--apply", move(base) if action == "move" else action, "--yes", *KEEP]
    with monkeypatch.context() as patched:
        patched.setattr(apply, "_check_stays", gone)
        run_cli("dups", base / "i.index", *words, check=74)
    assert '"skip"' not in journal(base).read_text()
    off.rename(photos)
    run = dups(base, *words)["run"]
    assert (run["done"], run["skipped"]) == (4, [])
    assert set_aside(base) == []
    twice = {digest for digest in before if before.count(digest) > 1}
    assert set(digests(base)) >= (set(before) if action == "move" else twice)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENODEV, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_of_a_drive_stops_the_run_which_then_goes_on(
    base: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refusing(self: Path, to: Path) -> Path:
        if self.name == "b.png":
            raise OSError(number, os.strerror(number), str(self))
        return rename(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refusing)
        run_cli("dups", base / "i.index", "--apply", move(base), check=74)
    run = dups(base, "--apply", move(base))["run"]
    assert (run["done"], run["skipped"]) == (4, [])


def test_a_step_of_which_nothing_can_be_found_out_is_not_left(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dups(base, "--apply", "delete", "--yes")
    cut(base)

    def refused(*_: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "x")

    with monkeypatch.context() as patched:
        patched.setattr(apply, "settle", refused)
        run_cli("dups", base / "i.index", "--apply", "delete", "--yes", check=74)
        run_cli("dups", base / "i.index", "--undo", journal(base).stem, "--yes", check=74)
    assert '"skip"' not in journal(base).read_text()
    assert dups(base, "--apply", "delete", "--yes")["run"]["done"] == 4


def test_a_flush_that_fails_once_a_file_has_gone_leaves_no_step_that_says_otherwise(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, before = files.sync_folder, found(base)

    def failing(folder: Path) -> None:
        if folder == base / "photos" / "backup" and not (folder / "b.png").exists():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        sync(folder)

    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_folder", failing)
        run_cli("dups", base / "i.index", "--apply", move(base), check=74)
    run = dups(base, "--apply", move(base))["run"]
    assert (run["done"], run["skipped"]) == (4, [])
    dups(base, "--undo", run["name"])
    assert found(base) == before


def test_labels_stay_where_a_build_has_dropped_the_image_that_they_came_from(base: Path) -> None:
    describe(base, "a.bmp", "grandma", place="Oslo")
    name = dups(base, "--apply", move(base), *KEEP)["run"]["name"]
    assert described(base, "a.png") == (("grandma",), {"place": "Oslo"})
    build(base, prune=True, prune_all=True)
    dups(base, "--undo", name)
    build(base)
    assert described(base, "a.bmp") == ((), {})
    assert described(base, "a.png") == (("grandma",), {"place": "Oslo"})


@pytest.mark.parametrize("killed", [False, True])
def test_labels_outlive_a_prune_between_an_interruption_and_the_end(
    base: Path, killed: bool, interrupt: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(base, "a.bmp", "grandma", place="Oslo")
    words, real = ["--apply", "delete", "--yes", *KEEP], plan.plan

    def first(*words: Any) -> Any:
        return sorted(real(*words), key=lambda step: not step.path.endswith("bmp"))

    def die(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(plan, "plan", first)
        if killed:
            patched.setattr(apply.Applying, "_end", die)
            run_cli("dups", base / "i.index", *words, check=70)
        else:
            interrupt(2)
            dups(base, *words, check=130)
            interrupt(-1)
    build(base, prune=True, prune_all=True)
    dups(base, *words)
    assert described(base, "a.png") == (("grandma",), {"place": "Oslo"})


def test_labels_come_to_no_image_for_a_file_that_was_left(
    base: Path, between: Callable[[Callable[[], object]], None]
) -> None:
    describe(base, "a.bmp", "grandma", place="Oslo")
    between(lambda: spoil(base / "photos" / "2024" / "a.png"))
    dups(base, "--apply", "delete", "--yes", *KEEP, check=3)
    assert described(base, "a.png") == ((), {})
    assert described(base, "a.bmp") == (("grandma",), {"place": "Oslo"})


def test_a_second_undo_tells_only_what_came_back(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    blocker, painted = (base / "photos" / "backup" / name for name in ("b.png", "a.png"))
    blocker.write_bytes(b"other")
    dups(base, "--undo", name, check=3)
    Image.new("RGB", (40, 30), (1, 2, 3)).save(painted)
    build(base)
    new = sha256(painted.read_bytes()).hexdigest()
    blocker.unlink()
    dups(base, "--undo", name)
    with Index.open(base / "i.index") as index:
        assert index.image(new).paths == (str(painted),)
    assert "backup/b.png" in shown(base)


def test_a_root_that_was_moved_between_stays_unknown(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    (base / "photos").rename(base / "pictures")
    run_cli("move-root", base / "i.index", base / "photos", base / "pictures")
    (base / "photos").symlink_to(base / "pictures")
    dups(base, "--undo", name)
    assert (base / "pictures" / "backup" / "b.png").exists()
    with Index.open(base / "i.index") as index:
        assert index.catalog.roots() == [str(base / "pictures")]


@pytest.mark.parametrize("call", ["sync_folder", "unlink"])
def test_a_disk_that_breaks_once_a_draft_has_its_place_is_named(
    base: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sync, unlink = found(base), files.sync_folder, Path.unlink
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    failed: list[Path] = []

    def failing_sync(folder: Path) -> None:
        if any(".aside" in path.name for path in folder.iterdir()) and not failed:
            failed.append(folder)
            raise broken
        sync(folder)

    def failing_unlink(self: Path, missing_ok: bool = False) -> None:
        if ".aside" in self.name and not failed:
            failed.append(self)
            raise broken
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        if call == "unlink":
            patched.setattr(Path, "unlink", failing_unlink)
        else:
            patched.setattr(files, "sync_folder", failing_sync)
        stopped = run_cli("dups", base / "i.index", "--apply", "hardlink", check=74).stderr
    assert os.strerror(errno.EIO) in stopped
    assert found(base) == before
    run = dups(base, "--apply", "hardlink")["run"]
    assert (run["done"], run["skipped"]) == (3, [])


def test_a_link_that_was_made_and_not_noted_is_known_though_the_kept_file_was_replaced(base: Path) -> None:
    before = found(base)
    name = dups(base, "--apply", "hardlink")["run"]["name"]
    cut(base)
    for letter in "ab":
        kept = base / "photos" / "2024" / f"{letter}.png"
        facts, data = kept.stat(), kept.read_bytes()
        kept.unlink()
        kept.write_bytes(data)
        os.utime(kept, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        kept.chmod(facts.st_mode)
    assert dups(base, "--undo", name)["run"]["undone"] == 3
    assert found(base) == before


def test_one_file_under_two_cached_names_is_not_deleted(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS keeps names for a while: what was set aside is still read under the name of the file that stays."""

    def cached(step: plan.Step) -> os.stat_result:
        (aside,) = step.file.parent.glob(".lookalike*.aside*")
        return aside.lstat()

    before = found(base)
    monkeypatch.setattr(apply, "_check_stays", cached)
    run = dups(base, "--apply", "delete", "--yes", check=3)["run"]
    assert run["done"] == 0
    assert "one file" in run["skipped"][0]["why"]
    assert found(base) == before


@pytest.mark.parametrize("action", ["hardlink", "reflink"])
def test_files_with_attributes_that_would_be_lost_are_left_or_keep_them(
    base: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = base / "photos" / "backup" / "b.png"
    tag(tagged)
    if action == "reflink":
        monkeypatch.setattr("fcntl.ioctl", clone)
    run = dups(base, "--apply", action, check=None)["run"]
    assert os.getxattr(tagged, TAGS) == b"wedding"
    assert run["done"] == (2 if action == "hardlink" else 3)
    assert ["attributes" in one["why"] for one in run["skipped"]] == [True] * (action == "hardlink")


@pytest.mark.parametrize("kept", [False, True])
def test_files_keep_their_attributes_on_another_disk_or_stay(
    base: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged, link, setxattr = base / "photos" / "backup" / "b.png", os.link, os.setxattr
    tag(tagged)

    def refusing(file: Path, to: Path) -> None:
        if ("trash" in Path(file).parts) != ("trash" in Path(to).parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(file, to)

    def without(path: Any, *words: Any, **options: Any) -> None:
        if not kept:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        setxattr(path, *words, **options)

    monkeypatch.setattr(os, "link", refusing)
    monkeypatch.setattr(os, "setxattr", without)
    run = dups(base, "--apply", move(base), check=0 if kept else 3)["run"]
    assert tagged.exists() != kept
    assert os.getxattr(base / "trash" / "photos" / "backup" / "b.png" if kept else tagged, TAGS) == b"wedding"
    assert ["attributes" in one["why"] for one in run["skipped"]] == [True] * (not kept)


TAGS = "user.xdg.tags"


def tag(file: Path) -> None:
    try:
        os.setxattr(file, TAGS, b"wedding")
    except OSError:
        pytest.skip("this file system has no extended attributes")


def clone(target: Any, request: int, source: int) -> None:
    """What Linux does, on a file system that shares no blocks."""
    target.write(os.pread(source, 1 << 24, 0))
    target.flush()


def other_device(base: Path, place: Path) -> None:
    """Let the journal say that a place lay on another device: it was another drive, or the computer was restarted."""
    first, _, rest = journal(base).read_text().partition("\n")
    head = json.loads(first)
    head["devices"][str(place)] += 1
    journal(base).write_text(json.dumps(head) + "\n" + rest)


def test_undo_knows_a_root_of_which_no_file_is_left_by_its_folders(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    other_device(base, base / "photos")
    shutil.rmtree(base / "photos" / "2024")
    assert dups(base, "--undo", name)["run"]["undone"] == 4


def test_a_drive_that_is_mounted_in_a_root_is_missed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drive, off = base / "photos" / "backup", base / "off"
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == drive)
    dups(base, "--apply", "delete", "--yes", *KEEP)
    cut(base)
    told = journal(base).read_text()
    other_device(base, drive)
    drive.rename(off)
    drive.mkdir()
    refused = run_cli("dups", base / "i.index", "--apply", "delete", "--yes", *KEEP, check=2).stderr
    assert f"{drive} is not there" in " ".join(refused.split())
    drive.rmdir()
    off.rename(drive)
    journal(base).write_text(told)
    assert dups(base, "--apply", "delete", "--yes", *KEEP)["run"]["done"] == 4


def test_a_drive_that_is_missing_is_not_mended_by_deleting_the_journal(
    base: Path, interrupt: Callable[[int], None]
) -> None:
    interrupt(1)
    dups(base, "--apply", move(base), check=130)
    interrupt(-1)
    (base / "photos").rename(base / "unplugged")
    told = run_cli("dups", base / "i.index", "--undo", journal(base).stem, check=2).stderr
    assert "connect" in told
    assert "delete" not in told


def test_a_folder_whose_name_no_journal_holds_is_refused(base: Path) -> None:
    folder = os.fsdecode(os.fsencode(base / "tr") + b"\xff")
    assert "UTF-8" in run_cli("dups", base / "i.index", "--apply", f"move={folder}", check=2).stderr
    assert not (base / "i.index" / "duplicates").exists()


def test_erase_forgets_what_an_image_had_that_did_not_come_to_the_kept_one(base: Path) -> None:
    describe(base, "a.png", who="x")
    describe(base, "a.bmp", "given", who="secret")
    erased = ids(base)["a.bmp"]
    dups(base, "--apply", move(base), *KEEP)
    assert "secret" in journal(base).read_text()
    run_cli("remove", base / "i.index", "--erase", base / "photos" / "raw" / "a.bmp")
    assert "secret" not in journal(base).read_text()
    assert erased not in journal(base).read_text()
    assert described(base, "a.png") == (("given",), {"who": "x"})
    dups(base, "--undo", journal(base).stem)
    assert described(base, "a.png") == (("given",), {"who": "x"})


def test_files_left_at_the_look_count(base: Path) -> None:
    changed = base / "photos" / "backup" / "b.png"
    changed.write_bytes(changed.read_bytes() + b"x")
    run = dups(base, "--apply", move(base), check=3)["run"]
    assert run["done"] == 3
    assert [one["path"] for one in run["skipped"]] == [str(changed)]
    assert "changed" in run["skipped"][0]["why"]
    assert run_cli("dups", base / "i.index", "--apply", "hardlink", check=3).stderr.count(f"left: {changed}") == 1


def test_a_damaged_journal_of_a_run_that_is_over_stops_no_other(base: Path) -> None:
    name = dups(base, "--apply", move(base))["run"]["name"]
    path = journal(base)
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in [*lines[:3], "half a li", *lines[3:]]))
    assert dups(base)["groups"] == []
    alone = ids(base)["alone.png"]
    run_cli("remove", base / "i.index", "--erase", base / "photos" / "2024" / "alone.png")
    assert alone not in ids(base).values()
    refused = run_cli("remove", base / "i.index", "--erase", base / "photos" / "2024" / "b.png", check=65).stderr
    assert "is damaged in line" in refused
    assert "is damaged in line" in run_cli("dups", base / "i.index", "--undo", name, check=65).stderr
    path.write_text("".join(f"{line}\n" for line in [*lines[:3], "half a li", *lines[3:-1]]))
    assert "is damaged in line" in run_cli("dups", base / "i.index", check=65).stderr


def test_folders_are_flushed_once_and_the_kept_files_own_before_a_file_goes(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def syncing(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", syncing)
    dups(base, "--apply", move(base), *KEEP)
    assert synced.count(base / "trash" / "photos") == 2  # for the folders `backup` and `raw` in it
    assert synced.count(base / "photos" / "2024") == 4


def test_no_draft_is_left_where_a_name_is_taken_meanwhile(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = base / "trash" / "photos" / "backup" / "b.png"

    def refusing(file: Path, to: Path) -> None:
        if to == taken:
            taken.write_bytes(b"mine")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refusing)
    (left,) = dups(base, "--apply", move(base), check=3)["run"]["skipped"]
    assert "is there already" in left["why"]
    assert taken.read_bytes() == b"mine"
    assert set_aside(base) == []


def test_no_empty_file_keeps_a_name_that_a_file_could_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "a").write_bytes(b"mine")
    monkeypatch.setattr(os, "link", refusing)
    monkeypatch.setattr(Path, "replace", refusing)
    with pytest.raises(PermissionError):
        files.put(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_commands_that_are_printed_can_be_pasted(base: Path, interrupt: Callable[[int], None]) -> None:
    index = base / "my index"
    (base / "i.index").rename(index)
    told = run_cli("dups", index, "--apply", move(base)).stdout
    assert shlex.split(told.partition("lookalike ")[2])[1] == str(index)
    run_cli(*shlex.split(told.partition("lookalike ")[2]))
    interrupt(1)
    run_cli("dups", index, "--apply", move(base), check=130)
    refused = run_cli("dups", index, "--apply", "delete", "--yes", check=2).stderr
    assert refused.replace("\n", "").count(shlex.quote(str(index))) == 2


def test_json_says_what_a_stopped_run_did(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    run = dups(base, "--apply", move(base), check=74)["run"]
    assert (run["done"], run["over"]) == (0, False)


def test_a_folder_that_is_made_is_its_owners_alone(base: Path) -> None:
    dups(base, "--apply", move(base))
    assert (base / "trash").stat().st_mode & 0o777 == 0o700


def test_undo_takes_no_equal_file_from_folder_that_was_there_before(
    base: Path, between: Callable[[Callable[[], object]], None]
) -> None:
    mine = base / "trash" / "photos" / "backup" / "b.png"

    def put() -> None:
        mine.parent.mkdir(parents=True)
        shutil.copyfile(base / "photos" / "backup" / "b.png", mine)

    between(put)
    name = dups(base, "--apply", move(base), check=3)["run"]["name"]
    assert dups(base, "--undo", name)["run"]["undone"] == 3
    assert mine.exists()
    assert (base / "photos" / "backup" / "b.png").exists()


def test_a_drive_that_flushes_no_folders_is_none_that_is_broken(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if place.is_dir() and place.is_relative_to(base / "photos"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    run = dups(base, "--apply", "delete", "--yes")["run"]
    assert (run["done"], run["skipped"]) == (4, [])


def test_a_file_whose_name_was_taken_comes_back_after_the_run_was_taken_back(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, other = found(base), base / "photos" / "backup" / "b.png"

    def taken(step: plan.Step) -> os.stat_result:
        if step.file == other:
            other.write_bytes(b"other")
            raise files.FileLeft("it has changed")
        return step.kept.lstat()

    with monkeypatch.context() as patched:
        patched.setattr(apply, "_check_stays", taken)
        run = dups(base, "--apply", "hardlink", check=3)["run"]
    (aside,) = set_aside(base)
    assert str(base / aside) in run["skipped"][0]["why"]
    dups(base, "--undo", run["name"])
    other.unlink()
    run_cli("dups", base / "i.index", "--undo", run["name"], check=2)
    assert found(base) == before
