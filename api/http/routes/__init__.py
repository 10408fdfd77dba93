"""The calls of the HTTP interface, by noun."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import FormData

from api.http import problems
from api.http.schemas import Name, ProblemAnswer
from api.serving.service import Service
from search.filters import Filter
from search.filters import parse_filter as parsed

ANYWHERE = (400, 401, 403, 408, 422, 429, 431, 503, 504)
"""Statuses of problems that any call may meet."""
MAX_VALUES = 600_000
"""Of a JSON body: 256 queries by vectors of 2,304 numbers have 590,000, and take 100 ms to parse; 20 MB of `{}`, half a
second and half a gigabyte."""


def served(request: Request) -> dict[str, Service]:
    """The served indexes by name; the first is the default."""
    services: dict[str, Service] = request.app.state.services
    return services


def choose(request: Request, *names: str | None) -> Service:
    """The service of the first index name that is given, or the default one. Raises Problem."""
    services = served(request)
    name = next((name for name in names if name is not None), None)
    if name is None:
        return next(iter(services.values()))
    if name not in services:
        raise problems.unknown_index(list(services))
    return services[name]


InAddress = Annotated[
    Name | None, Query(alias="index", description="The index, where the body names none. Default: the first served.")
]
"""Of calls whose body can name an index too."""


async def chosen(
    request: Request, index: Annotated[Name | None, Query(description="Default: the first one served.")] = None
) -> Service:
    """The service that the query parameter `index` names."""
    return choose(request, index)


Chosen = Annotated[Service, Depends(chosen)]


def parse_filter(text: str | None) -> Filter | None:
    """The filter of a form field or query parameter. Raises Problem, FilterInvalid."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise problems.malformed('`filter` is not JSON. Send an object such as {"label": "cat"}.') from error
    return parsed(value)


class _Checked(Request):
    def __init__(self, request: Request, fields: AbstractSet[str]) -> None:
        super().__init__(request.scope, request.receive)
        self._fields = fields

    async def json(self) -> Any:
        body = await self.body()
        if sum(map(body.count, (b"{", b"[", b","))) > MAX_VALUES:
            raise problems.invalid(f"The body has more than {MAX_VALUES:,} values. Send fewer at once.")
        return await super().json()

    async def _get_form(self, **limits: Any) -> FormData:
        form = await super()._get_form(**limits)
        if form.keys() - self._fields:
            await form.close()
            raise problems.unknown_field("form")
        return form


class CheckedRoute(APIRoute):
    """A route that refuses what its call does not know, as fields of a form and in its address, and too large JSON.

    JSON is counted before it is parsed: nothing else is answered meanwhile.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI calls it."""
        handle = super().get_route_handler()
        known = {field.alias for field in get_flat_params(self.dependant)}
        fields = {field.alias for field in self.dependant.body_params}

        async def checked(request: Request) -> Response:
            if request.scope["query_string"] and request.query_params.keys() - known:
                raise problems.unknown_field("address")
            return await handle(_Checked(request, fields))

        return checked


def parse_base64(text: str) -> bytes:
    """The bytes of a base64 text. Raises Problem."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise problems.invalid("An image in JSON is the bytes of its file in base64.") from error


def rendered(answer: BaseModel) -> Response:
    """An answer as JSON, by Pydantic alone: what FastAPI does with a model it is given takes five times as long."""
    return Response(answer.model_dump_json(), media_type="application/json")


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the problems that a call can answer with."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
    return {status: {"model": ProblemAnswer, "content": content} for status in (*ANYWHERE, *statuses)}
