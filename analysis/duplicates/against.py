"""One index against another: which images of the other are in it too, such as test images among training images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from analysis.duplicates.across import OTHER, photos_across
from analysis.duplicates.find import Files, digest, once, with_a_near_hash
from analysis.duplicates.groups import SURE, File, Tier
from analysis.duplicates.plan import lies_in
from analysis.duplicates.reading import Reduced, Skipped
from analysis.errors import RuleInvalid
from analysis.labels import records
from indexer.progress import QUIET
from indexer.report import Progress
from search.index import Index
from search.types import ImageRecord

COMPARED: tuple[Tier, ...] = (*SURE, "photo")
"""Tiers by which two indexes are compared."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Files of an index that are duplicates of others, of the other index. extra: those that may go, of equal ones: no
    file of the other index, nor in a folder of it. scores: as in `Group`."""

    tier: Tier
    files: tuple[File, ...]
    others: tuple[File, ...]
    extra: tuple[File, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def ids(self) -> set[str]:
        """The ids of its images, of both indexes."""
        return {file.image.id for file in (*self.files, *self.others)}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two indexes share. images: of the other one, that were looked at; unseen: images of either that were not,
    because no file of theirs is there as the index knows it."""

    shared: Sequence[Shared]
    images: int
    unseen: int

    @property
    def found(self) -> int:
        """Images of the other index that are in the first one too."""
        return len({file.image.id for one in self.shared for file in one.others})


@dataclass(frozen=True)
class _Side:
    """An index's images of which a file is there, by their ids, and these files."""

    images: dict[str, ImageRecord] = field(default_factory=dict)
    files: dict[str, tuple[File, ...]] = field(default_factory=dict)
    unseen: int = 0

    @classmethod
    def of(cls, index: Index, skipped: Skipped) -> _Side:
        files, images, unseen = Files(index, skipped, own=False), {}, 0
        for record in records(index):
            if files.of(record):
                images[record.id] = record
            else:
                unseen += 1
        return cls(images, {name: files.of(record) for name, record in images.items()}, unseen)


def compare_indexes(
    index: Index, other: Index, tiers: Sequence[Tier], *, skipped: Skipped, progress: Progress = QUIET
) -> Comparison:
    """What an index shares with another one, the surest tier first, each tier's largest files first.

    Nothing is changed. Uploads and links are found, and are never extra. Raises RuleInvalid for `moment` and `alike`,
    where both are one index, and for photos where no space of both has one recipe.
    """
    if index.path.resolve() == other.path.resolve():
        raise RuleInvalid(f"{other.path} is the same index. Name another one to compare with.")
    if unlike := [tier for tier in tiers if tier not in COMPARED]:
        raise RuleInvalid(
            f"Two indexes are compared by {', '.join(COMPARED)} only, not by {', '.join(unlike)}. Build one index of "
            f"both folders, and run: lookalike dups INDEX --tier {unlike[0]}"
        )
    skipped = once(skipped)
    here, there = _Side.of(index, skipped), _Side.of(other, skipped)
    found = [*_same_bytes(here, there)] if "bytes" in tiers else []
    if "pixels" in tiers:
        found += _same_pixels(here, there, skipped, progress)
    if "photo" in tiers:
        known = [one.ids for one in found]
        photos = _same_photos(index, other, here, there, skipped, progress)
        found += [one for one in photos if not any(one.ids <= ids for ids in known)]
    roots = [Path(root) for root in other.catalog.roots()]
    own = Files(index, lambda *_: None)
    shared = [replace(one, extra=_extra(one, own, roots)) if one.tier in SURE else one for one in found]
    shared.sort(key=lambda one: (tiers.index(one.tier), -max(file.location.size for file in one.files)))
    return Comparison(shared=shared, images=len(there.images), unseen=here.unseen + there.unseen)


def _same_bytes(here: _Side, there: _Side) -> Iterator[Shared]:
    for name, files in here.files.items():
        if name in there.files:
            yield Shared(tier="bytes", files=files, others=there.files[name])


def _same_pixels(here: _Side, there: _Side, skipped: Skipped, progress: Progress) -> Iterator[Shared]:
    by_size: defaultdict[tuple[int, int], list[tuple[_Side, ImageRecord]]] = defaultdict(list)
    for side in (here, there):
        for record in side.images.values():
            if record.facts.phash is not None:
                by_size[record.facts.width, record.facts.height].append((side, record))
    near = []
    for held in by_size.values():
        hashes = [record.facts.phash or 0 for _, record in held]
        near.append([held[number] for number in with_a_near_hash(hashes, [side is here for side, _ in held])])
    progress.start(sum(map(len, near)), what="Comparing pixels")
    for held in near:
        by_pixels: defaultdict[str, list[tuple[_Side, ImageRecord]]] = defaultdict(list)
        for side, record in held:
            progress.done(1)
            pixels = digest(side.files[record.id], skipped)
            if pixels is not None:
                by_pixels[pixels].append((side, record))
        for same in by_pixels.values():
            ones, others = (
                tuple(file for at, record in same if at is side for file in side.files[record.id])
                for side in (here, there)
            )
            if ones and others and len({record.id for _, record in same}) > 1:
                yield Shared(tier="pixels", files=ones, others=others)


def _same_photos(
    index: Index, other: Index, here: _Side, there: _Side, skipped: Skipped, progress: Progress
) -> Iterator[Shared]:
    files: dict[int, tuple[File, ...]] = {}
    for one, side, offset in ((index, here, 0), (other, there, OTHER)):
        rowids = one.catalog.rowids(name for name, record in side.images.items() if record.facts.phash is not None)
        files |= {rowid + offset: side.files[name] for name, rowid in rowids.items()}
    images = {rowid: held[0].image for rowid, held in files.items()}
    pictures = Reduced(files.__getitem__, skipped)
    for group in photos_across(index, other, images, pictures, progress):
        ones, others = (
            tuple(file for rowid in group if (rowid >= OTHER) is second for file in files[rowid])
            for second in (False, True)
        )
        scores = {images[rowid].id: sure for rowid, sure in group.items()}
        yield Shared(tier="photo", files=ones, others=others, scores=scores)


def _extra(one: Shared, own: Files, roots: Sequence[Path]) -> tuple[File, ...]:
    """Files that are the user's own, and none of the other index's, by whatever name."""
    taken = {_identity(file.path) for file in one.others} | {None}
    return tuple(
        file
        for file in one.files
        if _identity(file.path) not in taken
        and file in own.of(file.image)
        and not any(lies_in(file.path, root) for root in roots)
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """What a file is by all of its names; None where it is gone."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
