"""Values of boards and watches. All are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """Somebody's vote for an item. guest: it came by a link."""

    name: str
    guest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardItem:
    """An image on a board, by its id, or a question, with its name. gone: the index has no such image any more."""

    id: int
    image: str | None
    gone: bool
    name: str | None
    question: Mapping[str, Any] | None = field(hash=False)
    note: str
    added_at: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board. count: of what is on it; items: that, in its order, where the board was read by itself."""

    id: int
    name: str
    note: str
    made_at: str
    count: int
    items: tuple[BoardItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment on an item, or on the board as a whole (None). guest: it came by a link."""

    id: int
    item: int | None
    name: str
    text: str
    guest: bool
    written_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A link for guests. path: behind the server's address, with the token; only of a link that was just made."""

    id: int
    name: str
    may_comment: bool
    may_vote: bool
    made_at: str
    expires_at: str
    expired: bool
    path: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A watch. address: who is told, without the path. problem: why its question cannot be asked now. waiting, failed:
    how many messages are so. secret: signs its messages; only of a watch that was just made."""

    id: int
    name: str
    question: Mapping[str, Any] = field(hash=False)
    address: str
    form: str
    made_at: str
    problem: str | None
    waiting: int
    failed: int
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An image of which a watch tells, with its score and false-match rate."""

    id: str
    score: float
    fmr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message of a watch. state: `waiting`, `sent` or `failed`. answer: to the last attempt, a status or why not."""

    id: int
    matches: tuple[Match, ...]
    state: str
    attempts: int
    made_at: str
    tried_at: str | None
    answer: str | None
