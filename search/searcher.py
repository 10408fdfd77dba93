"""Searching: from a query to hits, by an index's newest snapshot and its catalog."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from search.ann import NEIGHBOURS
from search.catalog import Catalog
from search.errors import QueryInvalid, UnknownImage
from search.follow import Follower
from search.query import query_vector
from search.snapshot import EXACTLY, Selection, Snapshot
from search.types import Hit, ImageRecord, JsonObject, Query, Space, Vector

SLACK = 16
"""Candidates beyond k: room for equal scores, whose order is by id, and for parts that are no hits."""
FILTERED = 4_000_000
"""Rowids that the filters asked last let through, 32 MB: kept for the next page, and for the same filter again."""
FILTERS = 256
ROUNDING = 1e-6
"""How far a cosine may be from what it is: a picture's own is not always 1 to the last bit."""


class Searcher:
    """Answers queries. Any number of threads may ask it."""

    def __init__(self, catalog: Catalog, follower: Follower) -> None:
        self._catalog = catalog
        self._follower = follower
        self._filtered: OrderedDict[tuple[int, bytes], Selection] = OrderedDict()
        self._filtering = threading.Lock()

    def vector(self, image_id: str, space: Space) -> Vector:
        """The stored embedding of an image ((dim,) float32). Raises UnknownImage."""
        rowids, vectors = self._catalog.vectors(space, np.array([self._catalog.rowid(image_id)]))
        if not len(rowids):
            raise UnknownImage("The index has no image with this id.")
        vector: Vector = vectors[0]
        return vector

    def search(self, query: Query, space: Space) -> list[Hit]:
        """As `Index.search`, in the space that the query names."""
        vector = query_vector(query, space.recipe.dim, lambda image_id: self.vector(image_id, space))
        while True:
            snapshot, version = self._follower.newest()
            hits, all_known = self._search(snapshot, version, query, space, vector)
            # An image that was removed after the snapshot is no hit any more, and may have kept another from being one.
            if all_known or self._catalog.version() == version:
                return hits

    def observed(self, query: Query, space: Space) -> tuple[int, int] | None:
        """As `Index.observed`."""
        vector = query_vector(query, space.recipe.dim, lambda image_id: self.vector(image_id, space))
        snapshot, _ = self._follower.newest()
        if snapshot.generation is None or snapshot.generation.spaces[space.name].graph is None:
            return None
        asked = [self._catalog.rowid(part.id) for part in query.parts if part.id is not None]

        def cosines(k: int, ef: int | None) -> NDArray[np.float32]:
            (rowids,), (best,) = snapshot.nearest(space.name, vector[None, :], k + len(asked), ef=ef)
            found: NDArray[np.float32] = best[np.isfinite(best) & ~np.isin(rowids, asked)]
            return found

        found = cosines(NEIGHBOURS + SLACK, None)  # as `search` does
        true = cosines(NEIGHBOURS, EXACTLY)[:NEIGHBOURS]
        return int((found[: len(true)] >= true[-1:]).sum()), len(true)

    def nearest(
        self, vectors: NDArray[np.float32], k: int, space: Space, matching: JsonObject | None, ef: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Index.nearest`."""
        if vectors.ndim != 2 or vectors.shape[1] != space.recipe.dim:
            raise QueryInvalid(f"The vectors must have the shape (n, {space.recipe.dim}), not {vectors.shape}.")
        if k < 1 or (ef is not None and ef < 1):
            raise QueryInvalid("k and ef must be at least 1.")
        snapshot, version = self._follower.newest()
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        return snapshot.nearest(space.name, queries, k, self._matching(matching, version), ef)

    def _matching(self, expression: JsonObject | None, version: int) -> Selection | None:
        """What a filter lets through; None without a filter."""
        if expression is None:
            return None
        key = (version, hashlib.sha256(repr(expression).encode()).digest())  # a filter may be megabytes long
        with self._filtering:
            if key in self._filtered:
                self._filtered.move_to_end(key)
                return self._filtered[key]
        selection = Selection(self._catalog.matching(expression))
        with self._filtering:
            for outdated in [kept for kept in self._filtered if kept[0] != version]:
                del self._filtered[outdated]
            self._filtered[key] = selection
            while len(self._filtered) > FILTERS or sum(len(kept.rowids) for kept in self._filtered.values()) > FILTERED:
                self._filtered.popitem(last=False)
        return selection

    def _search(
        self, snapshot: Snapshot, version: int, query: Query, space: Space, vector: Vector
    ) -> tuple[list[Hit], bool]:
        """The hits, and whether the catalog still knew all candidates."""
        excluded = {part.id for part in query.parts if part.id is not None}
        allowed = self._matching(query.filter, version)
        wanted = query.k + query.offset + len(excluded)
        window = wanted + SLACK
        while True:
            ((rowids,), (scores,)) = snapshot.nearest(space.name, vector[None, :], window, allowed)
            rowids, scores = rowids[rowids >= 0], scores[rowids >= 0]
            # Equal scores are ordered by id: go on while images that did not fit may tie with the last wanted one.
            if len(rowids) < window or scores[-1] < scores[wanted - 1]:
                break
            window *= 4
        enough = np.ones(len(rowids), dtype=np.bool_)
        if len(rowids) > wanted:
            enough &= scores >= scores[wanted - 1]
        if query.min_score is not None:
            enough &= scores >= query.min_score - ROUNDING
        return self._hits(rowids[enough], scores[enough], excluded, query)

    def _hits(
        self, rowids: NDArray[np.int64], scores: NDArray[np.float32], excluded: set[str], query: Query
    ) -> tuple[list[Hit], bool]:
        score_of = dict(zip(rowids.tolist(), scores.tolist(), strict=True))
        records: dict[int, ImageRecord] | None = None
        if len(rowids) > query.k + len(excluded):  # of pages before this one, and of equal scores, only the ids count
            ids = self._catalog.ids(score_of)
        else:
            records = self._catalog.records(score_of)
            ids = {rowid: record.id for rowid, record in records.items()}
        ranked = sorted((-score_of[rowid], name, rowid) for rowid, name in ids.items() if name not in excluded)
        chosen = [rowid for _, _, rowid in ranked[query.offset : query.offset + query.k]]
        if records is None:
            records = self._catalog.records(chosen)
        hits = [_hit(records[rowid], score_of[rowid]) for rowid in chosen if rowid in records]
        return hits, len(ids) == len(rowids) and len(hits) == len(chosen)


def _hit(record: ImageRecord, score: float) -> Hit:
    return Hit(
        id=record.id,
        score=score,
        paths=record.paths,
        labels=record.labels,
        metadata=record.metadata,
        width=record.facts.width,
        height=record.facts.height,
    )
