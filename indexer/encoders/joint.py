"""Several encoders as one: spaces that no single forward pass gives, of one image that was decoded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder, Precision
from indexer.pictures.preprocess import Inputs, input_of, inputs_of
from search.recipe import Recipe


class JointEncoder:
    """Runs one encoder after the other, each on its kind of pixels."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        """encoders: each of one kind of pixels."""
        self._encoders = tuple(encoders)

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes."""
        return inputs_of(self.recipes)

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
        """Prepare each encoder. pixels: as `encode` takes them; remaining: images left to embed."""
        for encoder in self._encoders:
            encoder.prepare(self._pixels_of(encoder, pixels), remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed a batch: one (n, dim) float32 of unit length a space.

        pixels: (n, size, size, 3) uint8, or (n, bytes) where there are several kinds.
        """
        return [vectors for encoder in self._encoders for vectors in encoder.encode(self._pixels_of(encoder, pixels))]

    def _pixels_of(self, encoder: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (wanted,) = encoder.inputs
        return input_of(pixels, self.inputs, wanted)

    def per_core(self) -> Sequence[Encoder]:
        """Joint encoders on one core each; none where one of them has none."""
        return [JointEncoder(together) for together in zip(*(one.per_core() for one in self._encoders), strict=False)]
