"""An index: a folder with a catalog and generations, opened, asked, changed and published."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from search import generation as generations
from search.catalog import Catalog
from search.errors import IndexLocked, IndexMissing, UnknownImage, UnknownSpace
from search.generation import Generation
from search.query import query_vector
from search.transaction import Transaction
from search.types import Hit, ImageRecord, IndexInfo, JsonObject, Query, Space, Vector

SLACK = 16
"""Candidates beyond k: room for equal scores, whose order is by id, and for parts that are no hits."""


@dataclass(frozen=True, kw_only=True)
class _SpaceView:
    """One space as a search sees it. Arrays are never changed once they are reachable from a snapshot."""

    generation_alive: NDArray[np.bool_] | None  # None: every position of the generation
    delta_rowids: NDArray[np.int64]  # ascending
    delta_vectors: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """One state of the index: generation + delta - deleted, up to `seq`."""

    seq: int
    current: str | None
    generation: Generation | None
    spaces: Mapping[str, _SpaceView]


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an index's one writer, which other processes respect. Raises IndexLocked at once if it is taken.

    Makes the index's folder if there is none yet.
    """
    with generations.storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:  # an OSError too: told apart here
            raise IndexLocked(
                f"Another process is writing to {path}. Wait until it is done, or stop it, and try again."
            ) from error
    try:
        yield
    finally:
        lock.release()


class Index:
    """An open index. Any number of threads may search; changes are serialised.

    Every search first looks whether somebody, in this process or another, has committed a change, and answers from
    the newest state: what was acknowledged is found.
    """

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self.path = path
        self.catalog = catalog
        self.spaces = catalog.spaces()
        self._by_name = {space.name: space for space in self.spaces}
        self._refreshing = threading.Lock()
        self._writing = threading.Lock()
        self._version: int | None = None
        self._snapshot = self._load_generation(None)  # nothing yet: a build never searches, and need not load it

    @classmethod
    def create(cls, path: Path, spaces: Sequence[Space]) -> Index:
        """Make a new, empty index in a folder that is new or empty. Raises IndexExists, StorageFailed."""
        with generations.storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path, Catalog.create(path / "catalog.sqlite", spaces))

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Index:
        """Open an index. Raises IndexMissing, IndexDamaged, IndexTooNew, StorageFailed."""
        catalog = path / "catalog.sqlite"
        if not catalog.is_file():
            raise IndexMissing(f"There is no index at {path}. Make one with: lookalike build PHOTOS --index {path}")
        return cls(path, Catalog.open(catalog, writable=writable))

    def close(self) -> None:
        """Close the catalog. The index cannot be used afterwards."""
        self.catalog.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> AbstractContextManager[None]:
        """`write_lock` of this index."""
        return write_lock(self.path)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction on the catalog, visible to every later search of this process once the block has ended.

        The caller holds `lock`, for this transaction or for a whole run.
        """
        with self._writing, self.catalog.writing() as transaction:
            yield transaction
        self.refresh()

    def space(self, name: str | None = None) -> Space:
        """A space by name, or the default. Raises UnknownSpace."""
        if name is None:
            return self.spaces[0]
        if name not in self._by_name:
            raise UnknownSpace(f"The index has no such space. It has: {', '.join(self._by_name)}.")
        return self._by_name[name]

    def publish(self) -> str:
        """Write everything as a new generation and make it current. Returns its name. The caller holds `lock`."""
        return generations.publish(self.path / "generations", self.catalog, self.spaces)

    @property
    def stale(self) -> bool:
        """Whether the catalog has changes that no intact generation has. Reads the generation, for its hashes."""
        changes = self.catalog.changes(since=generations.NEWEST)
        generation = generations.load_best(self.path / "generations", changes.generation, self.spaces)
        return generation is None or generation.applied_seq != changes.seq

    @property
    def delta_count(self) -> int:
        """How many images were added since the current generation."""
        return len(self._snapshot.spaces[self.spaces[0].name].delta_rowids)

    def refresh(self) -> None:
        """Catch up with the catalog: a microsecond where nothing has changed."""
        with self._refreshing:
            version = self.catalog.version()
            if version == self._version:
                return
            snapshot = self._snapshot
            changes = self.catalog.changes(since=snapshot.seq)
            if changes.generation != snapshot.current:
                snapshot = self._load_generation(changes.generation)
                changes = self.catalog.changes(since=snapshot.seq)
            if changes.seq != snapshot.seq:
                views = {
                    space.name: self._advance(snapshot, space, changes.added, changes.removed) for space in self.spaces
                }
                snapshot = replace(snapshot, seq=changes.seq, spaces=views)
            self._snapshot = snapshot
            self._version = version

    def _load_generation(self, current: str | None) -> _Snapshot:
        generation = generations.load_best(self.path / "generations", current, self.spaces)
        views = {
            space.name: _SpaceView(
                generation_alive=None,
                delta_rowids=np.empty(0, dtype=np.int64),
                delta_vectors=np.empty((0, space.recipe.dim), dtype=np.float32),
            )
            for space in self.spaces
        }
        seq = 0 if generation is None else generation.applied_seq
        return _Snapshot(seq=seq, current=current, generation=generation, spaces=views)

    def _advance(
        self, snapshot: _Snapshot, space: Space, added: NDArray[np.int64], removed: NDArray[np.int64]
    ) -> _SpaceView:
        view = snapshot.spaces[space.name]
        rowids, vectors = self.catalog.vectors(space, added)
        keep = ~np.isin(view.delta_rowids, removed)
        alive = view.generation_alive
        if snapshot.generation is not None and len(removed):
            dead = np.isin(snapshot.generation.spaces[space.name].rowids, removed)
            if dead.any():
                alive = ~dead if alive is None else alive & ~dead
        return _SpaceView(
            generation_alive=alive,
            delta_rowids=np.concatenate([view.delta_rowids[keep], rowids]),
            delta_vectors=np.concatenate([view.delta_vectors[keep], vectors]),
        )

    def vector(self, image_id: str, space: Space) -> Vector:
        """The stored embedding of an image ((dim,) float32). Raises UnknownImage."""
        rowids, vectors = self.catalog.vectors(space, np.array([self.catalog.rowid(image_id)]))
        if not len(rowids):
            raise UnknownImage("The index has no image with this id.")
        vector: Vector = vectors[0]
        return vector

    def search(self, query: Query) -> list[Hit]:
        """The images nearest to a query, best first, ties by id: always k of them where k match.

        Raises QueryInvalid, FilterInvalid, UnknownImage, UnknownSpace.
        """
        space = self.space(query.space)
        vector = query_vector(query, space.recipe.dim, lambda image_id: self.vector(image_id, space))
        while True:
            self.refresh()
            snapshot = self._snapshot
            hits = self._search(snapshot, query, space, vector)
            # An image that was removed after the snapshot is no hit any more, and may have kept another from being one.
            if len(hits) == query.k or self.catalog.version() == self._version:
                return hits

    def _search(self, snapshot: _Snapshot, query: Query, space: Space, vector: Vector) -> list[Hit]:
        excluded = {part.id for part in query.parts if part.id is not None}
        allowed = None if query.filter is None else self.catalog.matching(query.filter)
        wanted = query.k + query.offset + len(excluded)
        window = wanted + SLACK
        while True:
            rowids, scores = _nearest(snapshot, space.name, vector, window, allowed)
            # Equal scores are ordered by id: go on while images that did not fit may tie with the last wanted one.
            if len(rowids) < window or scores[-1] < scores[wanted - 1]:
                break
            window *= 4
        if query.min_score is not None:
            rowids, scores = rowids[scores >= query.min_score], scores[scores >= query.min_score]
        hits = self._hits(rowids, scores, excluded, query.k + query.offset)
        return hits[query.offset :]

    def _hits(
        self, rowids: NDArray[np.int64], scores: NDArray[np.float64], excluded: set[str], limit: int
    ) -> list[Hit]:
        records = self.catalog.records(rowids.tolist())
        found = [
            (-score, records[rowid].id, rowid)
            for rowid, score in zip(rowids.tolist(), scores.tolist(), strict=True)
            if rowid in records and records[rowid].id not in excluded
        ]
        return [_hit(records[rowid], -negated) for negated, _, rowid in sorted(found)[:limit]]

    def image(self, image_id: str) -> ImageRecord:
        """Everything known of an image. Raises UnknownImage."""
        rowid = self.catalog.rowid(image_id)
        records = self.catalog.records([rowid])
        if rowid not in records:
            raise UnknownImage("The index has no image with this id.")
        return records[rowid]

    def remove(self, image_ids: Iterable[str]) -> int:
        """Remove images and keep their content away from later builds. Returns how many there were.

        Uploaded files of theirs are deleted too. The caller holds `lock`.
        """
        ids = list(image_ids)
        with self.writing() as transaction:
            uploads = [
                Path(location.absolute)
                for image_id in ids
                for location in transaction.locations_of(image_id)
                if location.root == str(self.uploads)
            ]
            removed = transaction.remove(ids)
            transaction.forget(str(self.uploads), [path.relative_to(self.uploads).as_posix() for path in uploads])
        cached = [path for image_id in ids for path in self.thumbnails.glob(f"{image_id[:2]}/{image_id}-*.jpg")]
        for path in (*uploads, *cached):  # after the commit: a file without a row is litter, the reverse is a loss
            path.unlink(missing_ok=True)
        return removed

    @property
    def uploads(self) -> Path:
        """The root of images added over HTTP."""
        return self.path.resolve() / "uploads"

    @property
    def thumbnails(self) -> Path:
        """The cache of small pictures: disposable."""
        return self.path / "thumbnails"

    def describe(
        self, image_id: str, *, labels: Sequence[str] | None = None, metadata: JsonObject | None = None
    ) -> ImageRecord:
        """Replace an image's labels, metadata, or both. The caller holds `lock`. Raises UnknownImage."""
        self.catalog.rowid(image_id)
        with self.writing() as transaction:
            transaction.describe(image_id, labels=labels, metadata=metadata)
        return self.image(image_id)

    def info(self) -> IndexInfo:
        """The index at a glance."""
        self.refresh()
        images, locations, failures = self.catalog.counts()
        snapshot = self._snapshot
        return IndexInfo(
            path=str(self.path),
            images=images,
            locations=locations,
            failures=failures,
            generation=None if snapshot.generation is None else snapshot.generation.name,
            seq=snapshot.seq,
            delta=self.delta_count,
            bytes_on_disk=sum(file.stat().st_size for file in _files(self.path)),
            spaces=self.catalog.space_infos(),
        )


def _nearest(
    snapshot: _Snapshot, space: str, vector: Vector, k: int, allowed: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k nearest among generation and delta: rowids and scores, best first."""
    view = snapshot.spaces[space]
    delta = np.ones(len(view.delta_rowids), dtype=bool) if allowed is None else np.isin(view.delta_rowids, allowed)
    rowids = [view.delta_rowids[delta]]
    scores = [_scores(view.delta_vectors[delta], vector)]
    if snapshot.generation is not None:
        base = snapshot.generation.spaces[space]
        alive = view.generation_alive
        if allowed is not None:
            chosen = np.isin(base.rowids, allowed)
            alive = chosen if alive is None else alive & chosen
        positions = base.index.search(vector, k, alive)
        rowids.append(base.rowids[positions])
        scores.append(_scores(base.index.vectors[positions], vector))
    all_rowids, all_scores = np.concatenate(rowids), np.concatenate(scores)
    order = np.argsort(-all_scores, kind="stable")[:k]
    return all_rowids[order], all_scores[order]


def _scores(vectors: NDArray[np.float32], vector: Vector) -> NDArray[np.float64]:
    """Cosines of unit vectors, row by row in float64: equal vectors get equal scores wherever they stand."""
    products = np.multiply(vectors, vector, dtype=np.float64).sum(axis=1)
    cosines: NDArray[np.float64] = np.clip(products, -1.0, 1.0)
    return cosines


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


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path
