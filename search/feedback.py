"""Feedback on a question: marks (more, or less, like this), rounds of them, and the label that they can become."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from search.errors import FeedbackInvalid, QueryInvalid, UnknownSession
from search.filters import parse_filter
from search.types import JsonObject, Query, QueryPart, Space

MAX_MARKS = 2_000
"""Images marked in all rounds up to one: their vectors are read, and compared with one another, in each round."""
MAX_NAME = 200
"""Characters of a session's or a round's name."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids of images that the user wants more like, and less like, each in the order of marking."""

    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.more) + len(self.less)

    def then(self, later: Marks) -> Marks:
        """Both; of an image that was marked twice, the later mark counts."""
        marked = dict.fromkeys(self.more, True) | dict.fromkeys(self.less, False)
        for ids, more in ((later.more, True), (later.less, False)):
            for image_id in ids:
                marked.pop(image_id, None)
                marked[image_id] = more
        return Marks(
            more=tuple(image_id for image_id, more in marked.items() if more),
            less=tuple(image_id for image_id, more in marked.items() if not more),
        )


def checked_marks(more: Sequence[str], less: Sequence[str]) -> Marks:
    """Marks, each image once. Raises FeedbackInvalid."""
    marks = Marks(more=tuple(dict.fromkeys(more)), less=tuple(dict.fromkeys(less)))
    if {*marks.more} & {*marks.less}:
        raise FeedbackInvalid("An image is marked as more and as less. Mark it once.")
    return checked_number(marks)


def checked_number(marks: Marks) -> Marks:
    """The marks, where they are not too many. Raises FeedbackInvalid."""
    if len(marks) > MAX_MARKS:
        raise FeedbackInvalid(f"A question can be taught by {MAX_MARKS:,} marks at most, not {len(marks):,}.")
    return marks


@dataclass(frozen=True, kw_only=True)
class TaughtQuestion:
    """The question that marks adapt: parts and words as in a `Query`, the name of one space, and a filter as JSON.

    Without parts and words, marks alone say what is looked for. recipe: the digest of the space's recipe where parts
    have vectors, which mean nothing in a space of the same name that was made by another one.
    """

    space: str
    parts: tuple[QueryPart, ...] = ()
    words: str | None = None
    words_share: float = 1.0
    filter: JsonObject | None = None
    recipe: str | None = None

    @classmethod
    def of(cls, query: Query, space: Space, matching: JsonObject | None) -> TaughtQuestion:
        """A query in one space as it is kept. matching: its filter as JSON."""
        has_vectors = any(part.vector is not None for part in query.parts)
        return cls(
            space=space.name,
            parts=tuple(query.parts),
            words=query.words,
            words_share=query.words_share,
            filter=matching,
            recipe=_digest(space) if has_vectors else None,
        )

    def check(self, space: Space) -> None:
        """Raises QueryInvalid where it was asked in another space, of the same name."""
        if self.recipe not in (None, _digest(space)):
            raise QueryInvalid(
                f"Since this question was asked, {space.name} was made again by another model or recipe. Begin another "
                "session: its marks can be given again."
            )

    def query(self, k: int, offset: int = 0, *, fold: bool = False) -> Query:
        """The query that it is before any mark. Raises FilterInvalid."""
        return Query(
            parts=self.parts,
            words=self.words,
            words_share=self.words_share,
            space=self.space,
            filter=None if self.filter is None else parse_filter(self.filter),
            k=k,
            offset=offset,
            fold=fold,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy; `from_json` is its inverse."""
        parts = [
            {**asdict(part), "vector": None if part.vector is None else np.asarray(part.vector).tolist()}
            for part in self.parts
        ]
        held = {
            "space": self.space,
            "parts": parts,
            "words": self.words,
            "words_share": self.words_share,
            "filter": self.filter,
        }
        return held if self.recipe is None else held | {"recipe": self.recipe}

    @classmethod
    def from_json(cls, data: JsonObject) -> TaughtQuestion:
        """Rebuild a question from `to_json`'s answer."""
        parts = tuple(
            QueryPart(**{**one, "vector": None if one["vector"] is None else np.array(one["vector"], dtype=np.float32)})
            for one in data["parts"]
        )
        return cls(**{**data, "parts": parts})


def _digest(space: Space) -> str:
    return hashlib.sha256(json.dumps(space.recipe.to_json(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """What a taught question labels: images that score at least `above`, as the marks up to a round say.

    precision: the share that `above` was chosen for, and is again each time the rule is applied; None: it was given.
    measured: what the marks said of it when it was kept.
    """

    label: str
    round: str
    above: float
    precision: float | None = None
    measured: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Marks added to those of the round before, its `parent`; never changed. added_at: ISO 8601, UTC.

    A session's root has no parent. Two rounds with one parent are branches; to undo a round is to go on from its
    parent. A round without marks says that its parent is gone on from.
    """

    id: str
    parent: str | None
    marks: Marks
    added_at: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class FeedbackSession:
    """A question, and the tree of rounds that teach it, oldest first, the root at the beginning."""

    id: str
    question: TaughtQuestion
    rounds: tuple[Round, ...]
    rule: LabelRule | None = None

    @property
    def name(self) -> str | None:
        """Its name, where it has one."""
        return self.rounds[0].name

    @property
    def newest(self) -> Round:
        """The round that was added last."""
        return self.rounds[-1]

    def path(self, round_id: str | None = None) -> list[Round]:
        """The rounds from the root to one, by its id or its name, of several the newest; None: the newest.

        Raises UnknownSession.
        """
        wanted = self.newest.id if round_id is None else round_id
        known = {one.id: one for one in self.rounds}
        here = known.get(wanted) or next((one for one in self.rounds[:0:-1] if one.name == wanted), None)
        if here is None:
            raise UnknownSession("The session has no such round.")
        path = [here]
        while path[-1].parent is not None:
            path.append(known[path[-1].parent])
        return path[::-1]

    def undone(self) -> str:
        """The round before the last marks of the newest one. Raises FeedbackInvalid where it has none."""
        for one in reversed(self.path()):
            if len(one.marks):
                assert one.parent is not None
                return one.parent
        raise FeedbackInvalid("There are no marks to take back.")

    def before(self, round_id: str | None = None) -> Marks | None:
        """The marks before the last ones of a round; None where it has none. Raises UnknownSession."""
        marked = [one for one in self.path(round_id) if len(one.marks)]
        return self.marks(marked[-1].parent) if marked else None

    def base(self, added: Marks, after: str | None, name: str | None) -> list[Round]:
        """The rounds from the root to the one that marks are added to: after; None: the newest.

        Marks that came twice, as from a client whose connection broke, are added to the same round both times. Raises
        UnknownSession.
        """
        path, newest = self.path(after), self.newest
        same = {*newest.marks.more} == {*added.more} and {*newest.marks.less} == {*added.less}
        twice = after is None and newest.parent is not None and same and newest.name == name
        return path[:-1] if twice else path

    def marks(self, round_id: str | None = None) -> Marks:
        """All marks up to a round; None: the newest. Raises UnknownSession."""
        marks = Marks()
        for one in self.path(round_id):
            marks = marks.then(one.marks)
        return marks


@dataclass(frozen=True, kw_only=True)
class SessionSummary:
    """A session at a glance. added_at: ISO 8601, UTC. rounds: how many beside the root. more, less: how many marks
    count up to the newest one. label: of its rule."""

    id: str
    name: str | None
    space: str
    added_at: str
    rounds: int
    more: int
    less: int
    label: str | None
