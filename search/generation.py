"""A generation: an immutable, checksummed snapshot of the catalog's vectors in FAISS files. Disposable."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.ann import ExactIndex
from search.catalog import Catalog, Changes
from search.errors import GenerationDamaged, StorageFailed
from search.files import storage_errors, sync
from search.types import Space

FORMAT = 1
NEWEST = 2**62
"""A `seq` that no catalog reaches: asks for the state without any change."""
KEPT = 2
"""The current generation and the one before it, to fall back on."""
PROBES = 16
"""Stored vectors asked for again before a generation is published: each must find itself."""


@dataclass(frozen=True, kw_only=True)
class SpaceSnapshot:
    """One space of a generation. `rowids`: (n,) int64 ascending; position i of `index` is the image `rowids[i]`."""

    rowids: NDArray[np.int64]
    index: ExactIndex


@dataclass(frozen=True, kw_only=True)
class Generation:
    """An open generation: its name, the catalog it was made from, the last `seq` it contains, its spaces by name."""

    name: str
    catalog: str
    applied_seq: int
    spaces: Mapping[str, SpaceSnapshot]


def publish(folder: Path, catalog: Catalog, spaces: Sequence[Space]) -> str:
    """Write the catalog's vectors as the next generation and make it current. Returns its name (`000017`).

    Files are written aside, flushed, read back and checked before a rename makes them visible; the catalog then
    points at them. Killed anywhere, the index opens as before. Raises StorageFailed, IndexDamaged.
    """
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        _discard_newer(folder, catalog.changes(since=NEWEST).generation)
        name = f"{max(_numbers(folder), default=0) + 1:06d}"
        draft = folder / f"{name}.tmp"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            _write(draft, catalog, spaces)
        except GenerationDamaged as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise StorageFailed(f"{error} Check the disk's free space, and its health.") from error
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        draft.rename(folder / name)
        sync(folder)
    with catalog.writing() as transaction:
        transaction.set_generation(name)
    discard_old(folder, current=name)
    return name


def _write(draft: Path, catalog: Catalog, spaces: Sequence[Space]) -> None:
    state = catalog.changes(since=NEWEST)
    counts: dict[str, int] = {}
    for space in spaces:
        rowids: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]

        def blocks(space: Space = space, rowids: list[NDArray[np.int64]] = rowids) -> Iterator[NDArray[np.float32]]:
            for ids, vectors in catalog.all_vectors(space, upto=state.seq):
                rowids.append(ids)
                yield vectors

        ExactIndex.write(draft / f"{space.name}.faiss", space.recipe.dim, blocks())
        np.concatenate(rowids).astype("<i8").tofile(draft / f"{space.name}.rowids")
        counts[space.name] = sum(map(len, rowids))
    files = sorted(path for path in draft.iterdir())
    for path in files:
        sync(path)
    manifest = {
        "format": FORMAT,
        "catalog": state.catalog,
        "applied_seq": state.seq,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "spaces": {
            space.name: {
                "structure": "exact",
                "count": counts[space.name],
                "dim": space.recipe.dim,
                "recipe": space.recipe.to_json(),
            }
            for space in spaces
        },
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files},
    }
    manifest["sha256"] = _digest(manifest)
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    sync(draft / "manifest.json")
    sync(draft)
    for snapshot in load(draft).spaces.values():
        _probe(snapshot)


def _probe(snapshot: SpaceSnapshot) -> None:
    """Ask for a few stored vectors again: each must be found at its own score."""
    for position in np.unique(np.linspace(0, len(snapshot.rowids) - 1, PROBES, dtype=np.int64)).tolist():
        if len(snapshot.rowids):
            vector = np.array(snapshot.index.vectors[position])
            best = snapshot.index.search(vector, 1)
            if not len(best) or float(snapshot.index.vectors[best[0]] @ vector) < 1 - 1e-4:
                raise GenerationDamaged("A generation just written does not find its own vectors.")


def load(path: Path) -> Generation:
    """Open a generation after checking every file's size and SHA-256. Raises GenerationDamaged."""
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
        if manifest.pop("sha256") != _digest(manifest):
            raise GenerationDamaged(f"{path}/manifest.json is not what was written.")
        if manifest["format"] != FORMAT:
            raise GenerationDamaged(f"{path} has the format {manifest['format']}, not {FORMAT}.")
        for name, expected in manifest["files"].items():
            file = path / name
            if file.stat().st_size != expected["bytes"] or _sha256(file) != expected["sha256"]:
                raise GenerationDamaged(f"{file} is not what its manifest says.")
        spaces = {}
        for name, facts in manifest["spaces"].items():
            rowids = np.fromfile(path / f"{name}.rowids", dtype="<i8").astype(np.int64)
            index = ExactIndex.read(path / f"{name}.faiss")
            if not len(rowids) == index.count == facts["count"] or index.vectors.shape[1] != facts["dim"]:
                raise GenerationDamaged(f"{path} holds another number of vectors than its manifest says.")
            spaces[name] = SpaceSnapshot(rowids=rowids, index=index)
        return Generation(
            name=path.name,
            catalog=str(manifest["catalog"]),
            applied_seq=int(manifest["applied_seq"]),
            spaces=spaces,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise GenerationDamaged(f"The generation {path} cannot be read: {error}.") from error


def load_best(folder: Path, state: Changes, spaces: Sequence[Space]) -> Generation | None:
    """The current generation, or the newest undamaged one before it, or None: then the catalog alone answers.

    Rowids mean something in their own catalog only: a generation of another one, or of a later state of this one (a
    backup was put back), is passed over.
    """
    current = state.generation
    names = [f"{number:06d}" for number in sorted(_numbers(folder), reverse=True)] if folder.is_dir() else []
    for name in names:
        if current is not None and name <= current:
            try:
                generation = load(folder / name)
            except GenerationDamaged:
                continue
            ours = generation.catalog == state.catalog and generation.applied_seq <= state.seq
            if ours and set(generation.spaces) == {space.name for space in spaces}:
                return generation
    return None


def _discard_newer(folder: Path, current: str | None) -> None:
    """Delete generations newer than the current one: left by a killed writer, or by a catalog that was here before."""
    for path in folder.iterdir():
        if path.name.isdigit() and (current is None or path.name > current):
            shutil.rmtree(path, ignore_errors=True)


def discard_old(folder: Path, *, current: str) -> None:
    """Delete drafts of killed writers and generations older than the previous one."""
    for path in folder.iterdir():
        if path.suffix == ".tmp" or (path.name.isdigit() and int(path.name) <= int(current) - KEPT):
            shutil.rmtree(path, ignore_errors=True)


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of a manifest's content, its own `sha256` aside: however it is spaced and ordered."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
