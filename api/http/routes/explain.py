"""Why an image is a hit: which of its patches match which of the query's."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter

from api.http.explain_schemas import ExplainAnswer, ExplainRequest
from api.http.routes import CheckedRoute, Chosen, InAddress, answers, choose, rendered
from api.http.routes.search import room
from api.http.schemas import ImageId
from api.serving.questions import Name, QueryPicture
from api.serving.service import Service
from api.serving.timing import Timing
from indexer.explain import MATCHES, MAX_MATCHES

PICTURES = 2
"""Pictures that one explanation is for the encoder."""

router = APIRouter(prefix="/v1/images", tags=["search"], route_class=CheckedRoute)
Id = Annotated[ImageId, PathParameter(description="The hit: SHA-256 of the image file.")]


@router.post("/{id}/explain", response_model=ExplainAnswer, responses=answers(404, 409, 413, 415))
async def explain_to_query(
    request: Request,
    id: Id,  # noqa: A002
    body: ExplainRequest,
    in_address: InAddress = None,
) -> Response:
    """Which patches of a hit match which of a query's picture: an image that is sent, or another indexed one."""
    service = choose(request, body.index, in_address)
    return await _answered(request, service, id, body.meant(), body.space, body.matches)


@router.get("/{id}/explain", response_model=ExplainAnswer, responses=answers(404, 409))
async def explain_to_image(
    request: Request,
    service: Chosen,
    id: Id,  # noqa: A002
    other: Annotated[ImageId, Query(alias="with", description="The indexed image to compare it with.")],
    space: Annotated[Name | None, Query(description="Whose model looks. Default: the index's default.")] = None,
    matches: Annotated[int, Query(ge=0, le=MAX_MATCHES, description="How many matches to list at most.")] = MATCHES,
) -> Response:
    """Which patches of a hit match which of another indexed image."""
    return await _answered(request, service, id, other, space, matches)


async def _answered(
    request: Request,
    service: Service,
    hit: str,
    query: QueryPicture | str,
    space: str | None,
    matches: int,
) -> Response:
    began, timing = time.perf_counter(), Timing()
    with room(request, [1] * PICTURES):
        explained = await service.explaining.explain(hit, query, timing, space=space, most=matches)
    timing.total = time.perf_counter() - began
    return rendered(ExplainAnswer.of(explained, timing))
