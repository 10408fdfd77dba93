"""What is known of a picture that asks."""

from __future__ import annotations

from typing import NamedTuple

from search.types import Vector


class Looked(NamedTuple):
    """A picture's embedding, (dim,) float32, or (v, dim) of several views: turned, or in other proportions, the picture
    as it is first; and its perceptual hash as it came, which a box of it has not."""

    vector: Vector
    phash: int | None = None
