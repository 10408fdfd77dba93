"""Promises of the Python client: images of every kind, as the client sends them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_kit import CLIENT, Recorder, ok
from lookalike_client._images import image_bytes
from PIL import Image as Pillow

pytestmark = pytest.mark.usefixtures("kind")


def sent(image: Any) -> bytes:
    """The bytes that travel for an image."""
    api = Recorder(ok())
    api.client.search(image)
    data: bytes = api.form["image"][1]
    return data


def test_paths_bytes_and_files_travel_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a picture.jpg"
    path.write_bytes(b"pixels")
    with path.open("rb") as opened:
        for image in (path, str(path), b"pixels", bytearray(b"pixels"), memoryview(b"pixels"), opened):
            assert sent(image) == b"pixels"


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 4)])
def test_arrays_travel_as_png_without_loss(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for given in (array, array[::-1, ::2]):
        with Pillow.open(io.BytesIO(sent(given))) as received:
            assert received.format == "PNG"
            np.testing.assert_array_equal(np.asarray(received), given)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint64),
        np.zeros((4, 4, 3), np.uint16),
        np.full((4, 4, 3), 1.5),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: Any) -> None:
    with pytest.raises(ValueError, match="array"):
        sent(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pillow_images_travel_as_png(mode: str) -> None:
    picture = Pillow.new(mode, (5, 4))
    with Pillow.open(io.BytesIO(sent(picture))) as received:
        assert (received.format, received.size) == ("PNG", (5, 4))
        if mode not in ("CMYK", "YCbCr"):
            assert received.mode == mode


def test_orientation_of_a_pillow_image_travels_along() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    file = io.BytesIO()
    Pillow.new("RGB", (8, 4)).save(file, "JPEG", exif=exif)
    with Pillow.open(io.BytesIO(sent(Pillow.open(file)))) as received:
        assert dict(received.getexif()) == {0x0112: 6}, "the orientation, and nothing private"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sent(tmp_path / "missing.jpg")
    with pytest.raises(TypeError, match="not int"):
        sent(7)
    with pytest.raises(TypeError, match="'rb'"):
        sent(io.StringIO("text"))
    exhausted = io.BytesIO(b"pixels")
    exhausted.read()
    with pytest.raises(ValueError, match="seek"):
        sent(exhausted)


def test_words_that_are_taken_for_a_path_are_told_where_to_go() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        image_bytes("the red bicycle")
    assert "search(text=" in caught.value.__notes__[0]


def test_import_needs_neither_numpy_nor_pillow() -> None:
    code = (
        "import sys; import lookalike_client as l; l._images.is_image(b'')\n"
        "assert not {'numpy', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.modules['PIL'] = None; import numpy\n"
        "try: l._images.image_bytes(numpy.zeros((2, 2), 'uint8'))\n"
        "except TypeError as error: assert 'pip install pillow' in str(error), error\n"
        "else: raise AssertionError\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
