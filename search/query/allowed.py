"""What a search may find: the images that a filter lets through, and where they stand in a generation."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import Positions
from search.generations.generation import SpaceSnapshot
from search.vectors import vector_ids

Rowids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A selection in a space of a generation, None for everything: positions, a mask (n,); and the nodes that
    have them: a mask (m,), or, where these are so few that all are compared, themselves, ascending."""

    positions: NDArray[np.bool_] | None = None
    node_mask: NDArray[np.bool_] | None = None
    few_nodes: Positions | None = None


class Selection:
    """The images that a filter lets through: `rowids`, ascending. It remembers where they stand in a generation."""

    def __init__(self, rowids: Rowids) -> None:
        self.rowids = rowids
        # Weak: a generation's files stay on the disk, deleted or not, for as long as somebody holds it.
        self._standing: tuple[weakref.ref[SpaceSnapshot], Allowed] | None = None

    @property
    def nbytes(self) -> int:
        """The memory that it takes, with what it remembers."""
        standing = self._standing
        kept = (standing[1].positions, standing[1].node_mask, standing[1].few_nodes) if standing is not None else ()
        return self.rowids.nbytes + sum(array.nbytes for array in kept if array is not None)

    def within(self, base: SpaceSnapshot, few: int) -> Allowed:
        """Where these images stand. few: nodes that are compared one by one."""
        standing = self._standing
        if standing is None or standing[0]() is not base:
            standing = self._standing = (weakref.ref(base), self._within(base, few))
        return standing[1]

    def _within(self, base: SpaceSnapshot, few: int) -> Allowed:
        positions = base.positions(vector_ids(self.rowids, base.count))
        nodes = positions if base.groups is None else np.unique(base.nodes(positions))
        positions_mask = node_mask = None
        if base.groups is not None:
            positions_mask = np.zeros(len(base.rowids), dtype=np.bool_)
            positions_mask[positions] = True
        if base.graph is None or len(nodes) <= max(few, base.min_filtered):
            return Allowed(positions=positions_mask, few_nodes=nodes)
        node_mask = np.zeros(len(base.vectors), dtype=np.bool_)
        node_mask[nodes] = True
        return Allowed(positions=positions_mask, node_mask=node_mask)
