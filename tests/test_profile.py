"""Colour profiles: what is embedded and drawn is sRGB, whatever space a file's numbers are in."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from indexer.pictures.decode import DecodeLimits, decode, open_upright, thumbnail
from search.recipe import Preprocessing

LIMITS = DecodeLimits()
SMALL = Preprocessing(geometry="square", resize=8, size=8, resample=0, mean=(0.5,) * 3, std=(0.5,) * 3)
WIDE = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])
"""ProPhoto's colours to XYZ (D50)."""
TO_SRGB = np.array([[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]])
"""XYZ (D50) to linear sRGB."""
COLOURS = [(200, 120, 90), (90, 140, 110), (120, 110, 170), (128, 128, 128), (30, 40, 35), (250, 250, 250)]


def profile(space: bytes, pcs: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 2 with these tags."""
    body, table = b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, kind, space, pcs)
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + body


def xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def wide(gamma: float = 1.8) -> bytes:
    tags = {name: xyz(WIDE[:, column]) for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(gamma))
    return profile(b"RGB ", b"XYZ ", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), **tags})


def grey(gamma: float = 1.0) -> bytes:
    return profile(b"GRAY", b"XYZ ", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"kTRC": curve(gamma)})


def inks() -> bytes:
    """A printer's profile in which each ink is as dark as its number says, and cyan is a dull blue."""
    nodes = bytearray()
    for node in range(16):
        cyan, magenta, yellow, black = (node >> 3 & 1, node >> 2 & 1, node >> 1 & 1, node & 1)
        light = max(0, 95 - 40 * cyan - 45 * magenta - 8 * yellow - 80 * black)
        a, b = -30 * cyan + 70 * magenta, -45 * cyan + 80 * yellow
        nodes += bytes((round(light * 2.55), 128 + max(-128, min(127, a)), 128 + max(-128, min(127, b))))
    ramp = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65_536 * (place % 4 == 0)) for place in range(9))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + 4 * ramp + bytes(nodes) + 3 * ramp
    return profile(b"CMYK", b"Lab ", {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"A2B0": lut}, b"prtr")


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def pixels(data: bytes) -> NDArray[np.int64]:
    return np.asarray(open_upright(data, limits=LIMITS, at_least=None)).astype(np.int64)


def strip(mode: str = "RGB") -> Image.Image:
    """A row of COLOURS, 16 pixels square each."""
    image = Image.new("RGB", (16 * len(COLOURS), 16))
    for number, colour in enumerate(COLOURS):
        image.paste(colour, (16 * number, 0, 16 * number + 16, 16))
    return image.convert(mode)


def expected(gamma: float = 1.8) -> NDArray[np.float64]:
    """COLOURS of the wide profile in sRGB, by the definitions."""
    linear = np.clip((np.array(COLOURS) / 255) ** gamma @ WIDE.T @ TO_SRGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 98, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 98, "subsampling": "4:4:4"}),
    ],
)
def test_a_wide_profile_is_applied_before_embedding_and_in_thumbnails(format_: str, options: dict[str, Any]) -> None:
    data = saved(strip(), format_, icc_profile=wide(), **options)
    centres = pixels(data)[8, 8::16]
    assert np.abs(centres - expected()).max() <= 6
    assert np.abs(pixels(saved(strip(), format_, **options))[8, 8::16] - expected()).max() > 15, "it makes a difference"
    small = np.asarray(Image.open(BytesIO(thumbnail(data, 96, limits=LIMITS)))).astype(int)[8, 8::16]
    assert np.abs(small - expected()).max() <= 8
    embedded = decode(saved(strip().crop((0, 0, 16, 16)), icc_profile=wide()), (SMALL,), limits=LIMITS).pixels
    assert np.abs(embedded[4, 4] - expected()[0]).max() <= 3


def test_a_profile_reaches_palettes_and_leaves_transparency() -> None:
    palette = strip().quantize(16)
    assert np.abs(pixels(saved(palette, icc_profile=wide()))[8, 8::16] - expected()).max() <= 6
    clear = strip("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 16, 16))
    for data in (saved(clear, icc_profile=wide()), saved(clear.quantize(16), icc_profile=wide())):
        found = pixels(data)[8, 8::16]
        assert np.abs(found[1:] - expected()[1:]).max() <= 6
        assert (found[0] == pixels(saved(clear))[8, 8]).all(), "the ground is the one without a profile"
    keyed = saved(strip(), icc_profile=wide(), transparency=COLOURS[1])
    found = pixels(keyed)[8, 8::16]
    assert (found[1] == 255).all()
    assert np.abs(found[2:] - expected()[2:]).max() <= 4


def test_a_grey_profile_is_applied() -> None:
    flat = Image.new("L", (16, 16), 64)
    clear = Image.merge("LA", (flat, Image.new("L", (16, 16), 255)))
    for data in (
        saved(flat, icc_profile=grey()),
        saved(flat, "JPEG", icc_profile=grey()),
        saved(clear, icc_profile=grey()),
    ):
        assert np.abs(pixels(data)[8, 8] - 137).max() <= 2, "linear .25 is 137 in sRGB"
    keyed = saved(flat, icc_profile=grey(), transparency=64)
    assert (pixels(keyed) == pixels(saved(flat, transparency=64))).all()


def test_a_printer_s_profile_is_applied() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for format_ in ("JPEG", "TIFF"):
        red, green, blue = pixels(saved(cyan, format_, icc_profile=inks()))[8, 8]
        assert red < 60
        assert 120 < green < 170  # L* 55, a* -30, b* -45
        assert 190 < blue < 230
        assert (pixels(saved(cyan, format_))[8, 8] == (0, 255, 255)).all()


@pytest.mark.parametrize(
    ("mode", "bad"),
    [
        ("RGB", b"no profile"),
        ("RGB", wide()[:200]),
        ("RGB", grey()),
        ("RGB", inks()),
        ("L", wide()),
        ("CMYK", wide()),
        ("RGB", wide() + bytes(5_000_000)),
        ("RGB", srgb()),
    ],
)
def test_a_profile_that_is_broken_does_not_fit_or_is_srgb_changes_nothing(mode: str, bad: bytes) -> None:
    format_ = "JPEG" if mode == "CMYK" else "TIFF"
    assert (pixels(saved(strip(mode), format_, icc_profile=bad)) == pixels(saved(strip(mode), format_))).all()


def test_deep_grey_keeps_its_own_scale() -> None:
    deep = Image.fromarray(np.full((8, 8), 0x4000, dtype=np.uint16))
    assert (pixels(saved(deep, icc_profile=grey())) == pixels(saved(deep))).all()


def test_thumbnails_keep_the_colours_of_small_things() -> None:
    lines = Image.new("RGB", (64, 64), "white")
    for left in range(0, 64, 2):
        lines.paste("red", (left, 0, left + 1, 64))
    small = np.asarray(Image.open(BytesIO(thumbnail(saved(lines), 64, limits=LIMITS)))).astype(int)
    assert np.abs(small - np.asarray(lines)).mean() < 12
