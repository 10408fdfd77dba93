"""A model and its companion, a second network on the same pixels: one embedding of both, or of it alone."""

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

    def __init__(self, model: Encoder | None, companion: Encoder, spaces: Mapping[str, Recipe]) -> None:
        """model: gives each space's own part, in the order of `spaces`, but for those of the companion's network alone;
        None where there is no other. companion: first the other part, then those of `spaces` that are of its network
        and not this part."""
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
        return self._main.inputs

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return tuple(self._spaces)

    @property
    def backend(self) -> str:
        """The model's."""
        return self._main.backend

    @property
    def precision(self) -> Precision:
        """The model's."""
        return self._main.precision

    @property
    def batch_size(self) -> int:
        """The model's, which takes most of the time."""
        return self._main.batch_size

    @property
    def _main(self) -> Encoder:
        return self._companion if self._model is None else self._model

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Prepare both. pixels: (n, size, size, 3) uint8; remaining: images left to embed."""
        for encoder in (self._model, self._companion):
            if encoder is not None:
                encoder.prepare(pixels, remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed (n, size, size, 3) uint8: one (n, dim) float32 of unit length a space."""
        own = iter(() if self._model is None else self._model.encode(pixels))
        beside, *others = self._companion.encode(pixels)
        rest, first = iter(others), self._companion.recipes[0]
        return [
            self._joined(recipe, next(own), beside)
            if not is_of(recipe, first)
            else beside
            if recipe == first
            else next(rest)
            for recipe in self._spaces.values()
        ]

    @staticmethod
    def _joined(recipe: Recipe, own: NDArray[np.float32], beside: NDArray[np.float32]) -> NDArray[np.float32]:
        return own if recipe.companion is None else concatenate([own, beside])

    def per_core(self) -> Sequence[Encoder]:
        """Both on one core each; none where one of them has none."""
        beside = self._companion.per_core()
        models = [None] * len(beside) if self._model is None else self._model.per_core()
        return [
            CompanionEncoder(model, companion, self._spaces) for model, companion in zip(models, beside, strict=False)
        ]


def is_of(recipe: Recipe, companion: Recipe) -> bool:
    """Whether features are of the companion's network alone, such as those that tell a style."""
    return recipe.weights_sha256 == companion.weights_sha256
