"""Finding duplicates, tier by tier: equal files and equal pixels here, the same photo and what is alike elsewhere."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from analysis.duplicates.alike import lookalikes, moments
from analysis.duplicates.candidates import CELLS, candidate_pairs, comparable_hashes
from analysis.duplicates.decided import Apart, with_decisions
from analysis.duplicates.groups import File, Group, Tier
from analysis.duplicates.keep import DEFAULT_RULES, Rule, choose, of_photo, parse_rules
from analysis.duplicates.known import HELD, Known
from analysis.duplicates.medoids import Members
from analysis.duplicates.photo import Groups, photo_groups
from analysis.duplicates.reading import Reduced, Skipped, read
from indexer.pictures.decode import DecodeLimits
from indexer.progress import QUIET
from indexer.report import Progress
from search.index import Index
from search.types import ImageRecord

MAX_PIXEL_BITS = 8
"""Bits by which the perceptual hashes of equal pixels may differ: a large JPEG is hashed as it decodes at half its
size, and a PNG of the same pixels is not. Beyond, two images are not compared."""
PROVED = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Kinds, by Pillow's names, whose pixels are all that they show. A raw file is shown by its preview."""
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Modes, by Pillow's names, that eight bits a colour hold."""
BITS_PER_SAMPLE = 258
"""The tag of a TIFF."""


def find(
    index: Index,
    tiers: Sequence[Tier],
    *,
    skipped: Skipped,
    rules: Sequence[Rule] = (),
    progress: Progress = QUIET,
) -> list[Group]:
    """The groups of each tier, the surest tier first, each tier's largest files first. rules: of what is kept, as all
    files of a photo are compared with that; DEFAULT_RULES where there are none.

    Only files of the user's own that are as the index knows them are in a group: no uploads, and no links. Images that
    the user called not duplicates are in no group together; of equal ones, see `wanted` and `settled` of `Group`.
    """
    images, apart = Known.all(index), Apart.of(index)
    skipped = once(skipped)
    files = Files(index, skipped)
    equal: list[Group] = []
    by_size: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    comparable = array("q")
    for rowid, record in images.items():
        if "bytes" in tiers and record.path_count > 1 and len(same := files.of(record)) > 1:
            equal.append(Group(tier="bytes", files=same))
        if not record.missing and record.facts.phash is not None:
            comparable.append(rowid)
            if "pixels" in tiers:
                by_size[record.facts.width, record.facts.height].append((rowid, record.facts.phash))
    images = Known(index, np.array(comparable, dtype=np.int64))
    equal += [*_same_pixels(by_size.values(), images, files, skipped, progress)]
    groups = [with_decisions(group, apart) for group in equal]
    if {"photo", "moment", "alike"} & {*tiers}:
        pixels = [group for group in equal if group.tier == "pixels"]
        rules = rules or parse_rules(DEFAULT_RULES)
        groups += [*_alike(index, images, tiers, files, skipped, apart, pixels, rules, progress)]
    return sorted(groups, key=lambda group: (tiers.index(group.tier), -max(one.location.size for one in group.files)))


def once(skipped: Skipped) -> Skipped:
    """Tell of each file, and each reason, once."""
    told: set[tuple[str, str]] = set()

    def tell(path: str, why: str) -> None:
        if (path, why) not in told:
            told.add((path, why))
            skipped(path, why)

    return tell


class Files:
    """The files of images, those of HELD images kept. own: only those that the user may want to let go, neither
    uploads nor links. most: of an image."""

    def __init__(self, index: Index, skipped: Skipped, *, own: bool = True, most: int | None = None) -> None:
        self._index, self._skipped, self._own, self._most = index, skipped, own, most
        self._known: dict[str, tuple[File, ...]] = {}

    def of(self, record: ImageRecord) -> tuple[File, ...]:
        """The files of an image that are on the disk: of several names of one file, the first."""
        if record.id not in self._known:
            self._known[record.id] = tuple(islice(self._found(record), self._most))
            if len(self._known) > HELD:
                del self._known[next(iter(self._known))]  # the oldest
        return self._known[record.id]

    def _found(self, record: ImageRecord) -> Iterator[File]:
        seen = set()
        with self._index.catalog.lookup() as lookup:
            locations = lookup.locations_of(record.id)
        for location in locations:
            path = location.absolute
            try:
                facts = Path(path).stat()
            except OSError:
                continue
            if self._own and (location.root == str(self._index.uploads) or _is_linked(location.root, path)):
                continue
            if (facts.st_size, facts.st_mtime_ns) != (location.size, location.mtime_ns):
                self._skipped(path, "it has changed since the last build")
            elif (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                yield File(image=record, location=location)


def _is_linked(root: str, path: str) -> bool:
    """Whether a path leads through a link below its root: what it shows lies elsewhere."""
    return Path(path).resolve() != Path(root).resolve() / Path(path).relative_to(root)


def _same_pixels(
    of_one_size: Iterable[Sequence[tuple[int, int]]],
    images: Known,
    files: Files,
    skipped: Skipped,
    progress: Progress,
) -> Iterator[Group]:
    """of_one_size: rowids and perceptual hashes of images that are equally large."""
    near = [[alike[one][0] for one in with_a_near_hash([bits for _, bits in alike])] for alike in of_one_size]
    progress.start(sum(map(len, near)), what="Comparing pixels")
    for rowids in near:
        by_pixels: defaultdict[str, list[ImageRecord]] = defaultdict(list)
        for rowid in rowids:
            progress.done(1)
            record = images[rowid]
            summed = digest(files.of(record), skipped)
            if summed is not None:
                by_pixels[summed].append(record)
        for same in by_pixels.values():
            if len(same) > 1:
                yield Group(tier="pixels", files=tuple(one for record in same for one in files.of(record)))


def _alike(
    index: Index,
    images: Known,
    tiers: Sequence[Tier],
    files: Files,
    skipped: Skipped,
    apart: Apart,
    equal: Sequence[Group],
    rules: Sequence[Rule],
    progress: Progress,
) -> Iterator[Group]:
    """Groups of the tiers in which images are compared by what they show. equal: groups of equal pixels, which are not
    the same photo once more."""
    unlike = apart.among(images)
    if "photo" in tiers:
        known = [{file.image.id for file in group.files} for group in equal]
        for group in _grouped("photo", _photos(index, images, files, skipped, rules, unlike, progress), images, files):
            if not any({file.image.id for file in group.files} <= names for names in known):
                yield group
    if "moment" in tiers:
        yield from _grouped("moment", ((*one, {}) for one in moments(index, images, unlike)), images, files)
    if "alike" in tiers:
        yield from _grouped("alike", ((*one, {}) for one in lookalikes(index, images, unlike)), images, files)


def _grouped(
    tier: Tier,
    found: Iterable[tuple[int, Members, Mapping[int, int]]],
    images: Mapping[int, ImageRecord],
    files: Files,
) -> Iterator[Group]:
    """Groups of what is there of the images that groups are around, and their members."""
    for centre, members, shown in found:
        held = tuple(file for rowid in (centre, *members) for file in files.of(images[rowid]))
        there = {file.image.id for file in held}
        if len(there) > 1 and images[centre].id in there:
            yield Group(
                tier=tier,
                files=held,
                scores={images[rowid].id: sure for rowid, sure in members.items()},
                centre=images[centre].id,
                shown={images[rowid].id: rank for rowid, rank in shown.items()},
            )


def _photos(
    index: Index,
    images: Mapping[int, ImageRecord],
    files: Files,
    skipped: Skipped,
    rules: Sequence[Rule],
    apart: Mapping[int, Set[int]],
    progress: Progress,
) -> Groups:
    pictures = Reduced(lambda rowid: files.of(images[rowid]), skipped)

    def choose_image(shown: Mapping[int, int]) -> int:
        """The rowid of the image to keep."""
        rowids = {images[rowid].id: rowid for rowid in shown}
        held = [file for rowid in shown for file in files.of(images[rowid])]
        ranks = {name: shown[rowid] for name, rowid in rowids.items()}
        return rowids[choose(held, of_photo(rules, ranks))[0].image.id]

    hashes = comparable_hashes(images, pictures.bare_hash, progress)
    return photo_groups(images, candidate_pairs(index, hashes), pictures, choose_image, apart, progress)


def with_a_near_hash(hashes: Sequence[int], sides: Sequence[bool] | None = None) -> list[int]:
    """The numbers of hashes that another one is near to. sides: only one of the other side counts."""
    side = None if sides is None else np.array(sides)
    bits = np.array(hashes, dtype=np.int64).view(np.uint64)
    near: NDArray[np.bool_] = np.zeros(len(bits), dtype=np.bool_)
    rows = max(1, CELLS // max(1, len(bits)))
    for start in range(0, len(bits), rows):
        some = bits[start : start + rows]
        close = np.bitwise_count(some[:, None] ^ bits[None, start:]) <= MAX_PIXEL_BITS
        close[np.arange(len(some)), np.arange(len(some))] = False  # an image and itself
        if side is not None:
            close &= side[start : start + rows, None] != side[None, start:]
        near[start : start + rows] |= close.any(axis=1)
        near[start:] |= close.any(axis=0)
    found: list[int] = np.flatnonzero(near).tolist()
    return found


def digest(files: Sequence[File], skipped: Skipped) -> str | None:
    """SHA-256 of an image's upright pixels; None where no file holds it, or where they are not proved to be all that it
    shows."""
    if any(file.image.facts.width * file.image.facts.height > DecodeLimits().max_pixels for file in files):
        return None
    data = read(files, skipped)
    try:
        return None if data is None else _pixels(data)
    except Exception:  # whatever Pillow raises: a file that is not whole, or of a kind that it lacks
        return None


def _pixels(data: bytes) -> str | None:
    with Image.open(BytesIO(data)) as opened:
        depth = data[24] if opened.format == "PNG" else max(_bits(opened), default=8)
        proved = opened.format in PROVED and opened.mode in EIGHT_BITS and depth <= 8
        if not proved or getattr(opened, "n_frames", 1) > 1:
            return None
        profile = opened.info.get("icc_profile") or b""
        upright = ImageOps.exif_transpose(opened)
        picture = upright.convert("RGBA")
    if picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")
    summed = hashlib.sha256(f"{picture.mode} {picture.size} {hashlib.sha256(profile).hexdigest()}".encode())
    summed.update(picture.tobytes())
    return summed.hexdigest()


def _bits(opened: Image.Image) -> tuple[int, ...]:
    found: tuple[int, ...] = getattr(opened, "tag_v2", {}).get(BITS_PER_SAMPLE, ())
    return found
