"""Which frame of an animation is the picture: the first, or where that is blank, the first that shows something."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import GifImagePlugin, Image

MAX_FRAMES = 64
"""Looked at: two seconds of a fade at 30 frames a second."""
MAX_PIXELS = 64_000_000
"""Decoded for that in all: half a second, whatever the frames' size."""
BLANK = 8.0
"""Levels of 255, standard deviation: a first frame with less is flat, or still nearly so."""
CLEAR = 32.0
"""Levels, standard deviation: a frame with as much is not looked behind."""
_SIDE = 64

Size = tuple[int, int]


def load_frame(image: Image.Image, *, check: Callable[[Size], None]) -> Image.Image:
    """Read the pixels of an opened picture's first frame; of an animation whose first is blank, of a later one.

    Only a frame with at least twice the contrast of the one chosen so far takes its place, so that a dim one keeps its
    first. check: told (width, height) in pixels of each frame, and raises where that is too large.
    """
    hole = _outside(image)
    image.load()
    check(image.size)  # of a GIF, the first frame may be larger than the header says
    if not getattr(image, "is_animated", False) or image.format not in ("GIF", "PNG", "WEBP", "AVIF"):
        return _on_canvas(image, hole)
    contrast = _contrast(image)
    if contrast >= BLANK:
        return _on_canvas(image, hole)
    chosen = _on_canvas(image.copy(), hole)
    frames = min(MAX_FRAMES, MAX_PIXELS // max(1, image.width * image.height))
    for number in range(1, frames):
        try:
            image.seek(number)
            image.load()
        except MemoryError:
            raise
        except Exception:  # the last frame, or a damaged one; of any type
            break
        check(image.size)
        found = _contrast(image)
        if found >= max(BLANK, 2 * contrast):
            chosen, contrast = image.copy(), found
        if contrast >= CLEAR:
            break
    chosen.format = image.format
    return chosen


def _contrast(image: Image.Image) -> float:
    """Standard deviation, in levels, of the channel that varies most; what is transparent counts as black and clear."""
    small = image.convert("RGBA").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    levels = np.asarray(small).astype(np.float64)
    levels[..., :3] *= levels[..., 3:] / 255
    return float(levels.std(axis=(0, 1)).max())


def _outside(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Where a GIF's first frame is, if its canvas is larger."""
    if not isinstance(image, GifImagePlugin.GifImageFile) or not image.tile:
        return None
    frame = image.tile[0].extents
    return frame if frame is not None and frame != (0, 0, *image.size) else None


def _on_canvas(image: Image.Image, frame: tuple[int, int, int, int] | None) -> Image.Image:
    """With what is outside of the frame transparent: Pillow fills it with the first colour of the palette."""
    if frame is None or frame == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas.paste(image.crop(frame).convert("RGBA"), frame[:2])
    canvas.info, canvas.format = dict(image.info), image.format
    canvas.info.pop("transparency", None)
    return canvas
