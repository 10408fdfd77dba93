"""A snapshot: one state of an index as a search sees it. Generation + delta - deleted, never changed once made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.generation import Generation
from search.types import Space, Vector

Rowids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SpaceView:
    """One space of a snapshot. `alive` marks the generation's positions that were not removed since; None: all."""

    alive: NDArray[np.bool_] | None
    delta_rowids: Rowids
    delta_vectors: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The index up to `seq`. `current` is the generation the catalog named, `generation` the one that could be read."""

    seq: int
    current: str | None
    generation: Generation | None
    spaces: Mapping[str, SpaceView]

    @classmethod
    def start(cls, generation: Generation | None, current: str | None, spaces: Sequence[Space]) -> Snapshot:
        """A generation, or nothing at all, with an empty delta."""
        views = {
            space.name: SpaceView(
                alive=None,
                delta_rowids=np.empty(0, dtype=np.int64),
                delta_vectors=np.empty((0, space.recipe.dim), dtype=np.float32),
            )
            for space in spaces
        }
        seq = 0 if generation is None else generation.applied_seq
        return cls(seq=seq, current=current, generation=generation, spaces=views)

    def advance(self, seq: int, added: Mapping[str, tuple[Rowids, NDArray[np.float32]]], removed: Rowids) -> Snapshot:
        """The snapshot at a later `seq`. added: for each space, rowids and their (n, dim) float32 vectors."""
        return replace(
            self, seq=seq, spaces={name: self._advanced(name, *block, removed) for name, block in added.items()}
        )

    def _advanced(self, name: str, rowids: Rowids, vectors: NDArray[np.float32], removed: Rowids) -> SpaceView:
        view = self.spaces[name]
        keep = ~np.isin(view.delta_rowids, removed)
        alive = view.alive
        if self.generation is not None and len(removed):
            dead = np.isin(self.generation.spaces[name].rowids, removed)
            if dead.any():
                alive = ~dead if alive is None else alive & ~dead
        return SpaceView(
            alive=alive,
            delta_rowids=np.concatenate([view.delta_rowids[keep], rowids]),
            delta_vectors=np.concatenate([view.delta_vectors[keep], vectors]),
        )

    def nearest(self, space: str, vector: Vector, k: int, allowed: Rowids | None) -> tuple[Rowids, NDArray[np.float64]]:
        """The k nearest images: rowids and cosines, best first. allowed: the rowids that may be found; None: all."""
        view = self.spaces[space]
        chosen = slice(None) if allowed is None else np.isin(view.delta_rowids, allowed)
        rowids = [view.delta_rowids[chosen]]
        scores = [_cosines(view.delta_vectors[chosen], vector)]
        if self.generation is not None:
            base = self.generation.spaces[space]
            alive = view.alive
            if allowed is not None:
                matching = np.isin(base.rowids, allowed)
                alive = matching if alive is None else alive & matching
            positions = base.index.search(vector, k, alive)
            rowids.append(base.rowids[positions])
            scores.append(_cosines(base.index.vectors[positions], vector))
        all_rowids, all_scores = np.concatenate(rowids), np.concatenate(scores)
        order = np.argsort(-all_scores, kind="stable")[:k]
        return all_rowids[order], all_scores[order]

    @property
    def delta_count(self) -> int:
        """How many images were added since the generation."""
        return max((len(view.delta_rowids) for view in self.spaces.values()), default=0)


def _cosines(vectors: NDArray[np.float32], vector: Vector) -> NDArray[np.float64]:
    """Of unit vectors, row by row in float64: equal vectors get equal scores wherever they stand."""
    products = np.multiply(vectors, vector, dtype=np.float64).sum(axis=1)
    cosines: NDArray[np.float64] = np.clip(products, -1.0, 1.0)
    return cosines
