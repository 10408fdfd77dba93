"""What `build` prints: how many files came, and what was left out, is missing or failed, with what to do."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from search.console import plural, say, warn

if TYPE_CHECKING:
    from indexer.report import BuildReport

SHOWN_FAILURES = 20
"""Rejected files named in the report; `--json` lists all of them."""
SHOWN_PATHS = 5
"""Folders or files named of those that one rule leaves out: a NAS has as many as it has folders."""


def print_report(report: BuildReport, answer: dict[str, Any], *, dry_run: bool) -> None:
    """Print what a build did. answer: as `--json` has it."""
    from indexer.omissions import FOLDERS
    from indexer.pictures.decode import TOO_LARGE
    from indexer.pictures.formats import how_to_read
    from indexer.pictures.worker import TOO_SLOW

    counted = ("added", "updated", "moved", "unchanged", "missing", "removed", "ignored")
    counters = ", ".join(f"{answer[name]:,} {name}" for name in counted if answer[name]) or "nothing to do"
    say(f"{'Would be: ' if dry_run else ''}{counters}{f', {len(report.failed):,} failed' if report.failed else ''}")
    if answer["spaces"] and not any(space["count"] for space in answer["spaces"]) and not report.failed:
        warn("No pictures were found: the index is empty. Check the folder's name, and --exclude.")
    if answer["unsupported"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in answer["unsupported"].items())
        warn(f"Not supported, and left out: {kinds}")
        for kind, how in ((kind, how_to_read(kind)) for kind in answer["unsupported"]):
            if how is not None:
                warn(f"To read {kind}: {how}, and build again")
    for left in answer["left_out"]:
        more = ", ..." if left["count"] > SHOWN_PATHS else ""
        warn(f"left out: {left['count']:,} x {left['name']} ({left['why']}): {', '.join(left['paths'])}{more}")
    if any(rule in FOLDERS for rule in report.left_out):
        warn("Folders that were left out are taken with --all-folders")
    if report.linked_folders:
        names = ", ".join(report.linked_folders[:SHOWN_FAILURES])
        more = ", ..." if len(report.linked_folders) > SHOWN_FAILURES else ""
        warn(
            f"{plural(len(report.linked_folders), 'link')} to folders not entered (--follow-links does): {names}{more}"
        )
    if report.copies:
        verb = "equals" if report.copies == 1 else "equal"
        say(f"{plural(report.copies, 'added file')} {verb} another one, byte for byte: equal files are one image")
    if report.embedded:
        say(f"{plural(report.embedded, 'image')} embedded at {report.images_per_second:.1f} a second")
        for space in answer["spaces"]:
            check = space["encoding"]["check"]
            if "overlap" in check:
                say(f"int8 finds {check['overlap']:.1%} of fp32's ten nearest ({check['images']} images compared)")
    if not dry_run:
        for space in answer["spaces"]:
            say(f"{answer['index']}: {space['count']:,} images in {space['name']} ({space['dim']} numbers each)")
    if report.cropped:
        verb = "is" if report.cropped == 1 else "are"
        warn(
            f"{plural(report.cropped, 'image')} {verb} so wide or tall that the model sees less than half of each: "
            "only the middle. A new index built with --pad sees whole images."
        )
    for found in answer["incomplete"][:SHOWN_FAILURES]:
        lost = f" ({found['missing']:.0%} is missing)" if found["missing"] else ""
        warn(f"incomplete: {found['path']}: the file ends before the picture does{lost}; taken as it is")
    if len(answer["incomplete"]) > SHOWN_FAILURES:
        warn(f"... and {len(answer['incomplete']) - SHOWN_FAILURES:,} more incomplete; --json lists all")
    for failed in answer["failed"][:SHOWN_FAILURES]:
        warn(f"failed: {failed['path']}: {failed['reason']}")
    if len(answer["failed"]) > SHOWN_FAILURES:
        warn(f"... and {len(answer['failed']) - SHOWN_FAILURES:,} more; --json lists all")
    if any(failed["reason"].startswith(TOO_SLOW) for failed in answer["failed"]):
        warn("Pictures that take too long get more time with --max-seconds S --retry-failed")
    if any(TOO_LARGE in failed["reason"] for failed in answer["failed"]):
        warn("Pictures that are too large are taken, if there is memory for them, with --max-pixels N --retry-failed")
    if report.filled:
        say(f"{plural(report.filled, 'image')} known before got vectors in spaces that were not complete")
    if gone := report.missing - report.excluded:
        warn(f"{plural(gone, 'file')} missing from the disk: in the index, but not among hits; --prune drops them")
    for run, count in report.let_go.items():
        undo = f"lookalike dups {shlex.quote(answer['index'])} --undo {run}"
        warn(f"{count:,} of these {'was' if count == 1 else 'were'} moved by dups, run {run}. To take it back: {undo}")
    if report.excluded:
        warn(f"{plural(report.excluded, 'file')} left out now: in the index, but not among hits; --prune drops them")
    if report.interrupted:
        warn("Interrupted: everything so far is kept. Run the same command again to continue.")
