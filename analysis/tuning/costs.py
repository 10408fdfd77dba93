"""Costs of a recipe, measured where it is tuned: images a second, bytes an image, milliseconds a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder
from search.generations.transform import Transform
from search.types import Space
from search.vectors import BLOB_DTYPES

RUNS = 3
"""Times that something is measured. The fastest counts: other work on the machine only slows it down."""
TIMED_IMAGES = 16
"""Images that an encoder is timed on: enough for all cores to work side by side."""
SCANNED_NUMBERS = 8_000_000
"""Numbers of the vectors that a search is timed on: 32 MB, more than a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds that an image takes up to the shallowest and the deepest layer measured, and in the companion."""

    shallow: int
    shallow_seconds: float
    deep: int
    deep_seconds: float
    companion_seconds: float

    def images_per_second(self, space: Space) -> float:
        """Images that a build embeds in a second in a space. Between the two layers, each takes as long as another."""
        share = (max(space.recipe.layers) - self.shallow) / max(1, self.deep - self.shallow)
        seconds = self.shallow_seconds + share * (self.deep_seconds - self.shallow_seconds)
        return 1 / (seconds + (self.companion_seconds if space.recipe.companion is not None else 0.0))


def rates(
    together: Sequence[Space],
    encoder: Encoder,
    load: Callable[[Sequence[Space]], Encoder],
    pixels: NDArray[np.uint8],
) -> Rates:
    """Time the encoder of all layers, one that stops at the first of them, and the companion's.

    together: spaces of single layers of one kind of pixels, which the encoder gives. load: gives an encoder of others.
    pixels: (n, size, size, 3) uint8.
    """
    depths: dict[int, Space] = {}
    for space in together:
        if space.recipe.companion is None:
            depths.setdefault(space.recipe.layers[0], space)
    shallow, deep = min(depths), max(depths)
    companion = next((space.recipe.companion for space in together if space.recipe.companion is not None), None)
    beside = 0.0
    if companion is not None:
        beside = _seconds(load([Space(name="companion", recipe=companion, encoding=together[0].encoding)]), pixels)
    whole = max(_seconds(encoder, pixels) - beside, 1e-9)
    first = whole if shallow == deep else min(whole, _seconds(load([depths[shallow]]), pixels))
    return Rates(shallow=shallow, shallow_seconds=first, deep=deep, deep_seconds=whole, companion_seconds=beside)


def _seconds(encoder: Encoder, pixels: NDArray[np.uint8]) -> float:
    return _fastest(lambda: encoder.encode(pixels[:TIMED_IMAGES])) / min(TIMED_IMAGES, len(pixels))


def bytes_per_image(space: Space, transform: Transform) -> int:
    """Bytes of an image's vectors: in the catalog as they are stored, in a generation as they are searched."""
    searched = np.dtype(np.float32).itemsize * transform.dim
    return BLOB_DTYPES[space.storage].itemsize * space.recipe.dim + searched


def search_ms(transform: Transform, vector: NDArray[np.float32], images: int) -> float:
    """Milliseconds of an exact search among so many images: the query's transform, and a product with each vector.

    vector: (stored dim,) float32.
    """
    return 1e3 * (_fastest(lambda: transform.apply(vector[None])) + _scan_seconds(transform.dim, images))


@cache
def _scan_seconds(dim: int, images: int) -> float:
    """Seconds of a product with each vector. Of many images, a part is scanned, and the time is in proportion."""
    rows = max(1, min(images, SCANNED_NUMBERS // dim))
    searched = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    return _fastest(lambda: np.argpartition(searched @ searched[0], rows - min(rows, 10))) * images / rows


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of RUNS, after one to warm up."""
    work()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
