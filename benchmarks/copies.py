"""Copies of pictures: 27 kinds of edits at three strengths, for `duplicates.py`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Edit = Callable[[Image.Image, float], Image.Image]
"""Edits a picture at a strength, whose meaning is the edit's own."""


def _saved(image: Image.Image, kind: str, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, kind, quality=quality)
    return Image.open(data).convert("RGB")


def _scaled(image: Image.Image, wide: float, high: float) -> Image.Image:
    return image.resize((max(8, round(image.width * wide)), max(8, round(image.height * high))))


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """A picture without shares of its width and height at each side."""
    width, height = image.size
    box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    return image.crop(box)


def _centre(image: Image.Image, area: float) -> Image.Image:
    cut = (1 - area**0.5) / 2
    return cropped(image, cut, cut, cut, cut)


def gamma(image: Image.Image, exponent: float) -> Image.Image:
    """A picture whose levels, 0..1, are raised to a power."""
    return image.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)


def _hue(image: Image.Image, degrees: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + round(degrees / 360 * 256)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _warmed(image: Image.Image, share: float) -> Image.Image:
    gains = (1 + share, 1.0, 1 - share)
    return image.point([min(255, round(gain * value)) for gain in gains for value in range(256)])


def _sepia(image: Image.Image, share: float) -> Image.Image:
    brown = ImageOps.colorize(image.convert("L"), "black", (255, 240, 200), mid=(150, 110, 70))
    return Image.blend(image, brown, share)


def _noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _captioned(image: Image.Image, share: float) -> Image.Image:
    drawn, height = image.copy(), max(8, round(image.height * share))
    top = image.height - height
    ImageDraw.Draw(drawn).rectangle((0, top, image.width, image.height), fill="black")
    ImageDraw.Draw(drawn).text((4, top), "holidays 2026", fill="white", font_size=max(8, height - 4))
    return drawn


def _lettered(image: Image.Image, share: float) -> Image.Image:
    drawn, size = image.copy(), max(8, round(image.height * share))
    ImageDraw.Draw(drawn).text(
        (image.width / 2, 2),
        "WHEN IT RAINS",
        anchor="ma",
        fill="white",
        stroke_fill="black",
        stroke_width=max(1, size // 12),
        font_size=size,
    )
    return drawn


def _watermarked(image: Image.Image, opacity: float) -> Image.Image:
    layer = Image.new("L", image.size)
    size, draw = max(10, image.width // 8), ImageDraw.Draw(layer)
    for row in range(-1, 6):
        place = (image.width * (0.1 if row % 2 else 0.4), row * image.height / 5)
        draw.text(place, "SAMPLE", fill=round(255 * opacity), font_size=size)
    layer = layer.rotate(20)
    return Image.composite(Image.new("RGB", image.size, (128, 128, 128)), image, layer)


def _logo(image: Image.Image, share: float) -> Image.Image:
    drawn, side = image.copy(), max(8, round(share * min(image.size)))
    left, top = image.width - side - side // 8, image.height - side - side // 8
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((left, top, left + side, top + side), fill="orange", outline="black", width=max(1, side // 16))
    draw.text((left + side / 2, top + side / 2), "TV", fill="black", anchor="mm", font_size=max(6, side // 2))
    return drawn


def _framed(image: Image.Image, share: float) -> Image.Image:
    return ImageOps.expand(image, max(3, round(share * max(image.size))), "navy")


def _on_page(image: Image.Image, share: float) -> Image.Image:
    """On a white page of which it takes this share of each side, off the middle."""
    page = Image.new("RGB", (round(image.width / share), round(image.height / share)), "white")
    page.paste(image, (round((page.width - image.width) * 0.4), round((page.height - image.height) * 0.3)))
    return page


def _squared(image: Image.Image, grey: float) -> Image.Image:
    side = max(image.width, image.height, round(1.25 * min(image.size)))
    return ImageOps.pad(image, (side, side), color=(round(grey),) * 3)


def _turned(image: Image.Image, quarters: float) -> Image.Image:
    return image.rotate(90 * quarters, expand=True)


def _mirrored(image: Image.Image, quarters: float) -> Image.Image:
    return ImageOps.mirror(image).rotate(90 * quarters, expand=True)


def _slanted(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")


def _posterized(image: Image.Image, colours: float) -> Image.Image:
    return image.quantize(round(colours)).convert("RGB")


def _shared(image: Image.Image, side: float) -> Image.Image:
    """As a messenger sends it on: smaller, sharpened, a poor JPEG."""
    small = image.copy()
    small.thumbnail((round(side), round(side)))
    return _saved(small.filter(ImageFilter.UnsharpMask(1.5, 80)), "JPEG", 50)


COPIES: Mapping[str, tuple[Edit, tuple[float, float, float]]] = {
    "JPEG": (lambda image, quality: _saved(image, "JPEG", round(quality)), (50, 20, 8)),
    "WebP": (lambda image, quality: _saved(image, "WEBP", round(quality)), (60, 20, 5)),
    "smaller": (lambda image, share: _scaled(image, share, share), (0.6, 0.33, 0.2)),
    "squeezed": (lambda image, share: _scaled(image, share, 1), (0.9, 0.75, 0.6)),
    "sent on": (_shared, (320, 200, 128)),
    "blurred": (
        lambda image, share: image.filter(ImageFilter.GaussianBlur(share * max(image.size))),
        (1 / 400, 1 / 200, 1 / 100),
    ),
    "noisy": (_noisy, (8, 16, 32)),
    "brighter": (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), (1.2, 1.35, 1.5)),
    "darker": (gamma, (1.3, 1.7, 2.2)),
    "contrast": (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), (1.3, 0.6, 1.8)),
    "paler": (lambda image, factor: ImageEnhance.Color(image).enhance(factor), (0.6, 0.3, 0)),
    "brown": (_sepia, (0.4, 0.7, 1)),
    "warmer": (_warmed, (0.1, 0.2, 0.3)),
    "hue turned": (_hue, (10, 20, 30)),
    "few colours": (_posterized, (32, 16, 8)),
    "captioned": (_captioned, (0.08, 0.125, 0.2)),
    "lettered": (_lettered, (0.08, 0.12, 0.18)),
    "watermarked": (_watermarked, (0.3, 0.5, 0.8)),
    "logo": (_logo, (0.15, 0.22, 0.3)),
    "framed": (_framed, (0.03, 0.06, 0.12)),
    "on a page": (_on_page, (0.85, 0.7, 0.5)),
    "squared": (_squared, (255, 0, 128)),
    "cut, middle": (_centre, (0.85, 0.65, 0.45)),
    "cut, one side": (lambda image, share: cropped(image, share, 0, 0, share / 2), (0.1, 0.2, 0.33)),
    "mirrored": (_mirrored, (0, 2, 1)),
    "turned": (_turned, (1, 2, 3)),
    "turned a little": (_slanted, (2, 5, 10)),
}
"""Edits by name, and the strengths at which each is made: mild, middling, strong."""


def copy(image: Image.Image, kind: str, strength: int) -> Image.Image:
    """An edited copy of an RGB picture: one of COPIES, at its first, second or third strength."""
    edit, strengths = COPIES[kind]
    return edit(image, strengths[strength])
