"""Calibrate: how probable it is that a hit is alike, by labels, told from the hit's false-match rate.

Isotonic regression: the probabilities that fit best and never fall as rates do, by pooling neighbours that are in the
wrong order (Ayer et al., "An Empirical Distribution Function for Sampling with Incomplete Information", 1955). It is
fitted to rates, not to scores: they keep their meaning when a new generation moves all scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.errors import LabelsInvalid
from analysis.evaluate import Gallery
from analysis.labels import Relevance
from search.calibration import Calibration, Curve
from search.errors import UnknownImage
from search.index import Index
from search.types import Query, QueryPart, Space

MAX_QUERIES = 2_000
"""Labelled images that ask, drawn at random if there are more."""
HITS = 100
"""Hits of each of them that are looked at."""
MIN_QUERIES, MIN_EACH = 50, 30
"""Images that ask, hits that are alike, and hits that are not, below which nothing is fitted."""
BINS, IN_BIN = 20, 50
"""Groups of hits of like rates, at most, and hits in each, at least: so many among the tenth with the lowest rates,
where most of what is alike is, and as many among the others. Between two groups the curve is a line."""
AT_ONCE = 256
"""Queries that are asked at once."""
STEPS = 10
"""Groups of like probabilities, of which each is compared with the share that is alike."""


class Judged(NamedTuple):
    """Hits of labelled queries, (n,) each: false-match rates, whether they are alike, and the half, 0 or 1, that the
    query is in, and the hit: -1 of an image that did not ask."""

    rates: NDArray[np.float64]
    alike: NDArray[np.float64]
    half: NDArray[np.int64]
    of_hit: NDArray[np.int64]


def calibrate(index: Index, relevance: Relevance, labels: str, space: Space, seed: int = 0) -> Calibration:
    """How probable hits of a space are, by labels. labels: where they came from, in words; seed: draws the queries.

    Each labelled image asks for its nearest. Images without a label are passed over, but where pairs say what is
    relevant: then all others are not, unless marks say what is not. Raises LabelsInvalid where there are too few
    labels, or no false-match rates, UnknownSpace.
    """
    rowids, _ = index.searched(space)
    ids = index.catalog.ids(index.catalog.present(rowids.tolist()))
    gallery = Gallery(relevance, [*ids.values()])
    asking = np.random.default_rng(seed).permutation(gallery.queries)[:MAX_QUERIES].tolist()
    names = [gallery.names[place] for place in asking]
    if len(names) < MIN_QUERIES:
        raise LabelsInvalid(
            f"{len(names)} images have a label that another one has, and probabilities need {MIN_QUERIES}. Give more "
            "images a label, or name other labels: --labels."
        )
    judged = _judged(index, relevance, names, {*gallery.names}, space)
    if not len(judged.rates):
        raise LabelsInvalid(
            f"{space.name} has no false-match rates, which probabilities are fitted to: it needs 100 images that "
            "differ, and a generation that was published with them (lookalike rebuild)."
        )
    right = int(judged.alike.sum())
    if min(right, len(judged.alike) - right) < MIN_EACH:
        raise LabelsInvalid(
            f"Of {len(judged.alike)} hits {right} are alike by these labels. Probabilities need {MIN_EACH} that are, "
            f"and {MIN_EACH} that are not. Name other labels: --labels."
        )
    return Calibration(
        **asdict(_curve(judged.rates, judged.alike)),
        labels=labels,
        images=len(gallery.names),
        queries=len(names),
        error=_error(judged),
    )


def _judged(index: Index, relevance: Relevance, names: Sequence[str], known: set[str], space: Space) -> Judged:
    """What the nearest of some images are. known: images that can be judged."""
    half = {name: number % 2 for number, name in enumerate(names)}
    rows: list[tuple[float, float, int, int]] = []
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        queries = [Query(parts=[QueryPart(id=name)], k=HITS, space=space) for name in some]
        for name, hits in zip(some, index.search_many(queries), strict=True):
            if isinstance(hits, UnknownImage):  # removed meanwhile
                continue
            if isinstance(hits, Exception):
                raise hits
            rows += [
                (hit.fmr, float(relevance.alike(name, hit.id)), half[name], half.get(hit.id, -1))
                for hit in hits
                if hit.id in known and hit.fmr is not None and relevance.judges(name, hit.id)
            ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Judged(table[:, 0], table[:, 1], table[:, 2].astype(np.int64), table[:, 3].astype(np.int64))


def _curve(rates: NDArray[np.float64], alike: NDArray[np.float64]) -> Curve:
    """The curve of hits, (n,): their rates, and 1 of those that are alike, else 0."""
    parts = [*_bins(rates)]
    shares = [(alike[part].sum() + 1) / (len(part) + 2) for part in parts]  # a run of luck proves no certainty
    means = isotonic(shares, [len(part) for part in parts])
    return Curve(
        rates=tuple(float(f"{np.exp(np.log(rates[part]).mean()):.4g}") for part in parts),
        probabilities=tuple(round(mean, 4) for mean in means.tolist()),
    )


def _bins(rates: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """The numbers of hits of like rates, the highest rates first; equal rates are in one group."""
    falling = np.sort(rates)[::-1]
    tenth = len(falling) - len(falling) // 10
    cuts: list[float] = []
    for some, least in ((falling[:tenth], 1), (falling[tenth:], 0)):
        count = max(least, min(BINS, len(some) // IN_BIN))
        cuts += [float(part[0]) for part in np.array_split(some, count)] if count else []
    edges = np.unique(cuts)  # the highest rate of each group
    group = np.searchsorted(edges, np.minimum(rates, edges[-1]))
    for number in range(len(edges) - 1, -1, -1):
        if len(part := np.flatnonzero(group == number)):
            yield part


def isotonic(values: Sequence[float], weights: Sequence[float]) -> NDArray[np.float64]:
    """The values, (n,), that never fall and are nearest to these n, by squares with these n weights."""
    pooled: list[tuple[float, float, int]] = []  # mean, weight, how many values
    for value, weight in zip(values, weights, strict=True):
        pooled.append((value, weight, 1))
        while len(pooled) > 1 and pooled[-2][0] >= pooled[-1][0]:
            (low, light, few), (high, heavy, many) = pooled[-2:]
            pooled[-2:] = [((low * light + high * heavy) / (light + heavy), light + heavy, few + many)]
    return np.repeat([mean for mean, _, _ in pooled], [count for _, _, count in pooled])


def _error(judged: Judged) -> float:
    """By how much a curve that is fitted to the queries of one half is wrong of those of the other: the difference
    between what groups of like probability are said to be and what they are, in the mean over hits; 1 where one half
    has no hits. Hits that asked in the other half are left out: there the same pair was a hit too."""
    fitted, asked = ((judged.half == one) & (judged.of_hit != 1 - one) for one in (0, 1))
    if not (fitted.any() and asked.any()):
        return 1.0
    curve = _curve(judged.rates[fitted], judged.alike[fitted])
    said, alike = np.array([curve.of(rate) for rate in judged.rates[asked].tolist()]), judged.alike[asked]
    step = np.minimum((said * STEPS).astype(np.int64), STEPS - 1)
    wrong = [abs(float((said - alike)[step == one].sum())) for one in np.unique(step)]
    return round(sum(wrong) / len(said), 4)
