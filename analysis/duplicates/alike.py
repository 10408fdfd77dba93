"""Images that are only alike: taken in one moment, or so alike as hardly any two are by chance."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from datetime import datetime

import numpy as np

from analysis.duplicates.medoids import around_medoids
from search.index import Index
from search.query.neighbours import Neighbours
from search.types import ImageRecord

Groups = list[tuple[int, dict[int, float]]]
"""The rowid of each group's medoid, and its members with their cosines."""

NEIGHBOURS = 16
"""Nearest images of each that are looked at; larger groups are found by way of members."""
MOMENT_SECONDS = 10
"""Between two images of one moment, at most."""
MOMENT_RATE = 1e-2
"""False-match rate of two images of one moment, at most: their time says the rest."""
ALIKE_BY_CHANCE = 0.1
"""Images that may be as near to an image by chance as those listed with it."""


def moments(index: Index, images: Mapping[int, ImageRecord], apart: Mapping[int, Set[int]]) -> Groups:
    """Groups of images that one camera took within MOMENT_SECONDS of the medoid, and that look alike. apart: as in
    `around_medoids`."""
    neighbours = index.neighbours(NEIGHBOURS)
    known = neighbours.least(MOMENT_RATE)
    least = -1.0 if known is None else known

    taken = {
        rowid: (record.facts.camera, datetime.fromisoformat(record.facts.taken_at))
        for rowid, record in images.items()
        if record.facts.camera is not None and record.facts.taken_at is not None
    }

    def is_one(one: int, other: int) -> bool:
        if one not in taken or other not in taken or taken[one][0] != taken[other][0]:
            return False
        return abs((taken[one][1] - taken[other][1]).total_seconds()) <= MOMENT_SECONDS

    def certain(one: int, others: Sequence[int]) -> list[float]:
        moment = (is_one(one, other) for other in others)
        cosines = _cosines(neighbours, one, others, least)
        return [cosine if same else 0.0 for cosine, same in zip(cosines, moment, strict=True)]

    return around_medoids(_proved(neighbours, images, least, is_one), certain, apart=apart)


def lookalikes(index: Index, images: Mapping[int, ImageRecord], apart: Mapping[int, Set[int]]) -> Groups:
    """Groups of images that are nearer to the medoid than ALIKE_BY_CHANCE images are by chance. apart: as in
    `around_medoids`."""
    neighbours = index.neighbours(NEIGHBOURS)
    known = neighbours.least(ALIKE_BY_CHANCE / max(1, len(images)))
    least = neighbours.copy_cosine if known is None else known
    pairs = _proved(neighbours, images, least)
    return around_medoids(pairs, lambda one, others: _cosines(neighbours, one, others, least), apart=apart)


def _cosines(neighbours: Neighbours, one: int, others: Sequence[int], least: float) -> list[float]:
    """The cosine of an image and each of others; 0 where it is less than `least` when normalised by the one of the two
    with more that is near."""
    rowids = np.array([one, *others])
    cosines = neighbours.cosines(np.full(len(others), one), rowids[1:])
    shifts = neighbours.shifts(rowids)
    near = (cosines > 0) & (cosines - np.maximum(shifts[0], shifts[1:]) >= least)
    found: list[float] = np.where(near, np.minimum(cosines, 1), 0).tolist()
    return found


def _proved(
    neighbours: Neighbours,
    images: Container[int],
    least: float,
    belong: Callable[[int, int], bool] | None = None,
) -> Iterator[tuple[int, int, float]]:
    for ones, others, cosines in neighbours.pairs():
        asked, places = np.unique(np.concatenate([ones, others]), return_inverse=True)
        shifts = neighbours.shifts(asked)[places].reshape(2, -1).max(axis=0)
        near = (cosines > 0) & (cosines - shifts >= least)
        for one, other, cosine in zip(ones[near].tolist(), others[near].tolist(), cosines[near].tolist(), strict=True):
            if one not in images or other not in images:
                continue
            if belong is None or belong(one, other):
                yield one, other, min(1.0, cosine)
