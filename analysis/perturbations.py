"""Perturbations: what happens to pictures before somebody looks for them again. Each leaves what they show alone."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter, ImageOps

Perturbation = Callable[[Image.Image, np.random.Generator], Image.Image]
"""Gives a perturbed copy of an upright RGB picture."""

MIN_SIDE = 8
"""Pixels that a side keeps at least."""


def crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A part of half the area, anywhere."""
    width, height = (min(side, max(MIN_SIDE, round(side * 0.5**0.5))) for side in image.size)
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def flip(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Mirrored."""
    return ImageOps.mirror(image)


def colour(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Every hue moved alike, by 39 degrees or more."""
    moved = int(generator.integers(28, 229))  # of 256
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(one + moved) % 256 for one in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def blur(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Blurred over a thirtieth of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 30))


def compression(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Saved as a JPEG of quality 5."""
    saved = BytesIO()
    image.save(saved, "JPEG", quality=5)
    return Image.open(saved).convert("RGB")


def rescale(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Made 40 pixels large, or half as large if it is small, and as large as before again."""
    share = min(40 / max(image.size), 0.5)
    small = image.resize((max(1, round(image.width * share)), max(1, round(image.height * share))))
    return small.resize(image.size, Image.Resampling.BICUBIC)


def overlay(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A box of one colour over a sixth of the area, anywhere."""
    covered = image.copy()
    width, height = max(1, image.width // 2), max(1, image.height // 3)
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    red, green, blue = generator.integers(0, 256, 3).tolist()
    covered.paste((red, green, blue), (left, top, left + width, top + height))
    return covered


def turn(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Turned by 15 to 45 degrees either way, whole, on a ground of the corner's colour."""
    degrees = float(generator.uniform(15, 45)) * (1 if generator.random() < 0.5 else -1)
    corner = image.crop((0, 0, 1, 1)).tobytes()
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(corner[0], corner[1], corner[2]))


def grey(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Without colours, from black to white."""
    return ImageOps.autocontrast(image.convert("L")).convert("RGB")


def mixed(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A part of half the area, of other hues, and mirrored or not."""
    part = crop(image, generator)
    return colour(flip(part, generator) if generator.random() < 0.5 else part, generator)


PERTURBATIONS: dict[str, Perturbation] = {
    "crop": crop,
    "flip": flip,
    "colour": colour,
    "blur": blur,
    "compression": compression,
    "rescale": rescale,
    "overlay": overlay,
    "turn": turn,
    "grey": grey,
    "mixed": mixed,
}
"""By name."""
