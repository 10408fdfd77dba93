"""Finding duplicates whose promise can be proved: equal files, and equal pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from analysis.duplicates.groups import File, Group, Tier
from analysis.labels import records
from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, open_upright
from search.index import Index
from search.types import ImageRecord

MAX_PIXEL_BITS = 8
"""Bits by which the perceptual hashes of equal pixels may differ: a large JPEG is hashed as it decodes at half its
size, and a PNG of the same pixels is not. Beyond, two images are not compared."""
ROWS = 1_024
"""Hashes that are compared with all others at once."""


def find(index: Index, tiers: Sequence[Tier], *, skipped: Callable[[str, str], None]) -> list[Group]:
    """The groups of each tier, the surest tier first, each tier's largest files first.

    Only files that are there, with the size that the index knows, are in a group. skipped: told of a file that had to
    be read and could not be, and why.
    """
    images = {record.id: record for record in records(index)}
    files = {name: [*_files(index, record)] for name, record in images.items()}
    groups = []
    if "bytes" in tiers:
        groups += [Group(tier="bytes", files=tuple(held)) for held in files.values() if len(held) > 1]
    if "pixels" in tiers:
        groups += [*_same_pixels([*images.values()], files, skipped)]
    return sorted(groups, key=lambda group: (tiers.index(group.tier), -max(one.location.size for one in group.files)))


def _files(index: Index, record: ImageRecord) -> Iterator[File]:
    """The files of an image that are on the disk: of several names of one file, the first."""
    seen = set()
    with index.catalog.lookup() as lookup:
        locations = lookup.locations_of(record.id)
    for location in locations:
        try:
            facts = Path(location.absolute).stat()
        except OSError:
            continue
        inode = facts.st_dev, facts.st_ino
        if facts.st_size == record.facts.bytes and inode not in seen:
            seen.add(inode)
            yield File(image=record, location=location, inode=inode)


def _same_pixels(
    images: Sequence[ImageRecord], files: dict[str, list[File]], skipped: Callable[[str, str], None]
) -> Iterator[Group]:
    by_size: defaultdict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
    for record in images:
        if files[record.id] and record.facts.phash is not None:
            by_size[record.facts.width, record.facts.height].append(record)
    for alike in by_size.values():
        by_pixels: defaultdict[str, list[ImageRecord]] = defaultdict(list)
        for number in _with_a_near_hash([record.facts.phash or 0 for record in alike]):
            digest = _digest(files[alike[number].id], skipped)
            if digest is not None:
                by_pixels[digest].append(alike[number])
        for same in by_pixels.values():
            if len(same) > 1:
                yield Group(tier="pixels", files=tuple(one for record in same for one in files[record.id]))


def _with_a_near_hash(hashes: Sequence[int]) -> list[int]:
    """The numbers of hashes that another one is near to."""
    bits = np.array(hashes, dtype=np.int64).view(np.uint64)
    near: NDArray[np.bool_] = np.zeros(len(bits), dtype=np.bool_)
    for start in range(0, len(bits), ROWS):
        rows = bits[start : start + ROWS]
        close = np.bitwise_count(rows[:, None] ^ bits[None, start:]) <= MAX_PIXEL_BITS
        close[np.arange(len(rows)), np.arange(len(rows))] = False  # an image and itself
        near[start : start + ROWS] |= close.any(axis=1)
        near[start:] |= close.any(axis=0)
    found: list[int] = np.flatnonzero(near).tolist()
    return found


def _digest(files: Iterable[File], skipped: Callable[[str, str], None]) -> str | None:
    """SHA-256 of an image's size and upright pixels, read from the first of its files that still holds it."""
    for file in files:
        try:
            data = file.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != file.image.id:
                skipped(str(file.path), "it has changed since the last build")
                continue
            picture = open_upright(data, limits=LIMITS, at_least=None)
        except (OSError, ImageRejected) as error:
            skipped(str(file.path), getattr(error, "strerror", None) or str(error))
            continue
        digest = hashlib.sha256(f"{picture.size} {_besides(data)}".encode())
        digest.update(picture.tobytes())
        return digest.hexdigest()
    return None


def _besides(data: bytes) -> str:
    """What a picture has besides its pixels in eight bits a colour: opacity, more frames, more bits."""
    try:
        with Image.open(BytesIO(data)) as opened:
            frames = getattr(opened, "n_frames", 1)
            depth = data[24] if opened.format == "PNG" else max(_bits(opened), default=8)
            told = f"{frames} frames, {max(8, depth)} bits"
            if frames > 1:  # of others, one is looked at: only equal files are equal
                return f"{told} {hashlib.sha256(data).hexdigest()}"
            if opened.has_transparency_data:
                alpha = ImageOps.exif_transpose(opened).convert("RGBA").getchannel("A").tobytes()
                if alpha.strip(b"\xff"):
                    told += f" {hashlib.sha256(alpha).hexdigest()}"
            return told
    except Exception:  # a kind that Pillow does not open, such as raw files: it has neither
        return "1 frames, 8 bits"


def _bits(opened: Image.Image) -> tuple[int, ...]:
    tags = getattr(opened, "tag_v2", {})
    found: tuple[int, ...] = tags.get(BITS_PER_SAMPLE, ())
    return found


BITS_PER_SAMPLE = 258
"""The tag of a TIFF."""
LIMITS = DecodeLimits()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
