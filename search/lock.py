"""The lock of an index's one writer: threads of a process wait for one another, other processes are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from search.errors import IndexLocked, StorageFailed
from search.files import make_folder, storage_errors

PATIENCE = 30
"""Seconds that threads wait for one another to write, and a publication for other processes."""
PAUSE = 0.05
"""Seconds between two looks at a lock that another process holds."""


@contextmanager
def write_lock(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold the lock of an index's one writer, which other processes respect. Raises IndexLocked if it is taken.

    Threads of this process wait for one another; one that holds the lock may take it again. timeout: seconds to wait
    for another process; other threads are let through meanwhile, to be refused by themselves. Makes the index's folder
    if there is none yet.
    """
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise StorageFailed(f"{path} is a file. Name a folder for the index.")
        make_folder(path)
        key = path.resolve()
    turn = _turns.setdefault(key, threading.RLock())
    until = time.monotonic() + timeout
    while True:
        if not turn.acquire(timeout=PATIENCE):
            raise IndexLocked(f"Another thread has been writing to {path} for {PATIENCE} seconds. Try again later.")
        try:
            if key in _held:
                yield
                return
            if lock := _acquired(path, last=time.monotonic() >= until):
                _held.add(key)
                try:
                    yield
                finally:
                    _held.discard(key)
                    lock.release()
                return
        finally:
            turn.release()
        time.sleep(PAUSE)


def _acquired(path: Path, *, last: bool) -> FileLock | None:
    """The lock of an index, taken; None where another process has it, or, at the `last` try, IndexLocked."""
    lock = FileLock(path / "lock", timeout=0)
    with storage_errors(path):
        try:
            lock.acquire()
        except Timeout as error:  # an OSError too: told apart here
            if not last:
                return None
            raise IndexLocked(
                f"Another process is writing to {path}. Wait until it is done, or stop it, and try again."
            ) from error
    return lock


_turns: dict[Path, threading.RLock] = {}
"""For each index, which thread of this process writes to it."""
_held: set[Path] = set()
"""Indexes whose lock this process holds."""
