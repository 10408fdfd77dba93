"""Neighbours: the nearest images of every image of a space, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import Vectors, exact, scores
from search.generations.false_matches import FalseMatches
from search.query.snapshot import Snapshot

BATCH = 1_024
"""Images whose neighbours are looked for at once."""
MANY, SHORT, EXTRA = 4_096, 128, 48
"""Images beyond which a first look compares so many numbers of each vector, where there is no graph; and neighbours
that it finds besides those wanted, which are all compared whole."""

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
    short = None if vectors is None else _shortened(vectors)
    for start in range(0, len(rowids), BATCH):
        asked = rowids[start : start + BATCH]
        if vectors is None or short is None:
            found, cosines = snapshot.nearest(space, snapshot.vectors(space, asked), k + 1)
        else:
            places = exact(short, short[start : start + BATCH], k + 1 if short is vectors else k + EXTRA)
            all_cosines = scores(vectors, vectors[start : start + BATCH], places)
            best = np.argsort(-all_cosines, axis=1, kind="stable")[:, : k + 1]
            found = rowids[np.take_along_axis(places, best, axis=1)]
            cosines = np.take_along_axis(all_cosines, best, axis=1)
        own = np.broadcast_to(asked[:, None], found.shape)
        others = (found != own) & (found >= 0)
        others &= np.cumsum(others, axis=1) <= k
        yield own[others], found[others], cosines[others]


def _shortened(vectors: Vectors) -> Vectors:
    """The directions in which a sample of the vectors lies most, (n, SHORT) float32, for a first look at many; few, or
    short ones, as they are."""
    if len(vectors) <= MANY or vectors.shape[1] <= SHORT:
        return vectors
    sample = vectors[:: -(-len(vectors) // MANY)]
    _, directions = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(vectors @ directions[:, -SHORT:], dtype=np.float32)
