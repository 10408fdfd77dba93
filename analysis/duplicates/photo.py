"""The same photo: candidates that a comparison of their pictures proves, in groups around a medoid."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.agreement import certainty
from analysis.duplicates.alignment import places
from analysis.duplicates.fine import contradicts
from analysis.duplicates.medoids import around_medoids
from analysis.duplicates.small import Small
from search.types import ImageRecord


def compare(one: Small, other: Small) -> float:
    """How surely two pictures are one photo: 0, or the share of their blocks that agree."""
    for place in places(one, other):
        if (sure := certainty(place)) > 0:
            return 0.0 if contradicts(place) else sure
    return 0.0


def may_be_one(one: ImageRecord, other: ImageRecord) -> bool:
    """Whether what their files say of when they were taken allows two images to be one photo."""
    times = one.facts.taken_at, other.facts.taken_at
    return None in times or times[0] == times[1]


def in_order(pairs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs (p, 2) in an order in which the same images come up soon again: neighbours of neighbours, breadth first."""
    partners: defaultdict[int, list[int]] = defaultdict(list)
    for one, other in pairs.tolist():
        partners[one].append(other)
        partners[other].append(one)
    ordered, seen = [], set()
    for start in sorted(partners):
        queue = deque([start] if start not in seen else [])
        seen.add(start)
        while queue:
            one = queue.popleft()
            for other in partners[one]:
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
                if one < other:
                    ordered.append((one, other))
    return ordered


def photo_groups(
    images: Mapping[int, ImageRecord], pairs: NDArray[np.int64], picture: Callable[[int], Small | None]
) -> list[tuple[int, dict[int, float]]]:
    """The groups of images that are one photo. pairs: candidates (p, 2); picture: reads an image, None: it cannot."""

    def certain(one: int, other: int) -> float:
        if not may_be_one(images[one], images[other]):
            return 0.0
        first, second = picture(one), picture(other)
        return 0.0 if first is None or second is None else compare(first, second)

    proved = ((one, other, certain(one, other)) for one, other in in_order(pairs))
    return around_medoids((pair for pair in proved if pair[2] > 0), certain)
