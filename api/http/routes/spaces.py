"""The spaces of a served index: listed, added and filled, made the default, dropped."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from api.http.routes import CheckedRoute, answers, choose
from api.http.schemas import SpaceAnswer, SpacePatch, SpaceRequest, SpacesAnswer
from api.serving.questions import Name
from indexer.encoders import encoder

router = APIRouter(prefix="/v1/indexes/{name}/spaces", tags=["spaces"], route_class=CheckedRoute)
IndexName = Annotated[Name, PathParameter(description="A served index.")]
SpaceName = Annotated[Name, PathParameter(description="One of its spaces.")]


@router.get("", responses=answers(404))
async def list_spaces(request: Request, name: IndexName) -> SpacesAnswer:
    """The spaces of an index, and how far they are."""
    return SpacesAnswer(spaces=[SpaceAnswer.of(state) for state in await choose(request, name).spaces()])


@router.post("", status_code=202, responses=answers(404, 409, 413, 507) | {200: {"model": SpaceAnswer}})
async def add_space(request: Request, response: Response, name: IndexName, body: SpaceRequest) -> SpaceAnswer:
    """Add a space, and fill it from the files while searches go on: 202. 200 where it is complete already.

    Where it is there and not complete, filling goes on. Its first search loads the model for it.
    """
    wanted = encoder.SpaceRequest(
        layers=tuple(body.layers) or None,
        pooling=body.pooling,
        whiten=body.transform == "whiten",
        style=body.style,
        regions=body.regions,
    )
    state = await choose(request, name).add_space(wanted)
    if state.info.space.complete:
        response.status_code = 200
    return SpaceAnswer.of(state)


@router.patch("/{space}", responses=answers(404, 409, 413, 507))
async def change_space(request: Request, name: IndexName, space: SpaceName, body: SpacePatch) -> SpaceAnswer:
    """Make a space the default."""
    return SpaceAnswer.of(await choose(request, name).set_default_space(space, force=body.force))


@router.delete("/{space}", status_code=204, responses=answers(404, 409, 507))
async def drop_space(request: Request, name: IndexName, space: SpaceName) -> None:
    """Drop a space, unless it is the default. Searches in it are refused from now on."""
    await choose(request, name).drop_space(space)
