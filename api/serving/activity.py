"""Activity of this process's services: whoever works for nobody in particular waits until they do nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class Activity:
    """Counts what is under way, in any thread, and remembers when the last of it ended."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._under_way = 0
        self._ended = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Something is under way that the machine should be left to."""
        with self._changing:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changing:
                self._under_way -= 1
                self._ended = time.monotonic()

    def idle(self) -> float:
        """Seconds since anything was under way; 0 while something is."""
        with self._changing:
            return 0.0 if self._under_way else time.monotonic() - self._ended


HERE = Activity()
"""The activity of all services of this process: they share its cores."""


async def run(pool: Executor, work: Callable[[], Result]) -> Result:
    """Do some work in a pool, off the event loop, while HERE counts it."""
    with HERE.working():
        return await asyncio.get_running_loop().run_in_executor(pool, work)
