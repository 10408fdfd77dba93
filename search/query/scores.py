"""What scores mean: the false-match rates of hits, and the least score that a rate allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.calibration import Calibration
from search.catalog.spaces import Calibrations
from search.errors import QueryInvalid
from search.generations.false_matches import MIN_IMAGES, FalseMatches, auto_rate
from search.query.aspects import Target
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
    query: Query,
    aspects: Sequence[Aspect],
    sought: Sequence[Target],
    calibrations: Calibrations,
) -> Rates | None:
    """The rates of a query of one image, or by the best of several in one space, as of views of one.

    None where the space has none, or where it is words, a mixture, or adapted to feedback: their cosines with random
    images are not those of an image.
    """
    first = aspects[0].parts[0]
    if query.combine == "best":
        mixture = any((target.scale, target.shift) != (1.0, 0.0) for target in sought)  # of spaces, or with words
    else:
        mixture = len(aspects) > 1 or len(aspects[0].parts) > 1 or aspects[0].weight * first.weight < 0
    if mixture or first.of_words or any(part.searched for aspect in aspects for part in aspect.parts):
        return None
    view = snapshot.spaces[sought[0].space]
    base = view.base
    if base is None or base.false_matches is None:
        return None
    vectors = np.concatenate([target.vectors for target in sought if not target.vetoes])
    shift = 0.0 if base.background is None else float(base.background.shifts(vectors).max())
    return Rates(base.false_matches, len(vectors), shift, calibrations.get(view.space.identity))


def least_score(query: Query, rates: Rates | None, images: int) -> float | None:
    """The score that a hit needs, by the query's `min_score` and `max_fmr`; None where any will do. images: of the
    index. Raises QueryInvalid."""
    if query.max_fmr in (None, 1) or (query.max_fmr == AUTO and rates is None):
        return query.min_score
    if rates is None:
        raise QueryInvalid(
            "No false-match rate is known for this query. It needs one image, not words or a mixture (or combine "
            f"`best` of images in one space), and a space, not of regions, that was published with at least "
            f"{MIN_IMAGES} different images (lookalike rebuild). Or send min_score, or max_fmr `{AUTO}`."
        )
    wanted = auto_rate(images) if query.max_fmr == AUTO else float(query.max_fmr)
    cut = rates.score(wanted)
    return cut if query.min_score is None else max(cut, query.min_score)
