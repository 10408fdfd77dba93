"""Promises of `dups`: what is a duplicate, what is kept and why, and that no file is lost however a run ends."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture, run_cli
from PIL import Image

from analysis.duplicates import runs
from analysis.duplicates.find import find, sha256_of
from analysis.duplicates.keep import parse_rules
from analysis.duplicates.plan import decide, plan
from analysis.errors import RuleInvalid
from analysis.labels import records
from search.index import Index


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder of pictures and their duplicates, and an index of it, to be copied."""
    base = tmp_path_factory.mktemp("dups")
    photos = base / "photos"
    for folder in ("2024", "backup", "raw"):
        (photos / folder).mkdir(parents=True)
    picture = draw_picture("red", "stripes", 0, size=200)
    picture.save(photos / "2024" / "stripes.jpg", quality=90)
    shutil.copyfile(photos / "2024" / "stripes.jpg", photos / "backup" / "stripes.jpg")
    shutil.copyfile(photos / "2024" / "stripes.jpg", photos / "backup" / "stripes (1).jpg")
    Image.open(photos / "2024" / "stripes.jpg").save(photos / "raw" / "stripes.png")
    Image.open(photos / "2024" / "stripes.jpg").save(photos / "raw" / "stripes.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: the pixels lie on their side in the file
    turned = Image.open(photos / "raw" / "stripes.png").transpose(Image.Transpose.ROTATE_90)
    turned.save(photos / "raw" / "stripes-turned.png", exif=exif)
    draw_picture("red", "stripes", 1, size=200).save(photos / "2024" / "another.png")
    draw_picture("blue", "circle", 0, size=200).save(photos / "2024" / "circle.png")
    os.link(photos / "2024" / "circle.png", photos / "backup" / "circle.png")  # one file, two names
    run_cli("build", photos, "--index", base / "photos.index", "--model", checkpoint)
    return base


@pytest.fixture
def base(library: Path, tmp_path: Path) -> Path:
    """The library as its own, at the path that its index knows."""
    kept = tmp_path / "kept"
    shutil.copytree(library, kept, symlinks=True)
    (kept / "photos" / "backup" / "circle.png").unlink()
    os.link(kept / "photos" / "2024" / "circle.png", kept / "photos" / "backup" / "circle.png")
    for path in sorted((kept / "photos").rglob("*")):
        shutil.copystat(library / path.relative_to(kept), path)
    run_cli("move-root", kept / "photos.index", library / "photos", kept / "photos")
    return kept


def content(base: Path) -> dict[str, str]:
    """The hash of every picture by its path under the base."""
    return {
        path.relative_to(base).as_posix(): sha256_of(path)
        for path in sorted(base.rglob("*"))
        if path.is_file() and "photos.index" not in path.parts
    }


def test_equal_files_and_equal_pixels_are_groups_of_their_own(base: Path) -> None:
    answer = json.loads(run_cli("dups", base / "photos.index", "--json").stdout)
    groups = [
        (
            group["tier"],
            {Path(path).relative_to(base / "photos").as_posix() for one in group["images"] for path in one["paths"]},
        )
        for group in answer["groups"]
    ]
    copies = {"2024/stripes.jpg", "backup/stripes.jpg", "backup/stripes (1).jpg"}
    assert groups == [
        ("bytes", copies),
        ("pixels", copies | {"raw/stripes.png", "raw/stripes.bmp", "raw/stripes-turned.png"}),
    ]
    assert answer["images"] == 5
    goes = {one["paths"][0] for group in answer["groups"] for one in group["images"] if not one["keep"]}
    assert answer["bytes"] == sum(Path(path).stat().st_size for path in goes)
    assert answer["run"] is None


def test_what_differs_in_opacity_frames_or_depth_is_no_duplicate(tmp_path: Path, checkpoint: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = draw_picture("green", "square", 0, size=120)
    picture.save(photos / "plain.png")
    opaque = picture.convert("RGBA")
    opaque.save(photos / "opaque.png")
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (*picture.getpixel((0, 0)), 254))  # type: ignore[misc]
    clear.save(photos / "clear.png")
    picture.save(photos / "moving.png", save_all=True, append_images=[draw_picture("red", "circle", 0, size=120)])
    grey = Image.fromarray(np.full((90, 90), 77 * 257, dtype=np.uint16))
    grey.save(photos / "deep.png")
    Image.fromarray(np.full((90, 90), 77, dtype=np.uint8)).save(photos / "shallow.png")
    run_cli("build", photos, "--index", tmp_path / "photos.index", "--model", checkpoint)
    answer = json.loads(run_cli("dups", tmp_path / "photos.index", "--json").stdout)
    groups = [sorted(Path(one["paths"][0]).name for one in group["images"]) for group in answer["groups"]]
    assert groups == [["opaque.png", "plain.png"]]


@pytest.mark.parametrize(
    ("rules", "kept", "why"),
    [
        ("folder:backup", "backup/stripes.jpg", "in backup"),
        ("folder:*/backup/*(1)*,oldest", "backup/stripes (1).jpg", "in */backup/*(1)*"),
        ("format", "raw/stripes.png", "the better format"),
        ("bytes", "raw/stripes.bmp", "the larger file"),
    ],
)
def test_rules_say_what_is_kept_and_why(base: Path, rules: str, kept: str, why: str) -> None:
    command = ["dups", base / "photos.index", "--tier", "pixels", "--keep", rules, "--json"]
    (group,) = json.loads(run_cli(*command).stdout)["groups"]
    (first,) = (one for one in group["images"] if one["why"] == why)
    assert first["paths"] == [str(base / "photos" / kept)]
    assert first["keep"]


def test_rules_that_are_none_are_refused(base: Path) -> None:
    with pytest.raises(RuleInvalid, match="newest"):
        parse_rules("resolution,newest")
    assert "Rules are" in run_cli("dups", base / "photos.index", "--keep", "folder:", check=2).stderr
    assert "bytes, pixels" in run_cli("dups", base / "photos.index", "--tier", "photo", check=2).stderr


def test_protected_files_stay_and_are_kept_before_others(base: Path) -> None:
    command = ["dups", base / "photos.index", "--keep", "format", "--protect", "backup", "--json"]
    answer = json.loads(run_cli(*command).stdout)
    goes = {one["paths"][0] for group in answer["groups"] for one in group["images"] if not one["keep"]}
    assert not any("backup" in path for path in goes)
    assert len(goes) == 4


def apply(base: Path, action: str, *words: str, check: int = 0) -> dict[str, object]:
    command = ["dups", base / "photos.index", "--apply", action, *words, "--json"]
    answer: dict[str, object] = json.loads(run_cli(*command, check=check).stdout)
    return answer


@pytest.mark.parametrize("action", ["move", "hardlink", "delete"])
def test_what_goes_goes_and_comes_back(base: Path, action: str) -> None:
    before = content(base)
    words = ["--yes"] if action == "delete" else []
    answer = apply(base, f"move={base / 'trash'}" if action == "move" else action, *words)
    run = answer["run"]
    assert isinstance(run, dict)
    assert run["done"] == (2 if action == "hardlink" else 5)
    after = content(base)
    assert (
        set(after.values()) == set(before.values())
        if action != "delete"
        else set(after.values()) < set(before.values())
    )
    if action == "hardlink":
        assert after == before
        paths = [
            base / "photos" / name for name in ("2024/stripes.jpg", "backup/stripes.jpg", "backup/stripes (1).jpg")
        ]
        assert len({path.stat().st_ino for path in paths}) == 1
    else:
        found = json.loads(run_cli("dups", base / "photos.index", "--json").stdout)
        assert found["groups"] == []
    if action == "delete":
        assert "backup" in run_cli("dups", base / "photos.index", "--undo", str(run["name"]), check=2).stderr
        return
    back = json.loads(run_cli("dups", base / "photos.index", "--undo", str(run["name"]), "--json").stdout)
    assert back["run"]["undone"] == run["done"]
    assert content(base) == before
    again = json.loads(run_cli("dups", base / "photos.index", "--json").stdout)
    assert again["images"] == 5
    assert "No duplicates" not in run_cli("dups", base / "photos.index").stdout


def test_labels_and_metadata_of_what_goes_come_to_what_stays(base: Path) -> None:
    with Index.open(base / "photos.index", writable=True) as index:
        ids = {Path(record.paths[0]).name: record.id for record in records(index)}
        with index.writer() as writer:
            writer.describe(ids["stripes.png"], labels=["mine", "both"], metadata={"rating": 1, "place": "Rome"})
            writer.describe(ids["stripes.bmp"], labels=["both", "other"], metadata={"rating": 5, "city": "Oslo"})
    answer = apply(base, f"move={base / 'trash'}", "--tier", "pixels", "--keep", "format")
    with Index.open(base / "photos.index") as index:
        record = index.image(ids["stripes.png"])
        assert record.labels == ("both", "mine", "other")
        assert record.metadata == {"rating": 1, "place": "Rome", "city": "Oslo"}
        assert index.image(ids["stripes.bmp"]).missing
    run = answer["run"]
    assert isinstance(run, dict)
    run_cli("dups", base / "photos.index", "--undo", str(run["name"]))
    with Index.open(base / "photos.index") as index:
        assert index.image(ids["stripes.png"]).metadata == {"rating": 1, "place": "Rome"}
        assert not index.image(ids["stripes.bmp"]).missing


def test_files_that_changed_since_the_build_are_left(base: Path) -> None:
    changed = base / "photos" / "backup" / "stripes.jpg"
    data = bytearray(changed.read_bytes())
    data[-3] ^= 1
    changed.write_bytes(data)  # of the same size
    answer = apply(base, f"move={base / 'trash'}", "--tier", "bytes", check=3)
    run = answer["run"]
    assert isinstance(run, dict)
    assert [Path(one["path"]).name for one in run["skipped"]] == ["stripes.jpg"]
    assert changed.read_bytes() == data


def test_a_folder_that_is_indexed_takes_no_duplicates(base: Path) -> None:
    refused = run_cli("dups", base / "photos.index", "--apply", f"move={base / 'photos' / 'trash'}", check=2)
    assert "Name a folder elsewhere" in refused.stderr
    assert "--yes" in run_cli("dups", base / "photos.index", "--apply", "delete", check=2).stderr
    for wrong in ("move", "shred", "hardlink=x"):
        assert "move=FOLDER" in run_cli("dups", base / "photos.index", "--apply", wrong, check=2).stderr
    assert "There is no run" in run_cli("dups", base / "photos.index", "--undo", "../x", check=2).stderr


class Killed(BaseException):
    """Instead of the process's death: nothing catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["move", "copy", "hardlink", "delete"])
def test_a_run_that_ends_anywhere_loses_nothing_and_goes_on(
    base: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk is the last one, once; then the same command is given again."""
    before, index_path, saved = content(base), base / "photos.index", base.parent / "saved"
    shutil.copytree(base / "photos", saved)
    calls = (
        "os.link",
        "os.fsync",
        "pathlib.Path.unlink",
        "pathlib.Path.replace",
        "pathlib.Path.rename",
        "shutil.copy2",
    )
    count, last = 0, 0

    def watched(call: object) -> object:
        def run(*words: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == last:
                raise Killed
            return call(*words, **options)  # type: ignore[operator]

        return run

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    with Index.open(index_path) as index:
        decisions = decide(find(index, ["bytes", "pixels"], skipped=print), parse_rules("format"))
    folder = base / "trash" if action in ("move", "copy") else None
    kind = "move" if action == "copy" else action
    while True:
        last += 1
        with Index.open(index_path, writable=True) as index, monkeypatch.context() as patched:
            if action == "copy":
                patched.setattr("analysis.duplicates.runs.os.link", no_links)
            for name in calls[1:] if action == "copy" else calls:
                module, _, attribute = name.rpartition(".")
                owner = {"os": os, "shutil": shutil, "pathlib.Path": Path}[module]
                patched.setattr(owner, attribute, watched(getattr(owner, attribute)))
            count = 0
            try:
                with index.writer() as writer:
                    run = runs.unfinished(index) or runs.new_run(index, kind, plan(decisions, kind, folder)[-2:])  # type: ignore[arg-type]
                    runs.Applying(writer, run).apply()
                ended = True
            except Killed:
                ended = False
        now = content(base)
        if action != "delete":
            assert set(now.values()) >= set(before.values())  # half a copy may be there besides
        assert now["photos/raw/stripes.png"] == before["photos/raw/stripes.png"]
        with Index.open(index_path, writable=True) as index, index.writer() as writer:
            going_on = runs.unfinished(index)
            if going_on is not None:
                runs.Applying(writer, going_on).apply()
            elif not ended:
                continue_with = [*runs_of(index)]
                assert all(one.finished for one in continue_with)
        done = content(base)
        assert {path: digest for path, digest in done.items() if not Path(path).name.startswith(".")} == done
        if action == "delete":
            restore(base, saved)
        else:
            with Index.open(index_path, writable=True) as index, index.writer() as writer:
                for one in runs_of(index):
                    if one.done - one.undone:
                        runs.Applying(writer, one).undo()
            assert content(base) == before
        shutil.rmtree(base / "trash", ignore_errors=True)
        shutil.rmtree(index_path / runs.FOLDER, ignore_errors=True)
        if ended:
            break
    assert last > 10


def restore(base: Path, saved: Path) -> None:
    """Put deleted files back, and tell the index."""
    back = [
        path.relative_to(saved)
        for path in saved.rglob("*.*")
        if not (base / "photos" / path.relative_to(saved)).exists()
    ]
    for path in back:
        shutil.copy2(saved / path, base / "photos" / path)
    with (
        Index.open(base / "photos.index", writable=True) as index,
        index.writer() as writer,
        writer.transaction() as transaction,
    ):
        transaction.mark_missing(str(base / "photos"), [path.as_posix() for path in back], missing=False)


def runs_of(index: Index) -> list[runs.Run]:
    return [runs.read_run(path) for path in sorted((index.path / runs.FOLDER).glob("*.jsonl"))]
