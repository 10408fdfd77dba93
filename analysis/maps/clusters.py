"""Clusters of points on a map, their names, the images that are typical of them, and those that are like none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import count

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
"""As far above it at least: where all images are alike, small differences make none an outlier."""
NEAR_COPY = 1e-4
"""1 - cosine of two images that are as good as equal: no cluster parts them, and less isolation is none."""
NAMING_SHARE = 1 / 3
"""Share of a cluster's images that have the term it is named by, and of all images that labels name clusters of."""


def find_clusters(positions: Vectors, near: Neighbours, cosines: Vectors) -> Clusters:
    """The cluster of each point, (n,) int64; NONE for points in none.

    HDBSCAN (Campello, Moulavi and Sander 2013) finds dense regions of the plane; points between them join the cluster
    that their nearest images in the space vote for. Near copies of one another are all in the cluster that most of them
    are in. positions: (n, 2) float32; near, cosines: (n, m) of `neighbours`.
    """
    count = len(positions)
    smallest = max(MIN_MEMBERS, round(count**0.5 / 3))
    if count < 2 * smallest:
        return np.full(count, NONE, dtype=np.int64)
    found = _dense(positions, smallest, count // LARGEST)
    if 2 * np.count_nonzero(found == NONE) > count:
        found = _dense(positions, smallest, None)
    return _with_copies(np.where(found == NONE, vote(found, near), found), near, cosines)


def _with_copies(clusters: Clusters, near: Neighbours, cosines: Vectors) -> Clusters:
    """The same clusters, (n,), but those of near copies: how copies lie on the plane is chance."""
    rows, columns = np.nonzero(cosines > 1 - NEAR_COPY)
    others = near[rows, columns]
    groups, before = np.arange(len(clusters)), np.full(len(clusters), NONE)
    while (groups != before).any():  # each image takes the lowest number that a copy of it has
        before = groups.copy()
        np.minimum.at(groups, rows, before[others])
        np.minimum.at(groups, others, before[rows])
        groups = groups[groups]
    order = np.argsort(groups, kind="stable")
    found = clusters.copy()
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(members) > 1:
            numbers, votes = np.unique(clusters[members], return_counts=True)
            found[members] = numbers[votes.argmax()]
    return found


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

    isolations: (q,); near: (q, m) positions among those whose isolations are `of_near`, (n,). Less than NEAR_COPY
    counts as that: between copies it is rounding.
    """
    if not near.shape[1]:
        return np.ones(len(near), dtype=np.float32)
    own, others = (np.maximum(held, np.float32(NEAR_COPY)) for held in (isolations, of_near))
    found: Vectors = own / others[near[:, :NEAREST]].mean(axis=1)
    return found


def outliers(isolations: Vectors, factors: Vectors) -> Clusters:
    """Positions of the outliers, the most isolated first: their factor is above the fence, their isolation above the
    median and NEAR_COPY, else they may be no more than beside a group of copies. isolations, factors: (n,)."""
    first, third = np.quantile(factors, [0.25, 0.75])
    fence = third + max(FENCE * (third - first), MIN_FENCE)
    beyond = np.flatnonzero((factors > fence) & (isolations > max(float(np.median(isolations)), NEAR_COPY)))
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
    for ids, fallback in zip(members, otherwise, strict=True):
        here = Counter(term for image in ids for term in terms.get(image, ()))
        scored = [(2 * shared / (len(ids) + everywhere[term]), term) for term, shared in here.items()]
        best = max(scored, key=lambda held: (held[0], held[1]), default=(0.0, ""))[1]
        found.append(best if best and here[best] >= NAMING_SHARE * len(ids) else fallback)
    taken: set[str] = set()
    for place, name in enumerate(found):
        if name in taken:
            free = (f"{name} {number}" for number in count(2))
            found[place] = next(one for one in free if one not in taken and one not in found)
        taken.add(found[place])
    return found
