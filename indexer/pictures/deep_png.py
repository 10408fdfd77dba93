"""Colours of sixteen bits in a PNG: Pillow reads the high eight, and where these are not enough, all are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from indexer.pictures.levels import fills_its_range, to_levels, to_opacity

LOW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""For Pillow's way to read the high byte of each sample, one that gives the low byte in its place, or both in turn."""


def high_bytes(image: Image.Image) -> str | None:
    """Pillow's way to read a PNG, if it takes only the high byte of colours; to be asked before pixels are read."""
    tile = getattr(image, "tile", None)
    if image.format != "PNG" or not tile or getattr(image, "is_animated", False):
        return None
    return tile[0].args if tile[0].args in LOW else None


def with_low_bytes(image: Image.Image, reopen: Callable[[], Image.Image], way: str) -> Image.Image:
    """The picture with its levels as `levels` has them, where it uses a small part of its range; else as it is.

    way: of `high_bytes`. reopen: gives the picture again, its pixels not read yet: they are decoded a second time.
    """
    high = np.asarray(image)
    if fills_its_range(high[..., :3]):
        return image
    again: Any = reopen()
    again.tile = [again.tile[0]._replace(args=LOW[way])]
    again.load()
    low = np.asarray(again)
    if way == "LA;16B":  # high and low byte of grey, then of opacity
        low = low[..., [1, 1, 1, 3]]
    samples = high.astype(np.uint16) << 8 | low
    colours = samples[..., :3]
    result = Image.fromarray(to_levels(colours))
    transparent = image.info.get("transparency")
    if image.mode == "RGBA":
        result.putalpha(Image.fromarray(to_opacity(samples[..., 3], 16)))
    elif isinstance(transparent, tuple):
        result.putalpha(Image.fromarray(np.where((colours == transparent).all(axis=-1), 0, 255).astype(np.uint8)))
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    result.format = image.format
    return result
