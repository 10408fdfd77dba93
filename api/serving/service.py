"""A served index: the stages a request goes through, each with its own threads, and the files behind its images."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import faiss
from PIL import Image

from api import metrics
from api.http import problems
from api.http.edge import Gate
from api.serving import activity
from api.serving.batching import Stage
from api.serving.embedding import Embedding, Timing
from api.serving.observer import Observer
from api.serving.publishing import publish_patiently
from api.settings import Settings
from indexer.encoders.encoder import Encoder
from search.catalog.annotations import checked_labels, checked_metadata
from search.errors import SearchError, UnknownImage
from search.files import storage_errors, write_whole
from search.index import Index
from search.types import Hit, ImageRecord, JsonObject, Location, NewImage, Query, QueryPart
from search.writer import Writer

Result = TypeVar("Result")

TOGETHER, LIGHT = 32, 200
"""Searches that are done at once, and how many hits each of them may look through."""
HEAVY = 64
"""Searches beyond these, or with filters, that are done or wait: the first of a filter takes some tenths of a second of
a million images. More are refused (429)."""
DRAWN = 4
"""Thumbnails that are made at once: each from a whole file in memory."""
CHECK_SECONDS = 5.0
"""What a search may take for the server to be ready."""
CHECKED_SECONDS = 1.0
"""For how long a check is believed."""


class Service:
    """One index, its encoder, and the threads of each stage."""

    def __init__(self, name: str, index: Index, encoder: Encoder, settings: Settings) -> None:
        """Raises WorkerFailed where decoding processes cannot be had."""
        self.name = name
        self.index = index
        self.embedding = Embedding(encoder, index.spaces[0].recipe.preprocessing, settings)
        # On one core each: threads of FAISS that wait for each other spin, and take the other from the event loop.
        one_core = partial(faiss.omp_set_num_threads, 1)
        self._searching: Stage[Query, list[Hit]] = Stage(
            "search", index.search_many, most=TOGETHER, initializer=one_core
        )
        self._searchers = ThreadPoolExecutor(2, thread_name_prefix="search", initializer=one_core)
        self._heavy = Gate(HEAVY)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read", initializer=one_core)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._files = ThreadPoolExecutor(2, thread_name_prefix="files")
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish", initializer=one_core)
        self._publishing: Future[None] | None = None
        self._closing = threading.Event()
        self._observer = Observer(name, index)
        self._drawing = asyncio.Semaphore(DRAWN)
        self._checking: asyncio.Task[None] | None = None
        self._checked = 0.0
        metrics.REPLACED.labels(name).set_function(lambda: self.embedding.replaced)
        # On the writer's thread, as after each write: a generation may have been damaged or lost while nobody served.
        self._writer.submit(self._publish_if_worth_it)

    def close(self) -> None:
        """Finish what is under way, but for a publication, which is given up, and close the index."""
        self._closing.set()
        for pool in (self._searchers, self._readers, self._writer, self._files, self._publisher):
            pool.shutdown()
        self._searching.close()
        self._observer.close()
        self.embedding.close()
        self.index.close()

    async def check(self) -> None:
        """Take a picture through everything that a search needs. Raises Problem 503 where it is not answered in time.

        Who asks while somebody else does, or soon after, gets the same answer.
        """
        if self._checking is None or (self._checking.done() and time.monotonic() - self._checked > CHECKED_SECONDS):
            self._checking = asyncio.create_task(self._check())
        await asyncio.shield(self._checking)

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.read(lambda index: index.unpublished())  # it may have been moved away meanwhile
                vectors = await self.embedding.embed(PICTURE, Timing(), fresh=True)
                space = self.index.spaces[0].name
                query = Query(parts=[QueryPart(vector=vectors[space])], k=1, space=space)
                await self._searching(query)
        except Exception as error:
            reason = "takes too long" if isinstance(error, TimeoutError) else f"fails: {error}"
            problems.log.error("a search of the index %s %s", self.index.path, reason)
            raise (problems.from_error(error) if isinstance(error, SearchError) else problems.not_ready()) from error
        finally:
            self._checked = time.monotonic()

    async def search(self, query: Query, timing: Timing) -> list[Hit]:
        """`Index.search`, together with others that wait; what may take long, beside them. Raises Problem 429 too."""
        began = time.perf_counter()
        with activity.HERE.working():
            if query.filter is None and query.k + query.offset <= LIGHT:
                hits = await self._searching(query)
            else:
                with self._heavy.entered():
                    hits = await asyncio.get_running_loop().run_in_executor(self._searchers, self.index.search, query)
        timing.search += time.perf_counter() - began
        self._observer.asked(query)
        return hits

    async def read(self, work: Callable[[Index], Result]) -> Result:
        """Read from the index, off the event loop. Too little for `activity`: probes do it every second."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, self.index)

    async def write(self, work: Callable[[Writer], Result]) -> Result:
        """Change the index, one change at a time, under its lock. Raises IndexLocked."""

        def locked() -> Result:
            with self.index.writer() as writer:
                result = work(writer)
            self._publish_if_worth_it()
            return result

        return await _run(self._writer, locked)

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
        facts, vectors = await self.embedding.describe(data)

        def store(writer: Writer) -> tuple[ImageRecord, bool]:
            # Stored among the uploads even where a file elsewhere is known: that one may be pruned, this was added.
            location = _store_upload(self.index.uploads, image_id, facts.format, data)
            with writer.transaction() as transaction:
                new = transaction.add(
                    NewImage(
                        id=image_id,
                        facts=facts,
                        location=location,
                        vectors=vectors,
                        labels=kept_labels,
                        metadata=kept_metadata,
                    )
                )
            return self.index.image(image_id), new

        return await self.write(store)

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
                else checked_metadata(_merged(self.index.image(image_id).metadata, checked_metadata(patch)))
            )
            return writer.describe(
                image_id, labels=None if labels is None else checked_labels(labels), metadata=metadata
            )

        return await self.write(apply)

    async def file(self, image_id: str) -> tuple[BinaryIO, str]:
        """An image's original file, open, and its format. Raises UnknownImage, Problem where it is gone or changed."""
        return await _run(self._files, lambda: self._original(image_id))

    async def thumbnail(self, image_id: str, size: int) -> bytes:
        """A JPEG that fits in `size` x `size` pixels, from the cache or made now."""
        cached = self.index.thumbnails / image_id[:2] / f"{image_id}-{size}.jpg"

        def kept() -> bytes | None:
            self.index.catalog.rowid(image_id)
            with suppress(OSError):
                return cached.read_bytes()
            return None

        def keep(small: bytes) -> None:
            with suppress(OSError):  # a cache that cannot be written, on a full disk say, must not cost the answer
                write_whole(cached, small, durable=False)
            try:
                self.index.catalog.rowid(image_id)
            except UnknownImage:  # removed meanwhile: whoever did that has not seen this file
                cached.unlink(missing_ok=True)
                raise

        def whole() -> bytes:
            with self._original(image_id)[0] as file:
                return file.read()

        found = await _run(self._files, kept)
        if found is not None:
            return found
        async with self._drawing:
            small = await self.embedding.thumbnail(await _run(self._files, whole), size)
        await _run(self._files, lambda: keep(small))
        return small

    def _original(self, image_id: str) -> tuple[BinaryIO, str]:
        record = self.index.image(image_id)
        with self.index.catalog.lookup() as lookup:
            locations = lookup.locations_of(image_id)
        for location in locations:
            try:
                path = Path(location.absolute).resolve(strict=True)
                if path.is_relative_to(Path(location.root).resolve()):
                    file = path.open("rb")
                    if hashlib.file_digest(file, "sha256").hexdigest() == image_id:
                        file.seek(0)
                        return file, record.facts.format
                    file.close()
            except OSError:
                continue
        raise problems.file_gone()


def _picture() -> bytes:
    """A small JPEG: every picture is as good."""
    out = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "JPEG")
    return out.getvalue()


PICTURE = _picture()


def _store_upload(uploads: Path, image_id: str, image_format: str, data: bytes) -> Location:
    """Write an upload under its id and wait until it is on the disk: the catalog must never name a file that is not."""
    extension = "jpg" if image_format == "jpeg" else image_format
    relative = f"{image_id[:2]}/{image_id}.{extension}"
    path = uploads / relative
    with storage_errors(uploads):
        write_whole(path, data, durable=True)
        facts = path.stat()
    return Location(root=str(uploads), path=relative, mtime_ns=facts.st_mtime_ns, size=facts.st_size)


def _merged(old: JsonObject, patch: JsonObject) -> dict[str, object]:
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


async def _run(pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    with activity.HERE.working():
        return await asyncio.get_running_loop().run_in_executor(pool, work)
