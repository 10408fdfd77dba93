"""Several aspects of one query: the nearest images by a weighted sum of cosines in several spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.query.allowed import Selection
from search.query.snapshot import Snapshot
from search.types import Vector

MAX_CANDIDATES = 100_000
"""Candidates of one space that are looked at, at most: sums are exact up to so many images."""


@dataclass(frozen=True)
class WeightedVectors:
    """One aspect's target: vectors (v, dim) float32 of unit length in a space, as they are searched, one a view, and a
    weight > 0."""

    space: str
    vectors: Vector
    weight: float


def nearest_by_sum(
    snapshot: Snapshot, aspects: Sequence[WeightedVectors], wanted: int, window: int, allowed: Selection | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The images whose sum over all aspects is among the `wanted` best: rowids (n,) and sums (n,), best first.

    A sum is weighted, and divided by the sum of weights: it lies between -1 and 1. Images without a vector in one of
    the spaces are not found. window: candidates of each space to begin with. The threshold algorithm of Fagin, Lotem
    and Naor (2001): an image that no space has among its candidates has at most the sum of their last scores.
    """
    total = sum(aspect.weight for aspect in aspects)
    while True:
        candidates, unseen, exhausted = [], 0.0, False
        for aspect in aspects:
            rowids, cosines = snapshot.nearest(aspect.space, aspect.vectors, window, allowed)
            candidates.append(rowids[rowids >= 0])
            full = rowids.shape[1] == window and bool((rowids[:, -1] >= 0).all())
            exhausted |= not full
            unseen += aspect.weight / total * float(cosines[:, -1].max()) if full else 0.0
        found = np.unique(np.concatenate(candidates))
        sums = np.zeros(len(found), dtype=np.float32)
        for aspect in aspects:
            sums += np.float32(aspect.weight / total) * snapshot.cosines(aspect.space, aspect.vectors, found)
        found, sums = found[np.isfinite(sums)], sums[np.isfinite(sums)]
        order = np.argsort(-sums, kind="stable")
        found, sums = found[order], sums[order]
        # Equal sums are ordered by id: go on while an unseen image may tie with the last wanted one.
        if exhausted or window >= MAX_CANDIDATES or (len(sums) >= wanted and unseen < sums[wanted - 1]):
            return found, sums
        window *= 4
