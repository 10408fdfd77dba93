"""Checksums of the catalog's pages, which SQLite does not keep: what the disk has changed is found before it is read.

`catalog.sqlite.sums` holds the CRC-32 of each page as it was last moved from the log into the database. Pages that the
log holds are read from there, and need none; those about to be moved are named in the file first, so that it is never
wrong, wherever a writer is killed. It also says how many transactions were acknowledged: a log whose end is damaged
would otherwise be taken for a shorter one.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from search.errors import IndexDamaged, StorageFailed
from search.files import draft_name, storage_errors, write_whole

MAGIC = b"LKSUMS1\n"
WITNESS = struct.Struct("<QI")
"""Acknowledged transactions, and the checksum of this number. Written in place: no sector is written by half."""
HEAD = struct.Struct("<IIII")
"""Bytes of a page, pages, pages about to be moved, and the checksum of these three and of what follows."""
LOG_HEAD, FRAME_HEAD = 32, 24
READ = 1 << 20
"""Bytes read at once."""
PATIENCE, PAUSE = 20, 0.05
"""Looks at pages that a writer may just be moving, and seconds between them."""
ADVICE = (
    "Restore the index from a backup, or build it again. If another program wrote to it, or you put an older one "
    "back, and lookalike verify finds nothing else, delete {} (and the -wal beside it, if it is older)."
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
    """What the log holds: where each page's last content stands in it, and how many pages the database has with them.

    `count` is None where the log is empty.
    """

    frames: Mapping[int, int]
    count: int | None

    def sums(self, catalog: Path, page: int, numbers: Iterable[int]) -> dict[int, int]:
        """The sums of pages as the log holds them."""
        if not self.frames:
            return {}
        with Path(f"{catalog}-wal").open("rb") as file:
            return {number: _sum(file, page, self.frames[number]) for number in numbers if number in self.frames}


def place(catalog: Path) -> Path:
    """Where a catalog's checksums lie."""
    return catalog.with_name(f"{catalog.name}.sums")


def log_bytes(catalog: Path) -> int:
    """The size of the log. Raises StorageFailed."""
    with storage_errors(catalog), suppress(FileNotFoundError):
        return Path(f"{catalog}-wal").stat().st_size
    return 0


def check(catalog: Path) -> int:
    """Compare every page with its checksum. Returns how many transactions were acknowledged, 0 where nothing is known.

    A catalog without intact sums passes; the next writer makes them. Raises IndexDamaged, StorageFailed.
    """
    with _reading(catalog):
        suspects: set[int] | None = None
        before = None
        for _ in range(PATIENCE):
            now = _times(catalog)
            known = _Sums.read(place(catalog))
            if known is None:
                return 0
            suspects = _different(catalog, known, _log(catalog), suspects)
            if not suspects:
                return known.acknowledged
            if now == before:
                break  # nobody moves pages: it is so
            before = now
            time.sleep(PAUSE)
        assert suspects is not None
    raise IndexDamaged(
        f"{len(suspects):,} pages of the catalog {catalog} are not what was written. {ADVICE.format(place(catalog))}"
    )


def intact(catalog: Path) -> bool:
    """Whether there are checksums, and they can be read."""
    with _reading(catalog):
        return _Sums.read(place(catalog)) is not None


def _times(catalog: Path) -> list[int]:
    """When the catalog, its log and its checksums were written last."""
    return [file.stat().st_mtime_ns for file in sorted(catalog.parent.glob(f"{catalog.name}*")) if file.exists()]


@contextmanager
def _reading(catalog: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{error.filename or catalog} cannot be read: {error.strerror}. Check its permissions, and the disk."
        ) from error


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


def settle(connection: Any, catalog: Path, *, wait: float | None = None) -> bool:
    """Move what is in the log into the database, and note the sums. Returns False where readers keep a part of it back.

    connection: the writer's (sqlite3), outside any transaction. wait: then empty the log, waiting so many seconds for
    readers of it. Only in the process that holds the lock. Raises sqlite3.DatabaseError, StorageFailed.
    """
    (acknowledged,) = connection.execute("SELECT max(value) FROM state WHERE key = 'commits'").fetchone()
    with storage_errors(catalog):
        log, known = _log(catalog), _Sums.read(place(catalog))
        sums = np.empty(0, dtype=np.uint32)
        if known is not None:
            # What a page will be is taken from the log: read from the database, its damage would be noted as right.
            coming = log.sums(catalog, known.page, log.frames)
            changed = {number for number, crc in coming.items() if crc != _at(known.sums, number)} | known.moving
            sums = _resized(known.sums, len(known.sums) if log.count is None else log.count)
            if changed:
                _write(catalog, replace(known, sums=sums, moving=frozenset(changed)))
    busy, held, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    complete = not busy and held == moved
    with storage_errors(catalog):
        if known is None:
            _write(catalog, _first(catalog, frozenset() if complete else frozenset(log.frames), acknowledged or 0))
        elif changed and complete:
            with catalog.open("rb") as file:  # what an earlier writer moved, and was killed
                coming |= {number: _sum_of(file, known.page, number) for number in known.moving - set(coming)}
            for number, crc in coming.items():
                if number <= len(sums):
                    sums[number - 1] = crc
            done = _Sums(page=known.page, sums=sums, moving=frozenset(), acknowledged=acknowledged or 0)
            _write(catalog, done)
    if complete and wait is not None:
        connection.execute(f"PRAGMA busy_timeout={round(1000 * wait)}")
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return complete and not busy


def _write(catalog: Path, sums: _Sums) -> None:
    for left in catalog.parent.glob(draft_name(place(catalog), "*")):  # of a writer that was killed
        left.unlink(missing_ok=True)
    write_whole(place(catalog), sums.to_bytes(), durable=True)


def _witness(commits: int) -> bytes:
    return WITNESS.pack(commits, zlib.crc32(commits.to_bytes(8, "little")))


def _crc(counts: tuple[int, ...], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack("<III", *counts)))


def _resized(sums: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    resized = np.zeros(count, dtype=np.uint32)
    resized[: len(sums)] = sums[:count]
    return resized


def _log(catalog: Path) -> _Log:
    """What the write-ahead log holds: frames that belong together, up to the last that ends a transaction.

    The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log; its checksums are SQLite's business.
    """
    frames: dict[int, int] = {}
    count, uncommitted = None, dict[int, int]()
    try:
        descriptor = os.open(f"{catalog}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return _Log(frames={}, count=None)
    try:
        head = os.pread(descriptor, LOG_HEAD, 0)
        page = int.from_bytes(head[8:12], "big")
        place = LOG_HEAD
        while len(frame := os.pread(descriptor, FRAME_HEAD, place)) == FRAME_HEAD and frame[8:16] == head[16:24]:
            number, size = struct.unpack(">II", frame[:8])
            uncommitted[number] = place + FRAME_HEAD
            if size:
                frames |= uncommitted
                count, uncommitted = size, {}
            place += FRAME_HEAD + page
    finally:
        os.close(descriptor)
    return _Log(frames=frames, count=count)


def _different(catalog: Path, known: _Sums, log: _Log, suspects: set[int] | None) -> set[int]:
    """Pages, counted from 1, that are not what was written. suspects: look at these only."""
    count = len(known.sums) if log.count is None else log.count
    with catalog.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if suspects is None:
            suspects = set((np.flatnonzero(_sums(file, known.page, count) != _resized(known.sums, count)) + 1).tolist())
        else:
            suspects = {number for number in suspects if _sum_of(file, known.page, number) != _at(known.sums, number)}
        suspects = {number for number in suspects if number <= count} - known.moving
        coming = log.sums(catalog, known.page, suspects)
        different = {
            number for number in suspects if number not in coming or _sum_of(file, known.page, number) != coming[number]
        }
    if log.count is None and size != count * known.page:
        different.add(count + 1)
    return different


def _at(sums: NDArray[np.uint32], number: int) -> int:
    return int(sums[number - 1]) if number <= len(sums) else 0


def _sum(file: BinaryIO, page: int, offset: int) -> int:
    file.seek(offset)
    return zlib.crc32(file.read(page))


def _sum_of(file: BinaryIO, page: int, number: int) -> int:
    return _sum(file, page, (number - 1) * page)


def _sums(file: BinaryIO, page: int, count: int) -> NDArray[np.uint32]:
    """The sums of the first `count` pages of a file; 0 for those that it has not got."""
    sums, done, step = np.zeros(count, dtype=np.uint32), 0, max(1, READ // page)
    while done < count and (block := memoryview(file.read(page * min(step, count - done)))):
        for start in range(0, len(block), page):
            sums[done] = zlib.crc32(block[start : start + page])
            done += 1
    return sums


def _first(catalog: Path, moving: frozenset[int], acknowledged: int) -> _Sums:
    """The sums of a database of which none are known."""
    with catalog.open("rb") as file:
        page = int.from_bytes(file.read(18)[16:], "big")
        count = os.fstat(file.fileno()).st_size // page
        file.seek(0)
        return _Sums(page=page, sums=_sums(file, page, count), moving=moving, acknowledged=acknowledged)
