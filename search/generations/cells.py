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
"""Cells that each vector looks into, its own first. Of 21,534 pictures in the default space, .984 of the eight nearest
are found so, .9996 of those with a cosine of .8 or more; with 8 cells .967."""
TRAINED_WITH, ROUNDS = 40, 2
"""Vectors for each centroid, and rounds, of k-means."""
MAX_TRAINED_WITH = 65_536
"""Vectors for k-means, at most: they are copied, 128 MB of 512 numbers."""
BATCH = 32_768
"""Vectors whose nearest are looked for at once: PROBES * k candidates of each are in memory."""


def nearest_by_cells(vectors: Vectors, k: int) -> tuple[Positions, Vectors]:
    """The k nearest vectors of each, itself among them, best first: positions (n, k) int64 and inner products, float32;
    -1 and -inf where its cells hold fewer. Without equal vectors the answer is the same each time.

    vectors: (n, dim) float32 of unit length, which may be mapped: they are not copied but a cell at a time. An inverted
    file (Sivic and Zisserman 2003) of which all who look into one cell are multiplied with it as a matrix. Equal
    vectors are in few cells: where most are equal, as much is compared as by comparing all.
    """
    centroids, looks = _assigned(vectors)
    order = np.argsort(looks[:, 0], kind="stable")
    begins = np.searchsorted(looks[:, 0], np.arange(centroids + 1), sorter=order)
    cells = _Cells(vectors, looks, order, begins)
    positions = np.empty((len(vectors), k), dtype=np.int64)
    products = np.empty((len(vectors), k), dtype=np.float32)
    # A product with a cell is too small for several threads: each takes cells of its own.
    with ThreadPoolExecutor(faiss.omp_get_max_threads(), "cells", faiss.omp_set_num_threads, (1,)) as pool:
        for start in range(0, len(vectors), BATCH):
            asked = order[start : start + BATCH]
            positions[asked], products[asked] = cells.nearest(asked, k, pool)
    return positions, products


def _assigned(vectors: Vectors) -> tuple[int, Positions]:
    """How many cells there are, and those that each vector looks into, (n, PROBES or all) int64, its own first; none is
    empty."""
    count = max(1, len(vectors) // CELL_VECTORS)
    trained = _FAISS.Kmeans(
        vectors.shape[1],
        count,
        niter=ROUNDS,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, min(TRAINED_WITH, MAX_TRAINED_WITH // count)),
    )
    trained.train(vectors)
    centroids: Vectors = trained.centroids
    looks = exact(centroids, vectors, PROBES)
    used = np.unique(looks[:, 0])
    if len(used) < len(centroids):  # of many equal vectors, k-means makes many equal centroids
        looks = exact(centroids[used], vectors, PROBES)
    return len(used), looks


@dataclass(frozen=True)
class _Cells:
    """Vectors (n, dim), the cells (n, p) that each looks into, their positions in the order of their own cells, and
    where in that order each cell begins."""

    vectors: Vectors
    looks: Positions
    order: Positions
    begins: Positions

    def nearest(self, asked: Positions, k: int, pool: Executor) -> tuple[Positions, Vectors]:
        """The k nearest of each of the vectors at some positions, best first: positions and inner products, (m, k)."""
        cell = self.looks[asked]
        probes = cell.shape[1]
        slots = np.argsort(cell, axis=None, kind="stable")
        ends = np.searchsorted(cell.ravel(), np.arange(len(self.begins)), sorter=slots)
        found = np.full((len(slots), k), -1, dtype=np.int64)
        scored = np.full((len(slots), k), -np.inf, dtype=np.float32)

        def look(number: int) -> None:
            members = self.order[self.begins[number] : self.begins[number + 1]]
            looking = slots[ends[number] : ends[number + 1]]
            if len(looking):
                held, queries = min(k, len(members)), self.vectors[asked[looking // probes]]
                scored[looking, :held], places = knn(self.vectors[members], queries, held)
                found[looking, :held] = members[places]

        for _ in pool.map(look, range(len(self.begins) - 1)):
            pass
        found, scored = found.reshape(len(asked), -1), scored.reshape(len(asked), -1)
        top = np.argpartition(scored, -k, axis=1)[:, -k:]
        best = np.take_along_axis(scored, top, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        return np.take_along_axis(found, top, axis=1), np.take_along_axis(best, order, axis=1)
