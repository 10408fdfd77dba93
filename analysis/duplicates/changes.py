"""Changes: whether two pictures that lie over one another differ in something that one of them shows.

A copy differs evenly from its photo: every block a little. What came, went or moved between two frames, what was filled
in on a form, and what differs between two pictures of a puzzle differs in blocks beside one another, while the rest is
as good as equal. Only a caption, a logo or a watermark may do so on a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.agreement import Blocks, zones
from analysis.duplicates.alignment import corrected, is_whole
from analysis.duplicates.blocks import BLOCK, blocks, correlations, cut, soft, warp
from analysis.duplicates.small import Floats, Matrix, Place, turned

PIXELS = BLOCK * BLOCK
MIN_VARIANCE = 40.0
"""Variance of a block's grey levels, squared, with which it shows something."""
CHANGED = 0.5
"""Correlation of a block, below which it shows something else."""
NOISE = 6.0
"""It also varies so many times more than what three quarters of the blocks leave unexplained."""
APART, MIN_APART = 24.0, 4
"""Levels by which pixels of such a block differ, from its mean, and how many do."""
MIN_CLUSTER = 2
"""Blocks beside one another that make a change."""
CLIPPED, STRONGER = (4, 251), 1.07
"""Levels beyond which a colour may have been cut off in a copy with so many times the contrast."""
MIN_CELLS = 4
"""Of nine cells, those in which a watermark shows."""
FAINT, FEW = 70.0, 0.05
"""Levels that a watermark changes, but for so few pixels."""
DIFFERENT, EQUAL = 40.0, 20.0
"""Levels by which pixels differ that were painted over; by which others do."""
AROUND = 15
"""Pixels to each side from which the ground under something painted is told."""
LEANS = 0.75
"""Share of the pixels that differ in which one picture, always the same, is further from the ground."""
MIN_RULES, RULE = 6, 0.5
"""Lines across so large a share of the width that make a form or a table."""
MOSTLY_EQUAL = 0.35
"""Share of equal pixels around something painted with which the ground shows through."""
FLAT, LEVELS, MODES = 0.5, 16, 3
"""Share of the pixels of a bar that have one of so many greys, each so many levels wide."""
MIN_MARKS, MARK, GROUND = 25, 60, 0.5
"""Separate marks, of so many pixels of two by two at most, as words are, on a ground of so large a share, that make a
page."""


@dataclass(frozen=True, kw_only=True)
class Laid:
    """Two pictures over one another, grey, (height, width), the other's levels made the one's; inside: where both
    are; changed: blocks that show something else, (rows, columns). varies: the variance of each block, the larger of
    both, and left: what of it the other picture does not explain; 0 where not both are."""

    one: Floats
    other: Floats
    inside: NDArray[np.bool_]
    changed: Blocks
    varies: Floats
    left: Floats


def changed(found: Laid) -> bool:
    """Whether something differs that no caption, logo or watermark explains."""
    clusters = _clusters(found.changed)
    if not clusters.any() or (clusters.sum() <= MIN_CLUSTER and not _far_apart(found, clusters)):
        return False
    if is_page(found.one) or is_page(found.other):
        return True
    zone = min(zones(clusters.shape), key=lambda one: int((clusters & ~one).sum()))
    if not (clusters & ~zone).any():
        return not _is_painted(found, clusters)
    return _cells(clusters) < MIN_CELLS or not _is_faint(found, clusters)


def laid(place: Place) -> Laid:
    """Lay the fine pixels of two pictures over one another."""
    one = place.whole.fine.astype(np.float32)
    other = np.ascontiguousarray(turned(place.part.fine, place.turn)).astype(np.float32)
    floor = MIN_VARIANCE / 2 * PIXELS
    first = soft(one)
    fitted = corrected(place.matrix, first, other, soft, (2, 2), floor=2 * floor)
    tried = []
    for matrix in (place.matrix, fitted):  # a page of lines across may be drawn out by the fit
        warped, inside = warp(other, matrix, one.shape, 1)
        second = soft(warped)
        best = np.abs(correlations(first, second * inside, 1, floor)).max(axis=(0, 1))
        tried.append((float(best.sum()), matrix, best, second, inside))
    _, matrix, best, second, inside = max(tried, key=lambda one: one[0])
    second, inside = second[1:-1, 1:-1], inside[1:-1, 1:-1]
    here = _without_rim(blocks(cut(inside).astype(np.float32)) >= PIXELS - 1, is_whole(place.matrix))
    variance, other_variance = _variance(first), _variance(second)
    same = here & (best > 0.8) & (variance > MIN_VARIANCE) & (other_variance > MIN_VARIANCE)
    slope = float(np.sqrt(np.median(variance[same] / other_variance[same]))) if same.any() else 1.0
    means, other_means = blocks(cut(first)) / PIXELS, blocks(cut(second)) / PIXELS
    chosen = same if same.any() else here
    shift = float(np.median((means - slope * other_means)[chosen])) if chosen.any() else 0.0
    varies = np.where(here, np.maximum(variance, np.float32(slope**2) * other_variance), np.float32(0))
    shown = here & (varies > MIN_VARIANCE)
    left = (1 - best**2) * varies
    noise = float(np.percentile(left[shown], 75)) if shown.any() else 0.0
    found = shown & (best < CHANGED) & (varies > NOISE * noise)
    if max(slope, 1 / slope) > STRONGER:
        found &= ~_clipped(place, matrix, slope, one.shape)
    apart = np.abs(_centred(first) - np.float32(slope) * _centred(second))
    found &= blocks((apart > APART).astype(np.float32)) >= MIN_APART
    second = np.float32(slope) * second + np.float32(shift)
    return Laid(one=first, other=second, inside=inside, changed=found, varies=varies, left=left)


def _clipped(place: Place, matrix: Matrix, slope: float, shape: tuple[int, ...]) -> Blocks:
    """Blocks that the picture with more contrast cannot show, as one of their colours is at its end."""
    stronger, where = (place.whole, np.eye(2, 3)) if slope > 1 else (place.part.oriented(place.turn), matrix)
    pixels = stronger.pixels
    ends = np.asarray(((pixels < CLIPPED[0]) | (pixels > CLIPPED[1])).any(axis=2), dtype=np.float32)
    clipped: Blocks = blocks(cut(warp(ends, where, shape)[0])) > PIXELS / 2
    return clipped


def _variance(values: Floats) -> Floats:
    held = cut(values)
    variance: Floats = np.maximum(blocks(held**2) / PIXELS - (blocks(held) / PIXELS) ** 2, 1e-3)
    return variance


def _centred(values: Floats) -> Floats:
    """Values less the means of their blocks."""
    held = cut(values)
    means = blocks(held) / PIXELS
    centred: Floats = held - np.repeat(np.repeat(means, BLOCK, axis=0), BLOCK, axis=1)
    return centred


def _without_rim(inside: Blocks, whole: bool) -> Blocks:
    """Blocks with all neighbours inside: a frame may reach into others. whole: beyond the border counts as inside."""
    padded = np.pad(inside, 1, constant_values=whole)
    kept = inside.copy()
    for down in range(3):
        for across in range(3):
            kept &= padded[down : down + inside.shape[0], across : across + inside.shape[1]]
    return kept


def _clusters(chosen: Blocks) -> Blocks:
    """The chosen blocks that have MIN_CLUSTER - 1 others beside them, or more."""
    padded = np.pad(chosen, 1).astype(np.int64)
    rows, columns = chosen.shape
    beside = sum(padded[down : down + rows, across : across + columns] for down in range(3) for across in range(3))
    clusters: Blocks = chosen & (beside >= MIN_CLUSTER)
    return clusters


def _far_apart(found: Laid, clusters: Blocks) -> bool:
    """Whether pixels there are DIFFERENT."""
    return bool(_apart_in(found, clusters).max() > DIFFERENT)


def _is_faint(found: Laid, clusters: Blocks) -> bool:
    """Whether hardly a pixel differs more than what is seen through can."""
    return bool((_apart_in(found, clusters) > FAINT).mean() < FEW)


def _apart_in(found: Laid, clusters: Blocks) -> Floats:
    """By how many levels the pixels of these blocks differ, (n,)."""
    chosen = np.repeat(np.repeat(clusters, BLOCK, axis=0), BLOCK, axis=1)
    apart: Floats = cut(np.abs(found.one - found.other) * found.inside)[chosen]
    return apart


def _cells(chosen: Blocks) -> int:
    """In how many of nine cells there are such blocks."""
    return sum(bool(part.any()) for rows in np.array_split(chosen, 3) for part in np.array_split(rows, 3, axis=1))


def _is_painted(found: Laid, clusters: Blocks) -> bool:
    """Whether what differs was painted on one of the two: it alone is far from the ground that shows through, or it
    is a bar."""
    rows, columns = np.nonzero(clusters)
    box = (
        slice(max(0, rows.min() - 1) * BLOCK, (rows.max() + 2) * BLOCK),
        slice(max(0, columns.min() - 1) * BLOCK, (columns.max() + 2) * BLOCK),
    )
    one, other, inside = found.one[box], found.other[box], found.inside[box]
    apart = np.abs(one - other)
    differs, equal = inside & (apart > DIFFERENT), inside & (apart < EQUAL)
    if not differs.any():
        return False
    if equal.sum() < MOSTLY_EQUAL * inside.sum():
        return max(flatness(one[differs]), flatness(other[differs])) >= FLAT
    ground = mean_of(one, equal)
    further = float((np.abs(one - ground) > np.abs(other - ground))[differs].mean())
    return max(further, 1 - further) >= LEANS


def mean_of(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """The mean of the chosen pixels around each pixel; of all of them where none is near."""
    sums = [_around(values * chosen), _around(chosen.astype(np.float32))]
    overall = float(values[chosen].mean()) if chosen.any() else float(values.mean())
    mean: Floats = np.where(sums[1] > 0.5, sums[0] / np.maximum(sums[1], 0.5), overall)
    return mean


def _around(values: Floats) -> Floats:
    """Sums over AROUND pixels to each side."""
    padded = np.pad(values.astype(np.float64), ((AROUND + 1, AROUND), (AROUND + 1, AROUND)))
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    side = 2 * AROUND + 1
    around: Floats = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]).astype(
        np.float32
    )
    return around


def flatness(levels: Floats) -> float:
    """The share of grey levels that are one of the MODES commonest."""
    counts = np.bincount((levels.clip(0, 255) // LEVELS).astype(np.int64), minlength=256 // LEVELS + 1)
    return float(np.sort(counts)[-MODES:].sum() / max(1, len(levels)))


def is_page(grey: Floats) -> bool:
    """Whether a picture is a page: many separate marks, or rules, on a plain ground."""
    ground, ink = _ink(grey)
    if ground < GROUND:
        return False
    ruled = ink.mean(axis=1) >= RULE
    return int((ruled[1:] & ~ruled[:-1]).sum()) >= MIN_RULES or _marks(ink) >= MIN_MARKS


def _ink(grey: Floats) -> tuple[float, NDArray[np.bool_]]:
    """The share of the picture that its ground takes, and where there is something on it."""
    levels = grey.clip(0, 255).astype(np.int64)
    counts = np.bincount(levels.ravel(), minlength=256)
    ground = int(np.convolve(counts, np.ones(17, dtype=np.int64), mode="same").argmax())
    ink: NDArray[np.bool_] = np.abs(levels - ground) > DIFFERENT
    return float((np.abs(levels - ground) <= 8).mean()), ink


def _marks(ink: NDArray[np.bool_]) -> int:
    """Separate small marks: pixels of two by two that touch one another, by the largest number among them."""
    held = ink[: ink.shape[0] // 2 * 2, : ink.shape[1] // 2 * 2]
    coarse = held.reshape(held.shape[0] // 2, 2, held.shape[1] // 2, 2).any(axis=(1, 3))
    rows, columns = coarse.shape
    own = np.where(coarse, np.arange(1, coarse.size + 1).reshape(coarse.shape), 0)
    while True:
        padded = np.pad(own, 1)
        moved = [padded[down : down + rows, across : across + columns] for down in range(3) for across in range(3)]
        largest = np.where(coarse, np.max(moved, axis=0), 0)
        largest = np.append(0, largest.ravel())[largest]  # as far as that one has come
        if np.array_equal(largest, own):
            break
        own = largest
    sizes = np.bincount(own.ravel())[1:]
    return int(((sizes > 0) & (sizes <= MARK)).sum())
