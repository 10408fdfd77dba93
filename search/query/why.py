"""Why an image is a hit: what each aspect of the query, and its words, gave to its score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.query.candidates import Asked
from search.query.snapshot import Snapshot
from search.types import Reason

Numbers = NDArray[np.float64]


def reasons(
    snapshot: Snapshot, asked: Asked, rowids: Sequence[int], scores: Sequence[float]
) -> list[tuple[Reason, ...]]:
    """The reasons of hits, (n,): of each its aspects in their order, and the words last. rowids, scores: of the hits.

    A hit's shares add up to its score.
    """
    if asked.by_words is None and len(asked.aspects) == 1:
        (target,) = asked.aspects
        sign = -1 if target.opposite else 1
        return [(Reason(space=target.space, score=sign * score, share=score),) for score in scores]
    of_words, shares = _words(asked, rowids)
    spaces, cosines, values = _aspects(snapshot, asked, rowids)
    if asked.query.combine == "best":
        values = np.where(values == values.max(axis=0, initial=-np.inf), values, 0.0)
    if asked.by_words is not None:  # ranks were added, not values
        positive = np.where(np.isfinite(values), np.maximum(values, 1e-9), 0.0)
        of_vectors = np.maximum(0, np.array(scores) - shares)
        values = of_vectors * positive / np.maximum(positive.sum(axis=0, initial=0.0), 1e-9)
    found = []
    for column in range(len(rowids)):
        these = [
            Reason(space=space, score=_known(cosines[row, column]), share=_known(values[row, column]) or 0.0)
            for row, space in enumerate(spaces)
        ]
        if asked.by_words is not None:
            these.append(Reason(space=None, score=float(of_words[column]), share=float(shares[column])))
        found.append(tuple(these))
    return found


def _aspects(snapshot: Snapshot, asked: Asked, rowids: Sequence[int]) -> tuple[list[str], Numbers, Numbers]:
    """The space of each aspect, (a,), and of its best part for each image the cosine and what that counts as, (a, n)
    each; -inf where an image has no vector. Of an aspect that only vetoes, nothing counts."""
    found = np.array(rowids, dtype=np.int64)
    spaces, cosines, values = [], [np.empty((0, len(found)))], [np.empty((0, len(found)))]
    sought = [target for target in asked.aspects if len(target.vectors)]
    for number in dict.fromkeys(target.aspect for target in sorted(sought, key=lambda target: target.aspect)):
        targets = [target for target in sought if target.aspect == number]
        targets = [target for target in targets if not target.vetoes] or targets
        each = [snapshot.cosines(target.space, target.vectors, found) for target in targets]
        counted = np.array([target.values(one) for target, one in zip(targets, each, strict=True)])
        best = np.argmax(counted, axis=0), np.arange(len(found))
        sign = -1 if targets[0].opposite else 1
        spaces.append(targets[0].space)
        cosines.append(sign * np.array(each, dtype=np.float64)[None, *best])
        values.append(np.full_like(cosines[-1], -np.inf) if targets[0].vetoes else counted[None, *best])
    return spaces, np.concatenate(cosines), np.concatenate(values).astype(np.float64)


def _words(asked: Asked, rowids: Sequence[int]) -> tuple[Numbers, Numbers]:
    """How much of the words each image has, 0..1, and what that adds to its score, (n,) each."""
    if asked.by_words is None:
        return np.zeros(len(rowids)), np.zeros(len(rowids))
    told = asked.by_words.without(asked.unranked)  # as they were fused
    added = dict(zip(told.every.tolist(), told.added(asked.query.words_share).tolist(), strict=True))
    has = dict(zip(told.rowids.tolist(), told.shares.tolist(), strict=True))
    of_words = np.array([has.get(rowid, 0.0) for rowid in rowids], dtype=np.float64)
    shares = np.array([added.get(rowid, 0.0) for rowid in rowids], dtype=np.float64)
    return of_words, shares


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
