"""The HTTP application: routes, errors, limits and headers put together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from api.http import problems
from api.http.access import Keys
from api.http.edge import Edge
from api.http.routes import (
    boards,
    duplicates,
    explain,
    feedback,
    field_names,
    guests,
    images,
    maps,
    search,
    server,
    spaces,
    watches,
)
from api.serving.gate import Gate
from api.serving.service import Service
from api.settings import Settings
from search.catalog.annotations import MAX_LABELS

MAX_FIELDS = MAX_LABELS + 50
"""Form fields of one request: each label is one."""
MAX_FIELD_BYTES = 256 * 1024
"""Each of them: filters and metadata may be long."""

described = HTTPBearer(auto_error=False, description="Needed where the server has keys.")
"""For the documentation: the edge has checked it before."""


class _App(FastAPI):
    """Its description says of forms what `CheckedRoute` does: no fields but these."""

    def openapi(self) -> dict[str, Any]:
        """FastAPI's description; forms take no other fields."""
        described = super().openapi()
        for name, schema in described["components"]["schemas"].items():
            if name.startswith("Body_"):
                schema["additionalProperties"] = False
        return described


def create_app(services: Mapping[str, Service], settings: Settings, keys: Keys) -> FastAPI:
    """The application that serves these indexes, by name; the first is the default."""
    app = _App(
        title="Lookalike",
        summary="Which of my images look like this one?",
        version=version("lookalike"),
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES},
    )
    app.state.services = dict(services)
    app.state.settings = settings
    app.state.keys = keys
    app.state.pictures = Gate(settings.max_waiting)
    nouns = (search, images, explain, duplicates, spaces, maps, boards, watches, feedback, server)
    app.state.routers = (server.public, *(noun.router for noun in nouns), guests.router)
    problems.install(app, field_names(app.state.routers))
    for router in app.state.routers:
        locked = keys and router not in (server.public, guests.router)
        app.include_router(router, dependencies=[Depends(described)] if locked else [])
    app.mount("/static", StaticFiles(packages=[("api", "web"), ("fastapi_offline", "static")]), name="static")
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_upload_bytes)
    app.add_middleware(Edge, settings=settings, keys=keys, pictures=app.state.pictures)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After", "Location"],
            max_age=3600,
        )
    return app
