"""Promises of what is sent of an image's files, whatever stands in their place by now."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import draw_picture, new_image, vectors
from PIL import Image

from api.ask import pictures_of_index
from api.errors import FileGone
from api.serving.pictures import Pictures
from search.index import Index
from search.types import Location


class Drawing:
    """The part of `Embedding` that draws thumbnails."""

    async def thumbnail(self, data: bytes, size: int) -> bytes:
        """A JPEG."""
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").resize((size, size)).save(out, "JPEG")
        return out.getvalue()


class Shown:
    """An index of one picture, whose file is at `path`."""

    def __init__(self, index: Index, path: Path) -> None:
        out = io.BytesIO()
        draw_picture("red", "circle", 0).save(out, "PNG")
        self.index, self.path, self.data = index, path, out.getvalue()
        self.id = hashlib.sha256(self.data).hexdigest()
        path.write_bytes(self.data)
        location = Location(root=str(path.parent), path=path.name, mtime_ns=0, size=len(self.data))
        with index.writer() as writer, writer.transaction() as transaction:
            new = new_image(60, vectors(1)[0])
            facts = replace(new.facts, bytes=len(self.data))
            transaction.add(replace(new, id=self.id, facts=facts, location=location))
        self.pictures = Pictures(index, cast("Any", Drawing()))

    def close(self) -> None:
        with suppress(OSError):  # whoever waits for a pipe goes on
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        self.pictures.close()


@pytest.fixture
def shown(make_index: Callable[..., Index], tmp_path: Path) -> Iterator[Shown]:
    one = Shown(make_index(vectors(2)), tmp_path / "a.png")
    yield one
    one.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_no_file_and_nobody_waits_for_it(shown: Shown) -> None:
    shown.path.unlink()
    os.mkfifo(shown.path)

    async def ask() -> None:
        with pytest.raises(FileGone):
            await asyncio.wait_for(shown.pictures.original(shown.id), 5)
        with pytest.raises(FileGone):
            await asyncio.wait_for(shown.pictures.thumbnail(shown.id, 32), 5)

    asyncio.run(ask())


def test_a_file_of_another_size_is_not_read(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    with shown.path.open("ab") as file:
        file.truncate(1 << 40)  # 1 TB, without a byte on the disk
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it would be read for hours"))
    with pytest.raises(FileGone):
        asyncio.run(shown.pictures.original(shown.id))


def test_a_file_that_grew_between_a_builds_look_and_its_reading_is_sent(shown: Shown) -> None:
    seen = Location(root=str(shown.path.parent), path=shown.path.name, mtime_ns=0, size=1)
    with shown.index.writer() as writer, writer.transaction() as transaction:
        transaction.locate(shown.id, seen)
    assert asyncio.run(shown.pictures.original(shown.id)).file.read() == shown.data


def test_a_file_that_cannot_be_read_to_its_end_is_closed(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[Any]()

    def fail(file: object, _: str) -> None:
        opened.append(file)
        raise OSError(errno.EIO, "a bad block")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(FileGone):
        asyncio.run(shown.pictures.original(shown.id))
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize("left", [0, 100], ids=["empty", "half"])
def test_a_thumbnail_that_a_power_cut_has_halved_is_drawn_again(shown: Shown, left: int) -> None:
    whole = asyncio.run(shown.pictures.thumbnail(shown.id, 32))
    (kept,) = shown.index.thumbnails.rglob("*.jpg")
    kept.write_bytes(whole[:left])
    assert asyncio.run(shown.pictures.thumbnail(shown.id, 32)) == whole == kept.read_bytes()


def test_thumbnails_that_are_kept_wait_for_no_originals(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, free = asyncio.run(shown.pictures.thumbnail(shown.id, 32)), threading.Event()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: free.wait(20) and hashlib.sha256(shown.data))

    async def ask() -> None:
        reading = [asyncio.create_task(shown.pictures.original(shown.id)) for _ in range(4)]  # of a slow drive
        await asyncio.sleep(0.05)
        try:
            assert await asyncio.wait_for(shown.pictures.thumbnail(shown.id, 32), 5) == whole
        finally:
            free.set()
            for original in await asyncio.gather(*reading):
                original.file.close()

    asyncio.run(ask())


def test_a_sheet_shows_no_other_picture_in_the_place_of_a_changed_one(shown: Shown) -> None:
    with pictures_of_index(shown.index.path) as fetch:
        assert fetch(shown.id) == shown.data
        shown.path.write_bytes(shown.data[::-1])
        assert fetch(shown.id) is None
        assert fetch("0" * 64) is None
