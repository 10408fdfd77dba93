"""Requests and answers as they go over the wire, with examples for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from analysis.duplicates.groups import Tier
from analysis.duplicates.kept import MAX_FILES, GroupPage
from analysis.duplicates.shown import group_to_json
from api.serving.questions import (
    Name,
)
from api.serving.service import SpaceState
from search.catalog.decisions import MAX_IMAGES
from search.recipe import Pooling
from search.types import ImageRecord

EXAMPLE_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ImageId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
ShortId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{4,64}$", to_lower=True)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]

EXAMPLE_HIT: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "score": 0.8713,
    "fmr": 0.000012,
    "probability": 0.94,
    "path": "/photos/2024/zebra.jpg",
    "paths": ["/photos/2024/zebra.jpg"],
    "path_count": 1,
    "labels": ["2024"],
    "metadata": {"price": 12.5},
    "width": 4000,
    "height": 3000,
}


class Request(BaseModel):
    """A request: a field we do not know is an error, so that a slip is not a silent no; and `true` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageAnswer(BaseModel):
    """Everything known of an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {key: value for key, value in EXAMPLE_HIT.items() if key not in ("score", "fmr", "probability")}
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
    """A change of an image. `labels` replaces all labels; `metadata` is merged in (RFC 7396): null removes a key."""

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
    transform: dict[str, Any] = Field(description="What its vectors go through before they are searched.")

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
            transform=info.space.transform.to_json(),
        )


class SpacesAnswer(BaseModel):
    """The spaces of a served index, in the order in which they were added."""

    spaces: list[SpaceAnswer]


class SpaceRequest(Request):
    """A space to add: layers of the default space's model; several are one space of all."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"layers": [7]}, {"layers": [7, 11], "pooling": "mean"}, {"style": True}]}
    )

    layers: list[Annotated[int, Field(ge=-1000, le=1000)]] = Field(
        default=[], max_length=32, description="0: patches and positions; -1: the last."
    )
    pooling: Pooling | None = Field(default=None, description="Default: the model's best at these layers.")
    transform: Literal["none", "whiten"] = Field(
        default="none", description="What its vectors go through before they are searched."
    )
    style: bool = Field(default=False, description="The space in which styles are compared, instead of layers.")
    regions: bool = Field(default=False, description="The space of parts of images, instead of layers.")

    @model_validator(mode="after")
    def _says_one(self) -> SpaceRequest:
        own = self.style or self.regions
        if [self.style, self.regions, bool(self.layers)].count(True) != 1 or (
            own and (self.pooling is not None or self.transform != "none")
        ):
            raise ValueError("give layers, or style or regions alone")
        return self


class SpacePatch(Request):
    """A change of a space."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"default": True}]})

    default: Literal[True] = Field(description="Searches that name no space take place in this one.")
    force: bool = Field(default=False, description="Also where images are missing in it.")


class MapPoint(BaseModel):
    """An image on a map."""

    id: str
    x: float = Field(description="-1 to 1, rightwards.")
    y: float = Field(description="-1 to 1, upwards.")
    cluster: int | None = Field(description="Its place in `clusters`, from 0; null: in none.")
    isolation: float = Field(description="1 - the mean cosine to its ten nearest images.")


class MapCluster(BaseModel):
    """Images that lie together on a map."""

    name: str
    size: int
    x: float = Field(description="Its middle.")
    y: float
    typical: list[str] = Field(description="Ids, the medoid first; empty once all five are removed.")


class MapAnswer(BaseModel):
    """A space in two dimensions."""

    space: str
    generation: str | None = Field(description="The index's generation when the map was made.")
    seed: int
    labels: str = Field(description="What clusters are named by: `label`, `folder` or `metadata.KEY`.")
    clusters: list[MapCluster] = Field(description="The largest first.")
    outliers: list[str] = Field(description="Ids of images like no others, the most isolated first, at most 100.")
    points: list[MapPoint]


class DuplicateFile(BaseModel):
    """A file of a group of duplicates."""

    id: str
    paths: list[str] = Field(description="One: each file of an image is an entry.")
    score: float = Field(description="How surely its image belongs to the group, 0 to 1.")
    keep: bool = Field(description="False: it is extra, and may go.")
    why: str | None = Field(description="Why it is kept.")


class DuplicateGroup(BaseModel):
    """Files that are duplicates of one another, as `lookalike dups --json` lists them."""

    tier: Tier
    images: list[DuplicateFile] = Field(description=f"An entry for each of up to {MAX_FILES} files.")
    file_count: int = Field(description="How many files the group has, at least: of each further image one is counted.")


class DuplicatesAnswer(BaseModel):
    """One page of groups."""

    groups: list[DuplicateGroup] = Field(description="May be fewer than `limit`, or none, before the last page.")
    found_at: str | None = Field(description="When they were found (UTC); null: now.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")

    @classmethod
    def of(cls, page: GroupPage) -> DuplicatesAnswer:
        """The answer for a page."""
        groups = [group_to_json(one, {str(file.path) for file in one.goes}) for one in page.decisions]
        return cls(
            groups=[DuplicateGroup.model_validate(group) for group in groups],
            found_at=page.found_at,
            next_cursor=page.cursor,
        )


class DecisionRequest(Request):
    """A decision about images: they are not duplicates of each other, or that is taken back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"images": [EXAMPLE_ID, EXAMPLE_ID]}]})

    images: list[ImageId] = Field(
        min_length=2, max_length=MAX_IMAGES, description="Ids. One given twice: all of its copies are wanted."
    )
    decision: Literal["not-duplicates", "undecided"] = "not-duplicates"


class DecisionAnswer(BaseModel):
    """A decision was stored."""

    pairs: int = Field(description="Pairs of images of which this was not known before.")


class IndexAnswer(BaseModel):
    """A served index."""

    name: str
    count: int
    generation: str | None
    spaces: list[SpaceAnswer]


class IndexesAnswer(BaseModel):
    """The served indexes; the first is the default."""

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


class SessionRequest(Request):
    """A key, for a session of the web page."""

    key: str = Field(min_length=1, max_length=1_000)
