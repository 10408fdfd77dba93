"""The command `map`: a space in two dimensions, with named clusters and outliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.maps.map import Map

SHOWN_CLUSTERS = 10
SHOWN_OUTLIERS = 3
"""Printed; `--json` has all."""


def draw_map(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    space: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the index's default.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="folder|label|metadata.KEY",
            help="What clusters are named by.  [label if a third has one, else folder]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed, another map.")] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Draw the map, with pictures of each cluster.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="OUT.parquet", help="Write the points as a table, e.g. for Embedding Atlas.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Map a space in two dimensions: clusters with names, typical images, outliers. A server shows it at /v1/map."""
    from analysis.maps.make import images_of, make_map
    from analysis.maps.map import keep
    from search.index import Index

    if report is not None:
        from analysis.maps.report import write_report  # imports the decoders: not for --help
    if parquet is not None:
        from analysis.maps.table import write_parquet
    with Index.open(directory) as index:
        images = images_of(index)
        made = make_map(index, index.space(space), labels=labels, seed=seed, images=images)
        paths = {image: record.paths[0] for image, record in images.items() if record.paths}
        try:
            keep(index, made)
        except OSError as error:
            warn(f"The map is not kept for a server: the index cannot be written: {error.strerror or error}.")
        if as_json:
            print_json(_to_json(made))
        else:
            _print(made, paths)
        if report is not None:
            write_report(index, made, paths, report)
            warn(f"Report: {report}")
        if parquet is not None:
            write_parquet(made, images, parquet)
            warn(f"Table: {parquet}")


def _to_json(made: Map) -> dict[str, Any]:
    points = [{name: value for name, value in asdict(one).items() if name != "rowid"} for one in made.points]
    return {
        "space": made.space,
        "generation": made.generation,
        "seed": made.seed,
        "labels": made.labels,
        "clusters": [{"number": number, **asdict(one)} for number, one in enumerate(made.clusters)],
        "outliers": list(made.outliers),
        "points": points,
    }


def _print(made: Map, paths: Mapping[str, str]) -> None:
    alone = sum(point.cluster is None for point in made.points)
    say(
        f"{plural(len(made.points), 'image')} of {made.space}: {plural(len(made.clusters), 'cluster')}, "
        f"{alone:,} in none, {plural(len(made.outliers), 'outlier')}"
    )
    width = max((len(one.name) for one in made.clusters[:SHOWN_CLUSTERS]), default=0)
    for one in made.clusters[:SHOWN_CLUSTERS]:
        say(f"{one.size:7,}  {one.name.ljust(width)}  {paths.get(one.typical[0], one.typical[0])}")
    if len(made.clusters) > SHOWN_CLUSTERS:
        say(f"... and {plural(len(made.clusters) - SHOWN_CLUSTERS, 'more cluster')}; --json prints all")
    if made.outliers:
        say("outliers, the most isolated first:")
    for image in made.outliers[:SHOWN_OUTLIERS]:
        say(f"  {paths.get(image, image)}")
