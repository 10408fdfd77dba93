"""Searches as they go over the wire: questions, hits and answers, with examples for OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.errors import QuestionInvalid
from api.http.schemas import EXAMPLE_HIT, EXAMPLE_ID, ImageId, ProblemAnswer, Request
from api.serving.questions import (
    MAX_TEXT,
    Name,
    QueryPicture,
    Question,
    QuestionAspect,
    QuestionPart,
    SearchOptions,
    read_base64,
    read_box,
    read_vector,
)
from api.serving.timing import Timing
from search.query.parts import MAX_ASPECTS, MAX_PARTS
from search.query.prompt import read_prompt
from search.types import Combine, Hit

PathName = Annotated[str, StringConstraints(max_length=4_096)]
"""As long as Linux lets a path be."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Box = Annotated[list[Finite], Field(min_length=4, max_length=4, description="x, y, width, height in pixels.")]


class Part(Request):
    """One weighted part of a query: an image (base64), words, the id of an indexed image, or an embedding."""

    image: str | None = Field(default=None, description="The bytes of an image file, in base64.")
    text: str | None = Field(default=None, max_length=2_000, description="Words: what the images show.")
    id: ImageId | None = Field(default=None, description="An indexed image.")
    vector: list[Finite] | None = Field(default=None, max_length=100_000, description="An embedding of the space.")
    searched: bool = Field(default=False, description="`vector` is one that /v1/feedback answered with.")
    weight: Finite = Field(default=1.0, description="May be negative: less like this.")
    box: Box | None = Field(default=None, description="Look at this part of `image` only: x, y, width, height.")

    def meant(self) -> QuestionPart:
        """Raises QuestionInvalid."""
        if self.box is not None and self.image is None:
            raise QuestionInvalid("Only a part with an image can have a box.")
        if self.searched and self.vector is None:
            raise QuestionInvalid("Only a part with a vector can be `searched`.")
        box = None if self.box is None else read_box(self.box)
        return QuestionPart(
            picture=None if self.image is None else QueryPicture(data=read_base64(self.image), box=box),
            text=self.text,
            id=self.id,
            vector=None if self.vector is None else read_vector(self.vector),
            searched=self.searched,
            weight=self.weight,
        )


class AspectPart(Request):
    """An aspect of a query: weighted parts that are looked for in one space."""

    space: Name | None = Field(
        default=None, description="Default: the index's default; of words, the one that knows them."
    )
    parts: list[Part] = Field(min_length=1, max_length=MAX_PARTS)
    weight: Finite = Field(default=1.0, description="How much it counts beside the others.")

    def meant(self) -> QuestionAspect:
        """Raises QuestionInvalid."""
        return QuestionAspect(parts=[part.meant() for part in self.parts], space=self.space, weight=self.weight)


class QueryRequest(SearchOptions, Request):
    """A weighted query of an index: by parts, by aspects, or by a prompt."""

    parts: list[Part] | None = Field(default=None, min_length=1, max_length=MAX_PARTS)
    aspects: list[AspectPart] | None = Field(default=None, min_length=1, max_length=MAX_ASPECTS)
    prompt: str | None = Field(
        default=None, max_length=MAX_TEXT, description="E.g. `red bicycle::2 beach --no people`; see docs/guide.md."
    )
    images: dict[PathName, str] | None = Field(
        default=None, max_length=MAX_PARTS, description="The images that `prompt` names, in base64."
    )
    combine: Combine = Field(default="sum", description="How parts and aspects make one score: see docs/http.md.")

    @property
    def has_image(self) -> bool:
        """Whether a picture has to be embedded."""
        parts = [*(self.parts or ()), *(part for aspect in self.aspects or () for part in aspect.parts)]
        return bool(self.images) or any(part.image is not None for part in parts)

    def question(self) -> Question:
        """Raises QuestionInvalid, PromptInvalid."""
        if sum(given is not None for given in (self.parts, self.aspects, self.prompt)) != 1:
            raise QuestionInvalid("A query has exactly one of parts, aspects and prompt.")
        if self.images and self.prompt is None:
            raise QuestionInvalid("`images` are those that a prompt names. Send others as parts.")
        if sum(len(aspect.parts) for aspect in self.aspects or ()) > MAX_PARTS:
            raise QuestionInvalid(f"The aspects of a query have {MAX_PARTS} parts at most.")
        return Question(
            parts=[part.meant() for part in self.parts or ()],
            aspects=[aspect.meant() for aspect in self.aspects or ()],
            prompt=None if self.prompt is None else read_prompt(self.prompt),
            images={name: QueryPicture(data=read_base64(text)) for name, text in (self.images or {}).items()},
            combine=self.combine,
            options=self,
        )


class SearchRequest(QueryRequest):
    """A weighted query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"parts": [{"id": EXAMPLE_ID}], "k": 10, "filter": {"label": "2024"}}]},
    )

    index: Name | None = Field(default=None, description="Default: the first one served.")


class BatchRequest(Request):
    """Many weighted queries of one index."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": [{"parts": [{"id": EXAMPLE_ID}], "k": 5}]}]},
    )

    queries: list[QueryRequest] = Field(min_length=1, max_length=256)
    index: Name | None = Field(default=None, description="Default: the first one served.")


class ReasonAnswer(BaseModel):
    """What one aspect of the query, or its words, gave to a hit's score."""

    model_config = ConfigDict(from_attributes=True)

    space: str | None = Field(description="Where the aspect was looked for; null: in labels, metadata and names.")
    score: float | None = Field(description="The cosine there; of words, how much of them the image has, 0..1.")
    share: float = Field(description="What that added to the hit's score.")


class HitAnswer(BaseModel):
    """One hit: the fields of `search.types.Hit` that have the same names."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    score: float = Field(description="Cosine, -1..1; with a text, of its ranks, 0..1; of aspects, see docs/http.md.")
    fmr: float | None = Field(
        description="False-match rate: share of random pairs of different images with at least this score, if known."
    )
    probability: float | None = Field(
        description="How probable it is that the hit is alike, where labels calibrated the space."
    )
    path: str | None = Field(description="The first absolute path.")
    paths: list[str] = Field(description="Up to 20 of them, those that are there first.")
    path_count: int = Field(description="How many paths the image has.")
    labels: list[str]
    metadata: dict[str, Any]
    width: int
    height: int
    copies: list[str] = Field(description="With `fold`: ids of images that look the same, best first; at most 100.")
    copy_count: int = Field(description="How many they are.")
    why: list[ReasonAnswer] = Field(description="One for each aspect, in the query's order, and for words at the end.")
    box: tuple[int, int, int, int] | None = Field(
        description="In a space of regions, the nearest part: x, y, width, height in pixels of the upright image."
    )
    match: float | None = Field(description="With `rerank`: how alike the query and the box are, -1..1.")


class Took(BaseModel):
    """Where the time went, in milliseconds."""

    decode: float
    encode: float
    search: float
    total: float


class SearchAnswer(BaseModel):
    """Hits by falling score, ties by id; with `rerank`, the ten best by `match`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "hits": [
                        EXAMPLE_HIT
                        | {
                            "copies": [EXAMPLE_ID[::-1]],
                            "copy_count": 1,
                            "why": [{"space": "layer11", "score": 0.8713, "share": 0.8713}],
                            "box": None,
                            "match": None,
                        }
                    ],
                    "space": "layer11",
                    "took_ms": {"decode": 4.1, "encode": 26.0, "search": 0.9, "total": 31.4},
                }
            ]
        }
    )

    hits: list[HitAnswer]
    space: str
    took_ms: Took

    @classmethod
    def of(cls, hits: Sequence[Hit], space: str, timing: Timing) -> SearchAnswer:
        """The answer of a search."""
        took = {stage: round(1000 * seconds, 3) for stage, seconds in asdict(timing).items()}
        return cls(hits=[HitAnswer.model_validate(hit) for hit in hits], space=space, took_ms=Took(**took))


class BatchEntry(BaseModel):
    """The outcome of one query of a batch: exactly one of both is given."""

    answer: SearchAnswer | None = None
    error: ProblemAnswer | None = None


class BatchAnswer(BaseModel):
    """An entry for each query, in their order."""

    answers: list[BatchEntry]
