"""Searching: from a query to hits, by an index's newest snapshot and its catalog."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import compress
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Catalog
from search.catalog.hits import Entry
from search.errors import FilterInvalid, NotInSpace, QueryInvalid, SearchError, UnknownImage, UnknownSpace
from search.filters import And, Filter, Present
from search.generations.ann import NEIGHBOURS
from search.query.allowed import Selection
from search.query.aspects import Target, targets_of
from search.query.candidates import EXTRA_CANDIDATES, Asked, Found, candidates
from search.query.fold import CANDIDATES_PER_HIT, MAX_COPIES, MAX_FOLD_CANDIDATES, fold, is_enough
from search.query.follow import Follower
from search.query.fusion import DEPTH, ByWords
from search.query.meanings import Meanings
from search.query.near_copies import with_near_copies
from search.query.parts import query_aspects
from search.query.regions import boxed
from search.query.scores import Rates, least_score, rates_of
from search.query.selections import Selections
from search.query.snapshot import EXACTLY, Snapshot
from search.query.why import reasons
from search.types import Aspect, Hit, Query, Reason, Space, Vector
from search.vectors import normalise

REFUSALS = (QueryInvalid, FilterInvalid, UnknownImage, UnknownSpace, NotInSpace)
"""Errors of one query, and not of those beside it."""
EXTRA_PER_GONE = 50
"""Candidates more for each image whose files are gone: a folder that was deleted is often a neighbourhood. A second
look at some hundred costs about as much as the first at ten."""
MAX_EXTRA_FOR_GONE = 1_000
"""Of these. Where they are not enough, all such images are left out like those of a filter: to find them takes a look
at every location, again after each change, while other searches wait."""


class Searcher:
    """Answers queries. Any number of threads may ask it."""

    def __init__(self, catalog: Catalog, follower: Follower) -> None:
        self._catalog = catalog
        self._follower = follower
        self._selections = Selections(catalog)
        self._meanings = Meanings(catalog)

    def vector(self, image_id: str, space: Space) -> Vector:
        """The stored embedding of an image ((dim,) float32). Raises UnknownImage, NotInSpace."""
        stored = self._catalog.stored(space, [image_id])
        return stored[image_id] if image_id in stored else self._lacking(image_id, space)

    def _lacking(self, image_id: str, space: Space) -> NoReturn:
        self._catalog.rowid(image_id)
        raise NotInSpace(f"The image has no vector in {space.name} yet. Search in another space, or once it is filled.")

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit] | SearchError]:
        """Answer many queries from one snapshot: hits, or the error of a query that is refused."""
        answers: list[list[Hit] | SearchError] = [[] for _ in queries]
        waiting = list(range(len(queries)))
        while waiting:
            snapshot, version = self._follower.newest()
            asked: dict[int, Asked] = {}
            vectors = self._searched(snapshot, [queries[number] for number in waiting])
            refused = set()
            for number in waiting:
                try:
                    asked[number] = self._asked(snapshot, queries[number], vectors, version)
                except REFUSALS as error:
                    answers[number] = error
                    refused.add(number)
            plain = {number: one for number, one in asked.items() if not one.query.fold}
            found = self._present_hits(snapshot, plain, version)
            found |= {number: self._folded(snapshot, one, version) for number, one in asked.items() if one.query.fold}
            for number, (hits, _) in found.items():
                answers[number] = hits
            # An image that was removed after the snapshot is no hit any more, and may have kept another from being one.
            # What a query was refused for may be only that the catalog was changed after the snapshot.
            waiting = [number for number in waiting if number in refused or not found[number][1]]
            if waiting and self._catalog.version() == version:
                break
        return answers

    def observed(self, query: Query) -> tuple[int, int] | None:
        """Count the ten nearest that a search finds, and those there are; None where it compares all."""
        snapshot, _ = self._follower.newest()
        aspects = query_aspects(query)
        if len(aspects) > 1 or not aspects[0].parts or query.combine == "best":
            return None
        space = snapshot.space(aspects[0].space)
        vector = self._sought(snapshot, aspects, query, self._searched(snapshot, [query]))[0].vectors[:1]
        base = snapshot.spaces[space.name].base
        if base is None or base.graph is None:
            return None
        asked = [self._catalog.rowid(part.id) for part in aspects[0].parts if part.id is not None]

        def cosines(k: int, ef: int | None) -> NDArray[np.float32]:
            (rowids,), (best,) = snapshot.nearest(space.name, vector, k + len(asked), ef=ef)
            found: NDArray[np.float32] = best[np.isfinite(best) & ~np.isin(rowids, asked)]
            return found

        found = cosines(NEIGHBOURS + EXTRA_CANDIDATES, None)  # as `search` does
        true = cosines(NEIGHBOURS, EXACTLY)[:NEIGHBOURS]
        return int((found[: len(true)] >= true[-1:]).sum()), len(true)

    def nearest(
        self, vectors: NDArray[np.float32], k: int, named: str | None, matching: Filter | None, ef: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the k images nearest to each vector: see `Index.nearest`."""
        snapshot, version = self._follower.newest()
        space = snapshot.space(named)
        if vectors.ndim != 2 or vectors.shape[1] != space.recipe.dim:
            raise QueryInvalid(f"The vectors must have the shape (n, {space.recipe.dim}), not {vectors.shape}.")
        if k < 1 or (ef is not None and ef < 1):
            raise QueryInvalid("k and ef must be at least 1.")
        queries = snapshot.spaces[space.name].transform.apply(np.ascontiguousarray(vectors, dtype=np.float32))
        return snapshot.nearest(space.name, queries, k, self._selections.of(matching, version), ef)

    def _searched(self, snapshot: Snapshot, queries: Sequence[Query]) -> dict[tuple[str, str], Vector]:
        """The vectors, as they are searched, of images that are parts of queries, by space and id, as far as they are
        there. What the catalog has besides is newer than the snapshot: such a query is asked again.
        """
        ids: dict[str, set[str]] = {}
        for query in queries:
            for aspect in query.aspects or (Aspect(parts=query.parts, space=query.space),):
                with suppress(UnknownSpace):
                    name = snapshot.space(aspect.space).name
                    ids.setdefault(name, set()).update(part.id for part in aspect.parts if part.id is not None)
        found: dict[tuple[str, str], Vector] = {}
        for name, wanted in ids.items():
            rowids = self._catalog.rowids(wanted)
            held = np.fromiter(rowids.values(), dtype=np.int64)
            there = snapshot.holds_images(name, held)
            names = [image_id for image_id, here in zip(rowids, there, strict=True) if here]
            vectors = snapshot.vectors(name, held[there])
            found |= {(name, image_id): vectors[row] for row, image_id in enumerate(names)}
        return found

    def _asked(
        self, snapshot: Snapshot, query: Query, searched: Mapping[tuple[str, str], Vector], version: int
    ) -> Asked:
        """Raises REFUSALS."""
        aspects = query_aspects(query)
        allowed = self._selections.of(query.filter, version)
        sought = self._sought(snapshot, aspects, query, searched)
        by_words = None if query.words is None else self._by_words(snapshot, aspects, query.words, allowed)
        asked = frozenset(part.id for aspect in aspects for part in aspect.parts if part.id is not None)
        excluded = asked | query.without
        rates = None if query.words else rates_of(snapshot, query, aspects, sought, self._catalog.calibrations())
        view = snapshot.spaces[sought[0].space]
        least = least_score(query, rates, view.count - view.dead)
        unranked = frozenset(() if by_words is None else self._catalog.rowids(excluded).values())
        return Asked(query, sought, allowed, excluded, rates, least, by_words, unranked)

    def _by_words(
        self, snapshot: Snapshot, aspects: Sequence[Aspect], words: str, allowed: Selection | None
    ) -> ByWords:
        """What the catalog finds by words: their letters, and where it has learned any, by what they mean."""
        found = self._catalog.find_words(words, DEPTH, None if allowed is None else allowed.rowids)
        of_letters = ByWords(
            rowids=np.array([rowid for rowid, _ in found], dtype=np.int64),
            scores=np.array([score for _, score in found], dtype=np.float64),
            shares=self._catalog.words_shares(words, [rowid for rowid, _ in found]),
        )
        for aspect in aspects:
            known = snapshot.space(aspect.space).recipe.words
            wanted = [part for part in aspect.parts if part.of_words and part.weight * aspect.weight > 0]
            vectors = [abs(part.weight) * part.vector for part in wanted if part.vector is not None]
            total = np.sum(vectors, axis=0)
            if known is not None and np.any(total) and self._meanings.are_known(known.head_sha256):
                meaning = normalise(total)
                meant, cosines = self._meanings.nearest(known.head_sha256, meaning, allowed)
                return replace(of_letters, meant=meant[:DEPTH], cosines=cosines[:DEPTH])
        return of_letters

    def _sought(
        self,
        snapshot: Snapshot,
        aspects: Sequence[Aspect],
        query: Query,
        searched: Mapping[tuple[str, str], Vector],
    ) -> tuple[Target, ...]:
        """What the aspects of a query look for. Raises REFUSALS."""

        def vector_of(space: Space, image_id: str) -> Vector:
            if (space.name, image_id) not in searched:
                self._lacking(image_id, space)
            return searched[space.name, image_id]

        return targets_of(snapshot, aspects, query, vector_of)

    def _present(self, one: Asked, version: int) -> Asked:
        """A query that does not meet images whose files are all gone."""
        return replace(one, allowed=self._selections.of(_among_present(one.query), version))

    def _further(self, one: Asked, gone: frozenset[str], version: int) -> Asked:
        """A query that looks beyond these images, whose files are gone."""
        unranked = one.unranked if one.by_words is None else one.unranked | {*self._catalog.rowids(gone).values()}
        one = replace(one, excluded=one.excluded | gone, unranked=unranked)
        if one.spare < MAX_EXTRA_FOR_GONE and not self._selections.holds(_among_present(one.query), version):
            return replace(one, spare=min(EXTRA_PER_GONE * len(one.excluded), MAX_EXTRA_FOR_GONE))
        return self._present(replace(one, spare=0), version)

    def _present_hits(
        self, snapshot: Snapshot, asked: Mapping[int, Asked], version: int
    ) -> dict[int, tuple[list[Hit], bool]]:
        """The hits of each query, and whether the catalog still knew all candidates.

        Images whose files are all gone are not hits: where they leave too few, more candidates are looked at.
        """
        answers: dict[int, tuple[list[Hit], bool]] = {}
        waiting = dict(asked)
        while waiting:
            these = list(waiting.values())
            answered = self._hits(snapshot, these, self._found(snapshot, these))
            for (number, one), (hits, all_known, gone) in zip(list(waiting.items()), answered, strict=True):
                # What is gone has taken a rank from others, where ranks are fused.
                enough = len(hits) == one.query.k and one.by_words is None
                if enough or gone <= one.excluded:
                    answers[number] = hits, all_known
                    del waiting[number]
                else:
                    waiting[number] = self._further(one, gone, version)
        return answers

    def _found(self, snapshot: Snapshot, asked: Sequence[Asked]) -> list[Found]:
        return with_near_copies(snapshot, self._catalog, asked, candidates(snapshot, asked))

    def _hits(
        self, snapshot: Snapshot, asked: Sequence[Asked], found: Sequence[Found]
    ) -> list[tuple[list[Hit], bool, frozenset[str]]]:
        """For each query its hits, whether the catalog still knew all candidates, and those whose files are all gone.

        The catalog is read once for all. Files that are gone are rare: where all that come before the last hit are
        there, the rest is not asked for.
        """
        scores = [dict(zip(rowids.tolist(), best.tolist(), strict=True)) for rowids, best in found]
        # Of pages before the wanted one, and of equal scores, only the ids count.
        few = [len(best) <= one.query.k + len(one.excluded) for one, best in zip(asked, scores, strict=True)]
        entries = self._catalog.entries(set().union(*compress(scores, few)))
        ids = {rowid: entry.facts["id"] for rowid, entry in entries.items()}
        ids |= self._catalog.ids(set().union(*compress(scores, map(operator.not_, few))))
        ranked, pages = [], []
        for one, best in zip(asked, scores, strict=True):
            known = ((-score, ids[rowid], rowid) for rowid, score in best.items() if rowid in ids)
            ranked.append([(name, rowid) for _, name, rowid in sorted(known) if name not in one.excluded])
            pages.append(slice(one.query.offset, one.query.offset + one.query.k))
        shown = {rowid for these, page in zip(ranked, pages, strict=True) for _, rowid in these[page]}
        entries |= self._catalog.entries(shown - entries.keys())
        passed = {rowid for these, page in zip(ranked, pages, strict=True) for _, rowid in these[: page.start]}
        present = {rowid for rowid, entry in entries.items() if entry.present} | self._catalog.present(passed - shown)
        answers = []
        for one, these, page, best in zip(asked, ranked, pages, scores, strict=True):
            gone: frozenset[str] = frozenset()
            if any(rowid not in present for _, rowid in these[: page.stop]):
                here = self._catalog.present(rowid for _, rowid in these)
                gone = frozenset(name for name, rowid in these if rowid not in here)
                these = [(name, rowid) for name, rowid in these if rowid in here]
                entries |= self._catalog.entries({rowid for _, rowid in these[page]} - entries.keys())
            rows = [rowid for _, rowid in these[page] if rowid in entries]
            why = reasons(snapshot, one, rows, [best[rowid] for rowid in rows])
            hits = [_hit(entries[rowid], best[rowid], one.rates, said) for rowid, said in zip(rows, why, strict=True)]
            hits = boxed(snapshot, one.aspects, hits, rows)
            all_known = len(hits) == len(these[page]) and all(rowid in ids for rowid in best)
            answers.append((hits, all_known, gone))
        return answers

    @staticmethod
    def _known_vectors(snapshot: Snapshot, space: str, rowids: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of images (n, dim), zeros of those that only words found: they are nobody's copies."""
        asked = np.array(rowids, dtype=np.int64)
        there = snapshot.holds_images(space, asked)
        vectors = np.zeros((len(asked), snapshot.spaces[space].transform.dim), dtype=np.float32)
        if there.any():
            vectors[there] = snapshot.vectors(space, asked[there])
        return vectors

    def _folded(self, snapshot: Snapshot, asked: Asked, version: int) -> tuple[list[Hit], bool]:
        """As `_hits`, of a query whose near-equal images are one hit."""
        wanted = asked.query.offset + asked.query.k
        window = min(CANDIDATES_PER_HIT * wanted + EXTRA_CANDIDATES, MAX_FOLD_CANDIDATES)
        masked = False
        copy_cosine = snapshot.spaces[asked.aspects[0].space].transform.copy_cosine
        while True:
            one = replace(asked, query=replace(asked.query, k=window, offset=0))
            ((rowids, scores),) = self._found(snapshot, [one])
            known = self._catalog.hashes(rowids.tolist())
            best = zip(rowids.tolist(), scores.tolist(), strict=True)
            named = [(-score, *known[rowid], rowid) for rowid, score in best if rowid in known]
            ranked = sorted(entry for entry in named if entry[2] and entry[1] not in asked.excluded)
            vectors = self._known_vectors(snapshot, asked.aspects[0].space, [entry[4] for entry in ranked])
            groups = fold(vectors, [entry[3] for entry in ranked], wanted, min_cosine=copy_cosine)
            if is_enough(groups, wanted, len(ranked)) or len(rowids) < one.wanted:
                break
            if not masked and 2 * sum(not entry[2] for entry in named) > len(named):  # most are images that are gone
                asked, masked = self._present(asked, version), True
                continue
            if window == MAX_FOLD_CANDIDATES:
                break
            window = min(CANDIDATES_PER_HIT * window, MAX_FOLD_CANDIDATES)
        page = groups[asked.query.offset :]
        entries = self._catalog.entries(ranked[group[0]][4] for group in page)
        firsts = [ranked[group[0]] for group in page]
        why = reasons(snapshot, asked, [rowid for *_, rowid in firsts], [-score for score, *_ in firsts])
        hits, rows = [], []
        for (score, *_, rowid), (_, *copies), said in zip(firsts, page, why, strict=True):
            if rowid in entries:
                ids = tuple(ranked[copy][1] for copy in copies[:MAX_COPIES])
                hit = _hit(entries[rowid], -score, asked.rates, said)
                hits.append(replace(hit, copies=ids, copy_count=len(copies)))
                rows.append(rowid)
        hits = boxed(snapshot, asked.aspects, hits, rows)
        return hits, len(known) == len(rowids) and len(hits) == len(page)


def _among_present(query: Query) -> Filter:
    return Present() if query.filter is None else And((query.filter, Present()))


def _hit(entry: Entry, score: float, rates: Rates | None, why: tuple[Reason, ...]) -> Hit:
    if rates is None:
        return Hit(score=score, why=why, **entry.facts)
    return Hit(score=score, fmr=rates.of(score), probability=rates.probability(score), why=why, **entry.facts)
