"""Cameras' raw files that are TIFFs inside: the picture is their largest JPEG preview, of the sensor's size by name."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.errors import ImageRejected
from indexer.pictures.formats import NOT_SUPPORTED
from indexer.pictures.tiff import Page, Size

_SENSOR = (32803, 34892)
"""Photometric interpretations of a sensor's values: a colour filter array, linear raw."""
_COMPRESSIONS = (32767, 34713, 65000)
"""Sony's, Nikon's, Kodak's."""
_MAKERS = {"nikon": "NEF", "sony": "ARW", "pentax": "PEF", "samsung": "SRW", "hasselblad": "3FR", "phase one": "IIQ"}
_COMPRESSION, _PHOTOMETRIC, _MAKE, _STRIP_OFFSETS, _STRIP_BYTES = 259, 262, 271, 273, 279
_JPEG_OFFSET, _JPEG_BYTES, _DNG_VERSION, _CROP_SIZE = 513, 514, 50706, 50720
MAX_SIDE = 1_000_000
"""Pixels. No sensor has as many, but a damaged header may say anything."""
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
"""JPEG's markers of frames with eight bits and loss; a sensor's values are packed without (0xC3)."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A raw file's JPEG: its bytes, the kind of raw file (`DNG`), and (width, height) in pixels of the whole."""

    data: bytes
    kind: str
    full: Size


def raw_kind(data: bytes, pages: list[Page]) -> str | None:
    """The kind of raw file that a TIFF is; None: it is none."""
    if any(_DNG_VERSION in page.tags for page in pages):
        return "DNG"
    if data[8:10] == b"CR":
        return "CR2"
    if not any(page.photometric in _SENSOR or page.tags.get(_COMPRESSION) in _COMPRESSIONS for page in pages):
        return None
    maker = str(pages[0].tags.get(_MAKE, "")).lower()
    return next((kind for name, kind in _MAKERS.items() if maker.startswith(name)), "camera raw")


def preview(data: bytes, pages: list[Page], kind: str) -> Preview:
    """The largest JPEG in a raw file. Raises ImageRejected where there is none."""
    largest, shown = b"", (0, 0)
    for page in pages:
        if page.photometric in _SENSOR:  # packed with loss, it would look like a preview
            continue
        for offset_tag, bytes_tag in ((_STRIP_OFFSETS, _STRIP_BYTES), (_JPEG_OFFSET, _JPEG_BYTES)):
            offset, length = (_only(page.tags.get(tag)) for tag in (offset_tag, bytes_tag))
            if offset is None or length is None:
                continue
            size = _jpeg_size(memoryview(data)[offset : offset + length])
            if size[0] * size[1] > shown[0] * shown[1]:
                largest, shown = data[offset : offset + length], size
    if not largest:
        raise ImageRejected(f"{NOT_SUPPORTED}{kind} without a JPEG preview; export it as JPEG or TIFF")
    return Preview(data=largest, kind=kind, full=_full_size(pages) or shown)


def _full_size(pages: list[Page]) -> Size | None:
    """The size of the maker's crop, or else of the largest page; None where no page says what can be."""
    for page in pages:
        crop = page.tags.get(_CROP_SIZE)
        if isinstance(crop, tuple) and len(crop) == 2 and 1 <= min(crop) <= max(crop) <= MAX_SIDE:
            return int(crop[0]), int(crop[1])
    sizes = [page.size for page in pages if 1 <= min(page.size) <= max(page.size) <= MAX_SIDE]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _only(value: object) -> int | None:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else None


def _jpeg_size(data: memoryview) -> Size:
    """(width, height) in pixels of a JPEG that can be shown; (0, 0) for anything else."""
    if bytes(data[:2]) != b"\xff\xd8":
        return 0, 0
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if data[at + 1] in (0xC3, 0xDA, 0xD9):
            return 0, 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
