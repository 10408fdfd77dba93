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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from api import metrics
from api.errors import NotAnImage, NotReady
from api.serving import activity
from api.serving.batching import Closed
from api.serving.loaded import Loaded
from api.serving.looked import Looked
from api.serving.timing import Timing
from api.settings import Settings
from indexer.encoders.encoder import Encoder
from indexer.index_encoder import check_installed, installed_spaces
from indexer.machine import cores
from indexer.pictures.decode import Box, Decoded, DecodeLimits, decode, thumbnail
from indexer.pictures.formats import HEADER_BYTES, sniff
from indexer.pictures.preprocess import ORIENTATIONS, Inputs, blank, orientations
from indexer.pictures.worker import Workers
from search.index import Index
from search.types import ImageFacts, Space, Vector
from search.vectors import views

Result = TypeVar("Result")
LOG = logging.getLogger("lookalike")
_Key = tuple[bytes, Box | None, int]
"""SHA-256, box, number of the orientation."""

DECODE_SECONDS = 10.0
DECODE_SHARE = 1 / 3
"""Share of a request's seconds, where these are more than the default: a slow machine's decoding is slow too."""
UPLOADS = DecodeLimits(max_pixels=100_000_000, max_memory=1024**3, seconds_per_megapixel=0)
"""Limits of an upload, in a process of its own: 100 megapixels are 300 MB, and as much again while they are turned. No
more seconds for more pixels: the request has a deadline, and a header promises any number of them."""

LOAD_AGAIN_SECONDS = 30.0
"""After which an encoder that could not be loaded is tried again: each try takes seconds."""
NICE = 5
"""Decoding comes after the event loop: refusals and probes wait a tenth of the time in an overload."""


@dataclass(frozen=True)
class Embedded:
    """The embeddings of one image by the names of these spaces, `Recipe.shape` float32 each; in a space of regions with
    a query's views behind them. phash: of a whole picture."""

    spaces: tuple[Space, ...]
    vectors: Mapping[str, Vector]
    phash: int | None = None

    def gives(self, wanted: Sequence[Space]) -> bool:
        """Whether it has those of these spaces, and not of others that had their names before."""
        mine = {space.identity for space in self.spaces}
        return all(space.identity in mine for space in wanted)

    def stored(self) -> Embedded:
        """What of them an index stores."""
        return replace(
            self,
            vectors={space.name: self.vectors[space.name][: space.recipe.shape[0]] for space in self.spaces},
        )


class Embedding:
    """The encoder of a served index, and the processes that decode for it.

    Where an index has other spaces by now, an encoder for all of them is loaded beside, and takes the place of the one
    before: when somebody first asks for a space that this one does not give.
    """

    def __init__(
        self, index: Index, encoder: Encoder, load: Callable[[Sequence[Space]], Encoder], settings: Settings
    ) -> None:
        """encoder: for the index's spaces, but for those that lack a package. load: another one, for spaces that it
        will have.

        Raises WorkerFailed where decoding processes cannot be started.
        """
        self._index = index
        self._load = load
        self._loaded = Loaded(encoder, [space for space in index.spaces if space.name in encoder.names])
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading: asyncio.Task[None] | None = None
        self._failed: tuple[float, Exception] | None = None
        count = cores()
        self._workers = Workers(encoder.inputs, of_uploads(settings), nice=NICE)
        self._workers.start(count)
        self._decoders = ThreadPoolExecutor(count, thread_name_prefix="decode")
        # What a build has read is drawn, however large; these processes start with the first thumbnail.
        self._drawing = Workers(encoder.inputs, _of_builds(settings.max_pixels), nice=NICE)
        self._drawers = ThreadPoolExecutor(count, thread_name_prefix="draw")
        self._known: OrderedDict[_Key, Embedded] = OrderedDict()
        self._cached = settings.cached_embeddings

    def close(self) -> None:
        """Finish what is under way, and end the processes."""
        self._decoders.shutdown()
        self._drawers.shutdown()
        self._loader.shutdown()
        self._loaded.close()
        self._workers.close()
        self._drawing.close()

    @property
    def replaced(self) -> int:
        """How many decoding processes had to be replaced."""
        return self._workers.replaced + self._drawing.replaced

    async def embed(self, data: bytes, space: Space, timing: Timing, *, fresh: bool = False) -> Vector:
        """The embedding of one image for a space ((dim,) float32). fresh: also where it is known. Raises as `look`."""
        vector: Vector = np.atleast_2d((await self.look(data, space, timing, fresh=fresh)).vector)[0]
        return vector

    async def look(
        self,
        data: bytes,
        space: Space,
        timing: Timing,
        *,
        box: Box | None = None,
        turns: bool = False,
        fresh: bool = False,
    ) -> Looked:
        """Decode and encode one image for a space ((dim,) float32).

        turns: in all eight orientations, as it is first; (8, dim) then, and in a space of regions (v, dim) always: see
        `search.vectors.views`. fresh: also where its embeddings are known.
        Raises NotAnImage, NotReady (the encoder fails), ImageRejected (it cannot be decoded), WorkerFailed,
        UnknownSpace (it was dropped meanwhile), and what loading an encoder raises.
        """
        digest = _digest(data)
        keys = [(digest, box, turn) for turn in range(ORIENTATIONS if turns else 1)]
        known = [] if fresh else [one for one in (self._remembered(key, [space]) for key in keys) if one is not None]
        if len(known) < len(keys):
            # A probe is no work that anybody should make room for: it comes every second.
            with nullcontext() if fresh else activity.HERE.working():
                known = await self._views(data, space, timing, box, turns)
            if not fresh:
                for key, embedded in zip(keys, known, strict=True):
                    self._remember(key, embedded)
        vectors = views(np.stack([one.vectors[space.name] for one in known]), space.recipe.count)
        return Looked(vectors if len(vectors) > 1 else vectors[0], known[0].phash)

    async def _views(self, data: bytes, space: Space, timing: Timing, box: Box | None, turns: bool) -> list[Embedded]:
        while True:
            loaded = await self._for([space])
            began = time.perf_counter()
            decoded = await self._apart(decode, data, inputs=loaded.inputs, box=box)
            decoded_at = time.perf_counter()
            views = orientations(decoded.pixels, loaded.inputs) if turns else (decoded.pixels,)
            phash = None if box else decoded.facts.phash
            # one batch: queued together
            embedded = await asyncio.gather(*(self._encoded(view, loaded, phash) for view in views))
            timing.decode += decoded_at - began
            timing.encode += time.perf_counter() - decoded_at
            found = [one for one in embedded if one is not None]
            if len(found) == len(views):
                return found

    async def describe(self, data: bytes) -> tuple[ImageFacts, Embedded]:
        """An image's facts, and its embeddings for all complete spaces at least. Raises as `look`.

        It is decoded also where they are known.
        """
        key = (_digest(data), None, 0)
        with activity.HERE.working():
            loaded = self._loaded
            decoded = await self._apart(decode, data, inputs=loaded.inputs)
            there = self._index.spaces
            wanted = [space for space in there if space.complete]
            # To look for models reads files: not here, where all requests wait.
            if not self._loaded.gives(there) and not self._loaded.gives(
                await asyncio.to_thread(installed_spaces, self._index)
            ):
                self._start_following()  # so that new images need no filling any more, soon
            embedded = self._remembered(key, wanted)
            while embedded is None:
                before, loaded = loaded, await self._for(wanted)
                if loaded.inputs != before.inputs:
                    decoded = await self._apart(decode, data, inputs=loaded.inputs)
                embedded = await self._encoded(decoded.pixels, loaded, decoded.facts.phash)
            self._remember(key, embedded)
        return decoded.facts, embedded.stored()

    def _remembered(self, key: _Key, wanted: Sequence[Space]) -> Embedded | None:
        known = self._known.get(key)
        if known is not None and not known.gives(wanted):
            known = None
        metrics.CACHED.labels("miss" if known is None else "hit").inc()
        if known is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, key: _Key, embedded: Embedded) -> None:
        self._known[key] = embedded
        while len(self._known) > self._cached:
            self._known.popitem(last=False)

    async def _encoded(self, pixels: NDArray[np.uint8], loaded: Loaded, phash: int | None) -> Embedded | None:
        """The embeddings of one image; None where another encoder, of other pixels perhaps, took the place of this."""
        try:
            return Embedded(loaded.spaces, await loaded.encode(pixels), phash)
        except Closed as error:
            if loaded is self._loaded:  # the server stops
                raise NotReady from error
            return None
        except Exception as error:  # of a backend, on pixels that are like any others
            LOG.exception("the encoder failed")
            raise NotReady from error

    async def _for(self, wanted: Sequence[Space]) -> Loaded:
        """An encoder that gives these spaces. Raises UnknownSpace where one of them was dropped, ModelUnavailable."""
        while not self._loaded.gives(wanted):
            for space in wanted:
                self._index.space(space)
                if not self._loaded.gives([space]):
                    check_installed(space)  # before a model is loaded in vain
            loading = self._start_following()
            if loading is None:
                assert self._failed is not None
                raise self._failed[1]
            await asyncio.shield(loading)
        return self._loaded

    def _start_following(self) -> asyncio.Task[None] | None:
        """The task that loads the encoder for all spaces; None where that failed a moment ago."""
        if self._failed is not None and time.monotonic() - self._failed[0] < LOAD_AGAIN_SECONDS:
            return None
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._follow())
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is logged
        return self._loading

    async def _follow(self) -> None:
        """Load an encoder for the spaces that there are now, and put it in the place of the one before."""
        loop = asyncio.get_running_loop()
        try:
            before, self._loaded = self._loaded, await loop.run_in_executor(self._loader, self._load_all)
            self._failed = None
        except Exception as error:
            LOG.exception("the encoder for the spaces of %s could not be loaded", self._index.path)
            self._failed = time.monotonic(), error
            raise
        await loop.run_in_executor(self._loader, before.close)

    def _load_all(self) -> Loaded:
        spaces = installed_spaces(self._index)
        encoder = self._load(spaces)
        warm_up(encoder)
        return Loaded(encoder, spaces)

    async def decoded(self, data: bytes, inputs: Inputs, box: Box | None) -> Decoded:
        """An upload, or its box, decoded apart. Raises NotAnImage, ImageRejected, WorkerFailed."""
        _check_kind(data)
        return await self._apart(decode, data, inputs=inputs, box=box)

    async def decoded_again(self, data: bytes, inputs: Inputs) -> Decoded:
        """An indexed image's file, decoded apart, within a build's limits. Raises ImageRejected, WorkerFailed."""
        work = partial(self._drawing.run, decode, data, inputs=inputs)
        return await asyncio.get_running_loop().run_in_executor(self._drawers, work)

    async def thumbnail(self, data: bytes, size: int) -> bytes:
        """`indexer.pictures.decode.thumbnail`, in a process of its own, within a build's limits."""
        work = partial(self._drawing.run, thumbnail, data, size=size)
        return await asyncio.get_running_loop().run_in_executor(self._drawers, work)

    async def _apart(self, function: Callable[..., Result], data: bytes, **arguments: Any) -> Result:
        work = partial(self._workers.run, function, data, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)


def of_uploads(settings: Settings) -> DecodeLimits:
    """The limits of an upload; where more pixels are allowed, they have more memory, and a side may be as long."""
    limits, most = UPLOADS, settings.max_pixels
    limits = limits.raised(max_pixels=most, max_seconds=None) if most > limits.max_pixels else limits
    seconds = max(DECODE_SECONDS, DECODE_SHARE * settings.request_seconds)
    return replace(limits, max_bytes=settings.max_upload_bytes, max_pixels=most, seconds=seconds)


def _of_builds(max_pixels: int) -> DecodeLimits:
    """The limits of a build; of pixels, the server's where that is larger, as it must be after `build --max-pixels`."""
    limits = DecodeLimits()
    return limits.raised(max_pixels=max(max_pixels, limits.max_pixels), max_seconds=None)


def warm_up(encoder: Encoder) -> None:
    """Let an encoder embed once: the first pass is slow, and should not be a client's."""
    encoder.encode(blank(encoder.inputs))


def _check_kind(data: bytes) -> None:
    if not sniff(data[:HEADER_BYTES]):
        raise NotAnImage


def _digest(data: bytes) -> bytes:
    """The key by which an upload's embeddings are remembered. Raises NotAnImage."""
    _check_kind(data)
    return hashlib.sha256(data).digest()
