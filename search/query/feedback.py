"""Feedback: from a question's vector and marks (more, less like this) to an adapted vector.

The vector is one to search for, in the same space: any filter, and any graph, works with it as with a picture's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.errors import QueryInvalid
from search.query.parts import CANCELS
from search.types import Vector
from search.vectors import normalise

FEW_MARKS = 5
"""Below so many, marks move the question (Rocchio); from then on a classifier takes its place."""
LESS_SHARE = 0.5
"""Weight of the mean of what is to be less, beside that of what is to be more, while marks are few."""
RANDOM_IMAGES = 2_000
"""Images of the index drawn at random: nearly all are not what is looked for, whatever that is."""
RANDOM_WEIGHT = 0.3
"""Weight of all of these together, beside 1 for all that is to be more, and 1 for all that is to be less."""
RIDGE = 10.0
"""The classifier's regularisation, in units of the mean variance of a dimension. Chosen with RANDOM_WEIGHT and
LESS_SHARE on drawings of qabcs and Scratch and on clothes (`benchmarks/teach.py`); 5 to 20 do about as well."""

Method = Literal["question", "rocchio", "classifier"]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Background:
    """Images drawn at random, as a classifier sees them: their mean (dim,), and mean outer product (dim, dim)."""

    mean: _Floats
    moments: _Floats


def background_of(vectors: Vector) -> Background:
    """The background of vectors, (n, dim) float32; n >= 1."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    return Background(mean, (vectors.T @ vectors).astype(np.float64) / len(vectors))


@dataclass(frozen=True)
class Adapted:
    """An adapted question. vector: (dim,) float32 of unit length.

    held_out_more, held_out_less: what each mark would score if it had not been given, in the order of marks: (p,) and
    (m,); empty where marks are too few to tell.
    """

    vector: Vector
    method: Method
    held_out_more: _Floats
    held_out_less: _Floats


def adapt(question: Vector | None, more: Vector, less: Vector, background: Background) -> Adapted:
    """Adapt a question to marks.

    question: (dim,) float32 of unit length, None where marks alone ask; more, less: (p, dim), (m, dim) float32, the
    marked images' vectors. Few marks: Rocchio's move towards the mean of what is to be more, and away from that of what
    is to be less (Rocchio, "Relevance feedback in information retrieval", 1971). Then least squares with a ridge
    penalty, targets 1 and -1, on marks and random images, whose part is worked out once: a round costs one system of
    dim equations. It is the discriminant of "exemplar LDA" (Hariharan, Malik, Ramanan, ECCV 2012), with marked
    negatives; random negatives as in Exquisitor (Khan et al., ECIR 2020). Raises QueryInvalid where question and
    marks cancel out, or where there is nothing to be like.
    """
    dim = len(background.mean)
    liked = more if question is None else np.concatenate([question[None, :], more])
    if not len(liked):
        raise QueryInvalid("Nothing says what to look for. Ask a question, or mark an image that is to be found.")
    nothing = np.empty(0)
    if question is not None and not len(more) + len(less):
        return Adapted(question, "question", nothing, nothing)
    if len(more) + len(less) < FEW_MARKS:
        moved = liked.mean(axis=0, dtype=np.float64)
        if len(less):
            moved -= LESS_SHARE * less.mean(axis=0, dtype=np.float64)
        return Adapted(_unit(moved), "rocchio", nothing, nothing)
    marked = np.concatenate([liked, less]).astype(np.float64)
    weights = np.concatenate([np.full(len(liked), 1 / len(liked)), np.full(len(less), 1 / max(1, len(less)))])
    targets = np.concatenate([np.ones(len(liked)), -np.ones(len(less))])
    total = weights.sum() + RANDOM_WEIGHT
    mean = (weights @ marked + RANDOM_WEIGHT * background.mean) / total
    target = (weights @ targets - RANDOM_WEIGHT) / total
    spread = (marked.T * weights) @ marked + RANDOM_WEIGHT * background.moments - total * np.outer(mean, mean)
    spread[np.diag_indices(dim)] += RIDGE * np.trace(spread) / dim
    wanted = marked.T @ (weights * targets) - RANDOM_WEIGHT * background.mean - total * target * mean
    centred = marked - mean
    solved = np.linalg.solve(spread, np.column_stack([wanted, centred.T]))
    direction = solved[:, 0]
    # What each mark would be told without itself, exactly: the residual of leave-one-out of a linear smoother.
    pull = weights * (1 / total + np.einsum("ij,ji->i", centred, solved[:, 1:]))
    told = target + centred @ direction
    length = float(np.linalg.norm(direction))
    left_out = ((told - pull * targets) / (1 - pull) - target + mean @ direction) / max(length, CANCELS)
    first = len(liked) - len(more)
    return Adapted(_unit(direction), "classifier", left_out[first : len(liked)], left_out[len(liked) :])


def _unit(direction: _Floats) -> Vector:
    if np.linalg.norm(direction) <= CANCELS:
        raise QueryInvalid("The question and its marks cancel out. Mark other images.")
    unit: Vector = normalise(direction[None, :])[0]
    return unit
