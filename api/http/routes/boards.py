"""Boards: listed, made and changed; comments, votes, links for guests, and exports."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from api.http import problems
from api.http.board_schemas import (
    MAX_NUMBER,
    BoardAnswer,
    BoardExport,
    BoardPatch,
    BoardRequest,
    BoardsAnswer,
    CommentAnswer,
    CommentRequest,
    CommentsAnswer,
    ItemAnswer,
    ItemPatch,
    ItemRequest,
    NewShareAnswer,
    ShareAnswer,
    ShareRequest,
    SharesAnswer,
    VoteRequest,
    WholeBoardAnswer,
)
from api.http.routes import CheckedRoute, Chosen, answers, rendered
from api.http.routes.search import answer_question
from api.http.search_schemas import SearchAnswer
from api.serving.boards import archive, contact_sheet, item_question, whole_board
from api.serving.prompts import whole_id
from api.serving.saved import checked_name, checked_text, settled
from api.serving.service import Service
from search.catalog.boards import Board, read_board, read_boards, read_comments, read_items
from search.catalog.shares import read_shares
from search.catalog.transaction import Transaction
from search.errors import NotOnBoard
from search.index import Index
from search.writer import Writer

router = APIRouter(prefix="/v1/boards", tags=["boards"], route_class=CheckedRoute)
Number = Annotated[int, PathParameter(ge=1, le=MAX_NUMBER, description="A board.")]
ID_DIGITS = 64
ItemNumber = Annotated[int, PathParameter(ge=1, le=MAX_NUMBER, description="One of its items.")]
Result = TypeVar("Result")


@router.get("", responses=answers(404))
async def list_boards(service: Chosen) -> BoardsAnswer:
    """All boards, the oldest first."""

    def read(index: Index) -> list[Board]:
        with index.catalog.reading() as connection:
            return read_boards(connection)

    return BoardsAnswer(boards=[BoardAnswer.of(board) for board in await service.read(read)])


@router.post("", status_code=201, responses=answers(404, 409, 413, 507))
async def add_board(service: Chosen, body: BoardRequest) -> BoardAnswer:
    """Make an empty board."""
    name, note = checked_name(body.name), checked_text(body.note, "A note")
    return await _board(service, await _change(service, lambda change: change.add_board(name, note)))


@router.get("/{board}", responses=answers(404))
async def read_whole_board(service: Chosen, board: Number) -> WholeBoardAnswer:
    """A board with what is on it, in its order."""
    whole = await service.read(lambda index: whole_board(index, board))
    items = [ItemAnswer.of(item) for item in whole.items]
    return WholeBoardAnswer(**BoardAnswer.of(whole.board).model_dump(), items=items)


@router.patch("/{board}", responses=answers(404, 413, 507))
async def change_board(service: Chosen, board: Number, body: BoardPatch) -> BoardAnswer:
    """Rename a board, or replace its note."""
    name = None if body.name is None else checked_name(body.name)
    note = None if body.note is None else checked_text(body.note, "A note")
    await _change(service, lambda change: change.change_board(board, name=name, note=note))
    return await _board(service, board)


@router.delete("/{board}", status_code=204, responses=answers(404, 507))
async def drop_board(service: Chosen, board: Number) -> None:
    """Delete a board with all that is on it. Its links open nothing any more."""
    await _change(service, lambda change: change.drop_board(board))


@router.post("/{board}/items", status_code=201, responses=answers(404, 409, 413, 507) | {200: {"model": ItemAnswer}})
async def add_item(response: Response, service: Chosen, board: Number, body: ItemRequest) -> ItemAnswer:
    """Put an image or a question at the end of a board: 201. 200 where the image is on it already."""
    if (body.image is None) == (body.question is None):
        raise problems.invalid("An item is exactly one of an image and a question.")
    note = checked_text(body.note, "A note")
    if body.question is not None:
        name = checked_name(body.name or "Question")
        kept = (await service.read(partial(settled, body.question))).to_json()
        item = await _change(service, lambda change: change.add_question_item(board, name, kept, note))
    else:
        image = body.image or ""
        if len(image) < ID_DIGITS:
            image = await service.read(partial(whole_id, image))
        item, new = await _change(service, lambda change: change.add_image_item(board, image, note))
        if not new:
            response.status_code = 200
    return await _item(service, board, item)


@router.patch("/{board}/items/{item}", responses=answers(404, 413, 507))
async def change_item(service: Chosen, board: Number, item: ItemNumber, body: ItemPatch) -> ItemAnswer:
    """Replace an item's note, or move it."""
    note = None if body.note is None else checked_text(body.note, "A note")
    await _change(service, lambda change: change.change_item(board, item, note=note, place=body.place))
    return await _item(service, board, item)


@router.delete("/{board}/items/{item}", status_code=204, responses=answers(404, 507))
async def drop_item(service: Chosen, board: Number, item: ItemNumber) -> None:
    """Take an item from a board, with its comments and votes. The image stays in the index."""
    await _change(service, lambda change: change.drop_item(board, item))


@router.get("/{board}/items/{item}/hits", response_model=SearchAnswer, responses=answers(404, 409))
async def item_hits(service: Chosen, board: Number, item: ItemNumber) -> Response:
    """The hits of a question on a board, as they are now; of an image, what is like it."""
    began = time.perf_counter()
    whole = await service.read(lambda index: whole_board(index, board))
    saved = item_question(whole, item)
    return rendered(await answer_question(service, saved.question(), began))


@router.get("/{board}/comments", responses=answers(404))
async def list_comments(service: Chosen, board: Number) -> CommentsAnswer:
    """The comments on a board, the oldest first."""
    return CommentsAnswer(comments=await _comments(service, board))


@router.post("/{board}/comments", status_code=201, responses=answers(404, 409, 413, 507))
async def add_comment(service: Chosen, board: Number, body: CommentRequest) -> CommentAnswer:
    """Comment on an item, or on the board as a whole."""
    name, text = checked_name(body.name), _said(body.text)
    number = await _change(service, lambda change: change.add_comment(board, body.item, name, text))
    for comment in await _comments(service, board):
        if comment.id == number:
            return comment
    raise NotOnBoard("The comment was deleted again.")


@router.delete("/{board}/comments/{comment}", status_code=204, responses=answers(404, 507))
async def drop_comment(
    service: Chosen, board: Number, comment: Annotated[int, PathParameter(ge=1, le=MAX_NUMBER)]
) -> None:
    """Delete a comment, whoever wrote it."""
    await _change(service, lambda change: change.drop_comment(board, comment))


@router.post("/{board}/votes", responses=answers(404, 409, 413, 507))
async def vote(service: Chosen, board: Number, body: VoteRequest) -> ItemAnswer:
    """Vote for an item, once by each name, or take that back. Returns the item with its votes."""
    name = checked_name(body.name)
    if body.vote:
        await _change(service, lambda change: change.add_vote(board, body.item, name))
    else:
        await _change(service, lambda change: change.drop_vote(board, body.item, name))
    return await _item(service, board, body.item)


@router.get("/{board}/share", responses=answers(404))
async def list_shares(service: Chosen, board: Number) -> SharesAnswer:
    """The links to a board, without their tokens."""
    return SharesAnswer(shares=await _shares(service, board))


@router.post("/{board}/share", status_code=201, responses=answers(404, 409, 413, 507))
async def share(request: Request, service: Chosen, board: Number, body: ShareRequest) -> NewShareAnswer:
    """Make a link by which guests see this board, and nothing else. Its path is answered once, and not kept."""
    name, token = checked_name(body.name), secrets.token_urlsafe(32)
    until = (datetime.now(UTC) + timedelta(days=body.days)).isoformat(timespec="seconds")

    def add(change: Transaction) -> int:
        return change.add_share(
            board, name, token, may_comment=body.may_comment, may_vote=body.may_vote, expires_at=until
        )

    number = await _change(service, add)
    for one in await _shares(service, board):
        if one.id == number:
            return NewShareAnswer(**one.model_dump(), path=f"{request.scope.get('root_path', '')}/b/{token}")
    raise NotOnBoard("The link was revoked again.")


@router.delete("/{board}/share/{share}", status_code=204, responses=answers(404, 507))
async def revoke(service: Chosen, board: Number, share: Annotated[int, PathParameter(ge=1, le=MAX_NUMBER)]) -> None:
    """Revoke a link: it opens nothing from now on."""
    await _change(service, lambda change: change.drop_share(board, share))


@router.get(
    "/{board}/export",
    responses=answers(404) | {200: {"content": {"application/zip": {}, "image/jpeg": {}, "application/json": {}}}},
    response_class=Response,
)
async def export(
    service: Chosen,
    board: Number,
    form: Annotated[
        Literal["json", "zip", "sheet"], Query(description="`zip`: the original files; `sheet`: a contact sheet.")
    ] = "json",
) -> Response:
    """A board to take along: as JSON, as an archive of the original files with that, or as a contact sheet (JPEG)."""
    whole = await service.read(lambda index: whole_board(index, board))
    if form == "sheet":
        return Response(await contact_sheet(whole, service.pictures), media_type="image/jpeg")
    described = partial(BoardExport.whole, whole.board, whole.items, whole.comments)
    if form == "json":
        return rendered(described())
    headers = {"Content-Disposition": f'attachment; filename="board-{board}.zip"'}
    pieces = archive(service.index, whole, lambda names: described(names).model_dump_json(indent=2))
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def _said(text: str) -> str:
    said = checked_text(text, "A comment")
    if not said:
        raise problems.invalid("A comment has at least one character that is not white space.")
    return said


async def _change(service: Service, work: Callable[[Transaction], Result]) -> Result:
    def change(writer: Writer) -> Result:
        with writer.transaction() as transaction:
            return work(transaction)

    return await service.write(change)


async def _board(service: Service, board: int) -> BoardAnswer:
    def read(index: Index) -> Board:
        with index.catalog.reading() as connection:
            return read_board(connection, board)

    return BoardAnswer.of(await service.read(read))


async def _item(service: Service, board: int, item: int) -> ItemAnswer:
    def read(index: Index) -> list[ItemAnswer]:
        with index.catalog.reading() as connection:
            return [ItemAnswer.of(one) for one in read_items(connection, board) if one.number == item]

    found = await service.read(read)
    if not found:
        raise NotOnBoard("The item was taken from the board again.")
    return found[0]


async def _comments(service: Service, board: int) -> list[CommentAnswer]:
    def read(index: Index) -> list[CommentAnswer]:
        with index.catalog.reading() as connection:
            return [CommentAnswer.of(comment) for comment in read_comments(connection, board)]

    return await service.read(read)


async def _shares(service: Service, board: int) -> list[ShareAnswer]:
    def read(index: Index) -> list[ShareAnswer]:
        with index.catalog.reading() as connection:
            return [ShareAnswer.of(share) for share in read_shares(connection, board)]

    return await service.read(read)
