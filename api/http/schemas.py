"""What goes over the wire: requests and answers, with examples for OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.errors import QuestionInvalid
from api.serving.questions import (
    Name,
    QueryPicture,
    Question,
    QuestionPart,
    SearchOptions,
    read_base64,
    read_box,
    read_vector,
)
from api.serving.service import SpaceState
from api.serving.timing import Timing
from search.query.parts import MAX_PARTS
from search.recipe import Pooling
from search.types import Hit, ImageRecord

EXAMPLE_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ImageId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Box = Annotated[list[Finite], Field(min_length=4, max_length=4, description="x, y, width, height in pixels.")]

_EXAMPLE_HIT: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "score": 0.8713,
    "path": "/photos/2024/zebra.jpg",
    "paths": ["/photos/2024/zebra.jpg"],
    "path_count": 1,
    "labels": ["2024"],
    "metadata": {"price": 12.5},
    "width": 4000,
    "height": 3000,
}


class Request(BaseModel):
    """A request: a field we do not know is an error, so that a slip is not a silent no; and `true` is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Part(Request):
    """One weighted part of a query: an image (base64), the id of an indexed one, or an embedding."""

    image: str | None = Field(default=None, description="The bytes of an image file, in base64.")
    id: ImageId | None = Field(default=None, description="An indexed image.")
    vector: list[Finite] | None = Field(default=None, max_length=100_000, description="An embedding of the space.")
    weight: Finite = Field(default=1.0, description="May be negative: less like this.")
    box: Box | None = Field(default=None, description="Look at this part of `image` only: x, y, width, height.")

    def meant(self) -> QuestionPart:
        """Raises QuestionInvalid."""
        if self.box is not None and self.image is None:
            raise QuestionInvalid("Only a part with an image can have a box.")
        box = None if self.box is None else read_box(self.box)
        return QuestionPart(
            picture=None if self.image is None else QueryPicture(data=read_base64(self.image), box=box),
            id=self.id,
            vector=None if self.vector is None else read_vector(self.vector),
            weight=self.weight,
        )


class QueryRequest(SearchOptions, Request):
    """A weighted query of an index."""

    parts: list[Part] = Field(min_length=1, max_length=MAX_PARTS)

    def question(self) -> Question:
        """Raises QuestionInvalid."""
        return Question(parts=[part.meant() for part in self.parts], options=self)


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


class HitAnswer(BaseModel):
    """One hit: the fields of `search.types.Hit` that have the same names."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    score: float = Field(description="Cosine, -1..1.")
    path: str | None = Field(description="The first absolute path.")
    paths: list[str] = Field(description="Up to 20 of them, those that are there first.")
    path_count: int = Field(description="How many paths the image has.")
    labels: list[str]
    metadata: dict[str, Any]
    width: int
    height: int
    copies: list[str] = Field(description="With `fold`: ids of images that look the same, best first; at most 100.")
    copy_count: int = Field(description="How many they are.")


class Took(BaseModel):
    """Where the time went, in milliseconds."""

    decode: float
    encode: float
    search: float
    total: float


class SearchAnswer(BaseModel):
    """Hits by falling score, ties by id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "hits": [_EXAMPLE_HIT | {"copies": [EXAMPLE_ID[::-1]], "copy_count": 1}],
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


class ImageAnswer(BaseModel):
    """Everything known of an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {key: value for key, value in _EXAMPLE_HIT.items() if key != "score"}
                | {
                    "format": "jpeg",
                    "bytes": 2_400_000,
                    "taken_at": "2024-07-01T10:00:00",
                    "camera": "Canon EOS R6",
                    "gps": [48.2, 16.37],
                    "missing": False,
                }
            ]
        }
    )

    id: str
    path: str | None
    paths: list[str] = Field(description="Up to 1,000 of them, those that are there first.")
    path_count: int
    labels: list[str]
    metadata: dict[str, Any]
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None
    camera: str | None
    gps: Pair | None = Field(description="Latitude, longitude in degrees.")
    missing: bool = Field(description="The last build found none of its files: it is not a hit.")

    @classmethod
    def of(cls, record: ImageRecord) -> ImageAnswer:
        """The answer for a record of the catalog."""
        facts = record.facts
        return cls(
            id=record.id,
            path=record.paths[0] if record.paths else None,
            paths=list(record.paths),
            path_count=record.path_count,
            labels=list(record.labels),
            metadata=dict(record.metadata),
            width=facts.width,
            height=facts.height,
            format=facts.format,
            bytes=facts.bytes,
            taken_at=facts.taken_at,
            camera=facts.camera,
            gps=None if facts.gps is None else list(facts.gps),
            missing=record.missing,
        )


class ImagesAnswer(BaseModel):
    """One page of images, in the order they were added."""

    images: list[ImageAnswer]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class ImagePatch(Request):
    """What to change. `labels` replaces all labels; `metadata` is merged in (RFC 7396): null removes a key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"labels": ["cat"], "metadata": {"price": 9.5, "old": None}}]}
    )

    labels: list[str] | None = Field(default=None, max_length=1_000)
    metadata: dict[str, Any] | None = None


class EmbedRequest(Request):
    """Images to embed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["/9j/4AAQSkZJRg..."]}]})

    input: list[str] = Field(min_length=1, max_length=64, description="The bytes of image files, in base64.")
    space: Name | None = None
    index: Name | None = None


class Embedding(BaseModel):
    """One embedding: unit length."""

    index: int
    embedding: list[float]


class EmbedAnswer(BaseModel):
    """Embeddings in the order of the input."""

    data: list[Embedding]
    model: str


class SpaceAnswer(BaseModel):
    """A space of a served index. One that is not complete is searched as far as it is filled."""

    name: str
    dim: int
    count: int = Field(description="Images that have a vector in it.")
    images: int = Field(description="Images of the index.")
    complete: bool
    filling: bool = Field(description="Whether this server is filling it now.")
    default: bool
    recipe: dict[str, Any]

    @classmethod
    def of(cls, state: SpaceState) -> SpaceAnswer:
        """The answer for a space."""
        info = state.info
        return cls(
            name=info.space.name,
            dim=info.space.recipe.dim,
            count=info.count,
            images=info.images,
            complete=info.space.complete,
            filling=state.filling,
            default=info.default,
            recipe=info.space.recipe.to_json(),
        )


class SpacesAnswer(BaseModel):
    """The spaces of a served index, in the order in which they were added."""

    spaces: list[SpaceAnswer]


class SpaceRequest(Request):
    """A space to add: layers of the default space's model; several are one space of all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"layers": [7]}, {"layers": [7, 11], "pooling": "mean"}]})

    layers: list[Annotated[int, Field(ge=-1000, le=1000)]] = Field(
        min_length=1, max_length=32, description="0: patches and positions; -1: the last."
    )
    pooling: Pooling | None = Field(default=None, description="Default: the model's best at these layers.")


class SpacePatch(Request):
    """What becomes of a space."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"default": True}]})

    default: Literal[True] = Field(description="Searches that name no space take place in this one.")
    force: bool = Field(default=False, description="Also where images are missing in it.")


class IndexAnswer(BaseModel):
    """A served index."""

    name: str
    count: int
    generation: str | None
    spaces: list[SpaceAnswer]


class IndexesAnswer(BaseModel):
    """What is served; the first is the default."""

    indexes: list[IndexAnswer]


class StatusAnswer(BaseModel):
    """A health check's answer."""

    status: str


class ProblemAnswer(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "The index has no image with this id.",
                    "code": "unknown-image",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str


class BatchEntry(BaseModel):
    """What one query of a batch came to: exactly one of both is given."""

    answer: SearchAnswer | None = None
    error: ProblemAnswer | None = None


class BatchAnswer(BaseModel):
    """An entry for each query, in their order."""

    answers: list[BatchEntry]


class SessionRequest(Request):
    """A key, for a session of the web page."""

    key: str = Field(min_length=1, max_length=1_000)
