"""What a guest sees by a link: one board, its images in small, and nothing else. Everything is escaped; no script."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, Template
from pydantic import BaseModel, ConfigDict, Field

from api.errors import LinkInvalid
from api.http import problems
from api.http.board_schemas import MAX_NUMBER, Person, Text
from api.http.routes import CheckedRoute, answers, served
from api.http.schemas import ImageId
from api.serving.boards import guests_share, whole_board
from api.serving.saved import checked_name, checked_text
from api.serving.service import Service
from search.catalog.shares import Share
from search.writer import Writer

THUMBNAIL = 512
"""Pixels of a picture's longer side on a guest's page: enough to choose by, and not the picture."""
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    # With none, browsers send its forms as those of no site, which are refused where there is no TLS.
    "Referrer-Policy": "same-origin",
}
PICTURE_HEADERS = {"Cache-Control": "private, max-age=300", "X-Robots-Tag": "noindex"}
"""Five minutes: what a revoked link has shown is soon forgotten."""

GONE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>This link opens nothing</title></head>
<body><h1>This link opens nothing</h1>
<p>It was taken back, has expired, or is not complete. Ask whoever sent it for a new one.</p></body>
</html>
"""


class GuestRoute(CheckedRoute):
    """A route that tells a browser in words of a page that a link opens nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that answers so. Called by FastAPI."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except LinkInvalid:
                if "text/html" not in request.headers.get("accept", ""):
                    raise
                return HTMLResponse(GONE, HTTPStatus.NOT_FOUND, headers={**PAGE_HEADERS, "Vary": "Accept"})

        return told


router = APIRouter(prefix="/b/{token}", tags=["guests"], route_class=GuestRoute)
Token = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_-]{1,100}$", description="Of a link.")]


_SAID: dict[int | str, dict[str, Any]] = answers(404, 409, 413, 507) | {303: {"description": "Back to the page."}}


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Person
    item: int | None = Field(default=None, ge=1, le=MAX_NUMBER)


class CommentForm(_Said):
    """A guest's comment."""

    text: Text


class VoteForm(_Said):
    """A guest's vote."""

    item: int = Field(ge=1, le=MAX_NUMBER)
    vote: Literal["true", "false"] = "true"


@router.get("", responses=answers(404) | {200: {"content": {"text/html": {}}}}, response_class=HTMLResponse)
async def guests_page(request: Request, token: Token) -> HTMLResponse:
    """A guest's page of one board."""
    service, share = await _opened(request, token)
    whole = await service.read(lambda index: whole_board(index, share.board))
    said = {item.number: [one for one in whole.comments if one.item == item.number] for item in whole.items}
    said[0] = [one for one in whole.comments if one.item is None]
    root = request.scope.get("root_path", "")
    shown = {"whole": whole, "said": said, "share": share, "here": f"{root}/b/{token}", "root": root}
    html = await service.read(lambda _: _template().render(shown))  # of a full board, it takes tenths of a second
    return HTMLResponse(html, headers=PAGE_HEADERS)


@router.get("/images/{id}", responses=answers(404) | {200: {"content": {"image/jpeg": {}}}}, response_class=Response)
async def guests_picture(request: Request, token: Token, id: Annotated[ImageId, PathParameter()]) -> Response:  # noqa: A002
    """A small JPEG of an image on the board."""
    service, _ = await _opened(request, token, id)
    data = await service.pictures.thumbnail(id, THUMBNAIL)
    return Response(data, media_type="image/jpeg", headers=PICTURE_HEADERS)


@router.post("/comments", status_code=303, responses=_SAID, response_class=Response)
async def guest_comments(
    request: Request, token: Token, form: Annotated[CommentForm, Form(media_type="application/x-www-form-urlencoded")]
) -> RedirectResponse:
    """Comment on an item, or on the board, where the link allows it."""
    service, share = await _opened(request, token)
    if not share.may_comment:
        raise LinkInvalid
    name, text = checked_name(form.name), checked_text(form.text, "A comment")
    if not text:
        raise problems.invalid("A comment has at least one character that is not white space.")

    def add(writer: Writer) -> None:
        with writer.transaction() as transaction:
            if not transaction.holds(share):  # it may have waited
                raise LinkInvalid
            transaction.add_comment(share.board, form.item, name, text, share=share.number)

    await service.write(add)
    return _back(request, token)


@router.post("/votes", status_code=303, responses=_SAID, response_class=Response)
async def guest_votes(
    request: Request, token: Token, form: Annotated[VoteForm, Form(media_type="application/x-www-form-urlencoded")]
) -> RedirectResponse:
    """Vote for an item, or take that back, where the link allows it."""
    service, share = await _opened(request, token)
    if not share.may_vote:
        raise LinkInvalid
    name = checked_name(form.name)

    def change(writer: Writer) -> None:
        with writer.transaction() as transaction:
            if not transaction.holds(share):  # it may have waited
                raise LinkInvalid
            if form.vote == "true":
                transaction.add_vote(share.board, form.item, name, share=share.number)
            else:
                transaction.drop_vote(share.board, form.item, name, share=share.number)

    await service.write(change)
    return _back(request, token)


async def _opened(request: Request, token: str, image_id: str | None = None) -> tuple[Service, Share]:
    """The index whose board a link opens. Raises LinkInvalid."""
    for service in served(request).values():
        share = await service.read(lambda index: guests_share(index, token, image_id))
        if share is not None:
            return service, share
    raise LinkInvalid


def _back(request: Request, token: str) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/b/{token}", status_code=303, headers=PAGE_HEADERS)


@cache
def _template() -> Template:
    return Environment(loader=PackageLoader("api", "web"), autoescape=True).get_template("board.html")
