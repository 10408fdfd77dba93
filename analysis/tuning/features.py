"""Features: what a model's layers give for pictures, once each, of which the vectors of many spaces are composed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.encoders.encoder import Encoder
from indexer.pictures.preprocess import to_inputs
from search.recipe import Preprocessing, Recipe
from search.types import Space
from search.vectors import concatenate, normalise


class Layer(NamedTuple):
    """A layer's vector of a picture that was brought to size in one way; without a number, the companion's."""

    preprocessing: Preprocessing
    pooling: str
    number: int | None
    final_norm: bool


class Shown(NamedTuple):
    """A picture that was embedded: an image by a name that those of equal pixels share, as it is, or perturbed."""

    image: str
    kind: str | None


def layers_of(recipe: Recipe) -> list[Layer]:
    """The vectors that a recipe joins, in their order."""
    own = [
        Layer(recipe.preprocessing, recipe.pooling, number, final_norm)
        for number, final_norm in zip(recipe.layers, recipe.final_norm, strict=True)
    ]
    return own if recipe.companion is None else [*own, Layer(recipe.preprocessing, "mean", None, False)]


def readings(spaces: Iterable[Space]) -> dict[Layer, Space]:
    """Spaces of single layers, of which all of these can be composed. The companion's has it beside a layer."""
    found: dict[Layer, Space] = {}
    for space in spaces:
        own = space.recipe.own
        width = own.dim // len(own.layers)
        for layer in layers_of(space.recipe):
            number = own.layers[0] if layer.number is None else layer.number
            norm = own.final_norm[0] if layer.number is None else layer.final_norm
            recipe = replace(own, layers=(number,), final_norm=(norm,), dim=width)
            if layer.number is None and space.recipe.companion is not None:
                companion = space.recipe.companion
                recipe = replace(recipe, companion=companion, dim=width + companion.dim)
            found.setdefault(layer, Space(name=str(len(found)), recipe=recipe, encoding=space.encoding))
    return found


def by_preprocessing(wanted: Mapping[Layer, Space]) -> list[list[Space]]:
    """The spaces that one forward pass gives each: of pictures that were brought to size in one way."""
    ways = dict.fromkeys(layer.preprocessing for layer in wanted)
    return [[space for layer, space in wanted.items() if layer.preprocessing == way] for way in ways]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Of n pictures, each layer's vectors, (n, dim) float16 of unit length: 37 KB a picture of the packaged model."""

    shown: Sequence[Shown]
    layers: Mapping[Layer, NDArray[np.float16]]

    def vectors(self, recipe: Recipe) -> NDArray[np.float32]:
        """The pictures' embeddings by a recipe: (n, dim) float32 of unit length."""
        parts = [self.layers[layer].astype(np.float32) for layer in layers_of(recipe)]
        if recipe.companion is None:
            return concatenate(parts)
        return concatenate([concatenate(parts[:-1]), parts[-1]])


def read(pictures: Iterable[tuple[Shown, Image.Image]], encoder: Encoder, wanted: Mapping[Layer, Space]) -> Features:
    """The features of pictures, by one forward pass for each way of bringing them to size.

    encoder: of the spaces that `readings` gave. One batch of pixels is held at a time.
    """
    shown: list[Shown] = []
    parts: dict[str, list[NDArray[np.float16]]] = {space.name: [] for space in wanted.values()}
    beside = {space.name: space.recipe.parts[0] for layer, space in wanted.items() if layer.number is None}
    rest = iter(pictures)
    while batch := list(islice(rest, encoder.batch_size)):
        shown += [one for one, _ in batch]
        pixels = np.stack([to_inputs(picture, encoder.inputs) for _, picture in batch])
        for name, vectors in zip(encoder.names, encoder.encode(pixels), strict=True):
            wide = normalise(vectors[:, beside[name] :]) if name in beside else vectors
            parts[name].append(wide.astype(np.float16))
    layers = {layer: np.concatenate(parts[space.name]) for layer, space in wanted.items() if parts[space.name]}
    return Features(shown=shown, layers=layers)
