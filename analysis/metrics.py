"""Retrieval metrics of one ranking a query, and how sure they are.

Definitions: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, chapter 8; recall@k as in
metric learning (Musgrave et al., "A Metric Learning Reality Check", ECCV 2020): whether any of the first k is relevant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("r_at_1", "r_at_5", "r_at_10", "p_at_5", "p_at_10", "map", "ndcg_at_10")
"""By the names that `--json` has: recall@k, precision@k, mean average precision, nDCG@10."""
RESAMPLES = 1_000
"""Samples of the bootstrap: its interval is known to a hundredth of its width."""
LEVEL = 0.95

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over queries, and the interval in which it lies with a probability of LEVEL, by the bootstrap."""

    value: float
    low: float
    high: float

    @classmethod
    def certain(cls, value: float) -> Estimate:
        """A figure of which no interval is known."""
        return cls(value=value, low=value, high=value)


def of_rankings(relevant: NDArray[np.bool_]) -> dict[str, Doubles]:
    """Each metric of each query: by name of METRICS, (q,) float64, 0..1.

    relevant: (q, n), whether the i-th best image is relevant to a query, every image ranked, one relevant at least.
    """
    queries, count = relevant.shape
    totals = relevant.sum(axis=1)
    if not queries or not totals.all():
        raise ValueError("every query needs a relevant image")
    found: dict[str, NDArray[np.float64]] = {}
    for k in (1, 5, 10):
        found[f"r_at_{k}"] = np.asarray(relevant[:, :k].any(axis=1), dtype=np.float64)
    for k in (5, 10):
        found[f"p_at_{k}"] = np.asarray(relevant[:, :k].sum(axis=1, dtype=np.float64) / k)
    ranks = np.arange(1, count + 1)
    precisions = relevant * np.cumsum(relevant, axis=1) / ranks
    found["map"] = np.asarray(precisions.sum(axis=1) / totals)
    gains = 1 / np.log2(ranks[:10] + 1)
    best = np.cumsum(gains)[np.minimum(totals, len(gains)) - 1]
    found["ndcg_at_10"] = np.asarray((relevant[:, :10] * gains[:count]).sum(axis=1) / best)
    return found


def estimates(values: Mapping[str, Doubles], seed: int = 0) -> dict[str, Estimate]:
    """The mean of each metric over all queries, with its interval. Queries are drawn alike for all of them."""
    count = len(next(iter(values.values())))
    generator = np.random.default_rng(seed)
    means: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, count, count)
        for name, each in values.items():
            means[name].append(float(each[drawn].mean()))
    tail = (1 - LEVEL) / 2
    return {
        name: Estimate(
            value=float(each.mean()),
            low=float(np.quantile(means[name], tail)),
            high=float(np.quantile(means[name], 1 - tail)),
        )
        for name, each in values.items()
    }
