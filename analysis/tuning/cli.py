"""The command `tune`: which recipe finds best on an index's own images, and the index changed over to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.tuning.sweep import Sweep, Tried
    from search.index import Index

SHOWN_SKIPPED = 20
"""Images without a readable file named; `lookalike spaces DIR add --json` lists all of them."""


def tune(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    sample: Annotated[
        int | None,
        typer.Option(min=20, max=10_000, metavar="N", help="Images to try recipes on, drawn at random.  [400]"),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Add the recommended space, fill it, and make it the default.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Make the former default space the default again.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="OUT.html", help="Write all recipes, with plots.")] = None,
    as_json: Json = False,
) -> None:
    """Find out which layers, pixels and transform find best on an index's own images. No labels are needed.

    Perturbed copies of some images look for their originals. An --apply that was stopped goes on when it is run again.
    """
    if undo and (apply or sample is not None or report is not None):
        raise typer.BadParameter(
            "It changes the default back, and measures nothing: give it alone.", param_hint="--undo"
        )
    from analysis.tuning import change
    from indexer.progress import progress_bar
    from indexer.terminal import EXIT_INTERRUPTED, graceful_interrupt
    from search.index import Index

    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        stopped = stack.enter_context(graceful_interrupt())  # before anything native is loaded
        index = stack.enter_context(Index.open(directory, writable=apply or undo))
        if undo:
            tuned = change.undo(index)
            _tell_undone(index, tuned.former, tuned.chosen, as_json)
            return
        begun = change.pending(index) if apply else None
        found, told = None, cache(warn)
        if begun is None:
            from analysis.report import check_folder
            from analysis.tuning.sweep import SAMPLE, sweep

            if report is not None:
                check_folder(report)
            found = sweep(index, sample=sample or SAMPLE, warn=told, progress=progress, stopped=stopped)
            if found is None:
                warn("Interrupted: nothing was changed.")
                raise typer.Exit(EXIT_INTERRUPTED)
            if not as_json:
                _print(found, apply=apply)
            if report is not None:
                from analysis.tuning.report import write_report

                write_report(index, found, report)
                warn(f"Report: {report}")
            if apply and found.differs:
                begun = change.begin(index, found.chosen.space)
        else:
            unused = "" if sample is None and report is None else ", so --sample and --report have no effect"
            warn(f"Going on to fill {begun.chosen}, which an earlier run chose. Nothing is measured again{unused}.")
        filled = None
        if begun is not None:
            filled = change.complete(index, begun, warn=told, progress=progress, stopped=stopped)
        default = index.catalog.spaces().default
        applied = begun is not None and begun.chosen == default
        chosen = begun.chosen if begun is not None else found.chosen.space.name if found is not None else default
        if as_json:
            print_json(_to_json(found, chosen, default, applied=applied))
        elif applied:
            say(f"{chosen} is the default space now. To go back: lookalike tune {directory} --undo")
    if filled is not None and not applied:
        for skipped in filled.skipped[:SHOWN_SKIPPED]:
            warn(f"skipped: {skipped.path or skipped.id}: {skipped.reason}")
        if filled.interrupted:
            warn("Interrupted: everything so far is kept. Run the same command again to continue.")
            raise typer.Exit(EXIT_INTERRUPTED)
        warn(
            f"{chosen} lacks {plural(len(filled.skipped), 'image')}, so {default} stays the default. Bring the files "
            f"back and run this again, or: lookalike spaces {directory} default {chosen} --force"
        )
        raise typer.Exit(EXIT_REJECTED)


def _tell_undone(index: Index, former: str, chosen: str, as_json: bool) -> None:
    if as_json:
        print_json(_to_json(None, former, former, applied=False))
        return
    say(f"{former} is the default space again. {chosen} stays; to drop it: lookalike spaces {index.path} drop {chosen}")


def _to_json(found: Sweep | None, chosen: str, default: str, *, applied: bool) -> dict[str, Any]:
    return {
        "recipes": [] if found is None else [_recipe(one) for one in found.tried],
        "chosen": chosen,
        "space": default,
        "applied": applied,
        **({} if found is None else {"images": found.images, "perturbed": found.perturbed, "skipped": found.skipped}),
    }


def _recipe(one: Tried) -> dict[str, Any]:
    interval = asdict(one.proxy)
    return {
        "name": one.space.name,
        "proxy": round(interval.pop("value"), 4),
        **{name: round(value, 4) for name, value in interval.items()},
        "images_per_second": round(one.images_per_second, 2),
        "bytes_per_image": one.bytes_per_image,
        "search_ms": None if one.search_ms is None else round(one.search_ms, 3),
        "kinds": {name: round(value, 4) for name, value in one.kinds.items()},
    }


def _print(found: Sweep, *, apply: bool) -> None:
    say(
        f"{plural(found.perturbed, 'image')}, perturbed, looked for their originals among {found.images:,}"
        + (f" ({found.skipped:,} could not be read)" if found.skipped else "")
    )
    shown = _shown(found)
    width = max(len(one.space.name) for one in shown)
    say(f"{'recipe'.ljust(width)}  finds itself            images/s  bytes/image  search ms")
    for one in shown:
        interval = f"{one.proxy.value:.3f} ({one.proxy.low:.3f} to {one.proxy.high:.3f})"
        note = ", the default" if one is found.default else ""
        note += ", recommended" if one is found.chosen else ""
        say(
            f"{one.space.name.ljust(width)}  {interval:22}  {one.images_per_second:8.1f}  {one.bytes_per_image:11,}"
            f"  {'-' if one.search_ms is None else format(one.search_ms, '.2f'):>9}{note.replace(', ', '  ', 1)}"
        )
    say(f"{len(found.tried)} recipes were tried; --report and --json have all of them.")
    if found.differs:
        how = "" if apply else " To take it: --apply"
        say(f"{found.chosen.space.name} finds more than {found.default.space.name}, beyond noise.{how}")
    else:
        say(f"No recipe finds more than {found.default.space.name} beyond noise: stay with it.")


def _shown(found: Sweep) -> Sequence[Tried]:
    """The recipes of which no other is as good in every respect, the default's and the one recommended; best first."""
    from analysis.tuning.sweep import pareto

    kept = {found.default, found.chosen, *pareto(found.tried)}
    return sorted(kept, key=lambda one: -one.proxy.value)
