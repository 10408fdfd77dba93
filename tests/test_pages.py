"""Promises about the catalog's bytes: what the disk has changed or lost is found before anything is answered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from conftest import image_id, new_image, run_cli, vectors

from search import catalog, pages, schema
from search.errors import IndexDamaged
from search.index import Index
from search.types import Query, QueryPart
from search.verify import verify

MakeIndex = Callable[..., Index]


def add(index: Index, number: int) -> None:
    with index.lock(), index.writing() as transaction:
        transaction.add(new_image(number, vectors(number + 1)[number]))


def killed_while_adding(path: Path, count: int) -> None:
    """A writer that acknowledged `count` more images, and then was killed: they are in the log."""
    in_a_process_of_its_own(path, count, "os._exit(0)")


def in_a_process_of_its_own(path: Path, count: int, ending: str) -> None:
    code = (
        "import sys, os; from pathlib import Path; sys.path.insert(0, 'tests'); import test_pages; "
        "from search.index import Index; index = Index.open(Path(sys.argv[1]), writable=True)\n"
        "for number in range(100, 100 + int(sys.argv[2])): test_pages.add(index, number)\n" + ending
    )
    subprocess.run([sys.executable, "-c", code, path, str(count)], check=True, env={**os.environ, "PYTHONPATH": "."})


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_a_changed_byte_anywhere_is_found_before_anything_is_answered(make_index: MakeIndex) -> None:
    index = make_index(vectors(200))
    index.close()
    file = index.path / "catalog.sqlite"
    whole = file.read_bytes()
    place = whole.index(b'"odd"')  # the label of an image: nothing else would notice
    flip(file, place)
    with pytest.raises(IndexDamaged, match=r"1 pages of the catalog .* Restore the index from a backup"):
        Index.open(index.path)
    run_cli("info", index.path, check=65)
    with Index.open(index.path, unchecked=True) as opened:
        assert any("not what was written" in finding.problem for finding in verify(opened).findings)
    file.write_bytes(whole)
    for length in (len(whole) - 100, len(whole) // 2):
        os.truncate(file, length)
        with pytest.raises(IndexDamaged):
            Index.open(index.path)
        file.write_bytes(whole)
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


@pytest.mark.parametrize(
    "harm", [lambda log: log.unlink(), lambda log: os.truncate(log, 20_000), lambda log: flip(log, 9_000)]
)
def test_a_damaged_log_is_not_taken_for_a_shorter_one(make_index: MakeIndex, harm: Callable[[Path], None]) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 3)
    copy = index.path.with_name("copy.index")
    shutil.copytree(index.path, copy, ignore=shutil.ignore_patterns("*-shm"))
    with Index.open(index.path) as opened:
        assert opened.info().images == 23
    harm(copy / "catalog.sqlite-wal")
    with pytest.raises(IndexDamaged, match=r"lacks the last \d+ changes"):
        Index.open(copy)


def test_an_index_without_checksums_opens_and_gets_them_again(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    sums = pages.place(index.path / "catalog.sqlite")
    for harm in (Path.unlink, lambda path: flip(path, 60)):
        harm(sums)
        with Index.open(index.path) as opened:
            (finding,) = verify(opened).findings
            assert "lookalike compact" in finding.advice
        run_cli("compact", index.path)
        with Index.open(index.path) as opened:
            assert verify(opened).findings == []
        assert pages.intact(index.path / "catalog.sqlite")


def test_pages_moved_by_a_writer_that_was_killed_are_no_false_alarm(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 3)
    with Index.open(index.path, writable=True) as opened:
        written = []

        def killed(path: Path, data: bytes, *, durable: bool) -> None:
            written.append(path)
            if len(written) == 2:  # the pages are moved, and their sums not yet noted
                raise KeyboardInterrupt
            path.write_bytes(data)

        with mock.patch.object(pages, "write_whole", killed), pytest.raises(KeyboardInterrupt), opened.lock():
            opened.catalog.settle()
        with Index.open(index.path) as other:
            assert other.info().images == 23
        add(opened, 50)  # the log begins anew
        with Index.open(index.path) as other:
            assert other.info().images == 24
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_the_last_to_close_does_not_move_what_another_left_in_the_log(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    add(index, 30)
    killed_while_adding(index.path, 3)
    index.close()
    with Index.open(index.path) as opened:
        assert opened.info().images == 24


def test_a_program_that_ends_without_closing_leaves_no_false_alarm(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    in_a_process_of_its_own(index.path, 5, "")
    with Index.open(index.path) as opened:
        assert opened.info().images == 25
        assert verify(opened).findings == []


def test_damage_under_a_log_that_was_moved_is_found_and_not_noted_as_right(make_index: MakeIndex) -> None:
    index = make_index(vectors(60))
    assert index.catalog.settle()  # the log still names the pages; readers read them from the database
    file = index.path / "catalog.sqlite"
    flip(file, file.read_bytes().index(b'"strange"') + 3)
    with pytest.raises(IndexDamaged):
        Index.open(index.path)
    index.close()  # settles again
    with pytest.raises(IndexDamaged):
        Index.open(index.path)


def test_a_new_index_is_not_given_the_log_of_an_old_one(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 3)
    (index.path / "catalog.sqlite").unlink()
    assert make_index(vectors(2), publish=False).info().images == 2


def test_who_may_read_the_catalog_may_read_its_checksums(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    catalog_file = index.path / "catalog.sqlite"
    assert pages.place(catalog_file).stat().st_mode == catalog_file.stat().st_mode


def test_a_reader_does_not_keep_a_writer_from_closing(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    with Index.open(index.path) as reader, reader.catalog.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one()
        writer = Index.open(index.path, writable=True)
        add(writer, 50)
        connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one()
        began = time.monotonic()
        writer.close()
        assert time.monotonic() - began < 5
    with Index.open(index.path) as opened:
        assert opened.info().images == 21


def test_while_a_reader_holds_the_log_it_is_not_moved_at_every_commit(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "LOG_BYTES", 100_000)
    index = make_index(vectors(20))
    settled = []
    settle = pages.settle
    monkeypatch.setattr(pages, "settle", lambda *args, **options: settled.append(1) or settle(*args, **options))
    with Index.open(index.path) as reader, reader.catalog.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one()
        for number in range(30, 60):
            add(index, number)
    assert 1 < len(settled) < 20  # of 30
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_the_log_does_not_grow_without_bound(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "LOG_BYTES", 100_000)
    index = make_index(vectors(20))
    sizes = []
    for number in range(30, 60):
        add(index, number)
        sizes.append(pages.log_bytes(index.path / "catalog.sqlite"))
    assert max(sizes) < 250_000
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_a_disk_that_nobody_can_write_to_can_be_read(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors(20)
    index = make_index(data)
    index.close()
    for left in index.path.glob("catalog.sqlite-*"):
        left.unlink()
    monkeypatch.setattr(schema, "_on_read_only_disk", lambda _: True)
    with Index.open(index.path) as opened:
        hits = opened.search(Query(parts=[QueryPart(vector=data[3])], k=1))
        assert [hit.id for hit in hits] == [image_id(3)]
        assert not list(index.path.glob("catalog.sqlite-*"))  # SQLite would have made them, and failed
