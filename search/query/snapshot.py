"""A snapshot: one state of an index as a search sees it. Generation + delta - deleted, never changed once made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import UnknownSpace
from search.generations.ann import Positions, Vectors, exact, graph_candidates, scores
from search.generations.background import IMAGES, spread
from search.generations.false_matches import must_measure
from search.generations.fitting import must_check
from search.generations.generation import Generation, SpaceSnapshot
from search.generations.policy import DEFAULT_POLICY, Policy
from search.generations.transform import Identity, Transform
from search.query.allowed import Allowed, Selection
from search.query.regions import best_of_images
from search.types import Space
from search.vectors import vector_ids

Rowids = NDArray[np.int64]

EXACTLY = 2**62
"""As `ef`: so many candidates that every vector is compared."""


@dataclass(frozen=True, kw_only=True)
class SpaceView:
    """One space of a snapshot. `base` is what the generation has of it; None where that was written before the space.

    `alive` is what was not removed of `base` since.
    The delta's arrays are the beginning of larger ones, which later snapshots go on in. Its vectors went through the
    same transform as those of `base`.
    """

    space: Space
    base: SpaceSnapshot | None
    alive: Allowed
    delta_rowids: Rowids
    delta_vectors: Vectors

    @property
    def transform(self) -> Transform:
        """The transform of stored vectors, and of queries, before they are compared."""
        return Identity(self.space.recipe.dim) if self.base is None else self.base.transform

    @property
    def count(self) -> int:
        """How many images have a vector here, removed ones of the generation too."""
        return (len(self.delta_rowids) + (0 if self.base is None else len(self.base.rowids))) // self.space.recipe.count

    @property
    def dead(self) -> int:
        """How many of the generation's images were removed since."""
        alive = self.alive.positions
        return 0 if alive is None else (len(alive) - int(np.count_nonzero(alive))) // self.space.recipe.count


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The index up to `seq`, every space of it. `default` is the name of one of them.

    `current` is the generation the catalog named, `generation` the one that could be read.
    """

    seq: int
    current: str | None
    generation: Generation | None
    spaces: Mapping[str, SpaceView]
    default: str
    policy: Policy

    @classmethod
    def start(
        cls,
        generation: Generation | None,
        current: str | None,
        spaces: Sequence[Space],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> Snapshot:
        """A generation, or nothing at all, with an empty delta. spaces: those that the generation has, if there is one.

        The first is the default until the next `advance`.
        """
        views = {space.name: _begun(space, None if generation is None else generation.of(space)) for space in spaces}
        seq = 0 if generation is None else generation.applied_seq
        default = next(iter(views), "")
        return cls(seq=seq, current=current, generation=generation, spaces=views, default=default, policy=policy)

    def holds(self, spaces: Sequence[Space]) -> bool:
        """Whether it has these spaces, and not others of their names."""
        return all(
            space.name in self.spaces and self.spaces[space.name].space.identity == space.identity for space in spaces
        )

    def space(self, named: str | Space | None) -> Space:
        """A space by name, or the default; a Space only where it is that one still. Raises UnknownSpace."""
        name = self.default if named is None else named if isinstance(named, str) else named.name
        if name not in self.spaces or not (isinstance(named, (str, NoneType)) or self.holds([named])):
            raise UnknownSpace(f"The index has no such space. It has: {', '.join(self.spaces)}.")
        return self.spaces[name].space

    def advance(
        self,
        seq: int,
        added: Mapping[str, tuple[Rowids, Vectors]],
        removed: Rowids,
        *,
        spaces: Sequence[Space] | None = None,
        default: str | None = None,
    ) -> Snapshot:
        """The snapshot at a later `seq`. added: by space, rowids and their (n, dim) float32 vectors, if any.

        spaces, default: those that there are then, all of them; None: the same. One that this snapshot lacks has all
        its vectors in `added`. Only of the newest snapshot: it goes on in this one's arrays, behind what this one sees.
        """
        views = {}
        for space in [view.space for view in self.spaces.values()] if spaces is None else spaces:
            view = self.spaces[space.name] if self.holds([space]) else _begun(space, None)
            none = view.delta_rowids[:0], np.empty((0, space.recipe.dim), dtype=np.float32)
            rowids, vectors = added.get(space.name, none)
            views[space.name] = _advanced(view, space, rowids, vectors, removed)
        return replace(self, seq=seq, spaces=views, default=self.default if default is None else default)

    def nearest(
        self,
        space: str,
        queries: Vectors,
        k: int,
        allowed: Selection | None = None,
        ef: int | None = None,
        *,
        max_equal: int | None = None,
    ) -> tuple[Rowids, NDArray[np.float32]]:
        """The k images nearest to each query, best first: rowids and cosines, both (q, m) with m <= k; -1 and -inf
        where there are fewer.

        queries: (q, dim) float32, unit vectors after the transform. allowed: what may be found, none of it removed
        before; None: all. ef: candidates of a graph's search; None: as many as the recall was measured with. max_equal:
        of images of the generation with equal vectors, the first so many by id; None: as many as fit.
        """
        view = self.spaces[space]
        each, images = view.space.recipe.count, k
        k *= each  # of so many vectors, no fewer than k images have one
        k = min(k, len(view.delta_rowids) + (0 if view.base is None else len(view.base.rowids)))
        chosen = None if allowed is None else np.flatnonzero(_in_sorted(view.delta_rowids // each, allowed.rowids))
        found = exact(view.delta_vectors, queries, k, chosen)
        rowids = [view.delta_rowids[found]]
        cosines = [scores(view.delta_vectors, queries, found)]
        if (base := view.base) is not None:
            within = view.alive if allowed is None else allowed.within(base, self.policy.exact_filtered_images)
            nodes = self._candidates(base, within, queries, k, ef)
            equal = k if max_equal is None else max_equal * each
            found_here = base.images(nodes, scores(base.vectors, queries, nodes), k, equal, within.positions)
            rowids.append(found_here[0])
            cosines.append(found_here[1])
        all_rowids, all_cosines = np.concatenate(rowids, axis=1), np.concatenate(cosines, axis=1)
        order = np.argsort(-all_cosines, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(all_cosines, order, axis=1)
        best = np.clip(best, -1, 1, where=np.isfinite(best), out=best)
        found = np.take_along_axis(all_rowids, order, axis=1)
        return (found, best) if each == 1 else best_of_images(found, best, each, images)

    def holds_images(self, space: str, rowids: Rowids) -> NDArray[np.bool_]:
        """Which of these images have a vector here, (n,)."""
        view = self.spaces[space]
        rowids = rowids * view.space.recipe.count
        held = np.isin(rowids, view.delta_rowids)
        return held if view.base is None else held | (view.base.places(rowids) >= 0)

    def vectors(self, space: str, rowids: Rowids) -> Vectors:
        """The vectors of images that `nearest` found here, (n, dim) float32, in their order; of several that an image
        has, that of the whole."""
        view = self.spaces[space]
        return self._stored(view, rowids * view.space.recipe.count)

    @staticmethod
    def _stored(view: SpaceView, rowids: Rowids) -> Vectors:
        """The vectors with these numbers, (n, dim) float32, in their order."""
        if view.base is not None and not len(view.delta_rowids):
            positions = view.base.positions(rowids)
            assert len(positions) == len(rowids)
            return view.base.vectors[view.base.nodes(positions)]
        result = np.empty((len(rowids), view.transform.dim), dtype=np.float32)
        positions, new = _in_delta(view, rowids)
        result[new] = view.delta_vectors[positions[new]]
        if view.base is not None:
            result[~new] = view.base.vectors[view.base.nodes(view.base.positions(rowids[~new]))]
        return result

    def all_rowids(self, space: str) -> Rowids:
        """Every image that has a vector here and was not removed, ascending, (n,)."""
        view = self.spaces[space]
        rowids = view.delta_rowids
        if view.base is not None:
            alive = view.alive.positions
            rowids = np.concatenate([view.base.rowids if alive is None else view.base.rowids[alive], rowids])
        each = view.space.recipe.count
        return np.sort(rowids if each == 1 else rowids[rowids % each == 0] // each)

    def all_vectors(self, space: str) -> tuple[Rowids, Vectors]:
        """Every image that has a vector here and was not removed: rowids, ascending, and (n, dim) float32 vectors."""
        rowids = self.all_rowids(space)
        return rowids, self.vectors(space, rowids)

    def cosines(self, space: str, queries: Vectors, rowids: Rowids) -> NDArray[np.float32]:
        """The best cosine of each of these images with any query, (n,) float32; -inf where it has no vector there.

        queries: (q, dim) float32, unit vectors after the transform.
        """
        best: NDArray[np.float32] = self.region_cosines(space, queries, rowids).max(axis=1)
        return best

    def region_cosines(self, space: str, queries: Vectors, rowids: Rowids) -> NDArray[np.float32]:
        """As `cosines`, of each vector that an image has, (n, count) float32."""
        view = self.spaces[space]
        rowids = vector_ids(rowids, view.space.recipe.count)
        best = np.full(len(rowids), -np.inf, dtype=np.float32)
        if len(view.delta_rowids):
            positions, new = _in_delta(view, rowids)
            best[new] = _best_of(view.delta_vectors, queries, positions[new])
        if view.base is not None:
            places = view.base.places(rowids)
            older = np.flatnonzero(places >= 0)
            best[older] = _best_of(view.base.vectors, queries, view.base.nodes(places[older]))
        best = np.clip(best, -1, 1, where=np.isfinite(best), out=best)
        return best.reshape(-1, view.space.recipe.count)

    def sample(self, space: str) -> Vectors:
        """Vectors of images that stand for the space, (b, count, dim) float32: its background, where it has one."""
        view = self.spaces[space]
        if view.base is not None and view.base.background is not None:
            return view.base.background.vectors[:, None]
        count = view.space.recipe.count
        stored = [view.delta_rowids] if view.base is None else [view.base.rowids, view.delta_rowids]
        images = np.unique(np.concatenate([spread(ids, min(IMAGES, len(ids))) for ids in stored]) // count)
        return self._stored(view, vector_ids(images, count)).reshape(len(images), count, -1)

    def _candidates(self, base: SpaceSnapshot, within: Allowed, queries: Vectors, k: int, ef: int | None) -> Positions:
        """Nodes of a generation among which each query's k nearest are: exactly, or with its graph's recall.

        Returns (q, m) int64, -1 where there are fewer.
        """
        nodes, alive = within.few_nodes, within.node_mask
        if base.graph is None or nodes is not None:
            return exact(base.vectors, queries, k, np.flatnonzero(alive) if alive is not None else nodes)
        ef = base.ef if ef is None else ef
        found, missing = graph_candidates(base.graph, alive, queries, k, ef, self.policy.visited_per_candidate)
        if len(missing):
            rest = exact(base.vectors, queries[missing], k, None if alive is None else np.flatnonzero(alive))
            found[missing] = -1
            found[missing, : rest.shape[1]] = rest
        return found

    @property
    def has_outgrown(self) -> bool:
        """Whether a space has grown enough for its transform or false-match rates to be looked at again, or lacks
        them."""
        for view in self.spaces.values():
            facts = None if view.base is None else view.base.facts
            if len(view.delta_rowids) > 0 and must_check(view.space, facts, view.count):
                return True
            if view.space.complete and must_measure(facts, view.count):  # a space that is filled publishes at its end
                return True
        return False

    @property
    def reads_current(self) -> bool:
        """Whether its generation is the one that the catalog named, or there was none."""
        return self.current == (None if self.generation is None else self.generation.name)

    @property
    def delta_count(self) -> int:
        """How many images were added since the generation."""
        return max((len(view.delta_rowids) // view.space.recipe.count for view in self.spaces.values()), default=0)


def _in_delta(view: SpaceView, rowids: Rowids) -> tuple[Positions, NDArray[np.bool_]]:
    """Positions in the delta of the vectors with these numbers, any where one is not there; and which of them are."""
    order = np.argsort(view.delta_rowids, kind="stable")  # they nearly are in order
    positions = order[np.minimum(np.searchsorted(view.delta_rowids, rowids, sorter=order), len(order) - 1)]
    return positions, view.delta_rowids[positions] == rowids


def _best_of(vectors: Vectors, queries: Vectors, positions: Positions) -> NDArray[np.float32]:
    """The best inner product of each vector at these positions, (n,), with any query, (q, dim)."""
    if not len(positions):
        return np.empty(0, dtype=np.float32)
    best: NDArray[np.float32] = scores(vectors, queries, np.tile(positions, (len(queries), 1))).max(axis=0)
    return best


def _begun(space: Space, base: SpaceSnapshot | None) -> SpaceView:
    return SpaceView(
        space=space,
        base=base,
        alive=Allowed(),
        delta_rowids=np.empty(0, dtype=np.int64),
        delta_vectors=np.empty((0, space.recipe.dim if base is None else base.transform.dim), dtype=np.float32),
    )


def _advanced(view: SpaceView, space: Space, rowids: Rowids, vectors: Vectors, removed: Rowids) -> SpaceView:
    base, alive = view.base, view.alive
    if base is not None and len(removed):
        dead = base.positions(vector_ids(removed, base.count))
        if len(dead):
            left = np.ones(len(base.rowids), np.bool_) if alive.positions is None else alive.positions.copy()
            left[dead] = False
            alive = Allowed(positions=left, node_mask=base.node_mask(left))
    old_rowids, old_vectors = view.delta_rowids, view.delta_vectors
    gone = np.isin(old_rowids // space.recipe.count, removed)
    if gone.any():
        old_rowids, old_vectors = old_rowids[~gone], old_vectors[~gone]
    return SpaceView(
        space=space,
        base=base,
        alive=alive,
        delta_rowids=_appended(old_rowids, rowids),
        delta_vectors=_appended(old_vectors, view.transform.apply(vectors)),
    )


def _appended(head: NDArray[Any], tail: NDArray[Any]) -> NDArray[Any]:
    """`head` and `tail` in one array, without copying `head` where the array that it is the beginning of has room.

    The room behind `head` is nobody's: only the newest snapshot is gone on from, and older ones see less.
    """
    room = head.base if head.base is not None else head
    count = len(head) + len(tail)
    if len(room) < count:
        room = np.empty((max(2 * count, 64), *head.shape[1:]), dtype=head.dtype)
        room[: len(head)] = head
    room[len(head) : count] = tail
    return room[:count]


def _in_sorted(values: Rowids, ascending: Rowids) -> NDArray[np.bool_]:
    """Which values occur in an ascending array."""
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[places] == values
    return found
