"""Several aspects of one query: the images nearest to all of them together, or to the best of their parts.

A cosine means another thing in every space, and of words another thing than of a picture. So cosines are compared by
how far they are from chance, which a sample of the space tells (`Chance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.errors import QueryInvalid
from search.query.allowed import Selection
from search.query.parts import MAX_PARTS, part_vectors
from search.query.snapshot import Rowids, Snapshot
from search.types import Aspect, Query, QueryPart, Space, Vector

MAX_CANDIDATES = 100_000
"""Candidates of one space that are looked at, at most: sums are exact up to so many images."""
LEAST_SPREAD = 1e-4
"""Of cosines with a sample. Where all images are equal it would be 0, and say nothing."""

LEFT_OUT = 100
"""One in so many of a sample's cosines is left out, the highest. By a limit of cosines, such as that of copies, almost
all would be where those of a space lie close together."""
ROUNDING = 1e-6
"""How far a sum of float32 numbers may be from its true value."""

Scores = NDArray[np.float32]
SearchedOf = Callable[[Space, str], Vector]
"""The vector of an image by id in a space, as it is searched."""


@dataclass(frozen=True)
class Target:
    """What is looked for in a space: vectors (v, dim) float32 of unit length, as they are searched, one a view.

    A cosine with it counts as scale * cosine + shift, scale > 0. aspect: the number of its aspect. opposite: its
    vectors point away from what the aspect names. vetoes: an image that is nearer to it than to all others is no hit.
    of_words: it is what words mean.
    """

    space: str
    vectors: Vector
    scale: float = 1.0
    shift: float = 0.0
    aspect: int = 0
    opposite: bool = False
    vetoes: bool = False
    of_words: bool = False

    def values(self, cosines: Scores) -> Scores:
        """What cosines (n,) float32 count as. A cosine that nothing was done to stays what it is, bit by bit."""
        if (self.scale, self.shift) == (1.0, 0.0):
            return cosines
        found: Scores = np.float32(self.scale) * cosines + np.float32(self.shift)
        return found


@dataclass(frozen=True)
class Chance:
    """Mean and standard deviation of a target's cosines with a sample of its space, without the highest hundredth: the
    target itself may be among them, and its copies."""

    mean: float
    spread: float

    @classmethod
    def of(cls, snapshot: Snapshot, target: Target) -> Chance:
        """Of several views, the average of theirs; of an opposite, that of what it is the opposite of."""
        sample = snapshot.sample(target.space)
        count = len(sample) - len(sample) // LEFT_OUT
        found = []
        for view in -target.vectors if target.opposite else target.vectors:
            cosines = np.sort(np.vecdot(sample, view).max(axis=1))[:count].astype(np.float64)
            found.append((cosines.mean(), cosines.std()) if count > 1 else (0.0, LEAST_SPREAD))
        mean, spread = np.mean(found, axis=0)
        return cls(float(mean), max(float(spread), LEAST_SPREAD))


def targets_of(
    snapshot: Snapshot, aspects: Sequence[Aspect], query: Query, searched_of: SearchedOf
) -> tuple[Target, ...]:
    """What the aspects of a query look for: one target an aspect, or with `best`, one a part.

    An aspect without parts, of a query of words alone, is one without vectors. Raises QueryInvalid, UnknownSpace, and
    what `searched_of` raises.
    """
    if not aspects[0].parts:
        return (Target(snapshot.space(aspects[0].space).name, np.empty((0, 0), np.float32)),)
    if query.combine == "best":
        return _best_of(snapshot, aspects, searched_of)
    found = [_sum_of(snapshot, number, aspect, searched_of) for number, aspect in enumerate(aspects)]
    if len(found) == 1:
        return (replace(found[0], scale=1.0),)
    scales = [target.scale / Chance.of(snapshot, target).spread for target in found]
    return tuple(replace(one, scale=scale / sum(scales)) for one, scale in zip(found, scales, strict=True))


def _vectors(snapshot: Snapshot, space: Space, parts: Sequence[QueryPart], searched_of: SearchedOf) -> Vector:
    def vector_of(image_id: str) -> Vector:
        return searched_of(space, image_id)

    return part_vectors(parts, space.recipe.dim, vector_of, snapshot.spaces[space.name].transform)


def _sum_of(snapshot: Snapshot, number: int, aspect: Aspect, searched_of: SearchedOf) -> Target:
    """An aspect's weighted sum. A negative one looks for the nearest to the opposite: its weight becomes positive."""
    space = snapshot.space(aspect.space)
    vectors = _vectors(snapshot, space, aspect.parts, searched_of)
    unlike = aspect.weight < 0
    if space.recipe.regions is not None and (unlike or all(part.weight < 0 for part in aspect.parts)):
        raise QueryInvalid(
            f"In {space.name}, where images have several vectors, nothing is pushed away by itself: an image would be "
            "found by what in it is least like that. Look for something in the same aspect, or use combine `best`."
        )
    return Target(space.name, -vectors if unlike else vectors, abs(aspect.weight), aspect=number, opposite=unlike)


def _best_of(snapshot: Snapshot, aspects: Sequence[Aspect], searched_of: SearchedOf) -> tuple[Target, ...]:
    """A target for each part, the positive ones first. Of a weight only the sign counts."""
    if sum(len(aspect.parts) for aspect in aspects) > MAX_PARTS:
        raise QueryInvalid(f"A query with combine `best` has at most {MAX_PARTS} parts in all its aspects.")
    found = []
    for number, aspect in enumerate(aspects):
        space = snapshot.space(aspect.space)
        for part in aspect.parts:
            if not np.isfinite(part.weight) or part.weight == 0:
                raise QueryInvalid("With combine `best`, a part's weight is above 0 or below it: only its sign counts.")
            vectors = _vectors(snapshot, space, [replace(part, weight=1.0)], searched_of)
            unlike = part.weight * aspect.weight < 0
            found.append(Target(space.name, vectors, aspect=number, vetoes=unlike, of_words=part.of_words))
    found.sort(key=lambda target: target.vetoes)
    if found[0].vetoes:
        raise QueryInvalid("With combine `best`, at least one part needs a positive weight: the others only veto.")
    kinds = {(target.space, target.of_words) for target in found}
    return tuple(found) if len(kinds) == 1 else _comparable(snapshot, found)


def _comparable(snapshot: Snapshot, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Targets whose values mean the same: 0 by chance, 1 the most that any may reach."""
    by_kind: dict[tuple[str, bool], list[Chance]] = {}
    for target in targets:
        by_kind.setdefault((target.space, target.of_words), []).append(Chance.of(snapshot, target))
    chances = {
        kind: Chance(float(np.mean([one.mean for one in these])), float(np.mean([one.spread for one in these])))
        for kind, these in by_kind.items()
    }
    highest = max((1 - chance.mean) / chance.spread for chance in chances.values())
    found = []
    for target in targets:
        chance = chances[target.space, target.of_words]
        scale = 1 / (chance.spread * highest)
        found.append(replace(target, scale=scale, shift=-chance.mean * scale))
    return tuple(found)


def nearest_by_sum(
    snapshot: Snapshot, targets: Sequence[Target], wanted: int, window: int, allowed: Selection | None
) -> tuple[Rowids, Scores]:
    """The images whose sum over all targets is among the `wanted` best: rowids (n,) and sums (n,), best first.

    Images without a vector in one of the spaces are not found. window: candidates of each target to begin with. The
    threshold algorithm of Fagin, Lotem and Naor (2001): an image that no target has among its candidates has at most
    the sum of their last values.
    """
    while True:
        seen, lasts, full = _candidates(snapshot, targets, window, allowed)
        sums = np.zeros(len(seen), dtype=np.float32)
        for target in targets:
            sums += target.values(snapshot.cosines(target.space, target.vectors, seen))
        found, sums = _ranked(seen, sums)
        if not all(full) or window >= MAX_CANDIDATES or _enough(sums, wanted, sum(lasts)):
            return found, sums
        window *= 4


def nearest_by_best(
    snapshot: Snapshot, targets: Sequence[Target], wanted: int, window: int, allowed: Selection | None
) -> tuple[Rowids, Scores]:
    """The images whose best value over all targets is among the `wanted` best, without those that one vetoes: rowids
    (n,) and values (n,), best first. An image may lack a vector in some of the spaces."""
    wanting = [target for target in targets if not target.vetoes]
    while True:
        seen, lasts, full = _candidates(snapshot, wanting, window, allowed)
        best, vetoed = best_values(snapshot, targets, seen)
        found, best = _ranked(seen[~vetoed], best[~vetoed])
        unseen = max((last for last, one in zip(lasts, full, strict=True) if one), default=-np.inf)
        if not any(full) or window >= MAX_CANDIDATES or _enough(best, wanted, unseen):
            return found, best
        window *= 4


def best_values(snapshot: Snapshot, targets: Sequence[Target], rowids: Rowids) -> tuple[Scores, NDArray[np.bool_]]:
    """The best value of each image with what is looked for, (n,), and whether what vetoes is nearer to it, (n,)."""
    best = {vetoes: np.full(len(rowids), -np.inf, dtype=np.float32) for vetoes in (False, True)}
    for target in targets:
        values = target.values(snapshot.cosines(target.space, target.vectors, rowids))
        np.maximum(best[target.vetoes], values, out=best[target.vetoes])
    return best[False], best[True] > best[False]


def _candidates(
    snapshot: Snapshot, targets: Sequence[Target], window: int, allowed: Selection | None
) -> tuple[Rowids, list[float], list[bool]]:
    """The images among the `window` nearest of any target, ascending; the value of each target's last one; and whether
    there may be more. Targets of one space are looked for together."""
    lasts, full = [0.0] * len(targets), [False] * len(targets)
    seen = [np.empty(0, dtype=np.int64)]
    for space in dict.fromkeys(target.space for target in targets):
        numbers = [number for number, target in enumerate(targets) if target.space == space]
        vectors = np.concatenate([targets[number].vectors for number in numbers])
        rowids, cosines = snapshot.nearest(space, vectors, window, allowed)
        seen.append(rowids[rowids >= 0])
        end = 0
        for number in numbers:
            start, end = end, end + len(targets[number].vectors)
            full[number] = rowids.shape[1] == window and bool((rowids[start:end, -1] >= 0).all())
            if full[number]:
                lasts[number] = float(targets[number].values(cosines[start:end, -1].max(keepdims=True))[0])
    return np.unique(np.concatenate(seen)), lasts, full


def _enough(values: Scores, wanted: int, unseen: float) -> bool:
    """Whether no image that was not seen, which has at most the value `unseen`, may tie with the last wanted one: equal
    values are ordered by id."""
    return len(values) >= wanted and unseen + ROUNDING < float(values[wanted - 1])


def _ranked(rowids: Rowids, values: Scores) -> tuple[Rowids, Scores]:
    known = np.isfinite(values)
    order = np.argsort(-values[known], kind="stable")
    return rowids[known][order], values[known][order]
