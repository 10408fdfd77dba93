"""From an upload's bytes to its embeddings: known by content, or decoded apart and encoded in company."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from api import metrics
from api.errors import NotAnImage, NotReady
from api.serving import activity
from api.serving.batching import Stage
from api.serving.timing import Timing
from api.settings import Settings
from indexer.encoders.encoder import Encoder
from indexer.machine import cores
from indexer.pictures.decode import Box, DecodeLimits, decode, decode_pixels, thumbnail
from indexer.pictures.formats import HEADER_BYTES, sniff
from indexer.pictures.preprocess import ORIENTATIONS, orientations
from indexer.pictures.worker import Workers
from search.recipe import Preprocessing
from search.types import ImageFacts, Vector

Result = TypeVar("Result")
LOG = logging.getLogger("lookalike")
Vectors = Mapping[str, Vector]
"""One embedding a space ((dim,) float32)."""
_Key = tuple[bytes, Box | None, int]
"""SHA-256, box, number of the orientation."""

DECODE_SECONDS = 10.0
DECODE_SHARE = 1 / 3
"""Of a request's seconds, where these are more than the default: a slow machine's decoding is slow too."""
DECODE_MEMORY = 1024**3
"""For one upload, in a process of its own: 100 megapixels are 300 MB, and as much again while they are turned."""

NICE = 5
"""Decoding comes after the event loop: refusals and probes wait a tenth of the time in an overload."""


class Embedding:
    """The encoder of a served index, and the processes that decode for it."""

    def __init__(self, encoder: Encoder, preprocessing: Preprocessing, settings: Settings) -> None:
        """Raises WorkerFailed where decoding processes cannot be had."""
        self._encoder = encoder
        self._preprocessing = preprocessing
        count = cores()
        limits = DecodeLimits(
            max_bytes=settings.max_upload_bytes,
            max_pixels=settings.max_pixels,
            seconds=max(DECODE_SECONDS, DECODE_SHARE * settings.request_seconds),
            seconds_per_megapixel=0,  # the request has a deadline, and a header promises any number of pixels
            max_memory=DECODE_MEMORY,
        )
        self._workers = Workers(preprocessing, limits, nice=NICE)
        self._workers.start(count)
        self._decoders = ThreadPoolExecutor(count, thread_name_prefix="decode")
        # What a build has read is drawn, however large; these processes start with the first thumbnail.
        self._drawing = Workers(preprocessing, _of_builds(settings.max_pixels), nice=NICE)
        self._drawers = ThreadPoolExecutor(count, thread_name_prefix="draw")
        per_core = encoder.per_core()
        self._encoding: Stage[NDArray[np.uint8], tuple[Vector, ...]] = Stage(
            "encode",
            partial(_encode, encoder),
            most=encoder.batch_size,
            beside=[partial(_encode, one) for one in per_core],
            share=max((one.batch_size for one in per_core), default=1),
        )
        self._known: OrderedDict[_Key, Vectors] = OrderedDict()
        self._cached = settings.cached_embeddings

    def close(self) -> None:
        """Finish what is under way, and end the processes."""
        self._decoders.shutdown()
        self._drawers.shutdown()
        self._encoding.close()
        self._workers.close()
        self._drawing.close()

    @property
    def replaced(self) -> int:
        """How many decoding processes had to be replaced."""
        return self._workers.replaced + self._drawing.replaced

    async def embed(
        self, data: bytes, timing: Timing, *, box: Box | None = None, turns: bool = False, fresh: bool = False
    ) -> Vectors:
        """Decode and encode one image.

        turns: in all eight orientations, as it is first; (8, dim) a space then. fresh: also where its embeddings are
        known. Raises NotAnImage, NotReady (the encoder fails), ImageRejected (it cannot be decoded), WorkerFailed.
        """
        digest = _digest(data)
        keys = [(digest, box, turn) for turn in range(ORIENTATIONS if turns else 1)]
        known = [] if fresh else [one for one in map(self._remembered, keys) if one is not None]
        if len(known) < len(keys):
            # A probe is no work that anybody should make room for: it comes every second.
            with nullcontext() if fresh else activity.HERE.working():
                known = await self._views(data, timing, box, turns)
            if not fresh:
                for key, vectors in zip(keys, known, strict=True):
                    self._remember(key, vectors)
        return {name: np.stack([one[name] for one in known]) for name in known[0]} if turns else known[0]

    async def _views(self, data: bytes, timing: Timing, box: Box | None, turns: bool) -> list[Vectors]:
        began = time.perf_counter()
        pixels = await self._apart(decode_pixels, data, preprocessing=self._preprocessing, box=box)
        decoded_at = time.perf_counter()
        views = orientations(pixels) if turns else (pixels,)
        vectors = await asyncio.gather(*map(self._encoded, views))  # queued together: one batch
        timing.decode += decoded_at - began
        timing.encode += time.perf_counter() - decoded_at
        return vectors

    async def describe(self, data: bytes) -> tuple[ImageFacts, Vectors]:
        """An image's facts too: decoded, also where its embeddings are known. Raises as `embed`."""
        key = (_digest(data), None, 0)
        with activity.HERE.working():
            decoded = await self._apart(decode, data, preprocessing=self._preprocessing)
            vectors = self._remembered(key)
            if vectors is None:
                vectors = await self._encoded(decoded.pixels)
                self._remember(key, vectors)
        return decoded.facts, vectors

    def _remembered(self, key: _Key) -> Vectors | None:
        known = self._known.get(key)
        metrics.CACHED.labels("miss" if known is None else "hit").inc()
        if known is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, key: _Key, vectors: Vectors) -> None:
        self._known[key] = vectors
        while len(self._known) > self._cached:
            self._known.popitem(last=False)

    async def _encoded(self, pixels: NDArray[np.uint8]) -> Vectors:
        try:
            vectors = await self._encoding(pixels)
        except Exception as error:  # of a backend, on pixels that are like any others
            LOG.exception("the encoder failed")
            raise NotReady from error
        return dict(zip(self._encoder.names, vectors, strict=True))

    async def thumbnail(self, data: bytes, size: int) -> bytes:
        """`indexer.pictures.decode.thumbnail`, in a process of its own, within a build's limits."""
        work = partial(self._drawing.run, thumbnail, data, size=size)
        return await asyncio.get_running_loop().run_in_executor(self._drawers, work)

    async def _apart(self, function: Callable[..., Result], data: bytes, **arguments: Any) -> Result:
        work = partial(self._workers.run, function, data, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)


def _of_builds(max_pixels: int) -> DecodeLimits:
    """The limits of a build; of pixels, the server's where that is larger, as it must be after `build --max-pixels`."""
    limits = DecodeLimits()
    return limits.raised(max_pixels=max(max_pixels, limits.max_pixels), max_seconds=None)


def _encode(encoder: Encoder, pictures: Sequence[NDArray[np.uint8]]) -> Sequence[tuple[Vector, ...]]:
    spaces = encoder.encode(np.stack(pictures))
    # Copies: whoever keeps one embedding must not keep its whole batch.
    return [tuple(vectors[row].copy() for vectors in spaces) for row in range(len(pictures))]


def _digest(data: bytes) -> bytes:
    """What an upload's embeddings are remembered by. Raises NotAnImage."""
    if not sniff(data[:HEADER_BYTES]):
        raise NotAnImage
    return hashlib.sha256(data).digest()
