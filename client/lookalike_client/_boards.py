"""Boards: every call of theirs as a method.

`_boards.py` is made of `_async_boards.py`: change this one, and run `python client/generate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import httpx

from lookalike_client import _answers
from lookalike_client._board_models import Board, BoardItem, Comment, Share
from lookalike_client._calls import Answer, Call, given
from lookalike_client._connection import Connection
from lookalike_client._models import SearchResult

_BOARDS = "/v1/boards"


class Boards:
    """The boards of a server: `client.boards`. Boards, items, comments and links are named by their numbers.

    index: the served index; None: the first. Every method raises NotFound for what is not there; those that change
    something raise Unprocessable, Conflict (there are as many as there may be), Forbidden, Unavailable and DiskFull.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, index: str | None = None) -> tuple[Board, ...]:
        """All boards, the oldest first, without what is on them."""
        return self._run("GET", "", _boards, index)

    def get(self, board: int, index: str | None = None) -> Board:
        """A board with what is on it, in its order."""
        return self._run("GET", f"/{board:d}", _board, index)

    def create(self, name: str, *, note: str = "", index: str | None = None) -> Board:
        """Make an empty board."""
        return self._run("POST", "", _board, index, {"name": name, "note": note}, once=True)

    def update(
        self, board: int, *, name: str | None = None, note: str | None = None, index: str | None = None
    ) -> Board:
        """Rename a board, or replace its note. What is None stays."""
        return self._run("PATCH", f"/{board:d}", _board, index, given({"name": name, "note": note}))

    def delete(self, board: int, index: str | None = None) -> None:
        """Delete a board with all that is on it. Its links open nothing any more."""
        self._run("DELETE", f"/{board:d}", _answers.nothing, index)

    def add(self, board: int, image: str, *, note: str = "", index: str | None = None) -> BoardItem:
        """Put an image, by its id, at the end of a board. Where it is on it already, nothing changes."""
        return self._run("POST", f"/{board:d}/items", _item, index, {"image": image, "note": note})

    def add_question(
        self, board: int, name: str, question: Mapping[str, Any], *, note: str = "", index: str | None = None
    ) -> BoardItem:
        """Put a question at the end of a board. question: the body of a search over HTTP, without pictures, such as
        `{"parts": [{"id": "9f86..."}], "k": 20}`."""
        body = {"name": name, "question": dict(question), "note": note}
        return self._run("POST", f"/{board:d}/items", _item, index, body, once=True)

    def move(self, board: int, item: int, place: int, index: str | None = None) -> BoardItem:
        """Move an item to a place, from 0."""
        return self._run("PATCH", f"/{board:d}/items/{item:d}", _item, index, {"place": place})

    def annotate(self, board: int, item: int, note: str, index: str | None = None) -> BoardItem:
        """Replace an item's note."""
        return self._run("PATCH", f"/{board:d}/items/{item:d}", _item, index, {"note": note})

    def remove(self, board: int, item: int, index: str | None = None) -> None:
        """Take an item from a board, with its comments and votes. The image stays in the index."""
        self._run("DELETE", f"/{board:d}/items/{item:d}", _answers.nothing, index)

    def hits(self, board: int, item: int, index: str | None = None) -> SearchResult:
        """The hits of a question on a board, as they are now; of an image, what is like it."""
        return self._run("GET", f"/{board:d}/items/{item:d}/hits", _answers.search_result, index)

    def comments(self, board: int, index: str | None = None) -> tuple[Comment, ...]:
        """The comments on a board, the oldest first."""
        return self._run("GET", f"/{board:d}/comments", _comments, index)

    def comment(
        self, board: int, text: str, *, name: str, item: int | None = None, index: str | None = None
    ) -> Comment:
        """Comment on an item, or on the board as a whole. name: who writes it."""
        body = given({"name": name, "text": text, "item": item})
        return self._run("POST", f"/{board:d}/comments", _comment, index, body, once=True)

    def delete_comment(self, board: int, comment: int, index: str | None = None) -> None:
        """Delete a comment, whoever wrote it."""
        self._run("DELETE", f"/{board:d}/comments/{comment:d}", _answers.nothing, index)

    def vote(self, board: int, item: int, *, name: str, vote: bool = True, index: str | None = None) -> BoardItem:
        """Vote for an item, once by each name; False takes that back."""
        body = {"item": item, "name": name, "vote": vote}
        return self._run("POST", f"/{board:d}/votes", _item, index, body)

    def shares(self, board: int, index: str | None = None) -> tuple[Share, ...]:
        """The links to a board, without their paths."""
        return self._run("GET", f"/{board:d}/share", _shares, index)

    def share(
        self,
        board: int,
        name: str,
        *,
        days: int = 30,
        may_comment: bool = False,
        may_vote: bool = False,
        index: str | None = None,
    ) -> Share:
        """Make a link by which guests see this board, and nothing else, for so many days (1..366).

        Its `path`, behind the server's address, is answered only now. name: whom it is for.
        """
        body = {"name": name, "days": days, "may_comment": may_comment, "may_vote": may_vote}
        return self._run("POST", f"/{board:d}/share", _share, index, body, once=True)

    def revoke(self, board: int, share: int, index: str | None = None) -> None:
        """Revoke a link: it opens nothing from now on."""
        self._run("DELETE", f"/{board:d}/share/{share:d}", _answers.nothing, index)

    def export(self, board: int, form: Literal["json", "zip", "sheet"] = "zip", index: str | None = None) -> bytes:
        """A board to take along: `zip`, an archive of the original files; `sheet`, a contact sheet (JPEG); `json`."""
        return self._run("GET", f"/{board:d}/export", _content, index, params={"form": form})

    def _run(
        self,
        method: str,
        path: str,
        parse: Callable[[httpx.Response], Answer],
        index: str | None,
        json: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Answer:
        call = Call(
            method=method,
            path=_BOARDS + path,
            params={**(params or {}), **given({"index": index})},
            json=json,
            parse=parse,
            absence_is_success=method == "DELETE",
            once=once,
        )
        return self._connection._run(call)


def _boards(response: httpx.Response) -> tuple[Board, ...]:
    return _answers.listed(Board, response, "boards")


def _board(response: httpx.Response) -> Board:
    return _answers.read(Board, response)


def _item(response: httpx.Response) -> BoardItem:
    return _answers.read(BoardItem, response)


def _comments(response: httpx.Response) -> tuple[Comment, ...]:
    return _answers.listed(Comment, response, "comments")


def _comment(response: httpx.Response) -> Comment:
    return _answers.read(Comment, response)


def _shares(response: httpx.Response) -> tuple[Share, ...]:
    return _answers.listed(Share, response, "shares")


def _share(response: httpx.Response) -> Share:
    return _answers.read(Share, response)


def _content(response: httpx.Response) -> bytes:
    return response.content
