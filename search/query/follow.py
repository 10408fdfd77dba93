"""Following an index: its newest snapshot, whoever changes it, and new generations loaded beside the searches."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from search.catalog.catalog import NEWEST, Catalog, Changes
from search.generations.ann import Vectors
from search.generations.generation import load_best
from search.generations.policy import Policy
from search.query.snapshot import Rowids, Snapshot
from search.types import Space


class Follower:
    """Keeps up with a catalog and its generations. Loads nothing before it is first asked: a build never searches.

    Any number of threads may ask it.
    """

    def __init__(self, catalog: Catalog, generations: Path, policy: Policy) -> None:
        self._catalog = catalog
        self._generations = generations
        self._policy = policy
        self._catching_up = threading.Lock()
        self._snapshot = Snapshot.start(None, None, (), policy=policy)
        self._loaded_once = False
        self._version: int | None = None
        self._loading: threading.Thread | None = None
        self._failure: Exception | None = None

    def newest(self) -> tuple[Snapshot, int]:
        """The newest snapshot, and the version of the catalog that it was made at: microseconds where nothing changed.

        A new generation is loaded in a thread of its own; until then the one before, and all that is newer than it in
        memory, answer as well. Only the first is waited for. Raises SearchError.
        """
        with self._catching_up:
            version = self._catalog.version()
            if version == self._version:
                return self._snapshot, version
            changes = self._catalog.changes(since=NEWEST)
            if not self._loaded_once:
                self._snapshot = self._loaded(changes)
                self._loaded_once = True
            elif changes.generation != self._snapshot.current and self._loading is None:
                self._start_loading()
            self._snapshot = self._caught_up(self._snapshot)
            self._version = version
            return self._snapshot, version

    def wait_for_newest(self) -> Snapshot:
        """The newest snapshot, once the newest generation is in it. Raises what kept it from being loaded.

        One that could not be read is tried once more: it may have been a passing fault, or its files were put back.
        """
        self._failure = None
        tried = False
        while True:
            snapshot, _ = self.newest()
            if self._loading is None and self._failure is None:
                if tried or snapshot.reads_current:
                    return snapshot
                with self._catching_up:
                    if self._loading is None:
                        self._start_loading()
            tried = True
            self.wait()
            if self._failure is not None:
                raise self._failure

    @property
    def loading(self) -> bool:
        """Whether a generation is being loaded."""
        return self._loading is not None

    def wait(self) -> None:
        """Wait until nothing is being loaded."""
        loading = self._loading
        if loading is not None:
            loading.join()

    def _start_loading(self) -> None:
        """Under `_catching_up`."""
        self._loading = threading.Thread(target=self._load, daemon=True)
        self._loading.start()

    def _load(self) -> None:
        """Put the newest generation in the place of the one before; and what was published meanwhile in its place."""
        try:
            while True:
                snapshot = self._caught_up(self._loaded(self._catalog.changes(since=NEWEST)))
                with self._catching_up:  # searches wait for what has come since, not for all that is newer
                    self._snapshot = self._caught_up(snapshot)
                    if self._catalog.changes(since=NEWEST).generation == snapshot.current:
                        self._loading = None
                        return
        except Exception as error:
            self._failure = error
        finally:
            with self._catching_up:
                if self._loading is threading.current_thread():  # it failed: a later search tries again
                    self._loading = self._version = None

    def _loaded(self, changes: Changes) -> Snapshot:
        """The best generation, without what was removed since it was written."""
        generation = load_best(self._generations, changes)
        now = self._catalog.changes(since=NEWEST)
        if now.generation != changes.generation and (generation is None or generation.name != changes.generation):
            return self._loaded(now)  # it was not damaged, but outdated, and deleted while it was read
        there = [space for space in changes.spaces if generation is not None and generation.of(space) is not None]
        snapshot = Snapshot.start(generation, changes.generation, there, policy=self._policy)
        clean_seq = 0 if generation is None else generation.clean_seq
        removed = self._catalog.changes(since=NEWEST, removed_since=clean_seq).removed
        return snapshot.advance(snapshot.seq, {}, removed)

    def _caught_up(self, snapshot: Snapshot) -> Snapshot:
        while True:
            changes = self._catalog.changes(since=snapshot.seq)
            same = (changes.seq, changes.default) == (snapshot.seq, snapshot.default)  # a generation names no default
            if same and snapshot.holds(changes.spaces):
                return snapshot
            added = {space.name: self._vectors(space, snapshot, changes) for space in changes.spaces}
            if len(changes.spaces) == 1 or changes.spaces == self._catalog.spaces().there:
                return snapshot.advance(
                    changes.seq, added, changes.removed, spaces=changes.spaces, default=changes.default
                )
            # One may have been dropped while its vectors were read, and have lost some of them.

    def _vectors(self, space: Space, snapshot: Snapshot, changes: Changes) -> tuple[Rowids, Vectors]:
        """Read what a snapshot lacks of a space: new vectors, or all where it does not have the space."""
        if snapshot.holds([space]) or snapshot.seq == 0:
            return self._catalog.vectors(space, changes.added[space.name])
        rowids, vectors = [np.empty(0, dtype=np.int64)], [np.empty((0, space.recipe.dim), dtype=np.float32)]
        for ids, block in self._catalog.all_vectors(space, upto=changes.seq):
            rowids.append(ids)
            vectors.append(block)
        return np.concatenate(rowids), np.concatenate(vectors)
