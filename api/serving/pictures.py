"""The pictures behind a served index: original files, thumbnails, and uploads on their way to the disk."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from api.errors import FileGone
from api.serving import activity
from api.serving.embedding import Embedding
from search.errors import UnknownImage
from search.files import storage_errors, write_whole
from search.index import Index
from search.types import Location

MAX_THUMBNAILS_AT_ONCE = 4
"""Each is made from a whole file in memory."""
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True, kw_only=True)
class Original:
    """An image's file, open, with its name and the format of its content (`jpeg`)."""

    file: BinaryIO
    name: str
    format: str


class Pictures:
    """Reads the files of an index's images, off the event loop."""

    def __init__(self, index: Index, embedding: Embedding) -> None:
        """embedding: whose processes draw the thumbnails."""
        self._index = index
        self._embedding = embedding
        self._files = ThreadPoolExecutor(2, thread_name_prefix="files")
        self._cache = ThreadPoolExecutor(2, thread_name_prefix="thumbnails")  # originals may be large, on a slow drive
        self._drawing = asyncio.Semaphore(MAX_THUMBNAILS_AT_ONCE)

    def close(self) -> None:
        """Finish what is under way."""
        self._files.shutdown()
        self._cache.shutdown()

    async def original(self, image_id: str) -> Original:
        """An image's original file, open. Raises UnknownImage, FileGone."""
        return await activity.run(self._files, lambda: open_original(self._index, image_id))

    async def whole(self, image_id: str) -> bytes:
        """The bytes of an image's original file. Raises UnknownImage, FileGone."""

        def read() -> bytes:
            with open_original(self._index, image_id).file as file:
                return file.read()

        return await activity.run(self._files, read)

    async def kept_thumbnail(self, image_id: str, at_least: int) -> bytes | None:
        """`kept_thumbnail` of the index."""
        return await activity.run(self._cache, lambda: kept_thumbnail(self._index, image_id, at_least))

    async def thumbnail(self, image_id: str, size: int) -> bytes:
        """A JPEG that fits in `size` x `size` pixels, from the cache or made now. Raises UnknownImage, FileGone."""
        cached = self._index.thumbnails / image_id[:2] / f"{image_id}-{size}.jpg"

        def kept() -> bytes | None:
            self._index.catalog.rowid(image_id)
            with suppress(OSError):
                return cached.read_bytes()
            return None

        def keep(small: bytes) -> None:
            with suppress(OSError):  # a cache that cannot be written, on a full disk say, must not cost the answer
                write_whole(cached, small, durable=False)
            try:
                self._index.catalog.rowid(image_id)
            except UnknownImage:  # removed meanwhile: whoever did that has not seen this file
                cached.unlink(missing_ok=True)
                raise

        found = await activity.run(self._cache, kept)
        if found is not None and found.endswith(_JPEG_END):  # a power cut may have left it empty
            return found
        async with self._drawing:
            small = await self._embedding.thumbnail(await self.whole(image_id), size)
        await activity.run(self._cache, lambda: keep(small))
        return small


def kept_thumbnail(index: Index, image_id: str, at_least: int) -> bytes | None:
    """The largest thumbnail in the cache, of an image whose file may be gone; None where none was made to fit in
    `at_least` pixels or more."""
    paths = (index.thumbnails / image_id[:2]).glob(f"{image_id}-*.jpg")
    sizes = {int(path.stem.rpartition("-")[2]): path for path in paths}
    for size in sorted((size for size in sizes if size >= at_least), reverse=True):
        with suppress(OSError):
            if (small := sizes[size].read_bytes()).endswith(_JPEG_END):  # a power cut may have left it empty
                return small
    return None


def open_original(index: Index, image_id: str) -> Original:
    """An image's original file, open: one with the image's content. Raises UnknownImage, FileGone."""
    record = index.image(image_id)
    with index.catalog.lookup() as lookup:
        locations = lookup.locations_of(image_id)
    for location in locations:
        try:
            named = Path(location.absolute)
            path = named.resolve(strict=True)
            # Folders may be links: a build was told to follow them. The file itself must not lead out of its root.
            if named.is_symlink() and not path.is_relative_to(Path(location.root).resolve()):
                continue
            facts = path.stat()
            # Not the location's size: a build looks first and reads later, and a file may grow in between.
            if not stat.S_ISREG(facts.st_mode) or facts.st_size != record.facts.bytes:  # whoever opens a pipe waits
                continue
            with ExitStack() as opened:
                file = opened.enter_context(path.open("rb"))
                if hashlib.file_digest(file, "sha256").hexdigest() == image_id:
                    file.seek(0)
                    opened.pop_all()
                    return Original(file=file, name=location.path.rpartition("/")[2], format=record.facts.format)
        except OSError:
            continue
    raise FileGone


def store_upload(uploads: Path, image_id: str, image_format: str, data: bytes) -> Location:
    """Write an upload under its id and wait until it is on the disk: the catalog must never name a file that is not.

    Raises StorageFailed.
    """
    extension = "jpg" if image_format == "jpeg" else image_format
    relative = f"{image_id[:2]}/{image_id}.{extension}"
    path = uploads / relative
    with storage_errors(uploads):
        write_whole(path, data, durable=True)
        facts = path.stat()
    return Location(root=str(uploads), path=relative, mtime_ns=facts.st_mtime_ns, size=facts.st_size)


def _picture() -> bytes:
    """A small JPEG: every picture is as good."""
    out = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "JPEG")
    return out.getvalue()


PICTURE = _picture()
