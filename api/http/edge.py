"""The edge of the application: what is decided about a request before any of its body is read, and after its answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs, metrics
from api.errors import NotReady, ServingError
from api.http import problems
from api.http.access import COOKIE, Keys, crosses_sites, host_of, is_loopback
from api.http.access import Scope as KeyScope
from api.http.problems import Problem
from api.serving.gate import Gate
from api.settings import Settings

LOG = logging.getLogger("lookalike.access")
_PROCESS, _requests = secrets.token_hex(4), itertools.count()
"""Source of request ids: they are not secrets, but those of all processes differ."""

SECURITY_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
PROBES = frozenset(("/healthz", "/readyz"))
"""Asked by machines, by address, without a key, however much there is to do."""
OPEN = PROBES | {"/", "/docs", "/openapi.json", "/session"}
"""Paths that need no key, beside /static: with small requests, and room of their own, so that clients without a key are
not in the way of those who have one."""
MAX_OPEN_BYTES = 4 * 1024
GUESTS = "/b/"
"""What is under it needs a link's token instead of a key."""
MAX_GUEST_BYTES = 32 * 1024
"""Of a guest's form: a comment of 2,000 characters takes up to 18,000 bytes there."""
PICTURES = frozenset(("/v1/search/image", "/v1/images"))
"""POSTs of a picture each. A body larger than MAX_PLAIN_BYTES counts too; smaller ones once they are read."""
MAX_PLAIN_BYTES = 64 * 1024
"""A larger body may hold pictures."""
QUESTIONS = frozenset(("/v1/search", "/v1/search/image", "/v1/search/batch", "/v1/embed", "/v1/feedback"))
"""POSTs that change nothing; feedback does where it is kept, for which its route looks at MAY_WRITE."""
SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
WEIGHT = "lookalike.weight"
"""Key of a scope: how much its request holds of the gate of pictures."""
MAY_WRITE = "lookalike.may_write"
"""Key of a scope: whether the request's key may change things."""
NAMED = OPEN | PICTURES | QUESTIONS | {"/v1/indexes", "/metrics"}
METHODS = SAFE | {"POST", "PUT", "PATCH", "DELETE"}
"""Route in figures and logs of a request whose route is not known: paths that clients invent would fill them."""
PICTURE_BYTES = 4 * 1024 * 1024
"""A larger body counts as several pictures of those that may wait."""


@dataclass
class _Exchange:
    """Facts about a request once it has been answered."""

    method: str
    path: str
    id: str
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    sent: int = 0
    gone: bool = False
    """The client hung up, and saw nothing of an answer."""


class Edge:
    """ASGI: ids, headers, logs and figures of every request; who may ask; how many at once; and for how long."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys, pictures: Gate) -> None:
        self._app = app
        self._settings = settings
        self._allowed_hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self._keys = keys
        self._requests = Gate(settings.max_requests)
        self._strangers = Gate(settings.max_requests)
        self._pictures = pictures
        metrics.UNDER_WAY.set_function(lambda: self._requests.inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(scope["method"], problems.path_of(scope), _request_id(headers))
        logs.REQUEST.set(exchange.id)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                given = dict(message["headers"])
                missing = [(name, value) for name, value in SECURITY_HEADERS.items() if name not in given]
                message["headers"] = [*message["headers"], *missing, (b"x-request-id", exchange.id.encode())]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._answer(scope, headers, exchange, receive, told)
        finally:
            self._note(scope, exchange)

    async def _answer(self, scope: Scope, headers: Headers, exchange: _Exchange, receive: Receive, send: Send) -> None:
        if exchange.path in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            scope[MAY_WRITE] = self._check_access(exchange, headers)
            weight = scope[WEIGHT] = self._weight(exchange, headers)
            gate = self._strangers if _is_open(exchange.path) else self._requests
            with gate.entered(), self._pictures.entered(weight):
                await _in_time(self._app, self._settings.request_seconds, exchange, scope, receive, send)
        except (Problem, ServingError) as error:
            problem = error if isinstance(error, Problem) else problems.from_error(error)
            metrics.REFUSED.labels(problem.code).inc()
            response = problems.response(problem)
            if "expect" in headers:  # the body that was announced will not come
                response.headers["Connection"] = "close"
            await response(scope, receive, send)
        except Exception as error:
            if exchange.status:  # an answer was begun: it can only be cut off
                raise
            await problems.response(problems.unforeseen(error))(scope, receive, send)

    def _check_access(self, exchange: _Exchange, headers: Headers) -> bool:
        """Whether the request may change things. Raises Problem 401, 403 where it may not do what it does."""
        host = headers.get("host", "")
        allowed = self._settings.cors_origins
        if exchange.method not in SAFE and crosses_sites(
            headers.get("origin"), headers.get("sec-fetch-site"), host, allowed
        ):
            raise problems.cross_site()
        if not self._keys:
            name = host_of(host)
            # Another site's name may be made to lead here (DNS rebinding): its page would read and change everything.
            if not is_loopback(name) and name.lower() not in self._allowed_hosts:
                raise problems.unknown_host()
            return True
        if _is_open(exchange.path) or exchange.method == "OPTIONS":
            return False
        scope = self._scope(headers)
        if scope is None:
            raise problems.unauthorized()
        if scope < KeyScope.WRITE and exchange.method not in SAFE and not _is_question(exchange.path):
            raise problems.read_only()
        return scope is KeyScope.WRITE

    def _scope(self, headers: Headers) -> KeyScope | None:
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._keys.scope(key.strip())
        cookies = cookie_parser("; ".join(headers.getlist("cookie")))
        return self._keys.session_scope(cookies[COOKIE]) if COOKIE in cookies else None

    def _weight(self, exchange: _Exchange, headers: Headers) -> int:
        """How many of the pictures that may wait this request counts for. Raises Problem 413."""
        limit = MAX_OPEN_BYTES if _is_open(exchange.path) else self._settings.max_upload_bytes
        if exchange.path.startswith(GUESTS):
            limit = MAX_GUEST_BYTES
        declared = headers.get("content-length")
        size = int(declared) if declared is not None and declared.isdigit() else None
        if size is not None and size > limit:
            raise problems.too_large(limit)
        if exchange.method in SAFE:
            return 0
        if size is None:  # chunked: it may become as large as any
            size = self._settings.max_upload_bytes if "transfer-encoding" in headers else 0
            if size > limit:
                raise problems.too_large(limit)
        if size <= MAX_PLAIN_BYTES and exchange.path not in PICTURES:
            return 0
        return max(1, -(-size // PICTURE_BYTES))

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        if exchange.gone:
            exchange.status = 0
        route = getattr(scope.get("route"), "path", exchange.path if exchange.path in NAMED else "unknown")
        method = exchange.method if exchange.method in METHODS else "?"
        metrics.REQUESTS.labels(method, route, exchange.status).observe(seconds)
        level = logging.DEBUG if exchange.path in PROBES else logging.INFO
        LOG.log(
            level,
            "%s %s %s",
            exchange.method,
            route,
            exchange.status or "disconnected",
            extra={
                "request_id": exchange.id,
                "method": exchange.method,
                "route": route,
                "status": exchange.status,
                "milliseconds": round(1000 * seconds, 1),
                "bytes": exchange.sent,
            },
        )


async def _in_time(
    app: ASGIApp, seconds: float, exchange: _Exchange, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run an application until it has answered, the client has gone, or so long after all of the request has come."""
    watched = _Watched(exchange, receive, send)
    try:
        async with asyncio.timeout(None) as watched.deadline:
            watched.seconds = seconds
            if not _has_body(scope) or scope["method"] not in ("POST", "PUT", "PATCH"):
                watched.all_here()
            await app(scope, watched.heard, watched.told)
    except TimeoutError:
        if not watched.deadline.expired():
            raise
        metrics.REFUSED.labels("deadline-exceeded").inc()
        await problems.response(problems.too_late())(scope, receive, send)
    except asyncio.CancelledError:
        if not exchange.gone and not watched.started:  # the server stops, and has waited long enough
            await problems.response(problems.from_error(NotReady()))(scope, receive, send)
        elif not exchange.gone:
            raise
    finally:
        watched.finished = True
        if watched.watching is not None:
            watched.watching.cancel()


class _Watched:
    """The two ends of a request, and who listens whether the client is still there."""

    def __init__(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self.deadline: asyncio.Timeout
        self.seconds = 0.0
        self.started = self.finished = self._told_empty = False
        self.watching: asyncio.Task[None] | None = None

    def all_here(self) -> None:
        """The request is complete: from now on time counts, and nothing but a disconnection can come."""
        self.deadline.reschedule(asyncio.get_running_loop().time() + self.seconds)
        self.watching = asyncio.create_task(self._watch())

    async def heard(self) -> Message:
        """ASGI `receive`."""
        if self.watching is not None:
            if not self._told_empty:  # nothing of a body has come, and nothing will
                self._told_empty = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.watching  # only who waits for a disconnection asks again
            return {"type": "http.disconnect"}
        self._told_empty = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._exchange.gone = not self.finished
        elif not message.get("more_body"):
            self.all_here()
        return message

    async def told(self, message: Message) -> None:
        """ASGI `send`."""
        if not self.started:
            self.started = True
            self.deadline.reschedule(None)  # what reading it may take is the connection's to judge
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.finished = True
        await self._send(message)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finished and self._task is not None:
            self._exchange.gone = True
            self._task.cancel()


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(("/static/", GUESTS))


def _is_question(path: str) -> bool:
    return path in QUESTIONS or (path.startswith("/v1/images/") and path.endswith("/explain"))


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _request_id(headers: Headers) -> str:
    """The id that the client, or a proxy, gave this request, where that is a plain word; else a new one."""
    given = headers.get("x-request-id", "")
    if 0 < len(given) <= 64 and given.isascii() and given.replace("-", "").replace("_", "").isalnum():
        return given
    return f"{_PROCESS}{next(_requests):08x}"
