"""Where one picture lies in another: place by place, at every size, in a network's middle layer.

A picture's `Places` are two maps of one network: of the picture, and of it at half the size. That at half the size is
laid over the other picture's whole map, in the proportions it would have there, and moved over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from indexer.pictures.decode import Box

Map = NDArray[np.float32]
AREAS = (0.04, 0.06, 0.1, 0.16, 0.25, 0.4, 0.63, 1.0)
"""Shares of the other picture's area that a picture may be: its sides grow by a quarter from one to the next."""
LEAST_CELLS = 3
"""Of a side, that a part has at least: a smaller one would be anywhere."""


@dataclass(frozen=True)
class Places:
    """What a network sees of a picture, place by place: (rows, columns, dim) float32, of unit length each. half: of the
    picture at half the size. ratio: of its width to its height."""

    whole: Map
    half: Map
    ratio: float


@dataclass(frozen=True)
class Found:
    """Where a picture lies in another: the mean cosine of its places with those there, -1..1; the box as shares of the
    other picture's sides."""

    match: float
    box: Box


def find(part: Places, picture: Places) -> Found:
    """The place of a picture at which a part of it lies best, of AREAS and all shifts by a cell."""
    rows, columns, dim = picture.whole.shape
    ratio, cells = part.ratio / picture.ratio, picture.whole.reshape(-1, dim)
    best = Found(-1.0, (0.0, 0.0, 1.0, 1.0))
    tried = set()
    for area in AREAS:
        height = min(rows, max(LEAST_CELLS, round(rows * (area / ratio) ** 0.5)))
        width = min(columns, max(LEAST_CELLS, round(columns * (area * ratio) ** 0.5)))
        if (height, width) in tried:
            continue
        tried.add((height, width))
        cosines = _moved(
            cells @ _resized(part.half, height, width).reshape(-1, dim).T, (rows, columns), (height, width)
        )
        y, x = divmod(int(cosines.argmax()), cosines.shape[1])
        if cosines[y, x] > best.match:
            best = Found(float(cosines[y, x]), (x / columns, y / rows, width / columns, height / rows))
    return best


def _moved(products: Map, whole: tuple[int, int], part: tuple[int, int]) -> Map:
    """The mean cosine of a part laid over a picture, for each shift: (rows - height + 1, columns - width + 1).

    products: (rows * columns, height * width), of each place of the picture with each of the part.
    """
    (rows, columns), (height, width) = whole, part
    products = np.ascontiguousarray(products)  # strides are of what they are taken from
    down, across = products.strides
    shape = (rows - height + 1, columns - width + 1, height, width)
    diagonals = as_strided(
        products,
        shape,
        (columns * down, down, columns * down + width * across, down + across),
        writeable=False,
    )
    found: Map = diagonals.mean(axis=(2, 3))
    return found


def _resized(places: Map, height: int, width: int) -> Map:
    """A map of another size, by triangular filters as wide as a place of the smaller one; unit length each."""
    made = np.einsum(
        "yh,hwd,xw->yxd", _filters(places.shape[0], height), places, _filters(places.shape[1], width), optimize=True
    )
    lengths = np.linalg.norm(made, axis=2, keepdims=True)
    unit: Map = made / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


@lru_cache(maxsize=256)
def _filters(count: int, wanted: int) -> Map:
    """Weights of `count` numbers in each of `wanted`: (wanted, count)."""
    scale = count / wanted
    centres = (np.arange(wanted, dtype=np.float32)[:, None] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(count, dtype=np.float32) - centres) / max(scale, 1.0))
    found: Map = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
