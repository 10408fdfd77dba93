"""The statements that searches run, made once; and what their rows are."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

from sqlalchemy import Select, bindparam, func, literal_column, select
from sqlalchemy.dialects import sqlite

from search.catalog.schema import embeddings, images, locations, spaces
from search.types import JsonObject


def _among(column: Any, asked: str) -> Any:
    """Whether a column's value is one of a JSON array's, which is a parameter of this name."""
    return column.in_(select(func.json_each(bindparam(asked)).table_valued("value").c.value))


def _text(statement: Select[Any]) -> str:
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))


def _places(most: int) -> Any:
    """JSON of up to `most` files of an image: root, path, and whether it was there. Present ones first, each in the
    order they were first seen."""
    here = (
        select(locations.c.root, locations.c.path, locations.c.missing_since.is_(None).label("there"))
        .where(locations.c.image == images.c.rowid)
        .order_by(locations.c.missing_since.is_not(None), locations.c.location)
        .limit(literal_column(str(most)))
        .offset(literal_column("0"))
        .correlate(images)
        .subquery("here")
    )
    return (
        select(func.json_group_array(func.json_array(here.c.root, here.c.path, here.c.there)))
        .select_from(here)
        .scalar_subquery()
        .label("places")
    )


def _of_locations(value: Any) -> Any:
    return select(value).where(locations.c.image == images.c.rowid).scalar_subquery()


HIT_PATHS, RECORD_PATHS = 20, 1_000
"""Paths of one image in a hit, and in an answer about it alone: one placeholder may lie in thousands of folders."""
_COUNT = _of_locations(func.count()).label("path_count")
_PRESENT = func.coalesce(_of_locations(func.max(locations.c.missing_since.is_(None))), literal_column("1")).label(
    "present"
)
"""Whether a file of the image was there when a build last looked, or it has no location at all."""
RECORDS = select(images, _places(RECORD_PATHS), _COUNT, _PRESENT).where(_among(images.c.rowid, "rowids"))
# What every search runs is text from the beginning, for SQLite's own cursor: through SQLAlchemy it takes twice as long.
IDS = _text(select(images.c.rowid, images.c.id).where(_among(images.c.rowid, "rowids")))
ROWIDS = _text(select(images.c.id, images.c.rowid).where(_among(images.c.id, "ids")))
PRESENT = _text(select(images.c.rowid).where(_among(images.c.rowid, "rowids"), _PRESENT))
PATH_COUNTS = _text(select(images.c.rowid, _COUNT).where(_among(images.c.rowid, "rowids")))
HASHES = _text(select(images.c.rowid, images.c.id, _PRESENT, images.c.phash).where(_among(images.c.rowid, "rowids")))
ENTRIES = _text(
    select(
        images.c.rowid,
        images.c.id,
        images.c.width,
        images.c.height,
        images.c.labels,
        images.c.metadata,
        _places(HIT_PATHS),
    ).where(_among(images.c.rowid, "rowids"))
)
WITH_INDEX = -1
"""As `added_seq`: that of a space that came with its index."""
STORED = _text(
    select(images.c.id, embeddings.c.image_rowid, embeddings.c.vector, embeddings.c.crc32)
    .join(embeddings, embeddings.c.image_rowid == images.c.rowid)
    .join(spaces, spaces.c.space == embeddings.c.space_id)
    .where(
        spaces.c.name == bindparam("space"),
        func.coalesce(spaces.c.added_seq, literal_column(str(WITH_INDEX))) == bindparam("added_seq"),
        _among(images.c.id, "ids"),
    )
)


class Stored(NamedTuple):
    """An embedding as the catalog keeps it: a blob of `vectors.to_blob`, and its checksum."""

    image_rowid: int
    vector: bytes
    crc32: int


class HitFacts(TypedDict):
    """The catalog's part of a hit: see `Hit`."""

    id: str
    width: int
    height: int
    labels: tuple[str, ...]
    metadata: JsonObject
    paths: tuple[str, ...]
    path_count: int


class Entry(NamedTuple):
    """An image as a hit shows it, and whether a file of it was there when a build last looked, or it never had any."""

    facts: HitFacts
    present: bool
