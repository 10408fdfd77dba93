"""Two pictures side by side, with the patches of each that match in equal colours, joined by lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from indexer.errors import ImageRejected
from indexer.pictures.decode import Box, DecodeLimits, thumbnail
from indexer.pictures.grid import Grid
from indexer.pictures.sheet import CAPTION, GAP, Picture, fitted

PANE = 448
"""Pixels of a picture's longer side."""
COLOURS = ("#dc2626", "#2563eb", "#16a34a", "#d97706", "#9333ea", "#0891b2", "#db2777", "#4d7c0f")
FADED = 0.6
"""How much of a patch that matches nothing clearly is white."""
LEAST = 12
"""Pixels of a marked patch's side, however small the picture."""


@dataclass(frozen=True, kw_only=True)
class Pane:
    """A picture, its grid, and for each of its patches how clearly it matches, 0..1."""

    picture: Picture
    grid: Grid
    clearness: Sequence[float]


def draw_matches(query: Pane, hit: Pane, pairs: Sequence[tuple[Box, Box]], out: Path | BinaryIO) -> None:
    """Draw two pictures with numbered pairs of boxes, in the format that `out`'s name says; into an open file as PNG.

    Patches fade that match nothing clearly. pairs: boxes in both, as fractions of each picture. Raises ImageRejected
    where a picture cannot be drawn, OSError or ValueError where `out` cannot be written.
    """
    drawn = [_faded(pane) for pane in (query, hit)]
    height = max(one.height for one in drawn)
    lefts = (GAP, 2 * GAP + drawn[0].width + 2 * GAP)
    sheet = Image.new("RGB", (lefts[1] + drawn[1].width + GAP, height + CAPTION + 2 * GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for left, one, pane in zip(lefts, drawn, (query, hit), strict=True):
        sheet.paste(one, (left, GAP))
        draw.text((left, GAP + height + 4), pane.picture.heading, fill="#18181b", font=ImageFont.load_default(15))
        draw.text(
            (left, GAP + height + 22), fitted(pane.picture.caption), fill="#71717a", font=ImageFont.load_default(12)
        )
    marked = [[_on_sheet(box, one, left) for box, one, left in zip(pair, drawn, lefts, strict=True)] for pair in pairs]
    for number, (start, end) in enumerate(marked):
        colour = COLOURS[number % len(COLOURS)]
        draw.line((*_middle(start), *_middle(end)), fill=colour, width=2)
    for number, boxes in enumerate(marked):
        for box in boxes:
            _mark(draw, box, COLOURS[number % len(COLOURS)], str(number + 1))
    sheet.save(out, None if isinstance(out, Path) else "PNG")


def _faded(pane: Pane) -> Image.Image:
    if pane.picture.data is None:
        raise ImageRejected("the file is gone")
    image = Image.open(BytesIO(thumbnail(pane.picture.data, PANE, limits=DecodeLimits()))).convert("RGB")
    if max(image.size) < PANE:  # a small drawing: its patches would be too small to be told apart
        scale = PANE / max(image.size)
        image = image.resize((max(LEAST, round(image.width * scale)), max(LEAST, round(image.height * scale))))
    grid, levels = pane.grid, np.clip(np.asarray(pane.clearness, dtype=np.float32), 0, 1)
    shares = Image.fromarray(np.uint8(255 * levels).reshape(grid.rows, grid.columns))
    x, y, width, height = grid.box
    place = (
        round(x * image.width),
        round(y * image.height),
        max(1, round(width * image.width)),
        max(1, round(height * image.height)),
    )
    kept = Image.new("L", image.size, 0)
    kept.paste(shares.resize(place[2:], Image.Resampling.NEAREST), place[:2])
    mask = kept.point([round(255 * (1 - FADED) + FADED * value) for value in range(256)])
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask)


def _on_sheet(box: Box, image: Image.Image, left: int) -> Box:
    """A box in pixels of the sheet: left, top, right, bottom."""
    x, y, width, height = box
    across, down = max(LEAST, width * image.width), max(LEAST, height * image.height)
    middle = left + (x + width / 2) * image.width, GAP + (y + height / 2) * image.height
    return middle[0] - across / 2, middle[1] - down / 2, middle[0] + across / 2, middle[1] + down / 2


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _mark(draw: ImageDraw.ImageDraw, box: Box, colour: str, name: str) -> None:
    draw.rectangle(box, outline="white", width=4)
    draw.rectangle(box, outline=colour, width=3)
    font = ImageFont.load_default(13)
    place = box[2] + 3, box[1] - 3
    draw.text(place, name, fill=colour, font=font, stroke_width=2, stroke_fill="white")
