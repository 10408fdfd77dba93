"""A report of an evaluation: one HTML file with plots, confusions, and the worst failures as pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, Template

from analysis.errors import ReportFailed
from analysis.evaluate import KNN, Answer, Evaluation, SpaceScores
from analysis.labels import Relevance
from analysis.metrics import LEVEL, Estimate
from analysis.pictures import Pictures
from analysis.proxy import Proxy
from search.files import write_whole
from search.index import Index

PLOTTED = {
    "r_at_1": "R@1: the nearest image is of the class",
    "r_at_5": "R@5: one of the five nearest is",
    "r_at_10": "R@10: one of the ten nearest is",
    "p_at_5": "P@5: share of the five nearest that are",
    "p_at_10": "P@10: share of the ten nearest that are",
    "map": "mAP: the whole ranking",
    "ndcg_at_10": "nDCG@10: the ten nearest, earlier ones count more",
    KNN: "kNN: the ten nearest vote for the class",
}
"""Metrics by their names in `--json`, and what is said of them."""
FINDS_ITSELF = "Perturbed pictures that find their original first"
FAILURES = 12
"""Queries shown of each space: those with the lowest average precision."""
CONFUSED = 15
"""Classes in the table of confusions: those that are confused most."""


@dataclass(frozen=True)
class Bar:
    """A metric of one space, and its interval, in percent of the plot's width."""

    space: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusions:
    """How often images of a class (rows) were voted into another (columns); the last column counts all the rest."""

    classes: Sequence[str]
    rows: Sequence[tuple[str, int, Sequence[int]]]


def write_report(
    index: Index, found: Evaluation, proxy: Sequence[Proxy], relevance: Relevance | None, labels: str, out: Path
) -> None:
    """Write the report as an HTML file that needs no other. Raises ReportFailed where it cannot be written.

    relevance: what `found` was measured by; None where there are no labels, but a proxy.
    """
    plots = {
        said: [bar(one.space, one.metrics[name]) for one in found.spaces if name in one.metrics]
        for name, said in PLOTTED.items()
    }
    plots[FINDS_ITSELF] = [bar(one.space, one.value) for one in proxy]
    for kind in proxy[0].kinds if proxy else ():
        plots[f"Perturbed by {kind}"] = [bar(one.space, Estimate.certain(one.kinds[kind])) for one in proxy]
    alike = Relevance(classes={}) if relevance is None else relevance
    text = template("report.html").render(
        index=index.path.name,
        labels=labels,
        found=found,
        level=LEVEL,
        plots={said: bars for said, bars in plots.items() if bars},
        worst={one.space: worst_classes(one) for one in found.spaces},
        confusions={one.space: confusions(one, alike) for one in found.spaces},
        failures={one.space: sorted(one.answers, key=_badness)[:FAILURES] for one in found.spaces},
        picture=Pictures(index).of,
        class_of=lambda image: ", ".join(sorted(alike.classes.get(image, ()))),
        alike=alike.alike,
    )
    write(text, out)


def template(name: str) -> Template:
    """A template of this package."""
    environment = Environment(loader=PackageLoader("analysis", "."), autoescape=True, trim_blocks=True)
    return environment.get_template(name)


def check_folder(out: Path) -> None:
    """Look before long work whether a report can be written. Raises ReportFailed."""
    parent = next(one for one in out.absolute().parents if one.exists())  # `write` makes those below it
    if out.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ReportFailed(f"The report {out} cannot be written. Name another file, such as report.html.")


def write(text: str, out: Path) -> None:
    """Write a report, and the folder that it lies in. Raises ReportFailed."""
    try:
        write_whole(out, text.encode("utf-8", "replace"), durable=False)
    except OSError as error:
        raise ReportFailed(
            f"The report {out} cannot be written: {error.strerror or error}. Name another file, such as report.html."
        ) from error


def bar(space: str, of: Estimate) -> Bar:
    """An estimate between 0 and 1, as a bar."""
    return Bar(space, 100 * of.value, 100 * of.low, 100 * of.high)


def _badness(answer: Answer) -> tuple[float, int, str]:
    return answer.precision, -answer.first, answer.image


def worst_classes(scores: SpaceScores) -> list[tuple[str, float]]:
    """Every class and its recall@1, the worst first."""
    return sorted(scores.classes.items(), key=lambda held: (held[1], held[0]))


def confusions(scores: SpaceScores, relevance: Relevance) -> Confusions | None:
    """Which classes the nearest images vote for instead of an image's own; None where there are none."""
    wrong: Counter[tuple[str, str]] = Counter()
    for answer in scores.answers:
        own = relevance.classes.get(answer.image, frozenset())
        if answer.voted is not None and answer.voted not in own:
            wrong.update((held, answer.voted) for held in own)
    if not wrong:
        return None
    sums: Counter[str] = Counter()
    for (own_class, voted), count in wrong.items():
        sums[own_class] += count
        sums[voted] += count
    classes = sorted(name for name, _ in sorted(sums.items(), key=lambda held: (-held[1], held[0]))[:CONFUSED])
    rows = []
    for own_class in classes:
        cells = [wrong[own_class, voted] for voted in classes]
        rest = sum(count for (one, voted), count in wrong.items() if one == own_class and voted not in classes)
        rows.append((own_class, sum(cells) + rest, [*cells, rest]))
    return Confusions(classes=classes, rows=rows)
