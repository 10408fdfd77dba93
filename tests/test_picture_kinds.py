"""Kinds of picture files: which are read, and that those which are not are counted and named."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_picture, recipe, run_cli
from PIL import Image, JpegImagePlugin

from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, decode, open_upright
from indexer.pictures.plugins import jxl_size
from indexer.report import BuildReport
from search.types import Failure

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(5_000)
OTHERS = {
    "a.HEIC": HEIC,
    "b.heic": HEIC,
    "without-a-suffix": HEIC,
    "scan.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(2_000),
    "layers.psd": b"8BPS\0\1" + bytes(2_000),
    "logo.svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
    "raw.CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(2_000),
    "x-ray": bytes(128) + b"DICM" + bytes(200),
}
KINDS = {"HEIC": 3, "CR3": 1, "DICOM": 1, "JPEG 2000": 1, "PSD": 1, "SVG": 1}


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The picture as a file, also of a format that an extra writes."""
    import pillow_heif
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A phone's and a designer's folder: one picture that is read, eight that are not, a text and a film."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    draw_picture("red", "circle", 1).save(folder / "read.png")
    for name, data in OTHERS.items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("notes")
    (folder / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(200))
    return folder


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if neither extra for more formats was installed."""
    monkeypatch.setattr("indexer.pictures.formats._installed", lambda plugin: False)


@pytest.fixture
def build(tmp_path: Path, checkpoint: Path) -> Callable[..., Any]:
    """Runs `build` of a new index over the tiny ViT; returns what it says, or with `--json` its answer."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        result = run_cli("build", *arguments, "--index", tmp_path / "i.index", "--model", checkpoint, check=code)
        return json.loads(result.stdout) if "--json" in arguments else result.stdout + result.stderr

    return run


@pytest.mark.usefixtures("no_plugins")
def test_pictures_of_kinds_that_are_not_read_are_counted_by_kind(mixed: Path, build: Callable[..., Any]) -> None:
    for answer in (build(mixed, "--json", "--dry-run"), build(mixed, "--json"), build(mixed, "--json", "--dry-run")):
        assert answer["unsupported"] == KINDS
        assert next(iter(answer["unsupported"])) == "HEIC", "the most frequent comes first"
        assert answer["ignored"] == 2, "a text and a film are no pictures"
        assert answer["added"] + answer["unchanged"] == 1


@pytest.mark.usefixtures("no_plugins")
def test_the_report_names_kinds_that_are_not_read_and_says_how_to_read_them(
    mixed: Path, build: Callable[..., Any]
) -> None:
    said = build(mixed)
    assert "1 added, 2 ignored" in said
    assert "3 HEIC, 1 CR3, 1 DICOM, 1 JPEG 2000, 1 PSD, 1 SVG" in said
    assert "pip install 'lookalike[heif]'" in said
    assert "lookalike[jxl]" not in said, "there is none"


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HEIC, "not supported: HEIC; pip install 'lookalike[heif]'"),
        (OTHERS["scan.jp2"], "not supported: JPEG 2000"),
        (b"\xff\xd8\xff\xf7" + bytes(99), "not supported: JPEG-LS"),
    ],
)
def test_a_file_that_is_named_as_a_picture_but_is_of_another_kind_says_which(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        decode(data, (recipe().preprocessing,), limits=DecodeLimits())
    assert str(caught.value) == reason


def test_a_file_named_for_a_kind_that_is_not_read_is_read_by_what_it_is(
    tmp_path: Path, build: Callable[..., Any]
) -> None:
    out = BytesIO()
    draw_picture("red", "circle", 1).save(out, "JPEG")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "IMG_0001.PSD").write_bytes(out.getvalue())
    answer = build(tmp_path / "p", "--json")
    assert (answer["added"], answer["unsupported"]) == (1, {})


def test_pictures_of_an_extra_are_read_like_any_other(tmp_path: Path, build: Callable[..., Any]) -> None:
    (tmp_path / "p").mkdir()
    picture = Image.effect_noise((320, 240), 40).convert("RGB")
    for name, format_ in (("photo.heic", "HEIF"), ("photo.jxl", "JXL"), ("without-a-suffix", "HEIF")):
        (tmp_path / "p" / name).write_bytes(saved(picture, format_, quality=80))
        picture = picture.rotate(90)
    answer = build(tmp_path / "p", "--json")
    assert (answer["added"], answer["failed"], answer["unsupported"]) == (3, [], {})


@pytest.mark.parametrize(("format_", "name"), [("HEIF", "heic"), ("JXL", "jxl")])
def test_pictures_of_an_extra_are_upright_and_tell_their_facts(format_: str, name: str) -> None:
    upright = Image.new("RGB", (96, 64), "white")
    upright.paste("red", (0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0110] = "Phone"
    exif.get_ifd(0x8769)[0x9003] = "2021:07:09 10:11:12"
    data = saved(upright, format_, quality=95, exif=exif.tobytes())
    decoded = decode(data, (recipe().preprocessing,), limits=DecodeLimits())
    assert (decoded.facts.width, decoded.facts.height, decoded.facts.format) == (96, 64, name)
    assert (decoded.facts.camera, decoded.facts.taken_at) == ("Phone", "2021-07-09T10:11:12")
    red, green, blue = open_upright(data, limits=DecodeLimits(), at_least=None).getpixel((10, 10))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 30


def test_a_heic_that_is_stored_on_its_side_comes_out_upright() -> None:
    upright = Image.new("RGB", (96, 64), "white")
    upright.paste("red", (0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(upright.transpose(Image.Transpose.ROTATE_90), "HEIF", quality=95, exif=exif.tobytes())
    image = open_upright(data, limits=DecodeLimits(), at_least=None)
    assert image.size == (96, 64)
    assert image.getpixel((10, 10))[1] < 30  # type: ignore[index]


TURNED_JXL = (
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAFNanhsY/8KF44FEopLAgASiAIA1ARd5RIAABUqo4wbvJzr+fJDh8W0jesMbbVtYUmi"
    "yDg2SSdwCCmwxfWRRx4zxpg8MpmRMSZj5sXMGGMy4cQSACx4SuokKqqwsVxw4le3gFAAMgKSh8KphlDm9ZwLolw7lg87rEX5QP2JAFc7Y9oQGMYV"
    "g5PONYyrf92OmKbJJLR9DgqwRh6i6TXApXRKoBQIpFnK8DTeRuHYqOBNuQIOQm6KTpSqLVM7eNmCUQbCtkIKpEkiyeHdZPLEjMyJ2Yx1AZAS72yw"
    "v+1B857s9DAbS4/Rb7oE40XHdj2/hJ1KU6zHZ0IbOL3jV0ciTeNTbS896zwwEA9sd1GkACMvwLchwmfaStxABh1Fv3AgxNZTwvjriF1uPcRTB1t4"
    "s9l56T2bU44x7BKQ86Y+reHUYDGz6k4DS9cGzw8="
)
"""A JPEG XL that is stored as 64 x 96 pixels, and whose own header says which way is up."""


def test_a_jpeg_xl_is_turned_once_where_its_header_and_its_exif_say_so() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    box = b"Exif" + bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    data = base64.b64decode(TURNED_JXL) + (4 + len(box)).to_bytes(4, "big") + box
    image = open_upright(data, limits=DecodeLimits(), at_least=None)
    assert image.size == (96, 64)
    assert image.getpixel((10, 10))[1] < 30  # type: ignore[index]


@pytest.mark.parametrize("size", [(8, 8), (256, 8), (257, 100), (1000, 3), (640, 480), (2000, 1000), (1, 9000)])
@pytest.mark.parametrize("boxes", [False, True])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int], boxes: bool) -> None:
    data = saved(Image.new("RGB", size, "teal"), "JXL", effort=1, use_container=boxes)
    assert jxl_size(data) == size
    with pytest.raises(ImageRejected, match="more than the limit"):
        decode(data, (recipe().preprocessing,), limits=DecodeLimits(max_pixels=size[0] * size[1] - 1))


def test_broken_pictures_of_an_extra_are_rejected() -> None:
    for format_ in ("HEIF", "JXL"):
        data = saved(Image.effect_noise((64, 48), 40).convert("RGB"), format_)
        for broken in (data[: len(data) // 3], data[:40], data[:12] + bytes(300)):
            with pytest.raises(ImageRejected):
                decode(broken, (recipe().preprocessing,), limits=DecodeLimits())


# ---- kinds of JPEG and TIFF


LOSSLESS_JPEG = (
    "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgAUABgA1IRAEcRAEIRAP/EABcAAAMBAAAAAAAAAAAAAAAAAAABAgj/2gAMA1IARwBCAAEAAM/5/wA/0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0O"
    "h0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh"
    "0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Mt0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0"
    "Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0Oh0P/2Q=="
)


def rejected(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode(data, (recipe().preprocessing,), limits=DecodeLimits())
    return str(caught.value)


def tiff(samples: Any, *, compression: int = 1, channels: int = 1, number: int = 1, photometric: int = 1) -> bytes:
    """A little TIFF of one strip, of any kind of pixels: (height, width * channels)."""
    body = samples.tobytes()
    height, width, bits = samples.shape[0], samples.shape[1] // channels, 8 * samples.itemsize
    entries = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, compression), (262, 3, photometric)]
    entries += [(273, 4, 8), (277, 3, channels), (278, 3, height), (279, 4, len(body)), (339, 3, number)]
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack("<HHII", tag, kind, 1, value)
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + directory + bytes(4)


def test_a_lossless_jpeg_is_read_although_it_has_no_reduced_size() -> None:
    found = decode(base64.b64decode(LOSSLESS_JPEG), (recipe().preprocessing,), limits=DecodeLimits())
    assert (found.facts.width, found.facts.height, found.missing) == (96, 80, None)


def test_a_jpeg_whose_decoder_needs_all_of_it_at_once_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.effect_noise((640, 480), 60), "JPEG", quality=95)
    assert len(data) > 65_536
    with monkeypatch.context() as patch:  # as libjpeg does with arithmetic coding, which Pillow cannot write
        patch.setattr(JpegImagePlugin.JpegImageFile, "load_read", lambda self, count: self.fp.read(_all_or_fail(count)))
        found = decode(data, (recipe().preprocessing,), limits=DecodeLimits())
    assert (found.facts.width, found.missing) == (640, None)


def _all_or_fail(count: int) -> int:
    if count <= 65_536:
        raise OSError("broken data stream when reading image file")
    return count


@pytest.mark.parametrize(
    ("marker", "bits", "kind"),
    [
        (0xC1, 12, "a JPEG of 12 bits"),
        (0xC3, 16, "a JPEG of 16 bits"),
        (0xC5, 8, "a hierarchical JPEG"),
        (0xCB, 8, "a lossless arithmetic-coded JPEG"),
    ],
)
def test_a_jpeg_of_a_kind_that_is_not_read_is_not_called_damaged(marker: int, bits: int, kind: str) -> None:
    data = bytearray(saved(Image.new("RGB", (64, 48), "teal"), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    assert rejected(bytes(data)) == f"not supported: {kind}"


@pytest.mark.parametrize(
    ("compression", "kind"), [(34887, "LERC"), (34712, "JPEG 2000"), (34661, "JBIG"), (65_001, "method 65001")]
)
def test_a_tiff_of_a_compression_that_is_not_read_is_not_called_damaged(compression: int, kind: str) -> None:
    data = tiff(np.zeros((8, 8), np.uint8), compression=compression)
    assert rejected(data) == f"not supported: a TIFF compressed with {kind}"


def test_a_tiff_of_pixels_that_are_not_read_is_not_called_damaged() -> None:
    reason = rejected(tiff(np.zeros((8, 8), np.complex64), number=6))
    assert reason == "not supported: a TIFF whose samples are complex, or differ in kind"


def test_damaged_jpegs_and_tiffs_are_still_called_damaged() -> None:
    jpeg = bytearray(saved(Image.effect_noise((64, 48), 40), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc4") + 4] = 0xFF  # a table of no kind
    assert rejected(bytes(jpeg)) == "damaged: it cannot be decoded"
    assert rejected(tiff(np.zeros((8, 8), np.uint8), compression=8)).startswith(("damaged", "truncated"))
    assert rejected(b"II*\0" + bytes(200)) == "damaged: it cannot be decoded"


def test_a_raw_file_without_a_preview_is_counted_by_kind_and_is_no_failure() -> None:
    report = BuildReport()
    for reason in (
        "not supported: DNG without a JPEG preview; export it as JPEG or TIFF",
        "damaged: it cannot be decoded",
    ):
        report.fail(Failure(root="/photos", path="a.dng", mtime_ns=1, size=2, reason=reason))
    assert report.unsupported == {"DNG without a JPEG preview": 1}
    assert [failed.reason for failed in report.failed] == ["damaged: it cannot be decoded"]
