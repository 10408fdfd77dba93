"""Fitting a space's transform to its images, and telling when they have outgrown it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from search.generations.kinds import KINDS
from search.generations.transform import Sample, Transform
from search.recipe import IDENTITY
from search.types import JsonObject, Space

CHECKED_GROWTH = 1.25
"""Growth of a space, as a factor, from which on its transform is compared again with one that is fitted to it now."""
CHECKED_VECTORS = 256
"""Vectors whose cosines are compared: 32,640 pairs."""
MAX_DRIFT = 0.02
"""Root mean square by which cosines may differ before a transform is fitted again: more, and scores mean another
thing than they would if the index were built now."""


class Fitted(NamedTuple):
    """A transform and what the manifest says of it: its kind and figures, `fitted` and `checked` (images that there
    were then), `drift`."""

    transform: Transform
    facts: JsonObject


def must_check(space: Space, facts: JsonObject | None, count: int) -> bool:
    """Whether a space of so many images needs a look at its transform. facts: what the manifest says of the space."""
    if space.transform == IDENTITY:
        return False
    return facts is None or count >= CHECKED_GROWTH * facts.get("transform", {}).get("checked", 0)


def fitted(space: Space, sample: Sample, count: int) -> Fitted:
    """The transform of a space, fitted to the vectors that it has now. count: its images."""
    facts = space.transform.to_json()
    if space.transform.kind != "identity":
        facts |= {"fitted": count, "checked": count, "drift": 0.0}
    return Fitted(KINDS[space.transform.kind].fit(space, sample), facts)


def kept(space: Space, before: Fitted, sample: Callable[[], Sample], count: int) -> Fitted | None:
    """The transform of the generation before, where a space of so many images has not outgrown it; None where it has.

    sample: gives the space's vectors, all of them, where they are looked at.
    """
    if not must_check(space, {"transform": before.facts}, count):
        return before
    drawn = sample()
    drift = _drift(before.transform, KINDS[space.transform.kind].fit(space, drawn), drawn)
    if drift > MAX_DRIFT:
        return None
    return Fitted(before.transform, {**before.facts, "checked": count, "drift": round(drift, 4)})


def _drift(one: Transform, other: Transform, sample: Sample) -> float:
    """The root mean square difference between the cosines of a sample's pairs by both transforms.

    Without the projection: its random directions differ from fit to fit, and move cosines more than a collection does.
    """
    vectors = sample(CHECKED_VECTORS)
    whole = [transform.unprojected(vectors) for transform in (one, other)]
    cosines = [each @ each.T for each in whole]
    pairs = np.triu_indices(len(vectors), k=1)
    return float(np.sqrt(np.mean(np.square(cosines[0][pairs] - cosines[1][pairs])))) if len(vectors) > 1 else 0.0
