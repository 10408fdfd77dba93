"""Neighbours: the nearest images of every image of a space, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import Vectors, exact, pair_scores, scores
from search.generations.cells import nearest_by_cells
from search.generations.generation import SpaceSnapshot
from search.query.snapshot import Rowids, Snapshot

BATCH = 1_024
"""Images whose neighbours are looked for at once."""
MAX_COMPARED = 8_192
"""Images of which all are compared with all, in a second of processor time (cells: .36 s). More are looked for by
cells: of 20,000, in a sixth of the time."""
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rowids of images, of one neighbour of each, and their cosines, (p,) each."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of neighbours in a space, and which of them are nearer than chance makes them."""

    snapshot: Snapshot
    space: str
    k: int

    @property
    def _base(self) -> SpaceSnapshot | None:
        return self.snapshot.spaces[self.space].base

    @property
    def copy_cosine(self) -> float:
        """The least cosine of a near copy."""
        return self.snapshot.spaces[self.space].transform.copy_cosine

    def least(self, rate: float) -> float | None:
        """The least score (a cosine less its `shifts`) with a false-match rate; None where rates are not known."""
        if self._base is None or self._base.false_matches is None:
            return None
        return self._base.false_matches.score(rate)

    def shifts(self, rowids: Rowids) -> Vectors:
        """What is subtracted from the cosines of these images, (n,) float32; 0 where rates are not known."""
        background = None if self._base is None else self._base.background
        if background is None:
            return np.zeros(len(rowids), dtype=np.float32)
        return background.shifts_of_many(self.snapshot.vectors(self.space, rowids))

    def pairs(self) -> Iterator[Pairs]:
        """Each image's k nearest others, the pairs of one image together, found by the space's graph, or where there is
        none, by comparing all, or by cells (MAX_COMPARED).

        No more than a batch of vectors is in memory where there is a graph, or where the newest generation has all
        images and no two of them have equal vectors; else all of the space.
        """
        rowids = self.snapshot.all_rowids(self.space)
        for start, (found, cosines) in self._nearest(rowids):
            own = np.broadcast_to(rowids[start : start + len(found), None], found.shape)
            others = (found != own) & (found >= 0)
            others &= np.cumsum(others, axis=1) <= self.k
            yield own[others], found[others], cosines[others]

    def _nearest(self, rowids: Rowids) -> Iterator[tuple[int, tuple[Rowids, Vectors]]]:
        """For each batch of images where it begins, their k + 1 nearest, most of them with themselves, and cosines."""
        starts = range(0, len(rowids), BATCH)
        if self._base is not None and self._base.graph is not None:
            for start in starts:
                queries = self.snapshot.vectors(self.space, rowids[start : start + BATCH])
                yield start, self.snapshot.nearest(self.space, queries, self.k + 1)
            return
        vectors = self._vectors(rowids)
        by_cells = nearest_by_cells(vectors, self.k + 1) if len(rowids) > MAX_COMPARED else None
        for start in starts:
            if by_cells is None:
                places = exact(vectors, vectors[start : start + BATCH], self.k + 1)
                yield start, (rowids[places], scores(vectors, vectors[start : start + BATCH], places))
            else:
                places = by_cells[0][start : start + BATCH]
                yield start, (np.where(places < 0, -1, rowids[places]), by_cells[1][start : start + BATCH])

    def _vectors(self, rowids: Rowids) -> Vectors:
        """The vectors of all images, (n, dim): mapped where a generation holds just them."""
        base = self._base
        if base is not None and base.groups is None and np.array_equal(base.rowids, rowids):
            return base.vectors
        return self.snapshot.vectors(self.space, rowids)

    def cosines(self, ones: Rowids, others: Rowids) -> Vectors:
        """The cosines of pairs of images that were found, (p,) float32, by their rowids, (p,) each."""
        view = self.snapshot.spaces[self.space]
        if view.base is not None and not len(view.delta_rowids):
            positions = view.base.positions(np.concatenate([ones, others]))
            assert len(positions) == 2 * len(ones)
            return pair_scores(view.base.vectors, *np.split(view.base.nodes(positions), 2))
        found = np.empty(len(ones), dtype=np.float32)
        for start in range(0, len(ones), BATCH):
            pairs = slice(start, start + BATCH)
            one, other = np.split(self.snapshot.vectors(self.space, np.concatenate([ones[pairs], others[pairs]])), 2)
            np.einsum("ij,ij->i", one, other, out=found[pairs])
        return found
