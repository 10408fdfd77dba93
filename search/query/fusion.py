"""Fusion: one ranking of the images that words find in the catalog, by letters and by meaning, and that vectors find.

Reciprocal ranks are added (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009): scores of words and
cosines have no common measure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

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
MEANING_SHARE = 0.4 / 0.9
"""Of that, what the words of an image's names mean; the rest is letters."""
LEAST = 0.1
"""Of letters, what an image gets that has the least of the words, the rest by how much of them it has. So what has only
`of` comes after what vectors find first, and is still among the first ten."""


@dataclass(frozen=True, kw_only=True)
class ByWords:
    """The images that the catalog finds by the words of a query, up to DEPTH, best first: their rowids, the scores that
    order them, and how much of the words each has, 0..1; (n,) each.

    meant, cosines: those whose words mean what the query means, best first, (m,) each. None: it is not known what words
    mean, and letters have all of the weight.
    """

    rowids: Rowids
    scores: NDArray[np.float64]
    shares: Scores
    meant: Rowids | None = None
    cosines: Scores | None = None

    @property
    def every(self) -> Rowids:
        """All of them, ascending."""
        return np.unique(self.rowids) if self.meant is None else np.union1d(self.rowids, self.meant)

    def without(self, passed: Collection[int]) -> ByWords:
        """The others, as if some rowids were not there."""
        kept = ~np.isin(self.rowids, [*passed])
        others = replace(self, rowids=self.rowids[kept], scores=self.scores[kept], shares=self.shares[kept])
        if self.meant is None or self.cosines is None:
            return others
        near = ~np.isin(self.meant, [*passed])
        return replace(others, meant=self.meant[near], cosines=self.cosines[near])

    def added(self, words_share: float) -> NDArray[np.float64]:
        """What words add to the score of each of `every`, (n,). words_share: of the query that is words, 0..1.

        Neighbours of equal scores have equal ranks: the words do not tell them apart, so vectors do.
        """
        every = self.every
        found = np.zeros(len(every), dtype=np.float64)
        letters = WORDS_SHARE * words_share
        if self.meant is not None and self.cosines is not None:
            meaning = letters * MEANING_SHARE
            letters -= meaning
            found[np.searchsorted(every, self.meant)] = meaning * _by_ranks(self.cosines.astype(np.float64))
        worth = LEAST + (1 - LEAST) * self.shares
        found[np.searchsorted(every, self.rowids)] += letters * worth * _by_ranks(self.scores)
        return found


def _by_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What ranks are worth, (n,), 1 for the first, by scores (n,), best first."""
    starts = np.flatnonzero(np.diff(scores, prepend=np.nan) != 0)
    places = np.repeat(starts, np.diff(starts, append=len(scores)))
    return np.asarray((RANK_OFFSET + 1) / (RANK_OFFSET + 1 + places), dtype=np.float64)


def fused(rowids: Rowids, scores: Scores, by_words: ByWords, words_share: float = 1.0) -> tuple[Rowids, Scores]:
    """Both rankings as one: rowids (n,) and scores (n,), best first, 1 for what is first in both and has all words.

    rowids, scores: found by vectors, (v,) each, best first; equal scores have equal ranks. words_share: of the query
    that is words, 0..1. An image that words found gets nothing for a rank beyond DEPTH in the other ranking.
    """
    told = by_words.every
    found = np.union1d(rowids, told)
    added = np.zeros(len(found), dtype=np.float64)
    ranks = 1 + np.searchsorted(-scores, -scores, side="left")
    counted = (ranks <= DEPTH) | ~np.isin(rowids, told)
    added[np.searchsorted(found, rowids[counted])] += (1 - WORDS_SHARE * words_share) / (RANK_OFFSET + ranks[counted])
    added *= RANK_OFFSET + 1
    added[np.searchsorted(found, told)] += by_words.added(words_share)
    total = added.astype(np.float32)
    order = np.argsort(-total, kind="stable")
    return found[order], total[order]
