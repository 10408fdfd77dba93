"""The same photo in two indexes: candidates of one index searched in the other, and each pair proved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.candidates import NEIGHBOURS, comparable_hashes, near_across
from analysis.duplicates.photo import compare, in_order, may_be_one
from analysis.duplicates.reading import Reduced
from analysis.errors import RuleInvalid
from indexer.report import Progress
from search.catalog.catalog import NEWEST
from search.index import Index
from search.types import ImageRecord, Space

OTHER = 1 << 48
"""Added to rowids of the other index: no index has so many images."""
Images = Mapping[int, ImageRecord]


def photos_across(
    index: Index, other: Index, images: Images, pictures: Reduced, progress: Progress
) -> Iterator[dict[int, float]]:
    """Groups of images that are one photo, with images of both indexes, and how surely each is. Raises RuleInvalid.

    Every proved pair of an image and one of the other index is in a group: a group around a medoid could leave one out,
    and with it a test image that was trained with. images: by their rowids, those of the other index with OTHER added,
    and so are those of `pictures`.
    """
    proved = []
    pairs = _pairs(index, other, images, pictures, progress)
    progress.start(len(pairs), what="Comparing")
    for one, like in in_order(pairs):
        progress.done(1)
        if may_be_one(images[one].facts.taken_at, images[like].facts.taken_at):
            first, second = pictures.of(one), pictures.of(like)
            sure = 0.0 if first is None or second is None else compare(first, second)
            if sure > 0:
                proved.append((one, like, sure))
    return iter(connected(proved))


def connected(pairs: Sequence[tuple[int, int, float]]) -> list[dict[int, float]]:
    """The groups that pairs (one, other, certainty) make, directly or by way of others: the certainty of each member is
    that of its surest pair."""
    partners: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for one, other, sure in pairs:
        partners[one][other] = partners[other][one] = sure
    seen, groups = set[int](), []
    for start in partners:
        group, queue = dict[int, float](), [start]
        while queue:
            one = queue.pop()
            if one not in seen:
                seen.add(one)
                group[one] = max(partners[one].values())
                queue += partners[one]
        if group:
            groups.append(group)
    return groups


def _pairs(index: Index, other: Index, images: Images, pictures: Reduced, progress: Progress) -> NDArray[np.int64]:
    """Candidates, (p, 2): an image of the index, and one of the other."""
    known = np.array([*images], dtype=np.int64)
    vectors = [*near_vectors(index, other)]  # before any picture is read: without a space of both it ends here
    hashes = comparable_hashes(images, pictures.bare_hash, progress)
    sides = ([held for held in hashes if (held[0] >= OTHER) is second] for second in (False, True))
    near = np.concatenate([*vectors, near_across(*sides)])
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
    """A space of each index, both complete and of one recipe, not of words or regions: the first index's default if
    possible."""
    default = index.space().name
    looked = [space for space in index.spaces if space.recipe.shows_whole]
    for space in sorted(looked, key=lambda space: space.name != default):
        for like in other.spaces:
            if space.complete and like.complete and space.recipe == like.recipe:
                return space, like
    raise RuleInvalid(
        f"No complete space of {index.path} has the recipe of one of {other.path}, so that their photos cannot be "
        "compared. Build both with the same model and layers (lookalike spaces INDEX add ...), or one index of both "
        "folders."
    )
