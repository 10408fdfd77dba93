"""Regions: of the vectors that parts of images have, each image's best, and where in the image it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.errors import SpaceOfRegions
from search.generations.ann import Vectors
from search.types import Hit, Space

if TYPE_CHECKING:
    from search.query.aspects import Target
    from search.query.snapshot import Snapshot

Rowids = NDArray[np.int64]


def of_wholes(space: Space) -> Space:
    """The same space. Raises SpaceOfRegions where images have several vectors in it."""
    if space.recipe.regions is not None:
        raise SpaceOfRegions.refused(space.name, "This")
    return space


def best_of_images(
    found: Rowids, cosines: NDArray[np.float32], each: int, k: int
) -> tuple[Rowids, NDArray[np.float32]]:
    """The k best images of each query, each once with its best cosine: rowids and cosines, (q, m); -1 and -inf where
    there are fewer.

    found, cosines: of `vector_ids`, (q, n), the best first, -1 where there are fewer. each: vectors of an image.
    """
    k = min(k, found.shape[1])
    images, best = np.full((len(found), k), -1, np.int64), np.full((len(found), k), -np.inf, np.float32)
    for row, ids in enumerate(found):
        rowids = np.where(ids < 0, -1, ids // each)
        _, first = np.unique(rowids, return_index=True)
        first = np.sort(first[rowids[first] >= 0])[:k]
        images[row, : len(first)], best[row, : len(first)] = rowids[first], cosines[row, first]
    return images, best


def boxed(snapshot: Snapshot, targets: Sequence[Target], hits: Sequence[Hit], rowids: Sequence[int]) -> list[Hit]:
    """Hits with the boxes of their best parts, in the first space of regions that is looked in, if there is one."""
    for target in targets:
        regions = snapshot.spaces[target.space].space.recipe.regions
        if regions is None or target.vetoes or not hits:
            continue
        vectors: Vectors = np.concatenate(
            [one.vectors for one in targets if one.space == target.space and not one.vetoes]
        )
        cosines = snapshot.region_cosines(target.space, vectors, np.array(rowids, dtype=np.int64))
        return [
            replace(hit, box=regions.box(int(best.argmax()), hit.width, hit.height)) if np.isfinite(best).all() else hit
            for hit, best in zip(hits, cosines, strict=True)
        ]
    return [*hits]
