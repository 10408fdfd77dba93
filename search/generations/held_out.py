"""Queries that measure a graph's recall: new vectors, held out of it together with all their near copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.generations.policy import Policy

Vectors = NDArray[np.float32]

NEAR_COPY_SHARES = (0.02, 0.1)
"""Two vectors are near copies where their squared distance is less than this share of that of two random ones: one
picture saved twice, or frames of one burst. Which of them a collection is full of is not known, and where it has many
that are barely not near copies, they are found easily: recall is measured for both, and the lower one counts."""
MAX_HELD_OUT_SHARE = 0.125
"""Share of the new vectors that is held out for either share, at most: the graph that is measured lacks them."""
ROUNDING = 1e-6
"""How far the cosine of equal vectors may be from one."""
CANDIDATES_PER_QUERY = 4
"""Candidates, for each query: where four images in five have copies, enough have none."""
FEW_CANDIDATES_PER_QUERY = 1.25
"""Candidates, for each query, where few images have copies: each is compared with all vectors."""
PROBED_SHARE = 1 / 16
"""Share of the new vectors by which it is judged how many have copies."""
FEW_COPIES = 0.25
"""Near copies of a vector, on average, that are few."""


class HeldOut:
    """Candidates for queries, and which vectors are near copies of theirs.

    Copies find one another in a graph, and lead a search to all that lies around them. A query whose copies are in the
    graph says nothing of an image that is new: where every image lay there twice, it found .96, and new ones .56.
    """

    def __init__(self, vectors: Vectors, policy: Policy, total: int) -> None:
        """vectors: (c, dim) float32, a sample of the new ones, in random order.

        total: how many are new; 0: all candidates are kept, since old vectors may be copies of most.
        """
        self._policy = policy
        self._total = total
        centre = vectors.mean(axis=0, dtype=np.float64) if len(vectors) else np.zeros(vectors.shape[1])
        random_pairs = 1 - float(centre @ centre)  # what 1 - cosine is on average
        self._nears = [1 - share * random_pairs for share in NEAR_COPY_SHARES]
        cosines = np.triu(vectors @ vectors.T, 1)
        copies = (cosines >= self._nears[0]).any(axis=0)
        if len(vectors) - np.count_nonzero(copies) < policy.min_held_out_vectors:
            # All are copies of a few: what differs among them is what there is to find.
            self._nears, copies = [1 - ROUNDING], np.zeros_like(copies)
        self.candidates = vectors[~copies]
        cosines = cosines[np.ix_(~copies, ~copies)]
        self._may_ask: list[NDArray[np.bool_]] = [~np.any(cosines >= near, axis=0) for near in self._nears]
        self._in_graph = np.full(len(self.candidates), -1, dtype=np.float32)
        self._pairs = [np.empty(0, dtype=[("row", "i8"), ("candidate", "i4"), ("cosine", "f4")])]
        self._seen = 0

    def see_old(self, vectors: Vectors) -> None:
        """Note which candidates have near copies among these, (n, dim) float32, which are in the graph for good."""
        if len(self.candidates):
            np.maximum(self._in_graph, (vectors @ self.candidates.T).max(axis=0), out=self._in_graph)

    def see_new(self, vectors: Vectors) -> None:
        """Note which of the next new vectors, (n, dim) float32, are near copies of which candidates."""
        if len(self.candidates):
            cosines = vectors @ self.candidates.T
            near = cosines >= np.where(self._may_ask[-1], self._nears[-1], self._nears[0]).astype(np.float32)
            rows, columns = np.nonzero(near)
            pairs = np.empty(len(rows), dtype=self._pairs[0].dtype)
            pairs["row"], pairs["candidate"], pairs["cosine"] = self._seen + rows, columns, cosines[near]
            self._pairs.append(pairs)
        before, self._seen = self._seen, self._seen + len(vectors)
        if before < PROBED_SHARE * self._total <= self._seen:
            self._drop_spare()

    def _drop_spare(self) -> None:
        """Keep few candidates where few of the vectors seen so far are copies: each is seen as its own copy once."""
        wanted = int(FEW_CANDIDATES_PER_QUERY * self._policy.held_out_vectors)
        pairs = np.concatenate(self._pairs)
        asking = max(1, int(np.count_nonzero(self._may_ask[-1])))
        seen = int(np.count_nonzero(self._may_ask[-1][pairs["candidate"]]))
        if seen * self._total / self._seen / asking - 1 <= FEW_COPIES:
            self.candidates = self.candidates[:wanted]
            self._may_ask = [may_ask[:wanted] for may_ask in self._may_ask]
            self._in_graph = self._in_graph[:wanted]
            self._pairs = [pairs[pairs["candidate"] < wanted]]

    def choose(self, equals: NDArray[np.int64]) -> tuple[list[Vectors], NDArray[np.int64]]:
        """Sets of queries, (q, dim) float32 each, one for each of NEAR_COPY_SHARES as long as there are enough; and
        the new vectors that must not be in the graph when they are asked, (m,) int64.

        equals: (n,) int64, the new vectors by number: equal ones have the same. The queries are the first candidates,
        or those with the fewest copies.
        """
        pairs = np.concatenate(self._pairs)
        pairs["row"] = equals[pairs["row"]]
        _, first = np.unique(pairs[["row", "candidate"]], return_index=True)
        pairs, total = pairs[first], max(1, len(np.unique(equals)))
        least, most = self._policy.min_held_out_vectors, self._policy.held_out_vectors
        sets, late = list[Vectors](), [np.empty(0, dtype=np.int64)]
        for near, may_ask in zip(self._nears, self._may_ask, strict=True):
            copies_of = pairs[pairs["cosine"] >= np.float32(near)]
            copies = np.bincount(copies_of["candidate"], minlength=len(self.candidates))
            order = np.flatnonzero(may_ask & (self._in_graph < near))
            if copies[order[:most]].sum() > MAX_HELD_OUT_SHARE * total:
                # Else the first: those without copies lie apart.
                order = order[np.argsort(copies[order], kind="stable")]
            room = np.cumsum(copies[order[:most]]) / total
            few = min(least, int((room <= 0.5).sum()))
            chosen = order[: max(few, int((room <= MAX_HELD_OUT_SHARE).sum()))]
            if len(sets) and len(chosen) < least:
                break
            sets.append(self.candidates[chosen])
            late.append(copies_of["row"][np.isin(copies_of["candidate"], chosen)])
        return sets, np.unique(np.concatenate(late))
