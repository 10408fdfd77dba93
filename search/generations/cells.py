"""Cells: the nearest others of all vectors at once, each looked for in the cells that are nearest to it."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from search.generations.ann import Positions, Vectors, exact, knn

_FAISS: Any = faiss
"""Without its types, as in `ann`."""

CELL_VECTORS = 120
"""Vectors of a cell, on average."""
PROBES = 12
"""Cells that each vector looks into, its own first."""
TRAINED_WITH, ROUNDS = 40, 2
"""Vectors for each centroid, and rounds, of k-means."""
BATCH = 16_384
"""Vectors whose nearest are looked for at once: PROBES * k candidates of each are in memory."""


def nearest_by_cells(vectors: Vectors, k: int) -> tuple[Positions, Vectors]:
    """The k nearest vectors of each, itself among them, best first: positions (n, k) int64 and inner products, float32;
    -1 and -inf where its cells hold fewer. The same vectors have the same answer each time.

    vectors: (n, dim) float32 of unit length. An inverted file (Sivic and Zisserman 2003) of which all who look into one
    cell are multiplied with it as a matrix. Equal vectors are in one cell: where most are equal, as much is compared as
    by comparing all, in blocks.
    """
    centroids, looks = _assigned(vectors)
    order = np.argsort(looks[:, 0], kind="stable")
    begins = np.searchsorted(looks[order, 0], np.arange(centroids + 1))
    cells = _Cells(vectors[order], begins, looks[order])
    positions = np.empty((len(vectors), k), dtype=np.int64)
    products = np.empty((len(vectors), k), dtype=np.float32)
    # A product with a cell is too small for several threads: each takes cells of its own.
    with ThreadPoolExecutor(faiss.omp_get_max_threads(), "cells", faiss.omp_set_num_threads, (1,)) as pool:
        for start in range(0, len(vectors), BATCH):
            places, scored = cells.nearest(start, k, pool)
            asked = order[start : start + BATCH]
            positions[asked], products[asked] = np.where(places < 0, -1, order[places]), scored
    return positions, products


def _assigned(vectors: Vectors) -> tuple[int, Positions]:
    """How many cells there are, and those that each vector looks into, (n, PROBES or all) int64, its own first; none is
    empty."""
    trained = _FAISS.Kmeans(
        vectors.shape[1],
        max(1, len(vectors) // CELL_VECTORS),
        niter=ROUNDS,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINED_WITH,
    )
    trained.train(vectors)
    centroids: Vectors = trained.centroids
    looks = exact(centroids, vectors, PROBES)
    used = np.unique(looks[:, 0])
    if len(used) < len(centroids):  # of many equal vectors, k-means makes many equal centroids
        looks = exact(centroids[used], vectors, PROBES)
    return len(centroids), looks


@dataclass(frozen=True)
class _Cells:
    """Vectors (n, dim) in the order of their cells, where each cell begins, and the cells (n, p) that each looks
    into."""

    vectors: Vectors
    begins: Positions
    looks: Positions

    def nearest(self, start: int, k: int, pool: Executor) -> tuple[Positions, Vectors]:
        """Of BATCH vectors from `start` on the k nearest, best first: places in `vectors`, and inner products."""
        cell = self.looks[start : start + BATCH]
        count, probes = cell.shape
        slots = np.argsort(cell, axis=None, kind="stable")
        ends = np.searchsorted(cell.ravel()[slots], np.arange(len(self.begins)))
        places = np.full((count * probes, k), -1, dtype=np.int64)
        scored = np.full((count * probes, k), -np.inf, dtype=np.float32)

        def look(number: int) -> None:
            low, high = self.begins[number : number + 2].tolist()
            looking = slots[ends[number] : ends[number + 1]]
            if len(looking):
                held = min(k, high - low)
                best, found = knn(self.vectors[low:high], self.vectors[start + looking // probes], held)
                places[looking, :held], scored[looking, :held] = low + found, best

        for _ in pool.map(look, range(len(self.begins) - 1)):
            pass
        places, scored = places.reshape(count, -1), scored.reshape(count, -1)
        top = np.argpartition(scored, -k, axis=1)[:, -k:]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scored, top, axis=1), axis=1, kind="stable"), axis=1)
        return np.take_along_axis(places, top, axis=1), np.take_along_axis(scored, top, axis=1)
