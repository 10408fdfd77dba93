"""Colours of sixteen bits in a PNG: Pillow reads the high eight, and where these are not enough, all are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from indexer.pictures.levels import converted, fills_its_range, levels_of_deep, row_blocks, step_between, to_opacity

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

    way: of `high_bytes`. reopen: gives the picture again, its pixels not read yet: they are decoded a second time. That
    takes as much memory again, and no more. Where there is not as much, the picture is as dark as its high bytes.
    """
    step = step_between(3 * image.width * image.height)
    rows = range(0, image.height, step)
    if fills_its_range(np.stack([_rows(image, top, top + 1)[0, ::step, :3] for top in rows])):
        return image
    try:
        again = reopen()
        assert isinstance(again, ImageFile.ImageFile), "a PNG is read from its file"
        return _with_levels(image, again, way, step)
    except MemoryError:
        return image


def _with_levels(image: Image.Image, again: ImageFile.ImageFile, way: str, step: int) -> Image.Image:
    """The levels, written over the low bytes as they are read: the high bytes stay, for a lack of memory on the way."""
    again.tile = [again.tile[0]._replace(args=LOW[way])]
    again.load()

    def samples(top: int, bottom: int) -> NDArray[Any]:  # uint16
        high, low = _rows(image, top, bottom), _rows(again, top, bottom)
        # LA: high and low byte of grey, then of opacity. Else it may have been given an opacity that `image` lacks.
        low = low[..., [1, 1, 1, 3]] if way == "LA;16B" else low[..., : high.shape[-1]]
        return high.astype(np.uint16) << 8 | low

    levels = levels_of_deep(np.stack([samples(top, top + 1)[0, ::step, :3] for top in range(0, image.height, step)]))
    bands: Any = image.getextrema()
    transparent = image.info.get("transparency") if image.mode == "RGB" else None
    if isinstance(transparent, tuple):
        again.putalpha(255)
    for top, bottom in row_blocks(image.height, 4 * image.width * image.height):
        block = samples(top, bottom)
        colours = block[..., :3]
        part = Image.fromarray(converted(colours, levels))
        if image.mode == "RGBA":  # the high byte tells of how many bits the highest is
            part.putalpha(Image.fromarray(to_opacity(block[..., 3], 16, most=bands[3][1] << 8 | 255)))
        elif isinstance(transparent, tuple):
            part.putalpha(Image.fromarray(np.where((colours == transparent).all(axis=-1), 0, 255).astype(np.uint8)))
        again.paste(part, (0, top))
    again.info.pop("transparency", None)
    return again


def _rows(image: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    return np.asarray(image.crop((0, top, image.width, bottom)))
