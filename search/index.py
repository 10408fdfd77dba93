"""An index: a folder with a catalog and generations, opened, asked, changed and published."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import UPLOADS, Catalog
from search.errors import IndexLocked, IndexMissing, SearchError, StorageFailed, UnknownImage, UnknownSpace
from search.files import check_path, make_folder, storage_errors
from search.filters import Filter
from search.generations.generation import Generation
from search.generations.kinds import check_kinds
from search.generations.policy import DEFAULT_POLICY, Policy
from search.generations.publish import publish
from search.lock import PATIENCE, write_lock
from search.maps import sweep_maps
from search.query.follow import Follower
from search.query.neighbours import Neighbours
from search.query.regions import of_wholes
from search.query.searcher import Searcher
from search.query.snapshot import Snapshot
from search.types import Hit, ImageRecord, IndexInfo, JsonObject, Query, Space, Vector
from search.writer import Writer

SWEPT_VECTORS = 2_000
"""Vectors of a dropped space that are deleted in one transaction: some 20 ms."""
CLOSING_WAIT_SECONDS = 0.2
"""Seconds that closing an index waits for readers of its WAL."""
KEPT_UNDER_ID = re.compile(r"(?P<id>[0-9a-f]{64})[-.].+")
"""Files of uploads and thumbnails: each begins with its image's id."""


class Index:
    """An open index. Any number of threads may search; changes are serialised.

    Every search first looks whether somebody, in this process or another, has committed a change, and answers from
    the newest state: what was acknowledged is found.
    """

    def __init__(self, path: Path, catalog: Catalog, policy: Policy) -> None:
        self.path = path
        self.catalog = catalog
        self.policy = policy
        self.one_transaction = threading.Lock()
        """Held by the transaction under way: threads that share a writer wait for one another."""
        self._follower = Follower(catalog, self.generations, policy)
        self._searcher = Searcher(catalog, self._follower)

    @classmethod
    def create(cls, path: Path, spaces: Sequence[Space], *, policy: Policy = DEFAULT_POLICY) -> Index:
        """Make a new, empty index in a folder that is new, or has none in it.

        policy: as in `open`. Raises IndexExists, StorageFailed, PolicyInvalid (there is no such transform).
        """
        check_path(path)
        check_kinds(spaces)
        with storage_errors(path):
            make_folder(path)
        return cls(path, Catalog.create(path / "catalog.sqlite", spaces), policy)

    @classmethod
    def open(
        cls, path: Path, *, writable: bool = False, unchecked: bool = False, policy: Policy = DEFAULT_POLICY
    ) -> Index:
        """Open an index; one of an older Lookalike is brought up to date first, for which nobody else may be writing.

        unchecked: also where pages of its catalog are damaged, to see what can be seen; not one of an older Lookalike.
        policy: figures it is published and searched by while it is open; they are not stored. Raises IndexMissing,
        IndexDamaged, IndexTooNew, IndexLocked, StorageFailed.
        """
        catalog = path / "catalog.sqlite"
        if not catalog.is_file():
            raise IndexMissing.at(path)
        check_path(path)
        opened = Catalog.open(catalog, writable=writable, unchecked=unchecked)
        if opened.outdated:
            from search.catalog.migrate import migrate  # imports alembic

            try:
                if unchecked:  # what is rewritten of a damaged page gets the checksum of what it is
                    opened.check()
            finally:
                opened.close()
            with write_lock(path):
                migrate(catalog)
            opened = Catalog.open(catalog, writable=writable)
        try:
            index = cls(path, opened, policy)
            if writable:
                index._move_uploads()
        except BaseException:
            opened.close()
            raise
        return index

    def _move_uploads(self) -> None:
        """Where the index's folder was moved, what was added over HTTP has moved with it."""
        before, here = self.catalog.uploads(), str(self.uploads)
        if before != here:
            # A build that writes now will have done it, or whoever opens the index next.
            with suppress(IndexLocked, StorageFailed), self.writer() as writer, writer.transaction() as transaction:
                if before is not None:
                    transaction.change_root(before, here, "")
                transaction.set_uploads(here)

    def close(self) -> None:
        """Close the catalog. The index cannot be used afterwards."""
        self._follower.wait()
        if self.catalog.written:
            with suppress(SearchError), self.writer():
                self.catalog.checkpoint(wait=CLOSING_WAIT_SECONDS)
        self.catalog.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writer(self, timeout: float = 0) -> Iterator[Writer]:
        """The index's writer, who holds its lock while the block runs.

        timeout: seconds to wait for another process that holds it. Raises IndexLocked, IndexMoved, StorageFailed.
        """
        self.catalog.must_be_here()  # else the lock would lie in a new folder of the index's old name
        with write_lock(self.path, timeout=timeout):
            yield Writer(self)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces that there are now, whoever added or dropped one, in the order in which they were added."""
        return self.catalog.spaces().there

    def space(self, named: str | Space | None = None) -> Space:
        """A space by name, or the default; a Space as it is now. Raises UnknownSpace."""
        there, default = self.catalog.spaces()
        for space in there:
            if space.identity == named.identity if isinstance(named, Space) else space.name == (named or default):
                return space
        raise UnknownSpace(f"The index has no such space. It has: {', '.join(space.name for space in there)}.")

    def sweep_dropped(self, *, timeout: float = PATIENCE, stop: threading.Event | None = None) -> None:
        """Delete what is left of dropped spaces, and their maps, a little at a time: others can write in between.

        Nobody finds it any more; `compact` gives its room back. stop: set to leave the rest to the next one. Raises
        IndexLocked, StorageFailed.
        """
        for number in self.catalog.dropped():
            after: int | None = 0
            while after is not None and not (stop is not None and stop.is_set()):
                with self.writer(timeout=timeout) as writer, writer.transaction() as transaction:
                    after = transaction.delete_dropped(number, after, SWEPT_VECTORS)
        with storage_errors(self.path):
            sweep_maps(self.path, lambda: (space.name for space in self.spaces))

    def publish(self, *, anew: bool = False, stop: threading.Event | None = None) -> str:
        """Make everything the current generation, where it is not yet. Returns its name.

        The writer is taken for a moment at the end: where the caller does not have it, others can write meanwhile.
        anew: written from scratch, without what was removed, which is not begun while another process writes. stop: set
        to give up. Raises StorageFailed, IndexDamaged, IndexLocked, PublicationStopped.
        """
        self.catalog.must_be_here()  # else a folder would be made where the index was
        if anew:  # it takes minutes, and others who publish wait for it
            with self.writer():
                pass
        lock = partial(self.writer, timeout=PATIENCE)
        return publish(self.generations, self.catalog, anew=anew, lock=lock, policy=self.policy, stop=stop)

    def compact(self) -> str:
        """Write generation and catalog from scratch, without what was removed.

        Files that belong to no image are deleted: uploads, thumbnails, drafts of killed writers. The lock is taken for
        the second half only; a caller that holds it before keeps others from publishing. Returns the generation's name.
        Raises as `publish`, and IndexLocked while another process reads the catalog.
        """
        self.sweep_dropped()
        name = self.publish(anew=True)
        with self.writer(timeout=PATIENCE) as writer:
            self._sweep()
            writer.rewrite_words()  # of what was removed, words stay in the table's segments
            self.catalog.vacuum()
        return name

    def _sweep(self) -> None:
        for folder in (*self.uploads.glob("??"), *self.thumbnails.glob("??")):
            files = {path: KEPT_UNDER_ID.fullmatch(path.name) for path in folder.iterdir()}
            known = self.catalog.rowids([kept["id"] for kept in files.values() if kept])
            for path, kept in files.items():
                if path.suffix == ".tmp" or (kept and kept["id"] not in known):
                    with storage_errors(path):
                        path.unlink(missing_ok=True)

    def unpublished(self) -> bool:
        """Whether searches would be faster with a new generation: much is newer, or the current one cannot be read."""
        snapshot = self.snapshot()
        if self._follower.loading:
            return False
        if not snapshot.reads_current:
            return True
        bases = [view.base for view in snapshot.spaces.values() if view.base is not None]
        held = max((len(base.rowids) // base.count for base in bases), default=0)
        dead = max((view.dead for view in snapshot.spaces.values()), default=0)
        policy = self.policy
        if dead > max(policy.min_delta_images, policy.max_dead_share * held) or snapshot.has_outgrown:
            return True
        return snapshot.delta_count > max(policy.min_delta_images, policy.max_delta_share * held)

    def snapshot(self) -> Snapshot:
        """The newest state of the index, as searches see it."""
        return self._follower.newest()[0]

    def refresh(self) -> None:
        """Catch up with the catalog, and wait until the newest generation is loaded."""
        self._follower.wait_for_newest()

    def vector(self, image_id: str, space: Space) -> Vector:
        """The stored embedding of an image ((dim,) float32). Raises UnknownImage."""
        return self._searcher.vector(image_id, space)

    def search(self, query: Query) -> list[Hit]:
        """The images nearest to a query, best first, ties by id: always k of them where k match.

        Raises QueryInvalid, FilterInvalid, UnknownImage, UnknownSpace.
        """
        (answer,) = self.search_many([query])
        if isinstance(answer, SearchError):
            raise answer
        return answer

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit] | SearchError]:
        """`search` of many queries at once, from one state of the index: hits, or what a query is refused with."""
        return self._searcher.search_many(queries)

    def observed(self, query: Query) -> tuple[int, int] | None:
        """How many of a query's ten nearest images a search finds, and how many there are; its filter aside.

        None where it compares all of them anyway. Raises as `search`.
        """
        return self._searcher.observed(query)

    def nearest(
        self,
        vectors: NDArray[np.float32],
        k: int = 10,
        *,
        space: str | None = None,
        matching: Filter | None = None,
        ef: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k images nearest to each of many vectors, best first, without looking up what is known of them.

        vectors: (q, dim) float32 of unit length. matching: a filter. ef: how many candidates
        a graph keeps, instead of as many as its recall was measured with. Returns the images' rowids and cosines, both
        (q, m) with m <= k; -1 and -inf where a query has fewer than others. Raises QueryInvalid, FilterInvalid,
        UnknownSpace.
        """
        return self._searcher.nearest(vectors, k, space, matching, ef)

    def searched(self, space: Space) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """All vectors of a space as they are searched: rowids (n,) int64, ascending, and (n, dim) float32 unit vectors.

        Raises UnknownSpace, SpaceOfRegions.
        """
        snapshot = self.snapshot()
        return snapshot.all_vectors(of_wholes(snapshot.space(space)).name)

    def neighbours(self, k: int, *, space: str | None = None) -> Neighbours:
        """The k nearest others of every image, as pairs of rowids, a batch at a time. Raises as `searched`."""
        snapshot = self.snapshot()
        return Neighbours(snapshot, of_wholes(snapshot.space(space)).name, k)

    def image(self, image_id: str) -> ImageRecord:
        """Everything known of an image. Raises UnknownImage."""
        rowid = self.catalog.rowid(image_id)
        records = self.catalog.records([rowid])
        if rowid not in records:
            raise UnknownImage("The index has no image with this id.")
        return records[rowid]

    @property
    def uploads(self) -> Path:
        """The root of images added over HTTP."""
        return self.path.resolve() / UPLOADS

    @property
    def generations(self) -> Path:
        """The folder of generations: disposable."""
        return self.path / "generations"

    @property
    def models(self) -> Path:
        """Encoders that exist only here."""
        return self.path / "models"

    @property
    def thumbnails(self) -> Path:
        """The cache of small pictures: disposable."""
        return self.path / "thumbnails"

    def bytes_on_disk(self) -> int:
        """The size of all files of the index; it looks at each of them."""
        return sum(_size(Path(parent, name)) for parent, _, names in os.walk(self.path) for name in names)

    def info(self) -> IndexInfo:
        """The index at a glance."""
        snapshot = self.snapshot()
        images, locations, failures = self.catalog.counts()
        return IndexInfo(
            path=str(self.path),
            images=images,
            locations=locations,
            failures=failures,
            generation=None if snapshot.generation is None else snapshot.generation.name,
            current=snapshot.current,
            seq=snapshot.seq,
            delta=snapshot.delta_count,
            spaces=tuple(
                replace(info, structure=_structure(snapshot.generation, info.space))
                for info in self.catalog.space_infos()
            ),
        )


def _structure(generation: Generation | None, space: Space) -> JsonObject:
    held = None if generation is None else generation.of(space)
    if held is None:
        return {}
    shown = ("structure", "distinct", "search", "bytes_per_vector", "build_seconds")
    return {name: held.facts[name] for name in shown if name in held.facts}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # drafts, thumbnails and the log come and go while somebody looks
        return 0
