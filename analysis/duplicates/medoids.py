"""Groups around one image: every member is proved against it, so that no chain of small changes makes a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

Certain = Callable[[int, Sequence[int]], Iterable[float]]
"""How surely each of some images belongs together with one, by their rowids: 0 where it does not."""
Members = dict[int, float]
"""Rowids, and how surely each belongs to the image that they are around."""
Proved = tuple[int, int, float]
"""Rowids of two images, and how surely they belong together."""
PROVED = np.dtype([("one", np.int64), ("other", np.int64), ("sure", np.float64)])
"""The same in an array."""


def around_medoids(
    pairs: Iterable[Proved],
    certain: Certain,
    *,
    centre: Callable[[int, Mapping[int, float]], int] | None = None,
    marks: Mapping[int, Hashable] | None = None,
    apart: Mapping[int, Set[int]] | None = None,
) -> list[tuple[int, Members]]:
    """Groups of proved pairs (one, other, certainty): the centre of each, and its members with their certainty.

    The medoid is the free image with the most free partners. Each member is proved against it: `certain` is asked for
    those that are no pair yet, reached by way of members. centre: chooses another image of a group to be its centre;
    members that are not proved against that one are free again. marks: images with two different ones are never in one
    group. apart: for an image those that are never in a group with it; of two such members, the one that is asked first
    stays. Images that pairs link, however far, are looked at by themselves, so that not all pairs are in dictionaries
    at once: memory grows with the pairs by some 100 bytes for each, and the time with them, but for a logarithm.
    """
    groups: list[tuple[int, Members]] = []
    for linked in _linked(np.fromiter(pairs, dtype=PROVED)):
        groups += _around_medoids(_Stars(linked, certain, marks or {}, apart or {}), centre)
    return groups


def _linked(pairs: NDArray[np.void]) -> Iterator[list[Proved]]:
    """Pairs of each set of images that are linked by pairs, directly or by way of others."""
    images, places = np.unique(np.concatenate([pairs["one"], pairs["other"]]), return_inverse=True)
    one, other = places.reshape(2, -1)
    roots = np.arange(len(images))
    while (roots[one] != roots[other]).any():
        least = np.minimum(roots[one], roots[other])
        np.minimum.at(roots, roots[one], least)
        np.minimum.at(roots, roots[other], least)
        while (roots[roots] != roots).any():
            roots = roots[roots]
    order = np.argsort(roots[one], kind="stable")
    for linked in np.split(order, np.flatnonzero(np.diff(roots[one][order])) + 1):
        yield pairs[linked].tolist()


def _around_medoids(
    stars: _Stars, centre: Callable[[int, Mapping[int, float]], int] | None
) -> Iterator[tuple[int, Members]]:
    while (medoid := stars.next_medoid()) is not None:
        chosen, members = medoid, stars.members(medoid, None)
        if members and centre is not None:
            chosen = centre(medoid, members)
            if chosen != medoid:
                members = stars.members(chosen, [medoid, *sorted(members.keys() - {chosen})])
        stars.take((chosen, *members))
        if members:
            yield chosen, members


class _Stars:
    """Images that are in no group yet, their partners, and what is known of pairs."""

    def __init__(
        self,
        pairs: Iterable[Proved],
        certain: Certain,
        marks: Mapping[int, Hashable],
        apart: Mapping[int, Set[int]],
    ) -> None:
        self._certain, self._marks, self._apart = certain, marks, apart
        self._asked: defaultdict[int, Members] = defaultdict(dict)
        self._partners: defaultdict[int, Members] = defaultdict(dict)
        for one, other, sure in pairs:
            self._partners[one][other] = self._partners[other][one] = sure
        self._free = set(self._partners)
        self._degrees = {one: len(others) for one, others in self._partners.items()}
        self._heap = [(-degree, one) for one, degree in self._degrees.items()]
        heapify(self._heap)

    def next_medoid(self) -> int | None:
        """The free image with the most free partners; None where none is free."""
        while self._heap:
            degree, one = heappop(self._heap)
            if one in self._free and -degree == self._degrees[one]:
                return one
        return None

    def members(self, centre: int, asked: Iterable[int] | None) -> Members:
        """Free images proved against one: of those asked, or of all that are reached by way of members, the surest
        partners first."""
        sure_of = self._partners[centre]
        near = sure_of.keys() & self._free if asked is None else asked
        level = sorted(near, key=lambda one: (-sure_of.get(one, 0.0), one))
        seen, mark, members = {centre, *level}, self._marks.get(centre), Members()

        def fits(one: int) -> bool:
            other_mark, unlike = self._marks.get(one), self._apart.get(one, frozenset())
            same = mark is None or other_mark is None or mark == other_mark
            return same and centre not in unlike and members.keys().isdisjoint(unlike)

        while level:
            level = [one for one in level if fits(one)]
            new = []
            for one, sure in zip(level, self._proved(centre, level), strict=True):
                if sure > 0 and fits(one):
                    members[one] = sure
                    mark = self._marks.get(one) if mark is None else mark
                    if asked is None:
                        new += sorted((self._partners[one].keys() & self._free) - seen)
                        seen.update(new)
            level = new
        return members

    def _proved(self, centre: int, images: Sequence[int]) -> list[float]:
        """How surely each of some images belongs together with one."""
        known, asked = self._partners[centre], self._asked[centre]
        new = [one for one in images if one not in known and one not in asked]
        for one, sure in zip(new, self._certain(centre, new) if new else (), strict=True):
            asked[one] = self._asked[one][centre] = sure
        return [known[one] if one in known else asked[one] for one in images]

    def take(self, images: Collection[int]) -> None:
        """Let images be free no more."""
        self._free.difference_update(images)
        for gone in images:
            for other in self._partners[gone].keys() & self._free:
                self._degrees[other] -= 1
                heappush(self._heap, (-self._degrees[other], other))
