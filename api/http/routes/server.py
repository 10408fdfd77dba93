"""The server itself: what it serves, how it is, its documentation and its page."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import metrics
from api.http import problems
from api.http.access import COOKIE, SESSION_SECONDS, Keys
from api.http.routes import CheckedRoute, ReadableRoute, answers, choose, served
from api.http.schemas import IndexAnswer, IndexesAnswer, SessionRequest, SpaceAnswer, StatusAnswer
from api.serving.service import Service

router = APIRouter(tags=["server"], route_class=CheckedRoute)
public = APIRouter(tags=["server"], route_class=ReadableRoute)


@router.get("/v1/indexes", responses=answers())
async def indexes(request: Request) -> IndexesAnswer:
    """The served indexes; the first is the default."""
    return IndexesAnswer(indexes=[await _describe(service) for service in served(request).values()])


@router.get("/v1/indexes/{name}", responses=answers(404))
async def index(request: Request, name: str) -> IndexAnswer:
    """One served index."""
    return await _describe(choose(request, name))


@router.get("/metrics", response_class=Response, responses=answers() | {200: {"content": {"text/plain": {}}}})
async def read_metrics(request: Request) -> Response:
    """Prometheus metrics."""
    for service in served(request).values():
        metrics.IMAGES.labels(service.name).set((await service.read(lambda index: index.catalog.counts()))[0])
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@public.get("/healthz")
async def healthz() -> StatusAnswer:
    """Whether the server lives."""
    return StatusAnswer(status="ok")


@public.get("/readyz", responses={503: answers()[400]})
async def readyz(request: Request) -> StatusAnswer:
    """Whether searches are answered now."""
    for service in served(request).values():
        await service.check()
    return StatusAnswer(status="ready")


@public.post("/session", status_code=204, responses=answers(404, 413))
async def open_session(request: Request, body: SessionRequest) -> Response:
    """Exchange a key for a cookie with which a browser may do what the key allows, for twelve hours."""
    value = keys_of(request).session(body.key)
    if value is None:
        raise problems.unauthorized()
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        value,
        max_age=SESSION_SECONDS,
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@public.delete("/session", status_code=204)
async def close_session(request: Request) -> Response:
    """Forget the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
    return response


@public.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """The web page."""
    return HTMLResponse(_web("index.html"))


@public.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """The interactive documentation, from assets of our own: it works offline and under the content policy."""
    return HTMLResponse(_web("docs.html"))


def keys_of(request: Request) -> Keys:
    """The server's keys."""
    keys: Keys = request.app.state.keys
    return keys


def _web(name: str) -> str:
    return files("api").joinpath("web", name).read_text(encoding="utf-8")


async def _describe(service: Service) -> IndexAnswer:
    info = await service.read(lambda index: index.info())
    return IndexAnswer(
        name=service.name,
        count=info.images,
        generation=info.generation,
        spaces=[SpaceAnswer.of(state) for state in await service.spaces()],
    )
