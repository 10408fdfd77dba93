"""Plain pictures: drawings with few corners, of which more must agree until they are one photo.

A line that runs on through many blocks tells no more than its two ends. Flags of three stripes, arrows of one series
and signs in a frame agree in most blocks, and are not copies. So of a picture with few corners no copy is taken that
has other colours, much painted on it, or anything else where one of the two lies inside the other.
"""

from __future__ import annotations

import numpy as np

from analysis.duplicates.agreement import Blocks, Compared, unpainted
from analysis.duplicates.alignment import is_whole
from analysis.duplicates.blocks import BLOCK, blocks, cut, soft
from analysis.duplicates.changes import Laid
from analysis.duplicates.evenness import evenness, least_apart
from analysis.duplicates.small import Floats, Place

CORNER, MIN_CORNERS = 2.0, 30
"""The smaller eigenvalue of a block's structure tensor, in levels squared, from which on it holds a corner (Shi and
Tomasi, "Good Features to Track", CVPR 1994); blocks that agree and hold one, with which a picture is not plain."""
HALF = 1.0
"""The root of such blocks of pictures that differ evenly, with which certainty is half of what any number gives."""
RECOLOURED = 15.0
"""Levels by which colours differ, in the mean, that are another drawing's."""
TINTED = 0.5
"""The same for each block that proves something, with which it proves half: the plainer, the less they may differ."""
MIN_SHARE = 0.7
"""Of the blocks with something in them, those that must agree."""
FAR, FEW = 130.0, 0.015
"""Levels of grey by which pixels differ that are another drawing's, and the share that they may be."""


def certainty(place: Place, compared: Compared, found: Laid) -> float:
    """How surely two pictures that agree are one photo, 0..1: the share of their blocks that agree, times how much
    these prove by their corners: less where the pictures differ unevenly, or in their colours. 0 where that is not
    enough for all that differs."""
    corners = int((_corners(place.whole.grey) & compared.agrees).sum())
    if corners < MIN_CORNERS and not _is_proved(place, compared, found):
        return 0.0
    tinted = float(np.abs(compared.colours - compared.other_colours)[compared.inside].mean())
    even = evenness(found) / (1 + tinted / (TINTED * (corners + 1)))
    proof = float(np.sqrt((corners + 1) * even))
    return compared.share * proof / (proof + HALF)


def _is_proved(place: Place, compared: Compared, found: Laid) -> bool:
    """Whether what agrees in a plain picture is enough, for all that differs."""
    same = unpainted(compared)
    recoloured = np.abs(compared.colours[same] - compared.other_colours[same])
    if compared.share < MIN_SHARE or (same.any() and recoloured.mean() >= RECOLOURED):
        return False
    return is_whole(place.matrix) or float((least_apart(found)[found.inside] > FAR).mean()) <= FEW


def _corners(grey: Floats) -> Blocks:
    """Blocks in which the levels change in two directions."""
    down, across = (np.asarray(slope, dtype=np.float32) for slope in np.gradient(soft(grey)))
    pairs = ((down, down), (down, across), (across, across))
    one, both, other = (blocks(cut(first * second)) / BLOCK**2 for first, second in pairs)
    corners: Blocks = (one + other) / 2 - np.hypot((one - other) / 2, both) > CORNER
    return corners
