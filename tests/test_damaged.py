"""Pictures whose files lost their end, or whose chunks beside the picture are damaged, are taken as far as they go."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Server, recipe, run_cli
from PIL import Image

from indexer.errors import ImageRejected
from indexer.pictures.decode import Decoded, DecodeLimits, decode, decode_pixels, open_upright, thumbnail

LIMITS = DecodeLimits()
PREPROCESSING = recipe().preprocessing


def picture(seed: int = 0, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with detail everywhere, and no flat rows."""
    rough = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def decoded(data: bytes) -> Decoded:
    return decode(data, (PREPROCESSING,), limits=LIMITS)


def whole(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(open_upright(data, limits=LIMITS, at_least=None))


# ---- files that lost their end


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lost", [2, 0.03, 0.3])
def test_a_jpeg_without_its_end_is_taken_as_far_as_it_goes(mode: str, progressive: bool, lost: float) -> None:
    data = saved(picture(size=(1600, 1200)).convert(mode), "JPEG", quality=90, progressive=progressive)
    cut = data[: -int(lost if lost >= 1 else lost * len(data))]
    found, intact = decoded(cut), decoded(data)
    assert found.missing is not None
    assert abs(found.missing - (0 if progressive or lost >= 1 else lost)) < 0.06
    assert intact.missing is None
    assert (found.facts.width, found.facts.height) == (1600, 1200)
    upper = slice(0, 20)
    difference = np.abs(found.pixels[upper].astype(int) - intact.pixels[upper])
    assert difference.mean() < 6
    assert (decode_pixels(cut, (PREPROCESSING,), limits=LIMITS) == found.pixels).all()
    assert Image.open(BytesIO(thumbnail(cut, 100, limits=LIMITS))).size == (100, 75)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("GIF", {"interlace": 0}),
        ("GIF", {"interlace": 0, "transparency": 3}),
        ("WEBP", {"quality": 90}),
        ("WEBP", {"quality": 90, "icc_profile": bytes(400)}),
    ],
)
def test_other_formats_without_their_end_are_taken_as_far_as_they_go(format_: str, options: dict[str, Any]) -> None:
    data = saved(picture(), format_, **options)
    for lost in (0.05, 0.3):
        cut = data[: -int(lost * len(data))]
        missing = decoded(cut).missing
        assert missing is not None, lost
        assert abs(missing - lost) < 0.12, lost
        rows = slice(170, 230) if format_ == "BMP" else slice(10, 70)  # which begins at the bottom
        assert np.abs(whole(cut)[rows].astype(int) - whole(data)[rows]).mean() < 6


def test_what_is_black_or_white_at_the_bottom_is_not_taken_for_missing() -> None:
    for ground in ("black", "white"):
        image = picture()
        image.paste(ground, (0, 80, 320, 240))
        assert (decoded(saved(image, "BMP")[:-3_000]).missing or 0) < 0.05
        for mode in ("RGB", "P", "L"):
            data = saved(image.convert(mode), compress_level=0)
            missing = decoded(data[: int(len(data) * 0.9)]).missing
            assert missing is not None
            assert abs(missing - 0.1) < 0.03, (ground, mode)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_a_file_that_lost_most_of_its_picture_is_rejected(format_: str) -> None:
    data = saved(picture(), format_)
    for left in (0.3, 0.1):
        with pytest.raises(ImageRejected, match=r"truncated|damaged"):
            decoded(data[: int(left * len(data))])


def test_a_webp_that_lost_what_stands_behind_its_picture_is_whole() -> None:
    data = saved(picture(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(2_000))
    found = decoded(data[:-500])
    assert found.missing is None
    assert (whole(data[:-500]) == whole(data)).all()


@pytest.mark.slow
def test_a_build_takes_files_without_their_end_and_lists_them(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "p").mkdir()
    for number, (name, left) in enumerate({"whole.jpg": 1.0, "most.jpg": 0.8, "little.jpg": 0.2}.items()):
        data = saved(picture(number), "JPEG")
        (tmp_path / "p" / name).write_bytes(data[: int(left * len(data))])
    arguments = ("build", tmp_path / "p", "--index", tmp_path / "i.index", "--model", checkpoint)
    answer = json.loads(run_cli(*arguments, "--json", check=3).stdout)
    assert answer["added"] == 2
    assert [Path(failed["path"]).name for failed in answer["failed"]] == ["little.jpg"]
    (incomplete,) = answer["incomplete"]
    assert incomplete["path"] == str(tmp_path / "p" / "most.jpg")
    assert abs(incomplete["missing"] - 0.2) < 0.1
    (tmp_path / "p" / "another.jpg").write_bytes((tmp_path / "p" / "most.jpg").read_bytes()[:-10])
    said = run_cli(*arguments[:4], check=3)
    assert "incomplete: " in said.stderr
    assert "another.jpg: the file ends before the picture does" in said.stderr
    assert "most.jpg" not in said.stderr, "it was told when it came"


# ---- other files with damaged parts beside the picture


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "odd",
    [
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xED, b"Photoshop 3.0\0008BIM\x04\x04"),
        segment(0xEE, b"Adobe"),
        segment(0xE0, b"JFIF\0"),
        segment(0xE2, b"MPF\0"),
    ],
    ids=["profile", "Photoshop", "Adobe", "JFIF", "MPF"],
)
def test_a_jpeg_with_a_damaged_segment_beside_the_picture_is_whole(odd: bytes) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Phone"
    plain = saved(picture(), "JPEG", exif=exif)
    data = plain[:2] + odd + plain[2:]
    assert (whole(data) == whole(plain)).all()
    found = decoded(data)
    assert (found.missing, found.facts.camera) == (None, "Phone")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize(
    "before", [b"\r\n\r\n", b"\xef\xbb\xbf\n", b"\0\x05a.jpg".ljust(128, b"\0")], ids=["lines", "mark", "header"]
)
def test_a_picture_with_other_bytes_before_it_is_whole(format_: str, before: bytes) -> None:
    plain = saved(picture(), format_)
    assert (whole(before + plain) == whole(plain)).all()
    found, intact = decoded(before + plain), decoded(plain)
    assert (found.facts.format, found.missing) == (intact.facts.format, None)
    for other in (b"<html>" + bytes(600) + plain, b"not a picture GIF89a, nor \xff\xd8\xff"):
        with pytest.raises(ImageRejected, match="not one of the supported formats"):
            decoded(other)


@pytest.mark.parametrize("size", [0, 100, 2**31])
def test_a_webp_that_is_wrong_about_its_length_is_whole(size: int) -> None:
    plain = saved(picture(), "WEBP")
    data = plain[:4] + struct.pack("<I", size) + plain[8:]
    assert (whole(data) == whole(plain)).all()
    assert decoded(data).missing is None


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("entry", [(270, 2, 9_999, 0x7FFFFFFF), (34675, 7, 5_000, 0x7FFFFF00), (700, 77, 9, 9)])
def test_a_tiff_with_a_tag_that_points_nowhere_is_whole(entry: tuple[int, ...], compression: str) -> None:
    plain = saved(picture(), "TIFF", compression=compression)
    at = int.from_bytes(plain[4:8], "little")
    count = int.from_bytes(plain[at : at + 2], "little")
    entries = [plain[first : first + 12] for first in range(at + 2, at + 2 + 12 * count, 12)]
    entries = sorted([*entries, struct.pack("<HHII", *entry)], key=lambda one: int.from_bytes(one[:2], "little"))
    data = plain[:4] + struct.pack("<I", len(plain)) + plain[8:]
    data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    assert (whole(data) == whole(plain)).all()


# ---- PNGs whose chunks beside the picture are large or damaged


def chunk(kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    found = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", found)


LONG = json.dumps([{"node": number, "text": f"step {number}"} for number in range(50_000)]).encode()
"""1.5 MB, as an editor's history or a generator's workflow."""


def odd_chunks() -> Iterator[tuple[str, bytes]]:
    yield "zTXt", chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG))
    yield "iTXt", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG))
    yield "tEXt", chunk(b"tEXt", b"workflow\0" + LONG)
    yield "many tEXt", chunk(b"tEXt", b"k\0" + bytes(900_000)) * 80
    yield "iCCP", chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(4_000_000)))
    yield "iCCP that does not unpack", chunk(b"iCCP", b"bad\0\0" + b"no zlib")
    yield "text with a wrong sum", chunk(b"tEXt", b"k\0v", crc=1)
    yield "profile with a wrong sum", chunk(b"iCCP", b"bad\0\0" + zlib.compress(bytes(99)), crc=1)
    yield "short pHYs", chunk(b"pHYs", b"\0\0")
    yield "short gAMA", chunk(b"gAMA", b"\0")
    yield "short sRGB", chunk(b"sRGB", b"")
    yield "text without an end", chunk(b"zTXt", b"")
    yield "unknown with a wrong sum", chunk(b"prVt", bytes(9), crc=1)


@pytest.mark.parametrize(("name", "odd"), list(odd_chunks()), ids=[name for name, _ in odd_chunks()])
def test_a_png_is_taken_whatever_its_chunks_beside_the_picture_are(name: str, odd: bytes) -> None:
    plain = saved(picture())
    for data in (plain[:33] + odd + plain[33:], plain[:-12] + odd + plain[-12:]):
        assert (whole(data) == whole(plain)).all()
        assert decoded(data).missing is None


def test_of_a_png_with_a_long_text_transparency_and_facts_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0110] = "Scanner"
    image = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    plain = saved(image, exif=exif)
    data = plain[:33] + next(odd_chunks())[1] + plain[33:]
    assert decoded(data).facts.camera == "Scanner"
    assert (whole(data) == 255).all(), "what is transparent lies on white"


def test_a_png_whose_picture_has_a_wrong_sum_alone_is_whole() -> None:
    plain = saved(picture())
    at = plain.index(b"IDAT")
    size = int.from_bytes(plain[at - 4 : at], "big")
    wrong = plain[: at + 4 + size] + b"\0\0\0\0" + plain[at + 8 + size :]
    assert (whole(wrong) == whole(plain)).all()


def test_a_server_takes_a_picture_without_its_end_as_a_query_and_refuses_one_that_has_little_of_it(
    server: Server,
) -> None:
    data = saved(picture(), "JPEG")
    for left, status in ((0.9, 200), (0.2, 422)):
        files = {"image": ("sent.jpg", data[: int(left * len(data))], "image/jpeg")}
        answer = httpx.post(f"{server.url}/v1/search/image", files=files, data={"k": 3}, timeout=30)
        assert answer.status_code == status, answer.text
