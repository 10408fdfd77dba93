"""Fusion: one ranking of the images that words find in the catalog, and of those that vectors find.

Reciprocal ranks are added (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009): scores of words and
cosines have no common measure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rowids = NDArray[np.int64]
Scores = NDArray[np.float32]

DEPTH = 1_000
"""Of each ranking, the images whose ranks count. Beyond, images come in the order of their vectors."""
RANK_OFFSET = 10.0
"""Added to ranks, from 1: by so much the first is not everything."""
WORDS_SHARE = 0.9
"""Of the catalog's words: what somebody wrote is surer than what a network sees. Chosen on other sets than those of
docs/relevance.md."""
LEAST = 0.1
"""Of that, what an image gets that has the least of the words, the rest by how much of them it has. So what has only
`of` comes after what vectors find first, and is still among the first ten."""


@dataclass(frozen=True, kw_only=True)
class ByWords:
    """The images that the catalog finds by the words of a query, up to DEPTH, best first: their rowids, the scores that
    order them, and how much of the words each has, 0..1; (n,) each."""

    rowids: Rowids
    scores: NDArray[np.float64]
    shares: Scores

    def without(self, passed: Collection[int]) -> ByWords:
        """The others, as if some rowids were not there."""
        kept = ~np.isin(self.rowids, [*passed])
        return ByWords(rowids=self.rowids[kept], scores=self.scores[kept], shares=self.shares[kept])

    def added(self, words_share: float) -> NDArray[np.float64]:
        """What words add to the score of each image, (n,). words_share: of the query that is words, 0..1.

        Neighbours of equal scores have equal ranks: the words do not tell them apart, so vectors do.
        """
        starts = np.flatnonzero(np.diff(self.scores, prepend=np.nan) != 0)
        places = np.repeat(starts, np.diff(starts, append=len(self.scores)))
        part = WORDS_SHARE * words_share * (RANK_OFFSET + 1)
        found: NDArray[np.float64] = part * (LEAST + (1 - LEAST) * self.shares) / (RANK_OFFSET + 1 + places)
        return found


def fused(rowids: Rowids, scores: Scores, by_words: ByWords, words_share: float = 1.0) -> tuple[Rowids, Scores]:
    """Both rankings as one: rowids (n,) and scores (n,), best first, 1 for what is first in both and has all words.

    rowids, scores: found by vectors, (v,) each, best first; equal scores have equal ranks. words_share: of the query
    that is words, 0..1. An image that words found gets nothing for a rank beyond DEPTH in the other ranking.
    """
    found = np.union1d(rowids, by_words.rowids)
    added = np.zeros(len(found), dtype=np.float64)
    ranks = 1 + np.searchsorted(-scores, -scores, side="left")
    counted = (ranks <= DEPTH) | ~np.isin(rowids, by_words.rowids)
    added[np.searchsorted(found, rowids[counted])] += (1 - WORDS_SHARE * words_share) / (RANK_OFFSET + ranks[counted])
    added *= RANK_OFFSET + 1
    added[np.searchsorted(found, by_words.rowids)] += by_words.added(words_share)
    total = added.astype(np.float32)
    order = np.argsort(-total, kind="stable")
    return found[order], total[order]
