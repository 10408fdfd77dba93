"""Duplicates of an index: listed by kind, and called none."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from analysis.duplicates.groups import Tier
from api.http.routes import CheckedRoute, Chosen, answers
from api.http.schemas import DecisionAnswer, DecisionRequest, DuplicatesAnswer

router = APIRouter(prefix="/v1/duplicates", tags=["duplicates"], route_class=CheckedRoute)


@router.get("", responses=answers(404))
async def list_duplicates(
    service: Chosen,
    tier: Annotated[Tier, Query(description="The kind of duplicates.")] = "bytes",
    cursor: Annotated[
        str | None, Query(pattern=r"^[a-z]+-\d{0,30}-\d{1,18}$", description="`next_cursor` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DuplicatesAnswer:
    """Groups of duplicates, a page at a time: `bytes` as they are now, others as `lookalike dups` found them last."""
    return DuplicatesAnswer.of(await service.duplicates.page(tier, cursor, limit))


@router.post("/decisions", responses=answers(404, 413, 507))
async def decide(service: Chosen, body: DecisionRequest) -> DecisionAnswer:
    """Remember that images are not duplicates of each other, also after later builds; or take that back."""
    if body.decision == "undecided":
        pairs = await service.write(lambda writer: writer.clear_not_duplicates(body.images))
    else:
        pairs = await service.write(lambda writer: writer.set_not_duplicates(body.images))
    return DecisionAnswer(pairs=pairs)
