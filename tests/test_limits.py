"""Limits of what a picture may cost: of what is in memory, of seconds a megapixel; and that a user can raise them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, recipe, run_cli, vectors
from PIL import Image
from rigged import slow

from api.serving import embedding
from api.settings import Settings
from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, decode, open_upright, thumbnail
from indexer.pictures.preprocess import Inputs
from indexer.pictures.worker import Workers
from search.index import Index

PREPROCESSING = recipe().preprocessing


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def rough(width: int, height: int) -> Image.Image:
    """A picture that takes a moment to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def test_of_a_jpeg_only_the_pixels_that_are_in_memory_count() -> None:
    data = saved(rough(2_000, 1_600), "JPEG", quality=60)
    limits = DecodeLimits(max_pixels=300_000)  # an eighth: 250 x 200, a quarter 500 x 400
    assert decode(data, (PREPROCESSING,), limits=limits).facts.width == 2_000
    assert Image.open(BytesIO(thumbnail(data, 200, limits=limits))).size == (200, 160)
    with pytest.raises(ImageRejected, match="2,000 x 1,600 pixels, more than the limit of 300,000"):
        open_upright(data, limits=limits, at_least=None)


def test_of_a_progressive_jpeg_or_a_png_all_pixels_count() -> None:
    limits = DecodeLimits(max_pixels=300_000)
    for data in (saved(rough(2_000, 1_600), "JPEG", progressive=True), saved(rough(2_000, 1_600), "PNG")):
        with pytest.raises(ImageRejected, match="2,000 x 1,600 pixels, more than the limit of 300,000"):
            decode(data, (PREPROCESSING,), limits=limits)


@pytest.mark.slow
def test_a_build_is_told_to_take_larger_pictures(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("1", (70_000, 4_000)).save(tmp_path / "p" / "map.png")  # too long, and 280 megapixels
    arguments = ("build", tmp_path / "p", "--index", tmp_path / "i.index", "--model", checkpoint)
    refused = run_cli(*arguments, check=3)
    assert "70,000 x 4,000 pixels, more than the limit" in refused.stderr
    assert "--max-pixels N --retry-failed" in refused.stderr
    answer = json.loads(run_cli(*arguments, "--max-pixels", "280000000", "--retry-failed", "--json").stdout)
    assert answer["added"] == 1


@pytest.mark.slow
def test_seconds_grow_with_the_pixels_of_a_build_s_picture(tmp_path: Path) -> None:
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    rough(2_000, 1_600).save(large, compress_level=0)
    rough(400, 320).save(small, compress_level=0)
    limits = DecodeLimits(seconds=0.4, seconds_per_megapixel=10)
    with Workers((PREPROCESSING,), limits, slow) as workers:
        assert workers.load(str(large), lambda _: True)[1] is not None
        assert workers.run(slow, large.read_bytes(), inputs=(PREPROCESSING,)) is not None
        with pytest.raises(ImageRejected, match="it takes longer than"):
            workers.load(str(small), lambda _: True)
    # As uploads are; and as a header that promises more than is allowed.
    for fixed in (replace(limits, seconds_per_megapixel=0), replace(limits, max_pixels=1_000)):
        with (
            Workers((PREPROCESSING,), fixed, slow) as workers,
            pytest.raises(ImageRejected, match="it takes longer than"),
        ):
            workers.load(str(large), lambda _: True)


@pytest.mark.slow
def test_a_build_is_told_to_be_patient(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "p").mkdir()
    rough(2_000, 1_600).save(tmp_path / "p" / "scan.png", compress_level=6)
    arguments = ("build", tmp_path / "p", "--index", tmp_path / "i.index", "--model", checkpoint)
    refused = run_cli(*arguments, "--max-seconds", "0.001", check=3)
    assert "it takes longer than" in refused.stderr
    assert "--max-seconds" in refused.stderr
    assert "1 added" in run_cli(*arguments, "--retry-failed").stdout


def test_raised_pixels_bring_the_bytes_and_the_memory_for_them() -> None:
    limits = DecodeLimits()
    assert limits.raised(max_pixels=None, max_seconds=None) == limits
    scans = limits.raised(max_pixels=200_000_000, max_seconds=None)  # 16 bits, four channels, nothing compressed
    assert scans.max_bytes == 1_600_000_000
    assert scans.max_memory == limits.max_memory
    larger = limits.raised(max_pixels=500_000_000, max_seconds=30)
    assert (larger.max_bytes, larger.max_memory) == (4_000_000_000, 2 * limits.max_memory)
    assert larger.seconds_for((10_000, 10_000)) == 30 + 300
    assert limits.raised(max_pixels=1_000, max_seconds=None).max_bytes == limits.max_bytes


def test_a_file_of_too_many_bytes_says_how_it_is_taken(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p").mkdir()
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "p" / "scan.bmp")
    arguments = ("build", tmp_path / "p", "--index", tmp_path / "i.index", "--model", checkpoint)
    monkeypatch.setattr("indexer.build.DecodeLimits", partial(DecodeLimits, max_bytes=100_000))
    refused = run_cli(*arguments, check=3)
    assert "180,054 bytes, more than the limit of 100,000" in refused.stderr
    assert "--max-pixels N --retry-failed" in refused.stderr
    assert "1 added" in run_cli(*arguments, "--max-pixels", "60000", "--retry-failed").stdout


def test_more_pixels_of_an_upload_bring_the_memory_for_them(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[DecodeLimits] = []

    def workers(inputs: Inputs, limits: DecodeLimits, **_: Any) -> Workers:
        given.append(limits)  # of uploads first
        return Workers(inputs, limits)

    monkeypatch.setattr(Workers, "start", lambda *_: None)
    monkeypatch.setattr(embedding, "Workers", workers)
    index = make_index(vectors(1))
    for number, pixels in enumerate((100_000_000, 300_000_000, 5_000)):
        settings = Settings(max_pixels=pixels)
        embedding.Embedding(index, FakeEncoder(), lambda _: FakeEncoder(), settings).close()
        limits = given[2 * number]
        assert (limits.max_pixels, limits.max_bytes) == (pixels, settings.max_upload_bytes)
        assert limits.max_memory == max(1, pixels // 100_000_000) * 1024**3
        assert limits.max_side == max(65_535, pixels if pixels > 100_000_000 else 0)
        assert (limits.seconds, limits.seconds_per_megapixel) == (10, 0)


def test_a_box_can_be_drawn_alone() -> None:
    picture = Image.new("RGB", (400, 200), "green")
    picture.paste("red", (300, 100, 400, 200))
    data = saved(picture, "PNG")
    part = Image.open(BytesIO(thumbnail(data, 50, limits=DecodeLimits(), box=(300, 100, 100, 100))))
    assert part.size == (50, 50)
    assert part.getpixel((0, 0)) == part.getpixel((49, 49)) == (254, 0, 0)
    with pytest.raises(ImageRejected, match="the box is not inside the image of 400 x 200"):
        thumbnail(data, 50, limits=DecodeLimits(), box=(300, 100, 200, 100))
