"""Kinds of JPEG and TIFF that Pillow cannot read, by their headers: such a file is intact, and its owner is told so."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import TiffImagePlugin

from indexer.pictures.formats import HEADER_BYTES, kind_of

_FRAMES = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    0xCB: "a lossless arithmetic-coded JPEG",
}
"""By the marker of the frame, ITU-T T.81, table B.1; the others are read."""
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_COMPRESSIONS = {
    32766: "NeXT",
    32809: "ThunderScan",
    32895: "IT8",
    32908: "Pixar",
    32909: "Pixar",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG YCbCr",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34713: "Nikon's method",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Kinds of TIFF, by the number of the compression; those that Pillow always reads are not here."""
_READ_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946))
_SAMPLES = {
    1: "bits",
    2: "bits with a sign",
    3: "bits of float",
    5: "bits of complex numbers",
    6: "bits of complex floats",
}


def unread_kind(data: bytes) -> str | None:
    """The kind of a JPEG or TIFF that did not decode, if it is one that is not read; None: it is damaged."""
    try:
        match kind_of(data[:HEADER_BYTES]):
            case "JPEG":
                return _jpeg(data)
            case "TIFF":
                return _tiff(data)
    except Exception:  # a damaged header is one of no kind
        return None
    return None


def _jpeg(data: bytes) -> str | None:
    at = 2
    while at + 9 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            return None
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits = data[at + 4]
            return _FRAMES.get(marker) or (f"a JPEG of {bits} bits" if 2 <= bits <= 16 and bits != 8 else None)
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _tiff(data: bytes) -> str | None:
    """By its first page: its compression, or else what its pixels are made of, where Pillow knows no such pixels."""
    header = data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8]
    directory: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    tags = TiffImagePlugin
    width, height = directory[tags.IMAGEWIDTH], directory[tags.IMAGELENGTH]
    compression = directory.get(tags.COMPRESSION, 1)
    if compression not in _READ_COMPRESSIONS:
        return f"a TIFF compressed with {_COMPRESSIONS.get(compression, f'method {compression}')}"
    complete = tags.STRIPBYTECOUNTS in directory or tags.TILEBYTECOUNTS in directory
    if min(width, height) < 1 or not complete or _is_known(data):
        return None
    bits = directory.get(tags.BITSPERSAMPLE, (1,))
    channels = directory.get(tags.SAMPLESPERPIXEL, 1)
    number = directory.get(tags.SAMPLEFORMAT, (1,))[0]
    return f"a TIFF of {channels} x {bits[0]} {_SAMPLES.get(number, 'bits')}"


def _is_known(data: bytes) -> bool:
    """Whether Pillow knows pixels of this kind, and fails for another reason."""
    try:
        TiffImagePlugin.TiffImageFile(BytesIO(data)).close()
    except Exception:
        return False
    return True
