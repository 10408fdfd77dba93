"""Why an image is a hit: which patches of the query look like which of the hit's.

Both pictures go through the space's vision transformer. Each patch is compared with each of the other picture; two that
are each other's nearest are a mutual match. Matches are listed by their margin over the next best place: in a plain
background every place is as good, and such a match tells nothing, however high its cosine. See Lowe, "Distinctive
Image Features from Scale-Invariant Keypoints", 2004, of ratios of distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.patches import PatchEncoder
from indexer.pictures.decode import Box, Decoded
from indexer.pictures.grid import Grid, grid_of

MATCHES = 8
"""Matches that are listed, where nobody asks for another number."""
MAX_MATCHES = 64
MIN_MARGIN = 0.05
"""Of a match that is listed: see docs/decisions.md."""
CLEAR_MARGIN = 0.15
"""Of a match that is drawn in full colours."""
NEIGHBOURHOOD = 1
"""Cells around a patch's best match that are the same place: an edge runs through several. Of two listed matches, one
is not in the other's."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two pictures: for each of its patches, the most alike patch of the other.

    nearest: (cells,) int, the number of that patch, -1 for a patch outside the picture. cosines: (cells,) float32 with
    it. margins: (cells,) float32, by how much it is nearer than the nearest elsewhere, 0..2. mutual: (cells,) bool,
    whether it is nearest the other way round too. Margins of the others, and both outside the picture, are 0.
    """

    grid: Grid
    nearest: NDArray[np.int64]
    cosines: NDArray[np.float32]
    margins: NDArray[np.float32]
    mutual: NDArray[np.bool_]

    @property
    def clearness(self) -> NDArray[np.float32]:
        """How clearly each patch matches, 0..1, for drawings: (cells,) float32."""
        clear: NDArray[np.float32] = np.minimum(self.margins / np.float32(CLEAR_MARGIN), np.float32(1))
        return clear


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two patches that are each other's nearest: their numbers, their boxes (x, y, width, height as fractions of each
    upright picture), their cosine, and its margin."""

    query_patch: int
    hit_patch: int
    query_box: Box
    hit_box: Box
    cosine: float
    margin: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Both pictures patch by patch, and the matches that tell most, the clearest first."""

    query: Side
    hit: Side
    matches: tuple[Match, ...]


def explain(
    encoder: PatchEncoder, query: Decoded, hit: Decoded, *, box: Box | None = None, most: int = MATCHES
) -> Explanation:
    """Compare two pictures patch by patch. Takes about as long as to embed both.

    query, hit: decoded for `encoder.preprocessing`; the query, where it was, for a box (x, y, width, height in pixels).
    most: how many matches are listed at most.
    """
    one, other = (
        grid_of((shown.facts.width, shown.facts.height), encoder.preprocessing, encoder.patch, part)
        for shown, part in ((query, box), (hit, None))
    )
    patches = encoder.encode(np.stack([query.pixels, hit.pixels]))
    return compare(patches[0], patches[1], one, other, most=most)


def compare(
    query: NDArray[np.float32],
    hit: NDArray[np.float32],
    query_grid: Grid,
    hit_grid: Grid,
    *,
    most: int = MATCHES,
) -> Explanation:
    """Match the patches of two pictures. query, hit: (cells, dim) float32 of unit length, of grids as given."""
    cosines = query @ hit.T
    cosines[~query_grid.inside] = -np.inf
    cosines[:, ~hit_grid.inside] = -np.inf
    sides = _side(cosines, query_grid, hit_grid), _side(cosines.T, hit_grid, query_grid)
    return Explanation(query=sides[0], hit=sides[1], matches=tuple(_matches(*sides, most)))


def _side(cosines: NDArray[np.float32], grid: Grid, other: Grid) -> Side:
    cells, shown = np.arange(len(cosines)), np.isfinite(cosines).any(axis=1)
    nearest = cosines.argmax(axis=1)
    back = cosines.argmax(axis=0)
    mutual = shown & (back[nearest] == cells)
    best = cosines[cells, nearest]
    elsewhere = np.where(_near(nearest, other), -np.inf, cosines).max(axis=1)
    margins = np.where(mutual, best - np.maximum(elsewhere, -1), 0)  # in a picture of one place, nothing is elsewhere
    return Side(
        grid=grid,
        nearest=np.where(shown, nearest, -1),
        cosines=np.where(shown, best, 0).astype(np.float32),
        margins=margins.astype(np.float32),
        mutual=mutual,
    )


def _near(chosen: NDArray[np.int64], grid: Grid) -> NDArray[np.bool_]:
    """Which cells of a grid are in the neighbourhood of each chosen one: (chosen, cells)."""
    rows, columns = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
    down, across = rows - rows[chosen][:, None], columns - columns[chosen][:, None]
    return np.asarray(np.maximum(np.abs(down), np.abs(across)) <= NEIGHBOURHOOD)


def _matches(query: Side, hit: Side, most: int) -> Iterator[Match]:
    """The mutual matches by falling margin, none in the neighbourhood of one before."""
    taken = np.zeros(len(query.nearest), bool)
    found = 0
    for number in np.argsort(-query.margins, kind="stable").tolist():
        if found == most or query.margins[number] < MIN_MARGIN:
            return
        if taken[number]:
            continue
        taken |= _near(np.array([number]), query.grid)[0]
        found += 1
        other = int(query.nearest[number])
        yield Match(
            query_patch=number,
            hit_patch=other,
            query_box=query.grid.cell(number),
            hit_box=hit.grid.cell(other),
            cosine=float(query.cosines[number]),
            margin=float(query.margins[number]),
        )
