"""Painting: whether one of two pictures is the other with something painted on it, and nothing else changed.

Where the rest is the same pixel for pixel, both were made from one file: no camera takes a scene twice so. Then a logo,
a caption, or words may cover anything along one edge or in one corner, and a watermark may lie all over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.agreement import CORNER, EDGE, SIDE_EDGE, Compared, follows_its_colours, middle, typical
from analysis.duplicates.changes import Laid, flatness, is_page, mean_of
from analysis.duplicates.small import Floats

EXACT, MIN_SHARE, MIN_MIDDLE = 0.98, 0.6, 12
"""Median correlation of blocks with which the rest may be the same; the share of blocks that agree, and how many of
them, and which share of those there, are no rim."""
APART, MEAN_APART = 24.0, 1.0
"""Levels by which pixels differ that were painted over; by which others do, in the mean."""
MIN_PIXELS = 100
"""Pixels of a logo, at least: fewer are an eye that was closed."""
OUTSIDE = 0.03
"""Share of the painted pixels that may be outside of the edge or corner."""
OPPOSITE, BALANCED, ALIKE = -0.2, 0.15, 0.12
"""Where both pictures have words, one is dark where the other is light, with such a slope or less. Each is further from
the ground in half of the pixels, but for such a share. And as many pixels of each have few greys, but for such a
share."""
STEP, MIN_THING, AS_LARGE = 12.0, 30, 0.1
"""Levels between two pixels that are of one thing; pixels of a thing, and the share that they are of what is on the
other picture, from which on both show one: it moved, or was exchanged."""
SEEN_THROUGH, ONE_INK, NEAR_INK = (0.2, 0.9), 0.75, 16.0
"""Slopes of what is left of a picture under a watermark; the share of pixels that it explains, and to how many
levels."""
MIN_CELLS = 5
"""Of nine cells, those in which a watermark shows."""


def is_painted(found: Laid) -> bool:
    """Whether two pictures, equal but for some blocks, are one with a caption, a logo or a watermark on either."""
    apart = np.abs(found.one - found.other)
    painted = found.inside & (apart > APART)
    rest = found.inside & ~_grown(painted)
    if not rest.any() or apart[rest].mean() > MEAN_APART or painted.sum() < MIN_PIXELS:
        return False
    if is_page(found.one) or is_page(found.other):
        return False
    return _is_on_one_side(found, painted) or _is_watermark(found, painted)


def is_equal_in_part(blocks: Compared) -> bool:
    """Whether so many blocks agree so well that the rest may have been painted over."""
    inner = middle(blocks.shown.shape)
    agrees = (blocks.agrees & inner).sum()
    return bool(
        typical(blocks) >= EXACT
        and blocks.agrees.sum() >= MIN_SHARE * blocks.shown.sum()
        and agrees >= max(MIN_MIDDLE, MIN_SHARE * (blocks.shown & inner).sum())
        and follows_its_colours(blocks)
    )


def _is_on_one_side(found: Laid, painted: NDArray[np.bool_]) -> bool:
    """Whether all was painted along one edge or in one corner, and not words on both pictures."""
    rows, columns = np.nonzero(painted)
    y, x = (rows + 0.5) / painted.shape[0], (columns + 0.5) / painted.shape[1]
    zones = [y < EDGE, y > 1 - EDGE, x < SIDE_EDGE, x > 1 - SIDE_EDGE]
    zones += [down & across for down in (y < CORNER, y > 1 - CORNER) for across in (x < CORNER, x > 1 - CORNER)]
    if max(float(zone.mean()) for zone in zones) < 1 - OUTSIDE:
        return False
    things = [_things(levels, painted) for levels in (found.one, found.other)]
    if min(things) >= max(MIN_THING, AS_LARGE * max(things)):
        return False
    ground = mean_of(found.one, found.inside & (np.abs(found.one - found.other) < APART))
    one, other, ground = found.one[painted], found.other[painted], ground[painted]
    further = float((np.abs(one - ground) > np.abs(other - ground)).mean())
    slope = max(_slope(one, other)[0], _slope(other, one)[0])
    as_flat = abs(flatness(one) - flatness(other)) < ALIKE
    return abs(further - 0.5) > BALANCED or slope > 0 or (slope > OPPOSITE and not as_flat)


def _things(levels: Floats, painted: NDArray[np.bool_]) -> int:
    """How many painted pixels no path of small steps of grey leads to from the others: a thing ends within them."""
    across, down = (np.abs(np.diff(levels, axis=axis)) < STEP for axis in (1, 0))
    reached = ~painted
    while True:
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1] & across
        grown[:, :-1] |= reached[:, 1:] & across
        grown[1:] |= reached[:-1] & down
        grown[:-1] |= reached[1:] & down
        if np.array_equal(grown, reached):
            return int((~reached).sum())
        reached = grown


def _is_watermark(found: Laid, painted: NDArray[np.bool_]) -> bool:
    """Whether something lies all over one picture, through which the other is seen, moved towards one grey."""
    cells = sum(bool(part.any()) for row in np.array_split(painted, 3) for part in np.array_split(row, 3, axis=1))
    one, other = found.one[painted], found.other[painted]
    for before, after in ((one, other), (other, one)):
        slope, explained = _slope(before, after)
        if before.std() < NEAR_INK:  # nothing is there to be seen through
            continue
        if cells >= MIN_CELLS and SEEN_THROUGH[0] <= slope <= SEEN_THROUGH[1] and explained >= ONE_INK:
            return True
    return False


def _slope(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    """The slope of the line from levels, (n,), to others, those far from it counting less; and the share near it."""
    terms = np.stack([before, np.ones_like(before)], axis=1).astype(np.float64)
    weights = np.ones(len(before))
    apart: NDArray[np.float64] = np.zeros(len(before))
    slope = 0.0
    for _ in range(3):
        weighted = terms * weights[:, None] ** 2
        fit = np.linalg.solve(terms.T @ weighted + 1e-6 * np.eye(2), weighted.T @ after)
        slope, apart = float(fit[0]), np.abs(terms @ fit - after)
        weights = 1 / (1 + (apart / (NEAR_INK / 2)) ** 2)
    return slope, float((apart < NEAR_INK).mean())


def _grown(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The chosen pixels, and those up to two away across and down."""
    grown = chosen.copy()
    for step in (1, 2):
        grown[step:] |= chosen[:-step]
        grown[:-step] |= chosen[step:]
        grown[:, step:] |= chosen[:, :-step]
        grown[:, :-step] |= chosen[:, step:]
    return grown
