"""What a space's model sees of each patch of a picture, before it is pooled into one vector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.load import encoder_for
from indexer.errors import NoPatches
from indexer.models import locate
from indexer.tower_config import CONVOLUTIONAL
from search.recipe import Preprocessing
from search.types import Encoding, Space
from search.vectors import concatenate


class PatchEncoder:
    """The vision transformer of one space, at the space's layers. Not thread-safe: one caller at a time.

    A patch's vector is made as the space makes an image's: of each of its layers the patch's token, of unit length, all
    in a row. Of a space with a companion network, only the transformer has patches. It computes as the space's encoder
    does, but in fp32 where that is int8, which is fitted to the pooled vectors alone.
    """

    def __init__(self, space: Space, models: Path, *, device: str = "auto") -> None:
        """models: the index's folder of that name. Takes seconds: the model is loaded, and exported once for OpenVINO.

        Raises NoPatches, ModelUnavailable, and ModelUnsupported as `encoder_for`.
        """
        recipe, encoding = space.recipe, space.encoding
        config = locate(recipe.model).config
        if recipe.words is not None or config.model_type in CONVOLUTIONAL:
            raise NoPatches(space.name, recipe.model)
        self.layers = recipe.layers
        self.preprocessing: Preprocessing = recipe.preprocessing
        self.patch = config.patch_size
        self._cells, self._dim = (self.preprocessing.size // self.patch) ** 2, config.hidden_size
        read = replace(recipe.own, pooling="tokens", dim=0, text_sha256=None)
        if encoding.precision == "int8":
            encoding = Encoding(backend=encoding.backend, precision="fp32")
        self._encoder = encoder_for([replace(space, recipe=read, encoding=encoding)], models, device=device)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The patches of pictures: (n, cells, layers * dim) float32 of unit length, row by row of each picture's grid.

        pixels: (n, size, size, 3) uint8, as `preprocess.to_input` makes them.
        """
        (flat,) = self._encoder.encode(pixels)
        tokens = flat.reshape(len(pixels), len(self.layers), -1, self._dim)
        patches = tokens[:, :, -self._cells :]  # the tokens before them are of the whole picture
        each = [patches[:, layer].reshape(-1, self._dim) for layer in range(len(self.layers))]
        return concatenate(each).reshape(len(pixels), self._cells, -1)
