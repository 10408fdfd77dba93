"""Connections to an SQLite file, and the one place where SQLite's errors become ours."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, QueuePool

from search.errors import IndexDamaged, IndexLocked, SearchError, StorageFailed
from search.names import composed
from search.sqlite.descriptor import Database, hold, release

_OF_READING = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
}
"""Codes of errors that only a file that is read can cause."""
PAGE_BYTES = 8192
"""Five 384-d embeddings fit a page of 8 KiB; with SQLite's default of 4 KiB, two would, and a quarter be wasted."""


def writing_engine(path: Path) -> Engine:
    """The engine of the one writer: WAL, a COMMIT that has reached the disk, transactions that lock at once."""
    # The log is emptied by `search.sqlite.checksums`, which notes checksums of what then lies in the database.
    # FULL, not NORMAL: an acknowledged change must survive a power cut, and it costs under a millisecond.
    pragmas = [f"page_size={PAGE_BYTES}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"]
    pragmas += ["wal_autocheckpoint=0", "journal_size_limit=0"]
    return _engine(path, "rwc", "BEGIN IMMEDIATE", pragmas, pool=QueuePool, size=1)


def reading_engine(path: Path, *, pooled: bool = True) -> Engine:
    """An engine that can only read. Each transaction sees one state of the catalog from its first query on."""
    # Several checkpointing connections hit SQLite 3.40's WAL-reset bug: readers never checkpoint.
    pragmas = ["query_only=ON", "wal_autocheckpoint=0", "mmap_size=268435456"]
    # On such a disk, SQLite would make a log beside it, and fail.
    mode = "ro&immutable=1" if _on_read_only_disk(path) else "ro"
    return _engine(path, mode, "BEGIN", pragmas, pool=QueuePool if pooled else NullPool, size=8)


class FileConnection(sqlite3.Connection):
    """SQLite's connection to a file, which `database` keeps open until this has closed it. Raises StorageFailed."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=10, check_same_thread=False)
        self._held: Database | None = hold(path)

    def close(self) -> None:
        """Close it, and then let go of the file."""
        super().close()
        held, self._held = self._held, None
        if held is not None:
            release(held)


def close_writer(path: Path, writer: Engine) -> None:
    """Close a writer's connections while another one reads: the last to close would move the WAL into the database.

    SQLite does that by itself, and knows nothing of our checksums.
    """
    with suppress(sqlite3.Error, StorageFailed), closing(FileConnection(path, "ro")) as reader:
        reader.execute("SELECT count(*) FROM sqlite_master")
        writer.dispose()
    writer.dispose()


def _on_read_only_disk(path: Path) -> bool:
    """Whether nobody can change this database: its disk is mounted for reading only, and its log is empty."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        return False
    return hasattr(os, "statvfs") and bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)


def _engine(path: Path, mode: str, begin: str, pragmas: list[str], *, pool: type, size: int) -> Engine:
    limits: dict[str, Any] = {"pool_size": size, "max_overflow": 0} if pool is QueuePool else {}
    engine = create_engine(
        "sqlite://",
        creator=lambda: FileConnection(path, mode),
        poolclass=pool,
        json_serializer=partial(json.dumps, allow_nan=False, ensure_ascii=False, separators=(",", ":")),
        **limits,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves: pysqlite would begin them too late
        connection.create_function("composed", 1, composed, deterministic=True)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def translated(path: Path, *, source: Path | None = None) -> Iterator[None]:
    """Turn what SQLite and the operating system raise into `SearchError`s that name the catalog and the next step.

    source: the catalog that is read, where it is not the one that is written.
    """
    try:
        yield
    except DatabaseError as error:
        raise _translate(error.orig, path, source or path) from error
    except sqlite3.DatabaseError as error:
        raise _translate(error, path, source or path) from error
    except PoolTimeout as error:
        raise StorageFailed(f"Too many read {path} at once. Try again.") from error


def _translate(error: BaseException | None, path: Path, source: Path) -> SearchError:
    precisely = getattr(error, "sqlite_errorcode", 0)
    code = precisely & 0xFF
    if {precisely, code} & _OF_READING:
        path = source
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT):
        return IndexDamaged(f"The catalog {path} is damaged ({error}). Restore it from a backup, or build a new index.")
    if code == sqlite3.SQLITE_FULL:
        return StorageFailed(
            f"The disk is full: nothing more was written to {path}. Free space and try again.", disk_full=True
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return IndexLocked(f"Another process is writing to {path}. Try again when it is done.")
    if code == sqlite3.SQLITE_READONLY:
        return StorageFailed(f"The catalog {path} cannot be written to. Check its permissions and those of its folder.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StorageFailed(
            f"The catalog {path} cannot be opened. Check its permissions and those of its folder: who reads it must be "
            "allowed to write there too, unless the disk is mounted for reading only."
        )
    return StorageFailed(f"Reading or writing the catalog {path} failed ({error}). Check the disk.")
