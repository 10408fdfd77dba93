"""Promises about which files of a folder are taken, which are left out, and what a build says of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from conftest import draw_picture, run_cli

from indexer.folders import Choice, LeftOut, LinkedFolder, scan
from indexer.omissions import FOLDERS
from indexer.sources import Source
from search.types import Location

Build = Callable[..., dict[str, Any]]
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path) -> Build:
    """Builds `test.index`; returns the answer of `--json`."""

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        model = () if (tmp_path / "test.index").exists() else ("--model", checkpoint)
        command = ("build", *arguments, "--index", tmp_path / "test.index", "--json", *model)
        answer: dict[str, Any] = json.loads(run_cli(*command, check=code).stdout)
        return answer

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    draw_picture("red", "circle", 0).save(tmp_path / "photos" / "photo.png")
    return tmp_path / "photos"


def put(folder: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def taken(root: Path, choice: Choice | None = None, prefix: str = "") -> list[str]:
    found = scan(Source(root=root, prefix=prefix), choice or Choice())
    return [entry.path for entry in found if isinstance(entry, Location)]


JUNK = (
    "2024/@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "2025/@eaDir/IMG_2.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/deleted.jpg",
    "@Recycle/deleted.jpg",
    "$RECYCLE.BIN/S-1-5-21/$RABC123.jpg",
    "#snapshot/GMT-01/2024/IMG_0.jpg",
    "@Recently-Snapshot/a/IMG_0.jpg",
    "~snapshot/hourly.0/IMG_0.jpg",
    ".zfs/snapshot/auto/IMG_0.jpg",
    "lost+found/#123.jpg",
    "FOUND.000/a.jpg",
    "System Volume Information/a.jpg",
    ".@__thumb/defaultIMG_1.jpg",
    ".Trash-1000/files/x.jpg",
    "__MACOSX/2024/IMG_1.jpg",
    "Photos Library.photoslibrary/resources/derivatives/1/1_105_c.jpeg",
    "iPhoto Library.photolibrary/Thumbnails/2013/a.jpg",
    "appdata_oc1/preview/a/b/1/256-192-max.jpg",
    "data/ann/files_trashbin/files/a.jpg.d1700000000",
    "data/ann/files_versions/a.jpg.v1700000000",
    "Lightroom/Catalog Previews.lrdata/A/a.jpg",
    "2024/CaptureOne/Cache/Thumbnails/a.jpg",
    "immich/thumbs/u/aa/bb/preview.jpeg",
    "storage/cache/thumbnails/a/b/c.jpg",
    "build/cache/a.jpg",
    "M4ROOT/THMBNL/C0001T01.JPG",
    "photo.jpg.download/photo.jpg",
)
KEPT = (
    "2024/CaptureOne/exported.jpg",
    "Cache/of wine.jpg",
    "Photos Library.photoslibrary/originals/1/A.jpeg",
    "data/ann/files/a.jpg",
    "iPhoto Library.photolibrary/Masters/2013/a.jpg",
    "preview/a.jpg",
    "thumbs/up.jpg",
)


def test_thumbnails_trash_and_snapshots_are_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, *JUNK, *KEPT)
    put(tmp_path, "immich/thumbs/.immich", "storage/.ppstorage", "build/cache/CACHEDIR.TAG", data=b"")
    assert taken(tmp_path) == sorted(KEPT)
    left = [entry for entry in scan(Source(root=tmp_path)) if isinstance(entry, LeftOut)]
    assert all(entry.rule.why for entry in left)
    hidden = sum(name.startswith(".") for name in JUNK)
    assert len(left) == len(JUNK) - hidden
    everything = taken(tmp_path, Choice(all_folders=True))
    assert everything == sorted(name for name in (*JUNK, *KEPT) if not name.startswith("."))
    assert len({(rule.name, rule.inside, rule.holds) for rule in FOLDERS}) == len(FOLDERS)


def test_a_folder_that_the_user_names_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    put(tmp_path, "#recycle/deleted.jpg", "#recycle/@eaDir/a.jpg", "L.photoslibrary/originals/a.jpg")
    put(tmp_path, "L.photoslibrary/resources/a.jpg")
    assert taken(tmp_path / "#recycle") == ["deleted.jpg"]
    assert taken(tmp_path, prefix="#recycle/") == ["#recycle/deleted.jpg"]
    assert taken(tmp_path / "L.photoslibrary") == ["originals/a.jpg"]


def test_a_build_says_which_folders_it_left_out_and_how_to_take_them(photos: Path, build: Build) -> None:
    for year in range(7):
        put(photos, f"{year}/@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg")
    put(photos, "#recycle/deleted.jpg")
    answer = build(photos)
    assert (answer["added"], answer["failed"], answer["ignored"]) == (1, [], 0)
    told = {left["name"]: (left["count"], len(left["paths"])) for left in answer["left_out"]}
    assert told == {"@eaDir": (7, 5), "#recycle": (1, 1)}
    assert build(photos, "--dry-run")["left_out"] == answer["left_out"]
    printed = run_cli("build", photos, "--index", answer["index"]).stderr
    assert "7 x @eaDir (thumbnails of a Synology NAS)" in printed
    assert "--all-folders" in printed
    shutil.rmtree(photos / "0")
    answer = build(photos, "--all-folders", code=3)
    assert answer["left_out"] == []
    assert len(answer["failed"]) == 7


@pytest.mark.slow
def test_halves_of_downloads_and_resource_forks_are_named_and_no_failures(photos: Path, build: Build) -> None:
    picture = (photos / "photo.png").read_bytes()
    half, fork = picture[: len(picture) // 2], b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000)
    unfinished = (
        "a.jpg.part",
        "b.crdownload",
        "c.jpg.partial",
        "d.tmp",
        "~$e.png",
        "f.jpg.!qB",
        "g.jpg.ab12cd34.partial",
    )
    put(photos, *unfinished, "video.THM", "~syncthing~h.png.tmp", data=picture)
    put(photos, "aria.png", data=half)
    put(photos, "aria.png.aria2", data=b"x")
    put(photos, "notes.part", "empty.txt", data=b"text")
    put(photos, "empty.png", data=b"")
    put(photos, "_fork.jpg", "fork.png", "._hidden.jpg", data=fork)
    foreseen = build(photos, "--dry-run")  # without an index
    assert (foreseen["added"], foreseen["failed"]) == (3, []), "all but what its bytes say"
    for _ in range(2):  # also the second time
        answer = build(photos)
        assert answer["failed"] == []
        left = [Path(path).name for left in answer["left_out"] for path in left["paths"]]
        named = {*unfinished, "video.THM", "~syncthing~h.png.tmp", "aria.png", "empty.png", "_fork.jpg", "fork.png"}
        assert sum(found["count"] for found in answer["left_out"]) == len(named)
        assert set(left) <= named
        assert answer["added"] + answer["unchanged"] == 1
        assert answer["ignored"] == 4  # not pictures by their beginning either
        info = json.loads(run_cli("info", answer["index"], "--json").stdout)
        assert info["failures"] == 0
    draw_picture("blue", "square", 1).save(photos / "empty.png")
    assert build(photos)["added"] == 1, "a copy that came in the end"
    put(photos, "empty.png", data=b"")
    assert build(photos, "--prune")["left_out"]
    listed = build(photos / "a.jpg.part")
    assert listed["added"] == 1, "named by its user, it is taken"


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A library whose albums are links: inside of it, out of it, in circles, and twice to the same folder."""
    put(tmp_path, "lib/c.jpg", "lib/real/a.jpg", "other/b.jpg", "other/deep/d.jpg")
    (tmp_path / "lib" / "albums").mkdir()
    for name, target in {
        "albums/2022": "../../other",
        "albums/again": "../../other",
        "albums/best": "../real",
        "albums/parent": "../..",
        "loop": ".",
    }.items():
        (tmp_path / "lib" / name).symlink_to(target, target_is_directory=True)
    (tmp_path / "other" / "back").symlink_to("../lib", target_is_directory=True)
    return tmp_path / "lib"


def test_links_to_folders_are_named(linked: Path) -> None:
    assert taken(linked) == ["c.jpg", "real/a.jpg"]
    found = [entry.path for entry in scan(Source(root=linked)) if isinstance(entry, LinkedFolder)]
    assert found == ["albums/2022", "albums/again", "albums/best", "albums/parent", "loop"]


def test_links_to_folders_are_followed_once_and_never_in_circles(linked: Path) -> None:
    choice = Choice(follow_links=True)
    assert taken(linked, choice) == ["c.jpg", "real/a.jpg", "albums/2022/b.jpg", "albums/2022/deep/d.jpg"]
    assert not [entry for entry in scan(Source(root=linked), choice) if isinstance(entry, LinkedFolder)]
    index = linked.parent / "other"  # the index itself is not entered through a link either
    assert taken(linked, Choice(follow_links=True, skip=frozenset({index}))) == ["c.jpg", "real/a.jpg"]


def test_a_build_names_links_to_folders(tmp_path: Path, photos: Path, build: Build) -> None:
    (tmp_path / "album").mkdir()
    draw_picture("blue", "square", 1).save(tmp_path / "album" / "b.png")
    (photos / "linked").symlink_to(tmp_path / "album", target_is_directory=True)
    answer = build(photos)
    assert (answer["added"], answer["ignored"]) == (1, 0)
    assert answer["linked_folders"] == [str(photos / "linked")]
    printed = run_cli("build", photos, "--index", answer["index"]).stderr
    assert "1 link to folders not entered (--follow-links" in printed
    assert "linked" in printed
    answer = build(photos, "--follow-links", "--label-from-folder")
    assert (answer["added"], answer["linked_folders"]) == (1, [])
    found = run_cli("search", tmp_path / "album" / "b.png", "--index", answer["index"], "-k", "1").stdout
    assert found.endswith(f"{photos / 'linked' / 'b.png'}  [linked]\n")


@pytest.fixture
def very_deep(tmp_path: Path) -> Iterator[Path]:
    """A tree 3,000 folders deep, far beyond the longest path that a system call takes."""
    root = tmp_path / "deep"
    root.mkdir()
    before = os.open(".", os.O_RDONLY)
    os.chdir(root)
    for level in range(3000):
        if level in (1200, 2999):
            draw_picture("blue", "square", level % 7).save("deep.png")
        Path("d").mkdir()
        os.chdir("d")
    os.fchdir(before)
    os.close(before)
    yield root
    subprocess.run(["rm", "-rf", root], check=True)  # Python's own way is recursive


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such paths")
def test_folders_thousands_deep_are_one_failure_and_the_rest_is_indexed(very_deep: Path, build: Build) -> None:
    draw_picture("red", "circle", 0).save(very_deep / "ok.png")
    answer = build(very_deep, "--label-from-folder", code=3)
    assert answer["added"] == 2
    assert [failed["reason"] for failed in answer["failed"]] == ["folder: File name too long"]


def test_exclusions_match_accents_and_brackets_as_people_type_them(tmp_path: Path) -> None:
    put(tmp_path, normalize("NFD", "Café/a.jpg"), "[2023] trip/b.jpg", "c.jpg")
    assert taken(tmp_path, Choice(exclude=("Café", "[2023] trip/*"))) == ["c.jpg"]
    assert len(taken(tmp_path, Choice(exclude=("[a-c].jpg",)))) == 0


def test_a_listed_path_that_is_too_long_is_one_failure(tmp_path: Path) -> None:
    long = "d/" * 3000 + "a.jpg"
    put(tmp_path, "a.jpg")
    found = list(scan(Source(root=tmp_path, paths=("a.jpg", long, "x" * 300 + ".jpg"))))
    assert [type(entry).__name__ for entry in found] == ["Location", "Failure", "Failure"]


def test_what_is_left_out_now_does_not_stay_in_the_index(photos: Path, build: Build) -> None:
    (photos / "#recycle").mkdir()
    draw_picture("blue", "square", 1).save(photos / "#recycle" / "deleted.png")
    index = build(photos, "--all-folders")["index"]
    asked = ("search", photos / "photo.png", "--index", index, "--paths")
    assert "deleted.png" in run_cli(*asked).stdout
    assert build(photos, "--prune")["removed"] == 1
    assert "deleted.png" not in run_cli(*asked).stdout


def test_what_is_named_inside_another_source_is_taken_and_survives_pruning(photos: Path, build: Build) -> None:
    named = (photos / ".hidden", photos / "@eaDir" / "deep", photos / "@eaDir" / ".one.png")
    for number, folder in enumerate((named[0], named[1], photos / "@eaDir", photos / "@eaDir" / "other")):
        folder.mkdir(parents=True, exist_ok=True)
        draw_picture("blue", "square", number).save(folder / f"{number}.png")
    draw_picture("red", "square", 9).save(named[2])
    for options in ((), ("--prune",), ("--follow-links", "--prune")):
        answer = build(photos, *named, *options)
        index = answer["index"]
        found = run_cli("search", photos / "photo.png", "--index", index, "--paths").stdout.split("\n")
        assert sorted(Path(path).name for path in found if path) == [".one.png", "0.png", "1.png", "photo.png"]
        assert [left["name"] for left in answer["left_out"]] == ["@eaDir"]
    answer = build(photos, "--prune")
    assert answer["removed"] == 3
