"""Edited pictures: what people and programs do to a picture before somebody looks for it again."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Edit = Callable[[Image.Image], Image.Image]


def opened(path: Path) -> Image.Image:
    """The picture upright, on white where it is transparent, at most 512 pixels wide and high."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    upright.thumbnail((512, 512))
    flat = Image.new("RGBA", upright.size, "white")
    flat.alpha_composite(upright)
    return flat.convert("RGB")


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    saved = io.BytesIO()
    image.save(saved, "JPEG", quality=quality)
    return Image.open(saved).convert("RGB")


def _scaled(image: Image.Image, share: float) -> Image.Image:
    return image.resize((max(8, round(image.width * share)), max(8, round(image.height * share))))


def _cropped(image: Image.Image, kept: float) -> Image.Image:
    side = kept**0.5
    left, top = (1 - side) / 2 * image.width, (1 - side) / 2 * image.height
    return image.crop((round(left), round(top), round(image.width - left), round(image.height - top)))


def _captioned(image: Image.Image) -> Image.Image:
    drawn = image.copy()
    height = max(8, image.height // 8)
    ImageDraw.Draw(drawn).rectangle((0, image.height - height, image.width, image.height), fill="black")
    ImageDraw.Draw(drawn).text((4, image.height - height), "holidays 2026", fill="white", font_size=max(8, height - 4))
    return drawn


EDITS: dict[str, Edit] = {
    "JPEG of quality 20": lambda image: _jpeg(image, 20),
    "a third of the size": lambda image: _scaled(image, 1 / 3),
    "three quarters of the area": lambda image: _cropped(image, 0.75),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "paler": lambda image: ImageEnhance.Color(image).enhance(0.4),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 200)),
    "captioned": _captioned,
    "framed": lambda image: ImageOps.expand(image, max(4, max(image.size) // 16), "navy"),
    "turned by 5 degrees": lambda image: image.rotate(5, Image.Resampling.BICUBIC, fillcolor="white"),
}
"""Edits by name: one mild to middling strength of each."""


def write_edits(originals: Sequence[Path], folder: Path, seed: int = 0) -> dict[Path, tuple[Path, str]]:
    """Write one edit of each picture, drawn at random. Returns the edited file and the edit's name by original."""
    names = np.random.default_rng(seed).choice([*EDITS], len(originals)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, (path, name) in enumerate(zip(originals, names, strict=True)):
        edited = folder / f"{number:05}.png"
        EDITS[name](opened(path)).save(edited)
        written[path] = edited, name
    return written


def write_dull(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write pictures that show next to nothing: of one colour, dark with some noise, and soft gradients, in turn."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in range(count):
        pixels = np.empty((240, 320, 3))
        pixels[:] = generator.integers(0, 256, 3)
        if number % 3 == 1:
            pixels = generator.normal(12, 6, pixels.shape)
        if number % 3 == 2:
            pixels += np.linspace(-60, 60, 320)[:, None] * generator.uniform(-1, 1, 3)
            pixels += np.linspace(-60, 60, 240)[:, None, None] * generator.uniform(-1, 1, 3)
        written.append(folder / f"{number:03}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(written[-1])
    return written
