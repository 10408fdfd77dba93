"""A draft: a generation while it is written, from the catalog's vectors and the generation before, file by file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import numpy as np

from search.catalog.catalog import Catalog, Changes
from search.errors import GenerationDamaged, PublicationStopped
from search.files import sync
from search.generations.ann import exact, scores
from search.generations.generation import (
    FORMAT,
    Generation,
    SpaceSnapshot,
    load,
    manifest_digest,
)
from search.generations.hashed_file import HashedFile
from search.generations.policy import Policy
from search.generations.space_draft import SpaceDraft
from search.types import JsonObject, Space
from search.vectors import vector_ids


class Draft:
    """A generation while it is written."""

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        *,
        last: Generation | None,
        policy: Policy,
        stop: Event | None,
    ) -> None:
        """last: the generation to go on from, if any. stop: set to give up."""
        path.mkdir()
        self._policy = policy
        self._stop = stop
        self._path = path
        self._catalog = catalog
        self._min_recall = catalog.min_recall()
        self._last = last if last is not None and self._may_grow(last) else None
        self._state = self._changes()
        self._files: dict[str, JsonObject] = {}

    @property
    def kept(self) -> dict[str, str]:
        """The generation that this one goes on from, if any, and its manifest's digest."""
        return {} if self._last is None else {self._last.name: self._last.digest}

    def write(self) -> str:
        """Write every file, the manifest last, and check them all. Returns the manifest's digest.

        Raises OSError, GenerationDamaged, IndexDamaged, PublicationStopped.
        """
        drafts = [self._space_draft(space) for space in self._state.spaces]
        if not any(draft.may_go_on for draft in drafts):
            self._last = None
            self._state = self._changes()
            drafts = [self._space_draft(space) for space in self._state.spaces]
        drafts = [draft if draft.may_go_on else self._space_draft(draft.space, anew=True) for draft in drafts]
        entries = {draft.space.name: self._write_space(draft) for draft in drafts}
        manifest = {
            "format": FORMAT,
            "catalog": self._state.catalog,
            "applied_seq": self._state.seq,
            "clean_seq": self._state.seq if self._last is None else self._last.clean_seq,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "spaces": entries,
            "files": self._files,
        }
        manifest["sha256"] = manifest_digest(manifest)
        (self._path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        sync(self._path / "manifest.json")
        sync(self._path)
        written = load(self._path)
        for snapshot in written.spaces.values():
            _probe(snapshot, self._policy.probe_vectors)
        return written.digest

    def _pause(self) -> None:
        go_on(self._stop)

    def rename(self, path: Path) -> None:
        """Make it a generation: no reader looks at it before the catalog names it."""
        self._path = self._path.rename(path)
        sync(path.parent)

    def withdraw(self) -> None:
        """Delete what was written, also where it was added to files that the last generation has."""
        for path in self._path.glob("*.vectors"):
            if self._last is not None and path.stat().st_nlink > 1:
                os.truncate(path, int(self._last.files[path.name]["bytes"]))
        shutil.rmtree(self._path, ignore_errors=True)

    def _may_grow(self, last: Generation) -> bool:
        """Whether a generation is worth going on from: little of it was removed."""
        if last.format != FORMAT:
            return False
        removed = self._catalog.changes(since=last.clean_seq).removed
        share = self._policy.max_dead_share
        return all(
            len(space.positions(vector_ids(removed, space.count))) <= share * len(space.rowids)
            for space in last.spaces.values()
        )

    def _changes(self) -> Changes:
        return self._catalog.changes(since=0 if self._last is None else self._last.applied_seq)

    def _space_draft(self, space: Space, *, anew: bool = False) -> SpaceDraft:
        """A draft of a space, going on from the last generation where that has it; anew: from scratch."""
        before = None if self._last is None or anew else self._last.of(space)
        added = self._state.added[space.name]
        if before is None and self._last is not None:  # all of it is new, not only what came after that generation
            added = self._catalog.members(space, self._state.seq)
        return SpaceDraft(
            space,
            self._catalog,
            before=before,
            added=added,
            since=0 if self._last is None or before is None else self._last.applied_seq,
            upto=self._state.seq,
            min_recall=self._min_recall,
            policy=self._policy,
            pause=self._pause,
        )

    def _write_space(self, draft: SpaceDraft) -> JsonObject:
        graph = None
        if self._last is not None and draft.before is not None and draft.before.graph is not None:
            graph = self._path.parent / self._last.name / f"{draft.space.name}.faiss"
        return draft.write(self._file, graph)

    @contextmanager
    def _file(self, name: str, goes_on: bool) -> Iterator[HashedFile]:
        """A new file of the draft, to be flushed and entered in the manifest; or the last generation's, to go on in."""
        if goes_on:
            assert self._last is not None
            file = HashedFile.go_on(
                self._path.parent / self._last.name / name, self._path / name, self._last.files[name]
            )
        else:
            file = HashedFile(self._path / name)
        with file:
            yield file
        self._files[name] = {"bytes": file.size, "sha256": file.digest.hexdigest()}


def _probe(space: SpaceSnapshot, count: int) -> None:
    """Search for a few stored vectors. Raises GenerationDamaged where they are not found."""
    if not len(space.rowids):
        return
    chosen = np.unique(np.linspace(0, len(space.vectors) - 1, count, dtype=np.int64))
    queries = np.array(space.vectors[chosen])
    if space.graph is None:
        found, enough = exact(space.vectors, queries, 1), 1.0
    else:
        found, enough = space.graph.search(queries, space.ef), 0.75
    if (scores(space.vectors, queries, found).max(axis=1) > 1 - 1e-4).mean() < enough:
        raise GenerationDamaged("A generation just written does not find its own vectors.")


def stopped(stop: Event | None) -> bool:
    return stop is not None and stop.is_set()


def go_on(stop: Event | None) -> None:
    if stopped(stop):
        raise PublicationStopped("A publication was stopped. The index is as it was; publish again.")
