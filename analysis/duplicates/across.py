"""The same photo in two indexes: candidates of one index searched in the other, and proved as within one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.candidates import BESIDE, MAX_BITS, NEIGHBOURS, turned_hashes
from analysis.duplicates.decided import Apart, split
from analysis.duplicates.find import CELLS
from analysis.duplicates.photo import photo_groups
from analysis.duplicates.small import Small
from analysis.errors import RuleInvalid
from search.catalog.catalog import NEWEST
from search.index import Index
from search.types import ImageRecord, Space

OTHER = 1 << 48
"""Added to rowids of the other index: no index has so many images."""
Images = Mapping[int, ImageRecord]


def photos_across(
    index: Index, other: Index, images: Images, picture: Callable[[int], Small | None]
) -> Iterator[dict[int, float]]:
    """Groups of images that are one photo, with images of both indexes, and how surely each is. Raises RuleInvalid.

    images: by their rowids, those of the other index with OTHER added. picture: reads one; None: it cannot.
    """
    pairs = _pairs(index, other, images)
    apart = Apart((held.one, held.other) for one in (index, other) for held in one.catalog.decisions())

    def grouped(some: Images) -> list[tuple[int, dict[int, float]]]:
        return photo_groups(some, pairs[np.isin(pairs, [*some]).all(axis=1)], picture)

    for medoid, members in split(images, grouped, apart):
        group = {medoid: 1.0, **members}
        if min(group) < OTHER <= max(group):
            yield group


def _pairs(index: Index, other: Index, images: Images) -> NDArray[np.int64]:
    """Candidates, (p, 2): an image of the index, and one of the other."""
    known = np.array([*images], dtype=np.int64)
    near = np.concatenate([*near_vectors(index, other), *_near_hashes(images)])
    unique: NDArray[np.int64] = np.unique(near[np.isin(near, known).all(axis=1)], axis=0)
    return unique


def near_vectors(index: Index, other: Index) -> Iterator[NDArray[np.int64]]:
    """The nearest images of each image of the other index, whose stored vectors go through this index's transform."""
    space, like = _spaces(index, other)
    for rowids, vectors in other.catalog.all_vectors(like, upto=NEWEST):
        found, _ = index.nearest(vectors, NEIGHBOURS, space=space.name)
        pairs = np.stack([found, np.broadcast_to(rowids[:, None] + OTHER, found.shape)], axis=-1)
        yield pairs[found >= 0]


def _spaces(index: Index, other: Index) -> tuple[Space, Space]:
    """A space of each index, both complete and of one recipe: the first index's default if possible."""
    default = index.space().name
    for space in sorted(index.spaces, key=lambda space: space.name != default):
        for like in other.spaces:
            if space.complete and like.complete and space.recipe == like.recipe:
                return space, like
    raise RuleInvalid(
        f"No complete space of {index.path} has the recipe of one of {other.path}, so that their photos cannot be "
        "compared. Build both with the same model and layers (lookalike spaces INDEX add ...), or one index of both "
        "folders."
    )


def _near_hashes(images: Images) -> Iterator[NDArray[np.int64]]:
    """For each image of the other index those whose perceptual hashes are nearest, in any orientation."""
    sides = [[rowid for rowid in sorted(images) if (rowid >= OTHER) is there] for there in (False, True)]
    here, there = (_hashes([images[rowid] for rowid in side]) for side in sides)
    if not len(here) or not len(there):
        return
    ones, others = (np.array(side, dtype=np.int64) for side in sides)
    turned, nearest = turned_hashes(here), min(BESIDE, len(here))
    rows = max(1, CELLS // len(here))
    for start in range(0, len(there), rows):
        asked = there[start : start + rows, None]
        bits = np.bitwise_count(asked ^ turned[0][None])
        for hashes in turned[1:]:
            np.minimum(bits, np.bitwise_count(asked ^ hashes[None]), out=bits)
        places = np.argpartition(bits, nearest - 1, axis=1)[:, :nearest]
        near = np.take_along_axis(bits, places, axis=1) <= MAX_BITS
        pairs = np.stack([ones[places], np.broadcast_to(others[start : start + rows, None], places.shape)], axis=-1)
        yield pairs[near]


def _hashes(images: Sequence[ImageRecord]) -> NDArray[np.uint64]:
    return np.array([record.facts.phash or 0 for record in images], dtype=np.int64).view(np.uint64)
