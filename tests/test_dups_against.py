"""Promises of `dups --against`: what two indexes share is listed, counted, and never changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from albums import Album, noise
from conftest import run_cli
from PIL import Image


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
    refused = run_cli("dups", train, "--against", test, "--tier", "photo", check=2).stderr
    assert "build one index of both folders" in refused
    assert "same index" in run_cli("dups", train, "--against", train, check=2).stderr
    for words in (("--apply", "delete"), ("--keep", "oldest"), ("--protect", "x"), ("--undo", "x"), ("--decisions",)):
        assert "only lists" in run_cli("dups", train, "--against", test, *words, check=2).stderr
