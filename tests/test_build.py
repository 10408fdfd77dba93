"""Promises of a build: only what is new is embedded, everything odd is told, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COLOURS, COMMAND, SHAPES, another_writer, draw_picture, run_cli, write_photos
from PIL import Image

from indexer.pictures.decode import DecodeLimits
from search.catalog.annotations import MAX_LABELS
from search.index import Index
from search.types import ImageRecord

COUNTERS = ("added", "updated", "moved", "unchanged", "missing", "removed", "embedded")
Build = Callable[..., dict[str, Any]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path) -> Build:
    """Runs the real `build --json` over an index of the tiny ViT."""
    index = tmp_path / "test.index"

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        model = () if (index / "catalog.sqlite").exists() else ("--model", checkpoint)
        result = run_cli("build", *arguments, "--index", index, "--json", *model, check=code)
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    return run


def counters(answer: dict[str, Any]) -> dict[str, int]:
    return {name: answer[name] for name in COUNTERS if answer[name]}


def paths(index: Path) -> list[str]:
    with Index.open(index) as opened:
        records, _ = opened.catalog.page(0, 1000)
        return sorted(path for record in records for path in record.paths)


def check_whole(index: Path, embedded: int | None = None) -> int:
    """The catalog holds this many images, each once, each with a unit vector. Returns how many."""
    with Index.open(index) as opened:
        info = opened.info()
        assert info.images == info.spaces[0].count
        assert embedded in (None, info.images)
        total = 0
        for rowids, block in opened.catalog.all_vectors(opened.space(), upto=10**9):
            assert np.abs(np.linalg.norm(block.astype(np.float64), axis=1) - 1).max() < 1e-5
            total += len(set(rowids.tolist()))
        assert total == info.images
    return total


def test_a_second_build_embeds_nothing_and_a_third_exactly_what_changed(photos: Path, build: Build) -> None:
    count = len(COLOURS) * len(SHAPES) * 2
    assert counters(build(photos)) == {"added": count, "embedded": count}
    second = build(photos)
    assert counters(second) == {"unchanged": count}
    assert second["seconds"] < 2
    draw_picture("pink", "circle", 5).save(photos / "red" / "circle-0.png")
    (photos / "green" / "square-0.png").rename(photos / "green" / "renamed.png")
    (photos / "blue" / "stripes-1.png").unlink()
    draw_picture("black", "square", 7).save(photos / "new.png")
    third = build(photos, "--prune")
    assert counters(third) == {
        "added": 1,
        "updated": 1,
        "moved": 1,
        "removed": 1,
        "unchanged": count - 3,
        "embedded": 2,
    }
    check_whole(Path(third["index"]), count)
    assert paths(Path(third["index"])) == sorted(str(path) for path in photos.rglob("*.png"))


@pytest.mark.slow
def test_a_missing_file_stays_until_prune_and_a_missing_root_is_an_error(photos: Path, build: Build) -> None:
    count = build(photos)["added"]
    (photos / "red" / "circle-0.png").unlink()
    assert counters(build(photos)) == {"unchanged": count - 1, "missing": 1}
    assert counters(build(photos, "--prune")) == {"unchanged": count - 1, "removed": 1}
    moved_away = photos.with_name("elsewhere")
    photos.rename(moved_away)
    index = moved_away.parent / "test.index"
    assert "drive" in run_cli("build", photos, "--index", index, "--prune", check=2).stderr
    photos.mkdir()  # an unmounted drive leaves an empty folder
    assert "Nothing was pruned" in run_cli("build", photos, "--index", index, "--prune", check=2).stderr
    check_whole(index, count - 1)


@pytest.mark.slow
def test_copies_are_locations_of_one_image_and_cost_no_forward_pass(photos: Path, build: Build) -> None:
    shutil.copy(photos / "red" / "circle-0.png", photos / "blue" / "copy.png")
    first = build(photos)
    assert first["added"] == first["embedded"] + 1
    shutil.copy(photos / "red" / "circle-0.png", photos / "blue" / "copy2.png")
    assert counters(build(photos)) == {"added": 1, "unchanged": first["added"]}


def test_a_build_says_why_it_has_fewer_images_than_added_files(photos: Path, tmp_path: Path, checkpoint: Path) -> None:
    def told() -> str:
        return run_cli("build", photos, "--index", tmp_path / "i.index", "--model", checkpoint).stdout

    shutil.copy(photos / "red" / "circle-0.png", photos / "blue" / "copy.png")
    assert "\n1 added file equals another one, byte for byte: equal files are one image\n" in told()
    assert "equal" not in told()
    for number in range(2):
        shutil.copy(photos / "red" / "circle-0.png", photos / "red" / f"copy-{number}.png")
    assert "\n2 added files equal another one, byte for byte: equal files are one image\n" in told()


@pytest.mark.slow
def test_a_copy_of_a_file_on_an_unplugged_drive_is_no_rename(photos: Path, build: Build, tmp_path: Path) -> None:
    count = build(photos)["added"]
    backup = tmp_path / "backup"
    backup.mkdir()
    shutil.copy(photos / "red" / "circle-0.png", backup / "copy.png")
    photos.rename(tmp_path / "unplugged")
    assert counters(build(backup)) == {"added": 1}
    (tmp_path / "unplugged").rename(photos)
    assert counters(build(photos)) == {"unchanged": count}


@pytest.mark.slow
def test_touched_and_swapped_files_embed_nothing(photos: Path, build: Build) -> None:
    count = build(photos)["added"]
    one, two = photos / "red" / "circle-0.png", photos / "blue" / "square-0.png"
    os.utime(photos / "green" / "circle-0.png", ns=(1, 1))
    aside = photos / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    os.utime(one, ns=(2, 2))
    os.utime(two, ns=(3, 3))
    assert counters(build(photos)) == {"unchanged": count - 2, "updated": 2}
    check_whole(photos.parent / "test.index", count)


BROKEN: dict[str, bytes] = {
    "text.png": b"this is not a picture",
    "truncated.jpg": b"",  # filled in below
    "header-only.png": b"\x89PNG\r\n\x1a\n",
    "bomb.png": b"",
    "html.gif": b"<html>not found</html>",
    "webp-cut.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "tiff-loop.tif": b"II*\0\x08\0\0\0" + b"\xff" * 64,
    "bmp-short.bmp": b"BM" + b"\0" * 20,
    "avif-stub.avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "zeros.jpeg": b"\0" * 5000,
}
FOREIGN = {
    "notes.txt": b"hello",
    "movie.mp4": b"\0\0\0\x18ftypmp42",
    "archive.zip": b"PK\x03\x04",
    "document.pdf": b"%PDF-1.7",
    "._red.jpg": b"\0\x05\x16\x07",
    ".hidden.png": b"x",
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "sound.wav": b"RIFF\x10\0\0\0WAVEfmt ",
}


def write_odd_files(folder: Path) -> tuple[set[str], int]:
    """Twenty and more kinds of broken, odd and foreign files: the names to be rejected, and how many are good."""
    folder.mkdir(exist_ok=True)
    good = draw_picture("red", "circle", 0)
    for name, content in {**BROKEN, **FOREIGN, "empty.jpg": b"", "vector.svg": b"<svg/>"}.items():
        (folder / name).write_bytes(content)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:5000])
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    good.save(folder / "no-extension", format="PNG")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    good.convert("P").save(folder / "palette.gif")
    Image.fromarray((np.arange(4096, dtype=np.uint16) * 16).reshape(64, 64)).save(folder / "sixteen.png")
    good.convert("LA").save(folder / "grey-alpha.png")
    good.save(folder / "wrong-extension.jpg", format="PNG")
    Image.new("RGB", (1, 700), "blue").save(folder / "sliver.png")
    good.rotate(90).save(folder / "name with spaces, ünïcode & 'quotes'.webp")
    good.resize((1, 1)).save(folder / "one-pixel.bmp")
    outside = folder.parent / "outside.png"
    good.save(outside)
    (folder / "escaping.png").symlink_to(outside)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "linked.png").symlink_to(folder / "palette.gif")
    (folder / "linked-folder").symlink_to(folder.parent)
    rejected = {*BROKEN, "escaping.png", "dangling.png"}
    try:
        (Path(os.fsdecode(bytes(folder) + b"/bad-\xff-name.png"))).write_bytes((folder / "sixteen.png").read_bytes())
        rejected.add("bad-\\xff-name.png")
    except OSError:
        pass  # a file system that allows only UTF-8 names has no such files
    return rejected, 11


@pytest.mark.slow
def test_bad_files_are_listed_with_a_reason_and_good_ones_indexed(tmp_path: Path, build: Build) -> None:
    rejected, good = write_odd_files(tmp_path / "odd")
    answer = build(tmp_path / "odd", code=3)
    assert {Path(failed["path"]).name for failed in answer["failed"]} == rejected
    assert all(failed["reason"] and "object at 0x" not in failed["reason"] for failed in answer["failed"])
    assert answer["added"] == good
    assert answer["ignored"] == len(FOREIGN)
    assert [(left["name"], left["count"]) for left in answer["left_out"]] == [("empty files", 1)]
    assert answer["unsupported"] == {"SVG": 1}
    check_whole(Path(answer["index"]), answer["embedded"])

    again = build(tmp_path / "odd", code=3)  # not tried again, still told
    assert again["failed"] == answer["failed"]
    assert counters(again) == {"unchanged": good}
    shutil.copy(tmp_path / "outside.png", tmp_path / "odd" / "zeros.jpeg")
    os.utime(tmp_path / "odd" / "zeros.jpeg", ns=(5, 5))
    mended = build(tmp_path / "odd", code=3)
    assert mended["added"] == 1
    assert len(mended["failed"]) == len(rejected) - 1
    retried = build(tmp_path / "odd", "--retry-failed", code=3)
    assert len(retried["failed"]) == len(rejected) - 1


@pytest.mark.slow
def test_what_takes_too_long_is_told_with_what_to_do(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_picture("red", "disc", 0, size=3000).save(tmp_path / "large.png")
    build = ("build", tmp_path / "large.png", "--index", tmp_path / "test.index")
    with monkeypatch.context() as patch:
        patch.setattr("indexer.build.DecodeLimits", partial(DecodeLimits, seconds=1e-6))
        told = run_cli(*build, "--model", checkpoint, check=3).stderr
    assert "large.png: it takes longer than" in told
    assert "--retry-failed" in told
    assert "--retry-failed" not in run_cli(*build, "--retry-failed").stderr
    assert paths(tmp_path / "test.index") == [str(tmp_path / "large.png")]


def wait_for_images(index: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300  # beside other tests, on a busy machine
    while time.monotonic() < deadline and process.poll() is None:
        try:
            # closed at once: held open past a kill, it would hide a commit that had reached only the log
            with closing(sqlite3.connect(f"file:{index}/catalog.sqlite?mode=ro", uri=True)) as connection:
                if connection.execute("SELECT count(*) FROM images").fetchone()[0] >= count:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.01)
    raise AssertionError("the build did not get that far")


def start_build(photos: Path, index: Path, checkpoint: Path) -> subprocess.Popen[str]:
    arguments = ["build", photos, "--index", index, "--model", checkpoint, "--json", "--batch-size", "1"]
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def many_photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "many", variants=range(40))
    return tmp_path / "many"


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_next_build_does_the_rest(
    tmp_path: Path, many_photos: Path, checkpoint: Path, build: Build
) -> None:
    total = len(list(many_photos.rglob("*.png")))
    index = tmp_path / "test.index"
    process = start_build(many_photos, index, checkpoint)
    wait_for_images(index, 10, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    first = json.loads(out)["embedded"]
    assert 10 <= first < total
    check_whole(index, first)
    second = build(many_photos)
    assert second["embedded"] == total - first
    assert second["unchanged"] == first
    check_whole(index, total)


@pytest.mark.slow
def test_a_killed_build_resumes_without_duplicates(
    tmp_path: Path, many_photos: Path, checkpoint: Path, build: Build
) -> None:
    total = len(list(many_photos.rglob("*.png")))
    index = tmp_path / "test.index"
    reached = 0
    for target in (5, 40, 90):
        process = start_build(many_photos, index, checkpoint)
        wait_for_images(index, target, process)
        process.kill()
        process.communicate()
        reached = check_whole(index)
    assert build(many_photos)["embedded"] == total - reached
    check_whole(index, total)


def test_a_second_build_at_the_same_time_is_refused(photos: Path, build: Build) -> None:
    index = Path(build(photos)["index"])
    with another_writer(index):
        assert "Another process is writing" in run_cli("build", photos, "--index", index, check=75).stderr


def test_labels_come_from_folders_and_follow_a_move(photos: Path, build: Build) -> None:
    index = Path(build(photos, "--label-from-folder")["index"])
    (photos / "red" / "circle-0.png").rename(photos / "blue" / "moved.png")
    assert build(photos, "--label-from-folder")["moved"] == 1
    with Index.open(index) as opened:
        records, _ = opened.catalog.page(0, 1000)
    assert {Path(path).parent.name: record.labels for record in records for path in record.paths} == {
        colour: (colour,) for colour in COLOURS
    }


def test_labels_reach_images_that_are_indexed_already(photos: Path, build: Build) -> None:
    index = Path(build(photos)["index"])
    assert set(counters(build(photos, "--label-from-folder"))) == {"unchanged"}
    with Index.open(index) as opened:
        records, _ = opened.catalog.page(0, 1000)
    assert {record.labels for record in records} == {(colour,) for colour in COLOURS}


def test_a_build_lists_an_image_that_would_have_too_many_labels(photos: Path, build: Build, tmp_path: Path) -> None:
    index = Path(build(photos)["index"])
    labels = tuple(sorted(f"label {number}" for number in range(MAX_LABELS)))
    with Index.open(index, writable=True) as opened, opened.writer() as writer:
        full = image_of(opened, "red/circle-0.png").id
        writer.describe(full, labels=labels)
    table = tmp_path / "facts.csv"
    table.write_text("path,labels\nred/circle-0.png,round\n", "utf-8")
    answer = build(photos, "--label-from-folder", "--metadata", table, code=3)
    told = ("circle-0.png", "its labels would be more than 1,000")
    assert [(Path(one["path"]).name, one["reason"]) for one in answer["failed"]] == [told, told]
    with Index.open(index) as opened:
        assert opened.image(full).labels == labels
        assert image_of(opened, "blue/circle-0.png").labels == ("blue",)


def image_of(index: Index, path: str) -> ImageRecord:
    records, _ = index.catalog.page(0, 1000)
    return next(record for record in records if record.paths[0].endswith(path))


def test_metadata_files_attach_labels_and_values(photos: Path, build: Build, tmp_path: Path) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("path,labels,price,code\nred/circle-0.png,round;warm,12.5,007\nnowhere.png,x,1,2\n", "utf-8")
    answer = build(photos, "--metadata", table, code=3)
    assert [Path(failed["path"]).name for failed in answer["failed"]] == ["nowhere.png"]
    with Index.open(Path(answer["index"])) as opened:
        records, _ = opened.catalog.page(0, 1000)
        record = next(record for record in records if record.paths[0].endswith("red/circle-0.png"))
        assert record.labels == ("round", "warm")
        assert record.metadata == {"price": 12.5, "code": "007"}
    lines = tmp_path / "facts.jsonl"
    lines.write_text(json.dumps({"id": record.id, "tags": ["a", "b"], "price": 13}) + "\n", "utf-8")
    build(photos, "--metadata", lines)
    with Index.open(Path(answer["index"])) as opened:
        assert opened.image(record.id).metadata == {"price": 13, "code": "007", "tags": ["a", "b"]}
    lines.write_text("{broken\n", "utf-8")
    assert "line 1" in run_cli("build", photos, "--index", answer["index"], "--metadata", lines, check=2).stderr


@pytest.mark.slow
def test_what_was_removed_stays_away_until_readd(photos: Path, build: Build) -> None:
    first = build(photos)
    victim, other = photos / "red" / "circle-0.png", photos / "blue" / "circle-0.png"
    run_cli("remove", first["index"], victim, other)
    again = build(photos)
    assert counters(again) == {"unchanged": first["added"] - 2}
    assert again["ignored"] == 2
    victim.rename(victim.with_name("disguised.png"))
    assert build(photos)["ignored"] == 2, "a new name does not bring it back"
    assert counters(build(photos / "red", "--readd"))["added"] == 1
    assert build(photos)["ignored"] == 1, "one taken back, the other still away"
    assert counters(build(photos, "--readd"))["added"] == 1
    assert run_cli("remove", first["index"], photos / "nowhere.png", check=3).stderr.startswith("not in the index")


@pytest.mark.slow
def test_overlapping_sources_count_each_file_once(photos: Path, build: Build, tmp_path: Path) -> None:
    total = len(list(photos.rglob("*.png")))
    Image.open(photos / "red" / "circle-0.png").resize((40, 40)).save(photos / "top.png")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{photos / 'red' / 'square-0.png'}\n{photos / 'blue' / 'circle-0.png'}\n")
    first = build(photos / "red", photos / "top.png", "--files-from", listed)
    again = build(photos, photos / "red")
    assert again["unchanged"] == first["added"]
    assert again["added"] == total + 1 - first["added"]
    assert paths(Path(again["index"])) == sorted(str(path) for path in photos.rglob("*.png"))


@pytest.mark.slow
def test_a_file_seen_under_two_roots_is_merged(photos: Path, build: Build) -> None:
    index = Path(build(photos / "red")["index"])
    seen = photos / "red" / "circle-0.png"
    with Index.open(index, writable=True) as opened, opened.writer() as writer, writer.transaction() as transaction:
        located = transaction.known(str(photos / "red"), "circle-0.png")
        assert located is not None
        assert located.image_id is not None
        transaction.locate(located.image_id, replace(located.location, root=str(photos), path="red/circle-0.png"))
    build(photos)
    assert paths(index).count(str(seen)) == 1


@pytest.mark.slow
def test_nested_sources_share_one_root(photos: Path, build: Build) -> None:
    inner = build(photos / "red")
    outer = build(photos)
    assert outer["unchanged"] == inner["added"]
    assert counters(build(photos / "red")) == {"unchanged": inner["added"]}
    assert paths(Path(outer["index"])) == sorted(str(path) for path in photos.rglob("*.png"))


@pytest.mark.slow
def test_files_lists_and_globs_choose_what_is_indexed(photos: Path, build: Build, tmp_path: Path) -> None:
    some = [photos / "red" / "circle-0.png", photos / "blue" / "circle-0.png"]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in (*some, photos / "no.png")), "utf-8")
    answer = build("--files-from", listed, code=3)
    assert counters(answer) == {"added": 2, "embedded": 2}
    assert build(photos / "red" / "square-0.png")["added"] == 1
    rest = build(photos, "--exclude", "stripes-*", "--exclude", "teal")
    assert rest["added"] == 5 * 4 - 3
    assert rest["ignored"] == 5 * 2


@pytest.mark.slow
def test_a_dry_run_changes_nothing_and_says_what_would_happen(photos: Path, build: Build, tmp_path: Path) -> None:
    foreseen = json.loads(run_cli("build", photos, "--index", tmp_path / "no.index", "--dry-run", "--json").stdout)
    assert not (tmp_path / "no.index").exists()
    done = build(photos)
    assert foreseen["added"] == done["added"]
    (photos / "red" / "circle-0.png").rename(photos / "red" / "renamed.png")
    (photos / "red" / "circle-1.png").unlink()
    draw_picture("pink", "circle", 9).save(photos / "pink.png")
    before = (tmp_path / "test.index" / "catalog.sqlite").read_bytes()
    expected = {"added": 1, "moved": 1, "removed": 1, "unchanged": done["added"] - 2}
    dry = counters(build(photos, "--dry-run", "--prune"))
    assert dry.pop("removed") in (1, 2)  # a moved file's old path is gone too
    assert {**dry, "removed": 1} == expected
    assert (tmp_path / "test.index" / "catalog.sqlite").read_bytes() == before
    assert counters(build(photos, "--prune")) == {**expected, "embedded": 1}


@pytest.mark.slow
def test_several_layers_make_spaces_and_a_later_build_keeps_them(
    photos: Path, tmp_path: Path, checkpoint: Path
) -> None:
    index = tmp_path / "layers.index"
    flags = ("--layer", "1", "--layer", "0,-1", "--index", index)
    first = json.loads(run_cli("build", photos, "--model", checkpoint, *flags, "--json").stdout)
    names = [space["name"] for space in first["spaces"]]
    assert names[0] == "layer1"
    assert names[1].startswith("layer0+")
    assert first["spaces"][1]["dim"] == 2 * first["spaces"][0]["dim"]
    draw_picture("pink", "circle", 9).save(photos / "pink.png")
    later = json.loads(run_cli("build", photos, "--index", index, "--json").stdout)
    assert later["embedded"] == 1
    assert [space["count"] for space in later["spaces"]] == [first["embedded"] + 1] * 2
    same = run_cli("build", photos, "--model", checkpoint, *flags)
    assert same.returncode == 0
    assert len(json.loads(run_cli("build", photos, "--index", index, "--layer", "1", "--json").stdout)["spaces"]) == 2
    refused = run_cli("build", photos, "--index", index, "--layer", "0", check=2)
    assert "another index" in refused.stderr
    assert "lookalike spaces" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["build"], 2, "lookalike build PHOTOS"),
        (["build", "/nowhere/at/all"], 2, "There is no /nowhere/at/all"),
        (["build", "{photos}", "--model", "/nowhere"], 2, "--model PATH"),
        (["build", "{photos}", "--model", "no/such-model"], 2, "dinov2-small-focus"),
        (["build", "{photos}", "--model", "{checkpoint}", "--layer", "99"], 2, "no layer 99"),
        (["build", "{photos}", "--model", "{checkpoint}", "--layer", "x"], 2, "not a layer"),
        (["build", "{photos}", "--model", "{checkpoint}", "--layer", "1", "--pooling", "pooler"], 2, "pooler"),
        (["build", "{photos}", "--precision", "int3"], 2, "int3"),
        (["build", "{photos}", "--model", "{checkpoint}", "--index", "/proc/no.index"], 74, "/proc/no.index"),
        (["build", "{photos}", "--files-from", "/nowhere.txt"], 2, "/nowhere.txt"),
        (["search", "x.png"], 2, "lookalike build"),
        (["search"], 2, "Name one picture"),
        (["search", "--id", "xyz"], 2, "64 hexadecimal"),
        (["search", "x.png", "--server", "http://127.0.0.1:1"], 2, "x.png cannot be read"),
        (["search", "{photos}/red/circle-0.png", "--server", "http://127.0.0.1:1"], 2, "127.0.0.1:1"),
        (["info", "/nowhere"], 2, "no index at /nowhere"),
        (["dups", "{photos}"], 2, "is a folder of files, not an index. To index it: lookalike build {photos}"),
        (["dups", "{photos}/red/circle-0.png"], 2, "circle-0.png is a file. An index is a folder"),
        (["dups", "--tier", "photo", "--apply", "hardlink"], 2, "works on equal bytes and equal pixels only"),
        (["remove", "/nowhere", "x"], 2, "no index at /nowhere"),
        (["serve", "/nowhere"], 2, "no index at /nowhere"),
        (["serve", "/nowhere", "--host", "0.0.0.0"], 2, "--api-key"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_every_mistake_is_one_clear_line(
    arguments: list[str], code: int, says: str, photos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    filled = [argument.format(photos=photos, checkpoint=checkpoint) for argument in arguments]
    result = run_cli(*filled, check=code, LOOKALIKE_INDEX=str(tmp_path / "none.index"), COLUMNS="300")
    assert says.format(photos=photos) in result.stderr
    assert not (tmp_path / "none.index").exists(), "a failed command left something behind"
