"""Calibration: how probable it is that a hit is alike, told from its false-match rate by labels of the index's own."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Probabilities by false-match rate. rates: falling, above 0; probabilities: of each of them, 0..1, not falling."""

    rates: tuple[float, ...]
    probabilities: tuple[float, ...]

    def of(self, rate: float) -> float:
        """The probability of a hit with this false-match rate, to three digits: by a line in log rate between two,
        constant beyond the first and the last."""
        place = bisect_left(self.rates, -rate, key=lambda one: -one)
        if place in (0, len(self.rates)):
            return round(self.probabilities[-1 if place else 0], 3)
        high, low = self.rates[place - 1 : place + 1]
        begin, end = self.probabilities[place - 1 : place + 1]
        return round(begin + (end - begin) * math.log(rate / high) / math.log(low / high), 3)


@dataclass(frozen=True, kw_only=True)
class Calibration(Curve):
    """How probable it is that a hit of a space is alike, as labels say.

    labels: where they came from; images, queries: how many had labels, and asked; error: by how much probabilities were
    wrong of queries that they were not fitted to, in the mean over hits.
    """

    labels: str
    images: int
    queries: int
    error: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Rebuild a calibration from `to_json`'s answer."""
        return cls(**{**data, "rates": tuple(data["rates"]), "probabilities": tuple(data["probabilities"])})
