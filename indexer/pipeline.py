"""The pipeline: files are read, hashed and decoded by worker processes, a bounded way ahead of the encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.errors import ImageRejected
from indexer.pictures.decode import TOO_LARGE, DecodeLimits
from indexer.pictures.worker import Workers
from search.types import Failure, ImageFacts, Location

DECODED_AHEAD = 128
"""Files read ahead of the encoder: it does not wait for one slow file, and 128 decoded images are 19 MB at 224 px."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A new image, ready for the encoder. `pixels`: (size, size, 3) uint8; `missing` as `decode.Decoded` has it."""

    location: Location
    id: str
    facts: ImageFacts
    pixels: NDArray[np.uint8]
    missing: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A file whose content needs no decoding: it is in the catalog already, or barred from it."""

    location: Location
    id: str


Outcome = Decoded | Recognised | Failure


class Loader:
    """Reads one file: content hash, then pixels, unless `recognise` says that the hash is enough. Thread-safe."""

    def __init__(self, workers: Workers, recognise: Callable[[str], bool], limits: DecodeLimits) -> None:
        self._workers = workers
        self._recognise = recognise
        self._limits = limits

    def __call__(self, location: Location) -> Outcome:
        """Never raises for what a file may be: a bad one is a Failure."""
        try:
            if location.size > self._limits.max_bytes:
                raise ImageRejected(f"{location.size:,} bytes{TOO_LARGE} {self._limits.max_bytes:,}")
            image_id, decoded = self._workers.load(location.absolute, lambda found: not self._recognise(found))
            if decoded is None:
                return Recognised(location=location, id=image_id)
            return Decoded(
                location=location,
                id=image_id,
                facts=decoded.facts,
                pixels=decoded.pixels,
                missing=decoded.missing,
            )
        except ImageRejected as error:
            return failure(location, str(error))
        except OSError as error:  # a closed file, a broken drive: as if never met, so that it is tried again
            return replace(failure(location, error.strerror or "cannot be read"), mtime_ns=0, size=0)


def failure(location: Location, reason: str) -> Failure:
    """The Failure of a file that was found at `location`."""
    return Failure(
        root=location.root, path=location.path, mtime_ns=location.mtime_ns, size=location.size, reason=reason
    )


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Result]:
    """Apply `work` to items in `workers` threads, in order, with at most `ahead` results finished or under way.

    The bound keeps memory flat: `ahead` decoded images of 150 KB, and the files of those being read. Closing the
    iterator waits for the work under way and drops the rest.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
