"""The HTTP application: routes, errors, limits and headers put together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.auth import require_key
from api.routes import images, search, server
from api.service import Service
from api.settings import Settings

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Edge:
    """Security headers on every answer, and our kind of error for a body over the limit."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = False

        async def guarded(message: Message) -> None:
            nonlocal refused
            if refused:
                return
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == 413 and headers.get("content-type") != problems.MEDIA_TYPE:
                    refused = True  # the framework's own refusal is plain text
                    answer = problems.response(problems.too_large(self._max_body_bytes))
                    answer.headers.update(HEADERS)
                    await answer(scope, receive, send)
                    return
                headers.update(HEADERS)
            await send(message)

        await self._app(scope, receive, guarded)


def create_app(services: Mapping[str, Service], settings: Settings) -> FastAPI:
    """The application that serves these indexes, by name; the first is the default."""
    app = FastAPI(
        title="Lookalike",
        summary="Which of my images look like this one?",
        version=version("lookalike"),
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = dict(services)
    app.state.settings = settings
    problems.install(app)
    app.include_router(server.public)
    for router in (search.router, images.router, server.router):
        app.include_router(router, dependencies=[Depends(require_key)])
    app.mount("/static", StaticFiles(packages=[("api", "web"), ("fastapi_offline", "static")]), name="static")
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_upload_bytes)
    app.add_middleware(Edge, max_body_bytes=settings.max_upload_bytes)  # added last, so it sees every answer
    return app
