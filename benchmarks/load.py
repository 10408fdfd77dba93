"""A load generator for `serving.py`: HTTP/1.1 over kept connections, closed or open loop, in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONNECTIONS = 2_000
"""Of an open loop, at most; requests beyond wait for one, and their time counts."""
Make = Callable[[int], bytes]
"""The bytes of the nth request."""


@dataclass
class Load:
    """What came of some seconds of requests: (began, seconds, status) of each; 0 for a connection that broke."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    processor: float = 0.0
    """Seconds of processor time that the generator itself took."""

    def of(self, *statuses: int) -> list[tuple[float, float, int]]:
        """Those with one of these statuses."""
        return [one for one in self.answers if one[2] in statuses]

    def rate(self, *statuses: int) -> float:
        """Answers with one of these statuses a second; those that came after the end do not count."""
        end = self.began + self.seconds
        return sum(began + seconds <= end for began, seconds, _ in self.of(*statuses)) / self.seconds

    def quantile(self, share: float, *statuses: int) -> float:
        """Milliseconds in which this share of them was answered."""
        found = [1e3 * seconds for _, seconds, _ in self.of(*statuses)]
        return float(np.quantile(found, share)) if found else float("nan")

    def statuses(self) -> dict[int, int]:
        """How many of each."""
        return {status: len(self.of(status)) for status in sorted({one[2] for one in self.answers})}


class Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request, read its answer, return its status; 0 where the connection broke."""
        for fresh in (False, True):  # one that was kept may have been closed meanwhile
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                    fresh = True
                return await self._asked(request)
            except (OSError, EOFError):
                self.close()
                if fresh:
                    return 0
        return 0

    async def _asked(self, request: bytes) -> int:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        size = int(lower.partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or 0)
        await reader.readexactly(size)
        if b"connection: close" in lower:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        """Drop it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def closed(port: int, make: Make, *, clients: int, seconds: float, first: int = 0) -> Load:
    """So many clients, each asking as soon as it is answered."""
    return asyncio.run(_closed(port, make, clients, seconds, first))


def open_loop(port: int, make: Make, *, rate: float, seconds: float, first: int = 0) -> Load:
    """Requests at random moments (Poisson), so many a second, whether or not others are answered.

    Time counts from the moment at which a request was to be sent.
    """
    return asyncio.run(_open(port, make, rate, seconds, first))


async def _closed(port: int, make: Make, clients: int, seconds: float, first: int) -> Load:
    load, numbers = Load(seconds), itertools.count(first)
    before, end = _processor(), time.perf_counter() + seconds

    async def client() -> None:
        connection = Connection(port)
        while (began := time.perf_counter()) < end:
            status = await connection.ask(make(next(numbers)))
            load.answers.append((began, time.perf_counter() - began, status))
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.processor = _processor() - before
    return load


async def _open(port: int, make: Make, rate: float, seconds: float, first: int) -> Load:
    load, idle = Load(seconds), [Connection(port) for _ in range(CONNECTIONS)]
    room = asyncio.Semaphore(CONNECTIONS)
    before = _processor()

    async def one(due: float, request: bytes) -> None:
        async with room:
            connection = idle.pop()
            try:
                status = await connection.ask(request)
            finally:
                idle.append(connection)
        load.answers.append((due, time.perf_counter() - due, status))

    waiting = set[asyncio.Task[Any]]()
    for number, due in enumerate(_moments(rate, seconds), start=first):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(due, make(number)))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    if waiting:
        await asyncio.wait(waiting, timeout=60)
    for connection in idle:
        connection.close()
    load.processor = _processor() - before
    return load


def _moments(rate: float, seconds: float) -> Iterator[float]:
    began, due = time.perf_counter(), 0.0
    while (due := due + random.expovariate(rate)) < seconds:
        yield began + due


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
