"""An index: a folder with a catalog and generations, opened, asked, changed and published."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from search.catalog import NEWEST, UPLOADS, Catalog, Changes
from search.errors import (
    IndexLocked,
    IndexMissing,
    QueryInvalid,
    SearchError,
    StorageFailed,
    UnknownImage,
    UnknownRoot,
    UnknownSpace,
)
from search.files import make_folder, storage_errors
from search.generation import Generation, load_best
from search.publish import MAX_DEAD, NEIGHBOURS, discard_old, publish
from search.query import query_vector
from search.snapshot import Selection, Snapshot
from search.transaction import CHUNK, Transaction
from search.types import Hit, ImageRecord, IndexInfo, JsonObject, Query, Space, Vector

SLACK = 16
"""Candidates beyond k: room for equal scores, whose order is by id, and for parts that are no hits."""


@contextmanager
def write_lock(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold the lock of an index's one writer, which other processes respect. Raises IndexLocked if it is taken.

    Threads of this process wait for one another; one that holds the lock may take it again. timeout: seconds to wait
    for another process. Makes the index's folder if there is none yet.
    """
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise StorageFailed(f"{path} is a file. Name a folder for the index.")
        make_folder(path)
        key = path.resolve()
        turn = _turns.setdefault(key, threading.RLock())
        if not turn.acquire(timeout=PATIENCE):
            raise IndexLocked(f"Another thread has been writing to {path} for {PATIENCE} seconds. Try again later.")
    try:
        if key in _held:
            yield
            return
        lock = FileLock(path / "lock", timeout=timeout)
        with storage_errors(path):
            try:
                lock.acquire()
            except Timeout as error:  # an OSError too: told apart here
                raise IndexLocked(
                    f"Another process is writing to {path}. Wait until it is done, or stop it, and try again."
                ) from error
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            lock.release()
    finally:
        turn.release()


_turns: dict[Path, threading.RLock] = {}
"""For each index, which thread of this process writes to it."""
_held: set[Path] = set()
"""Indexes whose lock this process holds."""


PAUSE = 0.2
"""Seconds that closing an index waits for readers of its log."""
PATIENCE = 30
"""Seconds that threads wait for one another to write, and a publication for other processes."""
MIN_DELTA, MAX_DELTA = 5_000, 0.05
"""Images that may be newer than the generation, at least, and as a share of it: 5,000 are searched in a millisecond."""
FILTERED = 4_000_000
"""Rowids that the filters asked last let through, 32 MB: kept for the next page, and for the same filter again."""
FILTERS = 256


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
        self._loading: threading.Thread | None = None
        self._filtered: OrderedDict[tuple[int, str], Selection] = OrderedDict()
        self._filtering = threading.Lock()
        self._snapshot = Snapshot.start(None, None, self.spaces)  # a build never searches, and need not load anything

    @classmethod
    def create(cls, path: Path, spaces: Sequence[Space]) -> Index:
        """Make a new, empty index in a folder that is new or empty. Raises IndexExists, StorageFailed."""
        with storage_errors(path):
            make_folder(path)
        return cls(path, Catalog.create(path / "catalog.sqlite", spaces))

    @classmethod
    def open(cls, path: Path, *, writable: bool = False, unchecked: bool = False) -> Index:
        """Open an index; one of an older Lookalike is brought up to date first, for which nobody else may be writing.

        unchecked: also where pages of its catalog are damaged, to see what can be seen. Raises IndexMissing,
        IndexDamaged, IndexTooNew, IndexLocked, StorageFailed.
        """
        catalog = path / "catalog.sqlite"
        if not catalog.is_file():
            raise IndexMissing(f"There is no index at {path}. Make one with: lookalike build PHOTOS --index {path}")
        opened = Catalog.open(catalog, writable=writable, unchecked=unchecked)
        if opened.outdated:
            from search.migrate import migrate  # imports alembic

            opened.close()
            with write_lock(path):
                migrate(catalog)
            opened = Catalog.open(catalog, writable=writable)
        try:
            index = cls(path, opened)
            if writable:
                index._settle_in()
        except BaseException:
            opened.close()
            raise
        return index

    def _settle_in(self) -> None:
        """Where the index's folder was moved, what was added over HTTP has moved with it."""
        before, here = self.catalog.uploads(), str(self.uploads)
        if before != here:
            # A build that writes now will have done it, or whoever opens the index next.
            with suppress(IndexLocked, StorageFailed), self.lock(), self.writing() as transaction:
                if before is not None:
                    transaction.adopt_root(before, here, "")
                transaction.set_uploads(here)

    def close(self) -> None:
        """Close the catalog. The index cannot be used afterwards."""
        loading = self._loading
        if loading is not None:
            loading.join()
        if self.catalog.written:
            with suppress(SearchError), self.lock():
                self.catalog.settle(wait=PAUSE)
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
            yield transaction  # searches catch up by themselves; a build never searches, and holds no vectors

    def space(self, name: str | None = None) -> Space:
        """A space by name, or the default. Raises UnknownSpace."""
        if name is None:
            return self.spaces[0]
        if name not in self._by_name:
            raise UnknownSpace(f"The index has no such space. It has: {', '.join(self._by_name)}.")
        return self._by_name[name]

    def publish(self, *, anew: bool = False) -> str:
        """Make everything the current generation, where it is not yet. Returns its name.

        `lock` is taken for a moment at the end: where the caller does not hold it, others can write meanwhile.
        anew: written from scratch, without what was removed. Raises StorageFailed, IndexDamaged, IndexLocked.
        """
        lock = partial(write_lock, self.path, timeout=PATIENCE)
        return publish(self.generations, self.catalog, self.spaces, anew=anew, lock=lock)

    def compact(self) -> str:
        """Write generation and catalog anew, and nothing that was removed with them. The caller holds `lock`.

        No generation before this one is kept. Returns its name. Raises as `publish`, and IndexLocked while somebody
        reads the catalog.
        """
        name = self.publish(anew=True)
        discard_old(self.generations, current=name, kept=1)
        self.catalog.vacuum()
        return name

    @property
    def unpublished(self) -> bool:
        """Whether so much has changed since the current generation that searches would be faster with a new one."""
        snapshot = self._snapshot
        held = dead = 0
        if snapshot.generation is not None:
            held = max(len(space.rowids) for space in snapshot.generation.spaces.values())
            dead = max(view.dead for view in snapshot.spaces.values())
        return snapshot.delta_count > max(MIN_DELTA, MAX_DELTA * held) or dead > max(MIN_DELTA, MAX_DEAD * held)

    @property
    def delta_count(self) -> int:
        """How many images were added since the current generation."""
        return self._snapshot.delta_count

    def refresh(self) -> None:
        """Catch up with the catalog, and with what was published: a microsecond where nothing has changed."""
        self._refreshed(wait=True)

    def _refreshed(self, *, wait: bool = False) -> tuple[Snapshot, int]:
        """The newest snapshot, and the version of the catalog that it was made at.

        A new generation is loaded beside the searches, which go on with the one they have, and what is newer than it.
        wait: until it is loaded.
        """
        loading = self._loading
        if wait and loading is not None:
            loading.join()
        with self._refreshing:
            version = self.catalog.version()
            if version == self._version:
                return self._snapshot, version
            snapshot = self._snapshot
            changes = self.catalog.changes(since=snapshot.seq)
            if changes.generation != snapshot.current:
                if wait or snapshot.generation is None:
                    self._snapshot = self._loaded(changes)
                elif self._loading is None:
                    self._loading = threading.Thread(target=self._load, args=(changes,), daemon=True)
                    self._loading.start()
            self._snapshot = self._caught_up(self._snapshot, self.catalog.changes(since=self._snapshot.seq))
            self._version = version
            return self._snapshot, version

    def _load(self, changes: Changes) -> None:
        """Load a generation, then put it in the place of the one before. In a thread of its own."""
        try:
            snapshot = self._loaded(changes)
            with self._refreshing:
                self._snapshot = self._caught_up(snapshot, self.catalog.changes(since=snapshot.seq))
        except SearchError:  # the next search finds it again, and tells
            self._version = None
        finally:
            self._loading = None

    def _loaded(self, changes: Changes) -> Snapshot:
        """The best generation, without what was removed since it was written."""
        generation = load_best(self.generations, changes, self.spaces)
        now = self.catalog.changes(since=NEWEST)
        if now.generation != changes.generation and (generation is None or generation.name != changes.generation):
            return self._loaded(now)  # it was not damaged, but outdated, and deleted while it was read
        snapshot = Snapshot.start(generation, changes.generation, self.spaces)
        clean_seq = 0 if generation is None else generation.clean_seq
        removed = self.catalog.changes(since=NEWEST, removed_since=clean_seq).removed
        return snapshot.advance(snapshot.seq, {}, removed)

    def _caught_up(self, snapshot: Snapshot, changes: Changes) -> Snapshot:
        if changes.seq == snapshot.seq:
            return snapshot
        added = {space.name: self.catalog.vectors(space, changes.added) for space in self.spaces}
        return snapshot.advance(changes.seq, added, changes.removed)

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
            snapshot, version = self._refreshed()
            hits = self._search(snapshot, version, query, space, vector)
            # An image that was removed after the snapshot is no hit any more, and may have kept another from being one.
            if len(hits) == query.k or self.catalog.version() == version:
                return hits

    def observed(self, query: Query) -> tuple[int, int] | None:
        """How many of a query's ten nearest images a search finds, and how many there are; its filter aside.

        None where it compares all of them anyway. Raises as `search`.
        """
        space = self.space(query.space)
        vector = query_vector(query, space.recipe.dim, lambda image_id: self.vector(image_id, space))
        snapshot, _ = self._refreshed()
        if snapshot.generation is None or snapshot.generation.spaces[space.name].graph is None:
            return None
        _, (found,) = snapshot.nearest(space.name, vector[None, :], NEIGHBOURS + SLACK)  # as `search` does
        _, (true,) = snapshot.nearest(space.name, vector[None, :], NEIGHBOURS, ef=NEWEST)
        true = true[np.isfinite(true)]
        return int((found[: len(true)] >= true[-1:]).sum()), len(true)

    def nearest(
        self,
        vectors: NDArray[np.float32],
        k: int = 10,
        *,
        space: str | None = None,
        matching: JsonObject | None = None,
        ef: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k images nearest to each of many vectors, best first, without looking up what is known of them.

        vectors: (q, dim) float32 of unit length. matching: a filter (`search.filters`). ef: how many candidates a graph
        keeps, instead of as many as its recall was measured with. Returns the images' rowids and cosines, both (q, m)
        with m <= k; -1 and -inf where a query has fewer than others. Raises QueryInvalid, FilterInvalid, UnknownSpace.
        """
        named = self.space(space)
        if vectors.ndim != 2 or vectors.shape[1] != named.recipe.dim:
            raise QueryInvalid(f"The vectors must have the shape (n, {named.recipe.dim}), not {vectors.shape}.")
        snapshot, version = self._refreshed()
        return snapshot.nearest(named.name, vectors, k, self._matching(matching, version), ef)

    def _matching(self, expression: JsonObject | None, version: int) -> Selection | None:
        """What a filter lets through; None without a filter."""
        if expression is None:
            return None
        key = (version, repr(expression))
        with self._filtering:
            if key in self._filtered:
                self._filtered.move_to_end(key)
                return self._filtered[key]
        selection = Selection(self.catalog.matching(expression))
        with self._filtering:
            self._filtered[key] = selection
            while len(self._filtered) > FILTERS or sum(len(kept.rowids) for kept in self._filtered.values()) > FILTERED:
                self._filtered.popitem(last=False)
        return selection

    def _search(self, snapshot: Snapshot, version: int, query: Query, space: Space, vector: Vector) -> list[Hit]:
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
        if len(rowids) > wanted:
            rowids, scores = rowids[scores >= scores[wanted - 1]], scores[scores >= scores[wanted - 1]]
        if query.min_score is not None:
            rowids, scores = rowids[scores >= query.min_score], scores[scores >= query.min_score]
        hits = self._hits(rowids, scores, excluded, query.k + query.offset)
        return hits[query.offset :]

    def _hits(
        self, rowids: NDArray[np.int64], scores: NDArray[np.float32], excluded: set[str], limit: int
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

    def remove(self, image_ids: Iterable[str], *, erase: bool = False) -> int:
        """Remove images and keep their content away from later builds. Returns how many there were.

        Uploaded files of theirs are deleted too. erase: their paths are forgotten, and after `compact` no trace is left
        but the content's hash. The caller holds `lock`.
        """
        ids = list(image_ids)
        with self.writing() as transaction:
            uploads = transaction.paths_of(ids, str(self.uploads))
            removed = transaction.remove(ids, erase=erase)
            for start in range(0, len(uploads), CHUNK):
                transaction.forget(str(self.uploads), uploads[start : start + CHUNK])
        # after the commit: a file without a row is litter, the reverse is a loss
        for path in (self.uploads / name for name in uploads):
            path.unlink(missing_ok=True)
        gone = set(ids)
        for folder in {image_id[:2] for image_id in gone}:
            for path in (self.thumbnails / folder).glob("*.jpg"):
                if path.name.partition("-")[0] in gone:
                    path.unlink(missing_ok=True)
        return removed

    def move_root(self, old: Path, new: Path) -> list[str]:
        """Note that a root, or all roots in a folder, lie elsewhere now. Returns what they are called now.

        The caller holds `lock`. Raises UnknownRoot where there is none at `old`.
        """
        roots = [Path(root) for root in self.catalog.roots() if root != str(self.uploads)]
        place = Path(os.path.abspath(old))  # noqa: PTH100 - a drive that is not mounted cannot be resolved
        moving = [root for root in roots if root.is_relative_to(place)]
        if not moving:
            raise UnknownRoot(f"The index has no pictures of {place}. Its folders are: {', '.join(map(str, roots))}.")
        moved = []
        with self.writing() as transaction:
            for root in moving:
                target = new.resolve() / root.relative_to(place)
                around = [other for other in roots if other not in moving and target.is_relative_to(other)]
                into = around[0] if around else target  # a folder inside a root belongs to that root
                prefix = "" if target == into else f"{target.relative_to(into).as_posix()}/"
                transaction.adopt_root(str(root), str(into), prefix)
                moved.append(str(target))
        return moved

    @property
    def uploads(self) -> Path:
        """The root of images added over HTTP."""
        return self.path.resolve() / UPLOADS

    @property
    def generations(self) -> Path:
        """What was published: disposable."""
        return self.path / "generations"

    @property
    def models(self) -> Path:
        """Encoders that cannot be had elsewhere."""
        return self.path / "models"

    def rename_model(self, name: str) -> None:
        """Note that the model is found under another name now. The caller holds `lock`, and reopens the index."""
        with self.writing() as transaction:
            transaction.rename_model(name)
        self.spaces = self.catalog.spaces()
        self._by_name = {space.name: space for space in self.spaces}

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

    def bytes_on_disk(self) -> int:
        """The size of all files of the index; it looks at each of them."""
        return sum(_size(Path(parent, name)) for parent, _, names in os.walk(self.path) for name in names)

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
            spaces=tuple(
                replace(info, structure=_structure(snapshot.generation, info.space.name))
                for info in self.catalog.space_infos()
            ),
        )


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


def _structure(generation: Generation | None, space: str) -> JsonObject:
    if generation is None:
        return {}
    facts = generation.spaces[space].facts
    return {name: facts[name] for name in ("structure", "search", "bytes_per_vector", "build_seconds")}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # drafts, thumbnails and the log come and go while somebody looks
        return 0
