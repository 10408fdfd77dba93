"""`dups --against`: what two indexes share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.console import plural, print_json, warn

if TYPE_CHECKING:
    from analysis.duplicates.groups import Tier


def compare(directory: Path, against: Path, tiers: Sequence[Tier], report: Path | None, as_json: bool) -> None:
    """List what an index shares with another one."""
    from analysis.duplicates.against import compare_indexes
    from analysis.duplicates.shown import comparison_to_json, print_comparison
    from indexer.progress import progress_bar
    from search.index import Index

    def leave(path: str, why: str) -> None:
        warn(f"left: {path}: {why}")

    with Index.open(directory) as index, Index.open(against) as other, progress_bar() as progress:
        found = compare_indexes(index, other, tiers, skipped=leave, progress=progress)
    if as_json:
        print_json(comparison_to_json(found, against))
    else:
        print_comparison(found, directory, against)
    if report is not None:
        from analysis.duplicates.report import write_comparison

        write_comparison(found, directory, against, report)
        warn(f"Report: {report}")
    if found.unseen:
        warn(
            f"{plural(found.unseen, 'image')} not compared: their files are gone, or have changed since the last build"
        )
