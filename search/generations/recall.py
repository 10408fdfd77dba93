"""Measuring a graph's recall: among all vectors, and among those that a filter lets through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import NEIGHBOURS, SCORED_PER_HIT, Graph, Vectors, exact, graph_candidates, scores
from search.generations.policy import Policy

FILTER_SPARSITIES = (2, 4, 8, 16)
"""Recall is measured under filters too, which let one vector in so many through."""
FILTERED_QUERIES = 100
"""Queries that measure recall under each filter."""


def measure_recall(
    graph: Graph, vectors: Vectors, queries: Vectors, wanted: float, *, policy: Policy, pause: Callable[[], None]
) -> tuple[int, float, int]:
    """Choose the fewest candidates (`ef`) with which a graph finds the share `wanted` of the ten nearest.

    graph: over vectors, (n, dim) float32. queries: (q, dim) float32, none of them in the graph. pause: called between
    steps; what it raises comes through. Returns `ef`, the recall with it, and how few vectors a filter may let through,
    one in so many, so that recall still suffices.
    """
    least = kth_scores(vectors, queries, NEIGHBOURS)
    ef, found = 0, 0.0
    for ef in policy.ef_choices:
        pause()
        found = recall(graph, vectors, queries, ef, least, NEIGHBOURS)
        if found >= wanted:
            break
    one_in = 1
    for sparser in FILTER_SPARSITIES if found >= wanted else ():
        alive = np.arange(len(vectors)) % sparser == 0
        found_filtered = _filtered_recall(graph, vectors, queries[:FILTERED_QUERIES], ef, alive, policy, pause)
        if found_filtered < wanted:
            break
        one_in = sparser
    return ef, found, one_in


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


def recall(graph: Graph, vectors: Vectors, queries: Vectors, ef: int, least: Vectors, k: int) -> float:
    """The share of the k nearest of `queries` among `vectors` that a graph over these finds with `ef` candidates.

    As a search does: of the candidates, SCORED_PER_HIT times k are scored exactly. least: (q, 1) the scores of the k-th
    nearest. What scores no less is found: of equal vectors, any will do.
    """
    found = np.sort(scores(vectors, queries, graph.search(queries, ef, SCORED_PER_HIT * k)), axis=1)[:, -k:]
    return float((found >= least).sum() / (len(queries) * k))


def kth_scores(vectors: Vectors, queries: Vectors, k: int) -> Vectors:
    """The score of each query's k-th nearest vector, (q, 1)."""
    least: Vectors = scores(vectors, queries, exact(vectors, queries, k)).min(axis=1, keepdims=True)
    return least
