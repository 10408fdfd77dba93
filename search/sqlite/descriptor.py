"""The catalog's file, read by us beside SQLite, without letting go of the locks that SQLite has on it."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.files import reading_errors

READ = 1 << 20
"""Bytes read at once."""


@dataclass(eq=False)
class Database:
    """The catalog's file, read beside SQLite. `users`: who needs it open, SQLite's connections here included.

    When a process closes any descriptor of a file, POSIX drops all its locks on it, SQLite's too: another program would
    then take itself for the last to close the database, and delete the log under a writer. So there is one descriptor
    for each file, closed after SQLite's.
    """

    inode: tuple[int, int]
    descriptors: list[int] = field(default_factory=list)
    """One; or two, where a file took the place of another while it was opened."""
    users: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.descriptors[0]).st_size

    def read(self, size: int, offset: int) -> bytes:
        """So many bytes, or those that there are."""
        return os.pread(self.descriptors[0], size, offset)

    def sum(self, page: int, number: int) -> int:
        """The sum of a page, counted from 1; 0 where there is none."""
        return zlib.crc32(self.read(page, (number - 1) * page))

    def sums(self, page: int, count: int) -> NDArray[np.uint32]:
        """The sums of the first `count` pages; 0 for those that there are not."""
        sums, done, step = np.zeros(count, dtype=np.uint32), 0, max(1, READ // page)
        while done < count and (block := memoryview(self.read(page * min(step, count - done), page * done))):
            for start in range(0, len(block), page):
                sums[done] = zlib.crc32(block[start : start + page])
                done += 1
        return sums


_databases: dict[tuple[int, int], Database] = {}
_holding = threading.RLock()


def hold(catalog: Path) -> Database:
    """Keep a catalog's file open, until `release`. Raises StorageFailed."""
    with reading_errors(catalog), _holding:
        database = _databases.get(_inode(catalog.stat()))
        if database is None:
            descriptor = os.open(catalog, os.O_RDONLY)
            inode = _inode(os.fstat(descriptor))
            database = _databases.setdefault(inode, Database(inode))
            database.descriptors.append(descriptor)
        database.users += 1
        return database


def release(database: Database) -> None:
    """Let go of a file; it is closed where nobody else holds it."""
    with _holding:
        database.users -= 1
        if not database.users:
            del _databases[database.inode]
            for descriptor in database.descriptors:
                os.close(descriptor)


def is_at(database: Database, catalog: Path) -> bool:
    """Whether the file that is held is still the one of this name."""
    try:
        return _inode(catalog.stat()) == database.inode
    except OSError:
        return False


def _inode(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


@contextmanager
def opened(catalog: Path) -> Iterator[Database]:
    """Keep it open while a block runs."""
    database = hold(catalog)
    try:
        yield database
    finally:
        release(database)
