"""Facts of a picture file besides its pixels: when, with what and where it was taken, and its hash."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from PIL import ExifTags, Image

CAMERA_LENGTH = 80
"""Characters kept of maker and model together; real ones take less than 50."""
_TIMES = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized)
"""Not DateTime, which editing programs set to when they last wrote the file."""
_TIME = re.compile(r"\s*(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)

_YEARS = range(1826, 2100)
"""From the first photograph on; digitised ones have the years of their originals."""
_EPOCH, _FARTHEST_ZONE = datetime(1970, 1, 1), timedelta(hours=14)
_ZEROS = frozenset(datetime(year, 1, 1) for year in (1900, 1904, 1980))
"""The zeros of other clocks: of spreadsheets, QuickTime, and FAT, to which cameras fall back."""

_HASHED_SIDE, _KEPT_SIDE = 32, 8


def taken_at(exif: Mapping[int, Any]) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS` from the Exif sub-directory, where DateTimeOriginal or DateTimeDigitized is a real time:
    not one that a clock shows which was never set."""
    for tag in _TIMES:
        if match := _TIME.match(str(exif.get(tag, ""))):
            try:
                year, month, day, hour, minute, second = map(int, match.groups())
                time = datetime(year, month, day, hour, minute, second)
            except ValueError:  # 0000:00:00 is what a camera without a clock writes
                continue
            if year in _YEARS and not _is_zero(time):
                return time.isoformat()
    return None


def _is_zero(time: datetime) -> bool:
    """Whether it is the zero of a clock; Unix's in the zone of any place."""
    return time in _ZEROS or (abs(time - _EPOCH) <= _FARTHEST_ZONE and time.minute == time.second == 0)


def camera(exif: Mapping[int, Any]) -> str | None:
    """Maker and model in one line of printable text; the maker once, where the model repeats it."""
    make, model = _text(exif.get(ExifTags.Base.Make)), _text(exif.get(ExifTags.Base.Model))
    named = model if make and model.lower().startswith(make.lower()) else f"{make} {model}"
    return named.strip()[:CAMERA_LENGTH].strip() or None


def gps(directory: Mapping[int, Any]) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees, south and west negative, from the GPS sub-directory, where it has both.

    (0, 0), in the Gulf of Guinea, is what phones write that do not know where they are.
    """
    try:
        latitude = _degrees(directory[ExifTags.GPS.GPSLatitude], directory[ExifTags.GPS.GPSLatitudeRef], "S")
        longitude = _degrees(directory[ExifTags.GPS.GPSLongitude], directory[ExifTags.GPS.GPSLongitudeRef], "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if abs(latitude) > 90 or abs(longitude) > 180 or latitude == longitude == 0:
        return None
    return latitude, longitude


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit DCT hash of an RGB image, as a signed integer; few differing bits mean a near copy.

    Grey, 32 x 32, 2-D DCT-II, the 8 x 8 lowest frequencies against their median: Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions" (2010), in the form of the ImageHash project's `phash`.
    """
    side = _HASHED_SIDE
    small = image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0).convert("L")
    frequencies = np.arange(_KEPT_SIDE)[:, None] * (2 * np.arange(side)[None, :] + 1)
    basis = np.cos(np.pi * frequencies / (2 * side))
    # rounded, so that the zeros of a flat picture are equal instead of noise of 1e-13
    lowest = np.round(basis @ np.asarray(small, dtype=np.float64) @ basis.T, 6)
    bits = np.packbits(lowest > np.median(lowest))
    return int.from_bytes(bits.tobytes(), "big", signed=True)


def _text(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * CAMERA_LENGTH])
    return " ".join(printable.split())


def _degrees(value: Any, reference: Any, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    angle = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(angle) or degrees < 0 or not 0 <= minutes <= 60 or not 0 <= seconds <= 60:
        raise ValueError("not an angle")
    sign = -1 if _text(reference).upper().startswith(negative) else 1
    return round(sign * angle, 7)  # 1 cm
