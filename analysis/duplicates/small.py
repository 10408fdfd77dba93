"""Small pictures, and what two of them are compared by: how much the colour changes at each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from indexer.pictures.facts import perceptual_hash

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
"""(2, 3): from x, y, 1 of a point of the whole to x, y of the same in the part, each from 0 to 1 over a side."""

SIDE = 128
"""Pixels of the longer side of a reduced picture."""
MIN_SIDE = 16
"""Pixels that its shorter side has at least: that of a strip is stretched."""
FINE_SIDE = 384
"""Pixels of the longer side of what fine detail is compared by."""
SQUARE = 32
"""Pixels a side of the square in which whole pictures are laid over one another."""
MIN_BOX = 16
"""Pixels of its shorter side with which what is left without borders has a hash."""
BLURRED = 1.5
"""Pixels that a border takes of what is left without it."""
MIN_EDGE = 3.0
"""Root of a difference of colour below which a border is of one colour."""
SHADE = 8
"""Pixels to each side that are around one."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
STRONGEST_EDGE = 200.0
"""Differences of colour beyond count as much as this one."""


class Small:
    """A picture made small, and what it is compared by."""

    def __init__(self, pixels: Pixels, fine: Pixels, sharpness: float = 1.0) -> None:
        """pixels: (height, width, 3) uint8 with a longer side of SIDE pixels; fine: (height, width) uint8, grey, with
        one of FINE_SIDE at most; sharpness: pixels that the picture had for each of SIDE, 1 at most."""
        self.pixels, self.fine, self.sharpness = pixels, fine, sharpness

    @classmethod
    def of(cls, picture: Image.Image) -> Small:
        """Make an upright RGB picture small."""
        scale, fine = SIDE / max(picture.size), min(1.0, FINE_SIDE / max(picture.size))
        size = scaled(picture.width, scale, MIN_SIDE), scaled(picture.height, scale, MIN_SIDE)
        fine_size = scaled(picture.width, fine, MIN_SIDE), scaled(picture.height, fine, MIN_SIDE)
        return cls(
            np.asarray(picture.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)),
            np.asarray(picture.convert("L").resize(fine_size, Image.Resampling.BOX)),
            min(1.0, 1 / scale),
        )

    @cached_property
    def edges(self) -> Floats:
        """How much the colour changes at each pixel, (height, width)."""
        padded = np.pad(self.pixels.astype(np.float32), ((1, 1), (1, 1), (0, 0)), mode="edge")
        across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        strength = np.sqrt((across**2 + down**2).sum(axis=2))
        edges: Floats = np.sqrt(np.minimum(strength, STRONGEST_EDGE))
        return edges

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """What is left without borders of one colour: top, bottom, left and right in pixels."""
        drawn = self.edges > MIN_EDGE
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        if not len(rows):
            return 0, len(self.edges), 0, self.edges.shape[1]
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1

    @property
    def boxed_share(self) -> float:
        """The share of the picture, 0..1, that the `box` is, without the pixels in which its borders are blurred."""
        shares: list[float] = []
        for (low, high), side in zip((self.box[:2], self.box[2:]), self.edges.shape, strict=True):
            shares.append(max(1.0, high - low - BLURRED * (low > 0) - BLURRED * (high < side)) / side)
        return math.prod(shares)

    @property
    def bare_hash(self) -> int | None:
        """The perceptual hash of the `box`; None where that is all of the picture, or nearly nothing."""
        (height, width), (top, bottom, left, right) = self.edges.shape, self.box
        top, left = (side + math.ceil(BLURRED) * (side > 0) for side in (top, left))
        bottom, right = bottom - math.ceil(BLURRED) * (bottom < height), right - math.ceil(BLURRED) * (right < width)
        if min(bottom - top, right - left) < MIN_BOX or (bottom - top, right - left) == (height, width):
            return None
        return perceptual_hash(Image.fromarray(self.pixels[top:bottom, left:right]))

    @cached_property
    def square(self) -> Floats:
        """The edges squeezed into a square, in all eight orientations, (8, SQUARE * SQUARE): zero mean, unit length."""
        return _squeezed(self.edges)

    @cached_property
    def boxed(self) -> Floats:
        """The same of the `box`."""
        top, bottom, left, right = self.box
        return _squeezed(self.edges[top:bottom, left:right])

    @cached_property
    def grey(self) -> Floats:
        """The luma of each pixel, (height, width)."""
        return self.pixels.astype(np.float32) @ LUMA

    @cached_property
    def shades(self) -> Floats:
        """The luma less that around each pixel, (height, width): of an even shade nothing is left."""
        around = np.asarray(Image.fromarray(self.pixels).filter(ImageFilter.BoxBlur(SHADE)), dtype=np.float32)
        shades: Floats = self.grey - around @ LUMA
        return shades

    def at(self, side: int) -> Floats:
        """The edges with a longer side of so many pixels."""
        return _at(self.edges, side)

    def shades_at(self, side: int) -> Floats:
        """The shades with a longer side of so many pixels."""
        return _at(self.shades, side)

    def oriented(self, turn: int) -> Small:
        """The picture in one of the eight orientations, but for its `fine` pixels."""
        if turn == 0:
            return self
        return Small(np.ascontiguousarray(turned(self.pixels, turn)), self.fine, self.sharpness)

    def blurred(self, sharpness: float) -> Small:
        """The picture as it is when made so much smaller, and large again."""
        height, width = self.edges.shape
        size = scaled(width, sharpness), scaled(height, sharpness)
        small = Image.fromarray(self.pixels).resize(size, Image.Resampling.BOX)
        return Small(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)), self.fine, sharpness)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where `part`, in the orientation `turn`, lies in `whole`; score: how well blocks that match do, 0..1."""

    whole: Small
    part: Small
    turn: int
    matrix: Matrix
    score: float


def _at(values: Floats, side: int) -> Floats:
    height, width = values.shape
    scale = side / max(height, width)
    return values if scale == 1 else resized(values, scaled(height, scale), scaled(width, scale))


def scaled(side: int, scale: float, least: int = 4) -> int:
    return max(least, round(side * scale))


def turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """A picture's values, (height, width, ...), mirrored from 4 on, then turned by `turn` modulo 4 quarters."""
    return np.rot90(values[:, ::-1] if turn >= 4 else values, turn % 4)


def resized(values: Floats, height: int, width: int) -> Floats:
    """Values at another size, (height, width), each the mean of its area."""
    image = Image.fromarray(np.ascontiguousarray(values)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image)


def _squeezed(edges: Floats) -> Floats:
    flat = np.stack([turned(resized(edges, SQUARE, SQUARE), turn).ravel() for turn in range(8)])
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit
