"""Watches: questions whose new matches are told to an address."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter

from api.errors import QuestionInvalid
from api.http.board_schemas import MAX_NUMBER
from api.http.routes import CheckedRoute, Chosen, answers
from api.http.watch_schemas import (
    DeliveriesAnswer,
    DeliveryAnswer,
    NewWatchAnswer,
    WatchAnswer,
    WatchesAnswer,
    WatchRequest,
)
from api.serving.notify import checked_url
from api.serving.saved import checked_name, checked_text
from api.serving.timing import Timing
from api.serving.watched import check_cut, checked_watch, watched
from api.settings import Settings
from search.catalog.watches import Delivery, Watch, read_deliveries, read_watches
from search.index import Index
from search.writer import Writer

router = APIRouter(prefix="/v1/watches", tags=["watches"], route_class=CheckedRoute)
Number = Annotated[int, PathParameter(ge=1, le=MAX_NUMBER, description="A watch.")]


@router.get("", responses=answers(404))
async def list_watches(service: Chosen) -> WatchesAnswer:
    """The watches of an index, the oldest first, without their secrets."""
    return WatchesAnswer(watches=[WatchAnswer.of(watch) for watch in await service.read(_watches)])


@router.post("", status_code=201, responses=answers(404, 409, 413, 507))
async def add_watch(request: Request, service: Chosen, body: WatchRequest) -> NewWatchAnswer:
    """Tell an address of images that are added from now on, and match. The question is asked once, to see whether it
    can be.
    """
    settings: Settings = request.app.state.settings
    url = checked_url(body.url, private=settings.watch_private)
    name = checked_name(body.name)
    secret = body.secret or secrets.token_hex(32)
    if checked_text(secret, "A secret") != secret:
        raise QuestionInvalid("A secret does not begin or end with white space.")
    saved = await service.read(partial(checked_watch, body.question))
    kept = saved.to_json()
    question = await service.read(partial(watched, saved))
    hits, _ = await service.ask(question, Timing())
    check_cut(question, hits)

    def add(writer: Writer) -> int:
        with writer.transaction() as transaction:
            return transaction.add_watch(name, kept, url=url, form=body.form, secret=secret)

    number = await service.write(add)
    (watch,) = await service.read(lambda index: _watches(index, number))
    return NewWatchAnswer(**WatchAnswer.of(watch).model_dump(), secret=secret)


@router.get("/{watch}", responses=answers(404))
async def read_watch(service: Chosen, watch: Number) -> WatchAnswer:
    """One watch."""
    return WatchAnswer.of((await service.read(lambda index: _watches(index, watch)))[0])


@router.delete("/{watch}", status_code=204, responses=answers(404, 507))
async def drop_watch(service: Chosen, watch: Number) -> None:
    """Delete a watch, with the messages that wait. One that is under way may still arrive."""

    def drop(writer: Writer) -> None:
        with writer.transaction() as transaction:
            transaction.drop_watch(watch)

    await service.write(drop)


@router.get("/{watch}/deliveries", responses=answers(404))
async def list_deliveries(service: Chosen, watch: Number) -> DeliveriesAnswer:
    """The messages of a watch: all that wait, and the last hundred of the others."""

    def read(index: Index) -> list[Delivery]:
        with index.catalog.reading() as connection:
            return read_deliveries(connection, watch)

    return DeliveriesAnswer(deliveries=[DeliveryAnswer.of(one) for one in await service.read(read)])


def _watches(index: Index, watch: int | None = None) -> list[Watch]:
    with index.catalog.reading() as connection:
        return read_watches(connection, watch)
