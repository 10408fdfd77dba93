"""Score normalisation: takes from a query's scores what it has in common with everything.

A plain drawing on white resembles every other one a little, so its scores are high; a rare picture's are low. The mean
of a query's highest cosines with a sample of the index, its background, tells how high. Less a share of it, scores of
different queries mean the same. See Pizzi et al., "A self-supervised descriptor for image copy detection", CVPR 2022,
section 5.4, and the CSLS of Conneau et al., "Word translation without parallel data", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.generations.transform import Vectors
from search.types import JsonObject

IMAGES = 512
"""Images of a background, at most."""
NEAREST_SHARE = 1 / 50
"""Share of them whose cosines with a query are averaged: the highest."""
WEIGHT = 0.5
"""Share of the average that is subtracted."""


@dataclass(frozen=True)
class Background:
    """A sample of a space's images.

    vectors: (b, dim) float32 of unit length. nearest: how many of the highest cosines are averaged. weight: the share
    of the average that is subtracted. most: cosines from here on do not count, since they are those of copies: a query
    by id must not look more common than the same picture uploaded.
    """

    vectors: Vectors
    nearest: int
    weight: float
    most: float

    @classmethod
    def of(cls, vectors: Vectors, *, copy_cosine: float) -> Background:
        """The background of a space's different vectors, (n, dim): of some, evenly spread."""
        count = min(IMAGES, len(vectors))
        return cls(spread(vectors, count), max(1, int(count * NEAREST_SHARE)), WEIGHT, copy_cosine)

    def shifts(self, queries: Vectors) -> Vectors:
        """What is subtracted from the cosines of each query, (q,) float32. queries: (q, dim) float32 unit vectors."""
        found: Vectors = np.empty(len(queries), dtype=np.float32)
        for row, query in enumerate(queries):
            cosines = np.vecdot(self.vectors, query)
            highest = np.sort(cosines[cosines < self.most])[-self.nearest :]
            found[row] = self.weight * highest.mean() if len(highest) else 0
        return found

    def shifts_of_many(self, queries: Vectors) -> Vectors:
        """`shifts` of many queries at once, in a fifth of the time; the last digit depends on how many there are, so
        that searches do without."""
        cosines = queries @ self.vectors.T
        cosines[cosines >= self.most] = -np.inf
        highest = np.partition(cosines, -self.nearest, axis=1)[:, -self.nearest :]
        held = np.isfinite(highest)
        sums = np.where(held, highest, 0).sum(axis=1)
        found: Vectors = (self.weight * sums / np.maximum(held.sum(axis=1), 1)).astype(np.float32)
        return found

    def to_json(self, of: int) -> JsonObject:
        """As a manifest has it. of: how many different vectors there were."""
        return {
            "of": of,
            "images": len(self.vectors),
            "nearest": self.nearest,
            "weight": self.weight,
            "most": self.most,
        }

    @classmethod
    def from_json(cls, facts: JsonObject, vectors: Vectors) -> Background:
        """The reverse of `to_json`. vectors: (n, dim), those of the space, at least `of`. Raises ValueError, KeyError,
        TypeError where it is not one."""
        of, count, nearest = int(facts["of"]), int(facts["images"]), int(facts["nearest"])
        if not 1 <= nearest <= count <= of <= len(vectors):
            raise ValueError("a background must be of a space's own vectors")
        return cls(spread(vectors[:of], count), nearest, float(facts["weight"]), float(facts["most"]))


def spread(vectors: NDArray[Any], count: int) -> NDArray[Any]:
    """So many of these vectors, or numbers, evenly spread: (count, ...)."""
    return np.ascontiguousarray(vectors[np.arange(count) * len(vectors) // count])
