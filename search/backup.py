"""A copy of a live index: another index, in another folder, as it was at one moment."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from search.catalog import NEWEST, Catalog
from search.errors import IndexExists, StorageFailed, UnknownImage
from search.files import make_folder, storage_errors, sync
from search.index import Index


def backup(index: Index, to: Path) -> Index:
    """Copy an index to a folder that is new or empty, while it is searched and changed. Returns the copy, open.

    The copy is there as a whole or not at all: the catalog, uploaded pictures, encoders, and the current generation.
    Pictures that stay where they are, outside the index, are not copied. Raises IndexExists, IndexDamaged,
    StorageFailed (also where an uploaded picture is missing or damaged).
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise IndexExists(f"{to} is there already. Name a new folder for the copy.")
    draft = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    with storage_errors(to):
        try:
            make_folder(draft)
            gone = _copy(index, draft)
            for parent, _, names in os.walk(draft):
                for path in (*(Path(parent, name) for name in names), Path(parent)):
                    sync(path)
            draft.replace(to)
            sync(to.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    copy = Index.open(to, writable=True)
    try:
        with copy.lock():
            copy.remove(gone)
    except BaseException:
        copy.close()
        raise
    return copy


def _copy(index: Index, draft: Path) -> list[str]:
    """Copy everything. Returns the ids of images that were removed from the index since their catalog was copied."""
    place = draft / "catalog.sqlite"
    index.catalog.copy(place)
    catalog = Catalog.open(place)
    generation = catalog.changes(since=NEWEST).generation
    uploaded = catalog.uploaded(str(index.uploads))
    catalog.close()
    folders = ["models"] if generation is None else ["models", f"generations/{generation}"]
    for folder in folders:
        try:
            shutil.copytree(index.path / folder, draft / folder)
        except (FileNotFoundError, shutil.Error):  # a generation that was replaced meanwhile can be made again
            if folder == "models" and (index.path / folder).exists():
                raise
            shutil.rmtree(draft / folder, ignore_errors=True)
    gone = []
    for path, image_id in uploaded:
        target = draft / index.uploads.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            data = (index.uploads / path).read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() == image_id:
            target.write_bytes(data)
        elif _holds(index, image_id):
            raise StorageFailed(f"{index.uploads / path} is missing or damaged. Run: lookalike verify {index.path}")
        else:
            gone.append(image_id)
    return gone


def _holds(index: Index, image_id: str) -> bool:
    try:
        return index.catalog.rowid(image_id) >= 0
    except UnknownImage:
        return False
