"""What an encoder is: preprocessed pixels in, one unit-length embedding a space out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from search.recipe import Pooling, Recipe
from search.types import Space

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class SpaceRequest:
    """A space as asked for on the command line: layers still relative (negative, or None for the default)."""

    layers: tuple[int, ...] | None = None
    pooling: Pooling | None = None
    final_norm: bool | None = None


class Encoder(Protocol):
    """Runs one model for one or more spaces in a single forward pass. Not thread-safe: one caller at a time."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """One recipe a space, in the order of `encode`'s answer; all share model and preprocessing."""

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, e.g. `layer11`, in the same order."""

    @property
    def precision(self) -> Precision:
        """The arithmetic it runs in."""

    @property
    def batch_size(self) -> int:
        """How many images it takes best at once."""

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed a batch.

        pixels: (n, size, size, 3) uint8, RGB, as `preprocess.to_input` gives them.
        Returns one (n, dim) float32 array a space, rows of unit length.
        """


def encoder_for(spaces: Sequence[Space], *, device: str = "auto", batch_size: int | None = None) -> Encoder:
    """The encoder that an index's spaces were built with, in their encoding. Takes seconds: it loads the model.

    Raises ModelUnavailable, or ModelUnsupported where the weights found are not those of the recipes.
    """
    from indexer.encoders.torch import load_recipes
    from indexer.models import locate

    first = spaces[0]
    return load_recipes(
        locate(first.recipe.model),
        {space.name: space.recipe for space in spaces},
        device=device,
        precision=first.encoding.precision,
        batch_size=batch_size,
    )
