"""The command `eval`: how well an index's spaces find, by labels or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.aligning.cli import align
from analysis.duplicates.cli import duplicates
from analysis.maps.cli import draw_map
from analysis.tuning.cli import tune
from search.console import DEFAULT_INDEX, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.evaluate import Evaluation
    from analysis.labels import Relevance
    from analysis.proxy import Proxy
    from search.calibration import Calibration
    from search.index import Index
    from search.types import Space

NO_LABELS = "none"
"""As `--labels`: measured without any."""

WORST_CLASSES = 5
"""Classes named that are found worst."""
SHOWN = {"r_at_1": "R@1", "r_at_5": "R@5", "p_at_5": "P@5", "map": "mAP"}
"""Metrics in the table, by their names in `--json`, which has all."""


def evaluate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="folder|label|metadata.KEY|marks|FILE|none",
            help="What counts as alike; marks: kept feedback; none: perturbed copies find their originals.  "
            "[folder, if there are several]",
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A space to measure; repeat for several.  [all complete ones]"),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write plots, confusions and the worst failures.")
    ] = None,
    calibrate: Annotated[
        bool | None,
        typer.Option(
            help="Add a probability to each hit, fitted to these labels; or remove it.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well an index's spaces find: each labelled image asks for the others that are alike."""
    from analysis.evaluate import Evaluation, complete_spaces
    from analysis.evaluate import evaluate as measure
    from analysis.labels import MARKS, relevance
    from search.index import Index

    if calibrate and labels == NO_LABELS:
        raise typer.BadParameter(
            "It is labels that say what is alike: name some by --labels.", param_hint="--calibrate"
        )
    if calibrate is False and (labels or report):
        raise typer.BadParameter("It measures nothing: it goes with --space and --json.", param_hint="--no-calibrate")
    with Index.open(directory, writable=calibrate is not None) as index:
        if calibrate is False:
            _forget(index, [index.space(name) for name in space or ()] or index.spaces, as_json)
            return
        wanted = [index.space(name) for name in space or ()] or complete_spaces(index)
        source = labels or "folder"
        alike = None if source == NO_LABELS else relevance(index, source)
        if labels is None and alike is not None and alike.one_class:
            if calibrate:
                raise typer.BadParameter(
                    "All images lie in one folder, so that no labels say what is alike: name some by --labels.",
                    param_hint="--calibrate",
                )
            warn("All images lie in one folder, so there are no labels: perturbed copies look for their originals.")
            warn("If your images have labels or metadata, name them: --labels label, metadata.KEY or FILE")
            alike, source = None, NO_LABELS
        calibrations = {}
        if alike is None:
            from analysis.proxy import proxies  # imports torch: not for --help

            found = Evaluation(images=index.catalog.counts()[0], queries=0, spaces=())
            proxy = proxies(index, wanted, warn=warn)
        else:
            if calibrate:  # what it may refuse comes before minutes of measuring
                calibrations = _calibrate(index, alike, source, wanted)
            found, proxy = measure(index, alike, wanted), []
        if as_json:
            print_json(_to_json(found, proxy, source, calibrations))
        else:
            _print(found, source)
            if source == MARKS:
                _print_marks(index)
            _print_proxy(proxy)
            _print_calibrations(calibrations)
        if report is not None:
            from analysis.report import write_report  # imports the decoders: not for --help

            write_report(index, found, proxy, alike, source, report)
            warn(f"Report: {report}")


def _calibrate(index: Index, alike: Relevance, labels: str, spaces: Sequence[Space]) -> dict[str, Calibration]:
    """Fit a calibration of each space, then keep all of them."""
    from analysis.calibrate import calibrate

    named = Path(labels).name if alike.pairs is not None else labels
    found = {space.name: calibrate(index, alike, named, space) for space in spaces}
    _keep(index, [(space, found[space.name]) for space in spaces])
    return found


def _forget(index: Index, spaces: Sequence[Space], as_json: bool) -> None:
    held = [space for space in spaces if space.identity in index.catalog.calibrations()]
    if held:
        _keep(index, [(space, None) for space in held])
    for space in held:
        warn(f"{space.name}: hits have no probability any more.")
    if not held:
        warn("No space is calibrated: nothing was changed.")
    if as_json:
        print_json({"calibrations": [], "forgotten": [space.name for space in held]})


def _keep(index: Index, calibrations: Sequence[tuple[Space, Calibration | None]]) -> None:
    from search.lock import PATIENCE

    with index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
        for space, one in calibrations:
            transaction.set_calibration(space, one)


def _print_calibrations(calibrations: Mapping[str, Calibration]) -> None:
    for name, one in calibrations.items():
        best, worst = one.probabilities[-1], one.probabilities[0]
        say(
            f"{name}: each hit has a probability now, {worst:.2f} to {best:.2f}, of being alike by {one.labels}. For "
            f"queries that it was not fitted to, it was wrong by {one.error:.3f} on average."
        )


def _to_json(
    found: Evaluation, proxy: Sequence[Proxy], labels: str, calibrations: Mapping[str, Calibration]
) -> dict[str, Any]:
    return {
        "images": found.images,
        "queries": found.queries,
        "labels": labels,
        "spaces": [
            {
                "name": one.space,
                **{name: _rounded(asdict(estimate)) for name, estimate in one.metrics.items()},
                "classes": _rounded(one.classes),
            }
            for one in found.spaces
        ],
        "proxy": [{"name": one.space, **_rounded(asdict(one.value)), "kinds": _rounded(one.kinds)} for one in proxy],
        "calibrations": [{"name": name, **one.to_json()} for name, one in calibrations.items()],
    }


def _print(found: Evaluation, labels: str) -> None:
    if not found.spaces:
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


def _print_marks(index: Index) -> None:
    kept = index.catalog.sessions()
    marks = sum(one.more + one.less for one in kept)
    say(f"{plural(marks, 'mark')} of {plural(len(kept), 'session')} of feedback say what is alike.")


def _print_proxy(proxy: Sequence[Proxy]) -> None:
    if not proxy:
        return
    width = max(len(one.space) for one in proxy)
    say(" ".join(["space".ljust(width), "finds itself".rjust(15), *(kind.rjust(11) for kind in proxy[0].kinds)]))
    for one in proxy:
        cells = [f"{one.value.value:.3f} {_interval(one.value.low, one.value.high)}"]
        say(" ".join([one.space.ljust(width), *cells, *(f"{value:.3f}".rjust(11) for value in one.kinds.values())]))


def _interval(low: float, high: float) -> str:
    return f"{low:.2f}-{high:.2f}".rjust(9)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def register(add: Callable[..., Any]) -> None:
    """Add this room's commands to the application."""
    add("eval")(evaluate)
    add("dups")(duplicates)
    add("tune")(tune)
    add("align")(align)
    add("map")(draw_map)
