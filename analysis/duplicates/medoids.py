"""Groups around one image: every member is proved against it, so that no chain of small changes makes a group."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from heapq import heapify, heappop, heappush

Certain = Callable[[int, int], float]
"""How surely two images belong together, by their rowids, the smaller first: 0 where they do not."""
Members = dict[int, float]
"""Rowids, and how surely each belongs to the image that they are around."""


def around_medoids(
    pairs: Iterable[tuple[int, int, float]],
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
    stays. The time grows with the pairs, but for a logarithm.
    """
    stars = _Stars(pairs, certain, marks or {}, apart or {})
    groups = []
    while (medoid := stars.next_medoid()) is not None:
        chosen, members = medoid, stars.members(medoid, None)
        if members and centre is not None:
            chosen = centre(medoid, members)
            if chosen != medoid:
                members = stars.members(chosen, [medoid, *sorted(members.keys() - {chosen})])
        stars.take((chosen, *members))
        if members:
            groups.append((chosen, members))
    return groups


class _Stars:
    """Images that are in no group yet, their partners, and what is known of pairs."""

    def __init__(
        self,
        pairs: Iterable[tuple[int, int, float]],
        certain: Certain,
        marks: Mapping[int, Hashable],
        apart: Mapping[int, Set[int]],
    ) -> None:
        self._certain, self._marks, self._apart = certain, marks, apart
        self._known: dict[tuple[int, int], float] = {}
        self._partners: defaultdict[int, set[int]] = defaultdict(set)
        for one, other, sure in pairs:
            self._known[min(one, other), max(one, other)] = sure
            self._partners[one].add(other)
            self._partners[other].add(one)
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
        near = self._partners[centre] & self._free if asked is None else asked
        queue = deque(sorted(near, key=lambda one: (-self._known.get((min(one, centre), max(one, centre)), 0), one)))
        seen, mark, members = {centre, *queue}, self._marks.get(centre), Members()
        while queue:
            one = queue.popleft()
            other_mark = self._marks.get(one)
            if mark is not None and other_mark is not None and mark != other_mark:
                continue
            unlike = self._apart.get(one, frozenset())
            if centre in unlike or any(other in members for other in unlike):
                continue
            if (sure := self._sure(one, centre)) <= 0:
                continue
            members[one] = sure
            mark = other_mark if mark is None else mark
            if asked is None:
                new = sorted((self._partners[one] & self._free) - seen)
                seen.update(new)
                queue.extend(new)
        return members

    def _sure(self, one: int, other: int) -> float:
        pair = min(one, other), max(one, other)
        if pair not in self._known:
            self._known[pair] = self._certain(*pair)
        return self._known[pair]

    def take(self, images: Iterable[int]) -> None:
        """Let images be free no more."""
        for gone in images:
            self._free.discard(gone)
            for other in self._partners[gone]:
                self._degrees[other] -= 1
                if other in self._free:
                    heappush(self._heap, (-self._degrees[other], other))
