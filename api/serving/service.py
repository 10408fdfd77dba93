"""A served index: the stages a request goes through, each with its own threads, and the files behind its images."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import faiss

from api import metrics
from api.errors import NotReady, Overloaded, SpaceInvalid
from api.serving import activity
from api.serving.asking import query_of
from api.serving.batching import Stage
from api.serving.duplicates import Duplicates
from api.serving.embedding import Embedded, Embedding
from api.serving.explaining import Explaining
from api.serving.filling import Filling, new_space
from api.serving.gate import Gate
from api.serving.learning import Learning
from api.serving.maps import Maps
from api.serving.observer import Observer
from api.serving.pictures import PICTURE, Pictures, store_upload
from api.serving.publishing import publish_patiently
from api.serving.questions import Question
from api.serving.reranking import reranks, widened
from api.serving.timing import Timing
from api.serving.watching import Watching
from api.serving.words import Sentences, WordsEmbedding
from api.settings import Settings
from indexer.encoders.encoder import Encoder, SpaceRequest
from indexer.errors import ModelUnsupported
from indexer.index_encoder import load_index_encoder
from search.catalog.annotations import checked_labels, checked_metadata, merge_metadata
from search.errors import SearchError, UnknownImage, UnknownSpace, VectorsMissing
from search.index import Index
from search.teaching import Teacher
from search.types import Hit, ImageFacts, ImageRecord, JsonObject, NewImage, Query, QueryPart, Space, SpaceInfo
from search.writer import Writer

Result = TypeVar("Result")
LOG = logging.getLogger("lookalike")

MAX_SEARCHES_AT_ONCE = 32
"""Light searches that share one pass over the index."""
MAX_LIGHT_HITS = 200
"""A light search looks through at most as many hits, has no filter and no words, and folds nothing."""
MAX_HEAVY_SEARCHES = 64
"""All others, running or queued; more are refused. The first of a filter takes some tenths of a second of a million."""
MAX_ADDED_AT_ONCE = 8
"""Spaces that are worked out, or wait for it: in one thread, seconds each, also where nobody waits any more."""
FILLING_LOCK_SECONDS = 2.0
"""How long a change waits for the lock while spaces may be filled: a batch of vectors is written in some 20 ms."""
CHECK_SECONDS = 5.0
"""Seconds that a search may take for the server to be ready."""
CHECKED_SECONDS = 1.0
"""For how long a check is believed."""


@dataclass(frozen=True)
class SpaceState:
    """A space, how far it is, and whether it is being filled now, by this server."""

    info: SpaceInfo
    filling: bool


class Service:
    """One index, its encoder, and the threads of each stage."""

    def __init__(
        self,
        name: str,
        index: Index,
        encoder: Encoder,
        settings: Settings,
        *,
        load: Callable[[Sequence[Space]], Encoder] | None = None,
        sentences: Sentences | None = None,
    ) -> None:
        """encoder: for the index's spaces. load: one for spaces that are added later; None: as the index says.
        sentences: what all indexes of a process share. Raises WorkerFailed where decoding processes cannot be started.
        """
        self.name = name
        self.index = index
        load = load or partial(load_index_encoder, index, warn=LOG.warning)
        self.embedding = Embedding(index, encoder, load, settings)
        sentences = sentences or Sentences()
        self.words = WordsEmbedding(index.models, sentences, settings.cached_embeddings)
        self.learning = Learning(index, sentences)
        self.filling = Filling(index.path, settings.log_format)
        # On one core each: threads of FAISS that wait for each other spin, and take the other from the event loop.
        one_core = partial(faiss.omp_set_num_threads, 1)
        self._searching: Stage[Query, list[Hit]] = Stage(
            "search", index.search_many, most=MAX_SEARCHES_AT_ONCE, initializer=one_core
        )
        self._searchers = ThreadPoolExecutor(2, thread_name_prefix="search", initializer=one_core)
        self._heavy = Gate(MAX_HEAVY_SEARCHES)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read", initializer=one_core)
        self._adder = ThreadPoolExecutor(1, thread_name_prefix="add")
        self._adding: dict[SpaceRequest, asyncio.Task[Space]] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish", initializer=one_core)
        self._publishing: Future[None] | None = None
        self._closing = threading.Event()
        self._observer = Observer(name, index)
        self.pictures = Pictures(index, self.embedding)
        self.explaining = Explaining(index, self.embedding, self.pictures)
        self.maps = Maps(index)
        self.duplicates = Duplicates(index)
        self.teacher = Teacher(index)
        self.watching = Watching(name, index, self.words, private=settings.watch_private)
        self._checking: asyncio.Task[None] | None = None
        self._checked = 0.0
        metrics.REPLACED.labels(name).set_function(lambda: self.embedding.replaced)
        # On the writer's thread, as after each write: a generation may have been damaged or lost while nobody served.
        self._writer.submit(self._publish_if_worth_it)
        self._publisher.submit(self._sweep)  # what is left of spaces that were dropped before

    def close(self) -> None:
        """Finish what is under way, but for a publication, which is given up, and close the index."""
        self._closing.set()
        self.filling.close()
        for pool in (self._searchers, self._readers, self._adder, self._writer, self._publisher):
            pool.shutdown()
        stages = (
            self.learning.close,
            self.watching.close,
            self.explaining.close,
            self.pictures.close,
            self.maps.close,
            self.duplicates.close,
            self._searching.close,
        )
        for close in (*stages, self._observer.close, self.words.close, self.embedding.close, self.index.close):
            close()

    async def check(self) -> None:
        """Take a picture through everything that a search needs. Raises NotReady where it is not answered in
        time, and SearchError.

        Callers at the same time, or within CHECKED_SECONDS, share one answer.
        """
        if self._checking is None or (self._checking.done() and time.monotonic() - self._checked > CHECKED_SECONDS):
            self._checking = asyncio.create_task(self._check())
        await asyncio.shield(self._checking)

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.read(lambda index: index.unpublished())  # it may have been moved away meanwhile
                space = self.index.space()
                vector = await self.embedding.embed(PICTURE, space, Timing(), fresh=True)
                query = Query(parts=[QueryPart(vector=vector)], k=1, space=space)
                await self._searching(query)
        except Exception as error:
            reason = "takes too long" if isinstance(error, TimeoutError) else f"fails: {error}"
            LOG.error("a search of the index %s %s", self.index.path, reason)
            if isinstance(error, SearchError):
                raise
            raise NotReady from error
        finally:
            self._checked = time.monotonic()

    async def ask(self, question: Question, timing: Timing) -> tuple[list[Hit], str]:
        """The hits of a question, and the space they were found in. Raises as `query` and `Index.search` do."""
        query, space = await self.query(question, timing)
        if not (question.options.rerank and reranks(query)):
            return await self.search(query, timing), space
        hits = await self.search(widened(query), timing)
        assert question.shown is not None
        hits = await self.explaining.rerank(hits, question.shown, timing, space=space)
        return hits[query.offset : query.offset + query.k], space

    async def query(self, question: Question, timing: Timing) -> tuple[Query, str]:
        """A question with its pictures and words embedded, and the name of its first space. Raises as `query_of`."""
        return await query_of(question, self.index, self.embedding, self.words, timing, read=self.read)

    async def search(self, query: Query, timing: Timing) -> list[Hit]:
        """`Index.search`, together with others that wait; what may take long, beside them. Raises Overloaded too."""
        began = time.perf_counter()
        with activity.HERE.working():
            if query.is_plain and query.k + query.offset <= MAX_LIGHT_HITS:
                hits = await self._searching(query)
            else:
                hits = await self.heavy(partial(self.index.search, query))
        timing.search += time.perf_counter() - began
        self._observer.asked(query)
        return hits

    async def heavy(self, work: Callable[[], Result]) -> Result:
        """Run what takes longer than a light search, beside those. Raises Overloaded."""
        with self._heavy.entered():
            return await asyncio.get_running_loop().run_in_executor(self._searchers, work)

    async def read(self, work: Callable[[Index], Result]) -> Result:
        """Read, off the event loop. Too little for `activity`: probes do it every second."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, self.index)

    async def write(self, work: Callable[[Writer], Result]) -> Result:
        """Change the index, one change at a time, under its lock. Raises IndexLocked."""

        def locked() -> Result:
            # Filling takes the lock for a moment only, again and again; a build keeps it.
            filled = all(space.complete for space in self.index.spaces)
            with self.index.writer(timeout=0 if filled else FILLING_LOCK_SECONDS) as writer:
                result = work(writer)
            self._publish_if_worth_it()
            return result

        return await activity.run(self._writer, locked)

    def _publish_if_worth_it(self) -> None:
        """Publish beside everything else, on one core, where searches need it; one publication at a time."""
        if self._publishing is not None and not self._publishing.done():
            return
        with suppress(SearchError):  # what was written is written, whatever becomes of this
            if self.index.unpublished():
                self._publishing = self._publisher.submit(publish_patiently, self.index, self._closing)

    async def add(self, data: bytes, labels: Sequence[str], metadata: JsonObject) -> tuple[ImageRecord, bool]:
        """Add an image, durable when this returns. Returns it, and whether it is new. Adding it again is harmless."""
        image_id = hashlib.sha256(data).hexdigest()
        kept_labels, kept_metadata = checked_labels(labels), checked_metadata(metadata)
        while True:
            facts, embedded = await self.embedding.describe(data)
            with suppress(VectorsMissing):  # a space was added meanwhile, and filled
                return await self._store(data, image_id, facts, embedded, kept_labels, kept_metadata)

    async def _store(
        self,
        data: bytes,
        image_id: str,
        facts: ImageFacts,
        embedded: Embedded,
        labels: tuple[str, ...],
        metadata: JsonObject,
    ) -> tuple[ImageRecord, bool]:
        def store(writer: Writer) -> tuple[ImageRecord, bool]:
            # Stored among the uploads even where a file elsewhere is known: that one may be pruned, this was added.
            location = store_upload(self.index.uploads, image_id, facts.format, data)
            with writer.transaction() as transaction:
                new = transaction.add(
                    NewImage(
                        id=image_id,
                        facts=facts,
                        location=location,
                        vectors=embedded.vectors,
                        labels=labels,
                        metadata=metadata,
                    ),
                    made_for=embedded.spaces,
                )
            return self.index.image(image_id), new

        return await self.write(store)

    async def spaces(self) -> list[SpaceState]:
        """The spaces of the index, and how far they are."""
        filling = self.filling.running
        infos = await self.read(lambda index: index.catalog.space_infos())
        return [SpaceState(info, filling and not info.space.complete) for info in infos]

    async def add_space(self, request: SpaceRequest) -> SpaceState:
        """Add a space of the default one's model, and fill it in the background; where it is there, go on filling it.

        It is added also where nobody waits for it any more: on a busy machine it takes longer than a request may.
        Raises SpaceInvalid, ModelUnavailable, SpaceExists (another one has its name), IndexLocked, Overloaded.
        """
        adding = self._adding.get(request)
        if adding is None:
            if len(self._adding) >= MAX_ADDED_AT_ONCE:
                raise Overloaded
            adding = self._adding[request] = asyncio.create_task(self._add_space(request))
            adding.add_done_callback(lambda task: (self._adding.pop(request), task.cancelled() or task.exception()))
        return await self._space_state((await asyncio.shield(adding)).name)

    async def _add_space(self, request: SpaceRequest) -> Space:
        loop = asyncio.get_running_loop()
        try:
            # In a thread of its own, like what follows: it takes seconds, and readers have probes to answer.
            new = await loop.run_in_executor(self._adder, new_space, self.index.catalog.spaces(), request)
        except ModelUnsupported as error:
            raise SpaceInvalid(str(error)) from error
        known = self._space_like(new)
        if known is None:  # under the lock it is looked for again: another request may ask for the same
            known = await self.write(lambda writer: self._space_like(new) or writer.add_space(new))
        if not known.complete:
            await loop.run_in_executor(self._adder, self.filling.start)
        return known

    def _space_like(self, new: Space) -> Space | None:
        return next((space for space in self.index.spaces if space.same_as(new)), None)

    async def set_default_space(self, name: str, *, force: bool) -> SpaceState:
        """Make a space the default. Raises UnknownSpace, SpaceIncomplete, IndexLocked."""
        await self.write(lambda writer: writer.set_default(name, force=force))
        return await self._space_state(name)

    async def drop_space(self, name: str) -> None:
        """Drop a space, and delete its vectors in the background. Raises UnknownSpace, SpaceNeeded, IndexLocked."""
        await self.write(lambda writer: writer.drop_space(name))
        self._publisher.submit(self._sweep)

    async def _space_state(self, name: str) -> SpaceState:
        for state in await self.spaces():
            if state.info.space.name == name:
                return state
        raise UnknownSpace(f"The index has no space {name} any more.")

    def _sweep(self) -> None:
        try:
            self.index.sweep_dropped(stop=self._closing)
        except SearchError as error:  # the next one goes on, or `lookalike compact`
            LOG.warning("what is left of a dropped space of %s stays for now: %s", self.index.path, error)

    async def delete(self, image_id: str) -> None:
        """Remove an image for good. Raises UnknownImage."""

        def remove(writer: Writer) -> None:
            if not writer.remove([image_id]):
                raise UnknownImage("The index has no image with this id.")

        await self.write(remove)

    async def change(self, image_id: str, labels: Sequence[str] | None, patch: JsonObject | None) -> ImageRecord:
        """Replace labels, merge metadata (RFC 7396: null removes a key). Raises UnknownImage, AnnotationInvalid."""

        def apply(writer: Writer) -> ImageRecord:
            metadata = (
                None
                if patch is None
                else checked_metadata(merge_metadata(self.index.image(image_id).metadata, checked_metadata(patch)))
            )
            return writer.describe(
                image_id, labels=None if labels is None else checked_labels(labels), metadata=metadata
            )

        return await self.write(apply)
