"""The command `dups`: duplicates, and what to keep of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import DEFAULT_INDEX, Json, default_index, file_size, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.duplicates.groups import Decision

SHOWN_GROUPS = 20
"""Groups printed; `--json` has all."""


def duplicates(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="bytes|pixels|photo|moment|alike", help="Only this kind; repeat.  [bytes, pixels]"),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="RULES", help="What to keep, e.g. folder:Originals,resolution,oldest.")
    ] = None,
    protect: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Files that stay in any case; repeat for several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List duplicate pictures, and say which file to keep, and why. Nothing is changed."""
    from analysis.duplicates.find import find
    from analysis.duplicates.groups import PROMISES, SURE
    from analysis.duplicates.keep import DEFAULT_RULES, check_patterns, decide, parse_rules
    from search.index import Index

    for name in tier or ():
        if name not in PROMISES:
            raise typer.BadParameter(f"There is no kind {name!r}. Use: {', '.join(PROMISES)}.", param_hint="--tier")
    rules = parse_rules(DEFAULT_RULES if keep is None else keep, protect or ())
    wanted = [name for name in PROMISES if name in (tier or SURE)]
    with Index.open(directory) as index:
        groups = find(index, wanted, skipped=lambda path, why: warn(f"left out: {path}: {why}"))
    check_patterns(rules, groups)
    decisions = decide(groups, rules, protect or ())
    if as_json:
        print_json(_to_json(decisions))
    else:
        _print(decisions)


def _going(decisions: Sequence[Decision]) -> dict[str, int]:
    """The files that need not stay, each once, and their bytes: one that a group keeps may go with another."""
    return {str(file.path): file.location.size for decision in decisions for file in decision.goes}


def _to_json(decisions: Sequence[Decision]) -> dict[str, Any]:
    going = _going(decisions)
    return {
        "groups": [
            {
                "tier": decision.group.tier,
                "images": [
                    {
                        "id": file.image.id,
                        "paths": [str(file.path)],
                        "score": round(decision.group.scores.get(file.image.id, 1.0), 4),
                        "keep": str(file.path) not in going,
                        "why": decision.reason(file),
                    }
                    for file in decision.group.files
                ],
            }
            for decision in decisions
        ],
        "images": len(going),
        "bytes": sum(going.values()),
    }


def _print(decisions: Sequence[Decision]) -> None:
    from analysis.duplicates.groups import PROMISES

    going, shown = _going(decisions), ""
    for decision in decisions[:SHOWN_GROUPS]:
        if decision.group.tier != shown:
            shown = decision.group.tier
            say(f"{'Alike' if shown == 'alike' else f'Same {shown}'}: {PROMISES[decision.group.tier]}")
        for file in sorted(decision.group.files, key=lambda file: file is not decision.keep):
            why = decision.reason(file)
            say(f"  {'extra' if str(file.path) in going else 'keep '}  {file.path}{f'  ({why})' if why else ''}")
        say("")
    if len(decisions) > SHOWN_GROUPS:
        say(f"... and {plural(len(decisions) - SHOWN_GROUPS, 'more group')}; --json prints all")
    if decisions:
        say(f"{plural(len(decisions), 'group')}: {plural(len(going), 'extra file')}, {file_size(sum(going.values()))}")
    else:
        say("No duplicates.")
