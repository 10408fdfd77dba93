"""From an upload's bytes to its embeddings: known by content, or decoded apart and encoded in company."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from api import activity, metrics, problems
from api.batching import Stage
from api.settings import Settings
from indexer.decode import Box, DecodeLimits, decode, sniff, thumbnail
from indexer.encoder import Encoder
from indexer.sources import SNIFFED_BYTES
from indexer.worker import Workers
from search.recipe import Preprocessing
from search.types import ImageFacts, Vector

Result = TypeVar("Result")

DECODE_SECONDS = 5.0
DECODE_MEMORY = 1024**3
"""For one upload, in a process of its own: 100 megapixels are 300 MB, and as much again while they are turned."""


@dataclass(kw_only=True)
class Timing:
    """Where a request's time went, in seconds."""

    decode: float = 0.0
    encode: float = 0.0
    search: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """An image's facts, and one embedding a space ((dim,) float32)."""

    facts: ImageFacts
    vectors: dict[str, Vector]


class Embedding:
    """The encoder of a served index, and the processes that decode for it."""

    def __init__(self, encoder: Encoder, preprocessing: Preprocessing, settings: Settings) -> None:
        """Raises WorkerFailed where decoding processes cannot be had."""
        self._encoder = encoder
        self._preprocessing = preprocessing
        count = _cores()
        limits = DecodeLimits(
            max_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            seconds=DECODE_SECONDS,
            max_memory=DECODE_MEMORY,
        )
        self._workers = Workers(preprocessing, limits)
        self._workers.start(count)
        self._decoders = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._encoding: Stage[NDArray[np.uint8], tuple[Vector, ...]] = Stage(
            "encode", self._encode, most=encoder.batch_size
        )
        self._known: OrderedDict[tuple[bytes, Box | None], Embedded] = OrderedDict()
        self._cached = settings.cached_embeddings

    def close(self) -> None:
        """Finish what is under way, and end the processes."""
        self._decoders.shutdown()
        self._encoding.close()
        self._workers.close()

    @property
    def replaced(self) -> int:
        """How many decoding processes had to be replaced."""
        return self._workers.replaced

    async def embed(self, data: bytes, timing: Timing, *, box: Box | None = None, fresh: bool = False) -> Embedded:
        """Decode and encode one image. fresh: also where its embedding is known.

        Raises Problem (not an image; the encoder fails), ImageRejected (it cannot be decoded), WorkerFailed.
        """
        if not sniff(data[:SNIFFED_BYTES]):
            raise problems.not_an_image()
        key = (hashlib.sha256(data).digest(), box)
        if not fresh and key in self._known:
            self._known.move_to_end(key)
            metrics.CACHED.labels("hit").inc()
            return self._known[key]
        with activity.HERE.working():
            embedded = await self._embedded(data, timing, box)
        if not fresh:
            metrics.CACHED.labels("miss").inc()
            self._known[key] = embedded
            while len(self._known) > self._cached:
                self._known.popitem(last=False)
        return embedded

    async def _embedded(self, data: bytes, timing: Timing, box: Box | None) -> Embedded:
        began = time.perf_counter()
        decoded = await self._apart(decode, data, preprocessing=self._preprocessing, box=box)
        decoded_at = time.perf_counter()
        try:
            vectors = await self._encoding(decoded.pixels)
        except Exception as error:  # of a backend, on pixels that are like any others
            problems.log.exception("the encoder failed")
            raise problems.not_ready() from error
        now = time.perf_counter()
        timing.decode += decoded_at - began
        timing.encode += now - decoded_at
        return Embedded(decoded.facts, dict(zip(self._encoder.names, vectors, strict=True)))

    async def thumbnail(self, data: bytes, size: int) -> bytes:
        """`indexer.decode.thumbnail`, in a process of its own."""
        return await self._apart(thumbnail, data, size=size)

    async def _apart(self, function: Callable[..., Result], data: bytes, **arguments: Any) -> Result:
        def run() -> Result:
            return self._workers.run(function, data, **arguments)

        return await asyncio.get_running_loop().run_in_executor(self._decoders, run)

    def _encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Sequence[tuple[Vector, ...]]:
        spaces = self._encoder.encode(np.stack(pictures))
        # Copies: whoever keeps one embedding must not keep its whole batch.
        return [tuple(vectors[row].copy() for vectors in spaces) for row in range(len(pictures))]


def _cores() -> int:
    """What this process may use: a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
