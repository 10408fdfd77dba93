"""Reading: the bytes of an image from one of its files, and its reduced picture, kept while there is room."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from PIL import Image

from analysis.duplicates.groups import File
from analysis.duplicates.small import FINE_SIDE, Small
from indexer.pictures.decode import DecodeLimits, check_size, open_upright
from indexer.pictures.plugins import open_picture

Skipped = Callable[[str, str], None]
"""Told of a file that is left out, and why."""

ONE_FRAME = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JXL", "MPO", "PNG", "WEBP")
"""Kinds, by Pillow's names, of which a picture without further frames is all that they show; TIFFs may be raw files,
which are shown by their preview, but are worth more."""
LIMITS = DecodeLimits(max_pixels=100_000_000)
"""Of what is decoded: 400 MB. A JPEG counts with the pixels that it is decoded to."""
KEPT = 1_024
"""Reduced pictures kept, with what is computed of them: 300 KB each."""


def read(files: Iterable[File], skipped: Skipped) -> bytes | None:
    """An image's bytes, from the first of its files that still holds it; None where none does."""
    for file in files:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            skipped(str(file.path), error.strerror or str(error))
            continue
        if hashlib.sha256(data).hexdigest() == file.image.id:
            return data
        skipped(str(file.path), "it has changed since the last build")
    return None


class Reduced:
    """The reduced pictures of images, by their rowids: each decoded once, as long as there is room."""

    def __init__(self, files_of: Callable[[int], Iterable[File]], skipped: Skipped) -> None:
        self._files_of, self._skipped = files_of, skipped
        self._kept: OrderedDict[int, Small] = OrderedDict()
        self._unread: set[int] = set()

    def of(self, rowid: int) -> Small | None:
        """An image's picture; None where no file holds it, or where one picture is not all that the file shows."""
        if rowid in self._unread:
            return None
        if rowid in self._kept:
            self._kept.move_to_end(rowid)
            return self._kept[rowid]
        picture = self._picture(rowid, FINE_SIDE)
        if picture is None:
            self._unread.add(rowid)
            return None
        small = self._kept[rowid] = Small.of(picture)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return small

    def bare_hash(self, rowid: int) -> int | None:
        """The perceptual hash of what is left of an image without plain borders; None where it has none, or where it
        cannot be compared."""
        small = self.of(rowid)
        return None if small is None else small.bare_hash

    def full(self, rowid: int) -> Image.Image | None:
        """An image's picture at full size; None where it cannot be compared."""
        return self._picture(rowid, None)

    def _picture(self, rowid: int, at_least: int | None) -> Image.Image | None:
        data = read(self._files_of(rowid), self._skipped)
        try:
            if data is None or not _is_one_picture(data):
                return None
            return open_upright(data, limits=LIMITS, at_least=at_least, whole=True)
        except Exception:  # whatever Pillow raises: a file that is not whole
            return None


def _is_one_picture(data: bytes) -> bool:
    """Whether one picture is all that a file shows. Raises whatever Pillow does."""
    with open_picture(data, check=partial(check_size, LIMITS)) as opened:
        frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
        return frames == 1 and (opened.format in ONE_FRAME or _is_plain_tiff(opened))


def _is_plain_tiff(opened: Image.Image) -> bool:
    """Whether a TIFF is a picture in eight bits of colours, and not a raw file."""
    return opened.format == "TIFF" and opened.mode in ("1", "L", "P", "RGB", "RGBA")
