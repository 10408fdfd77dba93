"""The command `dups`: duplicates, what to keep of them, and how the rest goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, megabytes, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.duplicates.plan import Decision, Step
    from analysis.duplicates.runs import Run
    from search.index import Index

SHOWN_GROUPS = 20
"""Groups printed; `--json` has all."""


def duplicates(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    tier: Annotated[
        list[str] | None, typer.Option(metavar="bytes|pixels", help="Only this kind; repeat for several.  [all]")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="RULES", help="What to keep, e.g. folder:Originals,resolution,oldest.")
    ] = None,
    protect: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Files that never go; repeat for several.")
    ] = None,
    apply: Annotated[
        str | None, typer.Option(metavar="move=FOLDER|hardlink|reflink|delete", help="Do it. Default: only show it.")
    ] = None,
    undo: Annotated[str | None, typer.Option(metavar="RUN", help="Take back what a run did.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking; it cannot be undone.")] = False,
    as_json: Json = False,
) -> None:
    """Find duplicate pictures, and what to keep of them. Nothing is changed without --apply."""
    from analysis.duplicates.runs import named_run, unfinished
    from search.index import Index

    if undo is not None:
        with Index.open(directory, writable=True) as index:
            back = named_run(index, undo)
            _carry_out(index, back, back=True)
        _told(back, as_json, back=True)
        return
    action, folder = _action(apply)
    if action == "delete" and not yes:
        raise typer.BadParameter(
            "Deleted files cannot be brought back. Add --yes, or move=FOLDER.", param_hint="--apply"
        )
    with Index.open(directory, writable=action is not None) as index:
        left = unfinished(index)
        if left is not None and action is None:
            warn(
                f"The run {left.name} was interrupted. To go on: --apply {_named(left)}. To go back: --undo {left.name}"
            )
        elif left is not None:
            warn(f"The run {left.name} was interrupted, and goes on. Nothing new is looked for.")
            _carry_out(index, left)
            _told(left, as_json)
            return
        decisions, steps = _decided(index, tier or (), keep, protect or (), action, folder)
        run = None if action is None else _applied(index, action, steps)
    if as_json:
        print_json(_to_json(decisions, run))
    else:
        _print(decisions, run)
    if run is not None and run.skipped:
        raise typer.Exit(EXIT_REJECTED)


def _decided(
    index: Index,
    tiers: Sequence[str],
    keep: str | None,
    protect: Sequence[str],
    action: Any,
    folder: Path | None,
) -> tuple[list[Decision], list[Step]]:
    from analysis.duplicates.find import find
    from analysis.duplicates.groups import PROMISES
    from analysis.duplicates.keep import DEFAULT_RULES, parse_rules
    from analysis.duplicates.plan import decide, plan

    for name in tiers:
        if name not in PROMISES:
            raise typer.BadParameter(f"There is no kind {name!r}. Use: {', '.join(PROMISES)}.", param_hint="--tier")
    rules = parse_rules(DEFAULT_RULES if keep is None else keep)
    if folder is not None:
        for root in index.catalog.roots():
            if folder.is_relative_to(root):
                raise typer.BadParameter(
                    f"{folder} lies in {root}, which is indexed: the next build would find the files there again. "
                    "Name a folder elsewhere.",
                    param_hint="--apply",
                )
    wanted = [name for name in PROMISES if not tiers or name in tiers]
    groups = find(index, wanted, skipped=lambda path, why: warn(f"not compared: {path}: {why}"))
    decisions = decide(groups, rules, protect)
    return decisions, plan(decisions, action or "move", folder)


def _applied(index: Index, action: Any, steps: Sequence[Step]) -> Run:
    from analysis.duplicates.runs import new_run

    run = new_run(index, action, steps)
    _carry_out(index, run)
    return run


def _carry_out(index: Index, run: Run, *, back: bool = False) -> None:
    from analysis.duplicates.runs import Applying

    with index.writer() as writer:
        applying = Applying(writer, run)
        if back:
            applying.undo()
        else:
            applying.apply()


def _action(text: str | None) -> tuple[Any, Path | None]:
    from analysis.duplicates.plan import Action

    if text is None:
        return None, None
    name, _, folder = text.partition("=")
    if name not in get_args(Action) or (name == "move") != bool(folder):
        raise typer.BadParameter("Use move=FOLDER, hardlink, reflink or delete.", param_hint="--apply")
    return name, Path(folder).absolute() if folder else None


def _named(run: Run) -> str:
    return "move=FOLDER" if run.action == "move" else run.action


def _to_json(decisions: Sequence[Decision], run: Run | None) -> dict[str, Any]:
    goes = {file.path: file.location.size for decision in decisions for file in decision.goes}
    return {
        "groups": [
            {
                "tier": decision.group.tier,
                "images": [
                    {
                        "id": file.image.id,
                        "paths": [str(file.path)],
                        "score": 1.0,
                        "keep": file not in decision.goes,
                        "why": decision.why if file is decision.keep else _why_not(decision, file),
                    }
                    for file in decision.group.files
                ],
            }
            for decision in decisions
        ],
        "images": len(goes),
        "bytes": sum(goes.values()),
        "run": None if run is None else _run_to_json(run),
    }


def _why_not(decision: Decision, file: object) -> str | None:
    if file in decision.protected:
        return "protected"
    return None if file in decision.goes else "another file of the image that is kept"


def _run_to_json(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "action": run.action,
        "done": len(run.done),
        "undone": len(run.undone),
        "bytes": run.freed,
        "skipped": [{"path": str(run.steps[number].file), "why": why} for number, why in sorted(run.skipped.items())],
    }


def _told(run: Run, as_json: bool, *, back: bool = False) -> None:
    if as_json:
        print_json({"run": _run_to_json(run)})
    else:
        say(f"Run {run.name} taken back: {plural(len(run.undone), 'file')}." if back else _sentence(run))
        _print_skipped(run)
    if run.skipped:
        raise typer.Exit(EXIT_REJECTED)


def _sentence(run: Run) -> str:
    verb = {"move": "moved", "hardlink": "linked", "reflink": "made to share blocks", "delete": "deleted"}[run.action]
    words = f"{plural(len(run.done), 'file')} {verb}, {megabytes(run.freed)}."
    return words if run.action == "delete" else f"{words} To take it back: --undo {run.name}"


def _print_skipped(run: Run) -> None:
    for number, why in sorted(run.skipped.items()):
        warn(f"left: {run.steps[number].file}: {why}")


def _print(decisions: Sequence[Decision], run: Run | None) -> None:
    from analysis.duplicates.groups import PROMISES

    goes = {file.path: file.location.size for decision in decisions for file in decision.goes}
    shown = ""
    for decision in decisions[:SHOWN_GROUPS]:
        if decision.group.tier != shown:
            shown = decision.group.tier
            say(f"Same {shown}: {PROMISES[decision.group.tier]}")
        for file in sorted(decision.group.files, key=lambda file: file is not decision.keep):
            why = decision.why if file is decision.keep else _why_not(decision, file)
            say(f"  {'goes ' if file in decision.goes else 'stays'}  {file.path}{f'  ({why})' if why else ''}")
        say("")
    if len(decisions) > SHOWN_GROUPS:
        say(f"... and {plural(len(decisions) - SHOWN_GROUPS, 'more group')}; --json prints all")
    if not decisions:
        say("No duplicates.")
    elif run is None:
        say(f"{plural(len(decisions), 'group')}: {plural(len(goes), 'file')} can go, {megabytes(sum(goes.values()))}.")
        say("Nothing was changed. To move them: --apply move=FOLDER")
    else:
        say(_sentence(run))
        _print_skipped(run)
