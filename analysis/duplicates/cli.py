"""The command `dups`: duplicates, what to keep of them, and how the others go and come back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from analysis.duplicates.against_cli import compare
from analysis.duplicates.decided_cli import forget_decisions, list_decisions, remember_decision
from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, file_size, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.duplicates.decided import Listing
    from analysis.duplicates.groups import Decision, Tier
    from analysis.duplicates.plan import Request
    from analysis.duplicates.runs import Run
    from search.index import Index
    from search.writer import Writer

SHOWN_SKIPPED = 20
"""Files printed that a run left; `--json` has all."""
Leave = Callable[[str, str], None]
"""Told of a file that is left, and why."""


def duplicates(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|PATH",
            help="Images that --not-duplicates or --forget is about.",
            default_factory=list,
            show_default=False,
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="DIR2", help="List what DIR shares with this other index, such as test images."),
    ] = None,
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
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write the groups with their pictures.")
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(metavar="move=FOLDER|hardlink|reflink|delete", help="Let the extra files go.  [only list them]"),
    ] = None,
    undo: Annotated[str | None, typer.Option(metavar="RUN", help="Take back what a run of --apply did.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question: deleted files do not come back.")] = (
        False
    ),
    not_duplicates: Annotated[
        bool,
        typer.Option(
            "--not-duplicates",
            help="Remember that these images are not duplicates of each other, and no file of theirs is extra; of one "
            "image, that its copies are wanted.",
        ),
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget decisions among these images; of a single image, all of them.")
    ] = False,
    decisions: Annotated[bool, typer.Option("--decisions", help="List what was decided by --not-duplicates.")] = False,
    as_json: Json = False,
) -> None:
    """List duplicate pictures, and say which file to keep, and why. Nothing is changed without --apply."""
    modes = {"--undo": undo, "--not-duplicates": not_duplicates, "--forget": forget, "--decisions": decisions}
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1 or (chosen and (tier or keep or protect or apply or report)):
        raise typer.BadParameter("This works only alone, or with --json.", param_hint=chosen[0])
    if images and not (not_duplicates or forget):
        raise typer.BadParameter(f"Add --not-duplicates or --forget: {images[0]} was named without either.")
    if report is not None:
        from analysis.report import check_folder

        check_folder(report)
    if against is not None:
        if chosen or keep or protect or apply:
            raise typer.BadParameter(
                "This only lists: it goes with --tier, --report and --json.", param_hint="--against"
            )
        compare(directory, against, _tiers(tier), report, as_json)
    elif undo is not None:
        _undo(directory, undo, yes, as_json)
    elif not_duplicates:
        remember_decision(directory, images, as_json)
    elif forget:
        forget_decisions(directory, images, as_json)
    elif decisions:
        list_decisions(directory, as_json)
    else:
        if report and apply:
            raise typer.BadParameter("This only lists: write it before --apply.", param_hint="--report")
        _find(directory, tier, keep, protect or (), apply, report, yes=yes, as_json=as_json)


def _find(
    directory: Path,
    tier: Sequence[str] | None,
    keep: str | None,
    protect: Sequence[str],
    apply: str | None,
    report: Path | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    from analysis.duplicates.decided import Listing
    from analysis.duplicates.groups import SURE
    from analysis.duplicates.runs import continued, unfinished
    from analysis.duplicates.shown import groups_to_json, print_groups, spared_files
    from analysis.errors import RunStopped
    from search.errors import StorageFailed
    from search.index import Index

    (action, folder), tiers = _action(apply), _tiers(tier)
    left: list[tuple[str, str]] = []

    def leave(path: str, why: str) -> None:
        left.append((path, why))
        warn(f"left: {path}: {why}")

    if action is not None and not {*SURE} & {*tiers}:
        raise typer.BadParameter(
            f"It works on equal bytes and equal pixels only. Leave --tier out, or name {' or '.join(SURE)}.",
            param_hint="--apply",
        )
    if action == "delete" and not (yes or _can_ask(as_json)):
        raise typer.BadParameter("Deleted files do not come back. Add --yes, or use move=FOLDER.", param_hint="--apply")
    with ExitStack() as stack:
        index = stack.enter_context(Index.open(directory, writable=action is not None))
        if action is None:
            stopped = unfinished(index)
            if stopped is not None:
                warn(f"The run {stopped.name} was interrupted. To go on: {stopped.request.words}")
                warn(f"To take back what it did: --undo {stopped.name}")
            found = _listed(index, tiers, keep, protect, leave)
            if as_json:
                print_json(groups_to_json(found, None, left))
            else:
                with index.catalog.lookup() as lookup:
                    whole = lookup.bytes_there()
                print_groups(found, directory, whole)
            if report is not None:
                from analysis.duplicates.report import write_groups

                write_groups(found, directory, report)
                warn(f"Report: {report}")
            return
        writer = stack.enter_context(index.writer())  # nobody builds, or lets go, from the first look to the last step
        request = _request(index, action, folder, tiers, keep, protect)
        run, found = continued(index, request), Listing(decisions=[])
        if run is None:
            found = _listed(index, tiers, keep, protect, leave)
            if found.spared and not as_json:
                say(spared_files(found.spared, directory))
            run = _begun(writer, request, found.decisions, leave, yes=yes, as_json=as_json)
        else:
            warn(f"The run {run.name} was interrupted, and goes on. Nothing new is looked for.")
        try:
            if run is not None:
                _carry_out(writer, run, back=False)
        except (RunStopped, StorageFailed):
            if as_json:
                print_json(groups_to_json(found, run, left))
            raise
        if as_json:
            print_json(groups_to_json(found, run, left))
    _end(run, left, as_json=as_json, back=False)


def _undo(directory: Path, name: str, yes: bool, as_json: bool) -> None:
    from analysis.duplicates.runs import named
    from analysis.duplicates.shown import run_to_json
    from search.index import Index

    with ExitStack() as stack:
        index = stack.enter_context(Index.open(directory, writable=True))
        writer = stack.enter_context(index.writer())
        run = named(index, name)
        if run.request.action == "delete" and not run.over:
            _ask(
                f"The run {name} was interrupted. What it deleted does not come back; the other files will stay.",
                yes=yes,
                as_json=as_json,
            )
        _carry_out(writer, run, back=True)
        if as_json:
            print_json({"run": run_to_json(run, [], back=True)})
    _end(run, [], as_json=as_json, back=True)


def _carry_out(writer: Writer, run: Run, *, back: bool) -> None:
    from analysis.duplicates.apply import Applying
    from indexer.progress import progress_bar
    from indexer.terminal import graceful_interrupt

    with progress_bar() as progress, graceful_interrupt() as stopped:
        applying = Applying(writer, run, stopped=stopped, progress=progress.done)
        if back:
            progress.start(len(run.gone), what="Taking back")
            applying.undo()
        else:
            progress.start(len(run.steps), what="Letting go")
            applying.apply()


def _begun(
    writer: Writer, request: Request, decisions: Sequence[Decision], leave: Leave, *, yes: bool, as_json: bool
) -> Run | None:
    """The run that lets go what the decisions let go, noted and not begun; None where nothing goes."""
    from analysis.duplicates.apply import begin
    from analysis.duplicates.plan import LINKING, plan

    steps = plan(decisions, request, leave)
    if request.action in LINKING:
        others = {file.path for one in decisions if one.group.tier != "bytes" for file in one.goes}
        if others := others - {step.file for step in steps}:
            warn(f"left: {plural(len(others), 'file')} of other bytes than what stays: only equal files can be linked")
    if not steps:
        return None
    if request.action == "delete":
        size = file_size(sum(step.facts.size for step in steps))
        _ask(f"{plural(len(steps), 'file')}, {size}, will be deleted. They do not come back.", yes=yes, as_json=as_json)
    return begin(writer, request, steps)


def _can_ask(as_json: bool) -> bool:
    return sys.stdin.isatty() and not as_json


def _ask(what: str, *, yes: bool, as_json: bool) -> None:
    """Go on only if the user says so. Raises BadParameter where nobody can be asked, Exit."""
    if yes:
        return
    if not _can_ask(as_json):
        raise typer.BadParameter(f"{what} Add --yes.")
    if not typer.confirm(f"{what} Go on?", err=True):
        warn("Nothing was changed.")
        raise typer.Exit(1)


def _tiers(chosen: Sequence[str] | None) -> list[Tier]:
    from analysis.duplicates.groups import PROMISES, SURE

    for name in chosen or ():
        if name not in PROMISES:
            raise typer.BadParameter(f"There is no kind {name!r}. Use: {', '.join(PROMISES)}.", param_hint="--tier")
    return [name for name in PROMISES if name in (chosen or SURE)]


def _listed(index: Index, tiers: Sequence[Tier], keep: str | None, protect: Sequence[str], leave: Leave) -> Listing:
    from analysis.duplicates.decided import listing
    from analysis.duplicates.find import find
    from analysis.duplicates.keep import DEFAULT_RULES, check_patterns, parse_rules, protected_files
    from analysis.duplicates.kept import keep_groups
    from indexer.progress import progress_bar
    from search.errors import IndexLocked, StorageFailed

    rules = parse_rules(DEFAULT_RULES if keep is None else keep, protect)
    with progress_bar() as progress:
        groups = find(index, tiers, skipped=leave, rules=rules, progress=progress)
    try:
        keep_groups(index, tiers, groups)
    except (IndexLocked, StorageFailed, OSError) as error:  # of a disk that is full, or another user's
        warn(f"The groups are not kept for servers: {getattr(error, 'strerror', None) or error}")
    check_patterns(rules, groups)
    for said in filter(None, (protected_files(pattern, groups) for pattern in protect)):
        warn(said)
    return listing(groups, rules, protect)


def _action(text: str | None) -> tuple[Any, Path | None]:
    from analysis.duplicates.plan import Action

    if text is None:
        return None, None
    name, _, folder = text.partition("=")
    if name not in get_args(Action) or (name == "move") != bool(folder):
        raise typer.BadParameter("Use move=FOLDER, hardlink, reflink or delete.", param_hint="--apply")
    return name, Path(folder) if folder else None


def _request(
    index: Index, action: Any, folder: Path | None, tiers: Sequence[Tier], keep: str | None, protect: Sequence[str]
) -> Request:
    from analysis.duplicates.keep import DEFAULT_RULES
    from analysis.duplicates.plan import LINKING, Request, target_folder

    if action in LINKING and "bytes" not in tiers:
        raise typer.BadParameter("Only equal files can be linked: --tier bytes.", param_hint="--apply")
    return Request(
        action=action,
        folder=None if folder is None else target_folder(index, folder),
        tiers=tuple(tiers),
        rules=DEFAULT_RULES if keep is None else keep,
        protect=tuple(protect),
    )


def _end(run: Run | None, left: Sequence[tuple[str, str]], *, as_json: bool, back: bool) -> None:
    """Say what a run did, and end with the code for it. left: what was left before it began, which was said."""
    if run is None:
        if not as_json:
            say("There is nothing to let go.")
        if left:
            raise typer.Exit(EXIT_REJECTED)
        return
    from analysis.duplicates.shown import sentence, skipped_files
    from indexer.terminal import EXIT_INTERRUPTED

    skipped = skipped_files(run, back=back)
    if not as_json:
        say(sentence(run, back=back))
        for path, why in skipped[:SHOWN_SKIPPED]:
            warn(f"left: {path}: {why}")
        if len(skipped) > SHOWN_SKIPPED:
            warn(f"... and {plural(len(skipped) - SHOWN_SKIPPED, 'more file')}; --json lists all")
    if not run.over:
        warn("Interrupted: no file is lost. Run the same command again to continue.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if skipped or left:
        raise typer.Exit(EXIT_REJECTED)
