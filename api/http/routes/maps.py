"""Maps of an index's spaces."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.http.files import is_known
from api.http.routes import AS_YOU_HAVE_IT, CheckedRoute, Chosen, answers
from api.http.schemas import MapAnswer
from api.serving.questions import Name

router = APIRouter(prefix="/v1", tags=["maps"], route_class=CheckedRoute)


@router.get("/map", response_model=MapAnswer, responses=answers(404) | AS_YOU_HAVE_IT)
async def read_map(
    request: Request,
    service: Chosen,
    space: Annotated[Name | None, Query(description="Default: the index's default.")] = None,
) -> Response:
    """The map of a space as `lookalike map` made it last, without images removed since; new ones are not on it."""
    content = await service.maps.answer(space)
    headers = {"Cache-Control": "private, no-cache", "ETag": content.etag}
    if is_known(request, content.etag):
        return Response(status_code=304, headers=headers)
    return Response(content.data, media_type="application/json", headers=headers)
