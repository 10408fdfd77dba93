"""What the network of a space of regions sees at each place of a picture, before it is pooled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.load import encoder_for
from search.recipe import Preprocessing
from search.types import Space

CELL = 16
"""Pixels of a place's side."""


class PlacesEncoder:
    """The network of one space of regions. Not thread-safe: one caller at a time. It computes as the space's does."""

    def __init__(self, space: Space, models: Path, *, device: str = "auto") -> None:
        """models: the index's folder of that name. Takes a second: the network is loaded, and exported once for
        OpenVINO. Raises ModelUnavailable, and ModelUnsupported as `encoder_for`.
        """
        assert space.recipe.regions is not None
        self.preprocessing: Preprocessing = space.recipe.preprocessing
        self._dim = space.recipe.regions.channels[0]
        read = replace(space.recipe, pooling="tokens", dim=0, regions=None)
        self._encoder = encoder_for([replace(space, recipe=read)], models, device=device)

    def encode(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The places of pictures, of unit length each: (n, rows, columns, dim) float32; and of the pictures at half
        their size, with half as many rows and columns.

        pixels: (n, size, size, 3) uint8, as `preprocess.to_input` makes them.
        """
        (flat,) = self._encoder.encode(pixels)
        side = self.preprocessing.size // CELL
        places = flat.reshape(len(pixels), -1, self._dim)
        lengths = np.linalg.norm(places, axis=2, keepdims=True)
        places = places / np.maximum(lengths, np.finfo(np.float32).tiny)
        whole, half = np.split(places, [side * side], axis=1)
        shape = (len(pixels), side, side, self._dim)
        return whole.reshape(shape), half.reshape(len(pixels), side // 2, side // 2, self._dim)
