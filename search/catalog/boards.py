"""Boards: named collections of images and questions, with notes, comments, votes, and links for guests.

Images are on them by content: a board keeps them when the index is built again, and shows which ones are gone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, insert, select, update

from search.catalog.lookup import Lookup
from search.catalog.questions import add_question, now, questions_naming
from search.catalog.schema import board_items, boards, comments, images, questions, shares, votes
from search.errors import NotOnBoard, TooMany, UnknownBoard, UnknownImage
from search.types import JsonObject

MAX_BOARDS = 1_000
"""Of an index: they are listed in one answer."""
MAX_ITEMS = 1_000
"""Of a board, which is read and shown as a whole."""
MAX_COMMENTS = 1_000
"""Of a board: they are listed in one answer, of two megabytes at most."""
MAX_VOTES = 100
"""Of an item: their names are listed with it."""
MAX_GUEST_COMMENTS = 200
"""Comments that came by one link: one guest must not use up those of all."""
MAX_GUEST_VOTES = 1_000
"""Votes that came by one link."""
MAX_GUEST_VOTES_OF_ITEM = 30
"""Votes for an item that came by one link, under any names: one guest must not use up those of all."""
WITH_KEY = 0
"""In place of a share's number: of somebody with a key."""

_MOVE = update(board_items).where(board_items.c.item == bindparam("number")).values(position=bindparam("to"))
_BOARDS = select(
    boards,
    select(func.count()).where(board_items.c.board == boards.c.board).scalar_subquery().label("items"),
)


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board at a glance. made_at: ISO 8601, UTC, as all times here."""

    number: int
    name: str
    note: str
    made_at: str
    items: int


@dataclass(frozen=True, kw_only=True)
class Vote:
    """Somebody's vote for an item. guest: it came by a link."""

    name: str
    guest: bool


@dataclass(frozen=True, kw_only=True)
class BoardItem:
    """An image, by its id, or a question, with its name. gone: the index has no such image any more."""

    number: int
    image: str | None
    gone: bool
    name: str | None
    question: JsonObject | None
    note: str
    added_at: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A comment on an item, or on the board as a whole (None). guest: it came by a link."""

    number: int
    item: int | None
    name: str
    text: str
    guest: bool
    written_at: str


class BoardChanges(Lookup):
    """The part of a write transaction that holds boards."""

    def add_board(self, name: str, note: str = "") -> int:
        """Add an empty board. Returns its number. Raises TooMany."""
        if self._count(boards) >= MAX_BOARDS:
            raise TooMany(f"An index has at most {MAX_BOARDS:,} boards. Delete one first.")
        return self._insert(boards, name=name, note=note, made_at=now())

    def change_board(self, board: int, *, name: str | None = None, note: str | None = None) -> None:
        """Rename a board, or replace its note. Raises UnknownBoard."""
        self._must_have(board)
        self._update(boards, boards.c.board == board, name=name, note=note)

    def drop_board(self, board: int) -> None:
        """Delete a board with all that is on it, and its links. Raises UnknownBoard."""
        self._must_have(board)
        self._drop_items(board_items.c.board == board)
        for table in (comments, shares, boards):
            self._connection.execute(delete(table).where(table.c.board == board))

    def add_image_item(self, board: int, image_id: str, note: str = "") -> tuple[int, bool]:
        """Put an image at the end of a board, where it is not on it yet. Returns the item, and whether it is new.

        Raises UnknownBoard, UnknownImage, TooMany.
        """
        self._must_have(board)
        here = (board_items.c.board == board) & (board_items.c.image == image_id)
        known = self._connection.execute(select(board_items.c.item).where(here)).scalar()
        if known is not None:
            return known, False
        if self.rowid(image_id) is None:
            raise UnknownImage("The index has no image with this id.")
        return self._add_item(board, note, image=image_id), True

    def add_question_item(self, board: int, name: str, body: JsonObject, note: str = "") -> int:
        """Put a question at the end of a board. body: as a search over HTTP. Raises UnknownBoard, TooMany."""
        self._must_have(board)
        return self._add_item(board, note, question=add_question(self._connection, name, body))

    def change_item(self, board: int, item: int, *, note: str | None = None, place: int | None = None) -> None:
        """Replace an item's note, or move it. Raises UnknownBoard, NotOnBoard.

        place: from 0; behind the last is last.
        """
        self._must_hold(board, item)
        self._update(board_items, board_items.c.item == item, note=note)
        if place is None:
            return
        there = select(board_items.c.item).where(board_items.c.board == board).order_by(board_items.c.position)
        order = [number for number in self._connection.execute(there).scalars() if number != item]
        order.insert(place, item)
        self._connection.execute(_MOVE, [{"number": number, "to": to} for to, number in enumerate(order)])

    def drop_item(self, board: int, item: int) -> None:
        """Take an item from a board, with its comments and votes. Raises UnknownBoard, NotOnBoard."""
        self._must_hold(board, item)
        self._drop_items(board_items.c.item == item)

    def add_comment(self, board: int, item: int | None, name: str, text: str, *, share: int = WITH_KEY) -> int:
        """Comment on an item, or on the board. Returns the comment. Raises UnknownBoard, NotOnBoard, TooMany."""
        if item is None:
            self._must_have(board)
        else:
            self._must_hold(board, item)
        if self._count(comments, comments.c.board == board) >= MAX_COMMENTS:
            raise TooMany(f"A board has at most {MAX_COMMENTS:,} comments. Delete some first.")
        if share != WITH_KEY and self._count(comments, comments.c.share == share) >= MAX_GUEST_COMMENTS:
            raise TooMany(f"At most {MAX_GUEST_COMMENTS} comments can come by one link.")
        by = None if share == WITH_KEY else share
        return self._insert(comments, board=board, item=item, name=name, text=text, share=by, written_at=now())

    def drop_comment(self, board: int, comment: int) -> None:
        """Delete a comment. Raises UnknownBoard, NotOnBoard."""
        self._must_have(board)
        here = (comments.c.board == board) & (comments.c.comment == comment)
        if not self._connection.execute(delete(comments).where(here)).rowcount:
            raise NotOnBoard("The board has no such comment.")

    def add_vote(self, board: int, item: int, name: str, *, share: int = WITH_KEY) -> bool:
        """Vote for an item, once by each name. Returns whether it is new. Raises UnknownBoard, NotOnBoard, TooMany."""
        self._must_hold(board, item)
        if self._count(votes, _vote(item, name, share)):
            return False
        if self._count(votes, votes.c.item == item) >= MAX_VOTES:
            raise TooMany(f"An item has at most {MAX_VOTES} votes.")
        if share != WITH_KEY:
            if self._count(votes, votes.c.share == share) >= MAX_GUEST_VOTES:
                raise TooMany(f"At most {MAX_GUEST_VOTES:,} votes can come by one link.")
            if self._count(votes, (votes.c.item == item) & (votes.c.share == share)) >= MAX_GUEST_VOTES_OF_ITEM:
                raise TooMany(f"At most {MAX_GUEST_VOTES_OF_ITEM} votes for an item can come by one link.")
        self._connection.execute(insert(votes).values(item=item, share=share, name=name, voted_at=now()))
        return True

    def drop_vote(self, board: int, item: int, name: str, *, share: int = WITH_KEY) -> bool:
        """Take a vote back. Returns whether there was one. Raises UnknownBoard, NotOnBoard."""
        self._must_hold(board, item)
        return bool(self._connection.execute(delete(votes).where(_vote(item, name, share))).rowcount)

    def take_from_boards(self, image_id: str) -> None:
        """Take an image from all boards, and questions that name it."""
        self._drop_items(board_items.c.image == image_id)
        self._drop_items(board_items.c.question.in_(questions_naming(self._connection, image_id)))

    def _add_item(self, board: int, note: str, **of: Any) -> int:
        here = board_items.c.board == board
        count, last = self._connection.execute(select(func.count(), func.max(board_items.c.position)).where(here)).one()
        if count >= MAX_ITEMS:
            raise TooMany(f"A board has at most {MAX_ITEMS:,} images and questions. Take one away first.")
        position = 0 if last is None else last + 1
        return self._insert(board_items, board=board, position=position, note=note, added_at=now(), **of)

    def _drop_items(self, which: Any) -> None:
        found = self._connection.execute(select(board_items.c.item, board_items.c.question).where(which)).all()
        for item, question in found:
            for table in (comments, votes, board_items):
                self._connection.execute(delete(table).where(table.c.item == item))
            if question is not None:
                self._connection.execute(delete(questions).where(questions.c.question == question))

    def _must_have(self, board: int) -> None:
        must_have_board(self._connection, board)

    def _must_hold(self, board: int, item: int) -> None:
        self._must_have(board)
        if not self._count(board_items, (board_items.c.board == board) & (board_items.c.item == item)):
            raise NotOnBoard("The board has no such item.")

    def _count(self, table: Table, which: Any = True) -> int:
        query = select(func.count()).select_from(table)
        return self._connection.execute(query if which is True else query.where(which)).scalar_one()

    def _insert(self, table: Table, **values: Any) -> int:
        key = self._connection.execute(insert(table).values(values)).inserted_primary_key
        assert key is not None, "the table has a number for each row"
        return int(key[0])

    def _update(self, table: Table, which: Any, **values: Any) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        if given:
            self._connection.execute(update(table).where(which).values(given))


def _vote(item: int, name: str, share: int) -> Any:
    return (votes.c.item == item) & (votes.c.share == share) & (votes.c.name == name)


def must_have_board(connection: Connection, board: int) -> None:
    """Raises UnknownBoard."""
    if connection.execute(select(boards.c.board).where(boards.c.board == board)).scalar() is None:
        raise UnknownBoard("The index has no such board.")


def read_boards(connection: Connection) -> list[Board]:
    """All boards, the oldest first."""
    return [_board(row) for row in connection.execute(_BOARDS.order_by(boards.c.board))]


def read_board(connection: Connection, board: int) -> Board:
    """One board. Raises UnknownBoard."""
    row = connection.execute(_BOARDS.where(boards.c.board == board)).first()
    if row is None:
        raise UnknownBoard("The index has no such board.")
    return _board(row)


def read_items(connection: Connection, board: int) -> list[BoardItem]:
    """What is on a board, in its order."""
    here = board_items.c.board == board
    voted: dict[int, list[Vote]] = defaultdict(list)
    query = select(votes).join(board_items, board_items.c.item == votes.c.item).where(here)
    for row in connection.execute(query.order_by(votes.c.voted_at, votes.c.name)):
        voted[row.item].append(Vote(name=row.name, guest=row.share != WITH_KEY))
    held = (
        select(board_items, questions.c.name, questions.c.body, images.c.rowid.label("held"))
        .outerjoin(questions, questions.c.question == board_items.c.question)
        .outerjoin(images, images.c.id == board_items.c.image)
        .where(here)
        .order_by(board_items.c.position)
    )
    return [
        BoardItem(
            number=row.item,
            image=row.image,
            gone=row.image is not None and row.held is None,
            name=row.name,
            question=row.body,
            note=row.note,
            added_at=row.added_at,
            votes=tuple(voted[row.item]),
        )
        for row in connection.execute(held)
    ]


def has_image(connection: Connection, board: int, image_id: str) -> bool:
    """Whether an image is on a board."""
    here = (board_items.c.board == board) & (board_items.c.image == image_id)
    return connection.execute(select(board_items.c.item).where(here)).first() is not None


def read_comments(connection: Connection, board: int) -> list[Comment]:
    """The comments on a board, the oldest first. Raises UnknownBoard."""
    must_have_board(connection, board)
    query = select(comments).where(comments.c.board == board).order_by(comments.c.comment)
    return [
        Comment(
            number=row.comment,
            item=row.item,
            name=row.name,
            text=row.text,
            guest=row.share is not None,
            written_at=row.written_at,
        )
        for row in connection.execute(query)
    ]


def _board(row: Row[Any]) -> Board:
    return Board(number=row.board, name=row.name, note=row.note, made_at=row.made_at, items=row.items)
