"""A map of an index's space, made and kept: points, clusters, outliers. Reading one needs no further packages."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from search.files import write_whole
from search.index import Index
from search.maps import map_file
from search.types import Space

FORMAT = 1
"""Of a kept map; one of another format is as good as none."""
LINE = 1_000
"""Points on a line of the file; the first line has the rest. `json` keeps other threads waiting for a whole line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An image on a map. x, y: -1..1, rightwards and upwards; cluster: a number, None where it is in none; isolation:
    1 - its mean cosine to its ten nearest images."""

    id: str
    rowid: int
    x: float
    y: float
    cluster: int | None
    isolation: float


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Images that lie together. size: how many; x, y: its middle; typical: ids, the medoid first."""

    name: str
    size: int
    x: float
    y: float
    typical: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Map:
    """A space in two dimensions. generation: the index's when it was made, None before the first.

    labels: what clusters are named by. points: in the order in which the images were added. clusters: the largest
    first; points name them by their numbers here. outliers: ids, the most isolated first.
    """

    space: str
    added_seq: int | None
    generation: str | None
    seed: int
    labels: str
    points: tuple[Point, ...]
    clusters: tuple[Cluster, ...]
    outliers: tuple[str, ...]


def keep(index: Index, made: Map) -> None:
    """Keep a map in its index, in place of the space's map before. Raises OSError."""
    head = {"format": FORMAT, **asdict(replace(made, points=()))}
    parts = [made.points[start : start + LINE] for start in range(0, len(made.points), LINE)]
    lines = [head, *([asdict(point) for point in part] for part in parts)]
    text = "\n".join(json.dumps(line, allow_nan=False, separators=(",", ":")) for line in lines)
    write_whole(map_file(index.path, made.space), text.encode(), durable=False)


def kept(index: Index, space: Space) -> Map | None:
    """The map kept of a space; None where there is none, or only one that cannot be read."""
    try:
        first, *lines = map_file(index.path, space.name).read_bytes().split(b"\n")
        data = json.loads(first)
        if data.pop("format") != FORMAT or (data["space"], data["added_seq"]) != space.identity:
            return None
        data["points"] = tuple(Point(**one) for line in lines for one in json.loads(line))
        data["clusters"] = tuple(Cluster(**{**one, "typical": tuple(one["typical"])}) for one in data["clusters"])
        data["outliers"] = tuple(data["outliers"])
        return Map(**data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def stamp(index: Index, space: Space) -> tuple[int, int] | None:
    """What changes when another map of a space is kept; None where there is none."""
    try:
        facts = map_file(index.path, space.name).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino
