"""Teaching: what an index answers to a question and marks, which images to mark next, and when nothing changes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.catalog.spaces import SpaceIdentity
from search.errors import NotInSpace, QueryInvalid, SearchError, UnknownImage
from search.feedback import Marks, TaughtQuestion, checked_number
from search.generations.transform import Transform
from search.index import Index
from search.query.feedback import RANDOM_IMAGES, Adapted, Background, Method, adapt, background_of
from search.query.parts import part_vectors
from search.query.regions import of_wholes
from search.query.snapshot import Snapshot
from search.types import Hit, Query, QueryPart, Space, Vector

UNCERTAIN = 5
"""Images suggested beside the best ones: those whose scores are nearest to the cut."""
LOOKED_AT = 200
"""Best images without a mark among which these are, and undecided ones are counted."""
STABLE_HITS, STABLE_SAME = 20, 19
"""A round changed nothing where so many of the first of these hits are the same before and after it."""
GROWN = 1.1
"""Random images are drawn again where the index has so many times as many images as then."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """The answer to a question and marks.

    hits: best first, without what was marked and what the question consists of. uncertain: hits further down that a
    mark would tell most of. query: the adapted question as a query, whose vector is a searched one. cut: the score that
    tells more from less best, by marks that were left out in turn; None while they are too few. undecided: of the
    best LOOKED_AT, how many score where such marks are of both kinds, or of none. stable: nothing is undecided, or the
    round changed no hits; None where that cannot be told. ignored: marks of images that are not there any more.
    """

    hits: tuple[Hit, ...]
    uncertain: tuple[Hit, ...]
    query: Query
    space: str
    method: Method
    marks: Marks
    cut: float | None = None
    undecided: int | None = None
    stable: bool | None = None
    ignored: int = 0


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A question as marks adapted it, in a snapshot. asked: ids of the question's own images."""

    adapted: Adapted
    snapshot: Snapshot
    space: Space
    marks: Marks
    asked: frozenset[str]
    ignored: int

    @property
    def transform(self) -> Transform | None:
        """What the vectors went through that it was learned from; None before a space's first generation."""
        return _transform(self.snapshot, self.space)

    def query(self, question: TaughtQuestion, k: int, offset: int = 0, *, fold: bool = False) -> Query:
        """The adapted question as a query, without the images that are known already."""
        part = QueryPart(vector=self.adapted.vector, searched=True)
        without = self.asked.union(self.marks.more, self.marks.less)
        plain = replace(question, parts=(part,), words=None).query(k, offset, fold=fold)
        return replace(plain, space=self.space, without=without)


class Teacher:
    """Adapts questions to marks, in one index. Any number of threads may ask it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._drawn: dict[SpaceIdentity, tuple[Transform | None, int, Background]] = {}

    def answer(
        self,
        question: TaughtQuestion,
        marks: Marks,
        *,
        k: int = 10,
        offset: int = 0,
        fold: bool = False,
        before: Marks | None = None,
        kept: bool = False,
    ) -> Taught:
        """Answer a question as marks adapt it. Without any, it is answered as a search would.

        before: the marks of the round before, to tell whether the later ones changed anything. kept: question and marks
        are a kept session's: images that are not there any more are passed over, and counted. Raises FeedbackInvalid,
        QueryInvalid, FilterInvalid, UnknownImage, NotInSpace, UnknownSpace.
        """
        question.check(self._index.space(question.space))
        asks = bool(question.parts or question.words)
        if not len(marks) and (asks or kept):  # marks that were all there was may have been taken back
            query = question.query(k, offset, fold=fold)
            hits = self._index.search(query) if asks else []
            return Taught(
                hits=(*hits,), uncertain=(), query=query, space=question.space, method="question", marks=marks
            )
        while True:
            learned = self.learn(question, marks, kept=kept)
            earlier = None if before is None or not len(before) else self.learn(question, before, kept=True)
            query = learned.query(question, k, offset, fold=fold)
            try:
                return self._answer(question, learned, earlier, query)
            except QueryInvalid:
                if not self._is_outdated(learned):
                    raise
            except _OutdatedError:
                pass

    def _answer(self, question: TaughtQuestion, learned: Learned, earlier: Learned | None, query: Query) -> Taught:
        """Raises _OutdatedError where a generation came meanwhile."""
        page = slice(query.offset, query.offset + query.k)
        one = not query.fold and page.stop <= LOOKED_AT  # then the page is the beginning of the best ones
        best_ones = learned.query(question, LOOKED_AT)
        queries = [best_ones] if one else [best_ones, query]
        if earlier is not None:  # as many are looked for as of the best ones: so both are one pass over the vectors
            asked = earlier.query(question, LOOKED_AT)
            queries.append(replace(asked, without=asked.without | query.without))
        best, *others = self._searched(queries)
        if self._is_outdated(learned) or (earlier is not None and self._is_outdated(earlier)):
            raise _OutdatedError
        hits = best[page] if one else others.pop(0)
        cut = undecided = stable = None
        uncertain: list[Hit] = []
        more, less = learned.adapted.held_out_more, learned.adapted.held_out_less
        if len(more) and len(less):
            cut = best_cut(more, less)
            low, high = sorted((float(np.quantile(more, 0.1)), float(np.quantile(less, 0.9))))
            undecided = sum(low <= hit.score <= high for hit in best)
            stable = undecided == 0
            shown = {hit.id for hit in hits}
            further = sorted(best, key=lambda hit: abs(hit.score - cut))
            uncertain = [hit for hit in further if hit.id not in shown][:UNCERTAIN]
        if others:
            was = others[0][:STABLE_HITS]
            same = {hit.id for hit in best[:STABLE_HITS]} & {hit.id for hit in was}
            stable = bool(stable) or len(same) >= min(STABLE_SAME, len(was))
        return Taught(
            hits=(*hits,),
            uncertain=(*uncertain,),
            query=query,
            space=learned.space.name,
            method=learned.adapted.method,
            marks=learned.marks,
            cut=cut,
            undecided=undecided,
            stable=stable,
            ignored=learned.ignored,
        )

    def _is_outdated(self, learned: Learned) -> bool:
        """Whether vectors are transformed otherwise now than when this was learned."""
        now = self._index.snapshot()
        return now.holds([learned.space]) and _transform(now, learned.space) is not learned.transform

    def _searched(self, queries: Sequence[Query]) -> list[list[Hit]]:
        found = []
        for answer in self._index.search_many(queries):
            if isinstance(answer, SearchError):
                raise answer
            found.append(answer)
        return found

    def learn(self, question: TaughtQuestion, marks: Marks, *, kept: bool = False) -> Learned:
        """Adapt a question to marks. Raises as `answer`."""
        checked_number(marks)
        snapshot = self._index.snapshot()
        space = of_wholes(snapshot.space(question.space))
        question.check(space)
        ids = [*marks.more, *marks.less, *(part.id for part in question.parts if part.id is not None)]
        known = self._vectors(snapshot, space, ids, kept=kept)
        parts = [part for part in question.parts if part.id is None or part.id in known]
        asked = None
        if parts:
            transform = snapshot.spaces[space.name].transform
            vectors = part_vectors(parts, space.recipe.dim, known.__getitem__, transform)
            if len(vectors) > 1:
                raise QueryInvalid("A question that is taught has one view of each picture: leave `turns` out.")
            asked = vectors[0]
        counted = Marks(more=_known(marks.more, known), less=_known(marks.less, known))
        dim = snapshot.spaces[space.name].transform.dim
        adapted = adapt(
            asked, _rows(counted.more, known, dim), _rows(counted.less, known, dim), self._background(snapshot, space)
        )
        return Learned(
            adapted=adapted,
            snapshot=snapshot,
            space=space,
            marks=counted,
            asked=frozenset(part.id for part in question.parts if part.id is not None),
            ignored=len(marks) - len(counted),
        )

    def _vectors(self, snapshot: Snapshot, space: Space, ids: Sequence[str], *, kept: bool) -> dict[str, Vector]:
        """The searched vectors of images by id; kept: of those that are there."""
        rowids = self._index.catalog.rowids(ids)
        held = np.fromiter(rowids.values(), dtype=np.int64, count=len(rowids))
        there = snapshot.holds_images(space.name, held)
        names = [image_id for image_id, here in zip(rowids, there, strict=True) if here]
        known = dict(zip(names, snapshot.vectors(space.name, held[there]), strict=True))
        if not kept and len(rowids) < len({*ids}):
            raise UnknownImage("The index has no image with one of these ids.")
        if not kept and len(known) < len(rowids):
            raise NotInSpace(
                f"A marked image has no vector in {space.name} yet. Mark others, or wait until it is filled."
            )
        return known

    def _background(self, snapshot: Snapshot, space: Space) -> Background:
        """Of images drawn at random, the same until the index has grown by a tenth, or is transformed otherwise."""
        count, transform = snapshot.spaces[space.name].count, _transform(snapshot, space)
        with self._lock:
            drawn = self._drawn.get(space.identity)
            if drawn is None or drawn[0] is not transform or not drawn[1] <= count <= GROWN * drawn[1]:
                rowids = snapshot.all_rowids(space.name)
                if len(rowids) > RANDOM_IMAGES:
                    rowids = np.sort(np.random.default_rng(0).choice(rowids, RANDOM_IMAGES, replace=False))
                if not len(rowids):
                    raise QueryInvalid(f"The space {space.name} has no images yet.")
                drawn = transform, count, background_of(snapshot.vectors(space.name, rowids))
                self._drawn[space.identity] = drawn
            return drawn[2]


class _OutdatedError(Exception):
    """A generation came while a question was answered, and its vectors are others."""


def _transform(snapshot: Snapshot, space: Space) -> Transform | None:
    """What a space's vectors went through; None before its first generation."""
    base = snapshot.spaces[space.name].base
    return None if base is None else base.transform


def best_cut(more: NDArray[np.float64], less: NDArray[np.float64]) -> float:
    """The score that tells two kinds of marks, (p,) and (m,), apart best: by the mean of both shares it has right."""
    scores = np.unique(np.concatenate([more, less]))
    cuts = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2])
    right = (more[None, :] >= cuts[:, None]).mean(axis=1) + (less[None, :] < cuts[:, None]).mean(axis=1)
    return float(np.clip(np.median(cuts[right == right.max()]), -1, 1))


def _known(ids: Iterable[str], known: dict[str, Vector]) -> tuple[str, ...]:
    return tuple(image_id for image_id in ids if image_id in known)


def _rows(ids: Sequence[str], known: dict[str, Vector], dim: int) -> Vector:
    return np.stack([known[image_id] for image_id in ids]) if ids else np.empty((0, dim), dtype=np.float32)
