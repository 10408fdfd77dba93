"""Maps of a served index: read from where `lookalike map` keeps them, never made here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

from analysis.maps.map import Map, Point, kept, stamp
from api.errors import MapMissing
from search.index import Index
from search.types import Space

PAUSE = 10
"""A map rests so many times as long as it took to look for removed images, so that a busy catalog takes at most a
tenth of a core."""


@dataclass(frozen=True)
class Content:
    """A map as JSON, and its entity tag: the same content has the same one, in every process."""

    data: bytes
    etag: str


@dataclass
class _Shown:
    """A kept map, what was made of it for which images, and until when (`time.monotonic`) that is believed.

    texts: the JSON of each point up to its cluster's number.
    """

    made: Map
    stamp: object
    texts: list[str]
    version: int = -1
    there: Set[int] = field(default_factory=set)
    content: Content | None = None
    until: float = 0.0


class Maps:
    """The maps of one index's spaces, each written out once until it, or which of its images are there, changes.

    A map takes seconds to minutes of a core: servers read what the command has kept, so that several processes
    show the same one, and none makes it. A large one takes tenths of a second to write out, in a thread of its own.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maps")
        self._shown: dict[str, _Shown] = {}

    def close(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()

    async def answer(self, named: str | None) -> Content:
        """A space's map as JSON, without images that are no hits any more. Raises UnknownSpace, MapMissing."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, named)

    def _answer(self, named: str | None) -> Content:
        spaces = {space.name for space in self._index.spaces}
        self._shown = {name: shown for name, shown in self._shown.items() if name in spaces}  # the others were dropped
        space = self._index.space(named)
        shown = self._read(space)
        version, began = self._index.catalog.version(), time.monotonic()
        if shown.content is not None and (shown.version == version or began < shown.until):
            return shown.content
        there = self._index.catalog.present([point.rowid for point in shown.made.points])
        if shown.content is None or shown.there != there:
            shown.content = _content(shown, there)
            shown.there = there
        shown.version, ended = version, time.monotonic()
        shown.until = ended + PAUSE * (ended - began)
        return shown.content

    def _read(self, space: Space) -> _Shown:
        state = (space.identity, stamp(self._index, space))
        shown = self._shown.get(space.name)
        if shown is None or shown.stamp != state:
            self._shown.pop(space.name, None)
            made = kept(self._index, space)
            if made is None:
                raise MapMissing
            shown = self._shown[space.name] = _Shown(made, state, [_text(point) for point in made.points])
        return shown


def _content(shown: _Shown, there: Set[int]) -> Content:
    """The JSON of `MapAnswer`. Not by one call of `json`, which would keep all other threads waiting: 0.2 s for
    100,000 points."""
    made = shown.made
    sizes = Counter(point.cluster for point in made.points if point.cluster is not None and point.rowid in there)
    order = sorted(sizes, key=lambda number: (-sizes[number], number))
    numbers: dict[int | None, str] = {None: "null"} | {number: str(rank) for rank, number in enumerate(order)}
    ids = {point.id for point in made.points if point.rowid in there}
    rest = {
        "space": made.space,
        "generation": made.generation,
        "seed": made.seed,
        "labels": made.labels,
        "clusters": [
            asdict(
                replace(made.clusters[number], size=sizes[number], typical=_those(made.clusters[number].typical, ids))
            )
            for number in order
        ],
        "outliers": _those(made.outliers, ids),
    }
    points = ",".join(
        f"{text}{numbers[point.cluster]}}}"
        for text, point in zip(shown.texts, made.points, strict=True)
        if point.rowid in there
    )
    data = f'{_json(rest)[:-1]},"points":[{points}]}}'.encode()
    return Content(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def _those(images: Iterable[str], ids: Set[str]) -> tuple[str, ...]:
    return tuple(image for image in images if image in ids)


def _text(point: Point) -> str:
    return f'{{"id":"{point.id}","x":{point.x},"y":{point.y},"isolation":{point.isolation},"cluster":'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
