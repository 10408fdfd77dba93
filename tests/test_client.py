"""The Python client: what it sends and makes of answers, with no server; then its contract, against real ones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import tomllib
import typing
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import lookalike_client
import numpy as np
import pytest
from conftest import Server
from lookalike_client import (
    APIError,
    BadRequest,
    Client,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    DiskFull,
    Forbidden,
    Hit,
    Image,
    IndexInfo,
    LookalikeError,
    NotFound,
    Overloaded,
    Part,
    ProtocolError,
    SearchResult,
    ServerError,
    SpaceInfo,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedImage,
)
from lookalike_client._many import run_many_async
from PIL import Image as Pillow

CLIENT = Path(lookalike_client.__file__).parents[1]
DOCS = Path(__file__).parents[1] / "docs" / "client.md"
ID, OTHER = "a" * 64, "b" * 64

HIT: dict[str, Any] = {
    "id": ID,
    "score": 0.875,
    "path": "/photos/2024/zebra.jpg",
    "paths": ["/photos/2024/zebra.jpg"],
    "path_count": 1,
    "labels": ["2024", "cat"],
    "metadata": {"price": 12.5},
    "width": 40,
    "height": 30,
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
IMAGE = {key: value for key, value in HIT.items() if key != "score"} | FACTS


class Blocking:
    """An AsyncClient whose calls are waited for, so that both clients are held to the same promises."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._asynchronous = lookalike_client.AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._asynchronous, name)

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


@pytest.fixture(params=[Client, Blocking], autouse=True, ids=["sync", "async"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both clients, by the same name."""
    monkeypatch.setattr(sys.modules[__name__], "Client", request.param)
    return request.param


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


# What each call sends, and what it makes of the answer


def test_who_stops_iterating_leaves_no_task_behind() -> None:
    async def asked() -> None:
        began, ended = [], []

        async def call(number: int) -> int:
            began.append(number)
            try:
                await asyncio.sleep(30 if number else 0)
            finally:
                await asyncio.sleep(0)  # as connections do, to be closed
                ended.append(number)
            return number

        outcomes: Any = run_many_async(call, range(10), 3, False)
        async for _ in outcomes:
            break
        await outcomes.aclose()
        assert len(began) > 1
        assert sorted(ended) == sorted(began)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(asked())


def test_search_by_image_is_a_form() -> None:
    api = Recorder(ok())
    result = api.client.search(
        b"pixels",
        k=np.int64(5),  # type: ignore[arg-type]
        offset=2,
        min_score=0.5,
        filter={"label": "café"},
        space="s",
        index="i",
        box=(1, 2.5, 30, 4000000),
    )
    assert api.line == ("POST", "/v1/search/image")
    assert api.form == {
        "image": ("image", b"pixels"),
        "k": ["5"],
        "offset": ["2"],
        "min_score": ["0.5"],
        "filter": ['{"label": "café"}'],
        "space": ["s"],
        "index": ["i"],
        "box": ["1,2.5,30,4000000"],
    }
    assert result[0] == Hit(
        id=ID,
        score=0.875,
        path="/photos/2024/zebra.jpg",
        paths=("/photos/2024/zebra.jpg",),
        path_count=1,
        labels=("2024", "cat"),
        metadata={"price": 12.5},
        width=40,
        height=30,
    )


def test_what_is_not_given_is_not_sent() -> None:
    api = Recorder(ok())
    api.client.search(b"pixels")
    assert api.form.keys() == {"image", "k", "offset"}
    api = Recorder(ok())
    api.client.search(id=ID)
    assert api.json == {"parts": [{"id": ID, "weight": 1.0}], "k": 10, "offset": 0}


def test_weighted_parts_are_json() -> None:
    api = Recorder(ok())
    parts = [
        Part(image=b"pixels", weight=2, box=(1, 2, 3, 4)),
        Part(id=ID, weight=-0.5),
        Part(vector=np.array([1, 0], np.float32)),  # type: ignore[arg-type]
    ]
    api.client.search(parts=parts, k=3, min_score=-1, filter={"width": {"gte": 9}}, space="s", index="i")
    assert api.line == ("POST", "/v1/search")
    assert api.json == {
        "parts": [
            {"image": base64.b64encode(b"pixels").decode(), "weight": 2.0, "box": [1.0, 2.0, 3.0, 4.0]},
            {"id": ID, "weight": -0.5},
            {"vector": [1.0, 0.0], "weight": 1.0},
        ],
        "k": 3,
        "offset": 0,
        "min_score": -1.0,
        "filter": {"width": {"gte": 9}},
        "space": "s",
        "index": "i",
    }


def test_search_by_vector_is_json() -> None:
    api = Recorder(ok())
    api.client.search(vector=[0.6, 0.8])
    assert api.json["parts"] == [{"vector": [0.6, 0.8], "weight": 1.0}]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"image": b"x", "id": ID},
        {"id": ID, "vector": [1.0]},
        {"vector": [1.0], "parts": [Part(id=ID)]},
        {"id": ID, "box": (0, 0, 1, 1)},
        {"parts": [{"id": ID}]},
    ],
)
def test_search_takes_exactly_one_thing(arguments: dict[str, Any]) -> None:
    api = Recorder()
    with pytest.raises(TypeError):
        api.client.search(**arguments)
    assert not api.requests


def test_part_has_exactly_one_thing() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Part()
    with pytest.raises(ValueError, match="exactly one"):
        Part(id=ID, image=b"x")
    with pytest.raises(ValueError, match="box"):
        Part(id=ID, box=(0, 0, 1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Part(id=ID).weight = 2  # type: ignore[misc]


def test_similar_is_a_get() -> None:
    api = Recorder(ok())
    api.client.similar(ID, k=3, offset=1, min_score=0.25, filter={"label": "a&b"}, space="s", index="i")
    assert api.line == ("GET", f"/v1/images/{ID}/similar")
    assert api.query == {
        "k": "3",
        "offset": "1",
        "min_score": "0.25",
        "filter": '{"label": "a&b"}',
        "space": "s",
        "index": "i",
    }


def test_add_is_a_form() -> None:
    api = Recorder(ok(IMAGE, 201))
    image = api.client.add(b"pixels", labels=["cat", "ümlaut"], metadata={"n": [1]}, index="i", name="zebra.jpg")
    assert api.line == ("POST", "/v1/images")
    assert api.form == {
        "image": ("zebra.jpg", b"pixels"),
        "labels": ["cat", "ümlaut"],
        "metadata": ['{"n": [1]}'],
        "index": ["i"],
    }
    assert image.gps == (48.2, 16.5)
    assert (image.bytes, image.format, image.labels) == (99, "jpeg", ("2024", "cat"))


def test_add_sends_no_file_name_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "private.jpg"
    path.write_bytes(b"pixels")
    api = Recorder(ok(IMAGE, 201))
    api.client.add(path)
    assert api.form == {"image": ("image", b"pixels")}


def test_labels_are_not_one_text() -> None:
    api = Recorder()
    with pytest.raises(TypeError, match="labels"):
        api.client.add(b"pixels", labels="cat")
    with pytest.raises(TypeError, match="labels"):
        api.client.update(ID, labels="cat")


def test_get_reads_an_image() -> None:
    api = Recorder(ok(IMAGE | {"path": None, "paths": [], "gps": None, "camera": None, "taken_at": None}))
    image = api.client.get(ID, index="i")
    assert api.line == ("GET", f"/v1/images/{ID}")
    assert api.query == {"index": "i"}
    assert (image.path, image.paths, image.gps, image.camera, image.taken_at) == (None, (), None, None, None)


def test_update_sends_only_what_changes() -> None:
    api = Recorder(ok(IMAGE))
    api.client.update(ID, metadata={"price": 9, "old": None}, index="i")
    assert api.line == ("PATCH", f"/v1/images/{ID}")
    assert api.json == {"metadata": {"price": 9, "old": None}}
    assert api.query == {"index": "i"}
    api = Recorder(ok(IMAGE))
    api.client.update(ID, labels=[])
    assert api.json == {"labels": []}


def test_delete_says_nothing() -> None:
    api = Recorder(httpx.Response(204))
    assert api.client.delete(ID, index="i") is None  # type: ignore[func-returns-value]
    assert api.line == ("DELETE", f"/v1/images/{ID}")
    assert api.query == {"index": "i"}


def test_images_reads_page_after_page() -> None:
    pages = [
        {"images": [IMAGE, IMAGE | {"id": OTHER}], "next_cursor": "7"},
        {"images": [], "next_cursor": "9"},
        {"images": [IMAGE | {"id": "c" * 64}], "next_cursor": None},
    ]
    api = Recorder(*map(ok, pages))
    iterator = api.client.images(page_size=2, index="i")
    assert next(iterator).id == ID
    assert len(api.requests) == 1, "a page is read when it is needed"
    assert [image.id[0] for image in iterator] == ["b", "c"]
    assert [dict(request.url.params) for request in api.requests] == [
        {"limit": "2", "index": "i"},
        {"cursor": "7", "limit": "2", "index": "i"},
        {"cursor": "9", "limit": "2", "index": "i"},
    ]


def test_embed_keeps_the_order() -> None:
    data = [{"index": 1, "embedding": [0, 1.0]}, {"index": 0, "embedding": [1, 0.0]}]
    api = Recorder(ok({"data": data, "model": "m"}))
    assert api.client.embed([b"one", b"two"], space="s", index="i") == [[1.0, 0.0], [0.0, 1.0]]
    assert api.line == ("POST", "/v1/embed")
    texts = [base64.b64encode(image).decode() for image in (b"one", b"two")]
    assert api.json == {"input": texts, "space": "s", "index": "i"}


@pytest.mark.parametrize("kind", ["bytes", "file", "array", "pillow"])
def test_embed_of_one_image_is_a_list_of_one(kind: str) -> None:
    api = Recorder(ok({"data": [{"index": 0, "embedding": [1.0]}], "model": "m"}))
    array = np.zeros((4, 5, 3), np.uint8)
    images: dict[str, Any] = {
        "bytes": b"one",
        "file": io.BytesIO(b"one"),
        "array": array,
        "pillow": Pillow.fromarray(array),
    }
    assert api.client.embed(images[kind]) == [[1.0]]
    assert len(api.json["input"]) == 1


@pytest.mark.parametrize("numbers", [[0], [0, 0], [0, 2], [0, 1, 2]])
def test_embed_refuses_misnumbered_answers(numbers: list[int]) -> None:
    api = Recorder(ok({"data": [{"index": number, "embedding": [1.0]} for number in numbers], "model": "m"}))
    with pytest.raises(ProtocolError):
        api.client.embed([b"one", b"two"])


FAR: dict[str, Any] = {"count": 2, "images": 3, "complete": False, "filling": True, "default": True}


def test_indexes_are_described() -> None:
    space = {"name": "layer11", "dim": 192, **FAR, "recipe": {"model": "m"}}
    api = Recorder(ok({"indexes": [{"name": "photos", "count": 3, "generation": None, "spaces": [space]}]}))
    assert api.client.indexes() == [
        IndexInfo(
            name="photos",
            count=3,
            generation=None,
            spaces=(SpaceInfo(name="layer11", dim=192, **FAR, recipe={"model": "m"}),),
        )
    ]
    assert api.line == ("GET", "/v1/indexes")


def test_spaces_are_listed_added_made_the_default_and_dropped() -> None:
    space = {"name": "layer7+11-mean", "dim": 192, **FAR, "recipe": {"model": "m"}}
    read = SpaceInfo(name="layer7+11-mean", dim=192, **FAR, recipe={"model": "m"})
    api = Recorder(ok({"spaces": [space]}))
    assert api.client.spaces("my photos") == [read]
    assert api.raw == ("GET", "/v1/indexes/my%20photos/spaces")
    api = Recorder(ok(space))
    assert api.client.add_space((7, 11), pooling="mean", index="photos") == read
    assert (api.raw, api.json) == (("POST", "/v1/indexes/photos/spaces"), {"layers": [7, 11], "pooling": "mean"})
    api = Recorder(ok(space))
    assert api.client.set_default_space(read.name, index="photos") == read
    assert api.raw == ("PATCH", "/v1/indexes/photos/spaces/layer7%2B11-mean")
    assert api.json == {"default": True, "force": False}
    api = Recorder(httpx.Response(204))
    api.client.drop_space(read.name, index="photos")
    assert api.raw == ("DELETE", "/v1/indexes/photos/spaces/layer7%2B11-mean")


def test_spaces_of_no_named_index_are_those_of_the_first() -> None:
    served = {"indexes": [{"name": "photos", "count": 3, "generation": None, "spaces": []}]}
    api = Recorder(ok(served), ok({"spaces": []}))
    assert api.client.spaces() == []
    assert [one.url.path for one in api.requests] == ["/v1/indexes", "/v1/indexes/photos/spaces"]


def test_pictures_are_bytes() -> None:
    jpeg = httpx.Response(200, content=b"\xff\xd8", headers={"content-type": "image/jpeg"})
    api = Recorder(jpeg)
    assert api.client.thumbnail(ID, size=64, index="i") == b"\xff\xd8"
    assert (api.line, api.query) == (("GET", f"/v1/images/{ID}/thumbnail"), {"size": "64", "index": "i"})
    api = Recorder(jpeg)
    assert api.client.file(ID, index="i") == b"\xff\xd8"
    assert (api.line, api.query) == (("GET", f"/v1/images/{ID}/file"), {"index": "i"})


def test_ready_is_yes_or_no() -> None:
    assert Recorder(ok({"status": "ready"})).client.ready() is True
    for answer in (problem(503), httpx.Response(502), httpx.ConnectError("refused"), httpx.ReadTimeout("slow")):
        api = Recorder(answer)
        assert api.client.ready() is False
        assert api.slept == [], "whoever asks whether it is ready does not want to wait until it is"
    with pytest.raises(NotFound):
        Recorder(httpx.Response(404)).client.ready()
    with pytest.raises(ProtocolError):
        Recorder(httpx.Response(200, html="<p>Another program")).client.ready()


def test_id_cannot_leave_its_place_in_the_path() -> None:
    for wild in ("..", "../indexes", "a/b?c#d"):
        api = Recorder(problem(422))
        with pytest.raises(Unprocessable):
            api.client.get(wild)
        assert api.request.url.raw_path.startswith(b"/v1/images/")
        assert api.request.url.raw_path.count(b"/") == 3
        assert b".." not in api.request.url.raw_path
    with pytest.raises(ValueError, match="empty"):
        Recorder().client.delete("")


def test_key_and_path_prefix_are_sent() -> None:
    api = Recorder(ok(IMAGE), base_url="http://host:9/under/", api_key="s3cret")
    api.client.get(ID)
    assert api.request.url == f"http://host:9/under/v1/images/{ID}"
    assert api.request.headers["authorization"] == "Bearer s3cret"
    assert api.request.headers["user-agent"] == f"lookalike-client/{lookalike_client.__version__}"


def test_key_comes_from_the_caller_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_API_KEY", "s3cret")
    api = Recorder(ok(IMAGE))
    api.client.get(ID)
    assert "authorization" not in api.request.headers


def test_settings_that_cannot_be_meant_are_refused_and_keys_not_shown() -> None:
    for url in ("localhost:8000", "", "ftp://host", "http://", "http://h:port", "http://h:99999"):
        with pytest.raises(ValueError, match="base_url"):
            Client(url)
    for key in ("", "s3cret\n", "s3crét", "s3cret key"):
        with pytest.raises(ValueError, match="api_key") as caught:
            Client(api_key=key)
        assert "s3cr" not in str(caught.value)
    with pytest.raises(ValueError, match="retries"):
        Client(retries=-1)
    client = Client("http://user:passw0rd@host/", api_key="s3cret")
    assert "s3cret" not in repr(client)
    assert "passw0rd" not in repr(client)


# Images of every kind


def sent(image: Any) -> bytes:
    """The bytes that travel for an image."""
    api = Recorder(ok())
    api.client.search(image)
    data: bytes = api.form["image"][1]
    return data


def test_paths_bytes_and_files_travel_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a picture.jpg"
    path.write_bytes(b"pixels")
    with path.open("rb") as opened:
        for image in (path, str(path), b"pixels", bytearray(b"pixels"), memoryview(b"pixels"), opened):
            assert sent(image) == b"pixels"


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 4)])
def test_arrays_travel_as_png_without_loss(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for given in (array, array[::-1, ::2]):
        with Pillow.open(io.BytesIO(sent(given))) as received:
            assert received.format == "PNG"
            np.testing.assert_array_equal(np.asarray(received), given)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint64),
        np.zeros((4, 4, 3), np.uint16),
        np.full((4, 4, 3), 1.5),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: Any) -> None:
    with pytest.raises(ValueError, match="array"):
        sent(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pillow_images_travel_as_png(mode: str) -> None:
    picture = Pillow.new(mode, (5, 4))
    with Pillow.open(io.BytesIO(sent(picture))) as received:
        assert (received.format, received.size) == ("PNG", (5, 4))
        if mode not in ("CMYK", "YCbCr"):
            assert received.mode == mode


def test_orientation_of_a_pillow_image_travels_along() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    file = io.BytesIO()
    Pillow.new("RGB", (8, 4)).save(file, "JPEG", exif=exif)
    with Pillow.open(io.BytesIO(sent(Pillow.open(file)))) as received:
        assert dict(received.getexif()) == {0x0112: 6}, "the orientation, and nothing private"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sent(tmp_path / "missing.jpg")
    with pytest.raises(TypeError, match="not int"):
        sent(7)
    with pytest.raises(TypeError, match="'rb'"):
        sent(io.StringIO("text"))
    exhausted = io.BytesIO(b"pixels")
    exhausted.read()
    with pytest.raises(ValueError, match="seek"):
        sent(exhausted)


def test_import_needs_neither_numpy_nor_pillow() -> None:
    code = (
        "import sys; import lookalike_client as l; l._images.is_image(b'')\n"
        "assert not {'numpy', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.modules['PIL'] = None; import numpy\n"
        "try: l._images.image_bytes(numpy.zeros((2, 2), 'uint8'))\n"
        "except TypeError as error: assert 'pip install pillow' in str(error), error\n"
        "else: raise AssertionError\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# Failures, and what is tried again


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def dropping_server() -> Iterator[Callable[..., tuple[str, list[bytes]]]]:
    """Starts a server that gives each connection the next of some raw answers, and hangs up."""
    listeners, threads = [], []

    def start(*answers: bytes) -> tuple[str, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        received: list[bytes] = []

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    heard = connection.recv(65536)
                    head, _, body = heard.partition(b"\r\n\r\n")  # all of it: unread, it would be a reset
                    size = int((re.search(rb"(?i)content-length: (\d+)", head) or [b"", b"0"])[1])
                    while len(body) < size:
                        body += connection.recv(65536)
                    received.append(heard)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        listeners.append(listener)
        return f"http://127.0.0.1:{listener.getsockname()[1]}", received

    yield start
    for thread in threads:
        thread.join(timeout=10)
    for listener in listeners:
        listener.close()
    assert not any(thread.is_alive() for thread in threads)


def test_overload_is_tried_again_after_the_time_the_server_asks_for() -> None:
    api = Recorder(problem(429, **{"retry-after": "2"}), problem(503, **{"retry-after": "1"}), ok())
    assert len(api.client.search(b"pixels")) == 1
    assert 2 <= api.slept[0] <= 2.5
    assert 1 <= api.slept[1] <= 2
    bodies = [form_of(request) for request in api.requests]
    assert bodies[0] == bodies[1] == bodies[2], "each attempt sends all of it"


def test_file_object_is_sent_again_in_full() -> None:
    api = Recorder(problem(503), ok(IMAGE, 201))
    api.client.add(io.BytesIO(b"pixels"))
    assert [form_of(request)["image"][1] for request in api.requests] == [b"pixels", b"pixels"]


def test_wait_is_capped_and_grows() -> None:
    api = Recorder(problem(429, **{"retry-after": "86400"}), ok())
    api.client.search(id=ID)
    assert api.slept == [30.0]
    api = Recorder(*[problem(503)] * 9, ok(), retries=9)
    api.client.search(id=ID)
    assert all(wait <= min(8, 0.5 * 2**number) for number, wait in enumerate(api.slept))
    assert len(set(api.slept)) == 9, "jitter"


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    api = Recorder(problem(429, **{"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), ok())
    api.client.search(id=ID)
    assert api.slept[0] <= 0.5
    for text in ("soon", "-1", "", "1e9", "٣"):
        api = Recorder(httpx.Response(429, headers=[(b"retry-after", text.encode())]), retries=0)
        with pytest.raises(Overloaded) as caught:
            api.client.search(id=ID)
        assert caught.value.retry_after is None


def test_overload_that_lasts_is_an_error() -> None:
    api = Recorder(*[problem(429, "overloaded", **{"retry-after": "7"})] * 7)
    with pytest.raises(Overloaded) as caught:
        api.client.search(b"pixels")
    assert (caught.value.retry_after, caught.value.code) == (7.0, "overloaded")
    assert len(api.slept) == 6, "three times as often as for what else is tried again"
    api = Recorder(*[problem(429), problem(503)] * 2, problem(429), problem(503))
    with pytest.raises(Unavailable):
        api.client.search(b"pixels")
    assert len(api.slept) == 5
    api = Recorder(problem(503), retries=0)
    with pytest.raises(Unavailable):
        api.client.search(b"pixels")


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 415, 422, 500, 502, 504, 507])
def test_other_refusals_are_final(status: int) -> None:
    api = Recorder(problem(status))
    with pytest.raises(APIError):
        api.client.search(b"pixels")
    assert api.slept == []


def test_refused_connection_is_tried_again_then_told(closed_port: int) -> None:
    slept: list[float] = []
    with Client(f"http://user:passw0rd@127.0.0.1:{closed_port}") as client:
        client._sleep = slept.append
        with pytest.raises(ConnectionFailed, match=rf"http://127\.0\.0\.1:{closed_port} cannot be reached") as caught:
            client.get(ID)
        assert not client.ready()
    assert len(slept) == 2
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert "passw0rd" not in str(caught.value)


def test_broken_connection_is_tried_again(dropping_server: Callable[..., tuple[str, list[bytes]]]) -> None:
    body = json.dumps(IMAGE).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    url, received = dropping_server(b"", head + body[:20], head + body)
    with Client(url) as client:
        client._sleep = lambda _: None
        assert client.add(b"pixels").id == ID
    assert len(received) == 3
    url, received = dropping_server(b"not http at all\r\n\r\n")
    with Client(url, retries=0) as client, pytest.raises(ConnectionFailed):
        client.get(ID)


def test_timeout_is_final() -> None:
    for failure in (httpx.ReadTimeout("slow"), httpx.ConnectTimeout("slow"), httpx.WriteTimeout("slow")):
        api = Recorder(failure)
        with pytest.raises(TimedOut) as caught:
            api.client.search(b"pixels")
        assert caught.value.__cause__ is failure
        assert api.slept == []


def test_timeout_is_the_callers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.05) as client, pytest.raises(TimedOut):
            client.get(ID)
        with Client(url, timeout=httpx.Timeout(5, read=0.05)) as client, pytest.raises(TimedOut):
            client.get(ID)


def test_delete_whose_answer_was_lost_is_done(dropping_server: Callable[..., tuple[str, list[bytes]]]) -> None:
    gone = b'{"status": 404, "code": "unknown-image", "detail": "No such image."}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(gone)
    url, received = dropping_server(b"", head + gone)
    with Client(url) as client:
        client._sleep = lambda _: None
        client.delete(ID)
    assert len(received) == 2


def test_delete_behind_a_proxy_that_lost_the_answer_is_done() -> None:
    Recorder(httpx.Response(503, text="upstream reset"), problem(404, "unknown-image")).client.delete(ID)


@pytest.mark.parametrize(
    "answers",
    [
        [problem(404, "unknown-image")],
        [httpx.ConnectError("refused"), problem(404, "unknown-image")],
        [problem(503, "index-locked"), problem(404, "unknown-image")],
        [problem(429), problem(404, "unknown-image")],
        [httpx.ReadError("reset"), problem(404, "unknown-index")],
    ],
)
def test_delete_of_what_was_never_there_is_an_error(answers: list[httpx.Response | Exception]) -> None:
    with pytest.raises(NotFound):
        Recorder(*answers).client.delete(ID)


def test_only_delete_takes_absence_for_success() -> None:
    with pytest.raises(NotFound):
        Recorder(httpx.ReadError("reset"), problem(404, "unknown-image")).client.get(ID)


STATUSES = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: APIError,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedImage,
    422: Unprocessable,
    429: Overloaded,
    500: ServerError,
    502: ServerError,
    503: Unavailable,
    504: DeadlineExceeded,
    507: DiskFull,
    599: ServerError,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_each_status_has_its_error(status: int, kind: type[APIError]) -> None:
    with pytest.raises(APIError) as caught:
        Recorder(problem(status), retries=0).client.get(ID)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, "some-code", "In words.")
    assert str(error) == f"In words. ({status}, some-code)"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.status, copy.code, copy.detail) == (kind, status, "some-code", "In words.")


@pytest.mark.parametrize("status", STATUSES)
def test_errors_of_others_keep_their_status(status: int) -> None:
    badly_told = {"content-type": "application/problem+json"}
    for answer in (
        httpx.Response(status, html="<html>nginx"),
        httpx.Response(status),
        httpx.Response(status, json={"detail": "Not Found"}),
        httpx.Response(status, content=b"{", headers=badly_told),
        httpx.Response(status, json=[1], headers=badly_told),
        httpx.Response(status, json={"code": 7, "detail": None}, headers=badly_told),
    ):
        with pytest.raises(STATUSES[status]) as caught:
            Recorder(answer, retries=0).client.get(ID)
        assert caught.value.code == "unknown"
        assert str(status) in caught.value.detail
        assert "nginx" not in str(caught.value)


def test_all_errors_have_one_base() -> None:
    exported = [getattr(lookalike_client, name) for name in lookalike_client.__all__]
    errors = [kind for kind in exported if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) == 18
    assert all(issubclass(kind, LookalikeError) for kind in errors)
    drawn = sys.modules["lookalike_client._errors"].__doc__ or ""
    assert all(re.search(rf"\b{kind.__name__}\b", drawn) for kind in errors)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<p>Welcome"),
        httpx.Response(200, content=b"\xff{"),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=IMAGE | {"width": "40"}),
        httpx.Response(200, json=IMAGE | {"width": True}),
        httpx.Response(200, json=IMAGE | {"width": None}),
        httpx.Response(200, json=IMAGE | {"labels": [1]}),
        httpx.Response(200, json=IMAGE | {"gps": [1]}),
        httpx.Response(200, json=IMAGE | {"gps": [1, "2"]}),
        *[
            httpx.Response(200, json={key: value for key, value in IMAGE.items() if key != missing})
            for missing in IMAGE
        ],
        httpx.Response(204),
        httpx.Response(302, headers={"location": "https://login.example"}),
        httpx.Response(304),
        httpx.Response(200, content=b"x", headers={"content-encoding": "gzip"}),
    ],
)
def test_answers_outside_the_contract_are_protocol_errors(answer: httpx.Response | Exception) -> None:
    with pytest.raises(ProtocolError):
        Recorder(answer).client.get(ID)


def test_other_answers_outside_the_contract() -> None:
    for missing in FOUND:
        with pytest.raises(ProtocolError, match=missing):
            Recorder(ok({key: value for key, value in FOUND.items() if key != missing})).client.search(id=ID)
    for missing in HIT:
        hit = {key: value for key, value in HIT.items() if key != missing}
        with pytest.raises(ProtocolError, match=missing):
            Recorder(ok(FOUND | {"hits": [hit]})).client.search(id=ID)
    with pytest.raises(ProtocolError, match="text/html"):
        Recorder(httpx.Response(200, html="<p>Sign in")).client.thumbnail(ID)
    with pytest.raises(ProtocolError, match="204"):
        Recorder(ok({})).client.delete(ID)


def test_what_a_newer_server_adds_is_passed_over() -> None:
    api = Recorder(ok(FOUND | {"new": 1, "hits": [HIT | {"newer": 2}]}), ok(IMAGE | {"newest": 3}))
    assert api.client.search(id=ID)[0].id == ID
    assert api.client.get(ID).id == ID


def test_values_that_are_no_json_are_the_callers_error() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Recorder().client.search(vector=[float("nan")])
    with pytest.raises(TypeError):
        Recorder().client.add(b"pixels", metadata={"when": object()})


# Values


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

    assert (CLIENT / "lookalike_client" / "_client.py").read_text(encoding="utf-8") == generate.generated()


# Many at once


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


# The contract: against a real server (the fixture `server` of conftest.py), and in this process, without a socket


class InProcess(httpx.BaseTransport):
    """An application without a socket, for a client without an event loop."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)
        self._runner = asyncio.Runner()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())

        async def answer() -> httpx.Response:
            response = await self._transport.handle_async_request(asked)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return self._runner.run(answer())

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def application(built: tuple[Path, Path, Path]) -> Iterator[Any]:
    from api.http.access import Keys, read_keys  # imports torch: not for tests that need none
    from api.http.app import create_app
    from api.http.server import open_services
    from api.settings import Settings

    settings = Settings()
    with open_services([built[1]], settings) as services:
        yield create_app(services, settings, Keys(read_keys(["a-key"])))


@pytest.fixture(params=["socket", "in-process"])
def client(request: pytest.FixtureRequest, kind: Any) -> Iterator[Client]:
    if request.param == "socket":
        server = request.getfixturevalue("server")
        connected = kind(server.url, api_key=server.api_key)
    else:
        app = request.getfixturevalue("application")
        transport = InProcess(app) if kind is lookalike_client.Client else httpx.ASGITransport(app)
        connected = kind("http://localhost", api_key="a-key", transport=transport)
    with connected:
        yield connected


@pytest.fixture(scope="module")
def query(server: Server) -> Path:
    """An image that is not indexed."""
    return min(path for path in server.queries.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def photo(server: Server) -> Path:
    """An image that is indexed."""
    return min(path for path in server.photos.rglob("*") if path.is_file())


def id_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def picture(seed: int) -> bytes:
    """A PNG of coloured noise: nothing else looks like it."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Pillow.fromarray(noise).resize((96, 96), Pillow.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def same(one: SearchResult, other: SearchResult) -> bool:
    scores = np.allclose([hit.score for hit in one], [hit.score for hit in other], atol=1e-5)
    return scores and {hit.id for hit in one} == {hit.id for hit in other}


def test_server_is_ready(client: Client, closed_port: int) -> None:
    assert client.ready()
    with Client(f"http://127.0.0.1:{closed_port}") as nobody:
        assert not nobody.ready()


def test_every_kind_of_image_finds_the_same(client: Client, query: Path) -> None:
    count = sum(1 for _ in client.images())  # all of them: at the edge of a top ten, ties could change places
    expected = client.search(query, k=count)
    assert len(expected) == count
    assert expected.took_ms.keys() >= {"decode", "encode", "search", "total"}
    scores = [hit.score for hit in expected]
    assert scores == sorted(scores, reverse=True)
    with Pillow.open(query) as opened, query.open("rb") as file:
        for image in (str(query), query.read_bytes(), file, opened, np.asarray(opened.convert("RGB"))):
            assert same(client.search(image, k=count), expected), type(image)
        width, height = opened.size
        assert same(client.search(query, k=count, box=(0, 0, width, height)), expected)
        left = client.search(query, k=count, box=(0, 0, width // 2, height))
    assert not same(left, expected)
    assert same(client.search(parts=[Part(image=query)], k=count), expected)


def test_stored_image_is_its_own_best_hit(client: Client, photo: Path) -> None:
    best = client.search(photo, k=1)[0]
    assert best.id == id_of(photo)
    assert best.score > 0.999
    assert best.path is not None
    assert Path(best.path).samefile(photo)


def test_image_asked_for_by_id_is_not_its_own_hit(client: Client, photo: Path) -> None:
    count = sum(1 for _ in client.images())
    found = client.search(id=id_of(photo), k=count)
    assert len(found) == count - 1
    assert id_of(photo) not in {hit.id for hit in found}
    assert same(client.similar(id_of(photo), k=count), found)


def test_min_score_and_offset_cut_the_list(client: Client, query: Path) -> None:
    whole = client.search(query, k=12)
    limit = (whole[4].score + whole[5].score) / 2
    assert whole[4].score > whole[5].score
    assert [hit.id for hit in client.search(query, k=12, min_score=limit)] == [hit.id for hit in whole[:5]]
    assert same(client.search(query, k=4, offset=3), whole[3:7])
    assert len(client.search(query, k=12, min_score=1.0)) == 0


def test_filter_leaves_only_what_matches(client: Client, query: Path) -> None:
    listed = list(client.images())
    label = listed[-1].labels[0]
    matching = {image.id for image in listed if label in image.labels}
    assert 0 < len(matching) < len(listed)
    chosen = {"label": label}
    assert {hit.id for hit in client.search(query, k=len(listed), filter=chosen)} == matching
    assert {hit.id for hit in client.search(parts=[Part(image=query)], k=len(listed), filter=chosen)} == matching
    asked, *rest = sorted(matching)
    assert {hit.id for hit in client.similar(asked, k=len(listed), filter=chosen)} == set(rest)


def test_weighted_parts_are_a_weighted_sum(client: Client, query: Path, photo: Path) -> None:
    count = sum(1 for _ in client.images())
    one, other = (np.array(vector) for vector in client.embed([query, photo]))
    for weight in (0.5, -0.5):
        found = client.search(parts=[Part(image=query), Part(id=id_of(photo), weight=weight)], k=count)
        assert id_of(photo) not in {hit.id for hit in found}
        total = one + weight * other
        summed = client.search(vector=list(total / np.linalg.norm(total)), k=count)
        scores = {hit.id: hit.score for hit in summed}
        assert len(found) == count - 1
        np.testing.assert_allclose([hit.score for hit in found], [scores[hit.id] for hit in found], atol=1e-4)


def test_life_of_an_image(client: Client) -> None:
    data = picture(1)
    before = sum(1 for _ in client.images())
    added = client.add(data, labels=["first", "second"], metadata={"keep": 1, "drop": [2]}, name="noise.png")
    try:
        assert added.id == hashlib.sha256(data).hexdigest()
        assert (added.width, added.height, added.format, added.bytes) == (96, 96, "png", len(data))
        assert set(added.labels) == {"first", "second"}
        assert client.add(data).id == added.id, "adding it again is harmless"
        assert sum(1 for _ in client.images()) == before + 1
        assert client.get(added.id).metadata == {"keep": 1, "drop": [2]}
        best = client.search(data, k=1, filter={"label": "first"})[0]
        assert (best.id, best.score > 0.999) == (added.id, True)
        changed = client.update(added.id, labels=["third"], metadata={"drop": None, "new": "x"})
        assert (changed.labels, changed.metadata) == (("third",), {"keep": 1, "new": "x"})
        assert client.get(added.id) == changed
        assert len(client.search(data, filter={"label": "first"})) == 0
        assert client.search(data, filter={"metadata.new": "x"})[0].id == added.id
        assert client.update(added.id, labels=[]).labels == ()
        assert client.file(added.id) == data
    finally:
        client.delete(added.id)
    with pytest.raises(NotFound):
        client.get(added.id)
    with pytest.raises(NotFound):
        client.delete(added.id)
    assert added.id not in {hit.id for hit in client.search(data, k=before + 1)}
    assert sum(1 for _ in client.images()) == before


def test_images_lists_all_once(client: Client, server: Server) -> None:
    ids = [image.id for image in client.images(page_size=7)]
    assert len(ids) == len(set(ids))
    assert {id_of(path) for path in server.photos.rglob("*") if path.is_file()} <= set(ids)
    assert ids == [image.id for image in client.images()]


def test_embeddings_have_unit_length(client: Client, query: Path, photo: Path) -> None:
    vectors = np.array(client.embed([query, photo.read_bytes()]))
    dim = client.indexes()[0].spaces[0].dim
    assert vectors.shape == (2, dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert client.search(vector=client.embed(photo)[0], k=1)[0].id == id_of(photo)


def test_indexes_tell_what_is_served(client: Client, query: Path) -> None:
    (served,) = client.indexes()
    assert served.count == sum(1 for _ in client.images())
    assert served.spaces[0].recipe
    first = client.search(query)
    assert first.space == served.spaces[0].name
    assert same(client.search(query, index=served.name, space=served.spaces[0].name), first)


def test_pictures_are_served_by_id(client: Client, photo: Path) -> None:
    data = client.thumbnail(id_of(photo), size=48)
    with Pillow.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG"
        assert max(small.size) <= 48
    assert client.file(id_of(photo)) == photo.read_bytes()


def test_a_result_shows_its_pictures_in_a_notebook(server: Server, query: Path) -> None:
    with Client(server.url, api_key=server.api_key) as client:
        found = client.search(query, k=3)
    shown = found[:2]._repr_html_()
    assert shown is not None
    assert shown.count("data:image/jpeg;base64,") == 2
    assert f"{found[0].score:.3f}" in shown
    kept = pickle.loads(pickle.dumps(found))
    assert kept == found
    assert kept._repr_html_() is None, "the server's key would have been pickled too"


def test_a_result_is_a_table_where_pandas_is(client: Client, query: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = client.search(query, k=3).to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["score"]) == sorted(table["score"], reverse=True)
    assert len(table) == 3


def test_unknown_names_are_not_found(client: Client, query: Path) -> None:
    unknown = "0" * 64
    calls: list[Callable[[], Any]] = [
        lambda: client.get(unknown),
        lambda: client.update(unknown, labels=["x"]),
        lambda: client.delete(unknown),
        lambda: client.similar(unknown),
        lambda: client.search(id=unknown),
        lambda: client.thumbnail(unknown),
        lambda: client.file(unknown),
        lambda: client.search(query, space="no-such-space"),
        lambda: client.search(query, index="no-such-index"),
        lambda: client.embed(query, index="no-such-index"),
        lambda: client.add(query, index="no-such-index"),
        lambda: client.get(unknown, index="no-such-index"),
        lambda: next(client.images(index="no-such-index")),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.code != "unknown", number
        assert "no-such" not in str(caught.value), "never an echo of the input"


def test_what_is_no_image_is_refused_by_the_server(client: Client, query: Path) -> None:
    for data in (b"not an image" * 10, b"", b"<svg/>"):
        with pytest.raises(UnsupportedImage):
            client.search(data)
        with pytest.raises(UnsupportedImage):
            client.add(data)
        with pytest.raises(UnsupportedImage):
            client.embed([data])
        with pytest.raises(UnsupportedImage):
            client.search(parts=[Part(image=data)])
    with pytest.raises(Unprocessable):
        client.search(query.read_bytes()[:60])


def test_what_cannot_be_meant_is_refused_by_the_server(client: Client, query: Path, photo: Path) -> None:
    bad_filters: list[dict[str, Any]] = [{"no_such_field": 1}, {"width": {"between": 1}}, {"and": 7}]
    for bad in bad_filters:
        with pytest.raises((BadRequest, Unprocessable)):
            client.search(query, filter=bad)
        with pytest.raises((BadRequest, Unprocessable)):
            client.search(id=id_of(photo), filter=bad)
        with pytest.raises((BadRequest, Unprocessable)):
            client.similar(id_of(photo), filter=bad)
    refused: list[Callable[[], Any]] = [
        lambda: client.search(query, k=0),
        lambda: client.search(query, offset=-1),
        lambda: client.search(query, min_score=2),
        lambda: client.search(vector=[1.0]),
        lambda: client.search(parts=[]),
        lambda: client.search(query, box=(0, 0, 0, 0)),
        lambda: client.search(id="short"),
        lambda: client.get(".."),
        lambda: client.embed([]),
    ]
    for number, call in enumerate(refused):
        with pytest.raises((BadRequest, Unprocessable)) as caught:
            call()
        assert caught.value.code != "unknown", number


def test_documentation_runs(server: Server, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Pillow.open(query) as opened:
        opened.convert("RGB").save("query.jpg")
    Path("new.png").write_bytes(picture(2))
    names: dict[str, Any] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL):
            exec(block.replace("http://localhost:8000", server.url), names)
    finally:
        with Client(server.url, api_key=server.api_key) as client, contextlib.suppress(NotFound):
            client.delete(id_of(Path("new.png")))
