"""HTTP/1.1 on a socket, with an end to everybody's patience: what uvicorn itself waits for without limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api import metrics
from api.http import problems
from api.http.problems import Problem

MAX_CONNECTIONS = 4_000
"""Held at once; each may be a request of its own, whose upload may be a file of its own."""
MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to one before them."""
MAX_HEAD_BYTES = 64 * 1024
"""Largest request line and headers; browsers send 1 to 8 KiB, cookies included."""
HEAD_SECONDS = 8.0
"""From the first byte of a request, or from the connection's beginning, to the end of its headers."""
BODY_SECONDS, BYTES_A_SECOND = 8.0, 32 * 1024
"""Seconds that a body may take, and longer by its size at this rate. An answer may be read at this rate, too."""
DRAIN_SECONDS = 4.0
"""For how long a body is read and thrown away after its request was answered: who still sends does not see an answer on
a connection that is closed on it."""
STALL_SECONDS = 10.0
"""How long an answer may wait for a client that reads too little of it."""
TICK = 1.0
"""How often a connection is looked at, at least."""


class HTTPProtocol(HttpToolsProtocol):
    """One connection. Whatever a client leaves unfinished closes it within 15 seconds."""

    def connection_made(self, transport: Any) -> None:
        """Begin to watch a new connection, or abort it beyond MAX_CONNECTIONS. Called by asyncio."""
        self._socket = transport
        super().connection_made(cast("asyncio.Transport", _Transport(transport, self.close)))
        self._head_bytes = self._unheard = 0
        self._heard = False
        self._body_bytes: int | None = None  # of the request that is being received; None: none, or its headers
        self._unsent = 0
        self._refusal: Problem | None = None
        self._began = self.loop.time()
        self._receiving = True
        self._stalled: float | None = None
        self._watch = self.loop.call_later(TICK, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching. Called by asyncio."""
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse a head that is too large. Called by asyncio."""
        if self.transport.is_closing():
            return
        if not self._receiving:
            self._receiving, self._began = True, self.loop.time()
        self._heard = False
        super().data_received(data)
        # The parser keeps a header, a trailer, or what follows a chunk's size, until it is whole.
        self._unheard = 0 if self._heard else self._unheard + len(data)
        if self._unheard > MAX_HEAD_BYTES:
            self._refuse(problems.head_too_large(MAX_HEAD_BYTES))

    def on_message_begin(self) -> None:
        """Begin a request. Called by httptools, like all that follow."""
        self._head_bytes, self._body_bytes = 0, None
        self._heard = self._receiving = True  # it may follow another one in the same packet
        self._began = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be answered."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")  # the parser stops, and `send_400_response` is called
        self._body_bytes, self._began = 0, self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._heard = True
        self._body_bytes = (self._body_bytes or 0) + len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is here."""
        self._receiving, self._body_bytes = False, None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was written, perhaps before all of the request had come."""
        if self._receiving:
            self._began = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not keep up with the answer."""
        self._stalled, self._unsent = self.loop.time(), self.transport.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says it in our form
        """Answer requests that the parser refuses, and those that we refuse before there is a request."""
        self._refuse(self._refusal or problems.malformed("This is not HTTP/1.1."))

    def close(self) -> None:
        """Close the connection: once the client has read the answer, where it is still sending its request."""
        if self._receiving and self._body_bytes is not None:
            self.flow.resume_reading()
            self.transport.write_eof()
            self._body_bytes = None
            self._began = self.loop.time()
        else:
            self._socket.close()

    def _count(self, size: int) -> None:
        self._heard = True
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = problems.head_too_large(MAX_HEAD_BYTES)
            raise ValueError("the head is too large")  # as above

    def _refuse(self, problem: Problem) -> None:
        """Answer without an application, and close."""
        if self.pipeline or (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        ):
            self._socket.abort()  # another answer is under way
            return
        metrics.REFUSED.labels(problem.code).inc()
        body = json.dumps(problems.body(problem)).encode()
        head = f"content-type: {problems.MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[problem.status] + head.encode() + body)
        if self.cycle is not None:  # whose application may be waiting for the rest of the request
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._receiving, self._body_bytes = True, 0
        self.transport.close()

    def _look(self) -> None:
        """Close the connection where a deadline has passed; look again soon."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if self._stalled is not None or (unsent and self.transport.is_closing()):
            if self._stalled is None:
                self._stalled, self._unsent = now, unsent
            elif now - self._stalled > STALL_SECONDS:
                if self._unsent - unsent < STALL_SECONDS * BYTES_A_SECOND:
                    self._socket.abort()
                    return
                self._stalled, self._unsent = now, unsent
        elif self.transport.is_closing():
            if now > self._began + DRAIN_SECONDS:
                self._socket.abort()
                return
        elif self._receiving and self.flow.read_paused:
            self._began = now  # it is we who do not read
        elif self._receiving and now > self._deadline():
            if self.cycle is not None and self.cycle.response_complete and self._body_bytes is not None:
                self._socket.abort()  # it was answered, and was given the time to read that
                return
            self._refuse(problems.too_slow())
        self._watch = self.loop.call_later(TICK, self._look)

    def _deadline(self) -> float:
        if self._body_bytes is None:
            return self._began + HEAD_SECONDS
        if self.cycle.response_complete:
            return self._began + DRAIN_SECONDS
        return self._began + BODY_SECONDS + self._body_bytes / BYTES_A_SECOND


class _Transport:
    """A connection as uvicorn sees it: closing it is ours."""

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Once."""
        if not self._closing:
            self._closing = True
            self._close()

    def is_closing(self) -> bool:
        """Also while the rest of a request is read and thrown away."""
        return self._closing or bool(self._transport.is_closing())

    def write(self, data: bytes) -> None:
        """Nothing, after `close`."""
        if not self._closing:
            self._transport.write(data)
