"""Near copies: what the cut `auto` keeps although its score is too low, because its perceptual hash is the query's.

A picture that was scaled down may look less like its original, to a network, than others of its kind.
Its perceptual hash changes by few bits, where those of unlike pictures differ in about 32 of 64. Figures are in
docs/relevance.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from search.catalog.catalog import Catalog
from search.query.candidates import Asked, Found, candidates
from search.query.snapshot import Snapshot
from search.types import AUTO, Query, QueryPart

NEAREST = 400
"""Images whose hashes are compared with the query's: those with the highest scores. In a crowded neighbourhood a copy
may lie behind 350 others. A fixed number, so that all pages are parts of one list."""
MAX_BITS = 6
"""Of the 64 of a hash, in which a copy differs at most. As near are 3.4 of 10,000 random pairs of pictures."""


def with_near_copies(
    snapshot: Snapshot, catalog: Catalog, asked: Sequence[Asked], found: Sequence[Found]
) -> list[Found]:
    """What was found, and, of queries that the cut `auto` leaves with less than they want, near copies as well."""
    answers = [*found]
    short = {number: one for number, one in enumerate(asked) if _is_cut(one) and len(found[number][0]) < one.wanted}
    if not short:
        return answers
    hashes = _hashes(catalog, short)
    looks = {number: _nearest(one) for number, one in short.items() if hashes[number] is not None}
    nearest = dict(zip(looks, candidates(snapshot, [*looks.values()]), strict=True))
    known = catalog.hashes({rowid for rowids, _ in nearest.values() for rowid in rowids.tolist()})
    for number, (rowids, scores) in nearest.items():
        there = {rowid: known[rowid][2] for rowid in rowids.tolist() if rowid in known}
        near = np.array([_are_near(there.get(rowid), hashes[number]) for rowid in rowids.tolist()], dtype=np.bool_)
        near &= ~np.isin(rowids, found[number][0])
        both = np.append(found[number][0], rowids[near]), np.append(found[number][1], scores[near])
        order = np.argsort(-both[1], kind="stable")
        answers[number] = both[0][order], both[1][order]
    return answers


def _is_cut(one: Asked) -> bool:
    """Whether the cut applies, to a query of one picture. One of several, whose best counts, has no hash."""
    query = one.query
    alone = len(query.aspects or [query]) == 1 and len(_parts(query)) == 1
    return query.max_fmr == AUTO and one.rates is not None and alone


def _parts(query: Query) -> Sequence[QueryPart]:
    return query.aspects[0].parts if query.aspects else query.parts


def _nearest(one: Asked) -> Asked:
    """The same, for the nearest of all that `min_score` allows."""
    query = replace(one.query, k=NEAREST, offset=0)
    return replace(one, query=query, min_score=query.min_score, excluded=frozenset(), spare=0)


def _hashes(catalog: Catalog, asked: Mapping[int, Asked]) -> dict[int, int | None]:
    """The perceptual hash of each query's picture, of an image by id that of the catalog."""
    parts = {number: _parts(one.query)[0] for number, one in asked.items()}
    rowids = catalog.rowids({part.id for part in parts.values() if part.id is not None})
    known = {name: phash for name, _, phash in catalog.hashes(rowids.values()).values()}
    return {number: part.phash if part.id is None else known.get(part.id) for number, part in parts.items()}


def _are_near(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return False
    return ((one ^ other) & (2**64 - 1)).bit_count() <= MAX_BITS
