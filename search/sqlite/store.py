"""A checksummed SQLite file: connections, transactions, and the WAL that is moved into it. It knows no table."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import Connection, Engine, PoolProxiedConnection

from search.errors import IndexDamaged, IndexExists, IndexLocked, IndexMoved, IndexTooNew, SearchError, StorageFailed
from search.files import storage_errors, sync
from search.sqlite import checksums, descriptor
from search.sqlite.connections import FileConnection, close_writer, reading_engine, translated, writing_engine

WAL_LIMIT_BYTES = 8 << 20
"""Size of the WAL at which it is moved into the database."""
CHECKPOINT_RETRY_SECONDS = 0.05
"""Between two tries to move the WAL while somebody reads it."""


class Store:
    """One open SQLite file, whose tables a subclass knows. Safe to use from several threads.

    Only the process that holds the index's lock may write.
    """

    application_id: ClassVar[int]
    """Tells this kind of file from any other SQLite file."""
    schema_version: ClassVar[int]
    """The newest schema that can be read."""

    commits_sql: ClassVar[str]
    """Selects how many transactions the file counts: one row, NULL in a file without any."""
    count_commit_sql: ClassVar[str]
    """Counts the open transaction, and returns how many there are with it."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.outdated = False
        """Whether an older Lookalike made it: `search.catalog.migrate` first."""
        self._readers = reading_engine(path)
        self._watcher: PoolProxiedConnection | None = None
        self._watching = threading.Lock()
        self._writer = writing_engine(path) if writable else None
        self.written = False
        """Whether this process has changed it."""
        self._closed = False
        self._wal_limit = WAL_LIMIT_BYTES
        self._file = descriptor.hold(path)
        # At the end of the process too: SQLite would move the log into the database then, without our sums.
        self._finalizer = weakref.finalize(self, _close, path, self._file, self._readers, self._writer)

    @classmethod
    def create_file(cls, path: Path, fill: Callable[[Connection], None]) -> Self:
        """Make a new file. fill: creates its tables and first rows. Raises IndexExists, StorageFailed."""
        if path.exists():
            raise IndexExists(f"There is already an index at {path.parent}.")
        draft = path.with_suffix(".new")  # renamed when complete: a killed creation leaves no half catalog
        with storage_errors(path):
            for left in (draft, draft.with_name(f"{draft.name}-wal"), checksums.place(draft)):
                left.unlink(missing_ok=True)
        engine = writing_engine(draft)
        with translated(path), engine.begin() as connection:
            fill(connection)
            connection.exec_driver_sql(f"PRAGMA application_id={cls.application_id}")
            connection.exec_driver_sql(f"PRAGMA user_version={cls.schema_version}")
        with translated(path), engine.connect() as connection:
            # The last to close it empties the WAL too, and says nothing where that fails.
            cls.checkpoint_file(connection, draft, wait=1)
        engine.dispose()
        with storage_errors(path):
            checksums.place(draft).replace(checksums.place(path))
            for suffix in ("-wal", "-shm"):  # of a catalog that was here before: SQLite would play them back
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            sync(path.parent)  # a power cut must not leave the catalog with those, or without its checksums
            draft.rename(path)
            sync(path.parent)
        return cls(path, writable=True)

    @classmethod
    def open(cls, path: Path, *, writable: bool = False, unchecked: bool = False) -> Self:
        """Open an existing catalog, after comparing every page of it with its checksum, unless `unchecked`.

        Raises IndexDamaged (also where it is no catalog), IndexTooNew, StorageFailed.
        """
        if not os.access(path, os.R_OK):
            raise StorageFailed(f"The catalog {path} cannot be read. Check its permissions.")
        catalog = cls(path, writable=writable)
        try:
            if not unchecked:
                catalog.check()
            with catalog.reading() as connection:
                application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
                version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if application != cls.application_id:
                raise IndexDamaged(f"{path} is not a Lookalike catalog. Give the folder that `lookalike build` made.")
            if version < 1:
                raise IndexDamaged(f"{path} has schema version {version}, which there never was. Restore a backup.")
            if version > cls.schema_version:
                raise IndexTooNew(
                    f"{path} has schema version {version}, this Lookalike reads up to {cls.schema_version}. "
                    "Upgrade Lookalike to open it."
                )
        except SearchError:
            catalog.close()
            raise
        catalog.outdated = version < cls.schema_version
        return catalog

    def check(self) -> None:
        """Raise IndexDamaged where a page is not what was written, or an acknowledged change is missing."""
        acknowledged = checksums.check(self.path)
        if acknowledged:
            with self.reading() as connection:
                commits = connection.exec_driver_sql(self.commits_sql).scalar() or 0
            if commits < acknowledged:
                raise checksums.lost(self.path, acknowledged - commits)

    def close(self) -> None:
        """Close every connection. The catalog cannot be used afterwards."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.close()
        self._finalizer()

    def checkpoint(self, *, wait: float | None = None) -> bool:
        """Move the WAL into the database, whose pages get their checksums. Returns False where somebody reads it.

        wait: empty the WAL too, waiting so many seconds for readers. Only in the process that holds the lock. Raises
        StorageFailed.
        """
        writer, until = self._open_writer(), time.monotonic() + (wait or 0)
        with translated(self.path), writer.connect() as connection:
            while True:
                left = None if wait is None else max(0, until - time.monotonic())
                if self.checkpoint_file(connection, self.path, wait=left):
                    return True
                if not left:
                    return False
                time.sleep(CHECKPOINT_RETRY_SECONDS)

    @classmethod
    def checkpoint_file(cls, connection: Connection, path: Path, *, wait: float | None = None) -> bool:
        """`checkpoint` of a file by a connection of its one writer."""
        cursor = connection.connection.cursor()  # SQLite's own: a checkpoint runs outside any transaction
        (commits,) = cursor.execute(cls.commits_sql).fetchone()
        return checksums.checkpoint(cursor, path, commits or 0, wait=wait)

    def _open_writer(self) -> Engine:
        self._must_be_open()
        if self._writer is None:
            raise StorageFailed(f"The index {self.path.parent} was opened for reading only.")
        return self._writer

    def _must_be_open(self) -> None:
        if self._closed:  # the engines would open it again
            raise StorageFailed(f"The index {self.path.parent} is closed. Open it again.")
        self.must_be_here()

    def must_be_here(self) -> None:
        """Raise IndexMoved where something else, or nothing, has the catalog's name by now."""
        if not descriptor.is_at(self._file, self.path):  # a new connection would open what is there now
            raise IndexMoved(
                f"The index {self.path.parent} was moved, replaced or deleted while it was open. Stop what uses it, "
                "put the index where it belongs, and start again."
            )

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction: everything read inside it belongs to one state of the catalog."""
        self._must_be_open()
        with translated(self.path), self._readers.begin() as connection:
            try:
                yield connection
            except BaseException:
                # A statement that was not read to its end would keep this state open, for all who read after this.
                connection.invalidate()
                raise

    def rows(self, statement: str, parameters: Mapping[str, str | int]) -> list[Any]:
        """The rows of one statement's text, which needs no transaction to belong to one state of the catalog."""
        self._must_be_open()
        with (
            translated(self.path),
            closing(self._readers.raw_connection()) as connection,
            closing(connection.cursor()) as cursor,  # as in `reading`: it may not have been read to its end
        ):
            return list(cursor.execute(statement, parameters))

    @contextmanager
    def writing_connection(self) -> Iterator[Connection]:
        """A write transaction: committed, and on the disk, when the block ends; rolled back if it raises."""
        writer = self._open_writer()
        with translated(self.path), writer.begin() as connection:
            yield connection
            commits = connection.exec_driver_sql(self.count_commit_sql).scalar_one()
        self.written = True
        self.must_be_here()  # what was written to an index that is gone is not acknowledged
        with suppress(SearchError):  # it is done, whatever becomes of this
            checksums.acknowledge(self.path, commits)
            size = checksums.wal_bytes(self.path)
            if size > self._wal_limit:  # while readers keep it from being emptied, not again for every commit
                self._wal_limit = WAL_LIMIT_BYTES + (0 if self.checkpoint() else size)

    def copy(self, to: Path) -> None:
        """Write what the catalog holds now to a new database, while others go on reading and writing.

        Every page is checked first: the copy's would get the sums of what they are. Raises StorageFailed, IndexDamaged.
        """
        self.check()
        with translated(self.path), self._readers.connect() as source, translated(to, source=self.path):
            driver: Any = source.connection.driver_connection
            with closing(FileConnection(to, "rwc")) as copy:
                driver.backup(copy)  # with its size of pages, and its kind of log
        engine = writing_engine(to)
        try:
            with translated(to), engine.connect() as connection:
                self.checkpoint_file(connection, to, wait=1)
        finally:
            engine.dispose()

    def vacuum(self) -> None:
        """Write the database anew, without what was deleted, and empty its log. Raises IndexLocked while it is read."""
        writer = self._open_writer()
        with translated(self.path), writer.connect() as connection:
            connection.connection.cursor().execute("VACUUM")
        if not self.checkpoint(wait=10):
            raise IndexLocked(f"{self.path} is being read: its log could not be emptied. Run lookalike compact again.")

    def version(self) -> int:
        """A number that changes whenever anybody else commits to the catalog: microseconds, no transaction."""
        self._must_be_open()
        with translated(self.path), self._watching:
            if self._watcher is None:
                self._watcher = reading_engine(self.path, pooled=False).raw_connection()
            return int(self._watcher.cursor().execute("PRAGMA data_version").fetchone()[0])


def _close(path: Path, file: descriptor.Database, readers: Engine, writer: Engine | None) -> None:
    """Close all connections. SQLite leaves the log to `checkpoint`; that of a database that was moved, by itself."""
    if writer is not None:
        if descriptor.is_at(file, path):
            close_writer(path, writer)
        writer.dispose()
    readers.dispose()
    descriptor.release(file)
