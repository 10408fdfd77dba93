"""Searching by an uploaded image, by a weighted query, by an indexed image; and embedding alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi import Path as PathParameter

from api import problems
from api.routes import Chosen, answers, choose, parse_base64, parse_filter
from api.schemas import (
    Count,
    EmbedAnswer,
    Embedding,
    EmbedRequest,
    HitAnswer,
    ImageId,
    MinScore,
    Name,
    Offset,
    Part,
    SearchAnswer,
    SearchRequest,
    Took,
)
from api.service import Box, Service, Timing
from search.query import check_window
from search.types import Query as IndexQuery
from search.types import QueryPart, Vector

router = APIRouter(prefix="/v1", tags=["search"])
FilterText = Annotated[str | None, Query(description='A JSON object, e.g. {"label": "cat"}.', max_length=20_000)]


@router.post("/search/image", responses=answers(404, 413, 415, 429))
async def search_image(
    request: Request,
    image: Annotated[UploadFile, File(description="The image file.")],
    k: Annotated[Count, Form()] = 10,
    offset: Annotated[Offset, Form()] = 0,
    min_score: Annotated[MinScore | None, Form()] = None,
    filter: Annotated[str | None, Form(description='JSON, e.g. {"label": "cat"}.')] = None,  # noqa: A002
    space: Annotated[Name | None, Form()] = None,
    index: Annotated[Name | None, Form()] = None,
    box: Annotated[str | None, Form(description="x,y,width,height in pixels: look at this part only.")] = None,
) -> SearchAnswer:
    """Nearest images of an uploaded one."""
    began = time.perf_counter()
    service = choose(request, index)
    timing = Timing()
    draft = IndexQuery(
        parts=(),
        k=k,
        offset=offset,
        min_score=min_score,
        filter=parse_filter(filter),
        space=service.index.space(space).name,
    )
    check_window(draft)
    _, vectors = await service.embed(await image.read(), timing, box=None if box is None else _box(box.split(",")))
    return await _answer(service, draft, [QueryPart(vector=vectors[str(draft.space)])], timing, began)


@router.post("/search", responses=answers(404, 413, 415, 429))
async def search(request: Request, body: SearchRequest) -> SearchAnswer:
    """Nearest images of a weighted query. Images that are parts by id are not among the hits."""
    began = time.perf_counter()
    service = choose(request, body.index)
    timing = Timing()
    draft = IndexQuery(
        parts=(),
        k=body.k,
        offset=body.offset,
        min_score=body.min_score,
        filter=body.filter,
        space=service.index.space(body.space).name,
    )
    check_window(draft)
    parts = [await _part(service, part, str(draft.space), timing) for part in body.parts]
    return await _answer(service, draft, parts, timing, began)


@router.get("/images/{id}/similar", responses=answers(404))
async def similar(
    service: Chosen,
    id: Annotated[ImageId, PathParameter()],  # noqa: A002
    k: Annotated[Count, Query()] = 10,
    offset: Annotated[Offset, Query()] = 0,
    min_score: Annotated[MinScore | None, Query()] = None,
    filter: FilterText = None,  # noqa: A002
    space: Annotated[Name | None, Query()] = None,
) -> SearchAnswer:
    """More like this: nearest images of an indexed one, itself left out."""
    began = time.perf_counter()
    draft = IndexQuery(
        parts=(),
        k=k,
        offset=offset,
        min_score=min_score,
        filter=parse_filter(filter),
        space=service.index.space(space).name,
    )
    return await _answer(service, draft, [QueryPart(id=id)], Timing(), began)


@router.post("/embed", responses=answers(404, 413, 415, 429))
async def embed(request: Request, body: EmbedRequest) -> EmbedAnswer:
    """Embeddings of images, as the index would store them: unit length, in the order of the input."""
    service = choose(request, body.index)
    space = service.index.space(body.space)
    vectors = [(await service.embed(parse_base64(text), Timing()))[1][space.name] for text in body.input]
    data = [Embedding(index=number, embedding=vector.tolist()) for number, vector in enumerate(vectors)]
    return EmbedAnswer(data=data, model=space.recipe.model)


async def _part(service: Service, part: Part, space: str, timing: Timing) -> QueryPart:
    if sum(value is not None for value in (part.image, part.id, part.vector)) != 1:
        raise problems.invalid("Each part needs exactly one of image, id and vector.")
    if part.box is not None and part.image is None:
        raise problems.invalid("Only a part with an image can have a box.")
    if part.image is not None:
        box = None if part.box is None else _box(part.box)
        _, vectors = await service.embed(parse_base64(part.image), timing, box=box)
        return QueryPart(vector=vectors[space], weight=part.weight)
    vector = None if part.vector is None else _vector(part.vector)
    return QueryPart(id=part.id, vector=vector, weight=part.weight)


async def _answer(
    service: Service, draft: IndexQuery, parts: list[QueryPart], timing: Timing, began: float
) -> SearchAnswer:
    hits = await service.search(replace(draft, parts=parts), timing)
    total = time.perf_counter() - began
    seconds = {"decode": timing.decode, "encode": timing.encode, "search": timing.search, "total": total}
    took = Took(**{stage: round(1000 * value, 3) for stage, value in seconds.items()})
    return SearchAnswer(hits=[HitAnswer.of(hit) for hit in hits], space=str(draft.space), took_ms=took)


def _vector(numbers: Sequence[float]) -> Vector:
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which the query refuses
        return np.array(numbers, dtype=np.float32)


def _box(values: Sequence[str | float]) -> Box:
    try:
        x, y, width, height = (float(value) for value in values)
    except ValueError as error:
        raise problems.invalid("`box` is four numbers: x,y,width,height in pixels.") from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise problems.invalid("`box` is four finite numbers: x,y,width,height in pixels.")
    return x, y, width, height
