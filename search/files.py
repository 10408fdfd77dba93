"""Files that must be whole: written aside, flushed, renamed. Files of other programs; the system's refusals."""

from __future__ import annotations

import codecs
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search.errors import PathInvalid, StorageFailed
from search.names import is_text


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk; of a folder, its entries (POSIX only: Windows has no such call)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_path(path: Path) -> None:
    """Raise PathInvalid for a path of an index that is not valid UTF-8: SQLite and JSON cannot hold it."""
    if not is_text(str(path.absolute())):
        raise PathInvalid(f"No index can be at {path}: its name is not valid UTF-8; rename it.")


def decoded(data: bytes, *, errors: str = "strict") -> str:
    """The string in a file as editors, spreadsheets and shells save it: UTF-8, or UTF-16 where it begins with its mark.

    A byte-order mark is not part of it. errors: for UTF-8, as `bytes.decode` has them. Raises UnicodeDecodeError.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, so that a power cut cannot lose them. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing or [path]):  # who made it may have died before it was flushed
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # somebody else's folder, that we may pass through but not read
            sync(folder.parent)


def draft_name(path: Path, token: str) -> str:
    """The name of a file while it is written."""
    return f".{path.name}.{token}.tmp"


def write_whole(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file so that its name never shows half of it; `durable`: and that a power cut after this cannot lose it.

    Makes the folder it lies in. Raises OSError.
    """
    make_folder(path.parent)
    draft = path.with_name(draft_name(path, secrets.token_hex(8)))  # not mkstemp's: it would be its owner's alone
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)  # once closed: Windows renames no open file
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn refusals to write, the operating system's and those of C++ streams, into StorageFailed."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "The disk is full. Free space and try again." if full else f"{error.strerror or error}."
        raise StorageFailed(f"Writing {path} failed: {hint}", disk_full=full) from error
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # So OpenVINO says that a model could not be written; why, it does not say.
        raise StorageFailed(f"Writing {path} failed: {error}. Check the disk's free space.") from error


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to read into StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{error.filename or path} cannot be read: {error.strerror}. Check its permissions, and the disk."
        ) from error
