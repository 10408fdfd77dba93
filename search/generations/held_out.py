"""Queries that measure a graph's recall: new vectors, held out of it together with all their near copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.generations.policy import Policy

Vectors = NDArray[np.float32]

NEAR_COPY_SHARE = 0.02
"""Two vectors are near copies where their squared distance is less than this share of that of two random ones."""
MAX_HELD_OUT_SHARE = 0.125
"""Share of the new vectors that is held out, at most: the graph that is measured lacks them."""
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
        self._near = 1 - NEAR_COPY_SHARE * (1 - float(centre @ centre))  # 1 - |mean|² is what 1 - cosine is on average
        copies = np.triu(vectors @ vectors.T >= self._near, 1).any(axis=0)
        if len(vectors) - np.count_nonzero(copies) < policy.min_held_out_vectors:
            # All are copies of a few: what differs among them is what there is to find.
            self._near, copies = 1 - ROUNDING, np.zeros_like(copies)
        self.candidates = vectors[~copies]
        self._in_graph = np.zeros(len(self.candidates), dtype=np.bool_)
        self._rows = [np.empty(0, dtype=np.int64)]
        self._flags = [np.empty((0, -(-len(self.candidates) // 8)), dtype=np.uint8)]
        self._seen = 0

    def see_old(self, vectors: Vectors) -> None:
        """Note which candidates have near copies among these, (n, dim) float32, which are in the graph for good."""
        if len(self.candidates):
            self._in_graph |= (vectors @ self.candidates.T >= self._near).any(axis=0)

    def see_new(self, vectors: Vectors) -> None:
        """Note which of the next new vectors, (n, dim) float32, are near copies of which candidates."""
        if len(self.candidates):
            near = vectors @ self.candidates.T >= self._near
            rows = np.flatnonzero(near.any(axis=1))
            self._rows.append(self._seen + rows)
            self._flags.append(np.packbits(near[rows], axis=1))
        before, self._seen = self._seen, self._seen + len(vectors)
        if before < PROBED_SHARE * self._total <= self._seen:
            self._drop_spare()

    def _drop_spare(self) -> None:
        """Keep few candidates where few of the vectors seen so far are copies: each is seen as its own copy once."""
        wanted = -(-int(FEW_CANDIDATES_PER_QUERY * self._policy.held_out_vectors) // 8)
        flags = np.concatenate(self._flags)
        copies = np.bitwise_count(flags).sum() * self._total / self._seen / max(1, len(self.candidates)) - 1
        if copies <= FEW_COPIES:
            self.candidates = self.candidates[: 8 * wanted]
            self._in_graph = self._in_graph[: 8 * wanted]
            self._flags = [flags[:, :wanted]]

    def choose(self, equals: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """The queries, (q, dim) float32, the first ones or those with the fewest copies; and the new vectors that must
        not be in the graph when they are asked, (m,) int64.

        equals: (n,) int64, the new vectors by number: equal ones have the same.
        """
        numbers, first = np.unique(equals[np.concatenate(self._rows)], return_index=True)
        flags = np.concatenate(self._flags)[first]
        copies = np.array([(flags[:, bit // 8] & (128 >> bit % 8) > 0).sum() for bit in range(len(self.candidates))])
        order = np.flatnonzero(~self._in_graph)
        most, total = self._policy.held_out_vectors, max(1, len(np.unique(equals)))
        if copies[order[:most]].sum() > MAX_HELD_OUT_SHARE * total:  # else the first: those without copies lie apart
            order = order[np.argsort(copies[order], kind="stable")]
        room = np.cumsum(copies[order[:most]]) / total
        few = min(self._policy.min_held_out_vectors, int((room <= 0.5).sum()))
        chosen = order[: max(few, int((room <= MAX_HELD_OUT_SHARE).sum()))]
        mask = np.zeros(len(self.candidates), dtype=np.bool_)
        mask[chosen] = True
        return self.candidates[chosen], numbers[(flags & np.packbits(mask)).any(axis=1)]
