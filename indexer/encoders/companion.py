"""A model and its companion, a second network on the same pixels: one embedding of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder, Precision
from indexer.pictures.preprocess import Inputs
from search.recipe import Recipe
from search.vectors import concatenate


class CompanionEncoder:
    """Runs both networks, and joins their embeddings in the spaces that have the companion."""

    def __init__(self, model: Encoder, companion: Encoder, spaces: Mapping[str, Recipe]) -> None:
        """model: gives each space's own part, in the order of `spaces`; companion: one space, the other part."""
        self._model = model
        self._companion = companion
        self._spaces = dict(spaces)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each space, in the order of `encode`'s arrays."""
        return tuple(self._spaces.values())

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes."""
        return self._model.inputs

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return tuple(self._spaces)

    @property
    def backend(self) -> str:
        """The model's."""
        return self._model.backend

    @property
    def precision(self) -> Precision:
        """The model's."""
        return self._model.precision

    @property
    def batch_size(self) -> int:
        """The model's, which takes most of the time."""
        return self._model.batch_size

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Prepare both. pixels: (n, size, size, 3) uint8; remaining: images left to embed."""
        self._model.prepare(pixels, remaining)
        self._companion.prepare(pixels, remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed (n, size, size, 3) uint8: one (n, dim) float32 of unit length a space."""
        own = self._model.encode(pixels)
        (beside,) = self._companion.encode(pixels)
        return [
            vectors if recipe.companion is None else concatenate([vectors, beside])
            for vectors, recipe in zip(own, self._spaces.values(), strict=True)
        ]

    def per_core(self) -> Sequence[Encoder]:
        """Both on one core each; none where one of them has none."""
        pairs = zip(self._model.per_core(), self._companion.per_core(), strict=False)
        return [CompanionEncoder(model, companion, self._spaces) for model, companion in pairs]
