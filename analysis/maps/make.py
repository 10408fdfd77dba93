"""Making a map of an index's space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analysis.errors import LabelsInvalid, MapImpossible
from analysis.labels import classes, records
from analysis.maps.clusters import (
    NAMING_SHARE,
    NEAREST,
    NONE,
    Clusters,
    by_size,
    find_clusters,
    isolation,
    names,
    outliers,
    outlyingness,
    typical,
    vote,
)
from analysis.maps.map import Cluster, Map, Point
from analysis.maps.projection import Vectors, neighbours, project, reach
from search.index import Index
from search.types import ImageRecord, Space

SAMPLE = 20_000
"""Different vectors that are projected, at most; each other one is placed among its nearest of these."""
PLACED_BY = 5
KEPT = 3
"""A vector lies among so many of its PLACED_BY nearest projected ones: far ones on the plane do not draw it between."""
TYPICAL = 5
"""Typical images named of a cluster."""
MAX_OUTLIERS = 100


def make_map(
    index: Index,
    space: Space,
    *,
    labels: str | None = None,
    seed: int = 0,
    images: Mapping[str, ImageRecord] | None = None,
) -> Map:
    """Project the searched vectors of a space, find and name clusters, and find outliers. The same seed, the same map.

    Images with equal vectors are one point. Removed images, and those whose files are all gone, are left out.
    labels: `folder`, `label` or `metadata.KEY`; None: labels where a third of the images have one, else folders.
    images: of `images_of`; None: read now. Raises MapImpossible (no image has a vector), LabelsInvalid, UnknownSpace.
    """
    if labels not in (None, "label", "folder") and not re.match(r"metadata\..", str(labels)):
        raise LabelsInvalid(f"Clusters cannot be named by {labels!r}. Use: folder, label or metadata.KEY.")
    images = images_of(index) if images is None else images
    rowids, vectors = index.searched(space)
    ids = index.catalog.ids(index.catalog.present(rowids.tolist()))
    there = np.array([ids.get(rowid) in images for rowid in rowids.tolist()], dtype=np.bool_)
    rowids, vectors = rowids[there], np.ascontiguousarray(vectors[there])
    if not len(rowids):
        raise MapImpossible(f"No image has a vector in {space.name}. Add images: lookalike build PHOTOS --index INDEX")
    source, terms = _terms(images, labels)
    _, first, inverse = np.unique(
        vectors.view(np.dtype((np.void, vectors.strides[0]))).ravel(), return_index=True, return_inverse=True
    )
    order = np.argsort(first)  # different vectors in the order in which they were added
    places = np.argsort(order)[inverse]
    distinct = vectors[first[order]]
    positions, clustered, isolations, factors = _laid_out(distinct, seed)
    numbers = by_size(clustered, places)
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    positions = (positions - middle) / max(np.abs(positions - middle).max(), np.finfo(np.float32).tiny)

    known = [ids[rowid] for rowid in rowids.tolist()]
    firsts = [known[place] for place in first[order].tolist()]  # of each different vector, the first image
    points = tuple(
        Point(
            id=known[number],
            rowid=int(rowids[number]),
            x=round(float(positions[place, 0]), 4),
            y=round(float(positions[place, 1]), 4),
            cluster=None if numbers[place] == NONE else int(numbers[place]),
            isolation=round(float(isolations[place]), 4),
        )
        for number, place in enumerate(places.tolist())
    )
    clusters = _named(images, points, positions, numbers, distinct, firsts, terms)
    return Map(
        space=space.name,
        added_seq=space.added_seq,
        generation=index.info().generation,
        seed=seed,
        labels=source,
        points=points,
        clusters=clusters,
        outliers=tuple(firsts[place] for place in outliers(isolations, factors)[:MAX_OUTLIERS].tolist()),
    )


def _laid_out(distinct: Vectors, seed: int) -> tuple[Vectors, Clusters, Vectors, Vectors]:
    """Positions (n, 2), clusters, isolation and outlyingness (n,) of different vectors, (n, dim)."""
    count = len(distinct)
    if count <= SAMPLE:
        near, cosines = neighbours(distinct, max(reach(count), NEAREST))
        positions = project(distinct, near[:, : reach(count)], cosines[:, : reach(count)], seed=seed)
        isolations = isolation(cosines)
        return (
            positions,
            find_clusters(positions, near, cosines),
            isolations,
            outlyingness(isolations, near, isolations),
        )
    chosen = np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False))
    rest = np.setdiff1d(np.arange(count), chosen)
    sample = _laid_out(distinct[chosen], seed)
    near, cosines = neighbours(distinct[chosen], NEAREST, distinct[rest])
    placed = _among(sample[0][near[:, :PLACED_BY]])
    isolations = isolation(cosines)
    others = (placed, vote(sample[1], near), isolations, outlyingness(isolations, near, sample[2]))
    order = np.argsort(np.concatenate([chosen, rest]))
    positions, numbers, isolations, factors = (
        np.concatenate([one, other])[order] for one, other in zip(sample, others, strict=True)
    )
    return positions, numbers, isolations, factors


def _among(nearest: Vectors) -> Vectors:
    """The mean of those KEPT of each vector's nearest that are closest to their median, (q, 2). nearest: (q, m, 2)."""
    apart = np.square(nearest - np.median(nearest, axis=1, keepdims=True)).sum(axis=2)
    kept = np.argsort(apart, axis=1, kind="stable")[:, :KEPT]
    found: Vectors = np.take_along_axis(nearest, kept[:, :, None], axis=1).mean(axis=1)
    return found


def _terms(images: Mapping[str, ImageRecord], labels: str | None) -> tuple[str, Mapping[str, frozenset[str]]]:
    """What clusters are named by, and the names that each image has by id. Raises LabelsInvalid."""
    source = labels or "label"
    terms = classes(images.values(), source)
    if labels is None and len(terms) < NAMING_SHARE * len(images):
        source = "folder"
        terms = classes(images.values(), source)
    if labels is not None and not terms:
        raise LabelsInvalid(
            f"No image has a value of {labels}. Name clusters by another: folder, label or metadata.KEY."
        )
    if source == "folder":  # `animals/birds` is named by both
        terms = {image: frozenset(word for one in held for word in Path(one).parts) for image, held in terms.items()}
    return source, terms


def _named(
    images: Mapping[str, ImageRecord],
    points: tuple[Point, ...],
    positions: Vectors,
    numbers: Clusters,
    distinct: Vectors,
    firsts: list[str],
    terms: Mapping[str, frozenset[str]],
) -> tuple[Cluster, ...]:
    members: list[list[str]] = [[] for _ in range(int(numbers.max()) + 1)]
    for point in points:
        if point.cluster is not None:
            members[point.cluster].append(point.id)
    held = [np.flatnonzero(numbers == number) for number in range(len(members))]
    best = [[firsts[place] for place in typical(distinct, places, TYPICAL).tolist()] for places in held]
    called = names(members, terms, [_file_name(images[one[0]]) for one in best])
    return tuple(
        Cluster(
            name=called[number],
            size=len(members[number]),
            x=round(float(np.median(positions[places, 0])), 4),
            y=round(float(np.median(positions[places, 1])), 4),
            typical=tuple(best[number]),
        )
        for number, places in enumerate(held)
    )


def _file_name(image: ImageRecord) -> str:
    return Path(image.paths[0]).stem if image.paths else image.id[:12]


def images_of(index: Index) -> dict[str, ImageRecord]:
    """Every image of an index by its id."""
    return {record.id: record for record in records(index)}
