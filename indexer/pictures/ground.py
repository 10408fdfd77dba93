"""The ground under a transparent picture: white, or a dark grey where white drawings would not be seen."""

from __future__ import annotations

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)
DARK = (64, 64, 64)
"""White and black both stand out from it."""
MAX_LOOKED_AT = 128
"""Pixels a side of what a picture is judged by."""
NEARLY_WHITE = 208
"""The darkest channel of a colour that is lost on white."""
MOST = 0.95
"""The share of all that is opaque, by its opacity, that must be nearly white. With less, the rest tells drawings apart
on white."""
LEAST_TRANSPARENT = 0.02
"""The share that must be transparent: a page with round corners is no drawing."""


def on_ground(rgba: Image.Image) -> Image.Image:
    """An RGBA picture laid on its ground: RGB. One that is transparent all over, but not of one colour, is opaque:
    writers of BMPs leave the fourth byte zero.
    """
    alpha = rgba.getchannel("A")
    drawn = alpha.getbbox()
    if drawn is None:
        rgb = rgba.convert("RGB")
        extrema = rgb.getextrema()
        flat = all(isinstance(channel, tuple) and channel[0] == channel[1] for channel in extrema)
        return Image.new("RGB", rgba.size, WHITE) if flat else rgb
    canvas = Image.new("RGB", rgba.size, _ground(rgba, drawn))
    canvas.paste(rgba, mask=alpha)
    return canvas


def _ground(rgba: Image.Image, drawn: tuple[int, int, int, int]) -> tuple[int, int, int]:
    size = min(MAX_LOOKED_AT, rgba.width), min(MAX_LOOKED_AT, rgba.height)
    seen = np.asarray(rgba.resize(size, Image.Resampling.NEAREST))
    if (seen[..., 3] >= 255 * (1 - LEAST_TRANSPARENT)).mean() > 1 - LEAST_TRANSPARENT:
        return WHITE
    if not seen[..., 3].any():  # a small drawing on a large sheet
        drawing = rgba.crop(drawn)
        seen = np.asarray(drawing.resize((min(size[0], drawing.width), min(size[1], drawing.height)), 0))
    opacity = seen[..., 3].astype(np.float64)
    pale = (seen[..., :3].min(axis=-1) >= NEARLY_WHITE) * opacity
    return DARK if pale.sum() >= MOST * opacity.sum() > 0 else WHITE
