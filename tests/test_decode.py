"""Decoding: every format and mode, upright, bounded; a bad file is an ImageRejected and nothing else."""

from __future__ import annotations

import pickle
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, features

from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, decode, decode_pixels, open_upright, thumbnail
from indexer.pictures.formats import EXTENSIONS, sniff
from search.recipe import Preprocessing

LIMITS = DecodeLimits()
CROP = Preprocessing(geometry="crop", resize=64, size=56, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)
WHOLE = replace(CROP, geometry="square", resize=8, size=8, resample=0)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A picture without symmetry: red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill="red")
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill="lime")
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill="blue")
    return image


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours of the four quarters' centres, rounded to what survives a lossy format."""
    width, height = image.size
    points = [(width * x // 4, height * y // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(round(channel / 255) for channel in image.getpixel(point)) for point in points]  # type: ignore[union-attr]


UPRIGHT = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]


def upright(data: bytes) -> Image.Image:
    return open_upright(data, limits=LIMITS, at_least=None)


def colour(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = upright(data)
    assert image.mode == "RGB"
    assert image.info == {}
    return image.getpixel(at)  # type: ignore[return-value]


# ---- formats and facts


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_decoded_and_recognised(format_: str) -> None:
    data = saved(scene(), format_)
    decoded = decode(data, (CROP,), limits=LIMITS)
    assert decoded.facts.format == format_.lower()
    assert (decoded.facts.width, decoded.facts.height, decoded.facts.bytes) == (96, 64, len(data))
    assert decoded.pixels.shape == (56, 56, 3)
    assert decoded.pixels.dtype == np.uint8
    assert corners(upright(data)) == UPRIGHT
    assert sniff(data[:32])


def test_pillow_here_can_read_all_formats() -> None:
    assert features.check("avif")
    assert features.check("webp")


@pytest.mark.parametrize("format_", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_of_several_frames_the_first_counts(format_: str) -> None:
    data = saved(scene(), format_, save_all=True, append_images=[Image.new("RGB", (96, 64), "black")])
    assert corners(upright(data)) == UPRIGHT


def test_a_phone_picture_with_a_second_image_inside_is_a_jpeg() -> None:
    data = saved(scene(), "MPO", save_all=True, append_images=[scene()])
    assert decode(data, (CROP,), limits=LIMITS).facts.format == "jpeg"


@pytest.mark.parametrize("format_", ["ICO", "PPM", "TGA", "PCX", "JPEG2000", "DDS", "EPS"])
def test_other_formats_are_refused(format_: str) -> None:
    data = saved(scene(), format_)
    with pytest.raises(ImageRejected, match=r"not one of the supported formats|not supported"):
        decode(data, (CROP,), limits=LIMITS)
    assert not sniff(data[:32])


@pytest.mark.parametrize(
    "header",
    [b"", b"BM", b"BMW is a car, and this is a text", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x20ftypmp42", b"%PDF-1.7"],
)
def test_other_files_are_not_taken_for_images(header: bytes) -> None:
    assert not sniff(header)


def test_extensions_are_lower_case_suffixes() -> None:
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"} <= EXTENSIONS
    assert all(re.fullmatch(r"\.[a-z]+", extension) for extension in EXTENSIONS)


SYDNEY = {1: "S", 2: (33.0, 52.0, 4.0), 3: "E", 4: (151.0, 12.0, 36.0)}


def add_tag(exif: Image.Exif, tag: int, value: Any) -> None:
    if isinstance(value, dict):  # TIFF's writer wants both the directory and its tag
        exif.get_ifd(tag).update(value)
    exif[tag] = value


def exif_of(**tags: Any) -> Image.Exif:
    exif = Image.Exif()
    for tag, value in tags.items():
        add_tag(exif, int(tag[1:], 16), value)
    return exif


def test_exif_tells_when_where_and_with_what() -> None:
    exif = exif_of(x010F="Canon\0", x0110="Canon EOS 5D\n", x8769={0x9003: "2021:07:09 10:11:12"}, x8825=SYDNEY)
    for format_ in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        facts = decode(saved(scene(), format_, exif=exif), (CROP,), limits=LIMITS).facts
        assert facts.taken_at == "2021-07-09T10:11:12", format_
        assert facts.camera == "Canon EOS 5D", format_
        assert facts.gps == pytest.approx((-33.867778, 151.21)), format_


def test_nonsense_in_exif_rejects_nothing() -> None:
    exif = exif_of(x010F=b"\xff\x01" * 500, x0110=7, x8769={0x9003: "0000:00:00 00:00:00"})
    add_tag(exif, 0x8825, {1: "N", 2: (999.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)})
    facts = decode(saved(scene(), "JPEG", exif=exif), (CROP,), limits=LIMITS).facts
    assert facts.taken_at is None
    assert facts.gps is None
    assert facts.camera is None or (facts.camera.isprintable() and len(facts.camera) <= 80)
    broken = saved(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(broken, (CROP,), limits=LIMITS).facts.camera is None


def test_mutated_exif_rejects_nothing() -> None:
    chance = random.Random(3)
    exif = exif_of(x0112=6, x010F="Maker", x8769={0x9003: "2021:07:09 10:11:12"}, x8825=SYDNEY).tobytes()
    for _ in range(150):
        facts = decode(saved(scene(), "JPEG", exif=mutated(exif, chance)), (CROP,), limits=LIMITS).facts
        assert {facts.width, facts.height} == {96, 64}


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_all_orientations_come_out_upright(format_: str, orientation: int) -> None:
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that an upright picture went through
    stored = scene() if orientation == 1 else scene().transpose(Image.Transpose(inverse[orientation]))
    data = saved(stored, format_, exif=exif_of(x0112=orientation))
    decoded = decode(data, (CROP,), limits=LIMITS)
    assert (decoded.facts.width, decoded.facts.height) == (96, 64)
    assert corners(upright(data)) == UPRIGHT


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_reduced_decoding_keeps_the_facts_of_the_full_size(orientation: int) -> None:
    stored = scene(1600, 1200)
    data = saved(stored, "JPEG", exif=exif_of(x0112=orientation))
    facts = decode(data, (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height) == ((1600, 1200) if orientation == 1 else (1200, 1600))
    small = open_upright(data, limits=LIMITS, at_least=128)
    assert min(small.size) == 150


# ---- modes


def test_transparency_lies_on_white() -> None:
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half.putpixel((1, 0), (255, 0, 0, 255))
    half.putpixel((2, 0), (0, 0, 0, 128))
    for format_ in ("PNG", "WEBP", "TIFF"):
        data = saved(half, format_, **({"lossless": True} if format_ == "WEBP" else {}))
        assert [colour(data, (x, 0)) for x in range(3)] == [(255, 255, 255), (255, 0, 0), (127, 127, 127)], format_
    grey = Image.new("LA", (8, 8), (10, 0))
    grey.putpixel((1, 0), (10, 255))
    assert [colour(saved(grey), (x, 0)) for x in range(2)] == [(255, 255, 255), (10, 10, 10)]


def test_palette_transparency_lies_on_white() -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for data in (
        saved(palette, "PNG", transparency=0),
        saved(palette, "GIF", transparency=0),
        saved(palette, "PNG", transparency=bytes([0, 255])),
    ):
        assert [colour(data, (x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]
    assert colour(saved(palette)) == (10, 20, 30)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any depth, which Pillow itself cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    others = b"".join(chunk(name, body) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_transparent_colour_of_pictures_without_alpha_is_white() -> None:
    rgb = png(2, 1, 8, 2, bytes([0, 1, 2, 3, 4, 5, 6]), (b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    assert [colour(rgb, (x, 0)) for x in range(2)] == [(255, 255, 255), (4, 5, 6)]
    grey = png(2, 1, 8, 0, bytes([0, 7, 9]), (b"tRNS", struct.pack(">H", 7)))
    assert [colour(grey, (x, 0)) for x in range(2)] == [(255, 255, 255), (9, 9, 9)]
    deep_grey = png(2, 1, 16, 0, struct.pack(">xHH", 0x1234, 0x5678), (b"tRNS", struct.pack(">H", 0x1234)))
    assert [colour(deep_grey, (x, 0)) for x in range(2)] == [(255, 255, 255), (0x56, 0x56, 0x56)]
    deep = png(
        2,
        1,
        16,
        2,
        struct.pack(">xHHHHHH", 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666),
        (b"tRNS", struct.pack(">HHH", 0x1111, 0x2222, 0x3333)),
    )
    assert [colour(deep, (x, 0)) for x in range(2)] == [(255, 255, 255), (0x44, 0x55, 0x66)]
    one_bit = png(2, 1, 1, 0, bytes([0, 0b01000000]), (b"tRNS", struct.pack(">H", 0)))
    assert [colour(one_bit, (x, 0)) for x in range(2)] == [(64, 64, 64), (255, 255, 255)]  # white on a dark ground


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values: NDArray[np.uint16] = np.array([[0, 0x40FF, 0x8000, 0xFFFF]], dtype=np.uint16)
    expected = [(0,) * 3, (0x40,) * 3, (0x80,) * 3, (255,) * 3]
    grey = Image.fromarray(values)
    assert grey.mode == "I;16"
    big_endian = Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    for data in (saved(grey), saved(grey, "TIFF"), saved(big_endian, "TIFF")):
        assert [colour(data, (x, 0)) for x in range(4)] == expected
    rgb = png(2, 1, 16, 2, struct.pack(">xHHHHHH", 0, 0x8000, 0xFFFF, 0x1234, 0x5678, 0x9ABC))
    assert [colour(rgb, (x, 0)) for x in range(2)] == [(0, 0x80, 0xFF), (0x12, 0x56, 0x9A)]
    rgba = png(1, 1, 16, 6, struct.pack(">xHHHH", 0x1234, 0x5678, 0x9ABC, 0xFFFF))
    assert colour(rgba) == (0x12, 0x56, 0x9A)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 200.0]], np.float32), [0, 100, 200]),
        (np.array([[0.0, 32768.0, 65535.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 1, 200]], np.int32), [0, 1, 200]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 1_020_000, 2_040_000]], np.int32), [0, 128, 255]),
    ],
)
def test_deep_grey_of_unknown_range_becomes_visible(values: NDArray[Any], expected: list[int]) -> None:
    data = saved(Image.fromarray(values), "TIFF")
    assert [colour(data, (x, 0))[0] for x in range(3)] == expected


def test_print_video_and_lab_colours_become_rgb() -> None:
    for mode, options in (("CMYK", {"format_": "JPEG"}), ("CMYK", {"format_": "TIFF"}), ("YCbCr", {"format_": "TIFF"})):
        assert corners(upright(saved(scene().convert(mode), **options))) == UPRIGHT
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (136, 128 + 80, 128 + 67)])  # sRGB red
    red, green, blue = colour(saved(lab, "TIFF"))
    assert red > 240
    assert max(green, blue) < 15


def test_one_bit_pictures_become_black_and_white() -> None:
    image = Image.new("1", (8, 8), 1)
    image.putpixel((0, 0), 0)
    for format_ in ("PNG", "BMP", "TIFF", "GIF"):
        assert [colour(saved(image, format_), (x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


# ---- boxes


def test_box_cuts_the_upright_full_size_picture() -> None:
    for data in (saved(scene(1600, 1200), "JPEG", quality=95), saved(scene(1600, 1200))):
        for box, expected in (((0, 0, 800, 600), (255, 0, 0)), ((810, 0, 700, 500), (0, 255, 0))):
            decoded = decode(data, (WHOLE,), limits=LIMITS, box=box)
            assert np.abs(decoded.pixels.astype(int) - expected).max() <= 8
            assert decoded.facts == decode(data, (WHOLE,), limits=LIMITS).facts


def test_pixels_alone_are_those_of_a_whole_decoding() -> None:
    for data in (saved(scene(1600, 1200), "JPEG"), saved(scene(400, 600), exif=exif_of(x0112=6))):
        for box in (None, (10.0, 20.0, 90.0, 70.0)):
            whole = decode(data, (CROP,), limits=LIMITS, box=box).pixels
            assert (decode_pixels(data, (CROP,), limits=LIMITS, box=box) == whole).all()
    with pytest.raises(ImageRejected, match="truncated"):
        decode_pixels(saved(scene(), "JPEG")[:640], (CROP,), limits=LIMITS)


def test_box_follows_the_orientation() -> None:
    data = saved(scene(400, 600).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif_of(x0112=6), quality=95)
    decoded = decode(data, (WHOLE,), limits=LIMITS, box=(0, 310, 190, 290))
    assert (decoded.facts.width, decoded.facts.height) == (400, 600)
    assert np.abs(decoded.pixels.astype(int) - (0, 0, 255)).max() <= 8


def test_small_box_is_not_decoded_at_reduced_size() -> None:
    rough = Image.effect_noise((1600, 1200), 100).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    data = saved(rough, "JPEG", quality=95)
    box = (700, 500, 70, 70)
    exact = Image.open(BytesIO(data)).crop((700, 500, 770, 570)).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = decode(data, (replace(CROP, geometry="square", size=64),), limits=LIMITS, box=box).pixels
    assert np.abs(pixels.astype(int) - np.asarray(exact).astype(int)).max() <= 1


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 10),
        (0, 0, 10, -1),
        (-5, 0, 10, 10),
        (90, 0, 10, 10),
        (0, 60, 10, 10),
        (float("nan"), 0, 1, 1),
        (0, 0, float("inf"), 1),
        (1e300, 0, 1, 1),
    ],
)
def test_boxes_that_are_empty_or_outside_are_rejected(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ImageRejected, match="the box is"):
        decode(saved(scene()), (CROP,), limits=LIMITS, box=box)


@pytest.mark.parametrize("box", [(95.5, 63.5, 0.5, 0.5), (0, 0, 1e-9, 1e-9), (0, 0, 96, 64)])
def test_boxes_of_less_than_a_pixel_are_one_pixel(box: tuple[float, float, float, float]) -> None:
    for format_ in ("PNG", "JPEG"):
        assert decode(saved(scene(), format_), (CROP,), limits=LIMITS, box=box).pixels.shape == (56, 56, 3)


# ---- thumbnails


def test_noise_has_a_thumbnail() -> None:
    """Its JPEG takes more than a byte a pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    small = Image.open(BytesIO(thumbnail(saved(Image.fromarray(noise)), 256, limits=LIMITS)))
    assert (small.format, small.size) == ("JPEG", (256, 256))


def test_thumbnail_fits_and_is_never_enlarged() -> None:
    data = saved(scene(960, 640), "JPEG", exif=exif_of(x0112=6, x010F="Secret"), comment=b"secret", dpi=(300, 300))
    small = thumbnail(data, 120, limits=LIMITS)
    image = Image.open(BytesIO(small))
    assert (image.format, image.size) == ("JPEG", (80, 120))
    assert b"ecret" not in small
    assert not image.getexif()
    assert Image.open(BytesIO(thumbnail(saved(scene(30, 20)), 120, limits=LIMITS))).size == (30, 20)
    assert Image.open(BytesIO(thumbnail(saved(Image.new("RGB", (5_000, 1))), 100, limits=LIMITS))).size == (100, 1)


# ---- the perceptual hash


def distance(first: int, second: int) -> int:
    return ((first ^ second) & (2**64 - 1)).bit_count()


def phash(data: bytes) -> int:
    value = decode(data, (CROP,), limits=LIMITS).facts.phash
    assert value is not None
    return value


def test_perceptual_hash_survives_compression_and_scaling_and_tells_pictures_apart() -> None:
    hashes = []
    for seed in range(6):
        rough = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((640, 480), Image.Resampling.BICUBIC)
        copies = [saved(picture, "JPEG", quality=40), saved(picture.resize((320, 240)), "WEBP"), saved(picture)]
        first, *rest = map(phash, copies)
        assert max(distance(first, other) for other in rest) <= 6
        hashes.append(first)
    assert all(-(2**63) <= value < 2**63 for value in hashes)
    assert any(value < 0 for value in hashes)
    assert min(distance(a, b) for a in hashes for b in hashes if a != b) >= 12


def test_flat_pictures_have_one_hash() -> None:
    assert len({phash(saved(Image.new("RGB", size, "teal"))) for size in ((8, 8), (300, 200), (33, 7))}) == 1


# ---- limits


def test_limits_are_checked_before_pixels_are_read() -> None:
    bomb = png(100_000, 500, 1, 0, b"")  # nothing to decompress: reading pixels would say truncated
    with pytest.raises(ImageRejected, match=r"100,000 x 500 pixels, more than the limit"):
        decode(bomb, (CROP,), limits=LIMITS)
    wide = png(60_000, 60_000, 1, 0, b"")
    with pytest.raises(ImageRejected, match=r"more than the limit of 250,000,000 \(65,535 a side\)"):
        decode(wide, (CROP,), limits=LIMITS)
    data = saved(scene())
    decode(data, (CROP,), limits=DecodeLimits(max_bytes=len(data), max_pixels=96 * 64, max_side=96))
    for limits in (
        DecodeLimits(max_bytes=len(data) - 1),
        DecodeLimits(max_pixels=96 * 64 - 1),
        DecodeLimits(max_side=95),
    ):
        for attempt in (
            lambda limits=limits: decode(data, (CROP,), limits=limits),
            lambda limits=limits: thumbnail(data, 8, limits=limits),
            lambda limits=limits: open_upright(data, limits=limits, at_least=8),
        ):
            with pytest.raises(ImageRejected, match="more than the limit"):
                attempt()


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 2)])
def test_extreme_shapes_are_decoded_in_bounded_time(size: tuple[int, int]) -> None:
    data = saved(Image.new("RGB", size, "navy"))
    began = time.thread_time()  # of this processor's work: the machine may be busy
    pixels = decode(data, (replace(CROP, resize=256, size=224),), limits=LIMITS).pixels
    assert time.thread_time() - began < 0.5
    assert (pixels == (0, 0, 128)).all()


# ---- damage


@pytest.mark.parametrize("format_", FORMATS)
def test_truncated_files_are_rejected(format_: str) -> None:
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    data = saved(rough, format_)
    with pytest.raises(ImageRejected, match=r"truncated|damaged"):
        decode(data[: len(data) // 3], (CROP,), limits=LIMITS)


def test_truncated_jpeg_is_said_to_be_truncated() -> None:
    data = saved(scene(400, 300), "JPEG")
    with pytest.raises(ImageRejected, match="truncated: the file ends before the picture does"):
        decode(data[:900], (CROP,), limits=LIMITS)


def test_empty_file_is_said_to_be_empty() -> None:
    with pytest.raises(ImageRejected, match="empty"):
        decode(b"", (CROP,), limits=LIMITS)


def mutated(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(chance.choice((1, 2, 8, 40))):
        match chance.randrange(4):
            case 0:
                content[chance.randrange(len(content))] = chance.randrange(256)
            case 1:  # the header is where the meaning is
                content[chance.randrange(min(len(content), 64))] = chance.choice((0, 1, 127, 128, 255))
            case 2:
                del content[chance.randrange(len(content)) :][: chance.randrange(1, 20)]
            case _:
                at = chance.randrange(len(content))
                content[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(content)


def mutations() -> list[bytes]:
    chance = random.Random(7)
    exif = exif_of(x0112=6, x010F="Maker", x8825=SYDNEY)
    rough = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    originals = [saved(rough, format_, exif=exif) for format_ in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]
    originals += [saved(rough, "GIF"), saved(rough, "BMP"), saved(rough.convert("P"), "TIFF", compression="tiff_lzw")]
    return [mutated(originals[number % len(originals)], chance) for number in range(320)]


def test_mutated_files_raise_nothing_but_image_rejected() -> None:
    reasons, limits = list[str](), DecodeLimits(max_pixels=4_000_000)
    for data in mutations():
        try:
            decode(data, (CROP,), limits=limits)
        except ImageRejected as error:
            reasons.append(str(error))
    assert len(reasons) > 50
    assert max(map(len, reasons)) < 160
    assert all(reason.isascii() and " at 0x" not in reason for reason in reasons)


def test_running_out_of_memory_rejects_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    data = saved(scene())
    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(ImageRejected, match="more memory than there is"):
        decode(data, (CROP,), limits=LIMITS)


# ---- threads


def test_threads_decode_alike() -> None:
    files = [saved(scene(), format_) for format_ in FORMATS] * 6
    broken = saved(scene(), "TIFF")[:-17_000]
    alone = [decode(data, (CROP,), limits=LIMITS) for data in files]
    barrier = threading.Barrier(4)

    def work(number: int) -> list[Any]:
        barrier.wait()
        with pytest.raises(ImageRejected):
            decode(broken, (CROP,), limits=LIMITS)
        return [decode(data, (CROP,), limits=LIMITS) for data in files[number:]]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(work, range(4)))
    for number, decoded in enumerate(answers):
        for ours, theirs in zip(decoded, alone[number:], strict=True):
            assert ours.facts == theirs.facts
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)


@pytest.mark.slow
def test_what_pillow_warns_of_is_not_printed() -> None:
    code = """if True:
        import pickle, sys, warnings
        files, preprocessing = pickle.load(sys.stdin.buffer)
        from indexer.pictures.decode import DecodeLimits, ImageRejected, decode
        if len(sys.argv) > 1:
            warnings.simplefilter("always")
        for data in files:
            try:
                decode(data, (preprocessing,), limits=DecodeLimits(max_pixels=4_000_000))
            except ImageRejected:
                pass
    """

    def printed(*control: str) -> bytes:
        command = [sys.executable, "-W", "always", "-c", code, *control]
        return subprocess.run(command, input=files, capture_output=True, check=True).stderr

    files = pickle.dumps((mutations(), CROP))
    assert b"Warning" in printed("loud")
    assert b"Warning" not in printed()


def test_decoding_needs_no_torch() -> None:
    code = (
        "import sys, indexer.pictures.decode; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
