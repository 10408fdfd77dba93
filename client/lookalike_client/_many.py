"""Many calls at once, in order, no more than so many; the same for threads and for tasks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Generic, TypeVar

from lookalike_client._errors import LookalikeError

Input = TypeVar("Input")
Answer = TypeVar("Answer")

Progress = bool | Callable[[int], object]
"""True for a progress bar; or what is told, after each, how many are done."""
OF_ONE = (LookalikeError, OSError, TypeError, ValueError)
"""Errors of one input, or of the answer to it: reported there, without stopping."""

sleep, sleep_async = time.sleep, asyncio.sleep


def apart(call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    """Read and encode pictures: here, where nobody else waits."""
    return call(*arguments, **options)


async def apart_async(call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    """`apart`, in a thread: other tasks go on meanwhile."""
    return await asyncio.to_thread(call, *arguments, **options)


@dataclass(frozen=True)
class Outcome(Generic[Input, Answer]):
    """The outcome of one input: an answer, or the error that it failed with."""

    input: Input
    answer: Answer | None = None
    error: Exception | None = None

    def result(self) -> Answer:
        """The answer. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


def run_many(
    call: Callable[[Input], Answer], inputs: Iterable[Input], concurrency: int, progress: Progress
) -> Iterator[Outcome[Input, Answer]]:
    """Call for each input in threads, `concurrency` at once; outcomes in the order of the inputs."""
    _check(inputs, concurrency)
    waiting: deque[tuple[Input, Future[Answer]]] = deque()

    def first() -> Outcome[Input, Answer]:
        item, future = waiting.popleft()
        try:
            return Outcome(item, future.result())
        except OF_ONE as error:
            return Outcome(item, error=error)

    with ThreadPoolExecutor(concurrency) as pool, _told(inputs, progress) as tell:
        try:
            for item in inputs:
                if len(waiting) == 2 * concurrency:
                    yield tell(first())
                waiting.append((item, pool.submit(call, item)))
            while waiting:
                yield tell(first())
        finally:  # whoever stops iterating waits for what is under way, and for no more
            for _, future in waiting:
                future.cancel()


async def run_many_async(
    call: Callable[[Input], Awaitable[Answer]], inputs: Iterable[Input], concurrency: int, progress: Progress
) -> AsyncIterator[Outcome[Input, Answer]]:
    """`run_many`, in tasks."""
    _check(inputs, concurrency)
    waiting: deque[asyncio.Task[Outcome[Input, Answer]]] = deque()
    room = asyncio.Semaphore(concurrency)

    async def one(item: Input) -> Outcome[Input, Answer]:
        async with room:
            try:
                return Outcome(item, await call(item))
            except OF_ONE as error:
                return Outcome(item, error=error)

    with _told(inputs, progress) as tell:
        try:
            for item in inputs:
                if len(waiting) == 2 * concurrency:
                    yield tell(await waiting.popleft())
                waiting.append(asyncio.create_task(one(item)))
            while waiting:
                yield tell(await waiting.popleft())
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)  # they close what they have open


def _check(inputs: object, concurrency: int) -> None:
    if isinstance(inputs, str | bytes | PathLike):  # of which the first two are iterable
        raise TypeError(f"images are several: a list of one for one image, not {type(inputs).__name__}.")
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, not {concurrency}.")


@contextmanager
def _told(inputs: Iterable[Any], progress: Progress) -> Iterator[Callable[[Any], Any]]:
    """Passes outcomes on, and tells how many they are."""
    if progress is True:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError("A progress bar needs tqdm: pip install tqdm") from error
        with tqdm(total=len(inputs) if isinstance(inputs, Sized) else None, unit="image") as bar:
            yield lambda outcome: (bar.update(), outcome)[1]
        return
    done = 0

    def tell(outcome: Any) -> Any:
        nonlocal done
        done += 1
        if callable(progress):
            progress(done)
        return outcome

    yield tell
