"""Promises of `dups --against`: what two indexes share is listed, counted, and never changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from albums import Album, noise
from conftest import recipe, run_cli, vectors
from PIL import Image, ImageOps
from test_photo import on_a_page, scene

from analysis.duplicates.across import OTHER, connected, near_vectors
from analysis.duplicates.candidates import NEIGHBOURS
from search.index import Index
from search.recipe import TransformSpec
from search.types import Encoding, Location, Space
from search.vectors import normalise


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Album, Album]:
    """Pictures to train with, and four to test with: an equal file, equal pixels, a link to a file of the first
    folder, and one that is in no other place."""
    made = []
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        made.append(Album(tmp_path / name))
    train, test = made
    train.draw("a.png", "b.png", "c.png", "d.png")
    shutil.copyfile(train.photos / "d.png", train.photos / "twice.png")  # a duplicate of no concern
    shutil.copyfile(train.photos / "a.png", test.photos / "copy.png")
    Image.open(train.photos / "b.png").save(test.photos / "pixels.bmp")
    os.link(train.photos / "c.png", test.photos / "linked.png")
    test.draw("alone.png")
    train.build()
    test.build()
    return train, test


def compared(train: Album, test: Album, *words: str) -> Any:
    return json.loads(run_cli("dups", train.index.path, "--against", test.index.path, *words, "--json").stdout)


def test_what_is_in_both_is_listed_and_what_is_in_one_twice_is_not(sides: tuple[Album, Album]) -> None:
    train, test = sides
    answer = compared(train, test)
    found = [
        (
            group["tier"],
            *(
                {Path(it["paths"][0]).name for it in group["images"] if it["against"] is there}
                for there in (False, True)
            ),
        )
        for group in answer["groups"]
    ]
    assert sorted(found, key=str) == [
        ("bytes", {"a.png"}, {"copy.png"}),
        ("bytes", {"c.png"}, {"linked.png"}),
        ("pixels", {"b.png"}, {"pixels.bmp"}),
    ]
    assert answer["against"] == {"index": str(test.index.path), "images": 4, "found": 3, "not_compared": 0}
    extra = {Path(it["paths"][0]) for group in answer["groups"] for it in group["images"] if not it["keep"]}
    assert extra == {train.photos / "a.png", train.photos / "b.png"}, "one file of two names is the other index's too"
    assert (answer["images"], answer["bytes"]) == (2, sum(path.stat().st_size for path in extra))
    assert [group["tier"] for group in compared(train, test, "--tier", "pixels")["groups"]] == ["pixels"]


def test_files_in_a_folder_of_the_other_index_are_never_extra(tmp_path: Path) -> None:
    for name in ("all", "part"):
        (tmp_path / name).mkdir()
    both, part = Album(tmp_path / "all"), Album(tmp_path / "part")
    both.draw("train/x.png", "train/y.png", "test/z.png")
    shutil.copyfile(both.photos / "train" / "x.png", both.photos / "test" / "x.png")
    both.build()
    part.build(both.photos / "test")
    answer = compared(both, part)
    assert answer["against"]["found"] == 2
    extra = [Path(it["paths"][0]) for group in answer["groups"] for it in group["images"] if not it["keep"]]
    assert extra == [both.photos / "train" / "x.png"]


def test_people_read_how_much_is_shared_and_what_was_not_compared(sides: tuple[Album, Album]) -> None:
    train, test = sides
    noise("another").save(test.photos / "copy.png")
    before = {path: path.stat().st_mtime_ns for path in test.photos.rglob("*.*")}
    ended = run_cli("dups", train.index.path, "--against", test.index.path)
    assert ended.stdout.splitlines()[-1] == f"2 of 3 images of {test.index.path} are in {train.index.path} too."
    assert f"  {train.index.path}  {train.photos / 'b.png'}" in ended.stdout
    assert "1 image not compared" in ended.stderr
    assert before == {path: path.stat().st_mtime_ns for path in test.photos.rglob("*.*")}


def test_what_cannot_be_compared_is_refused(sides: tuple[Album, Album]) -> None:
    train, test = (side.index.path for side in sides)
    refused = run_cli("dups", train, "--against", test, "--tier", "alike", check=2).stderr
    assert "Build one index of both folders" in refused
    assert "same index" in run_cli("dups", train, "--against", train, check=2).stderr
    for words in (("--apply", "delete"), ("--keep", "oldest"), ("--protect", "x"), ("--undo", "x"), ("--decisions",)):
        assert "only lists" in run_cli("dups", train, "--against", test, *words, check=2).stderr


def test_a_photo_is_found_in_another_index_smaller_and_turned(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    train, test = Album(tmp_path / "train"), Album(tmp_path / "test")
    for number in range(3):
        scene(number).save(train.photos / f"{number}.png")
    scene(1).resize((300, 225)).save(test.photos / "smaller.png")
    scene(2).transpose(Image.Transpose.ROTATE_90).save(test.photos / "turned.png")
    scene(3).save(test.photos / "another.png")
    train.build()
    test.build()
    answer = compared(train, test, "--tier", "photo")
    assert sorted([Path(it["paths"][0]).name for it in one["images"]] for one in answer["groups"]) == [
        ["1.png", "smaller.png"],
        ["2.png", "turned.png"],
    ]
    assert answer["against"]["found"] == 2
    assert all(0.5 < min(it["score"] for it in one["images"]) <= 1 for one in answer["groups"])
    assert all(it["keep"] for one in answer["groups"] for it in one["images"]), "of photos nothing is extra"


def test_a_framed_photo_is_found_in_another_index_by_what_is_left_without_the_frame(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    train, test = Album(tmp_path / "train"), Album(tmp_path / "test")
    for number in range(60):  # nearer by their vectors, which are of no use here
        Image.new("RGB", (40, 40), (4 * number, 0, 0)).save(train.photos / f"red{number}.png")
    scene(3).save(train.photos / "plain.png")
    on_a_page(scene(2)).save(train.photos / "page.png")
    ImageOps.expand(scene(3), 90, "navy").save(test.photos / "framed.png")
    scene(2).save(test.photos / "bare.png")
    train.build()
    test.build()
    answer = compared(train, test, "--tier", "photo")
    assert sorted([Path(it["paths"][0]).name for it in one["images"]] for one in answer["groups"]) == [
        ["page.png", "bare.png"],
        ["plain.png", "framed.png"],
    ]


def test_vectors_of_another_index_go_through_this_ones_whitening(make_index: Callable[..., Index]) -> None:
    data = vectors(60)
    whitening = TransformSpec(kind="whitening", floor=0.03, max_dim=20)
    here = make_index(data, name="here.index", transform=whitening)
    moved = normalise(data[40:] + 0.05 * vectors(20, seed=5))
    there = make_index(np.concatenate([vectors(5, seed=9), moved]), name="there.index")
    pairs = {(int(one), int(other) - OTHER) for found in near_vectors(here, there) for one, other in found}
    assert {(number + 41, number + 6) for number in range(20)} <= pairs
    assert len(pairs) == 25 * NEIGHBOURS


def test_photos_of_spaces_without_a_common_recipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    train = Album(tmp_path / "train")
    train.draw("a.png")
    train.build()
    space = Space(name="layer2", recipe=recipe(weights="b"), encoding=Encoding())
    with Index.create(tmp_path / "other.index", [space]):
        pass
    refused = run_cli(
        "dups", train.index.path, "--against", tmp_path / "other.index", "--tier", "photo", check=2
    ).stderr
    assert "same model and layers" in refused


def test_decisions_do_not_hide_photos_that_two_indexes_share(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    train, test = Album(tmp_path / "train"), Album(tmp_path / "test")
    scene(1).save(train.photos / "one.png")
    for folder in (train, test):
        shutil.copyfile(train.photos / "one.png", folder.photos / "two.png")
    scene(2).save(train.photos / "big.png")
    scene(2).resize((300, 225)).save(train.photos / "middle.png")
    scene(2).resize((200, 150)).save(test.photos / "small.png")
    train.build()
    test.build()
    before = compared(train, test, "--tier", "photo")
    assert [len(one["images"]) for one in before["groups"]] == [3, 3]
    for names in (("one.png", "two.png"), ("big.png", "middle.png")):
        run_cli("dups", train.index.path, *(train.photos / name for name in names), "--not-duplicates")
    assert compared(train, test, "--tier", "photo") == before


def test_every_proved_pair_of_two_indexes_is_in_a_group() -> None:
    proved = [(0, 100, 0.9), (0, 101, 0.7), (0, 103, 0.9), (1, 100, 0.8), (1, 102, 0.6), (2, 104, 0.5)]
    assert connected(proved) == [
        {0: 0.9, 100: 0.9, 101: 0.7, 103: 0.9, 1: 0.8, 102: 0.6},
        {2: 0.5, 104: 0.5},
    ]


def test_an_index_without_images_shares_no_photos(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    train = Album(tmp_path / "train")
    train.draw("a.png")
    train.build()
    with Index.create(tmp_path / "none.index", train.index.spaces):
        pass
    answer = json.loads(
        run_cli("dups", train.index.path, "--against", tmp_path / "none.index", "--tier", "photo", "--json").stdout
    )
    assert (answer["groups"], answer["against"]["found"]) == ([], 0)


def test_uploads_and_links_are_found_and_are_never_extra(sides: tuple[Album, Album]) -> None:
    train, test = sides
    uploads = train.index.uploads
    (train.photos / "linked.png").symlink_to(train.photos / "a.png")
    train.build()
    uploads.mkdir()
    shutil.copyfile(train.photos / "b.png", uploads / "b.png")
    facts = (uploads / "b.png").stat()
    there = Location(root=str(uploads), path="b.png", mtime_ns=facts.st_mtime_ns, size=facts.st_size)
    with train.index.writer() as writer, writer.transaction() as transaction:
        transaction.locate(train.hit("b.png").id, there)
        transaction.forget_paths(str(train.photos), ["b.png"])
    answer = compared(train, test)
    extra = [Path(it["paths"][0]) for one in answer["groups"] for it in one["images"] if not it["keep"]]
    assert answer["against"]["found"] == 3
    assert extra == [train.photos / "a.png"], "neither a link to it, nor an upload"
