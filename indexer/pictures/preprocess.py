"""From an upright RGB image to the encoder's input pixels: the project's one resize and crop."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.recipe import Preprocessing, Recipe
from search.types import ImageFacts

MAX_ASPECT = 20
"""Up to here the whole image is resized, as transformers does it; beyond, only what the crop will keep. A 1 x 600 image
would become 256 x 153,600 first: 1.5 s and 150 MB for pixels that are thrown away."""
FRACTION_BITS = 12
"""Bits of a scale that float64 multiplies without rounding with sides of 16 bits, and more."""
LARGEST_SUPPORT = 5
"""Pixels of the smaller image to each side that a filter looks at: 3 for Lanczos, 4.5 for Pillow's largest."""
SMALL = 4_000_000
"""Pixels up to which a copy of the rows that count is worth it: it stays in the processor's cache, and is no memory."""
ORIENTATIONS = 8
"""Turned by quarters, and mirrored."""
DRAFT_MARGIN = 2
"""Decoded to at least twice the edge, 12-megapixel JPEGs cost 34 ms instead of 152 and keep a cosine of .99999 to the
embedding of the fully decoded ones (the worst of 24 wallpapers, layers 7 and 11); at once the edge, 26 ms and .9999."""


def to_input(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Bring an RGB image to the encoder's size.

    Returns (size, size, 3) uint8. Up to an aspect ratio of 20:1 bit-equal to what transformers' image processors on
    Pillow make of it before they normalise; time and memory are bounded for any aspect.
    """
    if preprocessing.geometry == "square":
        side = preprocessing.resize
        return _centre(image.resize((side, side), _filter(preprocessing)), preprocessing.size)
    if preprocessing.geometry == "pad":
        return _padded(image, preprocessing)
    if max(image.size) > MAX_ASPECT * min(image.size):
        return _kept_part(image, preprocessing)
    resized = shortest_edge(image.size, preprocessing.resize)
    if image.width < image.height or min(resized) < preprocessing.size:
        return _centre(image.resize(resized, _filter(preprocessing)), preprocessing.size)
    return _kept_columns(image, resized, preprocessing)


Inputs = tuple[Preprocessing, ...]
"""The kinds of input pixels that the spaces of an index need, each once: see `inputs_of`."""


def inputs_of(recipes: Iterable[Recipe]) -> Inputs:
    """The preprocessing of these recipes, one of those that give the same pixels. An image is decoded once for all."""
    return tuple({_pixels_of(recipe.preprocessing): recipe.preprocessing for recipe in recipes}.values())


def _pixels_of(preprocessing: Preprocessing) -> tuple[object, ...]:
    """What of a preprocessing changes pixels: its mean does only where it fills the rest of a square."""
    mean = preprocessing.mean if preprocessing.geometry == "pad" else None
    return preprocessing.geometry, preprocessing.resize, preprocessing.size, preprocessing.resample, mean


def to_inputs(image: Image.Image, inputs: Inputs) -> NDArray[np.uint8]:
    """An RGB image as all of these inputs: (size, size, 3) uint8 of a single one, else all in a row, (bytes,) uint8."""
    made = [to_input(image, preprocessing) for preprocessing in inputs]
    return made[0] if len(made) == 1 else np.concatenate([pixels.ravel() for pixels in made])


def input_of(pixels: NDArray[np.uint8], inputs: Inputs, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """One of the inputs of several images: (n, size, size, 3) uint8 out of n rows of `to_inputs`'s answers."""
    if len(inputs) == 1:
        return pixels
    start = 0
    for held in inputs:
        end = start + 3 * held.size**2
        if _pixels_of(held) == _pixels_of(preprocessing):
            return np.ascontiguousarray(pixels[:, start:end]).reshape(-1, held.size, held.size, 3)
        start = end
    raise ValueError(f"there are no pixels of {preprocessing}")


def blank(inputs: Inputs) -> NDArray[np.uint8]:
    """The inputs of a grey image, as a batch of one."""
    return to_inputs(Image.new("RGB", (16, 16), (127, 127, 127)), inputs)[None]


def orientations(pixels: NDArray[np.uint8], inputs: Inputs) -> tuple[NDArray[np.uint8], ...]:
    """The inputs of an image in its eight orientations, each as `to_inputs` gives it.

    pixels: its inputs as it is.
    """
    if len(inputs) == 1:
        return _turned(pixels)
    each = [_turned(input_of(pixels[None], inputs, preprocessing)[0]) for preprocessing in inputs]
    return tuple(np.concatenate([view.ravel() for view in views]) for views in zip(*each, strict=True))


def _turned(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """The eight orientations of an input: as it is, turned by 90, 180 and 270 degrees, and the mirrors of these.

    pixels: (size, size, 3) uint8. To turn an image before `to_input` gives the same, but for the rounding of the crop.
    """
    return tuple(
        np.ascontiguousarray(np.rot90(view, quarters)) for view in (pixels, pixels[:, ::-1]) for quarters in range(4)
    )


def needed_size(inputs: Inputs) -> int:
    """Pixels that an image's shorter side must keep when it is decoded at reduced size for `to_inputs`."""
    return DRAFT_MARGIN * max(preprocessing.resize for preprocessing in inputs)


def kept_share(facts: ImageFacts, recipe: Recipe) -> float:
    """The share, 0..1, of a picture's area that the model sees: of a crop, the middle alone."""
    preprocessing, width, height = recipe.preprocessing, facts.width, facts.height
    if preprocessing.geometry == "pad":
        return 1.0
    middle = min(1.0, preprocessing.size / preprocessing.resize)
    sides = min(width, height) / max(width, height) if preprocessing.geometry == "crop" else 1.0
    return middle * middle * sides


def _filter(preprocessing: Preprocessing) -> Image.Resampling:
    return Image.Resampling(preprocessing.resample)


def shortest_edge(size: tuple[float, float], edge: int) -> tuple[int, int]:
    """The size with its shorter side scaled to `edge`; the longer side is cut to an integer, as transformers does."""
    width, height = size
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def _centre(image: Image.Image, size: int) -> NDArray[np.uint8]:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _kept(source: int, resized: int, size: int) -> tuple[float, float]:
    """From where to where the source has what a centre crop of the resized side keeps."""
    begin = (resized - size) // 2
    return begin * source / resized, (begin + size) * source / resized


def _kept_columns(image: Image.Image, resized: tuple[int, int], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize across, then down only what the centre crop keeps: bit-equal to both at once, which Pillow does in this
    order where an image is no taller than wide.
    """
    size, (width, height), below = preprocessing.size, resized, image.height
    left, rows = (width - size) // 2, size
    begin, end = _kept(below, height, size)
    # Pillow takes a box in float32, and computes with it in float64: exactly, if the scale is a short binary fraction.
    exact = all(np.float32(value) == value for value in (begin, end, end - begin))
    if not exact or (below << FRACTION_BITS) % height:
        begin, end, rows = 0, below, height
    elif image.width * below <= SMALL:
        # Source rows out of a filter's reach of the kept ones need not be resized across either.
        reach = LARGEST_SUPPORT * max(1, math.ceil(below / height)) + 1
        first, last = max(0, math.floor(begin) - reach), min(below, math.ceil(end) + reach)
        image = image.crop((0, first, image.width, last))
        begin, end, below = begin - first, end - first, last - first
    kept = image.resize((width, below), _filter(preprocessing)).crop((left, 0, left + size, below))
    return _centre(kept.resize((size, rows), _filter(preprocessing), box=(0, begin, size, end)), size)


def _kept_part(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize only the source region that the centre crop would keep of the whole resized image."""
    size = preprocessing.size
    target = shortest_edge(image.size, preprocessing.resize)
    (left, right), (top, bottom) = (
        _kept(source, resized, size) for source, resized in zip(image.size, target, strict=True)
    )
    return np.asarray(image.resize((size, size), _filter(preprocessing), box=(left, top, right, bottom)))


def _padded(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The whole image, its longer side at `size`, centred on the mean colour, which normalises to zero."""
    size = preprocessing.size
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    red, green, blue = (round(255 * channel) for channel in preprocessing.mean)
    canvas = Image.new("RGB", (size, size), (red, green, blue))
    canvas.paste(image.resize((width, height), _filter(preprocessing)), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)
