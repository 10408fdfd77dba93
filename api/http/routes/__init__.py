"""The calls of the HTTP interface, by noun."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import FormData, ImmutableMultiDict
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.http import problems
from api.http.schemas import ProblemAnswer
from api.http.schemas import Request as Requested
from api.serving.questions import Name, SearchOptions, read_json
from api.serving.service import Service

ANYWHERE = (400, 401, 403, 408, 422, 429, 431, 503, 504)
"""Statuses of problems that any call may meet."""
MAX_VALUES = 600_000
"""Most values of a JSON body: 256 queries by vectors of 2,304 numbers have 590,000, and take 100 ms to parse. 20 MB of
`{}` take half a second and half a gigabyte."""
AS_YOU_HAVE_IT: dict[int | str, dict[str, Any]] = {304: {"description": "As you have it."}}
"""The description of an answer to who names the entity tag."""
REPEATED = frozenset(("labels",))
"""Fields of forms that may be there several times."""


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
"""The query parameter of calls whose body can name an index too."""


async def chosen(
    request: Request, index: Annotated[Name | None, Query(description="Default: the first one served.")] = None
) -> Service:
    """The service that the query parameter `index` names."""
    return choose(request, index)


Chosen = Annotated[Service, Depends(chosen)]


class _Checked(Request):
    def __init__(self, request: Request, fields: AbstractSet[str]) -> None:
        super().__init__(request.scope, request.receive)
        self._fields = fields

    async def json(self) -> Any:
        body = await self.body()
        if sum(map(body.count, (b"{", b"[", b","))) > MAX_VALUES:
            raise problems.invalid(f"The body has more than {MAX_VALUES:,} values. Send fewer at once.")
        return read_json(body)

    async def _get_form(self, **limits: Any) -> FormData:
        form = await super()._get_form(**limits)
        if form.keys() - self._fields:
            await form.close()
            raise problems.unknown_field("form")
        if _is_twice(form):
            await form.close()
            raise problems.field_twice("form")
        return form


def _is_twice(fields: ImmutableMultiDict[str, Any]) -> bool:
    """Whether a field that has one value is there twice: the last would count, and a filter before it would not."""
    return any(name not in REPEATED and len(fields.getlist(name)) > 1 for name in fields)


class ReadableRoute(APIRoute):
    """A route that answers HEAD wherever it answers GET. The description of the interface names GET alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match HEAD as GET. Called by Starlette."""
        return super().matches({**scope, "method": "GET"} if self._heads(scope) else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer HEAD as GET. Called by Starlette."""
        if self._heads(scope):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def _heads(self, scope: Scope) -> bool:
        return scope.get("method") == "HEAD" and "GET" in (self.methods or ())


class CheckedRoute(ReadableRoute):
    """A route that refuses what its call does not know, as fields of a form and in its address, and too large JSON.

    JSON is counted before it is parsed: nothing else is answered meanwhile.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that refuses unknown fields before the call runs. Called by FastAPI."""
        handle = super().get_route_handler()
        known = {field.alias for field in get_flat_params(self.dependant)}
        fields = set(_form_fields(self))

        async def checked(request: Request) -> Response:
            if request.scope["query_string"] and request.query_params.keys() - known:
                raise problems.unknown_field("address")
            if _is_twice(request.query_params):
                raise problems.field_twice("address")
            return await handle(_Checked(request, fields))

        return checked


def field_names(routers: Iterable[APIRouter]) -> frozenset[str]:
    """The names of all that can be sent: in addresses, forms, and JSON of any depth."""
    names = {name for model in (*_kinds(Requested), *_kinds(SearchOptions)) for name in model.model_fields}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                names |= {field.alias for field in get_flat_params(route.dependant)} | set(_form_fields(route))
    return frozenset(names)


def _kinds(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for kind in model.__subclasses__():
        yield from _kinds(kind)


def _form_fields(route: APIRoute) -> Iterator[str]:
    for field in route.dependant.body_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from kind.model_fields
        else:
            yield field.alias


def rendered(answer: BaseModel) -> Response:
    """An answer as JSON, by Pydantic alone: what FastAPI does with a model it is given takes five times as long."""
    return Response(answer.model_dump_json(), media_type="application/json")


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the problems that a call can answer with."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}}
    return {status: {"model": ProblemAnswer, "content": content} for status in (*ANYWHERE, *statuses)}
