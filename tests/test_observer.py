"""Promises about observed recall: it is of the searches that were asked, and measured while nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from conftest import vectors

from api import observer
from api.observer import Observer
from search import publish, snapshot
from search.index import Index
from search.types import Query, QueryPart

MakeIndex = Callable[..., Index]


def query(number: int) -> Query:
    return Query(parts=[QueryPart(vector=vectors(20, seed=1)[number])])


def counted(name: str) -> tuple[float, float]:
    return observer.FOUND.labels(name)._value.get(), observer.TRUE.labels(name)._value.get()


def test_searches_are_run_again_exactly_when_nobody_is_waiting(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(snapshot, "VISITED", 1)
    monkeypatch.setattr(observer, "IDLE", 0.02)
    index = make_index(vectors(2000))
    watching = Observer("watched", index)
    try:
        for number in range(20):
            watching.asked(query(number))
        until = time.monotonic() + 20
        while counted("watched")[1] < 200 and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        watching.close()
    found, true = counted("watched")
    assert true == 200
    assert 180 <= found <= 200
    here = [index.observed(query(number)) for number in range(20)]
    assert (found, true) == (sum(one[0] for one in here if one), sum(one[1] for one in here if one))


def test_what_a_bad_graph_misses_is_counted(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(snapshot, "VISITED", 1)
    index = make_index(vectors(2000))
    walk = snapshot.Graph.search
    monkeypatch.setattr(snapshot.Graph, "search", lambda self, queries, ef: walk(self, -queries, ef))
    found, true = map(sum, zip(*(index.observed(query(number)) or (0, 0) for number in range(20)), strict=True))
    assert true == 200
    assert found < 20


def test_where_everything_is_compared_there_is_nothing_to_observe(make_index: MakeIndex) -> None:
    index = make_index(vectors(50))
    assert index.observed(query(0)) is None
