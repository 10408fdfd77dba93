"""Transforms: what a generation makes of a space's stored vectors before they are searched, and of queries alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Sample = Callable[[int], Vectors]
"""Gives so many of a space's stored vectors, chosen at random: (n, stored dim) float32, fewer where there are fewer."""

MAX_COPY_BITS = 16
"""A copy has at least the transform's `copy_cosine` to the hit, and at most so many different bits of the 64 of its
perceptual hash. Those of unlike pictures differ in about 32.

Of 400 re-saved and scaled copies of 40 drawn pictures, in fp32, 96% of the pairs of copies are within both (93% within
10 bits), and no pair of two pictures; the cosine alone joins 209 of these, at layer 11. The default recipe has 92%, and
one pair of two pictures.
"""


def are_near(one: NDArray[np.uint64], other: NDArray[np.uint64] | np.uint64) -> NDArray[np.bool_]:
    """Whether perceptual hashes are those of copies."""
    near: NDArray[np.bool_] = np.bitwise_count(one ^ other) <= MAX_COPY_BITS
    return near


class Transform(Protocol):
    """A map from stored vectors to searched ones. Kept in its generation, hashed, and never changed."""

    @property
    def kind(self) -> str:
        """The name of its kind in `kinds.KINDS`."""
        ...

    @property
    def dim(self) -> int:
        """How many numbers a searched vector has."""
        ...

    @property
    def copy_cosine(self) -> float:
        """The least cosine of a re-saved or scaled copy; see `MAX_COPY_BITS`."""
        ...

    def apply(self, vectors: Vectors) -> Vectors:
        """Searched vectors, (n, dim) float32 of unit length, C-contiguous, for stored ones or queries, (n, stored dim)
        float32.

        Each row is computed by itself: equal ones stay equal wherever they stand. One that has no direction afterwards
        gets any: nothing is raised.
        """
        ...

    def unprojected(self, vectors: Vectors) -> NDArray[np.floating]:
        """As `apply`, without what only makes vectors shorter: (n, d) of unit length, or zero."""
        ...

    def to_bytes(self) -> bytes:
        """The content of its file, which its kind's `read` takes."""
        ...


@dataclass(frozen=True)
class Identity:
    """Vectors are searched as they are stored."""

    dim: int
    kind: str = "identity"
    copy_cosine: float = 0.98

    def apply(self, vectors: Vectors) -> Vectors:
        """The vectors themselves."""
        return vectors

    def unprojected(self, vectors: Vectors) -> NDArray[np.floating]:
        """The vectors themselves."""
        return vectors

    def to_bytes(self) -> bytes:
        """Nothing: it has no file."""
        return b""
