"""Catalogs that an older Lookalike made, brought up to this one's schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import func, select, true

from search.catalog.catalog import Catalog
from search.catalog.schema import SCHEMA_VERSION, images, labels
from search.sqlite.connections import translated, writing_engine


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
        engine.dispose()


def _from_1(operations: Operations) -> None:
    """Labels get a table, and an image's vectors are found by the image: removing one read every other before."""
    connection = operations.get_bind()
    operations.drop_index("embeddings_image", "embeddings")
    operations.create_index("embeddings_by_image", "embeddings", ["image_rowid", "space_id"], unique=True)
    labels.create(connection)
    each = func.json_each(images.c.labels).table_valued("value")
    held = select(each.c.value, images.c.rowid).select_from(images.join(each, true())).distinct()
    connection.execute(labels.insert().from_select(["label", "image"], held))


_STEPS: dict[int, Callable[[Operations], None]] = {1: _from_1}
"""By the version that they start from."""
