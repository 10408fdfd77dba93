"""Projecting vectors to two dimensions: neighbours on the plane are neighbours in the space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.errors import MapUnavailable
from search.generations.ann import exact, scores

try:
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.initialization import pca
    from openTSNE.nearest_neighbors import PrecomputedNeighbors
except ImportError as error:
    raise MapUnavailable("Maps need packages that are not installed: pip install 'lookalike[map]'") from error

Vectors = NDArray[np.float32]
Neighbours = NDArray[np.int64]

PERPLEXITY = 30
"""About how many neighbours of a vector stay near; three times as many are looked at."""
MIN_TSNE = 10
"""Fewer vectors are projected on their two principal components."""
MAX_BARNES_HUT = 10_000
"""More vectors repel one another by interpolation on a grid (FIt-SNE), whose time grows with their number only."""
THREADS = 1
"""More wait for one another at each of 750 steps: on two busy cores they took twice as long."""
BATCH = 4_096
"""Vectors whose neighbours are looked for at once."""


def neighbours(vectors: Vectors, k: int, queries: Vectors | None = None) -> tuple[Neighbours, Vectors]:
    """The nearest vectors of each query by cosine, best first: positions and cosines, both (q, m) with m <= k.

    vectors: (n, dim) float32 of unit length, all different. queries: (q, dim) likewise; None: each vector asks for the
    others.
    """
    asked = vectors if queries is None else queries
    itself = int(queries is None)
    k = min(k, len(vectors) - itself)
    positions, cosines = np.empty((len(asked), k), dtype=np.int64), np.empty((len(asked), k), dtype=np.float32)
    for start in range(0, len(asked), BATCH):
        rows = slice(start, start + BATCH)
        found = exact(vectors, asked[rows], k + itself)
        if itself:
            others = found != np.arange(start, start + len(found))[:, None]
            others[:, -1] &= ~others.all(axis=1)  # rounding: it is not among its own nearest
            found = found[others].reshape(len(found), k)
        positions[rows], cosines[rows] = found, scores(vectors, asked[rows], found)
    return positions, cosines


def reach(count: int) -> int:
    """How many neighbours of each of so many vectors `project` needs."""
    return min(3 * PERPLEXITY, count - 1)


def project(vectors: Vectors, near: Neighbours, cosines: Vectors, *, seed: int) -> Vectors:
    """Positions in the plane, (n, 2) float32, by t-SNE (van der Maaten and Hinton 2008) as openTSNE has it, begun at
    the principal components (Kobak and Berens 2019). The same seed gives the same positions.

    vectors: (n, dim) float32 of unit length, all different. near, cosines: (n, `reach(n)`), of `neighbours`.
    """
    if len(vectors) < MIN_TSNE:
        return _principal(vectors)
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 0)).astype(np.float64)
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(near, distances),
        perplexity=min(PERPLEXITY, near.shape[1] / 3),
        n_jobs=THREADS,
    )
    embedding = TSNE(
        n_jobs=THREADS,
        random_state=seed,
        negative_gradient_method="bh" if len(vectors) < MAX_BARNES_HUT else "fft",
    ).fit(affinities=affinities, initialization=pca(vectors, random_state=seed))
    return np.asarray(embedding, dtype=np.float32)


def _principal(vectors: Vectors) -> Vectors:
    """The first two principal components, (n, 2) float32; zeros where there are fewer."""
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(vectors), 2), dtype=np.float32)
    found[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    return found
