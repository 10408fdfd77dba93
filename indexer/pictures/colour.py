"""Any picture mode as RGB: transparency on white, deep grey scaled instead of clipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, with nothing of the file's metadata left in `info`; an RGB image is changed in place.

    Transparent pixels are laid on white. 16-bit grey keeps its high byte, as Pillow's own 16-bit colour does; 32-bit
    and float grey, whose range the mode does not tell, see `_eight_bits`.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        rgb = _deep_grey(image).convert("RGB")
    elif image.mode == "LAB":
        rgb = _from_lab(image)
    elif image.has_transparency_data:
        rgb = _on_white(image)
    elif image.mode == "RGB":
        rgb = image  # nearly every picture: a copy would cost a quarter of a second at 250 megapixels
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _on_white(image: Image.Image) -> Image.Image:
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparency)  # of a 16-bit PNG, read as 8-bit
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, WHITE)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8) if image.mode.startswith("I;16") else _eight_bits(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey of unknown range to 0..255: taken for 0..1 (floats), 0..255 or 0..65,535 where it fits, else stretched from
    its minimum to its maximum. What is not a finite number becomes black."""
    wide = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    if low < 0 or high > 65_535:
        wide = wide - low
        scale = 255 / (high - low) if high > low else 0.0
    elif high > 255:
        scale = 255 / 65_535
    elif high <= 1 and values.dtype.kind == "f":
        scale = 255.0
    else:
        scale = 1.0
    grey: NDArray[np.uint8] = np.clip(np.rint(wide * scale), 0, 255).astype(np.uint8)
    return grey


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert rgb is not None  # it is None only where the conversion is in place
    return rgb
