"""The server itself: what it serves, how it is, its documentation and its page."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import problems
from api.routes import answers, choose, served
from api.schemas import IndexAnswer, IndexesAnswer, SpaceAnswer, StatusAnswer
from api.service import Service

router = APIRouter(tags=["server"])
public = APIRouter(tags=["server"])


@router.get("/v1/indexes", responses=answers())
async def indexes(request: Request) -> IndexesAnswer:
    """The served indexes; the first is the default."""
    return IndexesAnswer(indexes=[await _describe(service) for service in served(request).values()])


@router.get("/v1/indexes/{name}", responses=answers(404))
async def index(request: Request, name: str) -> IndexAnswer:
    """One served index."""
    return await _describe(choose(request, name))


@router.get("/metrics", response_class=Response, responses=answers() | {200: {"content": {"text/plain": {}}}})
async def metrics() -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@public.get("/healthz")
async def healthz() -> StatusAnswer:
    """Whether the server lives."""
    return StatusAnswer(status="ok")


@public.get("/readyz", responses={503: answers()[400]})
async def readyz(request: Request) -> StatusAnswer:
    """Whether searches are answered now."""
    for service in served(request).values():
        if not service.ready:
            raise problems.Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", "An encoder has stopped.")
        await service.read(lambda index: index.unpublished())  # catches up with the catalog, as every search does
    return StatusAnswer(status="ready")


@public.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    """The web page."""
    return HTMLResponse(_web("index.html"))


@public.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """The interactive documentation, from assets of our own: it works offline and under the content policy."""
    return HTMLResponse(_web("docs.html"))


def _web(name: str) -> str:
    return files("api").joinpath("web", name).read_text(encoding="utf-8")


async def _describe(service: Service) -> IndexAnswer:
    info = await service.read(lambda index: index.info())
    return IndexAnswer(
        name=service.name,
        count=info.images,
        generation=info.generation,
        spaces=[
            SpaceAnswer(name=entry.space.name, dim=entry.space.recipe.dim, recipe=entry.space.recipe.to_json())
            for entry in info.spaces
        ],
    )
