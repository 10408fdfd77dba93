"""A served index: the stages a request goes through, each with its own threads, and the files behind its images."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import faiss

from api import activity, problems
from api.batching import Batcher, QueueFull
from api.observer import Observer
from api.publishing import publish_patiently
from api.settings import Settings
from indexer.decode import Decoded, DecodeLimits, decode, sniff, thumbnail
from indexer.encoder import Encoder
from indexer.sources import SNIFFED_BYTES
from search.annotations import checked_labels, checked_metadata
from search.errors import SearchError, UnknownImage
from search.files import storage_errors, write_whole
from search.index import Index
from search.types import Hit, ImageRecord, JsonObject, Location, NewImage, Query, Vector

Result = TypeVar("Result")
Box = tuple[float, float, float, float]


@dataclass(kw_only=True)
class Timing:
    """Where a request's time went, in seconds."""

    decode: float = 0.0
    encode: float = 0.0
    search: float = 0.0


class Service:
    """One index, its encoder, and the threads of each stage."""

    def __init__(self, name: str, index: Index, encoder: Encoder, settings: Settings) -> None:
        self.name = name
        self.index = index
        self._batcher = Batcher(encoder, max_waiting=settings.max_waiting)
        self._names = encoder.names
        self._limits = DecodeLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
        # Fixed threads: FAISS starts an OpenMP pool for every new thread that calls it.
        self._decoders = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="decode")
        self._searchers = ThreadPoolExecutor(2, thread_name_prefix="search")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._files = ThreadPoolExecutor(2, thread_name_prefix="files")
        self._publisher = ThreadPoolExecutor(
            1, thread_name_prefix="publish", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._publishing: Future[None] | None = None
        self._closing = threading.Event()
        self._observer = Observer(name, index)
        # On the writer's thread, as after each write: a generation may have been damaged or lost while nobody served.
        self._writer.submit(self._publish_if_worth_it)

    def close(self) -> None:
        """Finish what is under way, but for a publication, which is given up, and close the index."""
        self._closing.set()
        for pool in (self._decoders, self._searchers, self._writer, self._files, self._publisher):
            pool.shutdown()
        self._observer.close()
        self._batcher.close()
        self.index.close()

    @property
    def ready(self) -> bool:
        """Whether a search would be answered."""
        return self._batcher.alive

    async def embed(self, data: bytes, timing: Timing, *, box: Box | None = None) -> tuple[Decoded, dict[str, Vector]]:
        """Decode and encode one image: its facts, and one embedding a space.

        Raises Problem (not an image, overloaded), ImageRejected (it cannot be decoded).
        """
        if not sniff(data[:SNIFFED_BYTES]):
            raise problems.not_an_image()
        preprocessing = self.index.spaces[0].recipe.preprocessing
        began = time.perf_counter()
        decoded = await _run(self._decoders, lambda: decode(data, preprocessing, limits=self._limits, box=box))
        timing.decode += time.perf_counter() - began
        began = time.perf_counter()
        try:
            with activity.HERE.working():
                vectors = await asyncio.wrap_future(self._batcher.submit(decoded.pixels))
        except QueueFull as error:
            raise problems.overloaded() from error
        timing.encode += time.perf_counter() - began
        return decoded, dict(zip(self._names, vectors, strict=True))

    async def search(self, query: Query, timing: Timing) -> list[Hit]:
        """`Index.search`, on a thread of its own."""
        began = time.perf_counter()
        hits = await _run(self._searchers, lambda: self.index.search(query))
        timing.search += time.perf_counter() - began
        self._observer.asked(query)
        return hits

    async def read(self, work: Callable[[Index], Result]) -> Result:
        """Read from the index, off the event loop. Too little for `activity`: probes do it every second."""
        return await asyncio.get_running_loop().run_in_executor(self._searchers, work, self.index)

    async def write(self, work: Callable[[Index], Result]) -> Result:
        """Change the index, one change at a time, under its lock. Raises IndexLocked."""

        def locked() -> Result:
            with self.index.lock():
                result = work(self.index)
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
        decoded, vectors = await self.embed(data, Timing())

        def store(index: Index) -> tuple[ImageRecord, bool]:
            # Stored among the uploads even where a file elsewhere is known: that one may be pruned, this was added.
            location = _store_upload(index.uploads, image_id, decoded.facts.format, data)
            with index.writing() as transaction:
                new = transaction.add(
                    NewImage(
                        id=image_id,
                        facts=decoded.facts,
                        location=location,
                        vectors=vectors,
                        labels=kept_labels,
                        metadata=kept_metadata,
                    )
                )
            return index.image(image_id), new

        return await self.write(store)

    async def delete(self, image_id: str) -> None:
        """Remove an image for good. Raises UnknownImage."""

        def remove(index: Index) -> None:
            if not index.remove([image_id]):
                raise UnknownImage("The index has no image with this id.")

        await self.write(remove)

    async def change(self, image_id: str, labels: Sequence[str] | None, patch: JsonObject | None) -> ImageRecord:
        """Replace labels, merge metadata (RFC 7396: null removes a key). Raises UnknownImage, AnnotationInvalid."""

        def apply(index: Index) -> ImageRecord:
            metadata = None if patch is None else checked_metadata(_merged(index.image(image_id).metadata, patch))
            return index.describe(
                image_id, labels=None if labels is None else checked_labels(labels), metadata=metadata
            )

        return await self.write(apply)

    async def file(self, image_id: str) -> tuple[bytes, str]:
        """An image's original bytes and format. Raises UnknownImage, Problem where its file is gone or changed."""
        return await _run(self._files, lambda: self._original(image_id))

    async def thumbnail(self, image_id: str, size: int) -> bytes:
        """A JPEG that fits in `size` x `size` pixels, from the cache or made now."""
        return await _run(self._files, lambda: self._thumbnail(image_id, size))

    def _thumbnail(self, image_id: str, size: int) -> bytes:
        self.index.catalog.rowid(image_id)
        cached = self.index.thumbnails / image_id[:2] / f"{image_id}-{size}.jpg"
        try:
            return cached.read_bytes()
        except OSError:
            data, _ = self._original(image_id)
            small = thumbnail(data, size, limits=DecodeLimits())
            with suppress(OSError):  # a cache that cannot be written, on a full disk say, must not cost the answer
                write_whole(cached, small, durable=False)
            try:
                self.index.catalog.rowid(image_id)
            except UnknownImage:  # removed meanwhile: whoever did that has not seen this file
                cached.unlink(missing_ok=True)
                raise
            return small

    def _original(self, image_id: str) -> tuple[bytes, str]:
        record = self.index.image(image_id)
        with self.index.catalog.lookup() as lookup:
            locations = lookup.locations_of(image_id)
        for location in locations:
            try:
                path = Path(location.absolute).resolve(strict=True)
                if path.is_relative_to(Path(location.root).resolve()):
                    data = path.read_bytes()
                    if hashlib.sha256(data).hexdigest() == image_id:
                        return data, record.facts.format
            except OSError:
                continue
        raise problems.file_gone()


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
