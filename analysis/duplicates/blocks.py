"""Blocks of pictures that lie over one another, and how well they agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.small import Floats, Matrix

BLOCK = 8
"""Pixels a side of the blocks that are compared."""
FLOOR = 256.0
"""Variance of a block's edges, times its pixels, below which it is noise."""


def soft(values: Floats) -> Floats:
    """Values smoothed by 3 x 3 binomial weights."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
    return smooth


def warp(
    values: NDArray[Any], matrix: Matrix, shape: tuple[int, ...], margin: int = 0
) -> tuple[Floats, NDArray[np.bool_]]:
    """A part's values, (h, w) or (h, w, c), as they lie in a whole of this shape, with a margin around it in pixels.

    Bilinear. Also returns where the part is at all.
    """
    height, width = shape
    x = (np.arange(-margin, width + margin) + 0.5) / width
    y = ((np.arange(-margin, height + margin) + 0.5) / height)[:, None]
    across, down = (row[0] * x + row[1] * y + row[2] for row in matrix)
    inside = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
    rows, columns = values.shape[:2]
    across = np.clip(across * columns - 0.5, 0, columns - 1.001).astype(np.float32)
    down = np.clip(down * rows - 0.5, 0, rows - 1.001).astype(np.float32)
    left, top = across.astype(np.intp), down.astype(np.intp)
    across, down = across - left, down - top
    flat = values.reshape(rows * columns, -1)
    at = (top * columns + left).ravel()
    a, d = across.reshape(-1, 1), down.reshape(-1, 1)
    upper = flat[at] * (1 - a) + flat[at + 1] * a
    lower = flat[at + columns] * (1 - a) + flat[at + columns + 1] * a
    warped: Floats = (upper * (1 - d) + lower * d).astype(np.float32).reshape(*inside.shape, *values.shape[2:])
    return warped, inside


def blocks(values: Floats) -> Floats:
    """Sums over blocks: (..., height, width), multiples of BLOCK, become (..., rows, columns).

    Not by a product of matrices: BLAS wakes a second thread for each, which waits for its core where others work.
    """
    *more, height, width = values.shape
    rows = values.reshape(*more, height // BLOCK, BLOCK, width).sum(axis=-2)
    return np.asarray(np.add.reduceat(rows, np.arange(0, width, BLOCK), axis=-1), dtype=np.float32)


def cut(values: NDArray[Any]) -> NDArray[Any]:
    """Values, (height, width, ...), without what makes no whole block."""
    return values[: values.shape[0] // BLOCK * BLOCK, : values.shape[1] // BLOCK * BLOCK]


def correlations(one: Floats, other: Floats, reach: int, floor: float = FLOOR) -> Floats:
    """The correlation of each block of `one` with `other` moved by -reach..reach pixels, which has so large a margin.

    Returns (2 * reach + 1, 2 * reach + 1, rows, columns), first the move down.
    """
    one = cut(one)
    count = BLOCK * BLOCK
    means = blocks(one) / count
    one = one - np.repeat(np.repeat(means, BLOCK, axis=0), BLOCK, axis=1)
    moves = 2 * reach + 1
    moved = np.lib.stride_tricks.sliding_window_view(other, one.shape)[:moves, :moves]
    moved = np.ascontiguousarray(moved)
    variance = np.maximum(blocks(moved * moved) - blocks(moved) ** 2 / count, floor)
    found: Floats = blocks(moved * one) / np.sqrt(np.maximum(blocks(one * one), floor) * variance)
    return found
