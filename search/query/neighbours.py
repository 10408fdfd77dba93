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
    """The false-match rates of a space's scores, None where they are not known, and the pairs of neighbours."""

    rates: FalseMatches | None
    pairs: Iterator[Pairs]


def neighbours(snapshot: Snapshot, space: str, k: int) -> Neighbours:
    """Each image's k nearest others, found by the space's graph, or where there is none, by comparing all.

    No more than a batch is in memory where there is a graph; else all vectors of the space.
    """
    base = snapshot.spaces[space].base
    return Neighbours(None if base is None else base.false_matches, _pairs(snapshot, space, k))


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
