"""Promises of `dups`: what is a duplicate and what is not, what is kept, and why."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture, run_cli
from PIL import Image, ImageCms

from analysis.duplicates.find import Files
from analysis.duplicates.keep import parse_rules
from analysis.duplicates.known import Known
from analysis.errors import RuleInvalid
from analysis.labels import records
from search.index import Index
from search.types import Location


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
    draw_picture("green", "stripes", 1, size=200).save(photos / "2024" / "another.png")
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


def test_equal_files_and_equal_pixels_are_groups_of_their_own(base: Path) -> None:
    answer = json.loads(run_cli("dups", base / "photos.index", "--tier", "bytes", "--tier", "pixels", "--json").stdout)
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


def test_what_is_not_proved_to_be_equal_is_no_duplicate(tmp_path: Path, checkpoint: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = draw_picture("green", "square", 0, size=120)
    picture.save(photos / "plain.png")
    picture.convert("RGBA").save(photos / "opaque.png")
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (*picture.getpixel((0, 0)), 254))
    clear.save(photos / "clear.png")
    picture.save(photos / "moving.png", save_all=True, append_images=[draw_picture("red", "circle", 0, size=120)])
    picture.save(photos / "profile.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    picture.convert("CMYK").save(photos / "print.tif")
    deep = np.full((90, 90), 77 * 257, dtype=np.uint16)
    Image.fromarray(deep).save(photos / "deep.png")
    Image.fromarray(deep).save(photos / "deep.tif")
    Image.fromarray(np.full((90, 90), 77, dtype=np.uint8)).save(photos / "shallow.png")
    cut = (photos / "plain.png").read_bytes()
    (photos / "cut.png").write_bytes(cut[: int(0.8 * len(cut))])
    run_cli("build", photos, "--index", tmp_path / "photos.index", "--model", checkpoint, check=None)
    answer = json.loads(run_cli("dups", tmp_path / "photos.index", "--tier", "pixels", "--json").stdout)
    groups = [sorted(Path(one["paths"][0]).name for one in group["images"]) for group in answer["groups"]]
    assert groups == [["opaque.png", "plain.png"]]


def test_links_uploads_and_changed_files_are_in_no_group(base: Path) -> None:
    photos, index = base / "photos", base / "photos.index"
    (photos / "backup" / "linked.jpg").symlink_to(photos / "2024" / "stripes.jpg")
    (photos / "years").symlink_to(photos / "2024")
    changed = photos / "backup" / "stripes (1).jpg"
    run_cli("build", photos, "--index", index, "--follow-links")
    data = bytearray(changed.read_bytes())
    data[-3] ^= 1
    changed.write_bytes(data)  # of the same size
    with Index.open(index, writable=True) as opened, opened.writer() as writer, writer.transaction() as transaction:
        record = next(one for one in records(opened) if one.path_count > 2)
        upload = opened.uploads / record.id[:2] / f"{record.id}.jpg"
        upload.parent.mkdir(parents=True)
        shutil.copyfile(photos / "2024" / "stripes.jpg", upload)
        facts = upload.stat()
        there = Location(
            root=str(opened.uploads),
            path=upload.relative_to(opened.uploads).as_posix(),
            mtime_ns=facts.st_mtime_ns,
            size=facts.st_size,
        )
        transaction.locate(record.id, there)
    found = run_cli("dups", index, "--tier", "bytes", "--json")
    (group,) = json.loads(found.stdout)["groups"]
    assert {Path(one["paths"][0]).relative_to(photos).as_posix() for one in group["images"]} == {
        "2024/stripes.jpg",
        "backup/stripes.jpg",
    }
    assert "has changed since the last build" in found.stderr


@pytest.mark.parametrize(
    ("rules", "kept", "why"),
    [
        ("folder:backup", "backup/stripes.jpg", "in backup"),
        ("folder:*/backup/*(1)*,oldest", "backup/stripes (1).jpg", "in */backup/*(1)*"),
        ("format", "raw/stripes.png", "the better format"),
        ("bytes", "raw/stripes.bmp", "the larger file"),
        ("smallest", "2024/stripes.jpg", "the smaller file"),
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
    assert "bytes, pixels, photo" in run_cli("dups", base / "photos.index", "--tier", "copies", check=2).stderr


def test_protected_files_stay_and_are_kept_before_others(base: Path) -> None:
    command = ["dups", base / "photos.index", "--keep", "format", "--protect", "backup", "--json"]
    answer = json.loads(run_cli(*command).stdout)
    goes = {one["paths"][0] for group in answer["groups"] for one in group["images"] if not one["keep"]}
    assert not any("backup" in path for path in goes)
    reasons = {one["why"] for group in answer["groups"] for one in group["images"] if "backup" in one["paths"][0]}
    assert reasons == {"protected"}
    assert len(goes) == 4


def test_patterns_mean_what_is_written_or_are_refused(base: Path) -> None:
    photos = base / "photos"
    (photos / "[2024] Italy").mkdir()
    (photos / unicodedata.normalize("NFD", "Été")).mkdir()
    for folder in photos.glob("*t*"):
        if not (folder / "stripes.jpg").exists():
            shutil.copyfile(photos / "2024" / "stripes.jpg", folder / "stripes.jpg")
    run_cli("build", photos, "--index", base / "photos.index")
    for pattern in ("[2024] Italy", unicodedata.normalize("NFC", "Été"), str(photos / "backup")):
        command = ["dups", base / "photos.index", "--tier", "bytes", "--protect", pattern, "--json"]
        (group,) = json.loads(run_cli(*command).stdout)["groups"]
        stays = {unicodedata.normalize("NFC", one["paths"][0]) for one in group["images"] if one["keep"]}
        assert stays
        assert all(pattern in path for path in stays)
    for option in ("--protect", "--keep"):
        word = "Originals" if option == "--protect" else "folder:Originals"
        assert "No duplicate lies in" in run_cli("dups", base / "photos.index", option, word, check=2).stderr


@pytest.mark.parametrize(
    ("pattern", "files", "first"),
    [("../backup", 2, "backup/stripes (1).jpg"), ("./*.bmp", 1, "raw/stripes.bmp"), (".", 3, "raw/stripes-turned.png")],
)
def test_patterns_may_begin_in_the_current_folder_and_what_they_protect_is_said(
    base: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, files: int, first: str
) -> None:
    monkeypatch.chdir(base / "photos" / "raw")
    found = run_cli("dups", base / "photos.index", "--protect", pattern, "--json")
    images = [one for group in json.loads(found.stdout)["groups"] for one in group["images"]]
    assert len({one["paths"][0] for one in images if one["why"] == "protected"}) == files
    assert f"{pattern} protects {files} file{'s' * (files > 1)}, such as {base / 'photos' / first}\n" in found.stderr
    refused = run_cli("dups", base / "photos.index", "--protect", "backup/none", check=2).stderr
    assert f"or as one from {base / 'photos' / 'raw'};" in refused


def test_the_command_prints_what_stays_and_what_is_extra(base: Path) -> None:
    told = run_cli("dups", base / "photos.index", "--keep", "format").stdout
    assert "Same bytes: the files are equal" in told
    assert f"  keep   {base / 'photos' / 'raw' / 'stripes.png'}  (the better format)" in told
    assert "2 groups: 5 extra files" in told


def test_a_list_that_is_cut_says_what_shows_the_rest(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.duplicates.shown.SHOWN_GROUPS", 1)
    told = run_cli("dups", base / "photos.index").stdout
    assert "... and 1 more group; --report OUT.html shows more, --json prints all\n" in told


def test_few_records_are_held_and_an_image_that_was_removed_has_no_file(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.duplicates.known.PAGE", 2)
    with Index.open(base / "photos.index", writable=True) as index:
        images = Known.all(index)
        there = dict(images.items())
        assert [*there] == [*images] == sorted(there)
        assert {record.id for record in there.values()} == {record.id for record in records(index)}
        monkeypatch.setattr("analysis.duplicates.known.HELD", 2)
        first, second, third, *_ = there
        assert [images[rowid] for rowid in (first, second, third, first)] == [
            there[rowid] for rowid in (first, second, third, first)
        ]
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.remove([there[second].id, there[third].id])
        assert images[third] == there[third], "it is still held"
        assert images[second].missing
        assert Files(index, lambda *_: None).of(images[second]) == ()
        assert max(there) + 1 not in images
        with pytest.raises(KeyError):
            images[max(there) + 1]
