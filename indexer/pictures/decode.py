"""From a file's bytes to pixels: bounded, upright, RGB; whatever is wrong with a file becomes an ImageRejected."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, TiffImagePlugin, WebPImagePlugin

from indexer.errors import ImageRejected
from indexer.omissions import APPLE_DOUBLE, APPLE_DOUBLE_MAGIC, EMPTY
from indexer.pictures.colour import to_rgb
from indexer.pictures.facts import camera, gps, perceptual_hash, taken_at
from indexer.pictures.formats import HEADER_BYTES, NOT_SUPPORTED, how_to_read, is_read, kind_of
from indexer.pictures.load import TRUNCATED, load
from indexer.pictures.preprocess import Inputs, needed_size, to_inputs
from indexer.pictures.profile import to_srgb
from indexer.pictures.unread import unread_kind
from search.types import ImageFacts

TOO_LARGE = ", more than the limit of"
"""How the reason of a picture with too many pixels or bytes goes on after their number."""
PIXEL_BYTES = 8
"""The most that a file has of them: four channels of 16 bits."""
MOST_MEMORY = 2**62
"""Bytes, more than any machine has: systems take no larger number for a limit."""
BLOCKS = 4
"""Blocks of Pillow's memory, 16 MB at most each, that `keep_memory` keeps."""

Box = tuple[float, float, float, float]

# Pillow's own limit is one for the process, and warns where ours reject: DecodeLimits is checked on every header.
Image.MAX_IMAGE_PIXELS = None
# All plugins we use are registered now: Pillow would do it in the first thread that opens a file, without a lock.
Image.preinit()
_REGISTERED = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
# Some plugins log what is wrong with a file, or warn of it; Python prints both to stderr, if nobody is in between.
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.|pillow_|indexer\.pictures\.")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image of each Exif orientation upright; from 5 on, width and height change places."""


_NAMES = {"MPO": "jpeg", "HEIF": "heic"}
"""Formats whose name in facts is not Pillow's in lower case."""


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits of an image: bytes of the file, pixels in memory, pixels of one side. Checked before decoding.

    A JPEG counts with the pixels that it is decoded to. `seconds`, and as many more for each megapixel as
    `seconds_per_megapixel` says, and `max_memory` (bytes, beyond what the interpreter takes) hold in decoding processes
    only.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 250_000_000
    max_side: int = 65_535
    seconds: float = 10
    seconds_per_megapixel: float = 1
    max_memory: int = 4 * 1024**3

    def raised(self, *, max_pixels: int | None, max_seconds: float | None) -> DecodeLimits:
        """These limits with what a user has set: pixels, with bytes and memory for them; seconds, in proportion."""
        limits = self
        if max_pixels is not None:
            memory = min(MOST_MEMORY, max(self.max_memory, self.max_memory * max_pixels // self.max_pixels))
            limits = replace(
                limits,
                max_bytes=max(self.max_bytes, PIXEL_BYTES * max_pixels),
                max_pixels=max_pixels,
                max_side=max(self.max_side, max_pixels),
                max_memory=memory,
            )
        if max_seconds is not None:
            more = self.seconds_per_megapixel * max_seconds / self.seconds
            limits = replace(limits, seconds=max_seconds, seconds_per_megapixel=more)
        return limits

    def seconds_for(self, size: tuple[int, int]) -> float:
        """The seconds that a picture of (width, height) pixels may take; what is larger than allowed gets no more."""
        return self.seconds + self.seconds_per_megapixel * min(size[0] * size[1], self.max_pixels) / 1e6


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image's facts, and its pixels ready for the encoder: (size, size, 3) uint8.

    `missing`: the share of its rows, 0..1, that a file without its end has lost; None: the file is whole.
    """

    facts: ImageFacts
    pixels: NDArray[np.uint8]
    missing: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An upright RGB picture, perhaps decoded at reduced size; and of the whole what facts are made of."""

    image: Image.Image
    width: int
    height: int
    format: str
    exif: Image.Exif
    missing: float | None


def keep_memory() -> None:
    """Let Pillow keep, in this process, the memory of a picture for the next one: else the kernel hands out and clears
    hundreds of pages for each.
    """
    pillow: Any = Image  # whose types leave out `core`, unlike its documentation
    pillow.core.set_blocks_max(BLOCKS)


def decode(data: bytes, inputs: Inputs, *, limits: DecodeLimits, box: Box | None = None) -> Decoded:
    """Decode a file's bytes into facts and encoder input. Thread-safe.

    box: x, y, width, height in pixels of the upright image at full size; only this part becomes pixels, while the facts
    stay those of the whole. Raises ImageRejected, with a reason fit for a report, for anything that is wrong.
    """
    with _rejecting(data):
        opened, pixels = _read(data, inputs, limits, box)
        return Decoded(facts=_facts(opened, len(data)), pixels=pixels, missing=opened.missing)


def decode_pixels(data: bytes, inputs: Inputs, *, limits: DecodeLimits, box: Box | None = None) -> NDArray[np.uint8]:
    """The pixels that `decode` hands to the encoder, a tenth sooner: a search needs no facts."""
    with _rejecting(data):
        return _read(data, inputs, limits, box)[1]


def _read(data: bytes, inputs: Inputs, limits: DecodeLimits, box: Box | None) -> tuple[_Opened, NDArray[np.uint8]]:
    opened, part = _open_part(data, limits, needed_size(inputs), box)
    return opened, to_inputs(part, inputs)


def _open_part(data: bytes, limits: DecodeLimits, at_least: int, box: Box | None) -> tuple[_Opened, Image.Image]:
    _check_box(box)
    opened = _open(data, limits, at_least, box)
    return opened, opened.image if box is None else _cut(opened, box)


def open_upright(data: bytes, *, limits: DecodeLimits, at_least: int | None, whole: bool = False) -> Image.Image:
    """The picture upright and in RGB, without metadata.

    at_least: a JPEG may be decoded at half, a quarter or an eighth of its size, as long as both sides keep this many
    pixels; None means full size. whole: a file that has lost its end is rejected too. Raises ImageRejected.
    """
    with _rejecting(data):
        opened = _open(data, limits, at_least, None)
        if whole and opened.missing is not None:
            raise ImageRejected(TRUNCATED)
        return opened.image


def thumbnail(data: bytes, size: int, *, limits: DecodeLimits, box: Box | None = None) -> bytes:
    """A JPEG of the picture, or of its box, that fits into `size` x `size`: never enlarged, without metadata.

    box: as in `decode`. Raises ImageRejected.
    """
    with _rejecting(data):
        _, image = _open_part(data, limits, size, box)
        image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
        out = BytesIO()
        # Of every pixel its own colour: drawings lose a third of their error, for a fifth more bytes. Not
        # optimized: that saves 7% of them, but Pillow then has a buffer of a byte a pixel, and noise takes more.
        image.save(out, "JPEG", quality=85, subsampling=0)
        return out.getvalue()


def _open(data: bytes, limits: DecodeLimits, at_least: int | None, box: Box | None) -> _Opened:
    if len(data) > limits.max_bytes:
        raise ImageRejected(f"{len(data):,} bytes{TOO_LARGE} {limits.max_bytes:,}")
    loaded = load(
        data, check=partial(check_size, limits), at_least=at_least, part=None if box is None else min(box[2:])
    )
    image, full = loaded.image, loaded.full
    drafted = image.size != full
    exif = _exif(image) if loaded.exif is None else loaded.exif
    # Read after loading: Pillow turns TIFFs itself, and PNGs may have their Exif behind the pixels.
    orientation = _orientation(exif)
    turn = _TRANSPOSE.get(orientation)
    format_ = loaded.format or str(image.format)
    format_name = _NAMES.get(format_, format_.lower())
    upright = to_rgb(to_srgb(image))
    if turn is not None:
        upright = upright.transpose(turn)
        full = full[::-1] if orientation >= 5 else full
    width, height = full if drafted else upright.size
    return _Opened(image=upright, width=width, height=height, format=format_name, exif=exif, missing=loaded.missing)


def check_size(limits: DecodeLimits, size: tuple[int, int]) -> None:
    """Raise ImageRejected where a picture of (width, height) pixels is larger than the limits, or has no pixels."""
    width, height = size
    if max(size) > limits.max_side or width * height > limits.max_pixels:
        raise ImageRejected(
            f"{width:,} x {height:,} pixels{TOO_LARGE} {limits.max_pixels:,} ({limits.max_side:,} a side)"
        )
    if min(size) < 1:
        raise ImageRejected("it has no pixels")


def _exif(image: Image.Image) -> Image.Exif:
    """The image's Exif, empty where it is damaged: that is no reason to reject an image."""
    try:
        return image.getexif()
    except Exception:  # nearly any type: it parses a TIFF out of the file
        return Image.Exif()


def _orientation(exif: Image.Exif) -> int:
    try:
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # values are parsed when they are asked for, and may be of any type
        return 1


def _facts(opened: _Opened, size: int) -> ImageFacts:
    exif, phash = opened.exif, perceptual_hash(opened.image)
    facts = ImageFacts(width=opened.width, height=opened.height, format=opened.format, bytes=size, phash=phash)
    try:
        facts = replace(facts, camera=camera(exif))
        facts = replace(facts, taken_at=taken_at(exif.get_ifd(ExifTags.IFD.Exif)))
        return replace(facts, gps=gps(exif.get_ifd(ExifTags.IFD.GPSInfo)))
    except Exception:  # sub-directories are parsed when they are asked for; keep what was read before
        return facts


def _check_box(box: Box | None) -> None:
    if box is not None and not (all(math.isfinite(value) for value in box) and min(box[2:]) > 0):
        raise ImageRejected("the box is empty")


def _cut(opened: _Opened, box: Box) -> Image.Image:
    """The box's part of the picture, which may have been decoded at reduced size; all pixels that it touches."""
    x, y, width, height = box
    image = opened.image
    if x < 0 or y < 0 or x + width > opened.width + 1 or y + height > opened.height + 1:  # one pixel for rounding
        raise ImageRejected(f"the box is not inside the image of {opened.width} x {opened.height} pixels")
    across, down = image.width / opened.width, image.height / opened.height
    left, top = min(int(x * across), image.width - 1), min(int(y * down), image.height - 1)
    right = min(image.width, max(left + 1, math.ceil((x + width) * across)))
    bottom = min(image.height, max(top + 1, math.ceil((y + height) * down)))
    return image.crop((left, top, right, bottom))


@contextmanager
def _rejecting(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageRejected whose text holds nothing of the file and no address."""
    try:
        yield
    except ImageRejected:
        raise
    except MemoryError as error:
        raise ImageRejected("decoding it needs more memory than there is") from error
    except Exception as error:  # a mutated file raises RuntimeError, SyntaxError, struct.error, OverflowError, ...
        raise ImageRejected(_reason(data, error)) from error


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return EMPTY
    if data.startswith(APPLE_DOUBLE_MAGIC):
        return APPLE_DOUBLE
    kind = kind_of(data[:HEADER_BYTES])
    if kind is None:
        return "the content is not one of the supported formats (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC, JPEG XL)"
    if not is_read(kind):
        how = how_to_read(kind)
        return f"{NOT_SUPPORTED}{kind}; {how}" if how else f"{NOT_SUPPORTED}{kind}"
    if "truncated" in str(error).lower():
        return TRUNCATED
    if unread := unread_kind(data):
        return f"{NOT_SUPPORTED}{unread}"
    return "damaged: it cannot be decoded"
