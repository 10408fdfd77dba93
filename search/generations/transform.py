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
        """The least cosine of a re-saved or scaled copy, as `search.query.fold` takes it."""
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
