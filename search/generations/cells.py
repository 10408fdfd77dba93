"""Cells: the nearest others of all vectors at once, each looked for in the cells that are nearest to it."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from search.generations.ann import Positions, Vectors

CELL_VECTORS = 120
"""Vectors of a cell, on average."""
PROBES = 12
"""Cells that each vector looks into, its own first. Of 21,534 pictures in the default space, .984 of the eight nearest
are found so, .9996 of those with a cosine of .8 or more; with 8 cells .967."""
TRAINED_WITH, ROUNDS = 40, 2
"""Vectors for each centroid, and rounds, of k-means."""
MAX_TRAINED_WITH = 65_536
"""Vectors for k-means, at most: they are copied, 128 MB of 512 numbers."""
MAX_PRODUCTS = 1 << 20
"""Products of one cell that are in memory at once: 4 MB."""
QUERIES = 256
"""Vectors that are multiplied with a cell at once: they and their products stay in a core's cache."""
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
    # A product with a cell is too small for several threads: each takes cells of its own, and BLAS gets one of its own.
    threads = faiss.omp_get_max_threads()  # within the limit it would be 1
    with ThreadPoolExecutor(threads, "cells") as pool, threadpool_limits(1, user_api="blas"):
        for start in range(0, len(vectors), BATCH):
            asked = order[start : start + BATCH]
            positions[asked], products[asked] = cells.nearest(asked, k, pool)
    return positions, products


def _assigned(vectors: Vectors) -> tuple[int, Positions]:
    """How many cells there are, and those that each vector looks into, (n, PROBES or all) int64, its own first; none is
    empty."""
    centroids = _centroids(vectors, max(1, len(vectors) // CELL_VECTORS))
    looks = _looks(vectors, centroids)
    used = np.unique(looks[:, 0])
    if len(used) < len(centroids):  # some may be nearest to no vector
        looks = _looks(vectors, centroids[used])
    return len(used), looks


def _centroids(vectors: Vectors, count: int) -> Vectors:
    """So many centroids, (c, dim) of unit length, by spherical k-means (Dhillon and Modha 2001) of a sample; fewer
    where many vectors are equal. By NumPy's BLAS: FAISS takes twice as long."""
    generator = np.random.default_rng(0)
    most = count * max(1, min(TRAINED_WITH, MAX_TRAINED_WITH // count))
    drawn = generator.permutation(len(vectors))[:most]
    sample = vectors[np.sort(drawn)]
    centroids = vectors[np.sort(drawn[:count])]
    for _ in range(ROUNDS):
        nearest = np.concatenate([(sample[some] @ centroids.T).argmax(axis=1) for some in _parts(sample, centroids)])
        order = np.argsort(nearest, kind="stable")
        cells = np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1)
        middles = np.stack([sample[cell].mean(axis=0) for cell in cells])
        centroids = middles / np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return centroids


def _looks(vectors: Vectors, centroids: Vectors) -> Positions:
    """The cells whose centroids are nearest to each vector, (n, PROBES or all), the nearest first."""
    looks = np.empty((len(vectors), min(PROBES, len(centroids))), dtype=np.int64)
    for some in _parts(vectors, centroids):
        looks[some], _ = _sorted(*_highest(vectors[some], centroids, looks.shape[1]))
    return looks


def _parts(rows: Sized, columns: Sized) -> Iterator[slice]:
    """Rows, some at a time, of which products with the columns are MAX_PRODUCTS at most."""
    most = max(1, MAX_PRODUCTS // len(columns))
    return (slice(start, start + most) for start in range(0, len(rows), most))


def _highest(queries: Vectors, vectors: Vectors, k: int) -> tuple[Positions, Vectors]:
    """The k largest inner products of each query, in any order: positions (q, k), and the products. By NumPy's BLAS:
    that of FAISS takes three times as long."""
    return _largest(queries @ vectors.T, k)


def _largest(products: Vectors, k: int) -> tuple[Positions, Vectors]:
    """Where the k largest of each row are, (q, k), and these. To find the least of them first takes half as long as to
    carry positions along."""
    least = np.partition(products, -k, axis=1)[:, [-k]]
    large = products >= least
    found = np.flatnonzero(large)
    if len(found) > k * len(products):  # equal vectors: others are as large as the least
        tied = np.flatnonzero(large.sum(axis=1) > k)
        large[tied] = False
        large[tied[:, None], np.argpartition(products[tied], -k, axis=1)[:, -k:]] = True
        found = np.flatnonzero(large)
    begins = np.arange(0, products.size, products.shape[1])
    return found.reshape(-1, k) - begins[:, None], products.ravel()[found].reshape(-1, k)


def _sorted(places: Positions, products: Vectors) -> tuple[Positions, Vectors]:
    """Those with the largest products first."""
    order = np.argsort(-products, axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(products, order, axis=1)


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
            held, theirs = min(k, len(members)), self.vectors[members]
            room = np.empty((min(QUERIES, len(looking)), self.vectors.shape[1]), dtype=np.float32)
            for start in range(0, len(looking), QUERIES):
                some = looking[start : start + QUERIES]
                queries = room[: len(some)]
                self.vectors.take(asked[some // probes], axis=0, out=queries, mode="clip")
                places, scored[some, :held] = _highest(queries, theirs, held)
                found[some, :held] = members[places]

        for _ in pool.map(look, range(len(self.begins) - 1)):
            pass
        found, scored = found.reshape(len(asked), -1), scored.reshape(len(asked), -1)
        top, best = _sorted(*_largest(scored, k))
        return np.take_along_axis(found, top, axis=1), best
