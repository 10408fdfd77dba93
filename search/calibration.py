"""Calibration: how probable it is that a hit is alike, told from its false-match rate by labels of the index's own."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How probable it is that a hit of a space is alike, as labels say.

    rates: false-match rates, falling; probabilities: of each of them, 0..1, not falling. labels: where they came from;
    images, queries: how many had labels, and asked; error: by how much probabilities were wrong of queries that they
    were not fitted to, in the mean over bins.
    """

    labels: str
    images: int
    queries: int
    error: float
    rates: tuple[float, ...]
    probabilities: tuple[float, ...]

    def of(self, rate: float) -> float:
        """The probability of a hit with this false-match rate, to three digits: by a line in log rate between two."""
        place = bisect_left(self.rates, -rate, key=lambda one: -one)
        if place == 0:
            return self.probabilities[0]
        if place == len(self.rates):
            return self.probabilities[-1]
        high, low = self.rates[place - 1 : place + 1]
        begin, end = self.probabilities[place - 1 : place + 1]
        share = math.log(rate / high) / math.log(low / high)
        return round(begin + share * (end - begin), 3)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Rebuild a calibration from `to_json`'s answer."""
        return cls(**{**data, "rates": tuple(data["rates"]), "probabilities": tuple(data["probabilities"])})
