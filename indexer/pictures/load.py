"""A picture's pixels out of its file: at reduced size where that is enough, as far as they go where its end is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import GifImagePlugin, Image, ImageFile

from indexer.errors import ImageRejected
from indexer.pictures.animation import load_frame
from indexer.pictures.deep_png import high_bytes, with_low_bytes
from indexer.pictures.mend import Mended, mended
from indexer.pictures.plugins import open_picture
from indexer.pictures.raw import preview, raw_kind
from indexer.pictures.tiff import exif_of, is_deep, is_tiff, open_page, pages, picture_page

MAX_MISSING = 0.5
"""The share of a picture that its file may have lost."""
TRUNCATED = "truncated: the file ends before the picture does"
_BANDS = 64
"""In which a picture is looked through for the rows that are missing, from the bottom."""
_GREY = range(126, 130)
"""Levels with which a JPEG's decoder fills what is missing."""
_ROW_BY_ROW = ("PNG", "BMP", "TIFF", "GIF")
"""Formats whose pixels Pillow leaves where the file ends."""

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A picture whose pixels are read, as Pillow has it.

    `full`: (width, height) in pixels of the whole; `image` may be smaller. `missing`: the share of its rows, 0..1, that
    the file does not have; None: the file is whole. `exif` and `format`: of the file, where `image` has others.
    """

    image: Image.Image
    full: Size
    missing: float | None = None
    exif: Image.Exif | None = None
    format: str | None = None


def load(data: bytes, *, check: Callable[[Size], None], at_least: int | None, part: float | None = None) -> Loaded:
    """Read a picture's pixels.

    check: raises ImageRejected where (width, height) in pixels is too large; asked about what will be in memory.
    at_least: as `decode.open_upright` has it; of a part of the picture, where its shorter side, in pixels of the whole,
    is given. Raises ImageRejected, and what Pillow raises about a file that is broken.
    """
    try:
        return _loaded(data, check, at_least, part)
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        ways = list(mended(data, truncated="truncated" in str(error).lower()))
        found = _mended(ways, check, at_least, part) or _as_far_as_it_goes(ways[-1].data if ways else data, check)
        if found is None:
            raise
        if (found.missing or 0) >= MAX_MISSING:
            raise ImageRejected(TRUNCATED) from error
        return found


def _loaded(
    data: bytes, check: Callable[[Size], None], at_least: int | None, part: float | None, *, at_once: bool = False
) -> Loaded:
    found = pages(data) if is_tiff(data) else []
    if not found:
        image: Any = open_picture(data, check=check)
        if at_once:
            image.decodermaxblock = len(data)
        way = high_bytes(image)
        read = _read(image, check, at_least, part)
        if way is None:
            return read
        return replace(read, image=with_low_bytes(read.image, lambda: open_picture(data, check=check), way))
    kind = raw_kind(data, found)
    if kind is None:
        image, exif = open_page(data, found[0], picture_page(found), check=check)
        return replace(_read(image, check, at_least, part), exif=exif)
    inside = preview(data, found, kind)
    read = _read(open_picture(inside.data, check=check), check, at_least, part)
    return replace(read, full=inside.full, exif=exif_of(data, found[0]), format=kind)


def _read(image: Image.Image, check: Callable[[Size], None], at_least: int | None, part: float | None) -> Loaded:
    full = image.size
    if at_least is not None and image.format in ("JPEG", "MPO"):
        scale = 1.0 if part is None else max(1.0, min(full) / max(1.0, part))
        image.draft(None, (math.ceil(at_least * scale), math.ceil(at_least * scale)))
    # Of a progressive JPEG, the whole is in memory before its first reduced row is.
    check(full if image.info.get("progressive") else image.size)
    return Loaded(image=load_frame(image, check=check), full=full)


def _mended(
    ways: Sequence[Mended], check: Callable[[Size], None], at_least: int | None, part: float | None
) -> Loaded | None:
    for way in ways:
        try:
            found = _loaded(way.data, check, at_least if way.draft else None, part, at_once=way.at_once)
        except (ImageRejected, MemoryError):
            raise
        except Exception:  # noqa: S112 - of any type; the first error is raised in the end
            continue
        missing = _grey_share(found.image) if way.missing == "grey" else way.missing
        return replace(found, missing=missing)
    return None


def _as_far_as_it_goes(data: bytes, check: Callable[[Size], None]) -> Loaded | None:
    """The pixels that Pillow has read when it gives up: on black and on white, so that missing ones can be told."""
    if is_tiff(data) and not _is_ordinary(data):
        return None  # Pillow would read another page, or misread this one
    try:
        image, other = (_filled(data, check, ground) for ground in (0, 255))
    except (ImageRejected, MemoryError):
        raise
    except Exception:  # it cannot even be opened
        return None
    if image.format not in _ROW_BY_ROW or image.size != other.size:
        return None
    return Loaded(image=image, full=image.size, missing=_different_share(image, other))


def _is_ordinary(data: bytes) -> bool:
    found = pages(data)
    return bool(found) and raw_kind(data, found) is None and picture_page(found) is found[0] and not is_deep(found[0])


def _filled(data: bytes, check: Callable[[Size], None], ground: int) -> Image.Image:
    image = open_picture(data, check=check)
    check(image.size)
    bands = len(image.getbands())
    if isinstance(image, GifImagePlugin.GifImageFile):
        image._frame_transparency = None  # with which it would fill its canvas itself
    image.im = Image.new(image.mode, image.size, ground if bands == 1 else (ground,) * bands).im
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        if isinstance(image, ImageFile.ImageFile):
            image.tile = []  # there is nothing more to read
    check(image.size)
    return image


def _different_share(image: Image.Image, other: Image.Image) -> float:
    """The share of rows whose last pixels differ."""
    edge = (image.width - 1, 0, image.width, image.height)
    one, two = image.crop(edge).tobytes(), other.crop(edge).tobytes()
    size = len(one) // image.height
    rows = range(0, len(one), size)
    return sum(one[at : at + size] != two[at : at + size] for at in rows) / image.height


def _grey_share(image: Image.Image) -> float:
    """The share of rows at the bottom that a JPEG's decoder has filled."""
    step = max(1, image.height // _BANDS)
    for bottom in range(image.height, 0, -step):
        extrema: Any = image.crop((0, max(0, bottom - step), image.width, bottom)).getextrema()
        channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
        if not all(low in _GREY and high in _GREY for low, high in channels):
            return (image.height - bottom) / image.height
    return 1.0
