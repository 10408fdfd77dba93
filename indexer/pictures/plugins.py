"""Opening a picture with Pillow: its own formats at once, those of the package's extras when the first one comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from threading import Lock
from typing import Any

from PIL import ExifTags, Image

from indexer.pictures.formats import FORMATS, HEADER_BYTES, kind_of, plugin_of
from indexer.pictures.tiff import is_tiff, pages, picture_page

ALWAYS = tuple(format_.pillow for format_ in FORMATS if format_.plugin is None)
_JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_lock = Lock()


def open_picture(data: bytes, *, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    """A picture whose header is read, and whose pixels are not. Raises what Pillow raises.

    check: told (width, height) in pixels, and raises where that is too large, before a plugin decodes on opening.
    """
    plugin = plugin_of(kind_of(data[:HEADER_BYTES]))
    if plugin is None:
        return Image.open(BytesIO(data), formats=ALWAYS)
    with _lock:
        _register(plugin.pillow)
    if plugin.pillow == "JXL":
        check(jxl_size(data))
    image: Any = Image.open(BytesIO(data), formats=(plugin.pillow,))
    if plugin.pillow == "JXL" and not image.jpeg:  # what once was a JPEG is given as it was, anything else upright
        with suppress(Exception):  # a damaged Exif has no orientation
            image.getexif().pop(ExifTags.Base.Orientation, None)
    return image  # type: ignore[no-any-return]


def declared_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels that a file's header declares; (0, 0) where it cannot be read."""
    try:
        if kind_of(data[:HEADER_BYTES]) == "JPEG XL":
            return jxl_size(data)
        if found := pages(data) if is_tiff(data) else []:
            return picture_page(found).size
        return open_picture(data, check=lambda _: None).size
    except Exception:  # of any type; who decodes the file will tell
        return 0, 0


@cache
def _register(pillow: str) -> None:
    """Teach Pillow a format. No decoder may take threads of its own: a process a core decodes already."""
    if pillow == "HEIF":
        heif: Any = import_module("pillow_heif")
        heif.options.DECODE_THREADS = 1
        heif.options.THUMBNAILS = heif.options.DEPTH_IMAGES = heif.options.AUX_IMAGES = False
        heif.register_heif_opener()
    else:
        jxl: Any = import_module("pillow_jxl.JpegXLImagePlugin")
        jxl.DECODE_THREADS = 0


def jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels that a JPEG XL file's header declares: its plugin would decode before it says.

    ISO/IEC 18181-1, SizeHeader. Raises ValueError where the file has none.
    """
    bits = _Bits(_jxl_codestream(data)[2:])
    small = bits.take(1)
    height = _jxl_side(bits, small)
    ratio = _RATIOS[bits.take(3)]
    return (_jxl_side(bits, small) if ratio is None else height * ratio[0] // ratio[1]), height


def _jxl_side(bits: _Bits, small: int) -> int:
    return 8 * (bits.take(5) + 1) if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1


def _jxl_codestream(data: bytes) -> bytes:
    """The first bytes of the picture itself, which may lie in boxes."""
    if not data.startswith(_JXL_BOX):
        return data[:16]
    at = 0
    while at + 8 <= len(data):
        size, kind, begin = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, begin = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if kind == b"jxlc":
            return data[begin : begin + 16]
        if kind == b"jxlp":  # a part, behind its number
            return data[begin + 4 : begin + 20]
        if size < begin - at:  # 0: up to the end of the file
            break
        at += size
    raise ValueError("no picture in the file")


class _Bits:
    """Numbers out of bytes, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value
