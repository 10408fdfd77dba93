"""Boards as they go over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.http.schemas import EXAMPLE_ID, Request, ShortId
from api.serving.saved import SavedQuestion
from search.catalog.boards import MAX_ITEMS, Board, BoardItem, Comment, Vote
from search.catalog.shares import Share

MAX_NUMBER = 2**53 - 1
"""Of boards, items, watches: what any JSON parser reads as it is."""
MAX_NAME = 200
"""Characters of the name of a board, a question or a watch."""
MAX_NOTE = 2_000
"""Characters of a note, or of a comment: about a page."""
MAX_PERSON = 60
"""Characters of the name under which somebody comments or votes: a hundred are listed with an item."""
MAX_DAYS = 366
"""For which a link can hold."""
BoardName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NOTE)]
Person = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PERSON)]
Item = Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class BoardRequest(Request):
    """A new board."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Spring"}]})

    name: BoardName
    note: Note = ""


class BoardPatch(Request):
    """A change of a board. What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Summer"}]})

    name: BoardName | None = None
    note: Note | None = None


class ItemRequest(Request):
    """What to put on a board: exactly one of an image and a question."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": EXAMPLE_ID, "note": "the blue one"}]})

    image: ShortId | None = Field(
        default=None, description="An indexed image: its id, or 4 digits or more that only its id begins with."
    )
    question: SavedQuestion | None = Field(default=None, description="As a search, without pictures.")
    name: BoardName | None = Field(default=None, description="Of the question.")
    note: Note = ""


class ItemPatch(Request):
    """A change of an item. What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"place": 0}]})

    note: Note | None = None
    place: int | None = Field(default=None, ge=0, le=MAX_ITEMS, description="Where it goes, from 0.")


class CommentRequest(Request):
    """A comment on an item, or on the board as a whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada", "text": "this one"}]})

    name: Person
    text: Text
    item: Item | None = None


class VoteRequest(Request):
    """A vote for an item, or taking it back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": 1, "name": "Ada"}]})

    item: Item
    name: Person
    vote: bool = True


class ShareRequest(Request):
    """A link for guests."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "the client", "days": 14}]})

    name: BoardName = Field(description="Whom it is for.")
    days: int = Field(default=30, ge=1, le=MAX_DAYS, description="How long it holds.")
    may_comment: bool = False
    may_vote: bool = False


class BoardAnswer(BaseModel):
    """A board at a glance."""

    id: int
    name: str
    note: str
    made_at: str
    count: int = Field(description="Its images and questions.")

    @classmethod
    def of(cls, board: Board) -> BoardAnswer:
        """The answer for a board."""
        return cls(id=board.number, name=board.name, note=board.note, made_at=board.made_at, count=board.items)


class BoardsAnswer(BaseModel):
    """All boards, the oldest first."""

    boards: list[BoardAnswer]


class VoteAnswer(BaseModel):
    """A vote."""

    name: str
    guest: bool = Field(description="It came by a link.")

    @classmethod
    def of(cls, vote: Vote) -> VoteAnswer:
        """The answer for a vote."""
        return cls(name=vote.name, guest=vote.guest)


class ItemAnswer(BaseModel):
    """An image or a question on a board."""

    id: int
    image: str | None
    gone: bool = Field(description="The index has no such image any more.")
    name: str | None = Field(description="Of a question.")
    question: dict[str, Any] | None
    note: str
    added_at: str
    votes: list[VoteAnswer]

    @classmethod
    def of(cls, item: BoardItem) -> ItemAnswer:
        """The answer for an item."""
        return cls(
            id=item.number,
            image=item.image,
            gone=item.gone,
            name=item.name,
            question=None if item.question is None else dict(item.question),
            note=item.note,
            added_at=item.added_at,
            votes=[VoteAnswer.of(vote) for vote in item.votes],
        )


class WholeBoardAnswer(BoardAnswer):
    """A board with what is on it, in its order."""

    items: list[ItemAnswer]


class CommentAnswer(BaseModel):
    """A comment."""

    id: int
    item: int | None = Field(description="Null: on the board as a whole.")
    name: str
    text: str
    guest: bool = Field(description="It came by a link.")
    written_at: str

    @classmethod
    def of(cls, comment: Comment) -> CommentAnswer:
        """The answer for a comment."""
        return cls(
            id=comment.number,
            item=comment.item,
            name=comment.name,
            text=comment.text,
            guest=comment.guest,
            written_at=comment.written_at,
        )


class CommentsAnswer(BaseModel):
    """The comments on a board, the oldest first."""

    comments: list[CommentAnswer]


class ShareAnswer(BaseModel):
    """A link for guests, without its token."""

    id: int
    name: str
    may_comment: bool
    may_vote: bool
    made_at: str
    expires_at: str
    expired: bool

    @classmethod
    def of(cls, share: Share) -> ShareAnswer:
        """The answer for a link."""
        return cls(
            id=share.number,
            name=share.name,
            may_comment=share.may_comment,
            may_vote=share.may_vote,
            made_at=share.made_at,
            expires_at=share.expires_at,
            expired=share.expired,
        )


class NewShareAnswer(ShareAnswer):
    """A link that was just made: only now with its path, which holds the token."""

    path: str = Field(description="Behind the server's address.")


class SharesAnswer(BaseModel):
    """The links to a board, the oldest first."""

    shares: list[ShareAnswer]


class ExportedItem(ItemAnswer):
    """An image or a question on a board that is taken along."""

    file: str | None = Field(description="The name of an image's file beside this one, where files are written.")


class BoardExport(BoardAnswer):
    """A board with all that was said of it."""

    items: list[ExportedItem]
    comments: list[CommentAnswer]

    @classmethod
    def whole(
        cls, board: Board, items: list[BoardItem], comments: list[Comment], files: Mapping[int, str] | None = None
    ) -> BoardExport:
        """The answer for a board and what is on it. files: names by items."""
        names = files or {}
        return cls(
            **BoardAnswer.of(board).model_dump(),
            items=[ExportedItem(**ItemAnswer.of(item).model_dump(), file=names.get(item.number)) for item in items],
            comments=[CommentAnswer.of(comment) for comment in comments],
        )
