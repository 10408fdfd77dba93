"""A copy of a live index: another index, in another folder, as it was at one moment."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from search.catalog.catalog import NEWEST, Catalog
from search.errors import GenerationDamaged, IndexExists, StorageFailed, UnknownImage
from search.files import storage_errors, sync
from search.generations.generation import load
from search.index import Index
from search.journal import FOLDER
from search.lock import write_lock


def backup(index: Index, to: Path) -> Index:
    """Copy an index to a folder that is new or empty, while it is searched and changed. Returns the copy, open.

    The copy is there as a whole or not at all: the catalog, uploaded pictures, encoders, journals of runs over
    duplicates, and the current generation.
    Pictures that stay where they are, outside the index, are not copied. Raises IndexExists, IndexDamaged, IndexLocked
    (somebody else copies to this folder), StorageFailed (also where an uploaded picture is missing or damaged).
    """
    to = Path(os.path.abspath(to))  # noqa: PTH100 - what a link points to is not the name that was given
    draft = to.with_name(f".{to.name}.tmp")
    with storage_errors(to):
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise IndexExists(f"{to} is there already. Name a new folder for the copy.")
        if to.is_mount():
            raise StorageFailed(f"A disk is mounted at {to}. Name a new folder on it for the copy.")
        with write_lock(draft):
            try:
                for left in draft.iterdir():  # by a copy that was killed
                    if left.name != "lock":
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                _copy(index, draft)
                for parent, _, names in os.walk(draft):
                    for path in (*(Path(parent, name) for name in names), Path(parent)):
                        sync(path)
                draft.replace(to)
                sync(to.parent)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return Index.open(to, writable=True)


def _copy(index: Index, draft: Path) -> None:
    index.catalog.copy(draft / "catalog.sqlite")
    catalog = Catalog.open(draft / "catalog.sqlite")
    generation = catalog.changes(since=NEWEST).generation
    uploaded = catalog.uploaded()
    catalog.close()
    if index.models.exists():
        _copy_folder(index.models, draft / index.models.name)
    if generation is not None:
        place = draft / index.generations.name / generation
        try:
            _copy_folder(index.generations / generation, place)
            load(place)
        except (FileNotFoundError, GenerationDamaged):  # it was replaced meanwhile, or is damaged: it is made again
            shutil.rmtree(place)
            generation = None
    gone = [image_id for path, image_id in uploaded if not _copied(index, path, image_id, draft)]
    if gone or generation is None:
        with Index.open(draft, writable=True) as copy, copy.writer() as writer:
            writer.remove(gone, erase=True)
            copy.compact()
    for path in (index.path / FOLDER).glob("*.jsonl"):
        (draft / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(path, draft / FOLDER / path.name)


def _copy_folder(folder: Path, to: Path) -> None:
    to.mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            (to / path.relative_to(folder)).mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, to / path.relative_to(folder))


def _copied(index: Index, path: str, image_id: str, draft: Path) -> bool:
    """Copy an uploaded picture. Returns False where its image was removed since the catalog was copied."""
    data = b""
    with suppress(FileNotFoundError):
        data = (index.uploads / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != image_id:
        try:
            index.catalog.rowid(image_id)
        except UnknownImage:
            return False
        raise StorageFailed(f"{index.uploads / path} is missing or damaged. Run: lookalike verify {index.path}")
    target = draft / index.uploads.name / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return True
