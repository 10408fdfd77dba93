"""The command `eval`: how well an index's spaces find, by labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say

WORST_CLASSES = 5
"""Classes named that are found worst."""
SHOWN = {"r_at_1": "R@1", "r_at_5": "R@5", "p_at_5": "P@5", "map": "mAP"}
"""Metrics in the table, by their names in `--json`, which has all."""


def evaluate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    labels: Annotated[
        str, typer.Option(metavar="folder|label|metadata.KEY|FILE", help="What counts as alike.")
    ] = "folder",
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A space to measure; repeat for several.  [all complete ones]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well an index's spaces find: each labelled image asks for the others that are alike."""
    from analysis.evaluate import evaluate as measure
    from analysis.labels import relevance
    from search.index import Index

    with Index.open(directory) as index:
        wanted = [index.space(name) for name in space or ()] or [one for one in index.spaces if one.complete]
        found = measure(index, relevance(index, labels), wanted)
    if as_json:
        spaces = [
            {
                "name": one.space,
                **{name: _rounded(asdict(estimate)) for name, estimate in one.metrics.items()},
                "classes": _rounded(one.classes),
            }
            for one in found.spaces
        ]
        print_json({"images": found.images, "queries": found.queries, "labels": labels, "spaces": spaces})
        return
    queries = "1 query" if found.queries == 1 else f"{found.queries:,} queries"
    say(f"{queries} among {plural(found.images, 'image')}, alike by {labels}")
    width = max(len(one.space) for one in found.spaces)
    say(" ".join(["space".ljust(width), *(heading.rjust(15) for heading in SHOWN.values())]))
    for one in found.spaces:
        cells = [one.metrics[name] for name in SHOWN]
        say(" ".join([one.space.ljust(width), *(f"{it.value:.3f} {_interval(it.low, it.high)}" for it in cells)]))
    for one in found.spaces if len(found.spaces) == 1 else ():
        worst = sorted(one.classes.items(), key=lambda held: held[1])[:WORST_CLASSES]
        if len(one.classes) > 1:
            say("found worst: " + ", ".join(f"{name} ({value:.2f})" for name, value in worst))


def _interval(low: float, high: float) -> str:
    return f"{low:.2f}-{high:.2f}".rjust(9)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def register(add: Callable[..., Any]) -> None:
    """Add the command to the application."""
    add("eval")(evaluate)
