"""Maps of an index's spaces."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Response

from analysis.maps.map import Map
from api.http.routes import CheckedRoute, Chosen, answers
from api.http.schemas import MapAnswer
from api.serving.questions import Name

router = APIRouter(prefix="/v1", tags=["maps"], route_class=CheckedRoute)


@router.get("/map", response_model=MapAnswer, responses=answers(404))
async def read_map(
    service: Chosen, space: Annotated[Name | None, Query(description="Default: the index's default.")] = None
) -> Response:
    """The map of a space as `lookalike map` made it last, without images removed since; new ones are not on it."""
    return Response(await service.read(lambda _: service.maps.answer(space, written)), media_type="application/json")


def written(made: Map) -> bytes:
    """The JSON of `MapAnswer`; by Pydantic, 100,000 points would take a second."""
    answer = {
        "space": made.space,
        "generation": made.generation,
        "seed": made.seed,
        "labels": made.labels,
        "clusters": [
            {"name": one.name, "size": one.size, "x": one.x, "y": one.y, "typical": one.typical}
            for one in made.clusters
        ],
        "outliers": made.outliers,
        "points": [
            {"id": one.id, "x": one.x, "y": one.y, "cluster": one.cluster, "isolation": one.isolation}
            for one in made.points
        ],
    }
    return json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
