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
        """The name of its kind in `KINDS`."""
        ...

    @property
    def dim(self) -> int:
        """How many numbers a searched vector has."""
        ...

    def apply(self, vectors: Vectors) -> Vectors:
        """Searched vectors, (n, dim) float32 of unit length, C-contiguous, for stored ones or queries, (n, stored dim)
        float32.

        Each row is computed by itself: equal ones stay equal wherever they stand. One that has no direction afterwards
        gets any: nothing is raised.
        """
        ...

    def to_bytes(self) -> bytes:
        """The content of its file, which its kind's `read` takes."""
        ...


@dataclass(frozen=True)
class Identity:
    """Vectors are searched as they are stored."""

    dim: int
    kind: str = "identity"

    def apply(self, vectors: Vectors) -> Vectors:
        """The vectors themselves."""
        return vectors

    def to_bytes(self) -> bytes:
        """Nothing: it has no file."""
        return b""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of transform. fit: makes one for a space of so many stored numbers; read: one from its file's bytes, for
    the same, and raises ValueError where they are not what `to_bytes` gave."""

    fit: Callable[[int, Sample], Transform]
    read: Callable[[int, bytes], Transform]


KINDS: dict[str, Kind] = {"identity": Kind(fit=lambda dim, _: Identity(dim), read=lambda dim, _: Identity(dim))}
"""By name: what `Policy.transform` and manifests call them."""
