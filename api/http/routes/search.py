"""Searching by an uploaded image, by a weighted query, by an indexed image; and embedding alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as PathParameter
from pydantic import BaseModel

from api import metrics
from api.errors import ApiError
from api.http import problems
from api.http.edge import WEIGHT
from api.http.problems import Problem
from api.http.routes import CheckedRoute, Chosen, InAddress, answers, choose, parse_base64, parse_filter, rendered
from api.http.schemas import (
    BatchAnswer,
    BatchEntry,
    BatchRequest,
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
    ProblemAnswer,
    QueryRequest,
    SearchAnswer,
    SearchRequest,
    Took,
)
from api.serving.embedding import Timing
from api.serving.gate import Gate
from api.serving.service import Service
from indexer.errors import IndexerError
from indexer.pictures.decode import Box
from search.errors import SearchError
from search.filters import parse_filter as parsed_filter
from search.query.parts import MAX_WINDOW, check_window
from search.types import Query as IndexQuery
from search.types import QueryPart, Vector

MAX_ITEMS_AT_ONCE = 8
"""Of one request's pictures or queries, those that are under way at once."""
MAX_HITS_ON_LOOP = 200
"""An answer with more is made in a thread: the event loop has others to serve meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")

router = APIRouter(prefix="/v1", tags=["search"], route_class=CheckedRoute)
FilterText = Annotated[str | None, Query(description='A JSON object, e.g. {"label": "cat"}.', max_length=20_000)]


@router.post("/search/image", response_model=SearchAnswer, responses=answers(404, 413, 415))
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
    in_address: InAddress = None,
) -> Response:
    """Nearest images of an uploaded one."""
    began = time.perf_counter()
    service = choose(request, index, in_address)
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
    at = None if box is None else _box(box.split(","))
    vectors = await service.embedding.embed(await image.read(), timing, box=at)
    parts = [QueryPart(vector=vectors[str(draft.space)])]
    return await _rendered(await _answer(service, draft, parts, timing, began), k)


@router.post("/search", response_model=SearchAnswer, responses=answers(404, 413, 415))
async def search(request: Request, body: SearchRequest, in_address: InAddress = None) -> Response:
    """Nearest images of a weighted query. Images that are parts by id are not among the hits."""
    with _admitted(request, [body]):
        return await _rendered(await _search(choose(request, body.index, in_address), body), body.k)


@router.post("/search/batch", response_model=BatchAnswer, responses=answers(404, 413, 415))
async def search_batch(request: Request, body: BatchRequest, in_address: InAddress = None) -> Response:
    """Many queries in one call, each answered as `/v1/search` would, with hits or with an error of its own."""
    service = choose(request, body.index, in_address)
    hits = sum(query.k for query in body.queries)
    if hits > MAX_WINDOW:
        raise problems.invalid(f"The queries of a batch may ask for {MAX_WINDOW:,} hits together, not {hits:,}.")

    async def one(query: QueryRequest) -> BatchEntry:
        try:
            return BatchEntry(answer=await _search(service, query))
        except (Problem, SearchError, IndexerError, ApiError) as error:
            problem = error if isinstance(error, Problem) else problems.from_error(error)
            if problem.status is HTTPStatus.TOO_MANY_REQUESTS:  # is of the call, which is tried again as a whole
                raise
            return BatchEntry(error=ProblemAnswer.model_validate(problems.body(problem)))

    with _admitted(request, body.queries):
        return await _rendered(BatchAnswer(answers=await _each(one, body.queries)), hits)


@router.get("/images/{id}/similar", response_model=SearchAnswer, responses=answers(404))
async def similar(
    service: Chosen,
    id: Annotated[ImageId, PathParameter()],  # noqa: A002
    k: Annotated[Count, Query()] = 10,
    offset: Annotated[Offset, Query()] = 0,
    min_score: Annotated[MinScore | None, Query()] = None,
    filter: FilterText = None,  # noqa: A002
    space: Annotated[Name | None, Query()] = None,
) -> Response:
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
    return await _rendered(await _answer(service, draft, [QueryPart(id=id)], Timing(), began), k)


@router.post("/embed", responses=answers(404, 413, 415))
async def embed(request: Request, body: EmbedRequest, in_address: InAddress = None) -> EmbedAnswer:
    """Embeddings of images, as the index would store them: unit length, in the order of the input."""
    service = choose(request, body.index, in_address)
    space = service.index.space(body.space)

    async def one(text: str) -> Vector:
        return (await service.embedding.embed(parse_base64(text), Timing()))[space.name]

    with _room(request, len(body.input)):
        vectors = await _each(one, body.input)
    data = [Embedding(index=number, embedding=vector.tolist()) for number, vector in enumerate(vectors)]
    return EmbedAnswer(data=data, model=space.recipe.model)


def _admitted(request: Request, queries: Sequence[QueryRequest]) -> AbstractContextManager[None]:
    """Room for the pictures of queries. Raises Problem 429, on entering, where there is none."""
    return _room(request, sum(any(part.image is not None for part in query.parts) for query in queries))


def _room(request: Request, pictures: int) -> AbstractContextManager[None]:
    """For as many of them as are under way at once, beside what the request's size made it hold before."""
    gate: Gate = request.app.state.pictures
    return gate.entered(min(pictures, MAX_ITEMS_AT_ONCE), held=request.scope[WEIGHT])


async def _each(work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
    """Results in the order of the items. The first that fails ends the others, and is raised."""
    room = asyncio.Semaphore(MAX_ITEMS_AT_ONCE)

    async def one(item: Item) -> Result:
        async with room:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def _rendered(answer: BaseModel, hits: int) -> Response:
    return await asyncio.to_thread(rendered, answer) if hits > MAX_HITS_ON_LOOP else rendered(answer)


async def _search(service: Service, body: QueryRequest) -> SearchAnswer:
    began = time.perf_counter()
    timing = Timing()
    draft = IndexQuery(
        parts=(),
        k=body.k,
        offset=body.offset,
        min_score=body.min_score,
        filter=None if body.filter is None else parsed_filter(body.filter),
        space=service.index.space(body.space).name,
    )
    check_window(draft)
    parts = [await _part(service, part, str(draft.space), timing) for part in body.parts]
    return await _answer(service, draft, parts, timing, began)


async def _part(service: Service, part: Part, space: str, timing: Timing) -> QueryPart:
    if sum(value is not None for value in (part.image, part.id, part.vector)) != 1:
        raise problems.invalid("Each part needs exactly one of image, id and vector.")
    if part.box is not None and part.image is None:
        raise problems.invalid("Only a part with an image can have a box.")
    if part.image is not None:
        box = None if part.box is None else _box(part.box)
        vectors = await service.embedding.embed(parse_base64(part.image), timing, box=box)
        return QueryPart(vector=vectors[space], weight=part.weight)
    vector = None if part.vector is None else _vector(part.vector)
    return QueryPart(id=part.id, vector=vector, weight=part.weight)


async def _answer(
    service: Service, draft: IndexQuery, parts: list[QueryPart], timing: Timing, began: float
) -> SearchAnswer:
    hits = await service.search(replace(draft, parts=parts), timing)
    total = time.perf_counter() - began
    seconds = {"decode": timing.decode, "encode": timing.encode, "search": timing.search, "total": total}
    for stage, value in seconds.items():
        if value:
            metrics.STAGES.labels(stage).observe(value)
    took = Took(**{stage: round(1000 * value, 3) for stage, value in seconds.items()})

    def answer() -> SearchAnswer:
        return SearchAnswer(hits=[HitAnswer.of(hit) for hit in hits], space=str(draft.space), took_ms=took)

    return await asyncio.to_thread(answer) if len(hits) > MAX_HITS_ON_LOOP else answer()


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
