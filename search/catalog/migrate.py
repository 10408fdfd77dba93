"""Catalogs that an older Lookalike made, brought up to this one's schema."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, Text, func, select, update

from search.catalog.catalog import Catalog
from search.catalog.fulltext import create_vocabulary, create_words, write_all_words
from search.catalog.schema import (
    SCHEMA_VERSION,
    board_items,
    boards,
    comments,
    decisions,
    deliveries,
    embeddings,
    feedback,
    images,
    label_rows,
    labels,
    meanings,
    questions,
    rounds,
    shares,
    spaces,
    state,
    votes,
    watches,
    words_due,
)
from search.sqlite.connections import close_writer, translated, writing_engine

LOG = logging.getLogger("lookalike")
"""Where nobody set logging up, as on the command line, Python shows its warnings on stderr, as they are."""
TOLD_IMAGES = 20_000
WORDS_SECONDS = 160e-6
"""Images from which on it is said that their words are written, and the seconds of each: a million take 160."""
MIGRATED_ROWS = 10_000
"""Images whose labels are held in memory at once."""


def migrate(path: Path) -> None:
    """Bring the catalog at `path` up to SCHEMA_VERSION, in one transaction, under `write_lock`.

    Raises IndexDamaged, StorageFailed.
    """
    engine = writing_engine(path)
    try:
        with translated(path), engine.begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            operations = Operations(MigrationContext.configure(connection))
            for number in range(version, SCHEMA_VERSION):
                _STEPS[number](operations)
            connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
        with translated(path), engine.connect() as connection:
            Catalog.checkpoint_file(connection, path)
    finally:
        close_writer(path, engine)


def _from_1(operations: Operations) -> None:
    """An image's vectors are found by the image: removing one read every other before."""
    operations.drop_index("embeddings_image", "embeddings")
    operations.create_index("embeddings_by_image", "embeddings", ["image_rowid", "space_id"], unique=True)


def _from_2(operations: Operations) -> None:
    """Labels are found in any case, and by their last part. Spaces come and go, and one is said to be the default.

    Locations may be missing; those of removed images keep a hash of their pixels.
    """
    operations.add_column("locations", Column("missing_since", Text))
    operations.add_column("locations", Column("removed_phash", BigInteger))
    connection = operations.get_bind()
    for column in (spaces.c.added_seq, spaces.c.complete_seq, spaces.c.missing, spaces.c.dropped, embeddings.c.seq):
        added: Column[object] = Column(
            column.name, column.type, nullable=column.nullable, server_default=column.server_default
        )
        operations.add_column(column.table.name, added)
    connection.execute(update(spaces).values(complete_seq=0))
    next(index for index in embeddings.indexes if index.name == "embeddings_by_seq").create(connection)
    first = connection.execute(select(spaces.c.name).order_by(spaces.c.space).limit(1)).scalar_one()
    connection.execute(state.insert().values(key="default_space", value=first))
    connection.exec_driver_sql("DROP TABLE IF EXISTS labels")
    labels.create(connection)
    for images_of_chunk in connection.execute(select(images.c.rowid, images.c.labels)).partitions(MIGRATED_ROWS):
        rows = [row for rowid, held in images_of_chunk for row in label_rows(rowid, set(held))]
        if rows:
            connection.execute(labels.insert(), rows)


def _from_3(operations: Operations) -> None:
    """Spaces say how their vectors are stored, and how they are transformed before a search."""
    for column in (spaces.c.storage, spaces.c.transform):
        added: Column[object] = Column(column.name, column.type, nullable=False, server_default=column.server_default)
        operations.add_column("spaces", added)


def _from_4(operations: Operations) -> None:
    """Pairs of images that are not duplicates are remembered."""
    decisions.create(operations.get_bind())


def _from_5(operations: Operations) -> None:
    """Images are found by words."""
    connection = operations.get_bind()
    count = connection.execute(select(func.count()).select_from(images)).scalar_one()
    if count >= TOLD_IMAGES:
        LOG.warning(
            "The index is brought up to date once: the words of %s images are written, some %d s.",
            f"{count:,}",
            round(count * WORDS_SECONDS),
        )
    words_due.create(connection)
    create_words(connection)
    write_all_words(connection)


def _from_6(operations: Operations) -> None:
    """Boards are kept, watches, and feedback on questions."""
    for table in (questions, boards, board_items, comments, votes, shares, watches, deliveries, rounds, feedback):
        table.create(operations.get_bind())


def _from_7(operations: Operations) -> None:
    """Words of names have meanings."""
    connection = operations.get_bind()
    meanings.create(connection)
    create_vocabulary(connection)


_STEPS: dict[int, Callable[[Operations], None]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
}
"""By the version that they start from."""
