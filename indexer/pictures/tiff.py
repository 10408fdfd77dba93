"""Which page of a TIFF is the picture, and its pixels where Pillow would misread them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from indexer.errors import ImageRejected
from indexer.pictures.formats import NOT_SUPPORTED
from indexer.pictures.levels import Range, to_levels, to_opacity
from indexer.pictures.samples import COMPRESSIONS, bits_of, formats_of, read_samples, samples_of

MAX_DIRECTORIES = 64
"""Looked at for the picture: a scanned book has one a page, and its first one is the picture."""
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
"""Samples that photometric interpretations take here: white is zero, black is zero, RGB, CMYK."""
_TYPE, _OLD_TYPE, _COMPRESSION, _PHOTOMETRIC, _PLANAR = 254, 255, 259, 262, 284
_MIN_SAMPLE, _MAX_SAMPLE, _LEAST, _MOST = 280, 281, 340, 341
_YCBCR = 6
_SUB_DIRECTORIES, _EXTRA_SAMPLES, _PROFILE, _NODATA = 330, 338, 34675, 42113

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A directory of a TIFF: where it begins, in bytes, and its tags."""

    offset: int
    tags: ImageFileDirectory_v2

    @property
    def size(self) -> Size:
        """(width, height) in pixels as stored, before it is turned; (0, 0) where it has none."""
        try:
            return int(self.tags[256]), int(self.tags[257])
        except (KeyError, TypeError, ValueError):
            return 0, 0

    @property
    def is_whole(self) -> bool:
        """Whether it is neither a smaller version of another page nor a mask."""
        return not _number(self.tags, _TYPE) & (_REDUCED | _MASK) and _number(self.tags, _OLD_TYPE) != 2

    @property
    def photometric(self) -> int:
        """The meaning of samples; as Pillow has it where the tag is missing."""
        return _number(self.tags, _PHOTOMETRIC)


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    return data[:4] in _SIGNATURES


def pages(data: bytes) -> list[Page]:
    """Up to MAX_DIRECTORIES of a TIFF's directories: the first one, those below it, the others. Never raises."""
    found: list[Page] = []
    try:
        head = data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8]
        waiting = [ImageFileDirectory_v2(head).next]
        seen = set()
        while waiting and len(found) < MAX_DIRECTORIES:
            offset = waiting.pop(0)
            if not offset or offset in seen or offset >= len(data):
                continue
            seen.add(offset)
            file = BytesIO(data)
            file.seek(offset)
            tags = ImageFileDirectory_v2(head)
            tags.load(file)
            found.append(Page(offset=offset, tags=tags))
            below = tags.get(_SUB_DIRECTORIES, ())
            below = below if isinstance(below, tuple) else (below,)
            waiting = [*(at for at in below[:MAX_DIRECTORIES] if isinstance(at, int)), *waiting, tags.next]
    except Exception:  # of any type: it parses a damaged file, and Pillow will say so
        return found
    return found


def picture_page(all_pages: list[Page]) -> Page:
    """The page that is the picture: the first that is whole; the largest where all are reduced."""
    whole = next((page for page in all_pages if page.is_whole and min(page.size) > 0), None)
    return whole or max(all_pages, key=lambda page: page.size[0] * page.size[1])


def open_page(data: bytes, first: Page, page: Page, *, check: Callable[[Size], None]) -> tuple[Image.Image, Image.Exif]:
    """The page as a Pillow image, whose pixels may not be read yet, and its Exif: of the first page where it has none.

    Raises ImageRejected with "not supported" for layouts that nothing here reads right.
    """
    exif = exif_of(data, page)
    if first is not page and not any(tag in exif for tag in (271, 272, 306, int(ExifTags.IFD.Exif))):
        turn = exif.get(ExifTags.Base.Orientation)
        exif = exif_of(data, first)
        exif[ExifTags.Base.Orientation] = turn or 1
    if is_deep(page):
        check(page.size)
        return _deep(data, page), exif
    try:
        image = Image.open(BytesIO(data if first is page else _beginning_with(data, page)), formats=("TIFF",))
    except UnidentifiedImageError:
        if page.photometric in _COLOURS and _number(page.tags, _COMPRESSION, 1) in COMPRESSIONS and min(page.size) > 0:
            check(page.size)
            return _deep(data, page), exif
        raise
    if page.photometric == _YCBCR and _number(page.tags, _COMPRESSION, 1) == 1:
        _by_libtiff(image)
    if exif.get(ExifTags.Base.Orientation):
        del exif[ExifTags.Base.Orientation]  # Pillow turns what it reads itself
    return image, exif


def _by_libtiff(image: Any) -> None:
    """Let libtiff read uncompressed YCbCr, as Pillow does where it is compressed: pixels may share their colours, of
    which Pillow itself knows nothing.
    """
    image._mode, image.use_load_libtiff = "RGB", True
    extents = 0, 0, int(image.tag_v2[256]), int(image.tag_v2[257])
    image.tile = [image.tile[0]._replace(codec_name="libtiff", extents=extents, offset=0)]
    image.tile[0] = image.tile[0]._replace(args=("RGBX", False, image.tag_v2.offset))


def is_deep(page: Page) -> bool:
    """Whether samples are other than bytes side by side, which Pillow reads right."""
    tags = page.tags
    try:
        bits, formats = bits_of(tags), formats_of(tags)
        planar = _number(tags, _PLANAR, 1) == 2 and samples_of(tags) > 1
        packed = _number(tags, _COMPRESSION, 1) not in COMPRESSIONS
    except (TypeError, ValueError):
        return False
    if packed and max(bits, default=1) <= 8:  # JPEG, fax
        return False
    return max(bits, default=1) > 8 or set(formats) != {1} or (planar and page.photometric in _COLOURS)


def _deep(data: bytes, page: Page) -> Image.Image:
    colours, tags = _COLOURS.get(page.photometric), page.tags
    compression = _number(tags, _COMPRESSION, 1)
    if colours is None or compression not in COMPRESSIONS:
        raise ImageRejected(
            f"{NOT_SUPPORTED}a TIFF of {max(bits_of(tags))} bits a sample, photometric interpretation "
            f"{page.photometric}, compression {compression}"
        )
    extra = tags.get(_EXTRA_SAMPLES, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    count = samples_of(tags)
    if colours == 1 and count == 3 and 1 not in extra and 2 not in extra:
        colours = 3  # three channels without a word, as GDAL writes colours of more than 8 bits
    alpha = next((kind for kind in extra[:1] if kind in (1, 2)), 2 if colours == 3 and count == 4 and not extra else 0)
    if alpha and colours == 4:
        alpha = 0
    samples = read_samples(data, tags, wanted=colours + bool(alpha))
    if samples.shape[2] < colours + bool(alpha):
        raise ImageRejected("damaged: it has too few samples a pixel")
    image = Image.fromarray(np.ascontiguousarray(_colours(samples[:, :, :colours], page)))
    if colours == 4:
        image = Image.frombytes("CMYK", image.size, image.tobytes())
    if alpha:
        image = _with_alpha(image, samples[:, :, colours], max(bits_of(tags)), premultiplied=alpha == 1)
    image.format = "TIFF"
    if isinstance(profile := tags.get(_PROFILE), bytes):
        image.info["icc_profile"] = profile
    return image


def _colours(samples: NDArray[np.generic], page: Page) -> NDArray[np.uint8]:
    bits, kind = max(bits_of(page.tags)), samples.dtype.kind
    exact = kind == "u" and (bits <= 8 or page.photometric == 5)  # as Pillow has them; of ink, less is lighter
    if exact:
        levels = to_levels(samples, depth=bits, stretch=False)
    else:
        depth = bits if kind == "u" and bits % 8 else None
        levels = to_levels(samples, depth=depth, declared=_declared(page.tags, samples), nodata=_nodata(page.tags))
    if page.photometric == 0:
        levels = 255 - levels
    return levels[:, :, 0] if levels.shape[2] == 1 else levels


def _with_alpha(image: Image.Image, samples: NDArray[np.generic], bits: int, *, premultiplied: bool) -> Image.Image:
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray(to_opacity(samples, bits)))
    if premultiplied:
        rgba = Image.frombytes("RGBa", rgba.size, rgba.tobytes()).convert("RGBA")
    return rgba


def _declared(tags: ImageFileDirectory_v2, samples: NDArray[np.generic]) -> Range | None:
    """The lowest and highest sample that the file gives; None where it gives no more than the type does."""
    for least, most in ((_LEAST, _MOST), (_MIN_SAMPLE, _MAX_SAMPLE)):
        try:
            low, high = _extreme(tags.get(least), min), _extreme(tags.get(most), max)
        except (TypeError, ValueError):
            continue
        if high is None:
            continue
        low = 0.0 if low is None else low
        full = samples.dtype.kind == "u" and high >= 2 ** (8 * samples.dtype.itemsize) - 1
        if np.isfinite(low) and np.isfinite(high) and low < high and not full:
            return low, high
    return None


def _extreme(value: Any, choose: Callable[[tuple[float, ...]], float]) -> float | None:
    if value is None:
        return None
    return float(choose(value)) if isinstance(value, tuple) else float(value)


def _nodata(tags: ImageFileDirectory_v2) -> float | None:
    text = tags.get(_NODATA)
    try:
        value = float(str(text).strip("\0 ")) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) else None


def _beginning_with(data: bytes, page: Page) -> bytes:
    """The file with this directory as its first one."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    if data[2:4] in (b"+\0", b"\0+"):
        return data[:8] + page.offset.to_bytes(8, order) + data[16:]
    return data[:4] + page.offset.to_bytes(4, order) + data[8:]


def exif_of(data: bytes, page: Page) -> Image.Exif:
    """The Exif of a page, empty where it is damaged."""
    exif = Image.Exif()
    try:
        exif.bigtiff, exif.endian = page.tags._bigtiff, page.tags._endian
        exif.load_from_fp(BytesIO(data), page.offset)
        exif._loaded = True
    except Exception:  # of any type: it parses what may be damaged
        return Image.Exif()
    return exif


def _number(tags: ImageFileDirectory_v2, tag: int, default: int = 0) -> int:
    value = tags.get(tag, default)
    return value if isinstance(value, int) else default
