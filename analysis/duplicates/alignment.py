"""Alignment: where one picture lies in another, whole or in part, mirrored or turned, found by correlation.

Both pictures are reduced to how much the colour changes at each pixel, which survives recolouring. A place is looked for
at low resolution, by normalised cross-correlation through Fourier transforms (Lewis, "Fast Normalized
Cross-Correlation", 1995), in eight orientations and at several sizes. Then blocks are matched with their surroundings,
and an affine map is fitted to where they went, twice at half of the resolution and twice at the full one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
"""(2, 3): from x, y, 1 of a point of the whole to x, y of the same in the part, each from 0 to 1 over a side."""

SIDE = 128
"""Pixels of the longer side of a reduced picture."""
BLOCK = 8
"""Pixels a side of the blocks that are compared."""
SQUARE = 32
"""Pixels a side of the square in which whole pictures are laid over one another."""
COARSE = 36
"""Pixels of the longer side of a picture in which a part is looked for."""
PADDED = 40
"""Pixels a side of its Fourier transform: a border of a pixel around the picture, and a size that is fast."""
SIZES = tuple(0.93**step for step in range(14))
"""Sizes at which a part is looked for, as shares of the whole: from 1 to .39."""
MIN_EDGE = 3.0
"""Root of a difference of colour below which a border is of one colour."""
STRONGEST_EDGE = 200.0
"""Differences of colour beyond count as much as this one."""
MIN_WHOLE, MIN_PART = 0.3, 0.55
"""Correlations below which two pictures are not looked at any closer. Of parts chance alone finds .54."""
ROUNDS = ((SIDE // 2, 3), (SIDE // 2, 2), (SIDE, 2), (SIDE, 2))
"""Resolutions at which a place is refined, and how many pixels blocks are moved there."""
MIN_MATCHED = 4
"""Blocks that a map can be fitted to."""
FLOOR = 256.0
"""Variance of a block's edges, times its pixels, below which it is noise."""


class Small:
    """A picture made small, and what it is compared by."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        """pixels: (height, width, 3) uint8 with a longer side of SIDE pixels, see `reduced`."""
        self.pixels = pixels

    @cached_property
    def edges(self) -> Floats:
        """How much the colour changes at each pixel, (height, width)."""
        padded = np.pad(self.pixels.astype(np.float32), ((1, 1), (1, 1), (0, 0)), mode="edge")
        across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        strength = np.sqrt((across**2 + down**2).sum(axis=2))
        return np.sqrt(np.minimum(strength, STRONGEST_EDGE))

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """What is left without borders of one colour: top, bottom, left and right in pixels."""
        drawn = self.edges > MIN_EDGE
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        if not len(rows):
            return 0, len(self.edges), 0, self.edges.shape[1]
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1

    @cached_property
    def square(self) -> Floats:
        """The edges squeezed into a square, in all eight orientations, (8, SQUARE * SQUARE): zero mean, unit length."""
        return _squeezed(self.edges)

    @cached_property
    def boxed(self) -> Floats:
        """The same of the `box`."""
        top, bottom, left, right = self.box
        return _squeezed(self.edges[top:bottom, left:right])

    def at(self, side: int) -> Floats:
        """The edges with a longer side of so many pixels."""
        height, width = self.edges.shape
        scale = side / max(height, width)
        return self.edges if scale == 1 else resized(self.edges, _scaled(height, scale), _scaled(width, scale))

    def oriented(self, turn: int) -> Small:
        """The picture in one of the eight orientations."""
        return self if turn == 0 else Small(np.ascontiguousarray(turned(self.pixels, turn)))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where `part`, in the orientation `turn`, lies in `whole`; score: how well blocks that match do, 0..1."""

    whole: Small
    part: Small
    turn: int
    matrix: Matrix
    score: float


def reduced(picture: Image.Image) -> NDArray[np.uint8]:
    """An upright RGB picture with a longer side of SIDE pixels, (height, width, 3) uint8."""
    scale = SIDE / max(picture.size)
    size = _scaled(picture.width, scale, 2 * BLOCK), _scaled(picture.height, scale, 2 * BLOCK)
    return np.asarray(picture.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC))


def _scaled(side: int, scale: float, least: int = 4) -> int:
    return max(least, round(side * scale))


def turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """A picture's values, (height, width, ...), mirrored from 4 on, then turned by `turn` modulo 4 quarters."""
    return np.rot90(values[:, ::-1] if turn >= 4 else values, turn % 4)


def resized(values: Floats, height: int, width: int) -> Floats:
    """Values at another size, (height, width), each the mean of its area."""
    image = Image.fromarray(np.ascontiguousarray(values)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image)


def _squeezed(edges: Floats) -> Floats:
    flat = np.stack([turned(resized(edges, SQUARE, SQUARE), turn).ravel() for turn in range(8)])
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit


def places(one: Small, other: Small) -> list[Place]:
    """Where one of two pictures may lie in the other, or its smallest part that is not of one colour, refined: the two
    likeliest, the best first."""
    found = _over(one, other, one.square[0], other.square, np.eye(2, 3))
    boxes = [(small.box, small.edges.shape) for small in (one, other)]
    if any(box != (0, shape[0], 0, shape[1]) for box, shape in boxes):
        found += _over(one, other, one.boxed[0], other.boxed, None)
    parts = [part_in_whole(one, other), part_in_whole(other, one)]
    found += [place for place in parts if place.score >= MIN_PART]
    half = [refined(place, ROUNDS[:2]) for place in found]
    best = sorted(half, key=lambda place: -place.score)[:2]
    return sorted((refined(place, ROUNDS[2:]) for place in best if place.score > 0), key=lambda place: -place.score)


def _over(one: Small, other: Small, square: Floats, squares: Floats, matrix: Matrix | None) -> list[Place]:
    """One picture over the other, in its two likeliest orientations. matrix: None: the box of one over the other's."""
    scores = squares @ square
    return [
        Place(
            whole=one,
            part=other,
            turn=turn,
            matrix=_box_over_box(one, other.oriented(turn)) if matrix is None else matrix,
            score=float(scores[turn]),
        )
        for turn in np.argsort(-scores)[:2].tolist()
        if scores[turn] >= MIN_WHOLE
    ]


def _box_over_box(one: Small, other: Small) -> Matrix:
    rows = []
    for first, side in ((2, 1), (0, 0)):
        low, high = (value / one.edges.shape[side] for value in one.box[first : first + 2])
        start, end = (value / other.edges.shape[side] for value in other.box[first : first + 2])
        scale = (end - start) / (high - low)
        rows.append([scale * (side == 1), scale * (side == 0), start - scale * low])
    return np.array(rows)


def part_in_whole(whole: Small, part: Small) -> Place:
    """The likeliest place of a picture inside another one, upright, mirrored or turned, at any of SIZES."""
    searched = np.zeros((PADDED, PADDED), dtype=np.float32)
    height, width = whole.at(COARSE).shape
    height, width = height + 2, width + 2
    searched[1 : height - 1, 1 : width - 1] = whole.at(COARSE)
    shapes = [(_scaled(part.edges.shape[0], size * COARSE / SIDE), _scaled(part.edges.shape[1], size * COARSE / SIDE)) for size in SIZES]
    shapes = [one for one in shapes if min(one) >= 8]
    templates = np.zeros((len(shapes), 8, PADDED, PADDED), dtype=np.float32)
    sized = []
    for number, shape in enumerate(shapes):
        template = resized(part.edges, *shape)
        template = template - template.mean()
        template /= max(float(np.linalg.norm(template)), 1e-3)
        for turn in range(8):
            h, w = shape if turn % 2 == 0 else shape[::-1]
            templates[number, turn, :h, :w] = turned(template, turn)
            sized.append((h, w))
    best = Place(whole=whole, part=part, turn=0, matrix=np.eye(2, 3), score=-1.0)
    if not sized:
        return best
    spectra = np.conj(np.fft.rfft2(templates.reshape(-1, PADDED, PADDED)))
    spectra *= np.fft.rfft2(searched)
    products = np.fft.irfft2(spectra, s=(PADDED, PADDED)).reshape(len(shapes), 8, PADDED, PADDED)
    sums = np.zeros((2, height + 1, width + 1))
    sums[:, 1:, 1:] = np.stack([searched, searched**2])[:, :height, :width].cumsum(axis=1).cumsum(axis=2)
    for number, shape in enumerate(shapes):
        for first in (0, 1):
            h, w = shape if first == 0 else shape[::-1]
            if h > height or w > width:
                continue
            windows = sums[:, h:, w:] - sums[:, :-h, w:] - sums[:, h:, :-w] + sums[:, :-h, :-w]
            spread = np.sqrt(np.maximum(windows[1] - windows[0] ** 2 / (h * w), 1.0))
            found = products[number, first::2, : height - h + 1, : width - w + 1] / spread
            turn, top, left = np.unravel_index(int(found.argmax()), found.shape)
            score = float(found[turn, top, left])
            if score > best.score:
                matrix = np.array(
                    [[(width - 2) / w, 0, (1 - left) / w], [0, (height - 2) / h, (1 - top) / h]], dtype=np.float64
                )
                best = Place(whole=whole, part=part, turn=first + 2 * int(turn), matrix=matrix, score=score)
    return best


def refined(place: Place, rounds: tuple[tuple[int, int], ...]) -> Place:
    """A place corrected by where blocks match best, as long as that improves it. Its score is 0 where too few match."""
    part, matrix, last = place.part.oriented(place.turn), place.matrix, len(rounds) - 1
    best_matrix, best_score = matrix, 0.0
    for number, (side, reach) in enumerate(rounds):
        one, other = soft(place.whole.at(side)), soft(part.at(side))
        if number and rounds[number - 1][0] != side:
            best_score = 0.0
        warped, inside = warp(other, matrix, one.shape, reach)
        found = correlations(one, warped * inside, reach)
        score = _score(found[reach, reach])
        if score > best_score:
            best_matrix, best_score = matrix, score
        across, down, best = _peaks(found, reach)
        weights = 4 * np.maximum(best - 0.5, 0) ** 2
        if (weights > 0.1).sum() < MIN_MATCHED:
            break
        matrix = _fitted(matrix, across, down, weights, one.shape)
        if number == last:
            warped, inside = warp(other, matrix, one.shape)
            score = _score(correlations(one, cut(warped * inside), 0)[0, 0])
            if score > best_score:
                best_matrix, best_score = matrix, score
    return Place(whole=place.whole, part=place.part, turn=place.turn, matrix=best_matrix, score=best_score)


def _score(correlation: Floats) -> float:
    """How many blocks match, by how much they do, as a share of all: of a large part more may match than of a small."""
    return float((np.maximum(correlation - 0.5, 0)).sum() * 2 / np.sqrt(correlation.size))


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


@cache
def _summing(side: int) -> Floats:
    """(side // BLOCK, side): a product with it sums over blocks, faster than NumPy's sums."""
    return np.repeat(np.eye(side // BLOCK, dtype=np.float32), BLOCK, axis=1)


def blocks(values: Floats) -> Floats:
    """Sums over blocks: (..., height, width), multiples of BLOCK, become (..., rows, columns)."""
    sums: Floats = _summing(values.shape[-2]) @ values @ _summing(values.shape[-1]).T
    return sums


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


def _peaks(found: Floats, reach: int) -> tuple[Matrix, Matrix, Floats]:
    """Where each block matches best: pixels across and down, with fractions by a parabola, and the correlation."""
    moves, _, rows, columns = found.shape
    flat = found.reshape(moves * moves, rows, columns)
    best, peak = flat.max(axis=0), flat.argmax(axis=0)
    row, column = np.indices(peak.shape)
    down, across = peak // moves, peak % moves
    inner = np.clip(down, 1, moves - 2), np.clip(across, 1, moves - 2)
    moved = []
    for before, after, place, held in (
        (found[inner[0] - 1, across, row, column], found[inner[0] + 1, across, row, column], down, inner[0]),
        (found[down, inner[1] - 1, row, column], found[down, inner[1] + 1, row, column], across, inner[1]),
    ):
        bend = np.minimum(before - 2 * best + after, -1e-3)
        fraction = np.where(place == held, np.clip(0.5 * (before - after) / bend, -0.5, 0.5), 0)
        moved.append(place - reach + fraction)
    return moved[1], moved[0], best


def _fitted(matrix: Matrix, across: Matrix, down: Matrix, weights: Floats, shape: tuple[int, ...]) -> Matrix:
    """The map corrected by moves of blocks, in pixels, by weighted least squares; those far from it count less."""
    (rows, columns), (height, width) = across.shape, shape
    x, y = np.meshgrid((np.arange(columns) + 0.5) * BLOCK / width, (np.arange(rows) + 0.5) * BLOCK / height)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    moves = np.stack([across.ravel() / width, down.ravel() / height], axis=1)
    held = weights.ravel().astype(np.float64)
    change = np.zeros((3, 2))
    for _ in range(3):
        normal = points.T @ (points * held[:, None]) + np.diag([0.3, 0.3, 1e-3])
        change = np.linalg.solve(normal, points.T @ (moves * held[:, None]))
        far = (np.abs(points @ change - moves) * [width, height]).max(axis=1)
        held = weights.ravel() / (1 + far**2)
    corrected: Matrix = matrix @ np.vstack([np.eye(2, 3) + change.T, [0, 0, 1]])
    return corrected
