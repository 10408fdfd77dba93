"""Evenness: whether two pictures that agree differ as a copy does, a little everywhere, or much in one place.

An edit of the whole picture leaves each of its parts as well explained as the others. Where an icon of a series has
another sign, one part is explained worse than all, though the blocks of the comparison may still agree there.
"""

from __future__ import annotations

import numpy as np

from analysis.duplicates.blocks import blocks, cut
from analysis.duplicates.changes import Laid
from analysis.duplicates.small import Floats

WINDOW = 5
"""Blocks of a side of the parts that are looked at, each 8 of 384 pixels."""
MIN_VARIANCE = 20.0
"""Variance of grey levels, squared, with which a part shows something."""
UNEXPLAINED = 0.01
"""Share of a part's variance that the other picture does not explain, with which evenness is half."""
APART, PIXELS = 50.0, 5.0
"""Levels by which a pixel differs from all within one pixel of it; with so many of them in a part evenness is half."""


def evenness(found: Laid) -> float:
    """How evenly two pictures differ, above 0, up to 1: by what is left unexplained in the worst part of those that
    vary most, and by how many pixels of a part are far apart."""
    varies, left = _in_windows(found.varies), _in_windows(found.left)
    shows = varies > MIN_VARIANCE * WINDOW**2
    if not shows.any():
        return 1.0
    shows &= varies >= np.median(varies[shows])
    unexplained = float((left[shows] / varies[shows]).max())
    far = np.asarray((least_apart(found) > APART) & found.inside, dtype=np.float32)
    pixels = float(_in_windows(blocks(cut(far))).max())
    return UNEXPLAINED / (UNEXPLAINED + unexplained) * PIXELS / (PIXELS + pixels)


def _in_windows(values: Floats) -> Floats:
    """The sums of blocks, (rows, columns), in a window around each."""
    padded = np.pad(values, WINDOW // 2)
    sums: Floats = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW)).sum(axis=(2, 3))
    return sums


def least_apart(found: Laid) -> Floats:
    """The least difference of each pixel from those of the other within one pixel: lines may be a little off."""
    height, width = found.one.shape
    padded = np.pad(found.other, 1, mode="edge")
    moved = (padded[down : down + height, across : across + width] for down in range(3) for across in range(3))
    least: Floats = np.min([np.abs(found.one - other) for other in moved], axis=0)
    return least
