"""An encoder in use: the spaces that it gives, and the stage in which pictures wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from api.serving.batching import Stage
from indexer.encoders.encoder import Encoder
from search.types import Space, Vector


class Loaded:
    """One encoder and its stage. Another one takes its place where an index has other spaces by then."""

    def __init__(self, encoder: Encoder, spaces: Sequence[Space]) -> None:
        """spaces: what the encoder was loaded for."""
        self.spaces = tuple(spaces)
        self.inputs = encoder.inputs
        self._names = encoder.names
        per_core = encoder.per_core()
        self._stage: Stage[NDArray[np.uint8], tuple[Vector, ...]] = Stage(
            "encode",
            partial(_encode, encoder),
            most=encoder.batch_size,
            beside=[partial(_encode, one) for one in per_core],
            share=max((one.batch_size for one in per_core), default=1),
        )

    def gives(self, wanted: Iterable[Space]) -> bool:
        """Whether it was loaded for these spaces, and not for others that had their names before."""
        mine = {space.identity for space in self.spaces}
        return all(space.identity in mine for space in wanted)

    async def encode(self, pixels: NDArray[np.uint8]) -> dict[str, Vector]:
        """The embeddings of one picture by space (`Recipe.shape` float32 each).

        pixels: as `preprocess.to_inputs` makes them for `inputs`. Raises Closed where another one has its place, and
        what the encoder raises.
        """
        return dict(zip(self._names, await self._stage(pixels), strict=True))

    def close(self) -> None:
        """Finish what is queued, and let go of the encoder."""
        self._stage.close()


def _encode(encoder: Encoder, pictures: Sequence[NDArray[np.uint8]]) -> Sequence[tuple[Vector, ...]]:
    spaces = encoder.encode(np.stack(pictures))
    # Copies: whoever keeps one embedding must not keep its whole batch.
    return [tuple(vectors[row].copy() for vectors in spaces) for row in range(len(pictures))]
