"""Searching by an uploaded image, by a weighted query, by an indexed image; and embedding alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from api import metrics
from api.errors import ApiError
from api.http import problems
from api.http.edge import WEIGHT
from api.http.routes import CheckedRoute, Chosen, InAddress, answers, choose, rendered
from api.http.schemas import EmbedAnswer, Embedding, EmbedRequest, ImageId, ProblemAnswer
from api.http.search_schemas import BatchAnswer, BatchEntry, BatchRequest, QueryRequest, SearchAnswer, SearchRequest
from api.serving.gate import Gate
from api.serving.questions import (
    Name,
    QueryPicture,
    Question,
    QuestionPart,
    SearchOptions,
    WrittenOptions,
    read_base64,
    read_box,
)
from api.serving.service import Service
from api.serving.timing import Timing
from indexer.errors import IndexerError
from indexer.pictures.preprocess import ORIENTATIONS
from search.errors import SearchError
from search.query.parts import MAX_WINDOW
from search.types import Vector

MAX_ITEMS_AT_ONCE = 8
"""Most of one request's pictures or queries in flight at once."""
MAX_HITS_ON_LOOP = 200
"""An answer with more is made in a thread: the event loop has others to serve meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")

router = APIRouter(prefix="/v1", tags=["search"], route_class=CheckedRoute)


class ImageForm(WrittenOptions):
    """An uploaded picture, and how to look for it."""

    image: UploadFile = Field(description="The image file.")
    box: str | None = Field(default=None, description="x,y,width,height in pixels: look at this part only.")
    index: Name | None = Field(default=None, description="Default: the first one served.")

    async def question(self) -> Question:
        """Raises QuestionInvalid."""
        box = None if self.box is None else read_box(self.box.split(","))
        picture = QueryPicture(data=await self.image.read(), box=box)
        return Question(parts=[QuestionPart(picture=picture)], options=self)


@router.post("/search/image", response_model=SearchAnswer, responses=answers(404, 413, 415))
async def search_image(
    request: Request,
    form: Annotated[ImageForm, Form(media_type="multipart/form-data")],
    in_address: InAddress = None,
) -> Response:
    """Nearest images of an uploaded one."""
    began = time.perf_counter()
    service = choose(request, form.index, in_address)
    with room(request, [_views(form)]):
        return await _rendered(await answer_question(service, await form.question(), began), form.k)


@router.post("/search", response_model=SearchAnswer, responses=answers(404, 413, 415))
async def search(request: Request, body: SearchRequest, in_address: InAddress = None) -> Response:
    """Nearest images of a weighted query. Images that are parts by id are not among the hits."""
    began = time.perf_counter()
    with _admitted(request, [body]):
        answer = await answer_question(choose(request, body.index, in_address), body.question(), began)
        return await _rendered(answer, body.k)


@router.post("/search/batch", response_model=BatchAnswer, responses=answers(404, 413, 415))
async def search_batch(request: Request, body: BatchRequest, in_address: InAddress = None) -> Response:
    """Many queries in one call, each answered as `/v1/search` would, with hits or with an error of its own."""
    service = choose(request, body.index, in_address)
    hits = sum(query.k for query in body.queries)
    if hits > MAX_WINDOW:
        raise problems.invalid(f"The queries of a batch may ask for {MAX_WINDOW:,} hits together, not {hits:,}.")

    async def one(query: QueryRequest) -> BatchEntry:
        try:
            return BatchEntry(answer=await answer_question(service, query.question(), time.perf_counter()))
        except (SearchError, IndexerError, ApiError) as error:
            problem = problems.noted(error)
            if problem.status is HTTPStatus.TOO_MANY_REQUESTS:  # is of the call, which is tried again as a whole
                raise
            return BatchEntry(error=ProblemAnswer.model_validate(problems.body(problem)))

    with _admitted(request, body.queries):
        return await _rendered(BatchAnswer(answers=await _each(one, body.queries)), hits)


class AddressOptions(WrittenOptions):
    """The options in an address, which also names the index: `Chosen` reads that."""

    index: Name | None = Field(default=None, description="Default: the first one served.")


@router.get("/images/{id}/similar", response_model=SearchAnswer, responses=answers(404))
async def similar(
    service: Chosen,
    id: Annotated[ImageId, PathParameter()],  # noqa: A002
    options: Annotated[AddressOptions, Query()],
) -> Response:
    """More like this: nearest images of an indexed one, itself left out."""
    question = Question(parts=[QuestionPart(id=id)], options=options)
    return await _rendered(await answer_question(service, question, time.perf_counter()), options.k)


@router.post("/embed", responses=answers(404, 413, 415))
async def embed(request: Request, body: EmbedRequest, in_address: InAddress = None) -> EmbedAnswer:
    """Embeddings of images, as the index would store them: unit length, in the order of the input."""
    service = choose(request, body.index, in_address)
    space = service.index.space(body.space)

    async def one(text: str) -> Vector:
        return await service.embedding.embed(read_base64(text), space, Timing())

    with room(request, [1] * len(body.input)):
        vectors = await _each(one, body.input)
    data = [Embedding(index=number, embedding=vector.tolist()) for number, vector in enumerate(vectors)]
    return EmbedAnswer(data=data, model=space.recipe.model)


def _admitted(request: Request, queries: Sequence[QueryRequest]) -> AbstractContextManager[None]:
    """Room for the pictures of queries. Raises Overloaded, on entering, where there is none."""
    return room(request, [_views(query) for query in queries if query.has_image])


def _views(options: SearchOptions) -> int:
    """How many pictures one is for the encoder."""
    return ORIENTATIONS if options.turns else 1


def room(request: Request, pictures: Sequence[int]) -> AbstractContextManager[None]:
    """For as many of them as are under way at once, beside what the request's size made it hold before."""
    gate: Gate = request.app.state.pictures
    most = sum(sorted(pictures, reverse=True)[:MAX_ITEMS_AT_ONCE])
    return gate.entered(most, held=request.scope[WEIGHT])


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


async def answer_question(service: Service, question: Question, began: float) -> SearchAnswer:
    """The answer to a question. began: by `time.perf_counter`."""
    timing = Timing()
    hits, space = await service.ask(question, timing)
    timing.total = time.perf_counter() - began
    for stage, seconds in asdict(timing).items():
        if seconds:
            metrics.STAGES.labels(stage).observe(seconds)
    if len(hits) > MAX_HITS_ON_LOOP:
        return await asyncio.to_thread(SearchAnswer.of, hits, space, timing)
    return SearchAnswer.of(hits, space, timing)
