"""Groups: equal vectors are stored and searched once; which images each of them stands for."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]
Digests = NDArray[np.bytes_]


class Digester:
    """128 random bits of a vector's own: equal vectors have equal digests.

    Two sums of its 32-bit words, each times a random 64-bit factor: unequal vectors have equal digests with a chance of
    at most 2^-66, and nobody who picks the vectors knows the factors. Digests of one digester can be compared.
    """

    def __init__(self, dim: int) -> None:
        factors = np.frombuffer(secrets.token_bytes(16 * dim), dtype=np.uint64)
        self._factors = factors.reshape(dim, 2) | np.uint64(1)

    def digests(self, vectors: Vectors) -> Digests:
        """Digests of (n, dim) float32 vectors, (n,) of 16 bytes."""
        found = [np.empty(0, dtype="S16")]
        for start in range(0, len(vectors), 4096):  # a few megabytes at once
            words = np.ascontiguousarray(vectors[start : start + 4096]).view(np.uint32)
            found.append((words.astype(np.uint64) @ self._factors).view("S16").ravel())
        return np.concatenate(found)


def first_equals(known: Digests, new: Digests) -> Positions:
    """For each new vector, (n,) int64: the number of the first that equals it, counted through the known and the new.

    Below `len(known)` it is one of the known; `len(known) + i` is the new one `i`, which may be itself.
    """
    _, first, inverse = np.unique(np.concatenate([known, new]), return_index=True, return_inverse=True)
    equals: Positions = first[inverse[len(known) :]].astype(np.int64)
    return equals


class Groups:
    """The images of each node: a node is a vector that the images of one or more positions have.

    nodes: (n,) int32, the node of each position. members: (n,) int32, all positions, those of node 0 first, each node's
    in the order of their images' ids.
    """

    def __init__(self, nodes: NDArray[np.int32], members: NDArray[np.int32], count: int) -> None:
        """count: how many nodes there are."""
        self.nodes = nodes
        self.members = members
        self.count = count
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(nodes, minlength=count))])

    @classmethod
    def of(cls, nodes: Positions, ranks: Positions, count: int) -> Groups:
        """Groups of positions with these nodes, (n,), whose images' ids have these ranks among all ids, (n,)."""
        return cls(nodes.astype(np.int32), np.lexsort((ranks, nodes)).astype(np.int32), count)

    def mask(self, positions: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The nodes, (count,), of which any of these positions, (n,), is a member."""
        mask = np.zeros(self.count, dtype=np.bool_)
        mask[self.nodes[positions]] = True
        return mask

    def take(
        self, nodes: Iterable[int], limit: int, each: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[Positions, list[int]]:
        """The positions of these nodes' images, node by node until there are `limit`, and how many of each node.

        each: of one node the first so many by id. allowed: (n,) the positions that may be taken, None for all.
        """
        taken: list[NDArray[np.int32]] = [self.members[:0]]
        counts: list[int] = []
        for node in nodes:
            members = self.members[self._starts[node] : self._starts[node + 1]]
            if allowed is not None:
                members = members[allowed[members]]
            taken.append(members[: min(each, limit)])
            counts.append(len(taken[-1]))
            limit -= counts[-1]
            if not limit:
                break
        return np.concatenate(taken).astype(np.int64), counts
