"""Promises of what a server does while nobody waits: it measures recall in truth, and keeps its index published."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, another_writer, image_id, new_image, vectors

from api.serving import activity, observer
from api.serving.observer import Observer
from api.serving.publishing import publish_patiently
from api.serving.service import Service
from api.serving.timing import Timing
from api.settings import Settings
from search.catalog import spaces
from search.catalog.catalog import Catalog
from search.errors import SearchError
from search.generations import ann
from search.generations.hashed_file import HashedFile
from search.generations.policy import Policy
from search.index import Index
from search.query.parts import MAX_PARTS
from search.types import Query, QueryPart
from search.writer import Writer

MakeIndex = Callable[..., Index]
MakeService = Callable[[Index], Service]


@pytest.fixture
def serve() -> Iterator[MakeService]:
    """Makes services of indexes, and closes them again."""
    services: list[Service] = []

    def make(index: Index) -> Service:
        services.append(Service("pictures", index, FakeEncoder(), Settings()))
        return services[-1]

    yield make
    for service in services:
        service.close()


def until(reached: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    last = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < last
        time.sleep(0.01)


GRAPHS = Policy(exact_search_bytes=10_000, visited_per_candidate=1)
"""Graphs from a hundred images on."""
EAGER = Policy(min_delta_images=10)
"""Indexes that want to be published from ten images on."""


def query(number: int) -> Query:
    return Query(parts=[QueryPart(vector=vectors(20, seed=1)[number])])


def counted(name: str) -> tuple[float, float]:
    return observer.FOUND.labels(name)._value.get(), observer.TRUE.labels(name)._value.get()


@pytest.mark.slow
def test_searches_are_run_again_exactly_when_nobody_is_waiting(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "IDLE", 0.02)
    index = make_index(vectors(2000), policy=GRAPHS)
    watching = Observer("watched", index)
    try:
        for number in range(20):
            watching.asked(query(number))
        until(lambda: counted("watched")[1] >= 200)
    finally:
        watching.close()
    found, true = counted("watched")
    assert true == 200
    assert 180 <= found <= 200
    here = [index.observed(query(number)) for number in range(20)]
    assert (found, true) == (sum(one[0] for one in here if one), sum(one[1] for one in here if one))


@pytest.mark.slow
def test_what_a_bad_graph_misses_is_counted(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(vectors(2000), policy=GRAPHS)
    walk = ann.Graph.search
    monkeypatch.setattr(ann.Graph, "search", lambda self, queries, *rest: walk(self, -queries, *rest))
    found, true = map(sum, zip(*(index.observed(query(number)) or (0, 0) for number in range(20)), strict=True))
    assert true == 200
    assert found < 20


def test_where_everything_is_compared_there_is_nothing_to_observe(make_index: MakeIndex) -> None:
    index = make_index(vectors(50))
    assert index.observed(query(0)) is None


@pytest.mark.parametrize("part", [QueryPart(vector=np.ones(100_000, np.float32)), QueryPart(id=image_id(99))])
def test_a_search_that_is_refused_is_not_remembered(
    make_index: MakeIndex, serve: MakeService, monkeypatch: pytest.MonkeyPatch, part: QueryPart
) -> None:
    monkeypatch.setattr(observer, "IDLE", 60)
    service = serve(make_index(vectors(20)))
    with pytest.raises(SearchError):
        asyncio.run(service.search(Query(parts=[part]), Timing()))
    assert not service._observer._queries
    asyncio.run(service.search(query(0), Timing()))
    assert len(service._observer._queries) == 1


def test_what_is_remembered_of_searches_takes_a_few_megabytes(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "IDLE", 60)
    watching = Observer("forgetful", make_index(vectors(20)))
    asked = []
    for _ in range(300):
        parts = [QueryPart(vector=np.ones(384, np.float32)) for _ in range(MAX_PARTS)]
        asked += [weakref.ref(part.vector) for part in parts]
        watching.asked(Query(parts=parts))
    assert 1 << 20 < sum(vector.nbytes for one in asked if (vector := one()) is not None) < 4 << 20
    watching.close()


@pytest.mark.slow
def test_a_search_that_cannot_be_run_again_is_told_and_the_next_one_is(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observer, "IDLE", 0.02)
    walk, walks = ann.Graph.search, iter([MemoryError("no room"), RuntimeError("FAISS")])

    def failing(*arguments: Any) -> Any:
        for failure in walks:
            raise failure
        return walk(*arguments)

    index = make_index(vectors(2000), policy=GRAPHS)
    monkeypatch.setattr(ann.Graph, "search", failing)
    watching = Observer("failing", index)
    try:
        for number in range(3):
            watching.asked(query(number))
        until(lambda: counted("failing")[1])
    finally:
        watching.close()
    assert counted("failing")[1] == 10
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [MemoryError, RuntimeError]


@pytest.mark.slow
def test_searches_are_run_again_only_while_no_index_of_the_process_is_busy(
    make_index: MakeIndex, serve: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "IDLE", 0.02)
    other = serve(make_index(vectors(20), name="other.index"))
    done = threading.Event()
    writing = threading.Thread(target=lambda: asyncio.run(other.write(lambda _: done.wait(20))))
    watching = Observer("patient", make_index(vectors(2000), policy=GRAPHS))
    try:
        writing.start()
        until(lambda: not activity.HERE.idle())
        watching.asked(query(0))
        time.sleep(0.3)
        assert counted("patient")[1] == 0
        done.set()
        until(lambda: counted("patient")[1] == 10)
    finally:
        done.set()
        writing.join()
        watching.close()


def damage(index: Index) -> None:
    (index.path / "generations" / "000001" / "layer2.rowids").write_bytes(b"nothing of the kind")


def told(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_a_server_makes_a_damaged_generation_anew_and_says_so(
    make_index: MakeIndex, serve: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_index(vectors(50))
    damage(made)
    with Index.open(made.path, writable=True) as index:
        assert index.info().generation is None
        serve(index)
        until(lambda: index.info().generation == "000002")
        assert index.info().delta == 0
    assert told(caplog, "The generation 000001") == 1


@pytest.mark.slow
def test_a_damaged_generation_that_cannot_be_made_anew_costs_no_answer(
    make_index: MakeIndex, serve: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_index(vectors(50))
    damage(made)
    with another_writer(made.path), Index.open(made.path, writable=True) as index:
        service = serve(index)
        until(lambda: told(caplog, "Another process is writing"))
        assert len(asyncio.run(service.search(query(0), Timing()))) == 10
    with Index.open(made.path) as index:
        service = serve(index)
        until(lambda: told(caplog, "reading only"))
        assert len(asyncio.run(service.search(query(0), Timing()))) == 10
    assert [path.name for path in made.generations.iterdir() if path.is_dir()] == ["000001"]


def test_a_server_publishes_nothing_where_nothing_is_to_be_mended(make_index: MakeIndex, serve: MakeService) -> None:
    service = serve(make_index(vectors(50)))
    asyncio.run(service.write(lambda index: None))
    assert service._publishing is None


class Clock(threading.Event):
    """An event that notes how long it is waited for, and lets no time pass."""

    def __init__(self, then: Callable[[int], object]) -> None:
        """then: called at each wait with the number of those before; whether the event is set."""
        super().__init__()
        self.waits: list[float | None] = []
        self._then = then

    def wait(self, timeout: float | None = None) -> bool:
        """At once."""
        self.waits.append(timeout)
        return bool(self._then(len(self.waits) - 1))


class FullDisk:
    """Takes no generation until there is room; `tried` counts those begun."""

    def __init__(self) -> None:
        self.tried = 0
        self.room = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """A full disk."""
    disk, write = FullDisk(), HashedFile.write

    def checked(self: HashedFile, block: bytes) -> int:
        if disk.room:
            return write(self, block)
        disk.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HashedFile, "write", checked)
    return disk


def test_after_a_failure_to_publish_a_server_waits_longer_and_longer(
    make_index: MakeIndex, disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(lambda number: number == 8)
    publish_patiently(make_index(vectors(50), publish=False, policy=EAGER), clock)
    assert clock.waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert disk.tried == 9
    assert told(caplog, "The disk is full.") == 1


def test_what_could_not_be_published_is_once_there_is_room(make_index: MakeIndex, disk: FullDisk) -> None:
    index = make_index(vectors(50), publish=False, policy=EAGER)
    publish_patiently(index, Clock(lambda _: setattr(disk, "room", True)))
    assert index.info().generation == "000001"


def test_whatever_keeps_a_server_from_telling_the_damage_it_is_mended(
    make_index: MakeIndex, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, failures = make_index(vectors(50), publish=False, policy=EAGER), [MemoryError("no room")]
    disk.room = True
    refresh = Index.refresh
    monkeypatch.setattr(Index, "refresh", lambda self: refresh(self) if not failures else _raise(failures.pop()))
    publish_patiently(index, Clock(lambda _: True))
    assert index.info().generation == "000001"


def _raise(error: Exception) -> None:
    raise error


def test_what_comes_while_a_server_publishes_is_no_failure(
    make_index: MakeIndex, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is filled as fast as it can goes on publishing, rather than pause longer and longer."""
    index, publications = make_index(vectors(50), publish=False, policy=EAGER), []
    disk.room = True
    published = Index.publish

    def filled(self: Index, **arguments: Any) -> str:
        publications.append(published(self, **arguments))
        if len(publications) < 4:
            with index.writer() as writer, writer.transaction() as transaction:
                for number in range(20):
                    number += 50 + 20 * len(publications)
                    transaction.add(new_image(number, vectors(1, seed=number)[0]))
        return publications[-1]

    monkeypatch.setattr(Index, "publish", filled)
    clock = Clock(lambda _: False)
    publish_patiently(index, clock)
    assert publications == ["000001", "000002", "000003", "000004"]
    assert all(wait is not None and wait <= 1 for wait in clock.waits)


def test_writes_after_a_failure_to_publish_start_no_other(
    make_index: MakeIndex, serve: MakeService, disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    service = serve(make_index(vectors(50), publish=False, policy=EAGER))
    until(lambda: told(caplog, "The disk is full."))

    def add(number: int) -> Callable[[Writer], None]:
        def added(writer: Writer) -> None:
            with writer.transaction() as transaction:
                transaction.add(new_image(number, vectors(1, seed=number)[0]))

        return added

    for number in range(50, 55):
        asyncio.run(service.write(add(number)))
    assert service._publishing is not None
    assert not service._publishing.done()
    assert disk.tried == 1


def test_a_server_that_stops_gives_up_a_publication(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "VECTOR_CHUNK", 1)
    index = make_index(vectors(50), publish=False, policy=EAGER)
    blocks, reached = Catalog.all_vectors, threading.Event()

    def slowly(*arguments: Any, **options: Any) -> Iterator[Any]:
        for block in blocks(*arguments, **options):
            reached.set()
            time.sleep(0.5)
            yield block

    monkeypatch.setattr(Catalog, "all_vectors", slowly)
    service = Service("pictures", index, FakeEncoder(), Settings())
    assert reached.wait(20)
    began = time.monotonic()
    service.close()
    assert time.monotonic() - began < 10
    with Index.open(index.path) as again:
        assert again.info().generation is None
