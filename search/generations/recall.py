"""Measuring a graph's recall: that of images that it has not seen, among all vectors, and among those of a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import NEIGHBOURS, SCORED_PER_HIT, Graph, Vectors, exact, graph_candidates, scores
from search.generations.policy import Policy

FILTER_SPARSITIES = (2, 4, 8, 16)
"""Recall is measured under filters too, which let one vector in so many through."""
FILTERED_QUERIES = 100
"""Queries that measure recall under each filter."""
MAX_WORST_TENTH = 0.7
"""Recall that the worst tenth of the queries never needs to exceed: where .95 is found on average, it is .75 to .79 as
long as the vectors lie evenly, and half of that where many of them are near copies."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of the ten nearest that a graph finds with `ef` candidates: on average, and in the worst tenth of queries,
    of the set of queries that finds least.

    one_in: a filter that lets one vector in `one_in` through still has a sufficient average.
    """

    ef: int
    mean: float
    worst_tenth: float
    one_in: int
    queries: int


def suffices(facts: Mapping[str, Any], min_recall: float) -> bool:
    """Whether a recall, as a manifest names it, is as good as wanted."""
    return _enough(float(facts["recall"]), float(facts.get("recall_worst_tenth", facts["recall"])), min_recall)


def _enough(mean: float, worst_tenth: float, min_recall: float) -> bool:
    """The worst tenth may miss six times what the mean may; ten times would be all of it."""
    return mean >= min_recall and worst_tenth >= min(MAX_WORST_TENTH, 1 - 6 * (1 - min_recall))


def measure_recall(
    graph: Graph,
    vectors: Vectors,
    sets: Sequence[Vectors],
    wanted: float,
    *,
    policy: Policy,
    pause: Callable[[], None],
) -> Recall:
    """Choose the fewest candidates (`ef`) with which a graph finds enough of the ten nearest, for each set of queries.

    graph: over vectors, (n, dim) float32, all different. sets: (q, dim) float32 each, neither they nor near copies of
    theirs in the graph. pause: called between steps; what it raises comes through.
    """
    leasts = [kth_scores(vectors, queries, NEIGHBOURS) for queries in sets]
    ef, mean, worst = 0, 0.0, 0.0
    for ef in policy.ef_choices:
        pause()
        found = [
            np.sort(recalls(graph, vectors, queries, ef, least, NEIGHBOURS))
            for queries, least in zip(sets, leasts, strict=True)
        ]
        mean = min(float(one.mean()) for one in found)
        worst = min(float(one[: max(1, len(one) // 10)].mean()) for one in found)
        if _enough(mean, worst, wanted):
            break
    one_in = 1
    filtered = np.concatenate([queries[: FILTERED_QUERIES // len(sets)] for queries in sets])
    for sparser in FILTER_SPARSITIES if _enough(mean, worst, wanted) else ():
        alive = np.arange(len(vectors)) % sparser == 0
        found_filtered = _filtered_recall(graph, vectors, filtered, ef, alive, policy, pause)
        if found_filtered < wanted:
            break
        one_in = sparser
    return Recall(ef=ef, mean=mean, worst_tenth=worst, one_in=one_in, queries=min(map(len, sets)))


def _filtered_recall(
    graph: Graph,
    vectors: Vectors,
    queries: Vectors,
    ef: int,
    alive: NDArray[np.bool_],
    policy: Policy,
    pause: Callable[[], None],
) -> float:
    """The share of each query's nearest among the vectors that are `alive` which a search of the graph finds."""
    found, chosen = 0, np.flatnonzero(alive)
    for query in queries:
        pause()
        true = scores(vectors, query[None], exact(vectors, query[None], NEIGHBOURS, chosen)).min()
        met, missing = graph_candidates(graph, alive, query[None], NEIGHBOURS, ef, policy.visited_per_candidate)
        best = np.sort(scores(vectors, query[None], met)[0])[-NEIGHBOURS:]
        found += NEIGHBOURS if len(missing) else int((best >= true).sum())
    return found / (len(queries) * NEIGHBOURS)


def recalls(graph: Graph, vectors: Vectors, queries: Vectors, ef: int, least: Vectors, k: int) -> NDArray[np.float64]:
    """The share of each query's k nearest among `vectors` that a graph over these finds with `ef` candidates, (q,).

    As a search does: of the candidates, SCORED_PER_HIT times k are scored exactly. queries: (q, dim) float32. least:
    (q, 1) the scores of the k-th nearest. What scores no less is found: of equal vectors, any will do.
    """
    found = np.sort(scores(vectors, queries, graph.search(queries, ef, SCORED_PER_HIT * k)), axis=1)[:, -k:]
    shares: NDArray[np.float64] = (found >= least).sum(axis=1) / k
    return shares


def kth_scores(vectors: Vectors, queries: Vectors, k: int) -> Vectors:
    """The score of each query's k-th nearest vector, (q, 1) float32."""
    least: Vectors = scores(vectors, queries, exact(vectors, queries, k)).min(axis=1, keepdims=True)
    return least
