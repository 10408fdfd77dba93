"""Colour profiles: numbers of any colour space become sRGB, which every model was trained on and every page shows."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 * 1024 * 1024
"""Printers' profiles have up to 3 MB."""
KEPT_TRANSFORMS = 16
"""A camera writes the same profile into every file; to make a transform costs 2 ms, a printer's 50."""
SAME_LEVELS = 3
"""Levels, of 255, up to which a profile is sRGB by another name. Nearly all profiles in files are."""
_SPACES = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Modes that can be converted, and the colour space that their profile must be of."""


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB, by the profile that it brings: RGB or RGBA where anything changes, else the same object.

    Profiles that are broken, too large, or of another colour space than the pixels are passed over.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile or len(profile) > MAX_PROFILE_BYTES:
        return image
    clear = image.has_transparency_data
    if image.mode in ("P", "PA", "RGBX", "YCbCr"):
        mode = "RGBA" if clear else "RGB"
    else:
        mode = {"RGB": "RGBA", "LA": "L"}.get(image.mode, image.mode) if clear else image.mode
    if mode not in _SPACES or (transform := _transform(profile, mode)) is None:
        return image
    if mode != "L" or not clear:
        return _applied(image if image.mode == mode else image.convert(mode), transform)
    grey = image.convert("LA")
    rgb = _applied(grey.getchannel("L"), transform)
    rgb.putalpha(grey.getchannel("A"))
    return rgb


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None  # it is None only where the conversion is in place
    return changed


@lru_cache(KEPT_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's space to sRGB; None where that changes nothing, or cannot be done."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGBA" if mode == "RGBA" else "RGB")
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except Exception:  # of several types: it parses what a file brings
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 16).astype(np.uint8)
    if mode == "L":
        colours = Image.fromarray(levels[None, :])
    else:
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        colours = Image.fromarray(cube.reshape(16, -1, 3)).convert(mode)
    before = np.asarray(colours.convert("RGB")).astype(np.int16)
    after = np.asarray(_applied(colours, transform).convert("RGB"))
    return bool(np.abs(after - before).max() <= SAME_LEVELS)
