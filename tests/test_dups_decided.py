"""Promises of decisions about duplicates: what was called no duplicate stays so, and is in no group with the other."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from albums import Album
from conftest import image_id, run_cli, vectors
from PIL import Image
from test_photo import scene

from analysis.duplicates.decided import Apart
from analysis.duplicates.medoids import around_medoids
from analysis.labels import records
from search.catalog.decisions import NotDuplicates
from search.index import Index
from search.types import ImageFacts, ImageRecord
from search.upkeep.backup import backup
from search.upkeep.verify import verify

pytest_plugins = ("duplicates_fixtures",)
MakeIndex = Callable[..., Index]


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """`a.png` with a copy, the same pixels as BMP and TIFF, and something else."""
    made = Album(tmp_path)
    made.draw("a.png", "alone.png")
    shutil.copyfile(made.photos / "a.png", made.photos / "copy.png")
    for kind in ("bmp", "tif"):
        Image.open(made.photos / "a.png").save(made.photos / f"a.{kind}")
    made.build()
    return made


@pytest.fixture
def sizes(tmp_path: Path) -> Album:
    """A photo in three sizes."""
    made = Album(tmp_path)
    for width in (400, 300, 200):
        scene(1).resize((width, width * 3 // 4)).save(made.photos / f"p{width}.jpg", quality=90)
    made.build()
    return made


def groups(album: Album, *tiers: str) -> list[tuple[str, dict[str, bool]]]:
    """The tier of each group, and which of its files stays."""
    words = [word for tier in tiers for word in ("--tier", tier)]
    found: list[dict[str, Any]] = json.loads(run_cli("dups", album.index.path, *words, "--json").stdout)["groups"]
    return [(one["tier"], {Path(it["paths"][0]).name: it["keep"] for it in one["images"]}) for one in found]


def dups(album: Album, *words: str | Path, check: int = 0) -> Any:
    ended = run_cli("dups", album.index.path, *words, "--json", check=check)
    return json.loads(ended.stdout) if check == 0 else ended.stderr


def test_photos_called_no_duplicates_are_in_no_group_together(sizes: Album) -> None:
    album, photos = sizes, sizes.photos
    assert dups(album, photos / "p400.jpg", photos / "p200.jpg", "--not-duplicates")["pairs"] == 1
    assert dups(album, photos / "p400.jpg", photos / "p200.jpg", "--not-duplicates")["pairs"] == 0, "known already"
    ((_, files),) = groups(album, "photo")
    assert len(files) == 2
    assert "p300.jpg" in files
    assert dups(album, photos / "p400.jpg", "--forget")["pairs"] == 1
    assert [sorted(files) for _, files in groups(album, "photo")] == [["p200.jpg", "p300.jpg", "p400.jpg"]]


def blank(count: int) -> dict[int, ImageRecord]:
    """Images of which nothing counts but their ids: their numbers."""
    facts = ImageFacts(width=1, height=1, format="png", bytes=1)
    return {
        number: ImageRecord(id=str(number), facts=facts, paths=(), path_count=0, missing=False, labels=(), metadata={})
        for number in range(count)
    }


@pytest.mark.parametrize(
    ("apart", "groups"),
    [
        ([(0, 1)], [(0, {2: 0.9}), (1, {3: 0.9})]),  # 3 never was in a group with 0
        ([(0, 1), (0, 2)], [(1, {3: 0.9})]),  # nothing stays with 0
        ([(1, 2)], [(0, {1: 0.9})]),
        ([], [(0, {1: 0.9, 2: 0.9})]),
        ([(4, 5), (0, 0)], [(0, {1: 0.9, 2: 0.9})]),  # one is not there; copies of 0 are wanted
    ],
)
def test_members_that_are_apart_find_groups_of_their_own(apart: list[tuple[int, int]], groups: list[Any]) -> None:
    pairs = [(0, 1, 0.9), (0, 2, 0.9), (1, 3, 0.9)]
    unlike = Apart((str(one), str(other)) for one, other in apart).among(blank(5))
    assert around_medoids(pairs, lambda _, others: [0.0] * len(others), apart=unlike) == groups


def test_a_decision_parts_two_of_a_large_group() -> None:
    count = 20_000
    images, apart = blank(count), Apart([("1", "3"), ("a", "b")])
    pairs = [(0, one, 1.0) for one in range(1, count)]
    ((_, stays),) = around_medoids(pairs, lambda _, others: [0.0] * len(others), apart=apart.among(images))
    assert {*range(1, count)} - {*stays} == {3}
    assert apart.named(record.id for record in images.values()) == {"1", "3"}


def test_equal_pixels_that_are_wanted_stay_and_others_go(album: Album) -> None:
    photos = album.photos
    dups(album, photos / "a.bmp", photos / "a.tif", "--not-duplicates")
    ((tier, files),) = groups(album, "pixels")
    assert (tier, files) == ("pixels", {"a.png": False, "copy.png": False, "a.bmp": True, "a.tif": True})
    shown = run_cli("dups", album.index.path, "--tier", "pixels").stdout
    assert "(named in a decision)" in shown
    dups(album, photos / "a.bmp", photos / "a.tif", photos / "a.png", "--not-duplicates")
    assert groups(album, "pixels") == []


def test_wanted_copies_of_one_image_are_not_extra(album: Album) -> None:
    photos = album.photos
    assert [tier for tier, _ in groups(album)] == ["bytes", "pixels"]
    dups(album, photos / "a.png", photos / "copy.png", "--not-duplicates")
    ((tier, files),) = groups(album)
    assert (tier, files) == ("pixels", {"a.png": True, "copy.png": True, "a.bmp": False, "a.tif": False})
    moved = album.photos.parent / "gone"
    run_cli("dups", album.index.path, "--apply", f"move={moved}")
    assert {path.name for path in moved.rglob("*.*")} == {"a.bmp", "a.tif"}


@pytest.mark.parametrize("other", ["a.bmp", "alone.png"])
def test_every_file_of_a_named_picture_stays(album: Album, other: str) -> None:
    photos = album.photos
    dups(album, photos / "copy.png", photos / other, "--not-duplicates")
    stays = {path.name for path in photos.iterdir()} - ({"a.tif"} if other == "a.bmp" else {"a.bmp", "a.tif"})
    listed = dups(album)["groups"]
    assert [group["tier"] for group in listed] == ["pixels"], "its copies are wanted too"
    for it in listed[0]["images"]:
        assert it["keep"] is (Path(it["paths"][0]).name in stays), it
        assert it["keep"] or it["why"] is None, "no reason to keep what may go"
    dups(album, "--apply", "delete", "--yes")
    assert {path.name for path in photos.iterdir()} == stays


@pytest.mark.parametrize("steps", [0, 1])
def test_a_resumed_run_leaves_what_was_called_no_duplicate_since(
    album: Album, interrupt: Callable[[int], None], steps: int
) -> None:
    photos = album.photos
    interrupt(steps)
    run_cli("dups", album.index.path, "--apply", "delete", "--yes", check=130)
    there = {path.name for path in photos.iterdir()}
    assert len(there) == 5 - steps
    (left, *_) = sorted(there & {"a.bmp", "a.tif"})
    dups(album, photos / left, photos / "a.png", "--not-duplicates")
    interrupt(-1)
    ended = run_cli("dups", album.index.path, "--apply", "delete", "--yes", "--json", check=3)
    skipped = {Path(one["path"]).name: one["why"] for one in json.loads(ended.stdout)["run"]["skipped"]}
    assert skipped[left] == "it was called no duplicate since"
    assert {left, "a.png", "alone.png"} <= {path.name for path in photos.iterdir()}
    assert {"copy.png", *skipped} & there <= {path.name for path in photos.iterdir()}


def test_decisions_outlive_removal_and_a_later_build(sizes: Album) -> None:
    album, photos = sizes, sizes.photos
    dups(album, photos / "p400.jpg", photos / "p300.jpg", photos / "p200.jpg", "--not-duplicates")
    run_cli("remove", album.index.path, photos / "p400.jpg")
    (photos / "p300.jpg").rename(photos.parent / "p300.jpg")
    album.build(prune=True)
    assert not {"p400.jpg", "p300.jpg"} & album.names()
    (photos.parent / "p300.jpg").rename(photos / "renamed.jpg")
    album.build(readd=True)
    run_cli("rebuild", album.index.path)
    assert {"p400.jpg", "renamed.jpg"} <= album.names()
    assert groups(album, "photo") == []


def test_decisions_are_listed_and_forgotten_of_removed_images_too(album: Album) -> None:
    photos = album.photos
    dups(album, photos / "a.bmp", photos / "alone.png", "--not-duplicates")
    dups(album, photos / "a.png", photos / "copy.png", "--not-duplicates")
    removed = hashlib.sha256((photos / "a.bmp").read_bytes()).hexdigest()
    run_cli("remove", album.index.path, photos / "a.bmp")
    listed = dups(album, "--decisions")["decisions"]
    found = sorted((held["kind"], sorted(len(one["paths"]) for one in held["images"])) for held in listed)
    assert found == [("copies-wanted", [2]), ("not-duplicates", [0, 1])]
    shown = run_cli("dups", album.index.path, "--decisions").stdout
    assert f"{removed} (not in the index now)" in shown
    assert ".png  (all copies are wanted)\n" in shown
    assert shown.splitlines()[-2:] == [
        "1 pair of images that are not duplicates.",
        "1 image of which all copies are wanted.",
    ]
    assert dups(album, removed, "--forget")["pairs"] == 1
    assert len(dups(album, "--decisions")["decisions"]) == 1
    assert "pair" not in run_cli("dups", album.index.path, "--decisions").stdout
    dups(album, photos / "a.png", "--forget")
    assert run_cli("dups", album.index.path, "--decisions").stdout == "No decisions.\n"


def test_files_of_one_image_stay_because_of_their_picture(album: Album) -> None:
    shutil.copyfile(album.photos / "copy.png", album.photos / "copy2.png")
    album.build()
    dups(album, album.photos / "copy.png", "--not-duplicates")
    told = run_cli("dups", album.index.path, "--tier", "bytes").stdout
    assert "2 files stay because a decision names their picture. To take that back:" in told


def test_a_listing_says_what_stays_by_decisions_and_how_to_take_them_back(album: Album, tmp_path: Path) -> None:
    photos, index = album.photos, album.index.path
    assert dups(album)["spared"] == []
    dups(album, photos / "a.bmp", photos / "alone.png", "--not-duplicates")
    dups(album, photos / "a.tif", photos / "alone.png", "--not-duplicates")
    told = run_cli("dups", index, "--tier", "pixels").stdout.splitlines()[-1]
    assert told.startswith("2 files stay because a decision names their pictures.")
    assert f"To list decisions: lookalike dups {index} --decisions. To take back those about a picture:" in told
    for name in ("a.bmp", "a.tif"):
        dups(album, photos / name, "--forget")
    dups(album, photos / "copy.png", photos / "alone.png", "--not-duplicates")
    (spared,) = dups(album, "--tier", "bytes")["spared"]
    told = run_cli("dups", index, "--tier", "bytes", "--report", tmp_path / "dups.html").stdout
    why = "1 file stays because a decision names its picture. To take that back:"
    command = f"lookalike dups {index} {spared['paths'][0]} --forget"
    assert told == f"No other duplicates.\n{why} {command}\n"
    assert f"<p>{why} {command}</p>" in (tmp_path / "dups.html").read_text()
    ended = run_cli("dups", index, "--tier", "bytes", "--apply", "delete", "--yes").stdout
    assert ended == f"{why} {command}\nThere is nothing to let go.\n"
    run_cli(*command.split()[1:])
    assert (len(dups(album)["groups"]), dups(album)["spared"]) == (2, [])


def test_all_copies_of_one_picture_are_wanted(album: Album) -> None:
    photos, index = album.photos, album.index.path
    told = run_cli("dups", index, photos / "copy.png", "--not-duplicates").stdout
    assert told == "All files of this image are wanted: from now on none is extra.\n"
    assert groups(album) == [("pixels", {"a.png": True, "copy.png": True, "a.bmp": False, "a.tif": False})]
    assert dups(album, photos / "a.png", "--not-duplicates")["pairs"] == 0, "it is the same image"
    assert dups(album, photos / "a.png", photos / "copy.png", "--forget")["pairs"] == 1


def test_answers_say_all_that_was_decided_and_what_stays(album: Album) -> None:
    photos, index = album.photos, album.index.path
    files = [photos / name for name in ("a.png", "copy.png", "a.bmp")]
    told = run_cli("dups", index, *files, "--not-duplicates").stdout.splitlines()
    assert told == [
        "These 2 images are not duplicates of each other. From now on no file of theirs is extra.",
        "Of 1 image you named equal files: that copies are wanted is a decision of its own.",
    ]
    assert run_cli("dups", index, *files[1:], "--forget").stdout.splitlines() == [
        "1 decision forgotten.",
        "1 decision about these images stays. To forget all of one image's, name it alone.",
    ]
    assert run_cli("dups", index, files[0], "--forget").stdout == "1 decision forgotten.\n"


def test_many_decisions_are_listed_in_part(make_index: MakeIndex) -> None:
    index = make_index(vectors(12))
    with index.writer() as writer:
        writer.set_not_duplicates([image_id(number) for number in range(12)])
    shown = run_cli("dups", index.path, "--decisions").stdout.splitlines()
    more, counted = "... and 16 more decisions; --json lists all", "66 pairs of images that are not duplicates."
    assert shown[-2:] == [more, counted]
    assert len(shown) == 2 * 50 + 2
    of_one = index.catalog.decisions([image_id(3)])
    assert len(of_one) == 11
    assert all(image_id(3) in held for held in of_one)


def test_words_that_say_nothing_are_refused(album: Album) -> None:
    photos = album.photos
    assert "up to 100 images" in dups(album, *[photos / "a.png"] * 101, "--not-duplicates", check=2)
    assert "no image" in dups(album, photos / "a.png", photos / "missing.png", "--not-duplicates", check=2)
    assert "no image" in dups(album, photos / "missing.png", "--forget", check=2)
    assert "was named without either" in dups(album, photos / "a.png", check=2)
    assert "works only alone" in dups(album, photos / "a.png", "--forget", "--tier", "bytes", check=2)
    told = run_cli("dups", photos / "a.png", photos / "a.bmp", "--not-duplicates", check=2).stderr
    assert "Name the index first" in told
    assert "a.bmp --not-duplicates" in " ".join(told.split()), "all of the command, to be copied"
    assert album.index.catalog.decisions() == []


def test_erase_strikes_decisions_and_a_backup_keeps_the_others(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(6))
    with index.writer() as writer:
        writer.set_not_duplicates([image_id(number) for number in range(3)])
        writer.set_not_duplicates([image_id(4), image_id(4)])
        writer.remove([image_id(1)])
    assert len(index.catalog.decisions()) == 4
    run_cli("remove", index.path, "--erase", image_id(0), image_id(4))
    assert [held[:2] for held in index.catalog.decisions()] == [tuple(sorted((image_id(1), image_id(2))))]
    with backup(index, tmp_path / "copy.index") as copy:
        assert copy.catalog.decisions() == index.catalog.decisions()
        assert verify(copy).findings == []
    run_cli("remove", index.path, "--erase", image_id(1), check=3)  # it was removed before
    assert index.catalog.decisions() == []


def test_verify_finds_decisions_that_are_about_no_images(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    index.close()
    with sqlite3.connect(index.path / "catalog.sqlite") as connection:
        connection.execute("INSERT INTO decisions VALUES ('b', 'a', '')")
    connection.close()
    (index.path / "catalog.sqlite.sums").unlink()
    with Index.open(index.path, writable=True) as opened:
        assert "1 stored pair of images is malformed" in [one.problem for one in verify(opened).findings]


def test_an_index_of_the_format_before_has_no_decisions_and_takes_some(tmp_path: Path) -> None:
    shutil.unpack_archive(Path(__file__).parent / "formats" / "schema-4.zip", tmp_path)
    with Index.open(tmp_path / "i.index", writable=True) as index:
        assert index.catalog.decisions() == []
        ids = [record.id for record in records(index)][:2]
        with index.writer() as writer:
            assert writer.set_not_duplicates(ids) == 1
        ((one, other, _),) = index.catalog.decisions()
        assert [one, other] == sorted(ids)


def test_the_archived_format_holds_its_decision(tmp_path: Path) -> None:
    shutil.unpack_archive(Path(__file__).parent / "formats" / "schema-5.zip", tmp_path)
    with Index.open(tmp_path / "i.index") as index:
        (held,) = index.catalog.decisions()
        assert isinstance(held, NotDuplicates)
        assert {held.one, held.other} == {image_id(1), image_id(200)}
