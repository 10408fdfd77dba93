"""Boards of an index, put together to be shown, drawn and taken along."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from typing import TYPE_CHECKING, BinaryIO

from api.errors import FileGone, LinkInvalid, QuestionInvalid
from api.serving.pictures import Pictures, open_original
from api.serving.saved import SavedQuestion, read_saved
from indexer.errors import IndexerError
from indexer.pictures.sheet import Picture, draw_sheet
from search.catalog.boards import Board, BoardItem, Comment, has_image, read_board, read_comments, read_items
from search.catalog.shares import Share, find_share
from search.errors import NotOnBoard, UnknownImage
from search.index import Index

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_SHEET = 100
"""Images of a contact sheet: small pictures of some of them are made first, 50 to 100 ms each."""
CHUNK_BYTES = 1 << 18
"""Of an archive that is sent while it is made: it is never in memory as a whole."""
MAX_STEM = 150
"""Bytes of an exported file's name, before its ending: with a place, it fits any file system."""
_NO_NAMES = frozenset('/\\:*?"<>|')
_ARCHIVED_AT = (1980, 1, 1, 0, 0, 0)
"""The time of files in archives: the same board makes the same archive."""


@dataclass(frozen=True, kw_only=True)
class WholeBoard:
    """A board with all that is on it, as it was at one moment."""

    board: Board
    items: list[BoardItem]
    comments: list[Comment]

    @property
    def images(self) -> list[BoardItem]:
        """Its images that are still in the index."""
        return [item for item in self.items if item.image is not None and not item.gone]


def whole_board(index: Index, number: int) -> WholeBoard:
    """A board with all that is on it. Raises UnknownBoard."""
    with index.catalog.reading() as connection:
        board = read_board(connection, number)
        return WholeBoard(board=board, items=read_items(connection, number), comments=read_comments(connection, number))


def guests_share(index: Index, token: str, image_id: str | None = None) -> Share | None:
    """The link of a token where it holds; image_id: and its board has this image."""
    with index.catalog.reading() as connection:
        share = find_share(connection, token)
        if share is not None and image_id is not None and not has_image(connection, share.board, image_id):
            raise LinkInvalid
        return share


def item_question(whole: WholeBoard, number: int) -> SavedQuestion:
    """The question of an item; of an image, what is like it. Raises NotOnBoard, QuestionInvalid."""
    for item in whole.items:
        if item.number == number:
            return read_saved(item.question or {"parts": [{"id": item.image}]})
    raise NotOnBoard("The board has no such item.")


async def contact_sheet(whole: WholeBoard, pictures: Pictures) -> bytes:
    """All images of a board in one JPEG, with their notes. Raises QuestionInvalid where they are too many."""
    if len(whole.images) > MAX_SHEET:
        raise QuestionInvalid(f"A contact sheet has at most {MAX_SHEET} images. Export the board as an archive.")
    cells = []
    for place, item in enumerate(whole.images, start=1):
        data = None
        assert item.image is not None
        with suppress(FileGone, UnknownImage, IndexerError):
            data = await pictures.thumbnail(item.image, 256)
        cells.append(Picture(data=data, heading=f"{place}", caption=item.note or item.image[:16]))
    return await asyncio.to_thread(draw_cells, cells)


def draw_cells(cells: Sequence[Picture]) -> bytes:
    """A contact sheet without a query, as JPEG."""
    out = BytesIO()
    draw_sheet(None, cells, out)
    return out.getvalue()


def named_files(index: Index, whole: WholeBoard) -> Iterator[tuple[int, str, BinaryIO]]:
    """The original files of a board's images, open, each with its item and a name: its own, behind its place. Those
    that are gone are left out."""
    for place, item in enumerate(whole.images, start=1):
        assert item.image is not None
        with suppress(FileGone, UnknownImage):
            original = open_original(index, item.image)
            with original.file:
                yield item.number, f"{place:04}-{_portable(original.name)}", original.file


def _portable(name: str) -> str:
    """A file's name as any system takes it, with its ending, and not too long."""
    plain = "".join("_" if one in _NO_NAMES or not one.isprintable() else one for one in name).rstrip(". ")
    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending) > 10:
        stem, dot, ending = plain, "", ""
    return stem.encode()[:MAX_STEM].decode("utf-8", "ignore") + dot + ending


def archive(index: Index, whole: WholeBoard, describe: Callable[[Mapping[int, str]], str]) -> Iterator[bytes]:
    """A ZIP archive of a board's original files, and at its end of what describes it, a piece at a time.

    The files are stored as they are: pictures are compressed already. describe: told the files' names, by their items.
    """
    out = _Pipe()
    names: dict[int, str] = {}
    with zipfile.ZipFile(out, "w") as made:
        for item, name, file in named_files(index, whole):
            names[item] = name
            with made.open(zipfile.ZipInfo(name, _ARCHIVED_AT), "w", force_zip64=True) as entry:
                while data := file.read(CHUNK_BYTES):
                    entry.write(data)
                    yield out.taken()
        made.writestr(zipfile.ZipInfo("board.json", _ARCHIVED_AT), describe(names))
        yield out.taken()
    yield out.taken()


class _Pipe(RawIOBase):
    """Keeps what is written to it until it is taken. It cannot seek: archives are then written from front to end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        """Everything since the last time."""
        data, self._parts = b"".join(self._parts), []
        return data
