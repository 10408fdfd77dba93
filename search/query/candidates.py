"""Candidates: the images that may be hits of a query, from its snapshot's spaces, before the catalog is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.query.allowed import Selection
from search.query.aspects import Target, best_values, nearest_by_best, nearest_by_sum
from search.query.fusion import DEPTH, ByWords, fused
from search.query.scores import Rates
from search.query.snapshot import Snapshot
from search.types import Query

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rowids and cosines of one query, best first."""
EXTRA_CANDIDATES = 16
"""Candidates beyond k: room for equal scores, whose order is by id, and for parts that are no hits."""
COSINE_ROUNDING = 1e-6
"""How far a cosine may be from its true value: that of an image with itself is not always 1 to the last bit."""


@dataclass(frozen=True)
class Asked:
    """A query as it is searched for, by one target or several.

    `excluded`: ids of its own parts, and of images whose files are gone. `min_score`: that a hit needs. `by_words`:
    what the catalog finds by the query's words; None where it has none. `unranked`: rowids, which take no rank in a
    fusion, of images that are no hits. `spare`: candidates to look at beyond those.
    """

    query: Query
    aspects: tuple[Target, ...]
    allowed: Selection | None
    excluded: frozenset[str]
    rates: Rates | None
    min_score: float | None
    by_words: ByWords | None = None
    unranked: frozenset[int] = frozenset()
    spare: int = 0

    @property
    def wanted(self) -> int:
        """How many images are looked for at least."""
        wanted = self.query.k + self.query.offset + len(self.excluded) + self.spare
        return wanted if self.by_words is None else max(wanted, DEPTH)


def candidates(snapshot: Snapshot, asked: Sequence[Asked]) -> list[Found]:
    """All images that may be hits of each query. Alike queries of one target are one call."""
    answers: dict[int, Found] = {}
    windows: dict[int, int] = {}
    for number, one in enumerate(asked):
        window = one.wanted + EXTRA_CANDIDATES
        if not len(one.aspects[0].vectors):
            answers[number] = _enough(snapshot, one, np.empty(0, np.int64), np.empty(0, np.float32))
        elif len(one.aspects) == 1:
            windows[number] = window
        else:
            nearest = nearest_by_best if one.query.combine == "best" else nearest_by_sum
            found = nearest(snapshot, one.aspects, one.wanted, window, one.allowed)
            answers[number] = _enough(snapshot, one, *found)
    while windows:
        alike: dict[tuple[str, int, int], list[int]] = {}
        for number, window in windows.items():
            alike.setdefault((asked[number].aspects[0].space, window, id(asked[number].allowed)), []).append(number)
        for (space, window, _), numbers in alike.items():
            vectors = np.concatenate([asked[number].aspects[0].vectors for number in numbers])
            most = max(asked[number].wanted for number in numbers)  # by id, later ones of equal vectors are no hits
            all_rowids, all_scores = snapshot.nearest(space, vectors, window, asked[numbers[0]].allowed, max_equal=most)
            end = 0
            for number in numbers:
                start, end = end, end + len(asked[number].aspects[0].vectors)
                of_views, best = all_rowids[start:end], all_scores[start:end]
                # At most so much is the score of an image that did not fit into a view's window.
                unseen = best[of_views[:, -1] >= 0, -1] if of_views.shape[1] == window else best[0, :0]
                rowids, scores = _best_view(of_views, best)
                wanted = asked[number].wanted
                # Equal scores are ordered by id: go on while images that did not fit may tie with the last wanted one.
                if not len(unseen) or (len(scores) >= wanted and unseen.max() < scores[wanted - 1]):
                    answers[number] = _enough(snapshot, asked[number], rowids, scores)
                    del windows[number]
                else:
                    windows[number] *= 4
    return [answers[number] for number in range(len(asked))]


def _best_view(rowids: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
    """The best score of each image over all views, best first. Both are (v, window), -1 where there are fewer."""
    if len(rowids) == 1:
        found = rowids[0] >= 0
        return rowids[0][found], scores[0][found]
    found = rowids >= 0
    order = np.argsort(-scores[found], kind="stable")
    ranked = rowids[found][order]
    _, first = np.unique(ranked, return_index=True)
    first.sort()
    return ranked[first], scores[found][order][first]


def _enough(snapshot: Snapshot, one: Asked, rowids: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
    if one.by_words is not None:
        seen = ~np.isin(rowids, [*one.unranked])
        told = one.by_words.without(one.unranked)
        rowids, scores = fused(rowids[seen], scores[seen], told, one.query.words_share)
        if any(target.vetoes for target in one.aspects):  # the catalog's words find what they veto, too
            _, vetoed = best_values(snapshot, one.aspects, rowids)
            rowids, scores = rowids[~vetoed], scores[~vetoed]
    enough = np.ones(len(rowids), dtype=np.bool_)
    if len(rowids) > one.wanted:
        enough &= scores >= scores[one.wanted - 1]
    if one.min_score is not None:
        enough &= scores >= one.min_score - COSINE_ROUNDING
    return rowids[enough], scores[enough]
