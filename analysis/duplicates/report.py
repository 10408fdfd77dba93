"""Duplicates as one HTML file: the pictures of each group side by side, what may go, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.duplicates.against import Comparison
from analysis.duplicates.decided import Listing
from analysis.duplicates.groups import PROMISES, SURE, File, Tier
from analysis.duplicates.shown import extras, spared_files
from analysis.pictures import data_uri
from analysis.report import template, write
from search.console import file_size, plural

PICTURED = 500
"""Groups shown with pictures, the surest and largest: a megabyte for each fifty."""
MEMBERS = 12
"""Files of a group that are shown."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file of a group. said: why it stays, or whose it is; goes: whether it may go; sure: of the group's centre."""

    file: File
    said: str
    goes: bool
    sure: float | None

    @property
    def facts(self) -> str:
        """Its size in pixels, format, and size in bytes."""
        facts = self.file.image.facts
        return f"{facts.width} x {facts.height} {facts.format}, {file_size(self.file.location.size)}"

    @property
    def source(self) -> str:
        """A small picture as a data URI, empty where it cannot be read."""
        return data_uri(str(self.file.path))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A group as it is shown: the file to keep comes first."""

    tier: Tier
    pictures: Sequence[Picture]


def write_groups(found: Listing, index: Path, out: Path) -> None:
    """Write an index's groups as an HTML file that needs no other. Raises ReportFailed where it cannot be written."""
    going = extras(found.decisions)
    groups = [
        Shown(
            tier=decision.group.tier,
            pictures=[
                Picture(
                    file=file,
                    said=f"stays: {why}" if (why := decision.reason(file)) else "",
                    goes=str(file.path) in going,
                    sure=None if decision.group.tier in SURE else decision.group.scores.get(file.image.id),
                )
                for file in sorted(decision.group.files, key=lambda file: file is not decision.keep)
            ],
        )
        for decision in found.decisions
    ]
    said = f"{plural(len(going), 'file')} may go, {file_size(sum(going.values()))}."
    _write(groups, f"Duplicates in {index.name}", said, out, spared=spared_files(found.spared, index))


def write_comparison(found: Comparison, index: Path, against: Path, out: Path) -> None:
    """Write what two indexes share as an HTML file that needs no other. Raises ReportFailed."""
    groups = [
        Shown(
            tier=one.tier,
            pictures=[
                Picture(
                    file=file,
                    said=f"in {whose}",
                    goes=False,
                    sure=None if one.tier in SURE else one.scores.get(file.image.id),
                )
                for whose, files in ((index, one.files), (against, one.others))
                for file in files
            ],
        )
        for one in found.shared
    ]
    share = f" ({found.found / found.images:.1%})" if found.images else ""
    said = f"{found.found:,} of {plural(found.images, 'image')} of {against} are in {index} too{share}."
    _write(groups, f"What {against.name} shares with {index.name}", said, out)


def _write(groups: Sequence[Shown], title: str, said: str, out: Path, *, spared: str = "") -> None:
    text = template("duplicates/report.html").render(
        title=title,
        said=said,
        spared=spared,
        tiers=_counts(groups),
        groups=groups[:PICTURED],
        more=len(groups) - len(groups[:PICTURED]),
        members=MEMBERS,
    )
    write(text, out)


def _counts(groups: Iterable[Shown]) -> list[tuple[Tier, str, int, int, int]]:
    """Each tier, its promise, and how many groups, files, and files that may go it has."""
    counts: dict[Tier, Counter[str]] = {}
    for group in groups:
        held = counts.setdefault(group.tier, Counter())
        held["groups"] += 1
        held["files"] += len(group.pictures)
        held["going"] += sum(one.goes for one in group.pictures)
    return [(tier, PROMISES[tier], held["groups"], held["files"], held["going"]) for tier, held in counts.items()]
