"""Measuring what walks through a graph find: of all vectors, and of those that a filter lets through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import NEIGHBOURS, SCORED, Graph, Vectors, exact, scores, walked

EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Candidates that a search may keep (efSearch), the fastest first. What it finds at the last is all that it finds."""
THINNED, FILTERED = (2, 4, 8, 16), 100
"""Filters that let one vector in so many through, of which recall is measured too, and with how many of the queries."""


def measured(
    graph: Graph, vectors: Vectors, queries: Vectors, wanted: float, pause: Callable[[], None]
) -> tuple[int, float, int]:
    """The fewest candidates with which a graph over these vectors finds enough of the queries' neighbours; its recall.

    And how few vectors a filter may let through, one in so many, so that it still does.
    """
    least = kth_scores(vectors, queries, NEIGHBOURS)
    ef, found = 0, 0.0
    for ef in EFS:
        pause()
        found = recall(graph, vectors, queries, ef, least, NEIGHBOURS)
        if found >= wanted:
            break
    one_in = 1
    for sparser in THINNED if found >= wanted else ():
        alive = np.arange(len(vectors)) % sparser == 0
        if _filtered_recall(graph, vectors, queries[:FILTERED], ef, alive, pause) < wanted:
            break
        one_in = sparser
    return ef, found, one_in


def _filtered_recall(
    graph: Graph,
    vectors: Vectors,
    queries: Vectors,
    ef: int,
    alive: NDArray[np.bool_],
    pause: Callable[[], None],
) -> float:
    """The share of each query's nearest among the vectors that are `alive` which walks find."""
    found, chosen = 0, np.flatnonzero(alive)
    for query in queries:
        pause()
        true = scores(vectors, query[None], exact(vectors, query[None], NEIGHBOURS, chosen)).min()
        met, missing = walked(graph, alive, query[None], NEIGHBOURS, ef)
        best = np.sort(scores(vectors, query[None], met)[0])[-NEIGHBOURS:]
        found += NEIGHBOURS if len(missing) else int((best >= true).sum())
    return found / (len(queries) * NEIGHBOURS)


def recall(graph: Graph, vectors: Vectors, queries: Vectors, ef: int, least: Vectors, k: int) -> float:
    """The share of the k nearest of `queries` among `vectors` that a graph over these finds with `ef` candidates.

    As a search does: of the candidates, SCORED times k are scored exactly. least: (q, 1) the scores of the k-th
    nearest. What scores no less is found: of equal vectors, any will do.
    """
    found = np.sort(scores(vectors, queries, graph.search(queries, ef, SCORED * k)), axis=1)[:, -k:]
    return float((found >= least).sum() / (len(queries) * k))


def kth_scores(vectors: Vectors, queries: Vectors, k: int) -> Vectors:
    """The score of each query's k-th nearest vector, (q, 1)."""
    least: Vectors = scores(vectors, queries, exact(vectors, queries, k)).min(axis=1, keepdims=True)
    return least
