"""Neighbours: the nearest images of every image of a space, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import exact
from search.generations.false_matches import FalseMatches
from search.query.snapshot import Snapshot

BATCH = 1_024
"""Images whose neighbours are looked for at once."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Rowids of images, of one neighbour of each, and their cosines, (p,) each."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of neighbours, and what their cosines mean. rates: the false-match rates of the space's scores, None where
    they are not known; copy_cosine: what a near copy has at least."""

    snapshot: Snapshot
    space: str
    k: int

    @property
    def rates(self) -> FalseMatches | None:
        """The false-match rates of the space's scores; None where they are not known."""
        base = self.snapshot.spaces[self.space].base
        return None if base is None else base.false_matches

    @property
    def copy_cosine(self) -> float:
        """The cosine that a near copy has at least."""
        return self.snapshot.spaces[self.space].transform.copy_cosine

    def pairs(self) -> Iterator[Pairs]:
        """Each image's k nearest others, found by the space's graph, or where there is none, by comparing all.

        No more than a batch of vectors is in memory where there is a graph; else all of the space.
        """
        return _pairs(self.snapshot, self.space, self.k)

    def cosine(self, one: int, other: int) -> float:
        """The cosine of two images that were found."""
        first, second = self.snapshot.vectors(self.space, np.array([one, other]))
        return float(first @ second)


def _pairs(snapshot: Snapshot, space: str, k: int) -> Iterator[Pairs]:
    base = snapshot.spaces[space].base
    rowids = snapshot.all_rowids(space)
    vectors = None if base is not None and base.graph is not None else snapshot.vectors(space, rowids)
    for start in range(0, len(rowids), BATCH):
        asked = rowids[start : start + BATCH]
        if vectors is None:
            queries = snapshot.vectors(space, asked)
            found, cosines = snapshot.nearest(space, queries, k + 1)
        else:
            queries = vectors[start : start + BATCH]
            places = exact(vectors, queries, k + 1)
            found = rowids[places]
            cosines = np.einsum("qd,qkd->qk", queries, vectors[places])
        own = np.broadcast_to(asked[:, None], found.shape)
        others = (found != own) & (found >= 0)
        others &= np.cumsum(others, axis=1) <= k
        yield own[others], found[others], cosines[others]
