"""Detail: whether a picture has no more of it than a smaller one can hold, as an enlarged copy has not."""

from __future__ import annotations

from math import log

import numpy as np
from PIL import Image

from analysis.duplicates.small import Floats

MAX_LOST = 0.5
"""What an enlarged copy loses at most at its former size, as a share of what a photo loses, whose details are as strong
at one size as at the next. Photos of scratch lost .55 of that and more, when they were enlarged 1.5 times or more .42
and less."""
MAX_SIDE = 1_024
"""Pixels a side of the middle that is looked at."""


def is_enlarged(picture: Image.Image, share: float) -> bool:
    """Whether all that an RGB picture shows can be held with a share of its width and height, below 1."""
    width, height = (min(side, MAX_SIDE) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    grey = picture.convert("L").crop((left, top, left + width, top + height))
    return _lost(grey, share) < MAX_LOST * _lost(grey, share / 2) * log(1 / share) / log(2 / share)


def _lost(grey: Image.Image, share: float) -> float:
    """The mean square of what a picture loses, in levels, when it is made smaller and large again."""
    size = max(4, round(share * grey.width)), max(4, round(share * grey.height))
    again = grey.resize(size, Image.Resampling.LANCZOS).resize(grey.size, Image.Resampling.BICUBIC)
    lost: Floats = np.asarray(grey, dtype=np.float32) - np.asarray(again, dtype=np.float32)
    return float((lost**2).mean())
