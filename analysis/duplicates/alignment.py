"""Alignment: where one picture lies in another, whole or in part, mirrored or turned.

Edges of colours are compared, which survive recolouring. The whole is laid over the whole, what is left without borders
over the same of the other, and each is looked for inside the other. Then blocks are matched with their surroundings,
and an affine map is fitted to where they went, twice at half of the resolution and twice at the full one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from analysis.duplicates.blocks import BLOCK, FLOOR, correlations, soft, warp
from analysis.duplicates.parts import part_in_whole
from analysis.duplicates.small import SIDE, Floats, Matrix, Place, Small

MIN_WHOLE, MIN_PART = 0.3, 0.55
"""Correlations below which two pictures are not looked at any closer. Of parts chance alone finds .54."""
MIN_HALF = 0.5
"""Score at half of the resolution below which a place is not refined any further: that of five blocks of 64."""
SURE = 0.9
"""Correlation from which on a place is judged by its score at the full resolution: fine detail all over is even at half
of it."""
ROUNDS = ((SIDE // 2, 3), (SIDE // 2, 2), (SIDE, 2), (SIDE, 2))
"""Resolutions at which a place is refined, and how many pixels blocks are moved there."""
SHADES_FLOOR = 2_048.0
"""Variance of a block's shades, times its pixels, below which it tells no place."""
MIN_MATCHED = 4
"""Blocks that a map can be fitted to."""


def places(one: Small, other: Small) -> Iterator[Place]:
    """Where one of two pictures may lie in the other, refined: of the whole over the whole, then of what is left
    without borders, then of one inside the other, the likeliest each. They are looked for as they are asked for."""
    for find in (_whole_over_whole, _box_over_box, _one_inside_other):
        found = find(one, other)
        half = [refined(place, ROUNDS[:2]) for place in found]
        best = max(half, key=lambda place: place.score, default=None)
        if best is None:
            continue
        if best.score >= MIN_HALF:
            yield refined(best, ROUNDS[2:])
        elif max(place.score for place in found) >= SURE:
            whole = refined(best, ROUNDS[2:])
            if whole.score >= MIN_HALF:
                yield whole


def _whole_over_whole(one: Small, other: Small) -> list[Place]:
    return _over(one, other, other.square @ one.square[0], boxed=False)


def _box_over_box(one: Small, other: Small) -> list[Place]:
    if all(small.box == (0, small.edges.shape[0], 0, small.edges.shape[1]) for small in (one, other)):
        return []
    return _over(one, other, other.boxed @ one.boxed[0], boxed=True)


def _one_inside_other(one: Small, other: Small) -> list[Place]:
    parts = part_in_whole(one, other), part_in_whole(other, one)
    return [place for place in parts if place.score >= MIN_PART]


def _over(one: Small, other: Small, scores: Floats, *, boxed: bool) -> list[Place]:
    """One picture over the other, or the box of one over that of the other, in its two likeliest orientations."""
    return [
        Place(
            whole=one,
            part=other,
            turn=turn,
            matrix=_between_boxes(one, other.oriented(turn)) if boxed else np.eye(2, 3),
            score=float(scores[turn]),
        )
        for turn in np.argsort(-scores)[:2].tolist()
        if scores[turn] >= MIN_WHOLE
    ]


def _between_boxes(one: Small, other: Small) -> Matrix:
    rows = []
    for first, side in ((2, 1), (0, 0)):
        low, high = (value / one.edges.shape[side] for value in one.box[first : first + 2])
        start, end = (value / other.edges.shape[side] for value in other.box[first : first + 2])
        scale = (end - start) / (high - low)
        rows.append([scale * (side == 1), scale * (side == 0), start - scale * low])
    return np.array(rows)


def is_whole(matrix: Matrix) -> bool:
    """Whether the borders of the whole and of the part lie over one another, but for a hundredth."""
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    return bool(np.abs(corners @ matrix.T - corners[:, :2]).max() < 0.01)


def refined(place: Place, rounds: tuple[tuple[int, int], ...]) -> Place:
    """A place corrected by where blocks match best, as long as that improves it. Its score is 0 where too few match."""
    part, matrix, last = place.part.oriented(place.turn), place.matrix, len(rounds) - 1
    best_matrix, best_score = matrix, 0.0
    for number, (side, reach) in enumerate(rounds):
        edges, shades = (place.whole.at(side), part.at(side)), (place.whole.shades_at(side), part.shades_at(side))
        if number and rounds[number - 1][0] != side:
            best_score = 0.0
        shape = edges[0].shape
        found = _agreement(edges, shades, matrix, reach)
        score = _score(found[reach, reach])
        if score > best_score:
            best_matrix, best_score = matrix, score
        across, down, best = _peaks(found, reach)
        weights = 4 * np.maximum(best - 0.5, 0) ** 2
        if (weights > 0.1).sum() < MIN_MATCHED:
            break
        matrix = _fitted(matrix, across, down, weights, shape)
        if number == last:
            score = _score(_agreement(edges, shades, matrix, 0)[0, 0])
            if score > best_score:
                best_matrix, best_score = matrix, score
    return Place(whole=place.whole, part=place.part, turn=place.turn, matrix=best_matrix, score=best_score)


def _agreement(edges: tuple[Floats, Floats], shades: tuple[Floats, Floats], matrix: Matrix, reach: int) -> Floats:
    """The correlations of blocks of a whole with a part, moved: of how much the colour changes, or of shades,
    whichever is higher. Edges of fine texture are even all over, its shades are not."""
    best: Floats | None = None
    for (one, other), floor in ((edges, FLOOR), (shades, SHADES_FLOOR)):
        warped, inside = warp(soft(other), matrix, one.shape, reach)
        found = correlations(soft(one), warped * inside, reach, floor)
        best = found if best is None else np.maximum(best, found)
    assert best is not None
    return best


def corrected(
    matrix: Matrix, one: Floats, other: Floats, look: Callable[[Floats], Floats], reaches: tuple[int, ...], floor: float
) -> Matrix:
    """A map corrected at another resolution, by where blocks of `one` match what `look` makes of the other there.

    floor: of the variance of a block, times its pixels.
    """
    for reach in reaches:
        warped, inside = warp(other, matrix, one.shape, reach)
        across, down, best = _peaks(correlations(one, look(warped) * inside, reach, floor), reach)
        weights = 4 * np.maximum(best - 0.5, 0) ** 2
        if (weights > 0.1).sum() < 2 * MIN_MATCHED:
            break
        matrix = _fitted(matrix, across, down, weights, one.shape)
    return matrix


def _score(correlation: Floats) -> float:
    """How many blocks match, by how much they do, as a share of all: of a large part more may match than of a small."""
    return float((np.maximum(correlation - 0.5, 0)).sum() * 2 / np.sqrt(correlation.size))


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
    change: Matrix = np.zeros((3, 2))
    for _ in range(3):
        normal = points.T @ (points * held[:, None]) + np.diag([0.3, 0.3, 1e-3])
        change = np.asarray(np.linalg.solve(normal, points.T @ (moves * held[:, None])), dtype=np.float64)
        far = (np.abs(points @ change - moves) * [width, height]).max(axis=1)
        held = weights.ravel() / (1 + far**2)
    corrected: Matrix = matrix @ np.vstack([np.eye(2, 3) + change.T, [0, 0, 1]])
    return corrected
