"""False-match rates: which share of random pairs of different images of a space has at least a score.

A score by itself means something else in every space, and for every query. Its false-match rate (FMR) means the same in
all: of 1e-3, one of a thousand images taken at random looks as much like the query, by chance. Scores here are cosines
less what `background` says of the query.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from search.generations.ann import Vectors
from search.generations.background import Background
from search.generations.transform import are_near
from search.types import JsonObject

MIN_IMAGES = 100
"""Images below which no rate is measured: they make 4,950 pairs. Of fewer, a rate of 1e-3 is wrong by more than two."""
ASKED, AGAINST = 2_048, 8_192
"""Images whose cosines are compared with those of others, and those others, at most: 14.7 million pairs."""
PAIRS_OF_TAIL, PAIRS_PER_TAIL = 200, 50
"""Highest cosines that a tail is fitted to, and one of so many pairs at most. Rates of more pairs are counted."""
DIGITS = 6
"""Of a score in a curve."""
MIN_PAIRS = 2_000
"""Pairs of different images below which no rate is known: of 100 images, half may be copies of others."""
ROWS = 256
"""Images whose cosines with all others are computed at once."""
MIN_SHAPE = 1e-6
"""Shapes of a tail below this are an exponential distribution's."""
STEPS_PER_DECADE = 8
"""Rates that a curve lists between one power of ten and the next; between two of them it is a line in log rate."""
BEYOND = 100
"""How far a tail is believed: to a rate of one in so many times the pairs that were compared."""
GROWTH = 1.25
"""Growth of a space, as a factor, from which on its rates are measured again."""
MAX_RATE, IMAGES_BY_CHANCE = 0.05, 20
"""The cut `auto`: the rate at which so many images of the index are expected by chance, and at most this rate."""


@dataclass(frozen=True)
class FalseMatches:
    """The false-match rates of a space's normalised scores. scores: ascending; rates: of each of them, falling, the
    first is 1."""

    scores: tuple[float, ...]
    rates: tuple[float, ...]

    def rate(self, score: float, views: int = 1) -> float:
        """The rate of a score. views: of how many queries it is the best; the rate is at most the sum of theirs."""
        place = bisect_right(self.scores, score)
        if place in (0, len(self.scores)):
            return min(1.0, views * (self.rates[-1] if place else 1.0))
        (low, high), (begin, end) = self.scores[place - 1 : place + 1], self.rates[place - 1 : place + 1]
        rate = begin * math.pow(end / begin, (score - low) / (high - low))
        return min(1.0, views * rate)

    def score(self, rate: float, views: int = 1) -> float:
        """The least score with at most this rate; the lowest known where every score has it, the highest known where
        none has."""
        logs = -np.log(self.rates)
        return float(np.interp(-np.log(rate / views), logs, self.scores))

    def to_json(self) -> JsonObject:
        """As a manifest has it."""
        return {"scores": [*self.scores], "rates": [*self.rates]}

    @classmethod
    def from_json(cls, facts: JsonObject) -> FalseMatches:
        """The reverse of `to_json`. Raises ValueError, KeyError, TypeError where it is not one."""
        scores, rates = tuple(map(float, facts["scores"])), tuple(map(float, facts["rates"]))
        ascending = all(one < other for one, other in pairwise(scores))
        falling = all(one > other > 0 for one, other in pairwise(rates))
        if len(scores) != len(rates) or not rates or rates[0] != 1 or not (ascending and falling):
            raise ValueError("false-match rates must fall from 1 while their scores rise")
        return cls(scores, rates)


def auto_rate(images: int) -> float:
    """The false-match rate of the cut `auto` in an index of so many images."""
    return min(MAX_RATE, IMAGES_BY_CHANCE / max(1, images))


def must_measure(facts: JsonObject | None, images: int) -> bool:
    """Whether a space of so many images needs its rates measured. facts: what the manifest says of it."""
    if facts is not None and "regions" in facts["recipe"]:  # the best of several scores has another rate
        return False
    known = {} if facts is None else facts.get("fmr", {})
    return images >= MIN_IMAGES and images >= GROWTH * known.get("images", 0)


def measure(
    vectors: Vectors,
    hashes: Sequence[int | None],
    *,
    background: Background,
    min_cosine: float,
    pause: Callable[[], None],
) -> FalseMatches | None:
    """Compare pairs of a space's different images; None where there are too few pairs.

    vectors: (n, dim) float32 of unit length, as they are searched, of up to AGAINST images drawn at random, in random
    order, no two of them equal; hashes: their n perceptual hashes, None where there is none. background: normalises
    scores. min_cosine: of copies, which are no pairs of different images, if their hashes are near too. pause: called
    now and then; what it raises comes through.
    """
    known = np.array([one is not None for one in hashes], dtype=np.bool_)
    bits = np.array([one or 0 for one in hashes], dtype=np.int64).view(np.uint64)
    pairs = [np.empty(0, dtype=np.float32)]
    for start in range(0, min(ASKED, len(vectors)), ROWS):
        pause()
        rows = np.arange(start, min(start + ROWS, ASKED, len(vectors)))
        cosines = vectors[rows] @ vectors[start:].T
        different = np.arange(start, len(vectors)) > rows[:, None]
        row, column = np.nonzero(different & (cosines >= min_cosine))
        one, other = rows[row], start + column
        copies = known[one] & known[other] & are_near(bits[one], bits[other])
        different[row[copies], column[copies]] = False
        pairs.append((cosines - background.shifts(vectors[rows])[:, None])[different])
    return _curve(np.sort(np.concatenate(pairs)))


def _curve(cosines: Vectors) -> FalseMatches | None:
    """The curve of ascending scores of pairs, (n,): counted, and of the highest ones fitted."""
    count = len(cosines)
    if count < MIN_PAIRS:
        return None
    tail = min(PAIRS_OF_TAIL, count // PAIRS_PER_TAIL)
    rates = 10 ** (-np.arange(STEPS_PER_DECADE * np.log10(BEYOND * count)) / STEPS_PER_DECADE)
    counted = rates * count >= tail
    among = cosines[count - np.round(rates[counted] * count).astype(np.int64)].astype(np.float64)
    beyond = _tail(cosines[-tail - 1 :].astype(np.float64), rates[~counted] * count / tail)
    scores = np.maximum.accumulate(np.concatenate([among, beyond]))  # the fit may begin below what was counted
    scores, first = np.unique(np.round(scores, DIGITS), return_index=True)
    kept = rates[first]
    if kept[-1] > rates[-1]:  # no pair is above the last score
        scores, kept = np.append(scores, scores[-1] + 10.0**-DIGITS), np.append(kept, rates[-1])
    return FalseMatches(tuple(scores.tolist()), tuple(float(f"{rate:.4g}") for rate in kept))


def _tail(highest: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores that only these shares of the highest cosines exceed, by a generalised Pareto distribution.

    highest: ascending, the first is the threshold that the others exceed. Fitted by probability-weighted moments
    (Hosking and Wallis, Technometrics 29, 1987), which few and clustered values do not lead astray.
    """
    excess = highest[1:] - highest[0]
    ranks = (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
    mean, weighted = excess.mean(), ((1 - ranks) * excess).mean()
    spread = mean - 2 * weighted
    if spread <= 0:  # all are equal
        return np.full(len(shares), highest[-1])
    shape, scale = mean / spread - 2, 2 * mean * weighted / spread
    bends = abs(shape) > MIN_SHAPE
    beyond = scale * (1 - shares**shape) / shape if bends else -scale * np.log(shares)
    scores: NDArray[np.float64] = highest[0] + beyond
    return scores
