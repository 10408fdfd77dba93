"""Explanations of hits as they go over the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api.errors import QuestionInvalid
from api.http.schemas import EXAMPLE_ID, ImageId, Request
from api.http.search_schemas import Box
from api.serving.explaining import Explained, Source
from api.serving.questions import Name, QueryPicture, Whole, read_base64, read_box
from api.serving.timing import Timing
from indexer.explain import MATCHES, MAX_MATCHES, Match, Side

Fractions = Annotated[
    list[float],
    Field(min_length=4, max_length=4, description="x, y, width, height, as fractions of the upright picture."),
]
DIGITS = 4
"""Behind the point, of cosines and boxes: a thousandth of a patch."""
EXAMPLE: dict[str, Any] = {"id": EXAMPLE_ID, "matches": 8}


class ExplainRequest(Request):
    """The picture that a hit is compared with: an image (base64), or the id of an indexed one."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    image: str | None = Field(default=None, description="The bytes of an image file, in base64.")
    id: ImageId | None = Field(default=None, description="An indexed image.")
    box: Box | None = Field(default=None, description="Look at this part of `image` only: x, y, width, height.")
    space: Name | None = Field(default=None, description="Whose model looks. Default: the index's default.")
    matches: Whole = Field(default=MATCHES, ge=0, le=MAX_MATCHES, description="How many matches to list at most.")
    index: Name | None = Field(default=None, description="Default: the first one served.")

    def meant(self) -> QueryPicture | str:
        """Raises QuestionInvalid."""
        if (self.image is None) == (self.id is None):
            raise QuestionInvalid("A hit is explained to exactly one of image and id.")
        if self.image is None:
            if self.box is not None:
                raise QuestionInvalid("Only an image can have a box.")
            return str(self.id)
        return QueryPicture(data=read_base64(self.image), box=None if self.box is None else read_box(self.box))


class GridAnswer(BaseModel):
    """Equal patches of a picture, numbered row by row from 0."""

    rows: int
    columns: int
    box: Fractions = Field(description="What all patches cover; beyond 0..1 where the picture was padded.")


class SideAnswer(BaseModel):
    """One of both pictures; each list has an entry for each of its patches."""

    source: Source = Field(description="`image`: sent; `file`; `thumbnail`: the file is gone.")
    grid: GridAnswer
    nearest: list[int | None] = Field(description="The most alike patch of the other picture; null outside this one.")
    cosines: list[float | None] = Field(description="The cosine with it.")
    margins: list[float | None] = Field(
        description="How much nearer it is than the nearest elsewhere; 0 where it is not mutual."
    )
    mutual: list[bool] = Field(description="Whether both are each other's most alike.")

    @classmethod
    def of(cls, side: Side, source: Source) -> SideAnswer:
        """The answer of a side."""
        shown = (side.nearest >= 0).tolist()
        values = (side.nearest.tolist(), _rounded(side.cosines.tolist()), _rounded(side.margins.tolist()))
        nearest, cosines, margins = (
            [value if inside else None for value, inside in zip(each, shown, strict=True)] for each in values
        )
        grid = GridAnswer(rows=side.grid.rows, columns=side.grid.columns, box=_rounded(side.grid.box))
        return cls(
            source=source, grid=grid, nearest=nearest, cosines=cosines, margins=margins, mutual=side.mutual.tolist()
        )


class MatchAnswer(BaseModel):
    """Two patches, each the most alike of the other in its picture."""

    query: int = Field(description="The patch's number in the query's picture.")
    hit: int = Field(description="The patch's number in the hit.")
    query_box: Fractions
    hit_box: Fractions
    cosine: float
    margin: float = Field(description="How much nearer it is than the nearest elsewhere in the hit.")

    @classmethod
    def of(cls, match: Match) -> MatchAnswer:
        """The answer of a match."""
        return cls(
            query=match.query_patch,
            hit=match.hit_patch,
            query_box=_rounded(match.query_box),
            hit_box=_rounded(match.hit_box),
            cosine=round(match.cosine, DIGITS),
            margin=round(match.margin, DIGITS),
        )


class ExplainTook(BaseModel):
    """Where the time went, in milliseconds."""

    decode: float
    encode: float
    total: float


class ExplainAnswer(BaseModel):
    """Two pictures patch by patch, and the matches that tell most, the clearest first."""

    space: str
    layers: list[int] = Field(description="Of the vision transformer; a companion network has no patches.")
    query: SideAnswer
    hit: SideAnswer
    matches: list[MatchAnswer]
    took_ms: ExplainTook

    @classmethod
    def of(cls, explained: Explained, timing: Timing) -> ExplainAnswer:
        """The answer of an explanation."""
        found = explained.explanation
        return cls(
            space=explained.space.name,
            layers=list(explained.space.recipe.layers),
            query=SideAnswer.of(found.query, explained.query_source),
            hit=SideAnswer.of(found.hit, explained.hit_source),
            matches=[MatchAnswer.of(match) for match in found.matches],
            took_ms=ExplainTook(
                decode=round(1000 * timing.decode, 3),
                encode=round(1000 * timing.encode, 3),
                total=round(1000 * timing.total, 3),
            ),
        )


def _rounded(values: tuple[float, ...] | list[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]
