"""Resize and crop against transformers' own image processors, and the bounds beyond them."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import transformers
from PIL import Image

from indexer.encoders.processor import preprocessing_of
from indexer.pictures.preprocess import needed_size, to_input
from search.recipe import Geometry, Preprocessing

SIDES = (1, 2, 7, 31, 32, 33, 40, 41, 64, 100, 255, 333, 640)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 10_007 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sizes_up_to_aspect(limit: float) -> Iterator[tuple[int, int]]:
    for width, height in itertools.product(SIDES, SIDES):
        if max(width, height) <= limit * min(width, height):
            yield width, height
    yield from ((20, 400), (400, 20), (37, 740), (1000, 50))  # exactly the limit


@pytest.fixture(scope="module", params=["vit", "deit", "clip-vision", "dinov2", "siglip-vision"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save(request.param, tmp_path_factory.mktemp(request.param))


def resized_by_transformers(processor: Any, image: Image.Image) -> np.ndarray:
    """The processor's pixels before it rescales and normalises, 0..255, (size, size, 3)."""
    values = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.moveaxis(values, 0, -1)


def test_pixels_equal_those_of_transformers_up_to_20_to_1(folder: Path) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    preprocessing = preprocessing_of(folder)
    for size in sizes_up_to_aspect(20):
        image = noise(*size)
        ours, theirs = to_input(image, preprocessing), resized_by_transformers(processor, image)
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, theirs, err_msg=str(size))


def test_normalised_pixels_equal_those_of_transformers(folder: Path) -> None:
    preprocessing = preprocessing_of(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    images = [noise(64, 50), noise(33, 400), noise(640, 333)]
    pixels = np.stack([to_input(image, preprocessing) for image in images])
    ours = (pixels / np.float32(255) - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    theirs = processor(images, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def preprocessing(geometry: Geometry = "crop", resize: int = 256, size: int = 224) -> Preprocessing:
    return Preprocessing(
        geometry=geometry, resize=resize, size=size, resample=3, mean=(0.485, 0.456, 0.406), std=(0.2, 0.2, 0.2)
    )


@pytest.mark.parametrize("geometry", ["crop", "square", "pad"])
@pytest.mark.parametrize(
    "size", [(1, 600), (600, 1), (60_000, 2), (2, 60_000), (1, 65_500), (65_500, 1), (1, 1), (8_000, 300)]
)
def test_any_aspect_takes_bounded_time_and_memory(size: tuple[int, int], geometry: Geometry) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    to_input(image, preprocessing(geometry))
    tracemalloc.start()
    began = time.thread_time()  # of this processor's work: the machine may be busy
    pixels = to_input(image, preprocessing(geometry))
    seconds = time.thread_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.shape == (224, 224, 3)
    assert seconds < 0.1
    assert peak < 4_000_000
    centre = pixels[112, 112] if geometry != "pad" or max(size) < 600 * min(size) else (200, 100, 50)
    assert tuple(centre) == (200, 100, 50)


@pytest.mark.parametrize("resample", list(Image.Resampling))
@pytest.mark.parametrize(("resize", "size"), [(256, 224), (224, 224), (248, 224), (64, 33), (224, 256)])
def test_what_the_crop_drops_may_be_left_out_but_changes_no_pixel(resize: int, size: int, resample: int) -> None:
    asked = replace(preprocessing(resize=resize, size=size), resample=resample)
    for width, height in ((640, 480), (480, 640), (300, 300), (301, 300), (1000, 77), (225, 224), (90, 60), (777, 511)):
        image = noise(width, height)
        whole = image.resize(
            (resize * width // min(width, height), resize * height // min(width, height)), Image.Resampling(resample)
        )
        left, top = (whole.width - size) // 2, (whole.height - size) // 2
        expected = np.asarray(whole.crop((left, top, left + size, top + size)))
        np.testing.assert_array_equal(to_input(image, asked), expected, err_msg=f"{width} x {height}")


def test_beyond_20_to_1_the_centre_is_kept() -> None:
    width, height = 630, 30
    image = noise(width, height)
    whole = image.resize((int(256 * width / height), 256), Image.Resampling.BICUBIC)
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    assert np.abs(to_input(image, preprocessing()) - expected).max() <= 1


def test_pad_keeps_the_whole_picture_on_the_mean_colour() -> None:
    image = Image.new("RGB", (200, 100), "blue")
    pixels = to_input(image, preprocessing("pad", resize=224))
    rows = np.flatnonzero((pixels == (0, 0, 255)).all(axis=(1, 2)))
    assert (rows[0], rows[-1]) == (56, 167)
    assert tuple(pixels[0, 0]) == (124, 116, 104)


def test_pad_leaves_a_one_pixel_line_of_an_extreme_picture() -> None:
    pixels = to_input(Image.new("RGB", (5_000, 3), "blue"), preprocessing("pad", resize=224))
    assert (pixels == (0, 0, 255)).all(axis=2).sum() == 224


def test_a_smaller_decode_still_leaves_twice_the_edge() -> None:
    assert needed_size((preprocessing(resize=256),)) == 512
