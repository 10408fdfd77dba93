"""What the client makes of pixels in memory is what the server makes of their file, or a ValueError."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from lookalike_client._images import image_bytes
from numpy.typing import NDArray
from PIL import Image
from tiffs import tiff

from indexer.pictures.decode import DecodeLimits, open_upright

Y, X = np.mgrid[0:24, 0:32]
GREY: NDArray[Any] = (X * 5 + Y * 4) % 256
GREY[0, :2] = 0, 255


def pixels(data: bytes) -> NDArray[Any]:
    return np.asarray(open_upright(data, limits=DecodeLimits(), at_least=None)).astype(int)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_an_opened_deep_picture_is_as_its_file(dtype: type, order: str) -> None:
    for values in (GREY * 100, GREY * 16, GREY * 90 + 4000, GREY):
        data = tiff((values / 255 if dtype is np.float32 else values).astype(dtype), order=order)
        with Image.open(BytesIO(data)) as opened:
            np.testing.assert_array_equal(pixels(image_bytes(opened)), pixels(data))


def test_what_a_tiff_says_of_its_samples_travels_along() -> None:
    heights = (GREY * 7 + 100).astype(np.int16)
    heights[:5] = 12_345
    data = tiff(heights, tags={42113: (2, ("12345",)), 270: (2, ("a private note",))})
    with Image.open(BytesIO(data)) as opened:
        sent = image_bytes(opened)
    np.testing.assert_array_equal(pixels(sent), pixels(data))
    assert b"private" not in sent


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"])
def test_every_deep_mode_keeps_its_values(mode: str) -> None:
    picture = Image.new(mode, (8, 4), 1000)
    picture.putpixel((0, 0), 0)
    picture.putpixel((1, 0), 4000)
    found = pixels(image_bytes(picture))
    assert tuple(found[0, :2, 0]) in ((0, 250), (0, 249), (0, 255))
    assert 60 <= found[2, 2, 0] <= 64


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_turned_tiff_is_turned_once(dtype: type) -> None:
    data = tiff((GREY * (257 if dtype is np.uint16 else 1)).astype(dtype), tags={274: (3, (6,))})
    with Image.open(BytesIO(data)) as opened:
        sent = pixels(image_bytes(opened))
    assert sent.shape == (32, 24, 3)
    np.testing.assert_array_equal(sent, pixels(data))


@pytest.mark.parametrize("planar", [False, True])
def test_tiffs_that_pillow_reads_otherwise_are_refused(planar: bool) -> None:
    colours = np.stack([GREY] * 3, axis=-1).astype(np.uint16)
    data = tiff(colours, photometric=2, planar=planar)
    negative = tiff((GREY * 257).astype(np.uint16), photometric=0)
    for file in (data, negative):
        with Image.open(BytesIO(file)) as opened, pytest.raises(ValueError, match="Pass the path"):
            image_bytes(opened)


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int16", "int32", "float16", "float32", ">f4", "float64", "bool"])
def test_grey_arrays_are_as_light_as_in_eight_bits(dtype: str) -> None:
    kind = np.dtype(dtype).kind
    values = GREY / 255 if kind == "f" else GREY > 127 if kind == "b" else GREY * (16 if dtype != "int16" else 4)
    truth = np.where(GREY > 127, 255, 0) if kind == "b" else GREY
    assert np.abs(pixels(image_bytes(values.astype(dtype))) - truth[..., None]).max() <= 1


def test_float_arrays_in_colour_are_as_in_eight_bits() -> None:
    colours = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
    np.testing.assert_array_equal(pixels(image_bytes(colours / 255)), colours)
