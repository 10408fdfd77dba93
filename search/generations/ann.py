"""Nearest vectors: exactly, and by a graph (HNSW) over eight-bit codes whose candidates are scored exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_FAISS: Any = faiss
"""Without its types: they describe the C++ constructors, not the Python ones that FAISS puts in their place."""

Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]

NEIGHBOURS = 10
"""Recall is promised for the ten nearest."""
SCORED_PER_HIT = 3
"""Candidates scored exactly, for each hit wanted: their codes' order is so good that two would do as well."""
SEARCH_METHOD = {"query_bits": 8, "scored": SCORED_PER_HIT, "measured_by": "images without near copies"}
"""How a graph is searched and judged: a recall that was measured in another way says nothing of this one."""
_CODES, _BARE_CODES = faiss.ScalarQuantizer.QT_8bit, faiss.ScalarQuantizer.QT_8bit_direct_signed
"""Eight bits that stand for numbers in a range, as vectors are added; and the same bytes less 128, as queries meet
them."""
MIN_QUERIES_AS_MATRIX = 4
"""Queries from which on they are multiplied with all vectors as a matrix. By itself, FAISS 1.15 does that from 128,000
numbers on, 334 queries of 384: until then each reads all vectors again, 32 of them in 12 ms a core instead of 2."""
FEW_VECTORS = 256
"""Vectors that a few queries are multiplied with at once: of 384 numbers, they stay in a core's cache. So two queries
take 1.1 times as long as one, instead of twice."""
PAIRS_PER_THREAD = 1_024
"""Pairs of vectors that are worth another thread: a fifth of a millisecond."""
ADDED_VECTORS = 16_384
"""Vectors added to a graph at once."""


def exact(vectors: Vectors, queries: Vectors, k: int, chosen: Positions | None = None) -> Positions:
    """Positions of the k vectors of the largest inner products with each query, best first.

    vectors: (n, dim) float32; queries: (q, dim) float32. chosen: (m,) int64, the positions that may be found, None for
    all. Returns (q, min(k, m or n)) int64.
    """
    if chosen is None:
        k = min(k, len(vectors))
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.int64)
        # Of several queries products are sums of blocks, a few last bits off.
        if 1 < len(queries) < MIN_QUERIES_AS_MATRIX:
            return _of_few(vectors, queries, k)
        # For the whole process; nothing else uses it.
        faiss.cvar.distance_compute_blas_threshold = MIN_QUERIES_AS_MATRIX * queries.shape[1]
        with _threads_for(len(queries)):
            found: Positions = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
        return found
    k = min(k, len(chosen))
    best = np.empty((len(queries), k), dtype=np.int64)
    for row, query in enumerate(queries):
        products = scores(vectors, query[None, :], chosen[None, :])[0]
        top = np.argpartition(-products, k - 1)[:k] if k else np.empty(0, np.int64)
        best[row] = chosen[top[np.argsort(-products[top], kind="stable")]]
    return best


def _of_few(vectors: Vectors, queries: Vectors, k: int) -> Positions:
    """`exact` for a few queries, all in one pass over the vectors; 1 <= k <= n."""
    products = np.empty((len(vectors), len(queries)), dtype=np.float32)
    for start in range(0, len(vectors), FEW_VECTORS):
        block = slice(start, start + FEW_VECTORS)
        np.dot(vectors[block], queries.T, out=products[block])
    best = np.empty((len(queries), k), dtype=np.int64)
    for row in range(len(queries)):
        falling = -products[:, row]
        top = np.argpartition(falling, k - 1)[:k]
        best[row] = top[np.argsort(falling[top], kind="stable")]
    return best


def scores(vectors: Vectors, queries: Vectors, positions: Positions) -> Vectors:
    """Inner products of each query with the vectors at its positions; -inf where a position is -1.

    vectors: (n, dim) float32; queries: (q, dim) float32; positions: (q, m) int64. Returns (q, m) float32. Each is
    computed by itself, in the same order: equal vectors have equal scores, wherever they stand.
    """
    positions = np.ascontiguousarray(positions, dtype=np.int64)
    products = np.empty(positions.shape, dtype=np.float32)
    assert vectors.flags.c_contiguous  # FAISS is given their address
    assert vectors.dtype == np.float32
    if products.size:
        queries = np.ascontiguousarray(queries)
        with _threads_for(len(queries)):
            _FAISS.fvec_inner_products_by_idx(
                *(_FAISS.swig_ptr(array) for array in (products, queries, vectors, positions)),
                vectors.shape[1],
                *positions.shape,
            )
    return products


def pair_scores(vectors: Vectors, ones: Positions, others: Positions) -> Vectors:
    """Inner products of pairs of vectors, (p,) float32. vectors: (n, dim) float32, which may be mapped: none is copied;
    ones, others: (p,) int64, their positions."""
    ones, others = np.ascontiguousarray(ones), np.ascontiguousarray(others)
    products = np.empty(len(ones), dtype=np.float32)
    assert vectors.flags.c_contiguous  # FAISS is given their address
    assert vectors.dtype == np.float32
    assert ones.dtype == others.dtype == np.int64
    assert ones.shape == others.shape
    stored = _FAISS.swig_ptr(vectors)
    with _threads_for(1 + len(ones) // PAIRS_PER_THREAD):
        _FAISS.pairwise_indexed_inner_product(
            vectors.shape[1],
            len(ones),
            stored,
            _FAISS.swig_ptr(ones),
            stored,
            *map(_FAISS.swig_ptr, (others, products)),
        )
    return products


@contextmanager
def _threads_for(queries: int) -> Iterator[None]:
    """No more threads than queries: to wake others for nothing takes longer than a query, on busy cores much longer."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(threads, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class Graph:
    """A navigable graph over the codes of n vectors, by position. Any number of threads may search it; none while it
    grows.

    A number x of a vector has the code (x - low) / step, eight bits, with a low and a step for each of the dimensions.
    Of a query's inner product with what codes stand for, the part of `low` is the same for all vectors, and `step` can
    be moved into the query. Rounded to eight bits too, it is multiplied with bare codes: integers, without decoding.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._codes = _FAISS.downcast_index(index.storage).sq
        self._steps = faiss.vector_to_array(self._codes.trained)[index.d :].astype(np.float32)

    @classmethod
    def train(cls, vectors: Vectors, *, links: int = 32, ef_construction: int = 100) -> Graph:
        """An empty graph whose codes fit the range of these vectors, (n, dim) float32.

        links, ef_construction: as in `Policy`.
        """
        index = _FAISS.IndexHNSWSQ(vectors.shape[1], _CODES, links, faiss.METRIC_INNER_PRODUCT)
        low, high = np.full(vectors.shape[1], np.inf, np.float32), np.full(vectors.shape[1], -np.inf, np.float32)
        for block in _blocks(vectors):
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        index.train(np.stack([low, high]))
        index.hnsw.efConstruction = ef_construction
        return cls(index)

    def add(self, vectors: Vectors, pause: Callable[[], None] = lambda: None) -> None:
        """Add vectors, (n, dim) float32, at the next positions, on all cores.

        pause: called before each few thousand; what it raises comes through.
        """
        self._codes.qtype = _CODES
        for block in _blocks(vectors):
            pause()
            self._index.add(block)

    def search(self, queries: Vectors, ef: int, count: int | None = None) -> Positions:
        """The nearest positions to each query that a search of the graph met, by their codes' order.

        queries: (q, dim) float32. ef: candidates that the search keeps. Returns (q, min(count, ef)) int64, (q, ef)
        without `count`; -1 where it met fewer.
        """
        if self._codes.qtype != _BARE_CODES:
            self._codes.qtype = _BARE_CODES
        scaled = queries * self._steps
        largest = np.abs(scaled).max(axis=1, keepdims=True, initial=1e-30)  # where all vectors are the same
        rounded = np.rint(scaled * (np.float32(127) / largest))
        parameters = _FAISS.SearchParametersHNSW(efSearch=ef)
        best = ef if count is None else min(count, ef)
        found: Positions = self._index.search(rounded, best, params=parameters)[1]
        return found

    def write(self, write: Callable[[bytes], int]) -> None:
        """Write it, piece by piece, by calling `write`. What that raises comes through as it is."""
        self._codes.qtype = _CODES
        _FAISS.write_index(self._index, _FAISS.PyCallbackIOWriter(write))

    @classmethod
    def read(cls, path: Path, *, writable: bool = False) -> Graph:
        """Read a file that `write` made. Check its hash first: FAISS reads damaged files without complaint.

        writable: into memory, to grow; otherwise mapped, only to be searched. Raises RuntimeError where FAISS cannot
        read it at all.
        """
        return cls(_FAISS.read_index(str(path), 0 if writable else faiss.IO_FLAG_MMAP_IFC))

    @property
    def count(self) -> int:
        """How many vectors it holds."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._index.d)


def graph_candidates(
    graph: Graph, alive: NDArray[np.bool_] | None, queries: Vectors, k: int, ef: int, visited_per_candidate: int
) -> tuple[Positions, NDArray[np.int64]]:
    """Search the graph for each query. Returns candidates, (q, m) int64, -1 where there are fewer, and the numbers of
    the queries that brute force answers as cheaply, (p,) int64.

    alive: (n,) the positions that may be found, None for all. Where only some may, `ef` grows until about as many of
    these are seen as in a search of all: recall was measured with that. To skip the others inside the graph is no help:
    the search would then answer with what it met on its way to the query. visited_per_candidate: as in `Policy`.
    """
    total = graph.count
    count = total if alive is None else int(np.count_nonzero(alive))
    # Recall was measured for the ten nearest: more need more in sight.
    wanted = min(max(ef, k, 2 * k - NEIGHBOURS), count)
    scored = min(wanted, SCORED_PER_HIT * k)
    found = np.full((len(queries), max(scored, k)), -1, dtype=np.int64)
    missing = np.arange(len(queries))
    ef = math.ceil(wanted * total / max(1, count))
    while len(missing) and ef * visited_per_candidate < count:
        if alive is None:
            met = graph.search(queries[missing], ef, scored)
            enough = (met >= 0).all(axis=1)
        else:
            met = graph.search(queries[missing], ef)
            met[~alive[met]] = -1
            met = np.take_along_axis(met, np.argsort(met < 0, axis=1, kind="stable"), axis=1)
            enough = (met >= 0).sum(axis=1) >= max(k, wanted // 2)
        found[missing, :scored] = met[:, :scored]
        missing = missing[~enough]
        ef *= 4
    return found, missing


def _blocks(vectors: Vectors) -> Iterator[Vectors]:
    for start in range(0, len(vectors), ADDED_VECTORS):
        yield vectors[start : start + ADDED_VECTORS]
