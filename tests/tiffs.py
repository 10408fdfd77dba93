"""TIFFs of any depth, layout and order of pages, which Pillow itself cannot write."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tags = dict[int, tuple[int, tuple[Any, ...]]]
"""By number: the type (2 string, 3 short, 4 long, 12 double) and the values."""
_CODES = {1: "B", 3: "H", 4: "I", 12: "d"}


def tags_of(samples: NDArray[Any], *, photometric: int, planar: bool, bits: int | None, zipped: bool) -> Tags:
    height, width, count = samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    return {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (bits or samples.dtype.itemsize * 8,) * count),
        259: (3, (8 if zipped else 1,)),
        262: (3, (photometric,)),
        277: (3, (count,)),
        278: (4, (height,)),
        284: (3, (2 if planar else 1,)),
        339: (3, (kind,) * count),
    }


def packed(samples: NDArray[Any], bits: int) -> bytes:
    """Rows of whole numbers of so many bits, each row to a whole byte."""
    rows = samples.reshape(len(samples), -1)
    places = ((rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(places.reshape(len(rows), -1), axis=1).tobytes()


def tiff(
    samples: NDArray[Any],
    *,
    photometric: int = 1,
    planar: bool = False,
    order: str = "<",
    bits: int | None = None,
    zipped: bool = False,
    tags: Tags | None = None,
) -> bytes:
    """A TIFF of (height, width) or (height, width, samples) numbers, one strip a plane."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    planes = np.moveaxis(samples, -1, 0)[..., None] if planar else samples[None]
    strips = [packed(p, bits) if bits else p.astype(p.dtype.newbyteorder(order)).tobytes() for p in planes]
    strips = [zlib.compress(strip) if zipped else strip for strip in strips]
    entries = tags_of(samples, photometric=photometric, planar=planar, bits=bits, zipped=zipped) | (tags or {})
    return file_of([(entries, strips)], order=order)


def file_of(pages: list[tuple[Tags, list[bytes]]], *, order: str = "<", below: int = 0) -> bytes:
    """A TIFF of pages, each its tags and strips; the last `below` of them are the first one's sub-directories."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    begins = []
    for tags, strips in pages:
        starts = []
        for strip in strips:
            starts.append(len(out))
            out += strip + bytes(len(strip) % 2)
        placed = tags | {273: (4, tuple(starts)), 279: (4, tuple(len(strip) for strip in strips))} if strips else tags
        begins.append((placed, starts))
    places: list[int] = []
    for number in range(len(pages) - 1, -1, -1):
        tags = begins[number][0]
        if number == 0 and below:
            tags = tags | {330: (4, tuple(places[len(places) - below :]))}
        chained = number + 1 < len(pages) - below
        places.insert(0, len(out))
        out += _directory(len(out), tags, places[1] if chained else 0, order)
    out[4:8] = struct.pack(order + "I", places[0])
    return bytes(out)


def _directory(begin: int, tags: Tags, following: int, order: str) -> bytes:
    body, more = struct.pack(order + "H", len(tags)), b""
    end = begin + 2 + 12 * len(tags) + 4
    for tag, (type_, values) in sorted(tags.items()):
        if type_ == 2:
            raw, count = bytes(values[0], "ascii") + b"\0", len(values[0]) + 1
        else:
            raw, count = struct.pack(f"{order}{len(values)}{_CODES[type_]}", *values), len(values)
        if len(raw) > 4:
            body += struct.pack(order + "HHII", tag, type_, count, end + len(more))
            more += raw + bytes(len(raw) % 2)
        else:
            body += struct.pack(order + "HHI", tag, type_, count) + raw.ljust(4, b"\0")
    return body + struct.pack(order + "I", following) + more
