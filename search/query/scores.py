"""What scores mean: the false-match rates of hits, and the least score that a rate allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.calibration import Calibration
from search.catalog.spaces import Calibrations
from search.errors import QueryInvalid
from search.generations.false_matches import MIN_IMAGES, FalseMatches, auto_rate
from search.query.aspects import WeightedVectors
from search.query.snapshot import Snapshot
from search.types import AUTO, Aspect, Query


@dataclass(frozen=True)
class Rates:
    """The false-match rates of one query's scores. views: of the query; its scores are the best of them. shift: what is
    subtracted from them (`background`): of several views the most, so that the rate is no lower than the true one.
    calibration: of the space, if it has one."""

    known: FalseMatches
    views: int
    shift: float
    calibration: Calibration | None = None

    def of(self, score: float) -> float:
        """The rate of a score, to three digits."""
        return float(f"{self.known.rate(score - self.shift, self.views):.3g}")

    def probability(self, score: float) -> float | None:
        """How probable it is that a hit with a score is alike, if the space is calibrated."""
        return None if self.calibration is None else self.calibration.of(self.of(score))

    def score(self, rate: float) -> float:
        """The least score with at most this rate."""
        return self.known.score(rate, self.views) + self.shift


def rates_of(
    snapshot: Snapshot,
    aspects: Sequence[Aspect],
    sought: Sequence[WeightedVectors],
    calibrations: Calibrations,
) -> Rates | None:
    """The rates of a query of one image; None where the space has none, or where it is words, a mixture, or adapted to
    feedback: their cosines with random images are not those of an image."""
    first = aspects[0].parts[0]
    if len(aspects) > 1 or len(aspects[0].parts) > 1 or aspects[0].weight * first.weight < 0:
        return None
    if first.of_words or first.searched:
        return None
    view = snapshot.spaces[sought[0].space]
    base = view.base
    if base is None or base.false_matches is None:
        return None
    vectors = sought[0].vectors
    shift = 0.0 if base.background is None else float(base.background.shifts(vectors).max())
    return Rates(base.false_matches, len(vectors), shift, calibrations.get(view.space.identity))


def least_score(query: Query, rates: Rates | None, images: int) -> float | None:
    """The score that a hit needs, by the query's `min_score` and `max_fmr`; None where any will do. images: of the
    index. Raises QueryInvalid."""
    if query.max_fmr in (None, 1) or (query.max_fmr == AUTO and rates is None):
        return query.min_score
    if rates is None:
        raise QueryInvalid(
            "No false-match rate is known for this query. It needs one image, not words or a mixture, and a space that "
            f"was published with at least {MIN_IMAGES} different images (lookalike rebuild). Or send min_score, or "
            f"max_fmr `{AUTO}`."
        )
    wanted = auto_rate(images) if query.max_fmr == AUTO else float(query.max_fmr)
    cut = rates.score(wanted)
    return cut if query.min_score is None else max(cut, query.min_score)
