"""Facts of a picture: what a device writes when it knows no time or place is not taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import ExifTags
from PIL.TiffImagePlugin import IFDRational

from indexer.pictures.facts import gps, taken_at

ORIGINAL, DIGITIZED = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized
NOWHERE = (IFDRational(0, 1),) * 3
UNKNOWN = (IFDRational(0, 0),) * 3


def place(latitude: Any, longitude: Any, south: str = "N", west: str = "E") -> tuple[float, float] | None:
    return gps({1: south, 2: latitude, 3: west, 4: longitude})


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (NOWHERE, NOWHERE),
        (UNKNOWN, UNKNOWN),
        ((0.0, 0.0, 0.0), UNKNOWN),
        ((91.0, 0.0, 0.0), (11.0, 0.0, 0.0)),
        ((48.0, 0.0, 0.0), (180.0, 0.0, 1.0)),
        ((48.0, 75.0, 0.0), (11.0, 0.0, 0.0)),
        ((48.0, 0.0, 0.0), (11.0, 0.0, 4_294_967_295.0)),
        ((-1.0, 0.0, 0.0), (11.0, 0.0, 0.0)),
    ],
)
def test_coordinates_that_say_nothing_or_cannot_be_are_no_place(latitude: Any, longitude: Any) -> None:
    assert place(latitude, longitude) is None
    assert place(latitude, longitude, "S", "W") is None


def test_real_places_are_kept_also_on_the_equator_and_the_prime_meridian() -> None:
    assert place((51.0, 28.0, 40.0), (0.0, 0.0, 0.0)) == pytest.approx((51.4777778, 0.0))
    assert place((0.0, 0.0, 0.0), (32.0, 30.0, 0.0)) == (0.0, 32.5)
    assert place((33.0, 51.0, 30.0), (151.0, 12.0, 0.0), "S") == pytest.approx((-33.8583333, 151.2))
    assert place((48.0, 8.5, 0.0), (180.0, 0.0, 0.0), west="W") == pytest.approx((48.1416667, -180.0))


@pytest.mark.parametrize(
    "time",
    [
        "1970:01:01 00:00:00",
        "1970:01:01 01:00:00",
        "1969:12:31 19:00:00",
        "1980:01:01 00:00:00",
        "1904:01:01 00:00:00",
        "1900:01:01 00:00:00",
        "1601:01:01 00:00:00",
        "0001:01:01 00:00:00",
        "0000:00:00 00:00:00",
        "9999:12:31 23:59:59",
        "2024:13:41 10:00:00",
        "    :  :     :  :  ",
    ],
)
def test_times_that_clocks_show_when_they_were_never_set_are_no_time(time: str) -> None:
    assert taken_at({ORIGINAL: time}) is None
    assert taken_at({ORIGINAL: time, DIGITIZED: "2024:07:01 10:00:00"}) == "2024-07-01T10:00:00"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1970:01:01 00:00:01", "1970-01-01T00:00:01"),
        ("1970:06:01 12:00:00", "1970-06-01T12:00:00"),
        ("1980:01:01 12:30:00", "1980-01-01T12:30:00"),
        ("1889:07:14 00:00:00", "1889-07-14T00:00:00"),
        ("2024-07-01T10:00:00", "2024-07-01T10:00:00"),
    ],
)
def test_real_times_are_kept_also_of_scanned_old_photographs(time: str, expected: str) -> None:
    assert taken_at({ORIGINAL: time}) == expected
