"""Faults of one process: a call that changes a file kills it, or fails, or another file takes a name just then."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "open", "os.chmod", "os.chown", "os.utime")
"""Calls that change a file, by the names of Python's audit events."""
FAILING = CHANGES[:5]
"""Those that may fail: times and permissions come back as far as the system lets us."""
ERRORS = (errno.EIO, errno.EROFS, errno.ENOENT, errno.EACCES, errno.ENOSPC)
FOREIGN = b"of somebody else"
"""What a file holds that takes a name."""

Fault = Callable[[str, str], None]
"""What happens before a call: told of its name, and of the path that it changes. It may raise OSError."""


def kill(_: str, __: str) -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing(chance: random.Random) -> Fault:
    """Let a call fail, with an error by chance."""
    number = chance.choice(ERRORS)

    def fail(call: str, path: str) -> None:
        if call in FAILING and not (call == "os.remove" and number == errno.ENOENT):  # which is what was wanted
            raise OSError(number, os.strerror(number), path)

    return fail


def taking(names: Sequence[Path]) -> Fault:
    """Let somebody else take the first of some names that is free."""

    def take(_: str, __: str) -> None:
        for path in names:
            if path.parent.is_dir() and not os.path.lexists(path):
                path.write_bytes(FOREIGN)
                return

    return take


def ended(work: Callable[[], None], base: Path, call: int | None, seconds: float, fault: Fault = kill) -> bool:
    """Do some work in a process of its own. Whether it ended well by itself.

    call: before which the fault happens, counted from 0, of those that change a file below a folder. After so many
    seconds the process is killed.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if call is not None:
                _before(base, call, fault)
            work()
            status = 0
        finally:
            os._exit(status)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            return status == 0
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _before(base: Path, call: int, fault: Fault) -> None:
    count = 0

    def hook(event: str, words: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and words and str(base) in str(words[0]):
            if event == "open" and not (isinstance(words[1], str) and set(words[1]) & set("wxa+")):
                return
            count += 1
            if count == call + 1:
                fault(event, str(words[0]))

    sys.addaudithook(hook)
