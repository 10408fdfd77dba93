"""Promises about the catalog's bytes: what the disk has changed or lost is found before anything is answered."""

from __future__ import annotations

import ctypes.util
import json
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
from sqlalchemy import select

from search.catalog.schema import images
from search.errors import IndexDamaged
from search.index import Index
from search.sqlite import checksums, connections, store
from search.types import Query, QueryPart
from search.upkeep.backup import backup
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]
COMPILED = pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="needs a C compiler")


def add(index: Index, number: int) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
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


PATH_AND_TESTS = "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; path = Path(sys.argv[1])\n"


def python(code: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-c", PATH_AND_TESTS + code, *map(str, arguments)]
    return subprocess.run(
        command, check=True, env={**(env or os.environ), "PYTHONPATH": "."}, stdout=-1, text=True
    ).stdout


def preloaded(folder: Path) -> dict[str, str]:
    """As `torture.shim` makes it, which must not be imported here: it sets limits of `search` for small indexes."""
    env: dict[str, str] = json.loads(
        python("import json; from torture.shim import preloaded; print(json.dumps(preloaded(path)))", folder)
    )
    return env


def images_for_others(path: Path) -> int:
    """How many images a process that has just been started finds."""
    return int(python("from search.index import Index; print(Index.open(path).info().images)", path))


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
    sums = checksums.place(index.path / "catalog.sqlite")
    for harm in (Path.unlink, lambda path: flip(path, 60)):
        harm(sums)
        with Index.open(index.path) as opened:
            (finding,) = verify(opened).findings
            assert "lookalike compact" in finding.advice
        run_cli("compact", index.path)
        with Index.open(index.path) as opened:
            assert verify(opened).findings == []
        assert checksums.intact(index.path / "catalog.sqlite")


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

        with (
            mock.patch.object(checksums, "write_whole", killed),
            pytest.raises(KeyboardInterrupt),
            opened.writer(),
        ):
            opened.catalog.checkpoint()
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
    assert index.catalog.checkpoint()  # the log still names the pages; readers read them from the database
    file = index.path / "catalog.sqlite"
    flip(file, file.read_bytes().index(b'"strange"') + 3)
    with pytest.raises(IndexDamaged):
        Index.open(index.path)
    index.close()  # checkpoints again
    with pytest.raises(IndexDamaged):
        Index.open(index.path)


def test_a_new_index_is_not_given_the_log_of_an_old_one(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 3)
    (index.path / "catalog.sqlite").unlink()
    assert make_index(vectors(2), publish=False, fresh=True).info().images == 2


def test_who_may_read_the_catalog_may_read_its_checksums(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    catalog_file = index.path / "catalog.sqlite"
    assert checksums.place(catalog_file).stat().st_mode == catalog_file.stat().st_mode


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
    monkeypatch.setattr(store, "WAL_LIMIT_BYTES", 400_000)
    index = make_index(vectors(20))
    moved = []
    checkpoint = checksums.checkpoint
    monkeypatch.setattr(
        checksums, "checkpoint", lambda *args, **options: moved.append(1) or checkpoint(*args, **options)
    )
    with Index.open(index.path) as reader, reader.catalog.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one()
        for number in range(30, 60):
            add(index, number)
    assert 1 < len(moved) < 20  # of 30
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_the_log_does_not_grow_without_bound(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAL_LIMIT_BYTES", 400_000)
    index = make_index(vectors(20))
    sizes = []
    for number in range(30, 60):
        add(index, number)
        sizes.append(checksums.wal_bytes(index.path / "catalog.sqlite"))
    assert max(sizes) < 600_000
    with Index.open(index.path) as opened:
        assert verify(opened).findings == []


def test_a_disk_that_nobody_can_write_to_can_be_read(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors(20)
    index = make_index(data)
    index.close()
    for left in index.path.glob("catalog.sqlite-*"):
        left.unlink()
    monkeypatch.setattr(connections, "_on_read_only_disk", lambda _: True)
    with Index.open(index.path) as opened:
        hits = opened.search(Query(parts=[QueryPart(vector=data[3])], k=1))
        assert [hit.id for hit in hits] == [image_id(3)]
        assert not list(index.path.glob("catalog.sqlite-*"))  # SQLite would have made them, and failed


@pytest.mark.parametrize(
    "look",
    [
        lambda index: index.catalog.checkpoint(),
        lambda index: index.catalog.check(),
        lambda index: verify(index),
        lambda index: Index.open(index.path, writable=True).close(),
        lambda index: backup(index, index.path.with_name("copy.index")).close(),
    ],
    ids=["checkpoint", "check", "verify", "open and close", "backup"],
)
def test_another_program_that_closes_the_catalog_does_not_take_its_log_away(
    make_index: MakeIndex, look: Callable[[Index], object]
) -> None:
    index = make_index(vectors(20))
    add(index, 30)
    look(index)
    foreign = (
        "import sqlite3; c = sqlite3.connect(path); c.execute('SELECT count(*) FROM images').fetchone(); c.close()"
    )
    python(foreign, index.path / "catalog.sqlite")
    assert (index.path / "catalog.sqlite-wal").exists()
    add(index, 31)
    assert images_for_others(index.path) == 22
    index.close()
    with Index.open(index.path) as opened:
        assert opened.info().images == 22
        assert verify(opened).findings == []


BIG = (
    "import test_pages; from search.index import Index; index = Index.open(path, writable=True)\n"
    "def add():\n"
    " with index.writer() as writer, writer.transaction() as transaction:\n"
    "  for number in range(200, 300): transaction.add(test_pages.new_image(number, test_pages.vectors(300)[number]))\n"
)


@pytest.mark.slow
def test_what_the_disk_lost_of_a_change_in_a_power_cut_is_no_false_alarm(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 1)
    log, sums = index.path / "catalog.sqlite-wal", checksums.place(index.path / "catalog.sqlite")
    whole, known = log.stat().st_size, sums.read_bytes()
    python(BIG + "import os; add(); os._exit(0)", index.path)
    flip(log, whole + 1000)  # the first page of a change that was not acknowledged: all others are there, and its end
    sums.write_bytes(known)
    with Index.open(index.path, writable=True) as opened:
        assert opened.info().images == 21
        add(opened, 50)
    with Index.open(index.path) as opened:
        assert opened.info().images == 22
        assert verify(opened).findings == []


@pytest.mark.slow
@COMPILED
@pytest.mark.parametrize("call_before_last", [1, 2])
def test_a_change_that_fails_at_its_end_is_no_false_alarm(
    make_index: MakeIndex, tmp_path: Path, call_before_last: int
) -> None:
    """All of it is in the log, its end too, and none of it counts."""
    index = make_index(vectors(20))
    index.close()
    copy = index.path.with_name("copy.index")
    shutil.copytree(index.path, copy)
    env = preloaded(tmp_path)
    begin = BIG + (
        "from torture.shim import Fate, Shim; test_pages.add(index, 30)\n"
        "shim = Shim(); shim.start(path, at=int(sys.argv[2]), fate=Fate(5))\n"
    )
    calls = int(python(begin + "add(); print(shim.count)", copy, 0, env=env))
    failing = "try: add()\nexcept Exception as error: print(type(error).__name__)\nshim.stop(); index.close()"
    assert python(begin + failing, index.path, calls - call_before_last, env=env) == "StorageFailed\n"
    with Index.open(index.path, writable=True) as opened:
        assert opened.info().images in (21, 121)
        assert verify(opened).findings == []


@pytest.mark.slow
@COMPILED
def test_what_fails_in_reading_the_original_is_not_said_of_its_copy(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(20))
    index.close()
    killed_while_adding(index.path, 3)  # pages in the log are read one by one
    code = (
        "from search.catalog.catalog import Catalog; from torture.shim import Fate, Shim; shim, at = Shim(), 1\n"
        "while True:\n"
        " with Path(sys.argv[2]).open('wb'): catalog = Catalog.open(path / 'catalog.sqlite')\n"
        " shim.start(path, at=at, fate=Fate(5), reads=True)\n"
        " try: catalog.copy(Path(sys.argv[2])); break\n"
        " except Exception as error: print(type(error).__name__, error)\n"
        " shim.stop(); catalog.close(); at += 1\n"
    )
    printed = python(code, index.path, tmp_path / "copy.sqlite", env=preloaded(tmp_path)).splitlines()
    assert len(printed) > 10
    assert not [line for line in printed if not line.startswith("StorageFailed") or str(index.path) not in line]
    assert not [line for line in printed if "copy.sqlite" in line]


def test_waiting_for_readers_of_the_log_leaves_the_connection_as_it_was(make_index: MakeIndex) -> None:
    connection = connections.FileConnection(make_index(vectors(20)).path / "catalog.sqlite", "rw")
    before = connection.execute("PRAGMA busy_timeout").fetchone()
    assert checksums.checkpoint(connection, Path(connection.execute("PRAGMA database_list").fetchone()[2]), 0, wait=1)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == before
    connection.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux only")
def test_who_closes_last_lets_go_of_the_file(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    code = (
        "from search.index import Index; first, second = Index.open(path), Index.open(path, writable=True)\n"
        "import test_pages; first.info(); test_pages.add(second, 30); first.info(); second.catalog.checkpoint()\n"
        "fds = Path('/proc/self/fd')\n"
        "def held(): return [link.name for link in fds.iterdir() if 'catalog' in str(link.resolve())]\n"
        "second.close(); print(bool(held())); first.close(); print(held())\n"
    )
    assert python(code, index.path) == "True\n[]\n"


@pytest.mark.slow
def test_a_reader_that_compares_pages_while_they_are_moved_sees_no_damage(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    code = (
        "import test_pages; from search.sqlite import store; from search.index import Index\n"
        "store.WAL_LIMIT_BYTES = 50_000\n"
        "index = Index.open(path, writable=True)\n"
        "for number in range(100, 200): test_pages.add(index, number)\n"
        "index.close()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", PATH_AND_TESTS + code, index.path], env={**os.environ, "PYTHONPATH": "."}
    )
    looks = 0
    while writer.poll() is None:
        checksums.check(index.path / "catalog.sqlite")
        looks += 1
    assert writer.returncode == 0
    assert looks > 10


def test_the_page_that_sqlite_never_writes_is_no_false_alarm(make_index: MakeIndex) -> None:
    """The one at 1 GiB, which it locks; here at 464 KiB."""
    library = ctypes.util.find_library("sqlite3")
    if library is None or "libsqlite3" not in Path("/proc/self/maps").read_text():
        pytest.skip("SQLite is not a library of its own here")
    index = make_index(vectors(2), publish=False)
    index.close()
    assert (index.path / "catalog.sqlite").stat().st_size < 29 << 14
    code = f"import ctypes; ctypes.CDLL({library!r}).sqlite3_test_control(11, 29 << 14)\n"
    code += BIG + "add(); index.close(); print(Index.open(path).info().images)"
    assert python(code, index.path) == "102\n"
    assert (index.path / "catalog.sqlite").stat().st_size > 29 << 14


def test_a_read_that_failed_keeps_no_state_of_the_catalog_open(make_index: MakeIndex) -> None:
    """Its connection goes on, and would answer later reads from that state: what was removed since would be found."""
    index = make_index(vectors(50))
    left = []

    def fail() -> None:
        with index.catalog.reading() as connection:
            left.append(connection.execute(select(images.c.rowid)))
            assert left[0].fetchone() is not None  # and the rest is not read: as where the next statement fails
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    with index.writer() as writer:
        writer.remove([image_id(number) for number in range(40)])
    assert index.catalog.counts()[0] == 10
    left.clear()  # as the end of whoever handles the error does
    assert index.catalog.checkpoint(wait=0.5), "somebody reads its log"
