"""Checksums of the catalog's pages, which SQLite does not keep: what the disk has changed is found before it is read.

`catalog.sqlite.sums` holds the CRC-32 of each page of the database. Pages change there only when the log is moved into
it: those that may are named in the file first, so that it is never wrong, wherever a writer is killed, and whatever
lies in the log. It also says how many transactions were acknowledged: a log whose end is damaged would otherwise be
taken for a shorter one.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import IndexDamaged
from search.files import draft_name, reading_errors, storage_errors, write_whole
from search.sqlite.descriptor import Database, opened

MAGIC = b"LKSUMS1\n"
WITNESS = struct.Struct("<QI")
"""Acknowledged transactions, and the checksum of this number. Written in place: no sector is written by half."""
HEAD = struct.Struct("<IIII")
"""Bytes of a page, pages, pages about to be moved, and the checksum of these three and of what follows."""
LOG_HEAD, FRAME_HEAD = 32, 24
LOOKS, BETWEEN_LOOKS = 20, 0.05
"""Looks at pages that a writer may just be moving, and seconds between them."""
ADVICE = (
    "Restore the index from a backup, or move its folder away and build it again. If another program wrote to it, or "
    "you put an older one back, and lookalike verify finds nothing else, delete {} (and the -wal beside it, if it is "
    "older)."
)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """`sums`: of each page, uint32; that of page 1 first. `moving`: pages that may have been moved since."""

    page: int
    sums: NDArray[np.uint32]
    moving: frozenset[int]
    acknowledged: int

    def to_bytes(self) -> bytes:
        counts = (self.page, len(self.sums), len(self.moving))
        data = self.sums.astype("<u4").tobytes() + np.sort(np.fromiter(self.moving, dtype="<u4")).tobytes()
        return MAGIC + _witness(self.acknowledged) + HEAD.pack(*counts, _crc(counts, data)) + data

    def same(self, other: _Sums | None) -> bool:
        """Whether it says the same of each page."""
        return other is not None and self.moving == other.moving and np.array_equal(self.sums, other.sums)

    @classmethod
    def read(cls, path: Path) -> _Sums | None:
        """None where there are none, or they are damaged."""
        try:
            data = path.read_bytes()
            acknowledged, crc = WITNESS.unpack_from(data, len(MAGIC))
            *counts, total = HEAD.unpack_from(data, len(MAGIC) + WITNESS.size)
        except (FileNotFoundError, struct.error):
            return None
        page, count, moving = counts
        rest = data[len(MAGIC) + WITNESS.size + HEAD.size :]
        whole = _crc((page, count, moving), rest) == total and len(rest) == 4 * (count + moving)
        if not data.startswith(MAGIC) or not whole:
            return None
        if _witness(acknowledged) != WITNESS.pack(acknowledged, crc):
            acknowledged = 0  # its writer was killed in the midst of it
        numbers = np.frombuffer(rest, dtype="<u4").astype(np.uint32)
        return cls(
            page=page, sums=numbers[:count], moving=frozenset(numbers[count:].tolist()), acknowledged=acknowledged
        )


@dataclass(frozen=True, kw_only=True)
class _Log:
    """The frames of the log, whether they count or not, of a database with pages of `page` bytes.

    `pages`: which each frame holds. `counts`: how many the database has, where a frame ends a transaction; else 0.
    """

    page: int
    pages: list[int]
    counts: list[int]

    @classmethod
    def read(cls, catalog: Path, page: int) -> _Log:
        """The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log."""
        log = cls(page=page, pages=[], counts=[])
        with suppress(FileNotFoundError), _reader(_wal(catalog)) as descriptor:
            while len(head := os.pread(descriptor, 8, log.place(len(log.pages)))) == 8:
                number, count = struct.unpack(">II", head)
                log.pages.append(number)
                log.counts.append(count)
        return log

    def place(self, frame: int) -> int:
        """The offset of a frame."""
        return LOG_HEAD + frame * (FRAME_HEAD + self.page)

    def changes(self, count: int) -> frozenset[int]:
        """The pages that may change in a database of `count` pages when this is moved: written, or cut off."""
        least = min((size for size in self.counts if size), default=count)
        return frozenset(self.pages) | frozenset(range(least + 1, count + 1))

    def sums(self, catalog: Path, frames: int) -> dict[int, int]:
        """The sum of each page as the first so many frames leave it."""
        last = {number: frame for frame, number in enumerate(self.pages[:frames])}
        if not last:
            return {}
        with _reader(_wal(catalog)) as descriptor:
            return {
                number: zlib.crc32(os.pread(descriptor, self.page, self.place(frame) + FRAME_HEAD))
                for number, frame in last.items()
            }


@contextmanager
def _reader(path: Path) -> Iterator[int]:
    """A descriptor of its own; not of the database, nor of its -shm, which SQLite locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def place(catalog: Path) -> Path:
    """Where a catalog's checksums lie."""
    return catalog.with_name(f"{catalog.name}.sums")


def _wal(catalog: Path) -> Path:
    return catalog.with_name(f"{catalog.name}-wal")


def wal_bytes(catalog: Path) -> int:
    """The size of the log. Raises StorageFailed."""
    with storage_errors(catalog), suppress(FileNotFoundError):
        return _wal(catalog).stat().st_size
    return 0


def check(catalog: Path) -> int:
    """Compare every page with its checksum. Returns how many transactions were acknowledged, 0 where nothing is known.

    A catalog without intact sums passes; the next writer makes them. Raises IndexDamaged, StorageFailed.
    """
    suspects: set[int] | None = None
    with reading_errors(catalog), opened(catalog) as database:
        for _ in range(LOOKS):
            known = _Sums.read(place(catalog))
            if known is None:
                return 0
            suspects = _different(database, known, suspects)
            if not suspects:
                return known.acknowledged
            if known.same(_Sums.read(place(catalog))):
                break  # nobody moved pages meanwhile, but those named in it: it is so
            time.sleep(BETWEEN_LOOKS)
    assert suspects is not None
    raise IndexDamaged(
        f"{len(suspects):,} pages of the catalog {catalog} are not what was written. {ADVICE.format(place(catalog))}"
    )


def intact(catalog: Path) -> bool:
    """Whether there are checksums, and they can be read."""
    with reading_errors(catalog):
        return _Sums.read(place(catalog)) is not None


def lost(catalog: Path, count: int) -> IndexDamaged:
    """The error to raise where `count` acknowledged transactions are missing."""
    return IndexDamaged(
        f"The catalog {catalog} lacks the last {count:,} changes: its log was damaged or deleted. "
        f"{ADVICE.format(place(catalog))}"
    )


def acknowledge(catalog: Path, commits: int) -> None:
    """Note that so many transactions are on the disk. Raises StorageFailed."""
    with storage_errors(catalog), suppress(FileNotFoundError):
        descriptor = os.open(place(catalog), os.O_WRONLY)
        try:
            os.pwrite(descriptor, _witness(commits), len(MAGIC))
        finally:
            os.close(descriptor)


def checkpoint(connection: Any, catalog: Path, acknowledged: int, *, wait: float | None = None) -> bool:
    """Move the WAL into the database, and store the new checksums. Returns False where readers keep a part of it back.

    connection: the writer's (sqlite3), outside any transaction. acknowledged: how many transactions the file counts.
    wait: also empty the WAL, waiting so many seconds for its readers. Only in the process that holds the lock. Raises
    sqlite3.DatabaseError, StorageFailed.
    """
    with storage_errors(catalog), opened(catalog) as database:
        known = _Sums.read(place(catalog))
        if known is not None:
            # Not all of these need count: a change that failed, or was cut short, may have left a whole one's frames.
            log = _Log.read(catalog, known.page)
            changes = log.changes(len(known.sums))
            if not changes <= known.moving:
                _write(catalog, replace(known, moving=known.moving | changes))
        busy, held, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        complete = not busy and held == moved
        if known is None:
            _write(catalog, _first(catalog, database, acknowledged, complete=complete))
        elif complete and (changes or known.moving):
            sums = _moved(catalog, database, known, log, held)
            _write(catalog, _Sums(page=known.page, sums=sums, moving=frozenset(), acknowledged=acknowledged))
    if complete and wait is not None:
        (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute(f"PRAGMA busy_timeout={round(1000 * wait)}")
        try:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout={before}")
    return complete and not busy


def _write(catalog: Path, sums: _Sums) -> None:
    for left in catalog.parent.glob(draft_name(place(catalog), "*")):  # of a writer that was killed
        left.unlink(missing_ok=True)
    write_whole(place(catalog), sums.to_bytes(), durable=True)


def _witness(commits: int) -> bytes:
    return WITNESS.pack(commits, zlib.crc32(commits.to_bytes(8, "little")))


def _crc(counts: tuple[int, ...], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack("<III", *counts)))


def _different(database: Database, known: _Sums, suspects: set[int] | None) -> set[int]:
    """Pages, counted from 1, that are not what was written. suspects: look at these only."""
    count = len(known.sums)
    if suspects is None:
        different = set((np.flatnonzero(database.sums(known.page, count) != known.sums) + 1).tolist())
    else:
        here = {number for number in suspects if number <= count}
        different = {number for number in here if database.sum(known.page, number) != known.sums[number - 1]}
    if not known.moving and database.size != count * known.page:
        different.add(count + 1)
    return different - known.moving


def _moved(catalog: Path, database: Database, known: _Sums, log: _Log, held: int) -> NDArray[np.uint32]:
    """The sums of all pages, once the first `held` frames of the log are in the database.

    SQLite says how many those are: it alone knows which of the frames it has taken back.
    """
    if held > len(log.pages) or (held and not log.counts[held - 1]):
        raise IndexDamaged(f"Another program deleted or replaced the log of {catalog}. {ADVICE.format(place(catalog))}")
    count = len(known.sums)
    if held:
        count = log.counts[held - 1]
    elif known.moving:
        count = database.size // known.page
    sums = np.zeros(count, dtype=np.uint32)
    sums[: len(known.sums)] = known.sums[:count]
    # What a page is now is taken from the log: read from the database, its damage would be noted as right. Not so for
    # what an earlier writer moved, and was killed; and for the page at 1 GiB, which SQLite never writes.
    logged = log.sums(catalog, held)
    others = known.moving.union(range(len(known.sums) + 1, count + 1)) - logged.keys()
    for number, crc in [*logged.items(), *((number, database.sum(known.page, number)) for number in others)]:
        if 0 < number <= count:
            sums[number - 1] = crc
    return sums


def _first(catalog: Path, database: Database, acknowledged: int, *, complete: bool) -> _Sums:
    """The sums of a database of which none are known. complete: all of the log is in it."""
    page = int.from_bytes(database.read(2, 16), "big")
    sums = database.sums(page, database.size // page)
    moving = frozenset[int]() if complete else _Log.read(catalog, page).changes(len(sums))
    return _Sums(page=page, sums=sums, moving=moving, acknowledged=acknowledged)
