"""Promises of the Python client: values that the client returns."""

from __future__ import annotations

import dataclasses
import json
import pickle
import typing
from typing import Any

import lookalike_client
import pytest
from client_kit import CLIENT, FOUND, HIT, ID, OTHER, Recorder, ok
from lookalike_client import (
    Hit,
    Image,
    IndexInfo,
    Part,
    SearchResult,
    SpaceInfo,
)

pytestmark = pytest.mark.usefixtures("kind")


def result_of(*hits: dict[str, Any]) -> SearchResult:
    return Recorder(ok(FOUND | {"hits": [HIT | hit for hit in hits]})).client.search(id=ID)


def test_result_is_a_sequence_that_cannot_be_changed() -> None:
    result = result_of({"id": ID}, {"id": OTHER, "score": 0.5})
    assert [hit.id for hit in result] == [ID, OTHER]
    assert len(result) == 2
    assert result[-1].score == 0.5
    assert result[0] in result
    assert [hit.id for hit in reversed(result)] == [OTHER, ID]
    assert isinstance(result[:1], SearchResult)
    assert [hit.id for hit in result[1:]] == [OTHER]
    assert (result.space, result.took_ms["total"]) == ("layer11", 4.0)
    assert not result_of()
    assert len({*result, *result}) == 2, "hits can be members of a set"
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.space = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result[0].score = 1.0  # type: ignore[misc]
    with pytest.raises(IndexError):
        result[2]


def test_result_prints_as_a_table() -> None:
    result = result_of(
        {},
        {"score": -0.5, "path": "C:\\photos\\a.png", "labels": []},
        {"path": None, "labels": ["x"]},
        {"path": "/p/evil\x1b[2J\n.png", "labels": []},
        {"path": f"/p/{'long' * 40}.png", "labels": []},
    )
    name = "longlonglonglonglonglonglonglonglonglong"[:37] + "..."
    assert repr(result).splitlines() == [
        "SearchResult: 5 hits in layer11",
        f" 0.875  {'zebra.jpg':<40}  2024, cat",
        "-0.500  a.png",
        f" 0.875  {ID[:12]:<40}  x",
        " 0.875  evil?[2J?.png",
        f" 0.875  {name}",
    ]
    assert repr(result_of()) == "SearchResult: 0 hits in layer11"
    assert repr(result_of(*[{}] * 23)).splitlines()[-1] == "... 3 more"


def test_result_goes_back_to_the_servers_json() -> None:
    assert json.loads(json.dumps(result_of({}).to_json())) == FOUND


def test_public_names_are_the_packages_own() -> None:
    for name in lookalike_client.__all__:
        value = getattr(lookalike_client, name)
        if isinstance(value, type):
            assert value.__module__ == "lookalike_client"
    for kind in (Hit, Image, SearchResult, IndexInfo, SpaceInfo, Part):
        assert typing.get_type_hints(kind), "they resolve, as pydantic and others need"
        assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)


def test_the_synchronous_client_is_made_of_the_asynchronous_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CLIENT)
    import generate

    for name in generate.FILES:
        assert (CLIENT / "lookalike_client" / name).read_text(encoding="utf-8") == generate.generated(name)
