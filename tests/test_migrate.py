"""Promises to those who upgrade: an older catalog opens, and holds everything that it held."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import another_writer, image_id, new_image, recipe, vectors

from search.catalog import migrate
from search.catalog.catalog import Catalog
from search.catalog.schema import SCHEMA_VERSION
from search.errors import IndexDamaged, IndexLocked, StorageFailed
from search.filters import parse_filter
from search.index import Index
from search.lock import write_lock
from search.sqlite import checksums
from search.sqlite.connections import writing_engine
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]


def execute(path: Path, *statements: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path / "catalog.sqlite")
    rows: list[tuple[object, ...]] = []
    for statement in statements:
        rows += connection.execute(statement).fetchall()
    connection.commit()
    connection.close()
    return rows


TO_VERSION_7 = ("DROP TABLE meanings", "DROP TABLE words_known")
"""Statements that take from a catalog what version 8 added."""
TO_VERSION_6 = (
    *TO_VERSION_7,
    *(
        f"DROP TABLE {name}"
        for name in (
            *("feedback", "rounds", "deliveries", "watches", "shares"),
            *("votes", "comments", "board_items", "boards", "questions"),
        )
    ),
)
"""Statements that take from a catalog what versions 7 and 8 added."""
TO_VERSION_5 = (
    *TO_VERSION_6,
    *(f"DROP TRIGGER words_image_{change}" for change in ("added", "changed", "removed")),
    *(f"DROP TRIGGER words_location_{change}" for change in ("added", "changed", "removed")),
    "DROP TABLE words",
    "DROP TABLE words_due",
)
"""Statements that take from a catalog what versions 6 to 8 added."""
TO_VERSION_2 = (
    *TO_VERSION_5,
    "DROP TABLE decisions",
    "DROP INDEX embeddings_by_seq",
    "ALTER TABLE embeddings DROP COLUMN seq",
    *(
        f"ALTER TABLE spaces DROP COLUMN {name}"
        for name in ("storage", "transform", "added_seq", "complete_seq", "missing", "dropped")
    ),
    "DELETE FROM state WHERE key = 'default_space'",
    "ALTER TABLE locations DROP COLUMN missing_since",
    "ALTER TABLE locations DROP COLUMN removed_phash",
)
"""Statements that take from a catalog what versions 3 to 8 added, but for keys of labels."""


def execute_read_only(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Without moving the WAL: SQLite does that for the last to close a database that it can write to."""
    with contextlib.closing(sqlite3.connect(f"file:{path / 'catalog.sqlite'}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def raises(error: Exception) -> Callable[..., None]:
    """A function that always raises this."""
    return mock.Mock(side_effect=error)


def made_by_version_1(path: Path) -> None:
    execute(
        path,
        *TO_VERSION_2,
        "DROP TABLE labels",
        "DROP INDEX embeddings_by_image",
        "CREATE UNIQUE INDEX embeddings_image ON embeddings (space_id, image_rowid)",
        "DELETE FROM state WHERE key = 'commits'",
        "PRAGMA user_version=1",
    )
    (path / "catalog.sqlite.sums").unlink()


def with_checksums(path: Path) -> None:
    """What an older Lookalike left has checksums too."""
    engine = writing_engine(path / "catalog.sqlite")
    with engine.connect() as connection:
        Catalog.checkpoint_file(connection, path / "catalog.sqlite", wait=1)
    engine.dispose()
    assert checksums.intact(path / "catalog.sqlite")


def structure(path: Path) -> set[tuple[object, ...]]:
    return set(execute(path, "SELECT type, name, tbl_name FROM sqlite_master"))


def test_an_older_catalog_is_brought_up_to_date_when_it_is_opened(make_index: MakeIndex) -> None:
    data = vectors(40)
    index = make_index(data)
    index.close()
    new = structure(index.path)
    made_by_version_1(index.path)
    with Index.open(index.path, writable=True) as opened:
        hits = opened.search(Query(parts=[QueryPart(vector=data[7])], k=40, filter=parse_filter({"label": "odd"})))
        assert {hit.id for hit in hits} == {image_id(number) for number in range(1, 40, 2)}
        with opened.writer() as writer:
            writer.describe(image_id(1), labels=["changed"])
            assert writer.remove([image_id(3)]) == 1
        assert verify(opened).findings == []
    assert structure(index.path) == new
    assert execute(index.path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_a_writer_that_opens_an_older_catalog_needs_no_second_lock(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    index.close()
    made_by_version_1(index.path)
    with (
        write_lock(index.path),
        Index.open(index.path, writable=True) as opened,
        opened.writer() as writer,
        writer.transaction() as transaction,
    ):
        assert transaction.add(new_image(7, vectors(8)[7]))


def test_nothing_is_migrated_under_another_writer(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    index.close()
    made_by_version_1(index.path)
    with another_writer(index.path), pytest.raises(IndexLocked):
        Index.open(index.path)
    assert execute(index.path, "PRAGMA user_version") == [(1,)]


def test_labels_of_version_2_are_found_in_any_case_after_the_migration(make_index: MakeIndex) -> None:
    data = vectors(4)
    index = make_index(data)
    with index.writer() as writer:
        writer.describe(image_id(1), labels=["2024/Africa"])
    index.close()
    new = structure(index.path)
    execute(
        index.path,
        *TO_VERSION_2,
        "CREATE TABLE old (label TEXT NOT NULL, image INTEGER NOT NULL, PRIMARY KEY (label, image)) WITHOUT ROWID",
        "INSERT INTO old SELECT DISTINCT label, image FROM labels",
        "DROP TABLE labels",
        "ALTER TABLE old RENAME TO labels",
        "PRAGMA user_version=2",
    )
    (index.path / "catalog.sqlite.sums").unlink()
    with Index.open(index.path) as opened:
        query = Query(parts=[QueryPart(vector=data[1])], filter=parse_filter({"label": "africa"}))
        assert [hit.id for hit in opened.search(query)] == [image_id(1)]
        assert verify(opened).findings == []
    assert structure(index.path) == new


def test_spaces_of_an_older_catalog_are_complete_and_the_first_is_the_default(tmp_path: Path) -> None:
    spaces = [Space(name=f"layer{layer}", recipe=recipe(layer), encoding=Encoding()) for layer in (2, 1)]
    data = vectors(30)
    with Index.create(tmp_path / "old.index", spaces) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number, vector in enumerate(data):
                transaction.add(new_image(number, vector, spaces=("layer2", "layer1")))
        index.publish()
    made_by_version_1(index.path)
    with Index.open(index.path, writable=True) as opened:
        assert opened.info().generation == "000001"
        assert opened.info().delta == 0
        assert [(info.space.name, info.count, info.space.complete, info.default) for info in opened.info().spaces] == [
            ("layer2", 30, True, True),
            ("layer1", 30, True, False),
        ]
        with opened.writer() as writer:
            writer.add_space(Space(name="layer0", recipe=recipe(0), encoding=Encoding()))
            writer.set_default("layer1")
            writer.drop_space("layer2")
        for name in (None, "layer1"):
            assert opened.search(Query(parts=[QueryPart(vector=data[7])], space=name))[0].id == image_id(7)
        assert verify(opened).findings == []


def old_index(make_index: MakeIndex, data: Any) -> Path:
    """The folder of an index of version 1, with checksums."""
    index = make_index(data)
    index.close()
    made_by_version_1(index.path)
    with_checksums(index.path)
    return index.path


def test_a_migration_that_cannot_note_its_checksums_loses_nothing(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = vectors(40)
    path = old_index(make_index, data)
    with monkeypatch.context() as full:
        full.setattr(checksums, "write_whole", raises(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(StorageFailed, match="disk is full"):
            Index.open(path)
    with Index.open(path, writable=True) as opened:
        assert opened.search(Query(parts=[QueryPart(vector=data[7])]))[0].id == image_id(7)
        assert verify(opened).findings == []


def test_a_migration_that_fails_leaves_what_a_killed_writer_had_written(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = vectors(40)
    path = old_index(make_index, data)
    left = "import sqlite3, os; c = sqlite3.connect('catalog.sqlite'); c.execute('PRAGMA wal_autocheckpoint=0')\n"
    left += "c.execute(\"UPDATE images SET metadata = '{}'\"); c.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", left], cwd=path, check=True)
    with monkeypatch.context() as failing:
        failing.setitem(migrate._STEPS, 2, raises(StorageFailed("The disk is full.", disk_full=True)))
        with pytest.raises(StorageFailed):
            Index.open(path)
    assert execute_read_only(path, "PRAGMA user_version") == [(1,)]
    with Index.open(path, writable=True) as opened:
        assert opened.image(image_id(7)).metadata == {}
        assert verify(opened).findings == []


def test_a_damaged_older_catalog_is_not_changed_by_looking_at_it(make_index: MakeIndex) -> None:
    index = make_index(vectors(40))
    index.close()
    made_by_version_1(index.path)
    with_checksums(index.path)
    catalog = index.path / "catalog.sqlite"
    content = bytearray(catalog.read_bytes())
    content[-100] ^= 1
    catalog.write_bytes(content)
    with pytest.raises(IndexDamaged, match="1 pages"):
        Index.open(index.path, unchecked=True)
    assert catalog.read_bytes() == content


def test_a_catalog_without_a_version_is_damaged(make_index: MakeIndex) -> None:
    index = make_index(vectors(4))
    index.close()
    execute(index.path, "PRAGMA user_version=0")
    (index.path / "catalog.sqlite.sums").unlink()
    with pytest.raises(IndexDamaged, match="version 0"):
        Index.open(index.path)
