"""Promises of the Python client: many calls of the client at once."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lookalike_client
import pytest
from client_kit import CLIENT, FOUND, ID, IMAGE, Recorder, form_of, ok, problem
from lookalike_client import (
    UnsupportedImage,
)
from PIL import Image

pytestmark = pytest.mark.usefixtures("kind")


def test_many_searches_are_answered_in_order_and_failures_cost_only_themselves() -> None:
    api = Recorder(*[ok(FOUND | {"space": f"s{number}"}) for number in range(2)], problem(415), ok())
    outcomes = list(api.client.search_many([b"0", b"1", b"2", b"3", "/no/such/file"], concurrency=1, k=3))
    assert [outcome.input for outcome in outcomes] == [b"0", b"1", b"2", b"3", "/no/such/file"]
    assert [outcome.result().space for outcome in outcomes[:2]] == ["s0", "s1"]
    assert isinstance(outcomes[2].error, UnsupportedImage)
    with pytest.raises(UnsupportedImage):
        outcomes[2].result()
    assert outcomes[3].error is None
    assert isinstance(outcomes[4].error, FileNotFoundError)
    assert [form_of(request)["k"] for request in api.requests] == [["3"]] * 4


class Damaged(Image.Image):
    """A picture that Pillow has opened, and cannot load."""

    def load(self) -> None:
        """Fail as a file with a broken chunk does."""
        raise SyntaxError("broken PNG file")


def test_a_picture_that_pillow_cannot_load_costs_only_itself() -> None:
    outcomes = list(Recorder(ok()).client.search_many([Damaged(), b"1"], concurrency=1))
    assert isinstance(outcomes[0].error, ValueError)
    assert str(outcomes[0].error) == "Pillow cannot read this image: broken PNG file."
    assert outcomes[1].error is None


def test_no_more_than_so_many_are_under_way_and_inputs_are_read_as_needed() -> None:
    read: list[int] = []

    def inputs() -> Iterator[bytes]:
        for number in range(1000):
            read.append(number)
            yield b"pixels"

    api, told = Recorder(*[ok(IMAGE) for _ in range(1000)]), list[int]()
    adding = api.client.add_many(inputs(), concurrency=2, labels=["x"], progress=told.append)
    for _ in range(5):
        assert next(adding).result().id == ID
    assert len(read) <= 5 + 2 * 2 + 1
    assert told == [1, 2, 3, 4, 5]
    adding.close()
    with pytest.raises(ValueError, match="concurrency"):
        next(api.client.add_many([], concurrency=0))


def test_a_bar_shows_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    api = Recorder(*[ok() for _ in range(3)])
    assert len(list(api.client.search_many([b"pixels"] * 3, progress=True))) == 3
    assert "3/3" in capfd.readouterr().err


def test_without_what_a_bar_or_a_table_needs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Recorder(ok())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        next(iter(api.client.search_many([b"pixels"], progress=True)))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        api.client.search(b"pixels").to_pandas()


def test_one_image_is_not_many(kind: Any) -> None:
    for one in ("query.jpg", b"bytes", Path("query.jpg")):
        with Recorder().client as client:
            for call in (client.search_many, client.add_many):
                with pytest.raises(TypeError, match="several"):
                    next(iter(call(one)))


def test_version_is_told_once() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    assert project["version"] == lookalike_client.__version__
