"""Promises of the connection itself, asked over real sockets: nobody holds one by leaving something unfinished."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from api.http import problems, protocol
from api.http.protocol import HTTPProtocol

LARGE = 20_000_000


async def application(scope: Any, receive: Any, send: Any) -> None:
    """`/read` reads the body first; `/early` answers without it; `/large` answers with much; `/late` after a second."""
    path, size = scope["path"], 0
    if path == "/read":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
    if path == "/late":
        await asyncio.sleep(1)
    body = b"x" * LARGE if path == "/large" else f"{path} {size}".encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    for name, value in {
        "HEAD_SECONDS": 0.4,
        "BODY_SECONDS": 0.4,
        "BYTES_A_SECOND": 1000,
        "DRAIN_SECONDS": 0.4,
        "STALL_SECONDS": 0.4,
        "TICK": 0.05,
    }.items():
        monkeypatch.setattr(protocol, name, value)
    config = uvicorn.Config(
        application, port=0, http=HTTPProtocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=5
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running
    running.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


class Client:
    """A socket that says what it is told to, and hears until it is closed."""

    def __init__(self, server: uvicorn.Server) -> None:
        self.socket = socket.create_connection(server.servers[0].sockets[0].getsockname()[:2])
        self.socket.settimeout(5)
        self._heard = b""

    def say(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def until_closed(self) -> tuple[bytes, float]:
        """What comes until the server closes, and how long that takes."""
        began, heard = time.monotonic(), b""
        while True:
            try:
                block = self.socket.recv(65536)
            except ConnectionResetError:
                break
            if not block:
                break
            heard += block
        return heard, time.monotonic() - began

    def answer(self) -> tuple[int, bytes]:
        """Status and body of one answer with a content-length."""
        while b"\r\n\r\n" not in self._heard:
            self._hear()
        head, _, rest = self._heard.partition(b"\r\n\r\n")
        self._heard = rest
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(self._heard) < size:
            self._hear()
        body, self._heard = self._heard[:size], self._heard[size:]
        return int(head.split()[1]), body

    def heard_something(self) -> bool:
        """Whether there is anything to be read."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def is_cut_off(self, *, saying: str, times: int, pause: float = 0) -> bool:
        """Whether the server closes before all of it is said."""
        try:
            for _ in range(times):
                self.say(saying)
                time.sleep(pause)
        except OSError:  # reset, or a broken pipe
            return True
        return False

    def _hear(self) -> None:
        block = self.socket.recv(65536)
        assert block, self._heard
        self._heard += block


@pytest.fixture
def client(server: uvicorn.Server) -> Iterator[Client]:
    made = Client(server)
    yield made
    made.socket.close()


def check_problem(heard: bytes, status: int, code: str) -> None:
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), heard
    assert b"content-type: " + problems.MEDIA_TYPE.encode() in head
    assert b"connection: close" in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)


def gone(server: uvicorn.Server) -> bool:
    """Whether the server forgets all connections soon."""
    until = time.monotonic() + 3
    while server.server_state.connections and time.monotonic() < until:
        time.sleep(0.02)
    return not server.server_state.connections


@pytest.mark.parametrize("said", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_request_that_does_not_come_closes_the_connection(client: Client, said: str) -> None:
    client.say(said)
    heard, seconds = client.until_closed()
    check_problem(heard, 408, "too-slow")
    assert 0.3 < seconds < 4


def test_headers_that_trickle_close_the_connection(client: Client) -> None:
    client.say("GET / HTTP/1.1\r\n")
    began = time.monotonic()
    assert client.is_cut_off(saying="A: b\r\n", times=100, pause=0.05)
    assert time.monotonic() - began < 4


@pytest.mark.slow
def test_a_body_that_trickles_closes_the_connection_and_one_that_keeps_the_rate_does_not(
    server: uvicorn.Server, client: Client
) -> None:
    head = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n"
    client.say(head)
    for _ in range(20):
        client.say("x" * 150)
        time.sleep(0.05)
    assert client.answer() == (200, b"/read 3000")
    slow = Client(server)
    slow.say(head)
    began, heard = time.monotonic(), b""
    slow.socket.settimeout(0.05)
    while not heard:
        slow.say("x")
        try:
            heard = slow.socket.recv(65536)
        except TimeoutError:
            assert time.monotonic() - began < 3, "it may go on for ever"
    check_problem(heard, 408, "too-slow")
    assert slow.until_closed()[0] == b""
    slow.socket.close()


def test_an_answer_in_time_is_read_by_who_is_still_sending(server: uvicorn.Server, client: Client) -> None:
    client.say("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    time.sleep(0.1)
    for _ in range(10):
        client.say("x" * 10_000)
    assert client.answer() == (200, b"/early 0")
    client.say("GET /again HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer() == (200, b"/again 0")
    client.socket.close()
    assert gone(server)


def test_who_sends_on_and_on_after_the_answer_is_cut_off(server: uvicorn.Server, client: Client) -> None:
    client.say("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    assert client.is_cut_off(saying="x" * 10_000, times=10_000, pause=0.001)
    assert gone(server)


def test_who_stops_sending_after_the_answer_is_closed(server: uvicorn.Server, client: Client) -> None:
    client.say("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert client.answer() == (200, b"/early 0")
    heard, seconds = client.until_closed()
    assert heard == b""
    assert seconds < 4
    assert gone(server)


@pytest.mark.slow
def test_who_reads_nothing_of_an_answer_is_cut_off_and_who_reads_slowly_is_not(
    server: uvicorn.Server, client: Client
) -> None:
    client.say("GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.socket.recv(1000)
    assert gone(server)
    slow = Client(server)
    slow.say("GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    read = 0
    while read < LARGE:
        block = slow.socket.recv(400_000)
        assert block, "cut off"
        read += len(block)
        time.sleep(0.02)
    slow.socket.close()


@pytest.mark.parametrize("said", ["GET /{0} HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: {0}\r\n\r\n"])
def test_a_head_that_is_too_large_is_refused(client: Client, said: str) -> None:
    client.say(said.format("a" * 70_000))
    check_problem(client.until_closed()[0], 431, "headers-too-large")


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: x\r\nA: ",
        "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: ",
        "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
)
def test_a_line_that_does_not_end_is_refused_before_it_takes_much_memory(client: Client, head: str) -> None:
    client.say(head)
    time.sleep(0.1)
    said = 0
    while said < 5_000_000:
        try:
            client.say("a" * 50_000)
        except OSError:
            break
        said += 50_000
        time.sleep(0.01)
        if client.heard_something():
            break
    assert said < 600_000
    check_problem(client.until_closed()[0], 431, "headers-too-large")


def test_an_early_answer_reaches_who_wants_the_connection_closed(server: uvicorn.Server) -> None:
    for version, header in (("1.1", "Connection: close\r\n"), ("1.0", "")):
        client = Client(server)
        client.say(f"POST /early HTTP/{version}\r\nHost: x\r\n{header}Content-Length: 10000000\r\n\r\n")
        time.sleep(0.1)
        for _ in range(100):
            client.say("x" * 100_000)
        assert client.answer() == (200, b"/early 0")
        assert client.until_closed()[0] == b""
        client.socket.close()
    assert gone(server)


@pytest.mark.slow
def test_requests_without_end_in_one_packet_are_cut_off(server: uvicorn.Server, client: Client) -> None:
    client.say("GET /late HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    heard, seconds = client.until_closed()
    assert heard.count(b"HTTP/1.1 200") <= 1
    assert seconds < 4
    assert gone(server)


def test_who_reads_too_slowly_is_cut_off(server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BYTES_A_SECOND", 40_000_000)
    # Accepted connections have the listener's: with a large one, the server would see nothing read for a second.
    server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)  # else much is sent before it is read
        slow.connect(server.servers[0].sockets[0].getsockname()[:2])
        slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(1000)
        began = time.monotonic()
        while server.server_state.connections:
            with contextlib.suppress(OSError):
                slow.recv(50_000)
            time.sleep(0.02)
            assert time.monotonic() - began < 5, "it may go on for ever"


def test_no_more_connections_are_held_than_there_may_be(
    server: uvicorn.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    held = [Client(server) for _ in range(3)]
    for one in held:
        one.say("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one.answer()[0] == 200
    assert Client(server).until_closed()[0] == b""
    held[0].socket.close()
    until = time.monotonic() + 3
    while len(server.server_state.connections) == 3:
        assert time.monotonic() < until
    again = Client(server)
    again.say("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert again.answer()[0] == 200
    for one in (*held, again):
        one.socket.close()


def test_what_is_not_http_is_refused(client: Client) -> None:
    client.say("\x16\x03\x01 hello\r\n\r\n")
    check_problem(client.until_closed()[0], 400, "malformed")


@pytest.mark.slow
def test_requests_that_follow_each_other_at_once_are_all_answered(client: Client) -> None:
    client.say("GET /late HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + "GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [client.answer()[1] for _ in range(3)] == [b"/late 0", b"/late 0", b"/b 0"]


def test_who_asks_whether_to_send_is_told_to(client: Client) -> None:
    client.say("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert client.socket.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say("abcd")
    assert client.answer() == (200, b"/read 4")
