"""A map as one HTML file: points by cluster, names, paths, and pictures of what is typical."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.maps.map import Map
from analysis.pictures import Pictures
from analysis.report import template, write
from search.index import Index

PICTURED = 60
"""Clusters with pictures: the largest. Five pictures each make about a megabyte."""
OUTLIERS = 24
"""Outliers with a picture: the most isolated."""


def write_report(index: Index, made: Map, paths: Mapping[str, str], out: Path) -> None:
    """Write the map as an HTML file that needs no other. Raises ReportFailed where it cannot be written.

    paths: of images by id.
    """
    shown = [paths.get(point.id, point.id) for point in made.points]
    root = _shared([Path(paths[point.id]) for point in made.points if point.id in paths])
    text = template("maps/map.html").render(
        index=index.path.name,
        made=made,
        pictured=made.clusters[:PICTURED],
        outliers=made.outliers[:OUTLIERS],
        alone=sum(point.cluster is None for point in made.points),
        picture=Pictures(index).of,
        data={
            "x": [point.x for point in made.points],
            "y": [point.y for point in made.points],
            "cluster": [-1 if point.cluster is None else point.cluster for point in made.points],
            "path": [_text(path.removeprefix(root)) for path in shown],
            "outlier": _positions(made),
            "clusters": [{"name": one.name, "size": one.size, "x": one.x, "y": one.y} for one in made.clusters],
        },
    )
    write(text, out)


def _shared(paths: Sequence[Path]) -> str:
    """The folder that all paths lie in, with its separator."""
    if not paths:
        return ""
    folder = os.path.commonpath([path.parent for path in paths])
    return folder if folder.endswith(os.sep) else folder + os.sep


def _positions(made: Map) -> list[int]:
    outliers = set(made.outliers)
    return [number for number, point in enumerate(made.points) if point.id in outliers]


def _text(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
