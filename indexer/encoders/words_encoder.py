"""An encoder of features, and beside it the words that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.aligned import Head
from indexer.encoders.encoder import Encoder, Precision
from indexer.pictures.preprocess import Inputs
from search.recipe import Recipe


class WordsEncoder:
    """Runs an encoder, and turns what it gives of spaces of words into vectors of the kind that sentences have."""

    def __init__(self, features: Encoder, spaces: Mapping[str, Recipe], heads: Mapping[str, Head]) -> None:
        """features: gives each space's `Recipe.source`, by the same names. heads: of the spaces of words."""
        self._features = features
        self._spaces = dict(spaces)
        self._heads = dict(heads)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each space, in the order of `encode`'s arrays."""
        return tuple(self._spaces.values())

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes."""
        return self._features.inputs

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return tuple(self._spaces)

    @property
    def backend(self) -> str:
        """The features'."""
        return self._features.backend

    @property
    def precision(self) -> Precision:
        """The features'."""
        return self._features.precision

    @property
    def batch_size(self) -> int:
        """The features'."""
        return self._features.batch_size

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Prepare the encoder of features. pixels: as `encode` takes them; remaining: images left to embed."""
        self._features.prepare(pixels, remaining)

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed pixels: one (n, dim) float32 of unit length a space."""
        found = self._features.encode(pixels)
        return [
            self._heads[name](features) if name in self._heads else features
            for name, features in zip(self._spaces, found, strict=True)
        ]

    def per_core(self) -> Sequence[Encoder]:
        """The same on one core each; none where the features' has none."""
        return [WordsEncoder(one, self._spaces, self._heads) for one in self._features.per_core()]
