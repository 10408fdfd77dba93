"""Hits and the query's picture place by place, with models of their own beside the encoder: why an image is a hit, and
where in it the picture lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
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
from api.serving.reranking import RERANKED, reranked
from api.serving.timing import Timing
from indexer.encoders.patches import PatchEncoder
from indexer.encoders.places import PlacesEncoder
from indexer.errors import ImageRejected
from indexer.explain import MATCHES, Explanation, explain
from indexer.pictures.decode import Box, Decoded
from indexer.pictures.preprocess import Inputs
from search.errors import UnknownImage
from search.index import Index
from search.types import Hit, Space

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
        self._places: tuple[Space, PlacesEncoder] | None = None

    def close(self) -> None:
        """Finish what is under way, and let go of the models."""
        self._thread.shutdown(cancel_futures=True)
        self._encoder = self._places = None

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
            began, box = time.perf_counter(), None if isinstance(query, str) else query.box
            one, source = await self._picture(query, inputs)
            other, hit_source = await self._indexed(hit, inputs)
            decoded = time.perf_counter()
            work = partial(self._explained, chosen, one, other, box, most)
            explanation = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            timing.decode += decoded - began
            timing.encode += time.perf_counter() - decoded
        return Explained(space=chosen, explanation=explanation, query_source=source, hit_source=hit_source)

    async def rerank(self, hits: Sequence[Hit], query: QueryPicture | str, timing: Timing, *, space: str) -> list[Hit]:
        """The first RERANKED hits in the order of how alike the query's picture, or indexed image, is to a place in
        them, with these places; those whose files cannot be read behind them; and the others as they were.

        space: one of regions. Raises as `explain`.
        """
        with self._gate.entered(), activity.HERE.working():
            chosen = self._index.space(space)
            inputs = (chosen.recipe.preprocessing,)
            began = time.perf_counter()
            part, _ = await self._picture(query, inputs)
            box = None if isinstance(query, str) else query.box
            shown = await asyncio.gather(*(self._read(hit.id, inputs) for hit in hits[:RERANKED]))
            pictures = {hit.id: one for hit, one in zip(hits, shown, strict=False) if one is not None}
            decoded = time.perf_counter()
            work = partial(self._reranked, chosen, part, box, hits, pictures)
            found = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            timing.decode += decoded - began
            timing.encode += time.perf_counter() - decoded
        return found

    def _reranked(
        self, space: Space, query: Decoded, box: Box | None, hits: Sequence[Hit], pictures: Mapping[str, Decoded]
    ) -> list[Hit]:
        if self._places is None or self._places[0].identity != space.identity:
            self._places = None  # two models are never there at once
            self._places = space, PlacesEncoder(space, self._index.models)
        return reranked(self._places[1], query, box, hits, pictures)

    async def _picture(self, query: QueryPicture | str, inputs: Inputs) -> tuple[Decoded, Source]:
        if isinstance(query, str):
            return await self._indexed(query, inputs)
        return await self._embedding.decoded(query.data, inputs, query.box), "image"

    async def _read(self, image_id: str, inputs: Inputs) -> Decoded | None:
        try:
            return (await self._indexed(image_id, inputs))[0]
        except (FileGone, ImageRejected, UnknownImage):  # removed, or changed since
            return None

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
