"""Files that lost their end, or whose chunks beside the picture are damaged: their bytes, changed so that they decode.

Only what failed as it is comes here: an ordinary file costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from indexer.pictures.formats import HEADER_BYTES, kind_of

MAX_PROFILE_BYTES = 1024 * 1024
"""Bytes of a colour profile in a PNG once it is unpacked: Pillow's own limit, behind which it gives up the picture."""
_ICONS = (b"\0\0\1\0", b"\0\0\2\0")
_FIRST_BYTES = (b"\xff", b"\x89", b"G", b"R")
_PNG = b"\x89PNG\r\n\x1a\n"
_USED_CHUNKS = frozenset((b"tRNS", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT"))
"""Chunks of a PNG that are kept, beside the critical ones. Text is not: editors leave megabytes of it."""
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of one value, by the number of its type."""
_TIFF_PIXEL_TAGS = frozenset(
    (*range(254, 267), 273, *range(277, 280), 284, 292, 293, 317, *range(320, 326), 338, 339, 347, *range(529, 533))
)
MAX_BEFORE_BYTES = 512
"""Looked through for a picture's beginning: scripts put line ends before it, an old Mac a header of 128 bytes."""
_WEBP_MARGIN_BYTES = 1024
"""Zeros behind a WebP's picture: its decoder reads a little ahead."""


@dataclass(frozen=True, kw_only=True)
class Mended:
    """A file's bytes after a change.

    `missing`: the share of the picture, 0..1, that the file has lost; None where the picture is whole; `"grey"` where
    what is missing will be a flat grey at the bottom. `draft`: whether it may be decoded at reduced size. `at_once`:
    whether the decoder needs the whole file at once, instead of 64 KB at a time.
    """

    data: bytes
    missing: float | Literal["grey"] | None = None
    draft: bool = True
    at_once: bool = False


def mended(data: bytes, *, truncated: bool) -> Iterator[Mended]:
    """Ways to decode a file that does not decode as it is, the best one first.

    truncated: whether that is because it ends too early.
    """
    match kind_of(data[:HEADER_BYTES]):
        case "JPEG" if truncated:
            yield Mended(data=data + b"\xff\xd9", missing="grey")
        case "JPEG":
            yield Mended(data=_jpeg(data, _is_used_segment))
            yield Mended(data=_jpeg(data, _is_adobe))
            yield Mended(data=data, at_once=True)  # arithmetic coding does not stop in the middle
            yield Mended(data=data, at_once=True, draft=False)  # lossless ones have no reduced size
        case "PNG":
            yield Mended(data=_png(data, _USED_CHUNKS))
            yield Mended(data=_png(data, frozenset()))
        case "WebP":
            yield from _webp(data)
        case None if begin := _beginning(data):
            yield Mended(data=data[begin:])
        case "TIFF" if data[2:4] in (b"*\0", b"\0*"):
            yield Mended(data=_tiff(data))


def _beginning(data: bytes) -> int | None:
    """Where a picture begins that has other bytes before it; None also for an icon, which holds several pictures."""
    if data.startswith(_ICONS):
        return None
    places = (at for at in range(1, MAX_BEFORE_BYTES) if data[at : at + 1] in _FIRST_BYTES)
    return next((at for at in places if kind_of(data[at : at + HEADER_BYTES]) in ("JPEG", "PNG", "GIF", "WebP")), None)


def _jpeg(data: bytes, used: Callable[[int, bytes], bool]) -> bytes:
    """The JPEG with those of its application segments and comments that are used."""
    whole, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or used(marker, data[at + 4 : end]):
            whole.append(data[at:end])
        at = end
    return b"".join((*whole, data[at:]))


def _is_used_segment(marker: int, body: bytes) -> bool:
    is_profile = marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14
    return _is_adobe(marker, body) or is_profile or (marker == 0xE1 and body.startswith(b"Exif\0\0"))


def _is_adobe(marker: int, body: bytes) -> bool:
    """Whether a segment tells which colours the channels are."""
    return marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12


def _tiff(data: bytes) -> bytes:
    """The TIFF whose first page has lost those tags, not needed for pixels, whose values would lie outside the file."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    begin = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[begin : begin + 2], order)
    end = begin + 2 + 12 * count
    kept = []
    for at in range(begin + 2, min(end, len(data) - 11), 12):
        tag, kind, values, offset = (
            int.from_bytes(data[at + first : at + last], order) for first, last in ((0, 2), (2, 4), (4, 8), (8, 12))
        )
        size = values * _TIFF_BYTES.get(kind, 0)
        if tag in _TIFF_PIXEL_TAGS or (kind in _TIFF_BYTES and (size <= 4 or offset + size <= len(data))):
            kept.append(data[at : at + 12])
    directory = len(kept).to_bytes(2, order) + b"".join(kept) + data[end : end + 4]
    return data[:begin] + directory + data[begin + len(directory) :]


def _png(data: bytes, used: frozenset[bytes]) -> bytes:
    """The PNG with its critical chunks, those of `used` that are intact, and an end."""
    whole: list[bytes | memoryview] = [_PNG]
    at = len(_PNG)
    view = memoryview(data)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = view[at + 8 : at + 8 + length]
        intact = data[at + 8 + length : at + 12 + length] == _crc(kind, body)
        at += 12 + length
        if kind == b"IEND":
            break
        if kind == b"IDAT":  # the picture's own checksum tells what a wrong one of the chunk is worth
            whole += (len(body).to_bytes(4, "big"), kind, body, _crc(kind, body))
        elif kind[:1].isupper() or (kind in used and intact and not _is_large_profile(kind, body)):
            whole.append(view[at - 12 - length : at])
    return b"".join((*whole, bytes(4), b"IEND", _crc(b"IEND", b"")))


def _crc(kind: bytes, body: memoryview | bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")


def _is_large_profile(kind: bytes, body: memoryview) -> bool:
    if kind != b"iCCP":
        return False
    packed = bytes(body).partition(b"\0")[2][1:]
    unpacker = zlib.decompressobj()
    try:
        return len(unpacker.decompress(packed, MAX_PROFILE_BYTES)) == MAX_PROFILE_BYTES
    except zlib.error:
        return True


def _webp(data: bytes) -> Iterator[Mended]:
    """Without the chunk that the end of the file cuts; or with zeros behind the picture, where it is the picture."""
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > len(data):
            if kind == b"VP8 " and length < 2**31:
                padded = length + (length & 1) + _WEBP_MARGIN_BYTES
                picture = data[at + 8 :].ljust(padded, b"\0") if padded < 2 * len(data) + 4096 else b""
                lost = 1 - (len(data) - at - 8) / length
                yield Mended(data=_riff(data[12:at] + _chunk(kind, picture)), missing=lost)
            elif kind in (b"EXIF", b"XMP "):
                yield Mended(data=_riff(data[12:at]))
            return
        at += 8 + length + (length & 1)
    yield Mended(data=_riff(data[12:at]))  # whatever it said of its length


def _riff(chunks: bytes) -> bytes:
    return _chunk(b"RIFF", b"WEBP" + chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body
