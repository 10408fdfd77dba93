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
        """As `Encoder`, but of several models."""
        return tuple(recipe for encoder in self._encoders for recipe in encoder.recipes)

    @property
    def names(self) -> tuple[str, ...]:
        """As `Encoder`."""
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
        """As many images as the largest model takes best at once."""
        return min(encoder.batch_size for encoder in self._encoders)

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """As `Encoder`."""
        for encoder in self._encoders:
            encoder.prepare(pixels, remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """As `Encoder`."""
        return [vectors for encoder in self._encoders for vectors in encoder.encode(pixels)]

    def per_core(self) -> Sequence[Encoder]:
        """As `Encoder`; none where one of them has none."""
        return [JointEncoder(together) for together in zip(*(one.per_core() for one in self._encoders), strict=False)]
