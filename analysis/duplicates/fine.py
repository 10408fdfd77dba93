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
from analysis.duplicates.small import Floats, Place, turned

PIXELS = BLOCK * BLOCK
MIN_VARIANCE = 60.0
"""Variance of a block's mixed differences, in levels squared, with which it is sharp."""
CONTRADICTS = 0.4
"""Correlation of a block that is sharp in both pictures, below which they show something else there."""
MIN_SHARP, MAX_SHARE = 12, 0.25
"""Blocks that must be sharp in both pictures, and the share of them that may contradict: that of a copy made a fifth
as large is .2, that of two pages of text .7."""


def contradicts(place: Place) -> bool:
    """Whether two pictures that lie over one another differ in what both show sharply."""
    one = place.whole.fine.astype(np.float32)
    other = np.ascontiguousarray(turned(place.part.fine, place.turn)).astype(np.float32)
    detail = _mixed(one)
    matrix = corrected(place.matrix, detail, other, _mixed, (2, 2), floor=MIN_VARIANCE / 2 * PIXELS)
    warped, inside = warp(other, matrix, one.shape, 1)
    found = _mixed(warped) * inside
    best = correlations(detail, found, 1, floor=MIN_VARIANCE / 2 * PIXELS).max(axis=(0, 1))
    covered = blocks(cut(inside[1:-1, 1:-1]).astype(np.float32)) >= 0.9 * PIXELS
    sharp = covered & (_strength(detail) > MIN_VARIANCE) & (_strength(found[1:-1, 1:-1]) > MIN_VARIANCE)
    return bool(sharp.sum() >= MIN_SHARP and (best[sharp] < CONTRADICTS).mean() > MAX_SHARE)


def _mixed(values: NDArray[Any]) -> Floats:
    padded = np.pad(soft(values), 1, mode="edge")
    mixed: Floats = padded[2:, 2:] - padded[:-2, 2:] - padded[2:, :-2] + padded[:-2, :-2]
    return mixed


def _strength(detail: Floats) -> Floats:
    return np.asarray(blocks(cut(detail) ** 2) / PIXELS, dtype=np.float32)
