"""Calibrate: how probable it is that a hit is alike, by labels, told from the hit's false-match rate.

Isotonic regression: the probabilities that fit best and never fall as rates do, by pooling neighbours that are in the
wrong order (Ayer et al., "An Empirical Distribution Function for Sampling with Incomplete Information", 1955). It is
fitted to rates, not to scores: they keep their meaning when a new generation moves all scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.errors import LabelsInvalid
from analysis.evaluate import Gallery
from analysis.labels import Relevance
from search.calibration import Calibration
from search.index import Index
from search.types import Query, QueryPart, Space

MAX_QUERIES = 2_000
"""Labelled images that ask, drawn at random if there are more."""
HITS = 100
"""Hits of each of them that are looked at."""
MIN_QUERIES, MIN_RIGHT = 50, 30
"""Images that ask, and hits that are alike, below which nothing is fitted."""
BINS = 40
"""Groups of hits of like rates, between which the curve is a line. Half of them are of the tenth with the lowest rates,
where most of what is alike is."""
AT_ONCE = 256
"""Queries that are asked at once."""


def calibrate(index: Index, relevance: Relevance, labels: str, space: Space, seed: int = 0) -> Calibration:
    """How probable hits of a space are, by labels. labels: where they came from, in words.

    Each labelled image asks for its nearest; what has no label is passed over. Raises LabelsInvalid where there are too
    few labels, or no false-match rates.
    """
    rowids, _ = index.searched(space)
    ids = index.catalog.ids(index.catalog.present(rowids.tolist()))
    gallery = Gallery(relevance, [*ids.values()])
    asked = np.random.default_rng(seed).permutation(gallery.queries)[:MAX_QUERIES].tolist()
    judged = set(gallery.names)
    rates: list[float] = []
    right: list[bool] = []
    owners: list[int] = []
    for start in range(0, len(asked), AT_ONCE):
        names = [gallery.names[place] for place in asked[start : start + AT_ONCE]]
        queries = [Query(parts=[QueryPart(id=name)], k=HITS, space=space) for name in names]
        for number, (name, hits) in enumerate(zip(names, index.search_many(queries), strict=True), start=start):
            if isinstance(hits, Exception):
                raise hits
            known = [(hit.fmr, relevance.alike(name, hit.id)) for hit in hits if hit.id in judged and hit.fmr]
            rates += [rate for rate, _ in known]
            right += [alike for _, alike in known]
            owners += [number] * len(known)
    if len(asked) < MIN_QUERIES or sum(right) < MIN_RIGHT or all(right):
        raise LabelsInvalid(
            f"{len(asked)} images have a label that another one has, and {sum(right)} of their hits are alike and "
            f"{len(right) - sum(right)} are not. Probabilities need {MIN_QUERIES} such images, {MIN_RIGHT} hits that "
            "are alike, and some that are not, in a space that has false-match rates (lookalike rebuild). Give more "
            "images a label, or name other labels: --labels."
        )
    found, truth = np.array(rates), np.array(right, dtype=np.float64)
    return Calibration(
        labels=labels,
        images=len(gallery.names),
        queries=len(asked),
        error=round(_error(found, truth, np.array(owners) % 2 == 0), 4),
        **_curve(found, truth),
    )


def _curve(rates: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, tuple[float, ...]]:
    """The rates and probabilities of a curve, as `Calibration` has them. truth: 1 of hits that are alike, else 0."""
    order = np.argsort(-rates, kind="stable")
    parts = [part for part in _bins(order) if len(part)]
    means = isotonic([truth[part].mean() for part in parts], [len(part) for part in parts])
    middles = [float(np.exp(np.log(rates[part]).mean())) for part in parts]
    kept = [number for number, rate in enumerate(middles) if number == 0 or rate < middles[number - 1]]
    return {
        "rates": tuple(float(f"{middles[number]:.4g}") for number in kept),
        "probabilities": tuple(round(float(means[number]), 4) for number in kept),
    }


def _bins(order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    tenth = len(order) - len(order) // 10
    return [*np.array_split(order[:tenth], BINS // 2), *np.array_split(order[tenth:], BINS // 2)]


def isotonic(values: Sequence[float], weights: Sequence[float]) -> NDArray[np.float64]:
    """The values that never fall and are nearest to these, (n,), by weighted squares."""
    pooled: list[tuple[float, float, int]] = []  # mean, weight, how many values
    for value, weight in zip(values, weights, strict=True):
        pooled.append((value, weight, 1))
        while len(pooled) > 1 and pooled[-2][0] >= pooled[-1][0]:
            (low, light, few), (high, heavy, many) = pooled[-2:]
            pooled[-2:] = [((low * light + high * heavy) / (light + heavy), light + heavy, few + many)]
    return np.repeat([mean for mean, _, _ in pooled], [count for _, _, count in pooled])


def _error(rates: NDArray[np.float64], truth: NDArray[np.float64], fitted: NDArray[np.bool_]) -> float:
    """By how much the probabilities of a curve that is fitted to some hits are wrong of the others: the mean difference
    between what bins of like probability are said to be and what they are."""
    curve = Calibration(labels="", images=0, queries=0, error=0, **_curve(rates[fitted], truth[fitted]))
    said = np.array([curve.of(rate) for rate in rates[~fitted].tolist()])
    bins = np.minimum((said * 10).astype(np.int64), 9)
    wrong = [abs(said[bins == one].mean() - truth[~fitted][bins == one].mean()) * (bins == one).sum()
             for one in np.unique(bins)]  # fmt: skip
    return float(np.sum(wrong) / len(said))
