"""Folding: near-equal images become one hit, the best of them, with the others as its copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.generations.transform import are_near

MAX_FOLD_CANDIDATES = 10_000
"""Images that a folded query looks through. A picture with more copies may leave it with fewer than k hits."""
CANDIDATES_PER_HIT = 4
"""Looked through at first, and the factor by which their number grows while too few hits are left."""
BEHIND = 2
"""As many candidates again as there are up to the last hit: its copies stand around it, some of them behind."""
MAX_COPIES = 100
"""Ids that a hit lists of its copies."""


def fold(
    vectors: NDArray[np.float32], hashes: Sequence[int | None], groups: int, *, min_cosine: float
) -> list[list[int]]:
    """The first groups of near-equal images: row numbers, the best first, then its copies in their order.

    vectors: (n, dim) float32, unit vectors, best first. hashes: n perceptual hashes, signed; an image without one is
    nobody's copy. groups: how many at most. min_cosine: of a copy. It is near to the first of its group, and to no
    image before that: there are no chains.
    """
    known = np.array([one is not None for one in hashes], dtype=np.bool_)
    bits = np.array([one or 0 for one in hashes], dtype=np.int64).view(np.uint64)  # of signed ones, NumPy counts |x|
    free = np.ones(len(vectors), dtype=np.bool_)
    found: list[list[int]] = []
    first = 0
    while len(found) < groups and first < len(vectors):
        free[first] = False
        group = [first]
        if known[first]:
            later = np.flatnonzero(free & known)
            later = later[are_near(bits[later], bits[first])]
            # To gather most rows costs more than to compare them all.
            few = len(later) < len(vectors) // 8
            cosines = vectors[later] @ vectors[first] if few else (vectors @ vectors[first])[later]
            copies = later[cosines >= min_cosine]
            free[copies] = False
            group += copies.tolist()
        found.append(group)
        rest = np.flatnonzero(free[first:])
        first = first + int(rest[0]) if len(rest) else len(vectors)
    return found


def is_enough(groups: Sequence[Sequence[int]], wanted: int, candidates: int) -> bool:
    """Whether there are as many groups as wanted, and enough candidates behind the last of them."""
    return len(groups) >= wanted and BEHIND * groups[wanted - 1][0] <= candidates
