"""Samples of more than eight bits keep what they show: few of many bits, opacity, ink, and colours stored apart."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import recipe
from numpy.typing import NDArray
from PIL import Image
from test_pixels import GREY, RGB, X, is_like, pixels
from tiffs import file_of, tags_of, tiff

from api.serving.embedding import UPLOADS
from indexer.pictures.decode import decode
from indexer.pictures.levels import to_levels, to_opacity
from indexer.pictures.load import load
from indexer.pictures.worker import Workers


def png(samples: NDArray[Any], *, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of (height, width, channels) numbers of 16 bits; the rows' differences alternate, as encoders have them."""
    rows = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
    data = b""
    for number, row in enumerate(rows):
        up = rows[number - 1] if number else np.zeros_like(row)
        data += bytes([2]) + (row - up).tobytes() if number % 2 else bytes([0]) + row.tobytes()
    return png_of(samples.shape, zlib.compress(data), transparent)


def png_of(shape: tuple[int, ...], zipped: bytes, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits from its shape, as `png` has it, and its compressed rows."""
    height, width, count = shape
    kind = {2: 4, 3: 2, 4: 6}[count]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    chunks += [(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))] if transparent else []
    chunks += [(b"IDAT", zipped), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_a_png_that_use_some_of_sixteen_bits_are_as_light_as_in_eight(bits: int) -> None:
    assert is_like(png(RGB << (bits - 8)), RGB, within=0)
    opaque = np.dstack([RGB << (bits - 8), np.where(X < 32, 65_535, 0)])
    assert is_like(png(opaque), np.where(X[..., None] < 32, RGB, 255), within=0)
    grey = np.dstack([GREY << (bits - 8), np.where(X < 32, 65_535, 0)])
    assert is_like(png(grey), np.where(X < 32, GREY, 255), within=0)


def test_a_narrow_band_of_a_deep_png_is_stretched() -> None:
    colours = np.stack([GREY, GREY, GREY], axis=-1)
    assert is_like(png(29_000 + colours * 4), colours, within=1)


def test_the_transparent_colour_of_a_dark_deep_png_is_transparent() -> None:
    colours = RGB * 2
    colours[:, :8] = 300, 7, 11
    shown = pixels(png(colours, transparent=(300, 7, 11)))
    assert (shown[:, :8] == 255).all()
    assert np.abs(shown[:, 8:] - RGB[:, 8:] // 2).max() <= 1, "of ten bits, 510 is half"


@pytest.fixture(scope="module")
def large() -> bytes:
    """A PNG of twelve bits, of a quarter of the pixels that an upload may have; all its rows are the same."""
    side = int((UPLOADS.max_pixels / 4) ** 0.5)
    row = b"\0" + np.repeat(np.linspace(0, 4095, side).astype(">u2"), 3).tobytes()
    compressing = zlib.compressobj(1)
    return png_of((side, side, 3), b"".join([compressing.compress(row) for _ in range(side)]) + compressing.flush())


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "lightest"), [(UPLOADS.max_memory // 4, 255), (180_000_000, 15)])
def test_a_dark_deep_png_is_taken_in_the_memory_of_uploads_and_stays_dark_in_less(
    large: bytes, memory: int, lightest: int
) -> None:
    with Workers((recipe().preprocessing,), replace(UPLOADS, max_memory=memory, seconds=120)) as workers:
        decoded = workers.run(decode, large, inputs=(recipe().preprocessing,))
    assert abs(int(decoded.pixels.max()) - lightest) <= 1 + lightest // 50, "the edges of a row are averaged"


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_deep_png_is_the_same_in_blocks_of_any_size(
    rows: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.dstack([RGB * 4, GREY * 16])[..., [0, 3] if channels == 2 else range(channels)]
    whole = to_levels(samples[..., :1] if channels == 2 else samples[..., :3])
    monkeypatch.setattr("indexer.pictures.levels.BLOCK_SAMPLES", rows * 64 * 4)
    image = load(png(samples), check=lambda _: None, at_least=None).image
    shown = np.asarray(image)
    assert image.mode == ("RGB" if channels == 3 else "RGBA")
    assert np.array_equal(shown[..., :3], np.broadcast_to(whole, shown[..., :3].shape))
    if channels != 3:
        assert np.array_equal(shown[..., 3], to_opacity(samples[..., -1].astype(np.uint16), 16))


@pytest.mark.parametrize("bits", [10, 12])
def test_opacity_of_few_bits_is_as_deep_as_its_colours(bits: int) -> None:
    colours = np.dstack([RGB, np.where(X < 32, 255, 0)]).astype(np.uint16) << (bits - 8)
    colours[:, :32, 3] = 2**bits - 1
    truth = np.where(X[..., None] < 32, RGB, 255)
    assert is_like(tiff(colours, photometric=2, bits=bits, tags={338: (3, (2,))}), truth)
    assert is_like(tiff(colours, photometric=2, tags={338: (3, (2,))}), truth), "in sixteen"
    assert is_like(png(colours), truth)


@pytest.mark.parametrize("photometric", [1, 2])
def test_planes_of_eight_bits_have_the_contrast_that_they_have_side_by_side(photometric: int) -> None:
    samples = (100 + RGB // 8).astype(np.uint8)[..., : 2 if photometric == 1 else 3]
    data = tiff(samples, photometric=photometric, planar=True)
    assert is_like(data, (100 + RGB // 8)[..., : 1 if photometric == 1 else 3], within=0)


def test_little_ink_stays_little() -> None:
    ink = np.dstack([RGB // 8, np.zeros_like(GREY)]).astype(np.uint8)
    expected = np.asarray(Image.frombytes("CMYK", (64, 48), ink.tobytes()).convert("RGB")).astype(int)
    assert is_like(tiff(ink.astype(np.uint16) * 257, photometric=5), expected, within=1)
    assert is_like(tiff(ink, photometric=5, planar=True), expected, within=1)


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("zipped", [False, True])
def test_colours_that_pixels_of_a_tiff_share_are_theirs(across: int, down: int, zipped: bool) -> None:
    rough = np.repeat(np.repeat(RGB[::down, ::across], down, axis=0), across, axis=1).astype(np.uint8)
    light, blue, red = np.asarray(Image.fromarray(rough).convert("YCbCr")).transpose(2, 0, 1)
    blocks = light.reshape(48 // down, down, 64 // across, across).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(48 // down, 64 // across, -1)
    data = np.dstack([blocks, blue[::down, ::across], red[::down, ::across]]).astype(np.uint8).tobytes()
    entries = tags_of(RGB.astype(np.uint8), photometric=6, planar=False, bits=None, zipped=zipped)
    entries |= {530: (3, (across, down))}
    assert is_like(file_of([(entries, [zlib.compress(data) if zipped else data])]), rough, within=4)
