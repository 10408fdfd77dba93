"""Both clients under one name, and a transport that answers from a list."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import sys
import typing
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import lookalike_client
import pytest
from lookalike_client import (
    Client,
    DeadlineExceeded,
    SpaceInfo,
)

CLIENT = Path(lookalike_client.__file__).parents[1]
DOCS = Path(__file__).parents[1] / "docs" / "client.md"
ID, OTHER = "a" * 64, "b" * 64

HIT: dict[str, Any] = {
    "id": ID,
    "score": 0.875,
    "fmr": 0.00012,
    "probability": 0.94,
    "why": [{"space": "layer11", "score": 0.875, "share": 0.875}],
    "path": "/photos/2024/zebra.jpg",
    "paths": ["/photos/2024/zebra.jpg"],
    "path_count": 1,
    "labels": ["2024", "cat"],
    "metadata": {"price": 12.5},
    "width": 40,
    "height": 30,
    "copies": [],
    "copy_count": 0,
    "box": [20, 0, 20, 15],
    "match": 0.75,
}
FOUND = {"hits": [HIT], "space": "layer11", "took_ms": {"decode": 1, "encode": 2.5, "search": 0.5, "total": 4}}
FACTS = {
    "format": "jpeg",
    "bytes": 99,
    "taken_at": "2024-07-01T10:00:00",
    "camera": "X",
    "gps": [48.2, 16.5],
    "missing": False,
}
IMAGE = {
    key: value
    for key, value in HIT.items()
    if key not in ("score", "fmr", "probability", "copies", "copy_count", "why", "box", "match")
} | FACTS


def add_patiently(client: Client, layers: int | list[int], **options: Any) -> SpaceInfo:
    """Add a space. On a busy machine that takes longer than a request may, and goes on: then it is asked again."""
    for _ in range(5):
        with contextlib.suppress(DeadlineExceeded):
            return client.add_space(layers, **options)
    return client.add_space(layers, **options)


class Nouns:
    """The calls of one noun, waited for."""

    def __init__(self, asynchronous: Any, blocking: Callable[[Any], Any]) -> None:
        self._asynchronous = asynchronous
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        return self._blocking(getattr(self._asynchronous, name))


class Blocking:
    """An AsyncClient whose calls are waited for, so that both clients are held to the same promises."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._asynchronous = lookalike_client.AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        return self._blocking(getattr(self._asynchronous, name))

    def _blocking(self, attribute: Any) -> Any:
        if hasattr(attribute, "_connection"):  # a noun of its own, such as `boards`
            return Nouns(attribute, self._blocking)

        def call(*arguments: Any, **options: Any) -> Any:
            answer = attribute(*arguments, **options)
            return self._each(answer) if hasattr(answer, "__aiter__") else self._runner.run(answer)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_sleep":

            async def sleep(seconds: float) -> None:
                value(seconds)

            self._asynchronous._sleep = sleep
        else:
            super().__setattr__(name, value)

    def __enter__(self) -> Any:
        self._runner.run(self._asynchronous.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._asynchronous.__aexit__(None, None, None))
        self._runner.close()

    def __repr__(self) -> str:
        return repr(self._asynchronous)

    def _each(self, items: Any) -> Iterator[Any]:
        try:
            while True:
                yield self._runner.run(anext(items))
        except StopAsyncIteration:
            return
        finally:
            if hasattr(items, "aclose"):
                self._runner.run(items.aclose())


def run_as(kind: type[Any], module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module's `Client`, and that of `Recorder`, be one of the clients."""
    for one in (sys.modules[__name__], module):
        monkeypatch.setattr(one, "Client", kind, raising=False)


class Recorder:
    """Answers requests from a list, and remembers what was asked and how long the client slept in between."""

    def __init__(self, *answers: httpx.Response | Exception, **options: Any) -> None:
        # A response is good for one request.
        self.answers = [copy.deepcopy(one) if isinstance(one, httpx.Response) else one for one in answers]
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self.client = Client(transport=httpx.MockTransport(self._answer), **options)
        self.client._sleep = self.slept.append

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def request(self) -> httpx.Request:
        (request,) = self.requests
        return request

    @property
    def line(self) -> tuple[str, str]:
        return self.request.method, self.request.url.path

    @property
    def raw(self) -> tuple[str, str]:
        return self.request.method, self.request.url.raw_path.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.request.content)

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.url.params)

    @property
    def form(self) -> dict[str, Any]:
        return form_of(self.request)


def form_of(request: httpx.Request) -> dict[str, Any]:
    """A multipart body's fields as lists of text; `image` as (file name, bytes)."""
    header = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message: Message = BytesParser().parsebytes(header + request.content)
    fields: dict[str, Any] = {}
    for part in typing.cast("list[Message]", message.get_payload()):
        name = str(part.get_param("name", header="content-disposition"))
        data = typing.cast("bytes", part.get_payload(decode=True))
        if name == "image":
            fields[name] = (part.get_filename(), data)
        else:
            fields.setdefault(name, []).append(data.decode())
    return fields


def ok(body: Any = FOUND, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def problem(status: int, code: str = "some-code", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "T", "status": status, "detail": "In words.", "code": code}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **headers})
