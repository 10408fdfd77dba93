"""Queries: from weighted parts to unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np

from search.errors import QueryInvalid
from search.generations.transform import Transform
from search.types import AUTO, Aspect, Combine, Query, QueryPart, Vector
from search.vectors import normalise

MAX_PARTS = 64
MAX_ASPECTS = 8
MAX_WINDOW = 10_000
"""The largest k + offset: what one answer may cost in memory and catalog reads."""
MAX_FOLDED_HITS = 1_000
"""The largest k + offset of a folded query: each hit is compared with up to 10,000 candidates.

Ten take a millisecond, a thousand 50 ms; seconds where all hashes are equal, and each hit reads 15 MB of vectors.
"""
CANCELS = 1e-6
"""A sum shorter than this share of its weights is rounding: its parts cancel out."""


def part_vectors(
    parts: Sequence[QueryPart], dim: int, searched_of: Callable[[str], Vector], transform: Transform
) -> Vector:
    """The normalised weighted sums of parts, as they are searched: (v, searched dim) float32, one for each view.

    dim: of the space's embeddings. searched_of: the vector of an image by id as it is searched. Each part's vector is
    normalised and transformed before it is weighted: a weight means the same for every part, and `-1` is the opposite
    of what is searched. Parts of one view belong to every sum. Raises QueryInvalid, and what `searched_of` raises.
    """
    if not 1 <= len(parts) <= MAX_PARTS:
        raise QueryInvalid(f"A query has between 1 and {MAX_PARTS} parts, not {len(parts)}.")
    total = np.zeros((1, transform.dim), dtype=np.float64)
    for number, part in enumerate(parts, start=1):
        if (part.id is None) == (part.vector is None):
            raise QueryInvalid(f"Part {number} of the query needs either an id or a vector.")
        if part.vector is None:
            assert part.id is not None
            views = np.atleast_2d(searched_of(part.id))
        else:
            views = _searched_views(part, number, dim, transform)
        if len(views) > 1 and len(total) not in (1, len(views)):
            raise QueryInvalid(f"Part {number} has {len(views)} views, a part before it {len(total)}.")
        if not np.isfinite(part.weight) or abs(part.weight) > 1e6:
            raise QueryInvalid(f"The weight of part {number} must be a number between -1,000,000 and 1,000,000.")
        total = total + part.weight * views.astype(np.float64)
    if np.linalg.norm(total, axis=1).min() <= CANCELS * sum(abs(part.weight) for part in parts):
        raise QueryInvalid("The query's parts cancel out. Change their weights.")
    result: Vector = normalise(total)
    return result


def _searched_views(part: QueryPart, number: int, dim: int, transform: Transform) -> Vector:
    """The vectors of one part as they are searched: (v, searched dim) float32. Raises QueryInvalid."""
    assert part.vector is not None
    views, wanted = np.atleast_2d(part.vector), transform.dim if part.searched else dim
    if views.ndim != 2 or not len(views) or views.shape[1] != wanted:
        shape, kind = np.shape(part.vector), "searched vector" if part.searched else "vector"
        raise QueryInvalid(f"Part {number} has the shape {shape}; a {kind} of the space has {wanted} numbers.")
    try:
        return normalise(views) if part.searched else transform.apply(normalise(views))
    except ValueError as error:
        raise QueryInvalid(f"The vector of part {number} has no direction: it is zero or not finite.") from error


def query_aspects(query: Query) -> Sequence[Aspect]:
    """The aspects of a query; one of its parts and space where it names none. Raises QueryInvalid."""
    check_window(query)
    if query.words is not None and not query.words.strip():
        raise QueryInvalid("The words of a query are empty.")
    if query.combine not in get_args(Combine):
        raise QueryInvalid("The aspects of a query are combined by `sum` or `best`.")
    if not query.aspects:
        if not query.parts and query.words is None:
            raise QueryInvalid("A query has parts, or words.")
        return (Aspect(parts=query.parts, space=query.space),)
    if query.parts or query.space is not None:
        raise QueryInvalid("A query has either parts, and perhaps a space, or aspects, each with its own.")
    if len(query.aspects) > MAX_ASPECTS:
        raise QueryInvalid(f"A query has at most {MAX_ASPECTS} aspects, not {len(query.aspects)}.")
    if any(not aspect.parts for aspect in query.aspects):
        raise QueryInvalid("An aspect of the query has no parts.")
    for number, aspect in enumerate(query.aspects, start=1):
        if not np.isfinite(aspect.weight) or abs(aspect.weight) > 1e6 or aspect.weight == 0:
            raise QueryInvalid(
                f"The weight of aspect {number} must be a number between -1,000,000 and 1,000,000, not 0."
            )
    return query.aspects


def check_window(query: Query) -> None:
    """Raise QueryInvalid where k, offset, min_score or max_fmr is out of range."""
    if query.k < 1 or query.offset < 0 or query.k + query.offset > MAX_WINDOW:
        raise QueryInvalid(f"k must be at least 1, offset at least 0, and both together at most {MAX_WINDOW:,}.")
    if query.fold and query.k + query.offset > MAX_FOLDED_HITS:
        raise QueryInvalid(f"With fold, k and offset together are at most {MAX_FOLDED_HITS:,}.")
    if query.min_score is not None and not -1 <= query.min_score <= 1:
        raise QueryInvalid("min_score is a cosine: it lies between -1 and 1.")
    if query.min_score is not None and query.words is not None:
        raise QueryInvalid(
            "min_score is a cosine, and words have ranks instead. Leave it out, or name the space of words."
        )
    if query.max_fmr is not None and query.max_fmr != AUTO and not 0 < query.max_fmr <= 1:
        raise QueryInvalid(f"max_fmr is a share of pairs: it lies between 0 and 1, and is not 0; or it is `{AUTO}`.")
