"""The protocol of encoders: preprocessed pixels in, one unit-length embedding a space out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.pictures.preprocess import Inputs
from search.recipe import Geometry, Pooling, Recipe

Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class SpaceRequest:
    """A space as asked for on the command line: layers still relative (negative, or None for the default).

    geometry: None for the checkpoint's own. companion: with the companion network beside the model. whiten: searched
    after whitening. words: the space in which words are looked up, style: the one in which images of the same style
    are near, regions: the one that also holds parts of images, all of the companion network alone.
    """

    layers: tuple[int, ...] | None = None
    pooling: Pooling | None = None
    final_norm: bool | None = None
    geometry: Geometry | None = None
    companion: bool = False
    whiten: bool = False
    words: bool = False
    style: bool = False
    regions: bool = False

    @property
    def of_companion(self) -> bool:
        """Whether it is a space of the companion network alone."""
        return self.words or self.style or self.regions


class Encoder(Protocol):
    """Embeds images for one or more spaces, of one model or several. Not thread-safe: one caller at a time."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """One recipe a space, in the order of `encode`'s answer."""

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, e.g. `layer11`, in the same order."""

    @property
    def backend(self) -> str:
        """The library that runs it: `torch` or `openvino`."""

    @property
    def precision(self) -> Precision:
        """The arithmetic it runs in."""

    @property
    def batch_size(self) -> int:
        """The number of images in a batch that it is fastest with."""

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Do once what depends on the first images of a build, e.g. choose a precision by them.

        pixels: as `encode` takes them.

        remaining: how many are to be embedded in all: for many, it may take its time to become faster.
        """

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed a batch.

        pixels: (n, size, size, 3) uint8, RGB, or (n, bytes) where it takes several kinds, as `preprocess.to_inputs`
        gives them.
        Returns one (n, dim) float32 array a space, rows of unit length; (n, count, dim) where an image has several.
        """

    def per_core(self) -> Sequence[Encoder]:
        """Encoders of the same model on one core each, which may be called at the same time, by a thread each.

        They do as much as this one on all cores, and more where others need these cores too: none waits for another
        at every layer. Empty where that is of no use. Loads the model once more.
        """
