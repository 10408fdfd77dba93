"""A generation: an immutable, checksummed snapshot of the catalog's vectors and FAISS structures. Disposable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Changes
from search.errors import GenerationDamaged
from search.files import reading_errors
from search.generations.ann import Graph, Positions, Vectors
from search.generations.background import Background
from search.generations.false_matches import FalseMatches
from search.generations.groups import Groups
from search.generations.kinds import KINDS
from search.generations.transform import Transform
from search.types import JsonObject, Space

FORMAT = 3
"""Format of manifests: 3 has groups of equal vectors. Older code would take their files for damaged."""
READABLE_FORMATS = (2, FORMAT)
READ_CHUNK_BYTES = 1 << 20
"""Bytes hashed at once."""


@dataclass(frozen=True, kw_only=True)
class SpaceSnapshot:
    """One space of a generation. Position i is the image `rowids[i]`, also where it was removed since.

    rowids: (n,) int64, each once. vectors: (m, dim) float32, read-only, mapped, each once: the nodes. transform: gave
    them from the stored ones. groups: which positions have the vector of a node; None where all are different, and
    position i is node i. graph: over the nodes; None where exact search is as good. false_matches: of its scores,
    which `background` normalises; None where they are not known. facts: what the manifest says of the space.
    """

    rowids: NDArray[np.int64]
    vectors: Vectors
    transform: Transform
    groups: Groups | None
    graph: Graph | None
    false_matches: FalseMatches | None
    background: Background | None
    facts: JsonObject

    def nodes(self, positions: Positions) -> Positions:
        """The nodes of these positions, (n,) int64, in their order."""
        return positions if self.groups is None else self.groups.nodes[positions].astype(np.int64)

    def node_mask(self, positions: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which nodes, (m,), any of these positions, a mask (n,), has."""
        return positions if self.groups is None else self.groups.mask(positions)

    def images(
        self, nodes: Positions, cosines: Vectors, k: int, each: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], Vectors]:
        """The images of each query's nodes, best first: rowids and cosines, both (q, p), -1 and -inf where there are
        fewer.

        nodes: (q, m) int64, -1 where there are fewer; cosines: (q, m) float32. k: images wanted, p is at least that
        where there are as many. each: images of equal vectors, at most: the first by id. allowed: (n,) the positions
        that may be found, None for all.
        """
        if self.groups is None:
            return np.where(nodes < 0, -1, self.rowids[nodes]), cosines
        order = np.argsort(-cosines, axis=1, kind="stable")
        rowids = np.full((len(nodes), k), -1, dtype=np.int64)
        best = np.full((len(nodes), k), -np.inf, dtype=np.float32)
        for row, ranked in enumerate(order):
            ranked = ranked[nodes[row, ranked] >= 0]
            positions, counts = self.groups.take(nodes[row, ranked].tolist(), k, each, allowed)
            rowids[row, : len(positions)] = self.rowids[positions]
            best[row, : len(positions)] = np.repeat(cosines[row, ranked[: len(counts)]], counts)
        return rowids, best

    @property
    def count(self) -> int:
        """How many vectors an image has: `rowids` are `vector_ids`, where it has several."""
        regions = self.facts["recipe"].get("regions")
        return 1 if regions is None else 1 + len(regions["windows"])

    @property
    def ef(self) -> int:
        """Candidates that a search of the graph keeps, so that its recall is what was promised."""
        return int(self.facts["search"]["ef"])

    @property
    def min_filtered(self) -> int:
        """Nodes that a filter lets through, up to which the graph's recall is not known to suffice."""
        return len(self.vectors) // int(self.facts["search"].get("one_in", 1)) - 1

    @cached_property
    def _places(self) -> NDArray[np.int32]:
        places = np.full(int(self.rowids.max(initial=0)) + 1, -1, dtype=np.int32)
        places[self.rowids] = np.arange(len(self.rowids), dtype=np.int32)
        return places

    def places(self, rowids: NDArray[np.int64]) -> Positions:
        """Where these images stand, (n,) int64; -1 for those that are not in here."""
        places = np.full(len(rowids), -1, dtype=np.int64)
        known = np.flatnonzero(rowids < len(self._places))
        places[known] = self._places[rowids[known]]
        return places

    def positions(self, rowids: NDArray[np.int64]) -> Positions:
        """Where these images stand, (m,) int64, in their order; those that are not in here are left out."""
        places = self.places(rowids)
        return places[places >= 0]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """An open generation: its name, its manifest's digest, and the catalog it was made from.

    It holds what was added up to `applied_seq`, but for what was removed up to `clean_seq`; removals after that are the
    reader's business.
    """

    name: str
    digest: str
    format: int
    catalog: str
    applied_seq: int
    clean_seq: int
    spaces: Mapping[str, SpaceSnapshot]
    files: Mapping[str, JsonObject]

    def of(self, space: Space) -> SpaceSnapshot | None:
        """A space as it is in here; None where it was added later, or is another one of that name."""
        held = self.spaces.get(space.name)
        return held if held is not None and held.facts.get("added_seq") == space.added_seq else None

    def belongs_to(self, state: Changes) -> bool:
        """Whether it was made from this catalog: not from another one, nor from another future of this one.

        Rowids mean something in their own catalog only. A copy of a catalog may have gone on differently, or a backup
        may have been put back: what was published then was noted there, and not here.
        """
        known = state.digests is None or state.digests.get(self.name) == self.digest
        return known and self.catalog == state.catalog and self.applied_seq <= state.seq


def load(path: Path) -> Generation:
    """Open a generation after checking every file's size and SHA-256. Raises GenerationDamaged."""
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
        digest = str(manifest.pop("sha256"))
        if digest != manifest_digest(manifest):
            raise GenerationDamaged(f"{path}/manifest.json is not what was written.")
        if manifest["format"] not in READABLE_FORMATS:
            raise GenerationDamaged(f"{path} has the format {manifest['format']}, not one of {READABLE_FORMATS}.")
        files: dict[str, JsonObject] = manifest["files"]
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda name: hash_start(path / name, files[name]["bytes"]), files)
            for name, found in zip(files, digests, strict=True):
                if found.hexdigest() != files[name]["sha256"]:
                    raise GenerationDamaged(f"{path / name} is not what its manifest says.")
        return Generation(
            name=path.name,
            digest=digest,
            format=int(manifest["format"]),
            catalog=str(manifest["catalog"]),
            applied_seq=int(manifest["applied_seq"]),
            clean_seq=int(manifest["clean_seq"]),
            spaces={name: _load_space(path, name, facts) for name, facts in manifest["spaces"].items()},
            files=files,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise GenerationDamaged(f"The generation {path} cannot be read: {error}.") from error


def _load_space(path: Path, name: str, facts: JsonObject) -> SpaceSnapshot:
    count, dim = int(facts["count"]), int(facts["dim"])
    distinct = int(facts.get("distinct", count))
    rowids = np.fromfile(path / f"{name}.rowids", dtype="<i8").astype(np.int64)
    graph = Graph.read(path / f"{name}.faiss") if facts["structure"] == "hnsw" else None
    groups = None
    if distinct < count:
        nodes, members = np.fromfile(path / f"{name}.groups", dtype="<i4").astype(np.int32).reshape(2, count)
        groups = Groups(nodes, members, distinct)
    if len(rowids) != count or (graph is not None and (graph.count, graph.dim) != (distinct, dim)):
        raise GenerationDamaged(f"{path} holds another number of vectors than its manifest says.")
    transform = _load_transform(path / f"{name}.transform", facts)
    if transform.dim != dim:
        raise GenerationDamaged(f"{path} has vectors of {dim} numbers, and a transform to {transform.dim}.")
    vectors = map_vectors(path / f"{name}.vectors", distinct, dim)
    known = facts.get("fmr", {})
    return SpaceSnapshot(
        rowids=rowids,
        vectors=vectors,
        transform=transform,
        groups=groups,
        graph=graph,
        false_matches=FalseMatches.from_json(known) if "scores" in known else None,
        background=Background.from_json(known["background"], vectors) if "background" in known else None,
        facts=facts,
    )


def _load_transform(path: Path, facts: JsonObject) -> Transform:
    stored_dim = int(facts["recipe"]["dim"])
    kind = str(facts.get("transform", {"kind": "identity"})["kind"])
    if kind not in KINDS:
        raise GenerationDamaged(f"{path.parent} has a transform of the kind {kind}, which this Lookalike lacks.")
    return KINDS[kind].read(stored_dim, b"" if kind == "identity" else path.read_bytes())


def map_vectors(path: Path, count: int, dim: int) -> Vectors:
    """The first `count` vectors of a file of little-endian float32, (count, dim), mapped and read-only."""
    if count == 0:
        return np.empty((0, dim), dtype=np.float32)
    return np.memmap(path, dtype="<f4", mode="r", shape=(count, dim)).view(np.ndarray)


def load_best(folder: Path, state: Changes) -> Generation | None:
    """The current generation, or the newest undamaged one before it, or None: then the catalog alone answers.

    Of spaces that were added later it has nothing. Raises StorageFailed where the folder cannot be read.
    """
    current = state.generation
    for name in (f"{number:06d}" for number in sorted(numbers(folder), reverse=True)):
        if current is not None and name <= current:
            try:
                generation = load(folder / name)
            except GenerationDamaged:
                continue
            if generation.belongs_to(state):
                return generation
    return None


def numbers(folder: Path) -> list[int]:
    """The generations in a folder, if there is one. Raises StorageFailed."""
    with reading_errors(folder), suppress(FileNotFoundError):
        return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return []


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content, its own `sha256` aside: however it is spaced and ordered."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def hash_start(path: Path, count: int) -> Any:
    """SHA-256 over the first `count` bytes of a file, to be continued. Raises GenerationDamaged where there are fewer.

    A file of vectors may be longer than a generation knows: a later one goes on in it.
    """
    digest, left = hashlib.sha256(), count
    with path.open("rb") as file:
        while left and (block := file.read(min(left, READ_CHUNK_BYTES))):
            digest.update(block)
            left -= len(block)
    if left:
        raise GenerationDamaged(f"{path} is shorter than its manifest says.")
    return digest
