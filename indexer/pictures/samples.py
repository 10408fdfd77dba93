"""A TIFF page's samples as numbers: any depth, byte order and layout, with the compression undone by libtiff.

Pillow reads 8-bit pages well. It has no mode for others (float RGB), or reads them wrong: 16-bit planes as stripes,
16-bit and float grey with white as zero unturned. Here a page's strips are handed to it as 8-bit grey, one byte a
pixel, so that it only decompresses; what the bytes mean is told here.
"""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from indexer.errors import ImageRejected
from indexer.pictures.formats import NOT_SUPPORTED

MAX_SAMPLE_BYTES = 2 * 1024**3
"""Most bytes of one page: a few mutated bytes of a header could ask for any amount."""
BLOCK_BITS = 8_000_000
"""Unpacked at once, a byte each, from samples that are no whole bytes."""
COMPRESSIONS = frozenset((1, 5, 8, 32773, 32946, 34925, 50000))
"""None, LZW, deflate (two numbers), PackBits, LZMA, Zstandard: they give back bytes. Others give back pixels."""
_HEAD_BYTES = 8
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _FILL_ORDER = 256, 257, 258, 259, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339


def read_samples(data: bytes, tags: ImageFileDirectory_v2, *, wanted: int) -> NDArray[np.generic]:
    """(height, width, `wanted`) numbers: the first `wanted` samples of each pixel, in this machine's byte order.

    Raises ImageRejected for layouts that are not read, and other errors for files that are broken.
    """
    return _Layout(data, tags).read(wanted)


def bits_of(tags: ImageFileDirectory_v2) -> tuple[int, ...]:
    """Bits of each sample of a pixel."""
    bits = _numbers(tags, _BITS, (1,))
    count = samples_of(tags)
    return (bits * count if len(bits) == 1 else bits)[:count]


def samples_of(tags: ImageFileDirectory_v2) -> int:
    """Samples of each pixel, extra ones among them."""
    return int(tags.get(_SAMPLES, 1))


def formats_of(tags: ImageFileDirectory_v2) -> tuple[int, ...]:
    """The kind of samples: 1 whole numbers, 2 with a sign, 3 floats, 4 not told, 5 and 6 complex."""
    return _numbers(tags, _FORMAT, (1,))


class _Layout:
    def __init__(self, data: bytes, tags: ImageFileDirectory_v2) -> None:
        self._data, self._tags = data, tags
        self._width, self._height = int(tags[_WIDTH]), int(tags[_HEIGHT])
        self._planar = int(tags.get(_PLANAR, 1)) == 2 and samples_of(tags) > 1
        self._per_pixel = 1 if self._planar else samples_of(tags)
        bits, formats = set(bits_of(tags)), set(formats_of(tags))
        if len(bits) != 1 or len(formats) != 1 or not formats <= set(_KINDS):
            raise ImageRejected(f"{NOT_SUPPORTED}a TIFF whose samples are complex, or differ in kind")
        self._bits, self._kind = bits.pop(), _KINDS[formats.pop()]
        self._predictor = int(tags.get(_PREDICTOR, 1))
        if int(tags.get(_COMPRESSION, 1)) == 1:
            self._predictor = 1
        allowed = (16, 32, 64) if self._kind == "f" else (*range(1, 17), 32)
        if self._bits not in allowed or (self._kind == "i" and self._bits % 8):
            raise ImageRejected(f"{NOT_SUPPORTED}a TIFF with {self._bits} bits a sample")
        if self._predictor != 1 and (self._bits % 8 or self._predictor > 3):
            raise ImageRejected(f"{NOT_SUPPORTED}a TIFF with this predictor")
        self._tiled = _TILE_OFFSETS in tags
        self._unit = int(tags[_TILE_WIDTH]) if self._tiled else self._width  # pixels of a row that are stored together
        self._across = -(-self._width // self._unit)
        self._unit_bytes = (self._unit * self._per_pixel * self._bits + 7) // 8

    def read(self, wanted: int) -> NDArray[np.generic]:
        planes = wanted if self._planar else 1
        if self._across * self._unit_bytes * self._height * planes > MAX_SAMPLE_BYTES:
            raise ImageRejected(f"its samples take more than the limit of {MAX_SAMPLE_BYTES:,} bytes")
        if not self._planar:
            return self._plane(0)[:, :, :wanted]
        result = None
        for number in range(planes):
            plane = self._plane(number)
            if result is None:
                result = np.empty((self._height, self._width, planes), plane.dtype)
            result[:, :, number] = plane[:, :, 0]
        assert result is not None
        return result

    def _plane(self, number: int) -> NDArray[np.generic]:
        rows = self._bytes(number).reshape(self._height, self._across, self._unit_bytes)
        values = self._numbers(rows).reshape(self._height, self._across * self._unit, self._per_pixel)
        return values[:, : self._width]

    def _bytes(self, plane: int) -> NDArray[np.uint8]:
        """(height, bytes of a row) of one plane, decompressed."""
        offsets = _numbers(self._tags, _TILE_OFFSETS if self._tiled else _STRIP_OFFSETS, ())
        counts = _numbers(self._tags, _TILE_BYTES if self._tiled else _STRIP_BYTES, ())
        high = int(self._tags[_TILE_HEIGHT]) if self._tiled else int(self._tags.get(_ROWS_PER_STRIP, self._height))
        high = min(high, self._height) if not self._tiled else high
        pieces = -(-self._height // high) * self._across
        offsets = offsets[plane * pieces : (plane + 1) * pieces]
        counts = counts[plane * pieces : (plane + 1) * pieces]
        if not counts and len(offsets) == 1:  # old writers leave out how long the only strip is
            counts = (len(self._data) - offsets[0],)
        if len(offsets) != pieces or len(counts) != pieces:
            raise ValueError("strips or tiles are missing")
        if sum(counts) > len(self._data):
            raise ImageRejected("damaged: its strips are longer than the file")
        parts = [self._data[at : at + size] for at, size in zip(offsets, counts, strict=True)]
        if any(len(part) < size for part, size in zip(parts, counts, strict=True)):
            raise ImageRejected("truncated: the file ends before the picture does")
        with Image.open(BytesIO(self._as_grey(parts, high)), formats=("TIFF",)) as grey:
            return np.asarray(grey)

    def _as_grey(self, parts: list[bytes], high: int) -> bytes:
        """A TIFF of these strips or tiles as 8-bit grey, one byte a pixel."""
        lengths = [len(part) for part in parts]
        starts = [_HEAD_BYTES + at for at in accumulate(lengths[:-1], initial=0)]
        pixels = {_WIDTH: [self._across * self._unit_bytes], _HEIGHT: [self._height], _BITS: [8], 262: [1]}
        pixels |= {tag: [int(self._tags.get(tag, 1))] for tag in (_COMPRESSION, _FILL_ORDER)}
        if self._tiled:
            pixels |= {_TILE_WIDTH: [self._unit_bytes], _TILE_HEIGHT: [high], _TILE_OFFSETS: starts}
            pixels[_TILE_BYTES] = lengths
        else:
            pixels |= {_STRIP_OFFSETS: starts, _ROWS_PER_STRIP: [high], _STRIP_BYTES: lengths}
        begin = _HEAD_BYTES + sum(lengths)
        return b"".join((b"II*\0", struct.pack("<I", begin), *parts, _directory(begin, pixels)))

    def _numbers(self, rows: NDArray[np.uint8]) -> NDArray[np.generic]:
        """(height, across, samples) numbers out of (height, across, bytes)."""
        if self._bits % 8:
            return self._unpacked(rows)
        size = self._bits // 8
        order = self._tags._endian
        if self._predictor == 3:
            return self._float_differences(rows, size)
        if self._predictor != 2:
            values = rows.view(f"{order}{self._kind}{size}")
            return values.astype(values.dtype.newbyteorder("="), copy=False)
        whole = rows.view(f"{order}u{size}").astype(f"=u{size}")
        whole = whole.reshape(*rows.shape[:2], self._unit, self._per_pixel)
        np.cumsum(whole, axis=2, dtype=whole.dtype, out=whole)
        return whole.reshape(*rows.shape[:2], -1).view(f"={self._kind}{size}")

    def _float_differences(self, rows: NDArray[np.uint8], size: int) -> NDArray[np.generic]:
        """Undo predictor 3: differences of bytes, those of one weight together, the highest first."""
        planes = rows.reshape(*rows.shape[:2], -1, self._per_pixel).copy()
        np.cumsum(planes, axis=2, dtype=np.uint8, out=planes)
        together = planes.reshape(*rows.shape[:2], size, -1)
        values = np.ascontiguousarray(np.moveaxis(together, 2, 3)).view(f">{self._kind}{size}")
        return values[..., 0].astype(f"={self._kind}{size}")

    def _unpacked(self, rows: NDArray[np.uint8]) -> NDArray[np.uint16]:
        count = self._unit * self._per_pixel
        result: NDArray[np.uint16] = np.empty((*rows.shape[:2], count), np.uint16)
        step = max(1, BLOCK_BITS // (rows.shape[1] * count * self._bits))
        for top in range(0, len(rows), step):
            bits = np.unpackbits(rows[top : top + step], axis=-1, count=count * self._bits)
            bits = bits.reshape(*bits.shape[:2], count, self._bits)
            block: NDArray[Any] = np.zeros(bits.shape[:3], np.uint16)
            for place in range(self._bits):
                block = (block << 1) | bits[..., place]
            result[top : top + step] = block
        return result


def _directory(begin: int, entries: dict[int, list[int]]) -> bytes:
    """A TIFF's directory of 32-bit numbers, for a place `begin` bytes into a file; long lists of them follow it."""
    body, lists = struct.pack("<H", len(entries)), b""
    end = begin + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        body += struct.pack("<HHII", tag, 4, len(values), values[0] if len(values) == 1 else end + len(lists))
        if len(values) > 1:
            lists += struct.pack(f"<{len(values)}I", *values)
    return body + bytes(4) + lists


def _numbers(tags: ImageFileDirectory_v2, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(int(number) for number in value) if isinstance(value, tuple) else (int(value),)
