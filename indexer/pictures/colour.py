"""Any picture mode as RGB: transparency on its ground, deep grey scaled instead of clipped."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from indexer.pictures.ground import on_ground
from indexer.pictures.levels import to_levels


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, with nothing of the file's metadata left in `info`; an RGB image is changed in place.

    Transparent pixels are laid on white, or where only white is drawn on a dark grey, see `ground`. Grey of 16 and 32
    bits and of floats becomes 8 bits by its range, see `levels`.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        rgb = _deep_grey(image)
    elif image.mode == "LAB":
        rgb = _from_lab(image)
    elif image.has_transparency_data:
        rgb = _on_ground(image)
    elif image.mode == "RGB":
        rgb = image  # nearly every picture: a copy would cost a quarter of a second at 250 megapixels
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _on_ground(image: Image.Image) -> Image.Image:
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparency)  # of a 16-bit PNG, read as 8-bit
    return on_ground(image.convert("RGBA"))


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    grey = Image.fromarray(to_levels(values))
    if not isinstance(transparent, int):
        return grey.convert("RGB")
    grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return on_ground(grey.convert("RGBA"))


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert rgb is not None  # it is None only where the conversion is in place
    return rgb
