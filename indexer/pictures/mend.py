"""Files that lost their end, or whose chunks beside the picture are damaged: their bytes, changed so that they decode.

Only what failed as it is comes here: an ordinary file costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from indexer.pictures.formats import HEADER_BYTES, kind_of

MAX_PROFILE_BYTES = 1024 * 1024
"""Of a colour profile in a PNG once it is unpacked: Pillow's own limit, behind which it gives up the picture."""
_PNG = b"\x89PNG\r\n\x1a\n"
_USED_CHUNKS = frozenset((b"tRNS", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT"))
"""Of a PNG, beside the critical ones. Text is not: editors and generators leave megabytes of it."""
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
            yield Mended(data=data, at_once=True)  # arithmetic coding does not stop in the middle
            yield Mended(data=data, at_once=True, draft=False)  # lossless ones have no reduced size
        case "PNG":
            yield Mended(data=_png(data, _USED_CHUNKS))
            yield Mended(data=_png(data, frozenset()))
        case "WebP":
            yield from _webp(data)


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


def _riff(chunks: bytes) -> bytes:
    return _chunk(b"RIFF", b"WEBP" + chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body
