"""Fine detail: whether two pictures that agree when small contradict one another where both are sharp.

Two pages of text, or two windows of a program, look the same from afar. What tells them apart is neither across nor
down: the mixed difference of pixels, which is nothing along the lines of a text or a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.alignment import corrected
from analysis.duplicates.blocks import BLOCK, blocks, correlations, cut, soft, warp
from analysis.duplicates.small import Floats, Matrix, Place, turned

PIXELS = BLOCK * BLOCK
LEVELS = ((60.0, 12, 0.25), (25.0, 150, 0.5))
"""Variance of a block's mixed differences, in levels squared, with which it is sharp; how many must be so in both
pictures, and the share of them that may contradict. That of a copy made a fifth as large is .2, that of two pages of
text .7. Small pale text is seen at the second level only, where noise and poor compression are seen too."""
CONTRADICTS = 0.4
"""Correlation of a block that is sharp in both pictures, below which they show something else there."""


def contradicts(place: Place) -> bool:
    """Whether two pictures that lie over one another differ in what both show sharply."""
    one = place.whole.fine.astype(np.float32)
    other = np.ascontiguousarray(turned(place.part.fine, place.turn)).astype(np.float32)
    return any(_contradicts(place.matrix, one, other, *level) for level in LEVELS)


def _contradicts(matrix: Matrix, one: Floats, other: Floats, variance: float, least: int, share: float) -> bool:
    detail, floor = _mixed(one), variance / 2 * PIXELS
    matrix = corrected(matrix, detail, other, _mixed, (2, 2), floor=floor)
    warped, inside = warp(other, matrix, one.shape, 1)
    found = _mixed(warped) * inside
    best = correlations(detail, found, 1, floor=floor).max(axis=(0, 1))
    covered = blocks(cut(inside[1:-1, 1:-1]).astype(np.float32)) >= 0.9 * PIXELS
    sharp = covered & (_strength(detail) > variance) & (_strength(found[1:-1, 1:-1]) > variance)
    return bool(sharp.sum() >= least and (best[sharp] < CONTRADICTS).mean() > share)


def _mixed(values: NDArray[Any]) -> Floats:
    padded = np.pad(soft(values), 1, mode="edge")
    mixed: Floats = padded[2:, 2:] - padded[:-2, 2:] - padded[2:, :-2] + padded[:-2, :-2]
    return mixed


def _strength(detail: Floats) -> Floats:
    return np.asarray(blocks(cut(detail) ** 2) / PIXELS, dtype=np.float32)
