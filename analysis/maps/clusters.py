"""Clusters of points on a map, their names, the images that are typical of them, and those that are like none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from analysis.maps.projection import Neighbours, Vectors

Clusters = NDArray[np.int64]
NONE = -1
"""In place of a cluster's number: a point in none."""

MIN_MEMBERS = 3
CORE_NEIGHBOURS = 3
"""Neighbours that make a point's surroundings dense; a small number keeps small clusters apart."""
LARGEST = 5
"""A cluster has at most one part in so many of all points, where that leaves most points in clusters."""
NEAREST = 10
"""Neighbours that vote for a point's cluster, and that say how isolated it is."""
VOTES = 5
"""Votes that put a point in no dense region into a cluster."""
FENCE = 1.5
"""Quartile ranges above the third quartile of outlyingness at which outliers begin (Tukey 1977)."""
MIN_FENCE = 0.05
"""As far above it at least: where all images are alike, rounding makes none an outlier."""
NAMING_SHARE = 1 / 3
"""Share of a cluster's images that have the term it is named by, and of all images that labels name clusters of."""


def find_clusters(positions: Vectors, near: Neighbours) -> Clusters:
    """The cluster of each point, (n,) int64; NONE for points in none.

    HDBSCAN (Campello, Moulavi and Sander 2013) finds dense regions of the plane; points between them join the cluster
    that their nearest images in the space vote for. positions: (n, 2) float32; near: (n, m) of `neighbours`.
    """
    count = len(positions)
    smallest = max(MIN_MEMBERS, round(count**0.5 / 3))
    if count < 2 * smallest:
        return np.full(count, NONE, dtype=np.int64)
    found = _dense(positions, smallest, count // LARGEST)
    if 2 * np.count_nonzero(found == NONE) > count:
        found = _dense(positions, smallest, None)
    return np.where(found == NONE, vote(found, near), found)


def by_size(clusters: Clusters, places: NDArray[np.int64]) -> Clusters:
    """The same clusters, (n,), numbered by how many images they hold, the largest first. places: of each image, (i,),
    its position among these."""
    held = clusters[places]
    sizes = np.bincount(held[held != NONE], minlength=int(clusters.max()) + 1)
    ranks = np.empty(len(sizes), dtype=np.int64)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(clusters == NONE, NONE, ranks[clusters]) if len(ranks) else clusters


def _dense(positions: Vectors, smallest: int, largest: int | None) -> Clusters:
    model = HDBSCAN(min_cluster_size=smallest, max_cluster_size=largest, min_samples=CORE_NEIGHBOURS, copy=True)
    found: Clusters = model.fit_predict(positions).astype(np.int64)
    return found


def vote(clusters: Clusters, near: Neighbours) -> Clusters:
    """The cluster that most of a point's nearest are in, (q,) int64; NONE where too few are in one.

    clusters: (n,); near: (q, m) positions among these.
    """
    found = np.full(len(near), NONE, dtype=np.int64)
    for row, votes in enumerate(clusters[near[:, :NEAREST]]):
        counts = np.bincount(votes[votes != NONE], minlength=1)
        if counts.max() >= min(VOTES, near.shape[1]):
            found[row] = counts.argmax()
    return found


def isolation(cosines: Vectors) -> Vectors:
    """How far each image is from its nearest: 1 - the mean of their cosines, (n,) float32. cosines: (n, m)."""
    if not cosines.shape[1]:
        return np.zeros(len(cosines), dtype=np.float32)
    found: Vectors = 1 - cosines[:, :NEAREST].mean(axis=1)
    return found


def outlyingness(isolations: Vectors, near: Neighbours, of_near: Vectors) -> Vectors:
    """How much farther an image is from its nearest than they are from theirs, (q,) float32: a local outlier factor
    (Breunig et al. 2000; without its reachability, as Schubert et al. 2014 have it). 1: as far.

    isolations: (q,); near: (q, m) positions among those whose isolations are `of_near`, (n,).
    """
    if not near.shape[1]:
        return np.ones(len(near), dtype=np.float32)
    found: Vectors = isolations / np.maximum(of_near[near[:, :NEAREST]].mean(axis=1), np.float32(1e-6))
    return found


def outliers(isolations: Vectors, factors: Vectors) -> Clusters:
    """Positions of the outliers, the most isolated first: their factor is above the fence, their isolation above the
    median, else they may be no more than beside a group of copies. isolations, factors: (n,)."""
    first, third = np.quantile(factors, [0.25, 0.75])
    fence = third + max(FENCE * (third - first), MIN_FENCE)
    beyond = np.flatnonzero((factors > fence) & (isolations > np.median(isolations)))
    found: Clusters = beyond[np.argsort(-isolations[beyond], kind="stable")]
    return found


def typical(vectors: Vectors, members: Clusters, count: int) -> Clusters:
    """The images of a cluster with the highest mean cosine to all of it: its medoid first, (m,) with m <= count.

    vectors: (n, dim) float32 of unit length; members: (c,) positions in it.
    """
    held = vectors[members]
    means = held @ held.mean(axis=0)
    found: Clusters = members[np.argsort(-means, kind="stable")[:count]]
    return found


def names(members: Sequence[Sequence[str]], terms: Mapping[str, Set[str]], otherwise: Sequence[str]) -> list[str]:
    """A name for each cluster: the term that tells its images best from others, by F1.

    members: ids of the images of each cluster. terms: labels, or words of folders, by image id. otherwise: names for
    clusters of which no term is that of a third of the images. A name that two clusters have is numbered.
    """
    everywhere = Counter(term for held in terms.values() for term in held)
    found: list[str] = []
    seen: Counter[str] = Counter()
    for ids, fallback in zip(members, otherwise, strict=True):
        here = Counter(term for image in ids for term in terms.get(image, ()))
        scored = [(2 * shared / (len(ids) + everywhere[term]), term) for term, shared in here.items()]
        best = max(scored, key=lambda held: (held[0], held[1]), default=(0.0, ""))[1]
        name = best if best and here[best] >= NAMING_SHARE * len(ids) else fallback
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found
