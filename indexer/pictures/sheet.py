"""A contact sheet: the query and its hits as one picture, with scores."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageDraw, ImageFont

from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, thumbnail

CELL = 180
"""Pixels of a picture's side on the sheet."""
GAP = 14
CAPTION = 40
COLUMNS = 5
LINE, LINES = 19, 9
"""Characters of a line of words in a cell, and lines."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One cell: encoded image bytes (None: the file is gone), a heading and a second line.

    words: shown in the place of the image.
    """

    data: bytes | None
    heading: str
    caption: str
    words: str | None = None


def is_drawable(out: Path) -> bool:
    """Whether a sheet can be written in the format that a file's name says."""
    return Image.registered_extensions().get(out.suffix.lower()) in Image.SAVE


def draw_sheet(query: Picture | None, hits: Sequence[Picture], out: Path | BinaryIO) -> None:
    """Draw the query, if there is one, above its hits, and write the sheet in the format that `out`'s name says; into
    an open file as JPEG.

    Raises OSError or ValueError where it cannot be written there.
    """
    first = 0 if query is None else 1
    rows = first + -(-len(hits) // COLUMNS)
    width = GAP + COLUMNS * (CELL + GAP)
    sheet = Image.new("RGB", (width, GAP + max(1, rows) * (CELL + CAPTION + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    if query is not None:
        _place(sheet, draw, query, GAP, GAP, accent="#c2410c")
    for number, hit in enumerate(hits):
        row, column = divmod(number, COLUMNS)
        _place(sheet, draw, hit, GAP + column * (CELL + GAP), GAP + (row + first) * (CELL + CAPTION + GAP))
    sheet.save(out, None if isinstance(out, Path) else "JPEG")


def _place(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Picture, left: int, top: int, *, accent: str = "#d4d4d8"
) -> None:
    draw.rectangle((left - 1, top - 1, left + CELL, top + CELL), outline=accent, width=2 if accent != "#d4d4d8" else 1)
    try:
        if picture.words is not None:
            lines = textwrap.wrap(_printable(picture.words), LINE, max_lines=LINES, placeholder="...")
            draw.text((left + 8, top + 8), "\n".join(lines), fill="#18181b", font=ImageFont.load_default(15))
        elif picture.data is None:
            raise ImageRejected("the file is gone")
        else:
            small = Image.open(BytesIO(thumbnail(picture.data, CELL - 6, limits=DecodeLimits())))
            sheet.paste(small, (left + (CELL - small.width) // 2, top + (CELL - small.height) // 2))
    except ImageRejected as error:
        draw.text((left + 8, top + CELL // 2 - 6), str(error)[:26], fill="#71717a", font=ImageFont.load_default(12))
    draw.text((left, top + CELL + 4), picture.heading, fill="#18181b", font=ImageFont.load_default(15))
    draw.text((left, top + CELL + 22), fitted(picture.caption), fill="#71717a", font=ImageFont.load_default(12))


def fitted(text: str) -> str:
    """The end of a text that is too long for a cell: of a path, that is the telling part."""
    shown = _printable(text)
    return shown if len(shown) <= 28 else "..." + shown[-25:]


def _printable(text: str) -> str:
    """A text in the letters that Pillow's own font has: accents are left out, letters beyond ASCII are `?`."""
    letters = (character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character))
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in letters)
