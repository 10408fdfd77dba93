"""An index: a folder with a catalog and generations, opened, asked, changed and published."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import UPLOADS, Catalog
from search.catalog.transaction import CHUNK, Transaction
from search.errors import (
    IndexLocked,
    IndexMissing,
    RootMismatch,
    SearchError,
    StorageFailed,
    UnknownImage,
    UnknownRoot,
    UnknownSpace,
)
from search.files import make_folder, storage_errors
from search.generations.draft import MAX_DEAD
from search.generations.generation import Generation
from search.generations.publish import publish
from search.lock import PATIENCE, write_lock
from search.query.follow import Follower
from search.query.searcher import Searcher
from search.types import Hit, ImageRecord, IndexInfo, JsonObject, Query, Space, Vector

PAUSE = 0.2
"""Seconds that closing an index waits for readers of its log."""
MIN_DELTA, MAX_DELTA = 5_000, 0.05
"""Images that may be newer than the generation, at least, and as a share of it: 5,000 are searched in a millisecond."""
LOOKED_FOR = 1_000
"""Pictures of a root, of which one must be where it is said to have moved to."""
KEPT_UNDER_ID = re.compile(r"(?P<id>[0-9a-f]{64})[-.].+")
"""Files of uploads and thumbnails: each begins with its image's id."""


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
        self._writing = threading.Lock()
        self._follower = Follower(catalog, self.generations, self.spaces)
        self._searcher = Searcher(catalog, self._follower, self.space)

    @classmethod
    def create(cls, path: Path, spaces: Sequence[Space]) -> Index:
        """Make a new, empty index in a folder that is new, or has none in it. Raises IndexExists, StorageFailed."""
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
            from search.catalog.migrate import migrate  # imports alembic

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
        self._follower.wait()
        if self.catalog.written:
            with suppress(SearchError), self.lock():
                self.catalog.checkpoint(wait=PAUSE)
        self.catalog.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """`write_lock` of this index. Raises IndexMoved too."""
        self.catalog.must_be_here()  # else the lock would lie in a new folder of the index's old name
        with write_lock(self.path, timeout=timeout):
            yield

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

    def publish(self, *, anew: bool = False, stop: threading.Event | None = None) -> str:
        """Make everything the current generation, where it is not yet. Returns its name.

        `lock` is taken for a moment at the end: where the caller does not hold it, others can write meanwhile.
        anew: written from scratch, without what was removed, which is not begun while another process writes. stop: set
        to give up. Raises StorageFailed, IndexDamaged, IndexLocked, PublicationStopped.
        """
        self.catalog.must_be_here()  # else a folder would be made where the index was
        if anew:  # it takes minutes, and others who publish wait for it
            with self.lock():
                pass
        lock = partial(self.lock, timeout=PATIENCE)
        return publish(self.generations, self.catalog, self.spaces, anew=anew, lock=lock, stop=stop)

    def compact(self) -> str:
        """Write generation and catalog anew, and nothing that was removed with them.

        Files that belong to no image are deleted: uploads, thumbnails, drafts of killed writers. `lock` is taken for
        the second half: better not held before, since somebody who publishes waits for it. Returns the generation's
        name. Raises as `publish`, and IndexLocked while somebody reads the catalog.
        """
        name = self.publish(anew=True)
        with self.lock(timeout=PATIENCE):
            self._sweep()
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
        snapshot, _ = self._follower.newest()
        if self._follower.loading:
            return False
        if not snapshot.reads_current:
            return True
        held = dead = 0
        if snapshot.generation is not None:
            held = max(len(space.rowids) for space in snapshot.generation.spaces.values())
            dead = max(view.dead for view in snapshot.spaces.values())
        return snapshot.delta_count > max(MIN_DELTA, MAX_DELTA * held) or dead > max(MIN_DELTA, MAX_DEAD * held)

    def refresh(self) -> None:
        """Catch up with the catalog, and wait until the newest generation is loaded."""
        self._follower.settle()

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
        matching: JsonObject | None = None,
        ef: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k images nearest to each of many vectors, best first, without looking up what is known of them.

        vectors: (q, dim) float32 of unit length. matching: a filter (`search.catalog.filters`). ef: how many candidates
        a graph keeps, instead of as many as its recall was measured with. Returns the images' rowids and cosines, both
        (q, m) with m <= k; -1 and -inf where a query has fewer than others. Raises QueryInvalid, FilterInvalid,
        UnknownSpace.
        """
        return self._searcher.nearest(vectors, k, space, matching, ef)

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
        # After the commit: a file without a row is litter, which `compact` takes away; the reverse is a loss.
        gone = set(ids)
        small = (path for folder in {name[:2] for name in gone} for path in (self.thumbnails / folder).glob("*.jpg"))
        files = [self.uploads / name for name in uploads]
        for path in (*files, *(path for path in small if path.name.partition("-")[0] in gone)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return removed

    def move_root(self, old: Path, new: Path) -> list[str]:
        """Note that a root, or all roots in a folder, lie elsewhere now. Returns what they are called now.

        The caller holds `lock`. Raises UnknownRoot where there is none at `old`, RootMismatch where none of its
        pictures is at `new`, or others are known there by their names.
        """
        roots = [Path(root) for root in self.catalog.roots() if root != str(self.uploads)]
        place = Path(os.path.abspath(old))  # noqa: PTH100 - a drive that is not mounted cannot be resolved
        moving = [root for root in roots if root.is_relative_to(place)]
        if not moving:
            raise UnknownRoot(f"The index has no pictures of {place}. Its folders are: {', '.join(map(str, roots))}.")
        moved = []
        there = new.resolve()
        # A root may move to where another of them was: that one first.
        moving.sort(key=lambda root: len(root.parts), reverse=there.is_relative_to(place))
        with self.writing() as transaction:
            for root in moving:
                target = there / root.relative_to(place)
                around = [other for other in roots if other not in moving and target.is_relative_to(other)]
                into = around[0] if around else target  # a folder inside a root belongs to that root
                prefix = "" if target == into else f"{target.relative_to(into).as_posix()}/"
                self._must_be_there(root, target)
                if taken := transaction.taken(str(root), str(into), prefix):
                    raise RootMismatch(
                        f"{taken[0]:,} pictures of {root} have the names of others that are known in {target}, such as "
                        f"{taken[1]}. Nothing was changed: remove the others first, or give these their own folder."
                    )
                transaction.adopt_root(str(root), str(into), prefix)
                moved.append(str(target))
        return moved

    def _must_be_there(self, root: Path, target: Path) -> None:
        """Raises RootMismatch where a root's pictures are somewhere else."""
        paths = list(islice(self.catalog.paths_under(str(root), ""), LOOKED_FOR))
        if paths and not any((target / path).is_file() for path in paths):
            raise RootMismatch(
                f"None of the pictures of {root}, such as {paths[0]}, is in {target}. Name the folder that has them."
            )

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
        snapshot, _ = self._follower.newest()
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
                replace(info, structure=_structure(snapshot.generation, info.space.name))
                for info in self.catalog.space_infos()
            ),
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
