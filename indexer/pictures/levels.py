"""Samples of any range as 0..255: by what the file declares, by the bits that are used, or by the values themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_LOOKED_AT = 262_144
"""Samples that tell the range of all: of a larger picture every n-th row and column."""
LOWEST_PERCENT, HIGHEST_PERCENT = 0.2, 99.8
"""Between these lies a picture without its dead and hot pixels, speckles and highlights."""
LEAST_SHARE = 0.25
"""Share of the range that a picture could have; one that takes less is stretched to what it takes."""
BLOCK_SAMPLES = 1_000_000
"""Converted at once: a picture is never in memory a second time as wide numbers, and these stay in the cache."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits of sensors and converters: the fewest that hold a picture's numbers are taken for its own."""
_SENTINELS = (-9_999.0, -99_999.0, -32_768.0, -32_767.0, -(2.0**31))
"""Numbers with which elevation models and instruments mark what they do not know, where they are the lowest."""
_HUGE = 1e38
"""Floats beyond this say that nothing is known here (GDAL and others write +-3.4e38)."""

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How samples become levels: `low` is black and `high` white; `shift`: by how many bits whole numbers go right
    instead, so that those of a known depth keep their high bits exactly.
    """

    low: float
    high: float
    shift: int | None = None


def to_levels(
    samples: NDArray[Any],
    *,
    depth: int | None = None,
    declared: Range | None = None,
    nodata: float | None = None,
    stretch: bool = True,
) -> NDArray[np.uint8]:
    """Numbers of any dtype and shape (height, width, ...) as uint8 of the same shape; what is not known becomes 0.

    depth: bits that hold every sample, where the file says so. declared: the lowest and highest value by the file.
    nodata: a value that stands for "not known"; so do NaN, infinities and, where lowest, the usual -9999 and -32768.
    stretch: what takes less than LEAST_SHARE of its range takes all of it.
    """
    step = step_between(samples.size)
    known = np.asarray(samples[::step, ::step], np.float64).ravel()
    known = known[_is_known(known, nodata)]
    if known.size == 0:
        return np.zeros(samples.shape, np.uint8)
    missing = nodata
    if missing is None and samples.dtype.kind in "if" and float(known.min()) in _SENTINELS:
        missing = float(known.min())
        known = known[known != missing]
        if known.size == 0:
            return np.zeros(samples.shape, np.uint8)
    if missing is None:
        levels = _levels_of(known, samples.dtype, depth, declared, stretch)
    else:
        low, high = _robust(known)
        levels = Levels(low=low, high=high)  # heights, temperatures: nothing says where black is
    result = np.empty(samples.shape, np.uint8)
    for top, bottom in row_blocks(len(samples), samples.size):
        result[top:bottom] = converted(samples[top:bottom], levels, missing)
    return result


def step_between(samples: int) -> int:
    """1 where all rows and columns of a picture of so many samples are looked at, n where every n-th is."""
    return max(1, int((samples / MAX_LOOKED_AT) ** 0.5))


def row_blocks(height: int, samples: int) -> Iterator[tuple[int, int]]:
    """The first row, and the one after the last, of each part of a picture that is converted at once."""
    step = max(1, BLOCK_SAMPLES * height // max(1, samples))
    return ((top, min(height, top + step)) for top in range(0, height, step))


def levels_of_deep(looked_at: NDArray[np.uint16]) -> Levels:
    """The levels of a picture of 16 bits, of which these samples are looked at."""
    return _levels_of(looked_at.astype(np.float64).ravel(), looked_at.dtype, None, None, True)


def converted(block: NDArray[Any], levels: Levels, nodata: float | None = None) -> NDArray[np.uint8]:
    """Some of a picture's samples as uint8 of the same shape."""
    if levels.shift is not None and block.dtype.kind == "u":
        wide = np.minimum(block >> np.asarray(levels.shift, block.dtype), 255)
    else:
        numbers: NDArray[Any] = block.astype(np.float64 if block.dtype.itemsize > 2 else np.float32)
        unknown = ~np.isfinite(numbers)
        numbers[unknown] = levels.low
        if levels.shift is not None:
            wide = np.clip(numbers / 2**levels.shift + 1e-9, 0, 255)
        else:
            span = levels.high - levels.low
            wide = np.rint(np.clip((numbers - levels.low) * (255 / span if span > 0 else 0), 0, 255))
    grey: NDArray[np.uint8] = wide.astype(np.uint8)
    if nodata is not None or block.dtype.kind == "f":
        grey[~_is_known(block, nodata)] = 0
    return grey


def to_opacity(samples: NDArray[Any], bits: int, *, most: int | None = None) -> NDArray[np.uint8]:
    """Opacity of any dtype as uint8 of the same shape; as with colours, 12 bits may lie in 16.

    bits: of a sample. most: the highest sample of the picture, where these are a part of it.
    """
    if samples.dtype.kind == "f":
        top = 1.0
    elif samples.dtype.kind == "i":
        top = 2.0 ** (bits - 1) - 1
    else:
        most = int(samples.max(initial=0)) if most is None else most
        top = 2.0 ** min(bits, next((depth for depth in DEPTHS if most < 2**depth), bits)) - 1
    opacity: NDArray[np.float32] = np.nan_to_num(samples.astype(np.float32)) * np.float32(255 / top)
    return np.clip(opacity, 0, 255).astype(np.uint8)


def fills_its_range(high: NDArray[np.uint8]) -> bool:
    """Whether a picture of 16 bits is as light as its high bytes are. high: those that are looked at, of any shape."""
    low, most = _robust(high.astype(np.float64).ravel())
    return bool(most >= 64 and most - low >= 256 * LEAST_SHARE)


def _is_known(samples: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.ones(samples.shape, np.bool_)
    if samples.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            known &= np.abs(samples.astype(np.float64, copy=False)) < _HUGE
    if nodata is not None:
        known &= ~np.isclose(samples.astype(np.float64, copy=False), nodata, rtol=1e-6, atol=0)
    return known


def _levels_of(
    known: NDArray[np.float64], dtype: np.dtype[np.generic], depth: int | None, declared: Range | None, stretch: bool
) -> Levels:
    low, high = _robust(known)
    whole = dtype.kind in "ui" or (1 < high <= 255 and bool((known == np.rint(known)).all()))
    if low == high and dtype.kind == "u" and dtype.itemsize <= 2:  # one value alone tells nothing of what it means
        depth = depth or 8 * dtype.itemsize
    levels = _expected(low, high, whole, depth, declared)
    if stretch and 0 < high - low < LEAST_SHARE * (levels.high - levels.low):
        return Levels(low=low, high=high)
    return levels


def _robust(known: NDArray[np.float64]) -> Range:
    """The lowest and highest value; without those that are farther off than all the others are wide."""
    low, high = (float(value) for value in np.percentile(known, (LOWEST_PERCENT, HIGHEST_PERCENT)))
    least, most, span = float(known.min()), float(known.max()), high - low
    if span <= 0:  # nearly all are one value: the rest is the picture
        return least, most
    return (least if low - least <= span else low), (most if most - high <= span else high)


def _expected(low: float, high: float, whole: bool, depth: int | None, declared: Range | None) -> Levels:
    """The range that values like these are written in, whether or not a picture fills it."""
    if declared is not None and declared[0] <= low and high <= declared[1]:
        bits = int(declared[1]).bit_length()
        if declared[0] == 0 and whole and declared[1] == 2**bits - 1 and bits >= 8:
            return Levels(low=0, high=declared[1], shift=bits - 8)
        return Levels(low=declared[0], high=declared[1])
    if low >= 0 and whole and high < 65_536:
        bits = depth or next(bits for bits in DEPTHS if high < 2**bits)
        return Levels(low=0, high=2**bits - 1, shift=bits - 8 if bits >= 8 else None)
    return Levels(low=0, high=1) if low >= 0 and high <= 1 else Levels(low=low, high=high)
