"""A report of a sweep: one HTML file with every recipe, what it finds and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.metrics import LEVEL
from analysis.report import bar, template, write
from analysis.tuning.sweep import Sweep, Tried, pareto
from search.index import Index

WIDTH, HEIGHT, MARGIN = 640, 360, 44
"""Of the plot, in its own units, and of what its axes take."""


@dataclass(frozen=True)
class Point:
    """A recipe in the plot. x, y: where; best: no other is better in one respect and as good in all."""

    one: Tried
    x: float
    y: float
    best: bool


def write_report(index: Index, found: Sweep, out: Path) -> None:
    """Write the report as an HTML file that needs no other. Raises ReportFailed where it cannot be written."""
    ranked = sorted(found.tried, key=lambda one: -one.proxy.value)
    text = template("tuning/report.html").render(
        index=index.path.name,
        found=found,
        level=LEVEL,
        ranked=ranked,
        best=pareto(found.tried),
        bars=[bar(one.space.name, one.proxy) for one in ranked],
        # Drawn last: those that must not be hidden.
        points=sorted(points(found.tried), key=lambda it: (it.one in (found.default, found.chosen), it.best)),
        rates=(min(one.images_per_second for one in ranked), max(one.images_per_second for one in ranked)),
        values=(ranked[-1].proxy.value, ranked[0].proxy.value),
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
    )
    write(text, out)


def points(tried: Sequence[Tried]) -> list[Point]:
    """Each recipe's place in a plot of what it finds (upwards) over images a second (to the right)."""
    best = pareto(tried)
    across = _scale([one.images_per_second for one in tried], MARGIN, WIDTH - MARGIN)
    up = _scale([one.proxy.value for one in tried], HEIGHT - MARGIN, MARGIN)
    return [Point(one, x, y, one in best) for one, x, y in zip(tried, across, up, strict=True)]


def _scale(values: Sequence[float], start: float, end: float) -> list[float]:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return [start + (end - start) * (value - low) / span for value in values]
