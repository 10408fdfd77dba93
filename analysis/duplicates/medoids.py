"""Groups around a medoid: every member is proved against it, so that no chain of small changes makes a group."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable

Certain = Callable[[int, int], float]
"""How surely two images belong together, by their rowids, the smaller first: 0 where they do not."""


def around_medoids(pairs: Iterable[tuple[int, int, float]], certain: Certain) -> list[tuple[int, dict[int, float]]]:
    """Groups of proved pairs (one, other, certainty): the medoid of each, and its members with their certainty.

    The medoid is the free image with the most proved partners. Each member is proved against it: `certain` is asked for
    those that are no pair yet, reached by way of members. So no chain of small changes makes a group.
    """
    known: dict[tuple[int, int], float] = {}
    partners: defaultdict[int, set[int]] = defaultdict(set)
    for one, other, sure in pairs:
        known[min(one, other), max(one, other)] = sure
        partners[one].add(other)
        partners[other].add(one)
    free, groups = set(partners), []
    degrees = {one: len(others) for one, others in partners.items()}
    while free:
        medoid = min(free, key=lambda one: (-degrees[one], one))
        free.discard(medoid)
        members: dict[int, float] = {}
        queue, asked = deque(sorted(partners[medoid] & free)), {medoid, *partners[medoid]}
        while queue:
            one = queue.popleft()
            pair = min(one, medoid), max(one, medoid)
            if pair not in known:
                known[pair] = certain(*pair)
            if known[pair] <= 0:
                continue
            members[one] = known[pair]
            free.discard(one)
            new = sorted((partners[one] & free) - asked)
            asked |= set(new)
            queue.extend(new)
        for gone in (medoid, *members):
            for other in partners[gone]:
                degrees[other] -= 1
        if members:
            groups.append((medoid, members))
    return groups
