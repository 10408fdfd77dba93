"""Batching: a stage's thread takes what is queued, so that waiting clients share a forward pass, or a search."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Generic, TypeVar

from api import metrics

Item = TypeVar("Item")
Result = TypeVar("Result")


class Closed(Exception):
    """The stage takes nothing any more: the server is stopping."""


class Stage(Generic[Item, Result]):
    """Does for many tasks at once what each asks for. It waits for nothing: a free thread takes what is there."""

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        most: int,
        initializer: Callable[[], object] = lambda: None,
    ) -> None:
        """work: results, or what they failed with, in the order of the items; where it raises, each item is tried
        alone. most: items at once. initializer: called in the stage's thread before anything else.
        """
        self._work = work
        self._most = most
        self._waiting: dict[asyncio.Future[Result], Item] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._batches = metrics.BATCHES.labels(name)
        self._depth = metrics.WAITING.labels(name)
        self._initializer = initializer
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def __call__(self, item: Item) -> Result:
        """Wait for an item's result. Whoever gives up waiting leaves the queue. Raises what `work` says, and Closed."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closing:
                raise Closed
            self._waiting[future] = item
            self._depth.inc()
            self._changed.notify()
        try:
            return await future
        finally:
            with self._changed:
                if self._waiting.pop(future, None) is not None:
                    self._depth.dec()

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        self._initializer()
        while jobs := self._taken():
            futures, items = list(jobs), list(jobs.values())
            self._batches.observe(len(items))
            results = self._results(items)
            del items, jobs
            with suppress(RuntimeError):  # the loop is closed: the server has stopped waiting
                futures[0].get_loop().call_soon_threadsafe(_resolve, futures, results)

    def _taken(self) -> dict[asyncio.Future[Result], Item]:
        """The next items; none once the stage is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            taken = dict(islice(self._waiting.items(), self._most))
            for future in taken:
                del self._waiting[future]
            self._depth.dec(len(taken))
            return taken

    def _results(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            return self._work(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [self._results([item])[0] for item in items]  # one bad item must not fail its neighbours


def _resolve(futures: Sequence[asyncio.Future[Result]], results: Sequence[Result | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # nobody waits any more
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
