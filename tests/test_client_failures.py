"""Promises of the Python client: failures as the client tells them, and what it tries again."""

from __future__ import annotations

import io
import json
import pickle
import re
import socket
import sys
from collections.abc import Callable

import httpx
import lookalike_client
import pytest
from client_kit import FOUND, HIT, ID, IMAGE, Recorder, form_of, ok, problem
from lookalike_client import (
    APIError,
    BadRequest,
    Client,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    DiskFull,
    Forbidden,
    LookalikeError,
    NotFound,
    Overloaded,
    ProtocolError,
    ServerError,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedImage,
)

pytestmark = pytest.mark.usefixtures("kind")


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


@pytest.mark.parametrize("unsure", [httpx.Response(503, text="upstream reset"), problem(503, "not-ready")])
def test_delete_behind_a_proxy_that_lost_the_answer_or_of_a_server_that_stopped_is_done(unsure: httpx.Response) -> None:
    Recorder(unsure, problem(404, "unknown-image")).client.delete(ID)


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
    assert len(errors) == 19
    assert {kind for kind in errors if not issubclass(kind, LookalikeError)} == {lookalike_client.PromptInvalid}
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
    for missing in HIT.keys() - {
        "copies",
        "copy_count",
        "fmr",
        "probability",
        "why",
        "box",
        "match",
    }:  # an older server
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
