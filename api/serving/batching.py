"""Batching: a stage's threads take what is queued, so that waiting clients share a forward pass, or a search."""

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
Work = Callable[[Sequence[Item]], Sequence[Result | Exception]]
"""Results, or what they failed with, in the order of the items."""


class Closed(Exception):
    """The stage takes nothing any more: the server is stopping."""


class Stage(Generic[Item, Result]):
    """Does for many tasks at once what each asks for. It waits for nothing: a free thread takes what is there."""

    def __init__(
        self,
        name: str,
        work: Work[Item, Result],
        *,
        most: int,
        beside: Sequence[Work[Item, Result]] = (),
        share: int = 1,
        initializer: Callable[[], object] = lambda: None,
    ) -> None:
        """work: where it raises, each item is tried alone. most: items at once. initializer: called in each of the
        stage's threads before anything else.

        beside: the same, each on a core of its own, with `share` items at once at most. They take over where there is
        something for each of them; `work` has all cores, and runs alone.
        """
        self._work = work
        self._most = most
        self._beside = beside
        self._share = share
        self._busy = 0
        self._alone = False
        self._waiting: dict[asyncio.Future[Result], Item] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._batches = metrics.BATCHES.labels(name)
        self._depth = metrics.WAITING.labels(name)
        self._initializer = initializer
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name=name, daemon=True) for one in beside or (work,)
        ]
        for thread in self._threads:
            thread.start()

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
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, own: Work[Item, Result]) -> None:
        self._initializer()
        while jobs := self._taken():
            futures, items = list(jobs), list(jobs.values())
            self._batches.observe(len(items))
            results = _results(self._work if self._alone else own, items)
            del items, jobs
            with self._changed:
                self._busy, self._alone = self._busy - 1, False
                self._changed.notify_all()
            for loop in {future.get_loop() for future in futures}:  # watches have one of their own
                theirs = [pair for pair in zip(futures, results, strict=True) if pair[0].get_loop() is loop]
                with suppress(RuntimeError):  # the loop is closed: the server has stopped waiting
                    loop.call_soon_threadsafe(_resolve, theirs)

    def _taken(self) -> dict[asyncio.Future[Result], Item]:
        """The next items for a thread; none once the stage is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and (self._worth_it() or self._closing))
            if not self._waiting:
                return {}
            waiting, free = len(self._waiting), len(self._threads) - self._busy
            self._alone = not self._beside or (not self._busy and waiting < free)
            most = self._most if self._alone else min(self._share, -(-waiting // free))
            taken = dict(islice(self._waiting.items(), most))
            for future in taken:
                del self._waiting[future]
            self._busy += 1
            self._depth.dec(len(taken))
            if self._waiting:
                self._changed.notify()
            return taken

    def _worth_it(self) -> bool:
        """Whether there is something for each free core, or for all of them together."""
        waiting = len(self._waiting)
        return waiting > 0 and (not self._busy or waiting >= len(self._threads) - self._busy)


def _results(work: Work[Item, Result], items: Sequence[Item]) -> Sequence[Result | Exception]:
    try:
        return work(items)
    except Exception as error:
        if len(items) == 1:
            return [error]
        return [_results(work, [item])[0] for item in items]  # one bad item must not fail its neighbours


def _resolve(answered: Sequence[tuple[asyncio.Future[Result], Result | Exception]]) -> None:
    for future, result in answered:
        if future.done():  # nobody waits any more
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
