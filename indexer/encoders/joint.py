"""Several encoders as one: spaces that no single forward pass gives, from the same pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder, Precision
from search.recipe import Recipe


class JointEncoder:
    """Runs one encoder after the other. All share their preprocessing."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = tuple(encoders)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All encoders' recipes, in order: of several models."""
        return tuple(recipe for encoder in self._encoders for recipe in encoder.recipes)

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return tuple(name for encoder in self._encoders for name in encoder.names)

    @property
    def backend(self) -> str:
        """The first encoder's."""
        return self._encoders[0].backend

    @property
    def precision(self) -> Precision:
        """The first encoder's."""
        return self._encoders[0].precision

    @property
    def batch_size(self) -> int:
        """The smallest batch size of all: that of the largest model."""
        return min(encoder.batch_size for encoder in self._encoders)

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Prepare each encoder. pixels: (n, size, size, 3) uint8; remaining: images left to embed."""
        for encoder in self._encoders:
            encoder.prepare(pixels, remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed (n, size, size, 3) uint8: one (n, dim) float32 of unit length a space."""
        return [vectors for encoder in self._encoders for vectors in encoder.encode(pixels)]

    def per_core(self) -> Sequence[Encoder]:
        """Joint encoders on one core each; none where one of them has none."""
        return [JointEncoder(together) for together in zip(*(one.per_core() for one in self._encoders), strict=False)]
