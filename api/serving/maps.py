"""Maps of a served index: read from where `lookalike map` keeps them, never made here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from analysis.maps.map import Map, kept, stamp
from api.errors import MapMissing
from search.index import Index


class Maps:
    """The maps of one index's spaces, each written out once until it, or the catalog, changes.

    A map takes seconds to minutes of a core: servers read what the command has kept, so that several processes
    show the same one, and none makes it.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._one_at_a_time = threading.Lock()
        self._known: dict[str, tuple[object, bytes]] = {}

    def answer(self, named: str | None, write: Callable[[Map], bytes]) -> bytes:
        """What `write` makes of a space's map, without images that are no hits any more. Not for the event loop.

        write: always the same. Raises UnknownSpace, MapMissing.
        """
        space = self._index.space(named)
        with self._one_at_a_time:
            state = (space.identity, stamp(self._index, space), self._index.catalog.version())
            known = self._known.get(space.name)
            if known is not None and known[0] == state:
                return known[1]
            self._known.pop(space.name, None)
            found = kept(self._index, space)
            if found is None:
                raise MapMissing
            answer = write(self._without_gone(found))
            self._known[space.name] = state, answer
            return answer

    def _without_gone(self, found: Map) -> Map:
        there = self._index.catalog.present([point.rowid for point in found.points])
        points = tuple(point for point in found.points if point.rowid in there)
        if len(points) == len(found.points):
            return found
        ids = {point.id for point in points}
        sizes = Counter(point.cluster for point in points if point.cluster is not None)
        order = sorted(sizes, key=lambda number: (-sizes[number], number))
        ranks = {number: rank for rank, number in enumerate(order)}
        clusters = [found.clusters[number] for number in order]
        return replace(
            found,
            points=tuple(
                point if point.cluster is None else replace(point, cluster=ranks[point.cluster]) for point in points
            ),
            clusters=tuple(
                replace(one, size=sizes[number], typical=tuple(image for image in one.typical if image in ids))
                for number, one in zip(order, clusters, strict=True)
            ),
            outliers=tuple(image for image in found.outliers if image in ids),
        )
