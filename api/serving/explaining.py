"""Why an image is a hit: it and the query's picture, patch by patch, with a model of its own beside the encoder."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from api.errors import FileGone
from api.serving import activity
from api.serving.embedding import Embedding
from api.serving.gate import Gate
from api.serving.pictures import Pictures
from api.serving.questions import QueryPicture
from api.serving.timing import Timing
from indexer.encoders.patches import PatchEncoder
from indexer.explain import MATCHES, Explanation, explain
from indexer.pictures.decode import Box, Decoded
from indexer.pictures.preprocess import Inputs
from search.index import Index
from search.types import Space

MAX_WAITING = 16
"""Explanations under way or waiting; more are refused. Each holds two decoded pictures, and takes a tenth of a second
of one thread, which loads the model first where it is another one."""
MAX_READ_AT_ONCE = 2
"""Files of indexed images that are in memory whole."""

Source = Literal["image", "file", "thumbnail"]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """An explanation, the space whose model it is by, and where both pictures came from."""

    space: Space
    explanation: Explanation
    query_source: Source
    hit_source: Source


class Explaining:
    """Explains hits of an index. It keeps one model in memory, that of the space asked for last, from its first call
    on."""

    def __init__(self, index: Index, embedding: Embedding, pictures: Pictures) -> None:
        """embedding: whose processes decode. pictures: where indexed images are read."""
        self._index = index
        self._embedding = embedding
        self._pictures = pictures
        self._gate = Gate(MAX_WAITING)
        self._reading = asyncio.Semaphore(MAX_READ_AT_ONCE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._encoder: tuple[Space, PatchEncoder] | None = None

    def close(self) -> None:
        """Finish what is under way, and let go of the model."""
        self._thread.shutdown(cancel_futures=True)
        self._encoder = None

    async def explain(
        self, hit: str, query: QueryPicture | str, timing: Timing, *, space: str | None = None, most: int = MATCHES
    ) -> Explained:
        """Compare a hit, by its id, with a picture, or with another indexed image, by its id.

        Raises UnknownImage, UnknownSpace, NoPatches, FileGone, Overloaded, ImageRejected, NotAnImage, WorkerFailed,
        and what loading the model raises.
        """
        with self._gate.entered(), activity.HERE.working():
            chosen = self._index.space(space)
            inputs = (chosen.recipe.preprocessing,)
            began, box = time.perf_counter(), None
            source: Source = "image"
            if isinstance(query, str):
                one, source = await self._indexed(query, inputs)
            else:
                box = query.box
                one = await self._embedding.decoded(query.data, inputs, box)
            other, hit_source = await self._indexed(hit, inputs)
            decoded = time.perf_counter()
            work = partial(self._explained, chosen, one, other, box, most)
            explanation = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            timing.decode += decoded - began
            timing.encode += time.perf_counter() - decoded
        return Explained(space=chosen, explanation=explanation, query_source=source, hit_source=hit_source)

    def _explained(self, space: Space, query: Decoded, hit: Decoded, box: Box | None, most: int) -> Explanation:
        if self._encoder is None or self._encoder[0].identity != space.identity:
            self._encoder = None  # two models are never there at once
            self._encoder = space, PatchEncoder(space, self._index.models)
        return explain(self._encoder[1], query, hit, box=box, most=most)

    async def _indexed(self, image_id: str, inputs: Inputs) -> tuple[Decoded, Source]:
        """An indexed image: its file, or a thumbnail that was kept of it and is large enough. Raises FileGone."""
        source: Source = "file"
        async with self._reading:
            try:
                data = await self._pictures.whole(image_id)
            except FileGone:
                small = await self._pictures.kept_thumbnail(image_id, inputs[0].size)
                if small is None:
                    raise
                data, source = small, "thumbnail"
            return await self._embedding.decoded_again(data, inputs), source
