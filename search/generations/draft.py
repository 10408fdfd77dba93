"""A draft: a generation while it is written, from the catalog's vectors and the generation before, file by file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Catalog
from search.errors import GenerationDamaged, PublicationStopped
from search.files import sync
from search.generations.ann import SEARCH_METHOD, Graph, Vectors, exact, scores
from search.generations.generation import (
    FORMAT,
    Generation,
    SpaceSnapshot,
    hash_start,
    load,
    manifest_digest,
    map_vectors,
)
from search.generations.policy import Policy
from search.generations.recall import measure_recall
from search.types import JsonObject, Space


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
        self._state = catalog.changes(since=0 if self._last is None else self._last.applied_seq)
        self._files: dict[str, JsonObject] = {}

    @property
    def kept(self) -> dict[str, str]:
        """The generation that this one goes on from, if any, and its manifest's digest."""
        return {} if self._last is None else {self._last.name: self._last.digest}

    def write(self) -> str:
        """Write every file, the manifest last, and check them all. Returns the manifest's digest.

        Raises OSError, GenerationDamaged, IndexDamaged, PublicationStopped.
        """
        entries = {space.name: self._write_space(space) for space in self._state.spaces}
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
        """Whether to go on from a generation: little of it was removed, and what its graphs find is or can be known."""
        state = self._catalog.changes(since=last.applied_seq)
        removed = self._catalog.changes(since=last.clean_seq).removed
        for there in state.spaces:
            space, added = last.of(there), len(state.added[there.name])
            if space is None:
                continue
            if len(space.positions(removed)) > self._policy.max_dead_share * len(space.rowids):
                return False
            total = len(space.rowids) + added
            needed = needs_graph(total, space.vectors.shape[1], self._min_recall, self._policy)
            if not needed or recall_is_known(space, total, self._min_recall, self._policy):
                continue
            few = added < 2 * self._policy.min_held_out_vectors
            if few or space.graph is None or space.facts["search"]["recall"] < self._min_recall:
                return False
        return True

    def _write_space(self, space: Space) -> JsonObject:
        began = time.perf_counter()
        before = None if self._last is None else self._last.of(space)
        known = 0 if before is None else len(before.rowids)
        added = self._state.added[space.name]
        if before is None and self._last is not None:  # all of it is new, not only what came after that generation
            added = self._catalog.members(space, self._state.seq)
        total = known + len(added)
        held_out: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        needed = needs_graph(total, space.recipe.dim, self._min_recall, self._policy)
        if needed and (before is None or not recall_is_known(before, total, self._min_recall, self._policy)):
            random = np.random.default_rng(self._state.seq)
            count = min(self._policy.held_out_vectors, len(added) // 2)
            held_out = random.choice(added, count, replace=False)
        rowids, held = self._write_vectors(space, before, held_out)
        vectors = map_vectors(self._path / f"{space.name}.vectors", len(rowids), space.recipe.dim)
        facts: JsonObject = {} if before is None else before.facts["search"]
        graph = None
        if needed and (held or (before is not None and before.graph is not None)):
            graph, facts = self._graph(space, before, vectors, held, facts)
        if graph is not None:
            with self._file(f"{space.name}.faiss") as file:
                graph.write(file.write)
        size = sum(int(entry["bytes"]) for name, entry in self._files.items() if name.startswith(f"{space.name}."))
        return {
            "structure": "exact" if graph is None else "hnsw",
            "count": len(rowids),
            "dim": space.recipe.dim,
            "added_seq": space.added_seq,
            "recipe": space.recipe.to_json(),
            "search": facts,
            "bytes_per_vector": round(size / max(1, len(rowids)), 1),
            "build_seconds": round(time.perf_counter() - began, 2),
        }

    def _write_vectors(
        self, space: Space, before: SpaceSnapshot | None, held_out: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], int]:
        """Write the vectors and rowids of a space, those held out last. Returns the rowids, and how many are last."""
        since = 0 if self._last is None or before is None else self._last.applied_seq
        rowids = [np.empty(0, dtype=np.int64) if before is None else before.rowids]
        late: list[tuple[NDArray[np.int64], Vectors]] = []
        name = f"{space.name}.vectors"
        with self._file(name, goes_on=before is not None) as file:
            for ids, block in self._catalog.all_vectors(space, since=since, upto=self._state.seq):
                self._pause()
                waits = np.isin(ids, held_out)
                rowids.append(ids[~waits])
                file.write(block[~waits].astype("<f4").tobytes())
                late.append((ids[waits], block[waits]))
            for ids, block in late:
                rowids.append(ids)
                file.write(block.astype("<f4").tobytes())
        everything = np.concatenate(rowids)
        with self._file(f"{space.name}.rowids") as file:
            file.write(everything.astype("<i8").tobytes())
        return everything, sum(len(ids) for ids, _ in late)

    def _graph(
        self, space: Space, before: SpaceSnapshot | None, vectors: Vectors, held_out: int, facts: JsonObject
    ) -> tuple[Graph | None, JsonObject]:
        """A graph over all vectors, and what is known of its answers; None where it does not find enough.

        One that has grown and does not any more (its codes may not fit what is new) is made anew.
        """
        seen = len(vectors) - held_out
        if before is not None and before.graph is not None and self._last is not None:
            path = self._path.parent / self._last.name / f"{space.name}.faiss"
            try:
                graph = Graph.read(path, writable=True)
            except RuntimeError as error:
                raise GenerationDamaged(f"{path} cannot be read: {error}.") from error
            graph.add(vectors[graph.count : seen], self._pause)
            if not held_out:
                return graph, facts
            facts = self._measured(graph, vectors, seen)
            if facts["recall"] >= self._min_recall:
                graph.add(vectors[seen:], self._pause)
                return graph, facts
        graph = Graph.train(vectors, links=self._policy.links, ef_construction=self._policy.ef_construction)
        graph.add(vectors[:seen], self._pause)
        facts = self._measured(graph, vectors, seen)
        if facts["recall"] < self._min_recall:
            return None, facts
        graph.add(vectors[seen:], self._pause)
        return graph, facts

    def _measured(self, graph: Graph, vectors: Vectors, seen: int) -> JsonObject:
        """The manifest's entry `search`: recall of a graph over the first `seen` vectors, where the others are queries,
        and its parameters."""
        queries = vectors[seen:]
        ef, share, one_in = measure_recall(
            graph, vectors[:seen], queries, self._min_recall, policy=self._policy, pause=self._pause
        )
        return {
            "links": self._policy.links,
            "ef_construction": self._policy.ef_construction,
            **SEARCH_METHOD,
            "ef": ef,
            "recall": math.floor(share * 10_000) / 10_000,
            "one_in": one_in,
            "min_recall": self._min_recall,
            "queries": len(queries),
            "count": len(vectors),
        }

    @contextmanager
    def _file(self, name: str, *, goes_on: bool = False) -> Iterator[_HashedFile]:
        """A new file of the draft, to be flushed and entered in the manifest; or the last generation's, to go on in."""
        if goes_on:
            assert self._last is not None
            entry = self._last.files[name]
            digest = _share(self._path.parent / self._last.name / name, self._path / name, entry)
            file = _HashedFile(self._path / name, digest, int(entry["bytes"]))
        else:
            file = _HashedFile(self._path / name, hashlib.sha256(), 0)
        with file:
            yield file
        self._files[name] = {"bytes": file.size, "sha256": file.digest.hexdigest()}


class _HashedFile:
    """A file that knows the size and SHA-256 of what was written to it, whatever the disk makes of that."""

    def __init__(self, path: Path, digest: Any, size: int) -> None:
        """digest, size: of what the file begins with."""
        self._file = path.open("ab")
        self.digest = digest
        self.size = size

    def write(self, data: bytes) -> int:
        """Append; returns how many bytes."""
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def __enter__(self) -> _HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()


def _share(old: Path, new: Path, entry: JsonObject) -> Any:
    """Make `new` begin with what the manifest says of `old`, in no more room if possible. Returns its SHA-256 so far.

    It is the same file, unless something follows there: that may be another generation's, or a killed writer's.
    Raises GenerationDamaged.
    """
    size = int(entry["bytes"])
    digest = hash_start(old, size)
    if digest.hexdigest() != entry["sha256"]:
        raise GenerationDamaged(f"{old} is not what its manifest says.")
    if old.stat().st_size == size:
        with suppress(OSError):  # a file system without hard links
            new.hardlink_to(old)
            return digest
    shutil.copyfile(old, new)
    os.truncate(new, size)
    return digest


def _probe(space: SpaceSnapshot, count: int) -> None:
    """Search for a few stored vectors. Raises GenerationDamaged where they are not found."""
    if not len(space.rowids):
        return
    chosen = np.unique(np.linspace(0, len(space.rowids) - 1, count, dtype=np.int64))
    queries = np.array(space.vectors[chosen])
    if space.graph is None:
        found, enough = exact(space.vectors, queries, 1), 1.0
    else:
        found, enough = space.graph.search(queries, space.ef), 0.75
    if (scores(space.vectors, queries, found).max(axis=1) > 1 - 1e-4).mean() < enough:
        raise GenerationDamaged("A generation just written does not find its own vectors.")


def needs_graph(count: int, dim: int, min_recall: float, policy: Policy) -> bool:
    """Whether so many vectors are too many to be compared one by one."""
    return count * dim * 4 > policy.exact_search_bytes and min_recall < 1


def recall_is_known(space: SpaceSnapshot, total: int, min_recall: float, policy: Policy) -> bool:
    """Whether a graph over `total` vectors is known to find enough, or no graph to do so, by an earlier measurement."""
    known = space.facts["search"]
    if not known or total >= policy.remeasure_growth * known["count"]:
        return False
    if any(known.get(key) != value for key, value in SEARCH_METHOD.items()):
        return False
    return bool((known["recall"] < min_recall) == (space.graph is None))


def stopped(stop: Event | None) -> bool:
    return stop is not None and stop.is_set()


def go_on(stop: Event | None) -> None:
    if stopped(stop):
        raise PublicationStopped("A publication was stopped. The index is as it was; publish again.")
