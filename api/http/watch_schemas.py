"""Watches as they go over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.http.board_schemas import BoardName
from api.http.schemas import EXAMPLE_ID, Request
from api.serving.notify import MAX_URL, shown_address
from api.serving.saved import SavedQuestion
from search.catalog.watches import Delivery, Watch, WebhookForm


class WatchRequest(Request):
    """A watch: a question with a cut, and who is told of new images that match."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "more zebras",
                    "question": {"parts": [{"id": EXAMPLE_ID}], "min_score": 0.7},
                    "url": "https://example.com/hook",
                }
            ]
        }
    )

    name: BoardName
    question: SavedQuestion = Field(
        description="`parts`, `filter`, `space`, and a cut: `min_score`, or `max_fmr`; no other options."
    )
    url: str = Field(max_length=MAX_URL, description="Where messages are sent (POST).")
    form: WebhookForm = Field(default="json", description="`discord`: as a Discord webhook takes messages.")
    secret: Annotated[str, StringConstraints(min_length=16, max_length=200)] | None = Field(
        default=None, description="Signs messages. Default: a new one, which is answered once."
    )


class WatchAnswer(BaseModel):
    """A watch, without its secret."""

    id: int
    name: str
    question: dict[str, Any]
    address: str = Field(description="Without its path, which may be a secret.")
    form: WebhookForm
    made_at: str
    problem: str | None = Field(description="Why its question cannot be asked now; null: it can.")
    waiting: int = Field(description="Messages that are still to be sent.")
    failed: int = Field(description="Of the last messages, those that were given up.")

    @classmethod
    def of(cls, watch: Watch) -> WatchAnswer:
        """The answer for a watch."""
        return cls(
            id=watch.number,
            name=watch.name,
            question=dict(watch.question),
            address=shown_address(watch.url),
            form=watch.form,
            made_at=watch.made_at,
            problem=watch.problem,
            waiting=watch.waiting,
            failed=watch.failed,
        )


class NewWatchAnswer(WatchAnswer):
    """A watch that was just made: only now with its secret."""

    secret: str


class WatchesAnswer(BaseModel):
    """The watches of an index, the oldest first."""

    watches: list[WatchAnswer]


class MatchAnswer(BaseModel):
    """An image of which a watch tells."""

    id: str
    score: float
    fmr: float | None


class DeliveryAnswer(BaseModel):
    """A message of a watch."""

    id: int
    matches: list[MatchAnswer]
    state: Literal["waiting", "sent", "failed"]
    attempts: int
    made_at: str
    tried_at: str | None
    answer: str | None = Field(description="To the last attempt: an HTTP status, or why there was none.")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryAnswer:
        """The answer for a message."""
        return cls(
            id=delivery.number,
            matches=[MatchAnswer(**match._asdict()) for match in delivery.matches],
            state=delivery.state,
            attempts=delivery.attempts,
            made_at=delivery.made_at,
            tried_at=delivery.tried_at,
            answer=delivery.answer,
        )


class DeliveriesAnswer(BaseModel):
    """Messages of a watch: all that wait, and the last of the others."""

    deliveries: list[DeliveryAnswer]
