"""Saved questions: of boards and watches, each deleted with what it belongs to."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, exists, func, insert, select

from search.catalog.schema import questions
from search.types import JsonObject


def now() -> str:
    """The time as the catalog keeps it (ISO 8601, UTC): such strings are in the order of the moments."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_question(connection: Connection, name: str, body: JsonObject) -> int:
    """Save a question. body: as a search over HTTP, without pictures. Returns its number."""
    values = {"name": name, "body": dict(body), "saved_at": now()}
    key = connection.execute(insert(questions).values(values)).inserted_primary_key
    assert key is not None, "the table has a number for each row"
    return int(key[0])


def questions_naming(connection: Connection, image_id: str) -> list[int]:
    """The numbers of questions of which an image is a part, by its id."""
    parts = func.json_each(questions.c.body, "$.parts").table_valued("value")
    named = func.lower(func.json_extract(parts.c.value, "$.id")) == image_id
    is_part = exists(select(1).select_from(parts).where(named).correlate(questions))
    return [*connection.execute(select(questions.c.question).where(is_part)).scalars()]
