"""Fusion: one ranking of the images that words find in the catalog, and of those that vectors find.

Reciprocal ranks are added (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009): scores of words and
cosines have no common measure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rowids = NDArray[np.int64]
Scores = NDArray[np.float32]

DEPTH = 1_000
"""Of each ranking, the images whose ranks count. Beyond, images come in the order of their vectors."""
RANK_OFFSET = 20.0
"""Added to ranks, from 1: by so much the first is not everything."""
WORDS_SHARE = 0.7
"""Of the catalog's words: what somebody wrote is surer than what a network sees. Figures: docs/relevance.md."""
LEAST = 0.3
"""Of that, what an image gets that has the least of the words, the rest by how much of them it has. So what has only
`of` comes after what vectors find first, and is still among the first ten."""


def fused(
    rowids: Rowids, scores: Scores, by_words: Rowids, shares: Scores, words_share: float = 1.0
) -> tuple[Rowids, Scores]:
    """Both rankings as one: rowids (n,) and scores (n,), best first, 1 for what is first in both and has all words.

    rowids, scores: found by vectors, (v,) each, best first; equal scores have equal ranks. by_words, shares: found by
    words, (w,) each, up to DEPTH, best first, and how much of the words each has, 0..1. words_share: of the query that
    is words, 0..1. An image that words found gets nothing for a rank beyond DEPTH in the other ranking.
    """
    weight = WORDS_SHARE * words_share
    found = np.union1d(rowids, by_words)
    added = np.zeros(len(found), dtype=np.float64)
    ranks = 1 + np.searchsorted(-scores, -scores, side="left")
    counted = (ranks <= DEPTH) | ~np.isin(rowids, by_words)
    added[np.searchsorted(found, rowids[counted])] += (1 - weight) / (RANK_OFFSET + ranks[counted])
    added *= RANK_OFFSET + 1
    added[np.searchsorted(found, by_words)] += words_scores(shares, words_share)
    total = added.astype(np.float32)
    order = np.argsort(-total, kind="stable")
    return found[order], total[order]


def words_scores(shares: Scores, words_share: float = 1.0) -> NDArray[np.float64]:
    """What words add to the scores of the images that they find, (w,). shares, words_share: as `fused` takes them."""
    places = np.arange(len(shares))
    part = WORDS_SHARE * words_share * (RANK_OFFSET + 1)
    added: NDArray[np.float64] = part * (LEAST + (1 - LEAST) * shares) / (RANK_OFFSET + 1 + places)
    return added
