"""The same photo: candidates that a comparison of their pictures proves, in groups around the one to keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.duplicates.agreement import compared, is_copy
from analysis.duplicates.alignment import places
from analysis.duplicates.changes import changed, laid
from analysis.duplicates.detail import is_enlarged
from analysis.duplicates.fine import contradicts
from analysis.duplicates.medoids import Members, around_medoids
from analysis.duplicates.painted import is_equal_in_part, is_painted
from analysis.duplicates.plain import certainty
from analysis.duplicates.small import Place, Small
from indexer.progress import QUIET
from indexer.report import Progress
from search.types import ImageRecord

ALL_OF_IT = 0.93
"""Share of the largest area, or of the most pixels, with which a picture shows as much of a photo as another."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two pictures that are one photo. sure: how surely, above 0, below 1; area: of the photo that the first shows, as
    a multiple of what the second does, both without plain borders."""

    sure: float
    area: float


class Pictures(Protocol):
    """The pictures of images, by their rowids."""

    def of(self, rowid: int) -> Small | None:
        """An image's reduced picture; None where it cannot be compared."""

    def full(self, rowid: int) -> Image.Image | None:
        """It at full size, upright in RGB; None where it cannot be read any more."""


Groups = list[tuple[int, Members, Mapping[int, int]]]
"""The rowid of each group's image to keep, the others with their certainty, and how much of the photo each shows."""


def compare(one: Small, other: Small) -> float:
    """How surely two pictures are one photo, 0..1: see `plain.certainty`."""
    found = match(one, other)
    return 0.0 if found is None else found.sure


def match(one: Small, other: Small) -> Match | None:
    """Lay two pictures over one another; None where that does not prove that they are one photo."""
    for place in places(one, other):
        blocks = compared(place)
        if blocks is None:
            continue
        copy, in_part = is_copy(blocks), is_equal_in_part(blocks)
        if not copy and not in_part:
            continue
        found = laid(place)
        if (copy and not contradicts(place) and not changed(found)) or (in_part and is_painted(found)):
            sure = certainty(place, blocks, found)
            if not sure:
                return None  # another place of what is so plain proves no more
            area = _area(place)
            return Match(sure=sure, area=area if place.whole is one else 1 / area)
        if copy:
            return None
    return None


def _area(place: Place) -> float:
    """The whole's area, as a multiple of the part's, both without plain borders."""
    determinant = abs(float(np.linalg.det(place.matrix[:, :2])))
    return determinant * place.whole.boxed_share / place.part.boxed_share


def may_be_one(one: str | None, other: str | None) -> bool:
    """Whether two images may be one photo by when they were taken, None where their files do not say."""
    return None in (one, other) or one == other


def in_order(pairs: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs (p, 2), the smaller rowid first, in an order in which the same images come up soon again: neighbours of
    neighbours, breadth first. Memory grows with them by some 100 bytes for each."""
    images, places = np.unique(pairs, return_inverse=True)
    one, other = places.reshape(-1, 2).T
    ends = np.concatenate([other, one])
    order = np.argsort(ends, kind="stable")
    partners = np.concatenate([one, other])[order]
    begins = np.searchsorted(ends, np.arange(len(images) + 1), sorter=order).tolist()
    rowids, seen = images.tolist(), bytearray(len(images))
    for start in range(len(images)):
        queue = deque([start] if not seen[start] else [])
        seen[start] = True
        while queue:
            at = queue.popleft()
            for near in partners[begins[at] : begins[at + 1]].tolist():
                if not seen[near]:
                    seen[near] = True
                    queue.append(near)
                if at < near:
                    yield rowids[at], rowids[near]


def photo_groups(
    images: Mapping[int, ImageRecord],
    pairs: NDArray[np.int64],
    pictures: Pictures,
    choose: Callable[[Mapping[int, int]], int],
    apart: Mapping[int, Set[int]],
    progress: Progress = QUIET,
) -> Groups:
    """The groups of images that are one photo. pairs: candidates (p, 2); choose: which image to keep of those that are
    given with how much of the photo each shows, from 0: the largest number shows all that there is. apart: as
    in `around_medoids`."""
    times = {rowid: record.facts.taken_at for rowid, record in images.items() if record.facts.taken_at is not None}
    areas: dict[tuple[int, int], float] = {}
    shown: dict[int, Mapping[int, int]] = {}

    def certain(one: int, other: int) -> float:
        if not may_be_one(times.get(one), times.get(other)):
            return 0.0
        first, second = pictures.of(one), pictures.of(other)
        found = None if first is None or second is None else match(first, second)
        if found is None:
            return 0.0
        areas[one, other] = found.area
        return found.sure

    def centre(medoid: int, members: Mapping[int, float]) -> int:
        area = {one: areas[one, medoid] if one < medoid else 1 / areas[medoid, one] for one in members}
        ranks = _ranks({medoid: 1.0, **area}, images, pictures)
        chosen = choose(ranks)
        shown[chosen] = ranks
        return chosen

    def proved() -> Iterator[tuple[int, int, float]]:
        progress.start(len(pairs), what="Comparing")
        for one, other in in_order(pairs):
            sure = certain(one, other)
            progress.done(1)
            if sure > 0:
                yield one, other, sure

    def each(medoid: int, others: Sequence[int]) -> Iterator[float]:
        return (certain(*sorted((medoid, one))) for one in others)

    found = around_medoids(proved(), each, centre=centre, marks=times, apart=apart)
    return [(one, members, {image: shown[one][image] for image in (one, *members)}) for one, members in found]


def _ranks(areas: Mapping[int, float], images: Mapping[int, ImageRecord], pictures: Pictures) -> dict[int, int]:
    """How much of a photo each image shows: 0 a part of it, 1 all of it, 2 in the finest detail too."""
    most = max(areas.values())
    pixels = {}  # without plain borders
    for one, area in areas.items():
        small, facts = pictures.of(one), images[one].facts
        if small is not None and area >= ALL_OF_IT * most:
            pixels[one] = facts.width * facts.height * small.boxed_share
    ascending = sorted(pixels, key=lambda one: pixels[one])
    held, finest = next(iter(ascending), None), min(pixels.values(), default=0.0)
    enlarged = set()
    for one in ascending:
        area = finest / pixels[one]
        if area < ALL_OF_IT and _is_enlarged(one, held, area**0.5, pictures):
            enlarged.add(one)
        elif pixels[one] > finest:
            held, finest = one, pixels[one]
    fine = {one for one in pixels.keys() - enlarged if pixels[one] >= ALL_OF_IT * finest}
    return {one: (one in pixels) + (one in fine) for one in areas}


def _is_enlarged(one: int, smaller: int | None, share: float, pictures: Pictures) -> bool:
    """Whether a picture shows no finer detail than one with a share of its sides. Of a sky neither has any: where the
    smaller one shows no more than what is smaller by as much again, all is as soft as the photo is."""
    full = pictures.full(one)
    if full is None or not is_enlarged(full, share):
        return full is None
    other = None if smaller is None else pictures.full(smaller)
    return other is None or not is_enlarged(other, share)
