"""Promises of a server that is asked to add spaces: others are answered meanwhile, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import HeldEncoder, recipe, vectors

from api.errors import Overloaded
from api.serving import filling
from api.serving.filling import Filling, fill, new_space
from api.serving.service import MAX_ADDED_AT_ONCE, Service
from api.settings import Settings
from indexer.encoders.encoder import SpaceRequest
from indexer.pictures.worker import WorkerFailed, Workers
from search.errors import StorageFailed
from search.index import Index
from search.types import Encoding, Space

NEW = Space(name="layer1", recipe=recipe(1), encoding=Encoding())


@pytest.fixture
def service(make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that decodes nothing, and fills nothing."""
    monkeypatch.setattr(Workers, "start", lambda *_: None)
    monkeypatch.setattr(Filling, "start", lambda _: None)
    one = Service("test", make_index(vectors(3)), HeldEncoder(), Settings())
    yield one
    one.close()


def held_new_space(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until the event is set, no new space is worked out to its end."""
    free = threading.Event()

    def slow(*_: object) -> Space:
        assert free.wait(20)
        return NEW

    monkeypatch.setattr("api.serving.service.new_space", slow)
    return free


def test_the_index_is_read_while_spaces_are_worked_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    free = held_new_space(monkeypatch)

    async def ask() -> None:
        adding = [asyncio.create_task(service.add_space(SpaceRequest(layers=(1,)))) for _ in range(3)]
        await asyncio.sleep(0.05)
        try:
            assert await asyncio.wait_for(service.read(lambda index: index.catalog.counts()[0]), 5) == 3
        finally:
            free.set()
            await asyncio.gather(*adding, return_exceptions=True)

    asyncio.run(ask())


def test_equal_requests_at_once_get_the_same_space(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr("api.serving.service.new_space", lambda *_: NEW)
    service._writer.submit(free.wait, 20)

    async def ask() -> list[str]:
        adding = [
            asyncio.create_task(service.add_space(SpaceRequest(layers=(1,), pooling=pooling)))
            for pooling in (None, "cls")
        ]
        until = time.monotonic() + 10
        while service._writer._work_queue.qsize() < 2 and time.monotonic() < until:
            await asyncio.sleep(0.01)  # both have found no such space
        free.set()
        return [state.info.space.name for state in await asyncio.gather(*adding)]

    assert asyncio.run(ask()) == ["layer1", "layer1"]


def test_a_space_that_takes_longer_than_a_request_may_is_added_all_the_same_and_worked_out_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, calls = threading.Event(), list[object]()

    def slow(*asked: object) -> Space:
        calls.append(asked)
        assert free.wait(20)
        return NEW

    monkeypatch.setattr("api.serving.service.new_space", slow)

    async def ask() -> str:
        try:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(service.add_space(SpaceRequest(layers=(1,))), 0.05)
        finally:
            free.set()
        until = time.monotonic() + 10
        while len(service.index.spaces) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert [space.name for space in service.index.spaces] == ["layer2", "layer1"]
        assert len(calls) == 1
        return (await service.add_space(SpaceRequest(layers=(1,)))).info.space.name

    assert asyncio.run(ask()) == "layer1"


def test_spaces_that_nobody_waits_for_any_more_are_a_bounded_queue(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = held_new_space(monkeypatch)

    async def ask() -> None:
        try:
            for layer in range(MAX_ADDED_AT_ONCE):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(service.add_space(SpaceRequest(layers=(layer,))), 0.02)
            with pytest.raises(Overloaded):
                await asyncio.wait_for(service.add_space(SpaceRequest(layers=(MAX_ADDED_AT_ONCE,))), 5)
            with pytest.raises(TimeoutError):  # what waits already is waited for
                await asyncio.wait_for(service.add_space(SpaceRequest(layers=(0,))), 0.02)
        finally:
            free.set()
        assert (await service.add_space(SpaceRequest(layers=(0,)))).info.space.name == "layer1"
        until = time.monotonic() + 10
        while service._adding and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert (await service.add_space(SpaceRequest(layers=(MAX_ADDED_AT_ONCE,)))).info.space.name == "layer1"

    asyncio.run(ask())


def test_a_filling_that_was_closed_starts_nothing(tmp_path: Path) -> None:
    one = Filling(tmp_path / "none.index", "text")
    one.close()
    one.start()
    try:
        assert not one.running
    finally:
        one.close()


@pytest.mark.slow
def test_a_filling_that_is_asked_for_while_one_runs_comes_after_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The one that runs may have looked at the spaces for the last time."""
    one, said = Filling(tmp_path / "none.index", "text"), ""
    for _ in range(3):
        one.start()
    until = time.monotonic() + 60
    while said.count("are not filled") < 2 or one.running:
        assert time.monotonic() < until
        time.sleep(0.05)
        said += capfd.readouterr().err
    one.close()
    assert said.count("are not filled") == 2, "all that asked meanwhile get one"


@pytest.mark.slow
def test_a_filling_that_is_closed_does_not_begin_again(tmp_path: Path) -> None:
    one = Filling(tmp_path / "none.index", "text")
    one.start()
    one.start()
    one.close()
    assert not one.running
    assert not [thread for thread in threading.enumerate() if thread.name == "lookalike-fill"]


def test_a_filling_that_is_stopped_publishes_nothing(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, published = make_index(vectors(3)), list[str]()
    monkeypatch.setattr(index, "publish", lambda: published.append("now"))
    assert fill(index, lambda: True).interrupted
    assert published == []
    assert not fill(index, lambda: False).interrupted
    assert published == ["now"]


def test_a_filling_that_fails_says_so_in_one_line_of_the_servers_log(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filling, "_step_back", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(filling, "fill", Mock(side_effect=StorageFailed("The disk is full.", disk_full=True)))
    index = make_index(vectors(3))
    filling.fill_index(index.path, os.getppid(), "json")
    told = json.loads(capsys.readouterr().err)
    assert (told["level"], told["logger"]) == ("ERROR", "lookalike")
    assert told["message"] == f"the spaces of {index.path} are not filled: The disk is full."


def test_a_process_that_ends_while_it_looks_a_model_up_is_no_defect(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Ended:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, *_: object) -> Future[Space]:
            future: Future[Space] = Future()
            future.set_exception(BrokenProcessPool("ended"))
            return future

    monkeypatch.setattr(filling, "ProcessPoolExecutor", Ended)
    with pytest.raises(WorkerFailed, match="ended before it answered"):
        new_space(make_index(vectors(3)).catalog.spaces(), SpaceRequest(layers=(1,), pooling=None))
