"""The part that backends share: where embeddings are read off the model, and how a batch becomes embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Precision
from indexer.pictures.preprocess import Inputs
from search.recipe import Reading, Recipe
from search.vectors import concatenate


@dataclass(frozen=True, order=True)
class Tap:
    """One reading of a layer: its tokens (n, tokens, dim) become (n, dim), or (n, count, dim) of several parts; read as
    `tokens`, (n, tokens * dim)."""

    layer: int
    pooling: Reading
    final_norm: bool

    @property
    def name(self) -> str:
        """`layer7-cls`, `layer12-mean-norm`: the name of an exported model's output."""
        return f"layer{self.layer}-{self.pooling}{'-norm' if self.final_norm else ''}"


def taps_of(recipe: Recipe) -> list[Tap]:
    """One tap a layer, in the order in which a space concatenates them."""
    return [
        Tap(layer, recipe.pooling, final_norm)
        for layer, final_norm in zip(recipe.layers, recipe.final_norm, strict=True)
    ]


def views_of(recipe: Recipe) -> list[Tap]:
    """What queries need besides: in a space of regions the picture stretched, as a part of another one may be."""
    return [] if recipe.regions is None else [replace(tap, pooling="stretches") for tap in taps_of(recipe)]


def all_taps(recipes: Iterable[Recipe], *, views: bool = False) -> tuple[Tap, ...]:
    """Every tap that these recipes need, each once, in the order of layers. views: with those of `views_of`."""
    return tuple(
        sorted({tap for recipe in recipes for tap in (*taps_of(recipe), *(views_of(recipe) if views else ()))})
    )


class TapEncoder(ABC):
    """An `Encoder` whose backend only has to run the model. Not thread-safe: one caller at a time."""

    def __init__(
        self, spaces: Mapping[str, Recipe], *, precision: Precision, batch_size: int, views: bool = False
    ) -> None:
        """spaces: by name; all recipes share model and preprocessing. batch_size: images of one forward pass. views:
        with those of queries."""
        self._recipes = tuple(spaces.values())
        self._names = tuple(spaces)
        self._precision = precision
        self._batch_size = batch_size
        self._size = self._recipes[0].preprocessing.size
        self._taps = all_taps(self._recipes, views=views)
        self._columns = [[self._taps.index(tap) for tap in taps_of(recipe)] for recipe in self._recipes]
        self._views = [[self._taps.index(tap) for tap in views_of(recipe) if views] for recipe in self._recipes]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each space, in the order of `encode`'s arrays."""
        return self._recipes

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes: one."""
        return (self._recipes[0].preprocessing,)

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return self._names

    @property
    @abstractmethod
    def backend(self) -> str:
        """The library that runs the model: `torch` or `openvino`."""

    @property
    def precision(self) -> Precision:
        """The arithmetic that the model runs in."""
        return self._precision

    @property
    def batch_size(self) -> int:
        """The number of images in one forward pass; `encode` splits longer batches."""
        return self._batch_size

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Do nothing: the encoder is ready as it is."""
        del pixels, remaining

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed (n, size, size, 3) uint8 pixels: one (n, dim) float32 array a space, rows of unit length; (n, count,
        dim) where an image has several vectors.

        With views, those of a space of regions stand behind what is stored: (n, count + v, dim).
        Where memory does not suffice for a batch, batches are halved from then on. Raises ValueError for another shape
        or dtype.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self._size, self._size, 3):
            raise ValueError(f"pixels are {pixels.shape} {pixels.dtype}, not (n, {self._size}, {self._size}, 3) uint8")
        if not len(pixels):
            return [np.empty((0, *recipe.shape), np.float32) for recipe in self._recipes]
        parts, before = None, self._batch_size
        while parts is None:
            size = self._batch_size
            try:
                parts = self._run([pixels[at : at + size] for at in range(0, len(pixels), size)])
            except Exception as error:
                if size == 1 or not self._is_out_of_memory(error):
                    self._batch_size = before
                    raise
                self._batch_size = max(1, min(size, len(pixels)) // 2)
        pooled = [np.concatenate(column) for column in zip(*parts, strict=True)]
        found = []
        for columns, views in zip(self._columns, self._views, strict=True):
            vectors = concatenate([pooled[column] for column in columns])
            if views:
                vectors = np.concatenate([vectors, concatenate([pooled[column] for column in views])], axis=1)
            found.append(vectors)
        return found

    def per_core(self) -> Sequence[TapEncoder]:
        """Encoders of the same model on one core each; most backends have none."""
        return ()

    def _is_out_of_memory(self, error: Exception) -> bool:
        """Tell whether a backend's error says that a smaller batch might do."""
        return isinstance(error, MemoryError) or "alloc" in str(error)  # torch and OpenVINO raise RuntimeError

    @abstractmethod
    def _run(self, batches: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        """Each batch through the model: for each, one (n, dim) float32 array a tap, not normalised."""
