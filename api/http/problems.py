"""Errors as `application/problem+json` (RFC 9457), the one place that knows status codes. Never an echo of input."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Scope

from api import errors, metrics
from api.errors import ApiError, ServingError
from indexer.errors import ImageRejected, IndexerError, NoPatches
from search import errors as search_errors
from search.catalog.annotations import MAX_LABELS
from search.errors import IndexLocked, SearchError, StorageFailed

log = logging.getLogger("lookalike")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class Problem(Exception):
    """A request that cannot be answered: a status, a stable code for programs, and a sentence for people."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def unauthorized() -> Problem:
    """No key, or a wrong one."""
    detail = "This server needs a key that it knows: send the header Authorization: Bearer KEY."
    return Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def invalid(detail: str) -> Problem:
    """A request that is well formed and cannot be meant."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail)


def unknown_field(where: str) -> Problem:
    """A typing slip must not be a silent no."""
    return invalid(f"The {where} has a field that this call does not know. /docs lists the fields.")


def field_twice(where: str) -> Problem:
    """Two values where one counts."""
    return invalid(f"The {where} has a field twice. Send each field once.")


def malformed(detail: str) -> Problem:
    """A request that cannot be read."""
    return Problem(HTTPStatus.BAD_REQUEST, "malformed", detail)


def too_large(limit: int) -> Problem:
    """A body over the limit (bytes)."""
    detail = f"The request is larger than {limit:,} bytes. Send a smaller image: 1,000 pixels a side are plenty."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)


def unforeseen(error: Exception) -> Problem:
    """A defect of ours, which goes into the log."""
    log.error("unforeseen error", exc_info=error)
    detail = "The server failed on this request. Its log says why."
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail)


def too_slow() -> Problem:
    """A request that does not end."""
    return Problem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The request took too long to arrive. Send it again.")


def head_too_large(limit: int) -> Problem:
    """A request line and headers over the limit (bytes)."""
    detail = f"The request's headers are larger than {limit:,} bytes. Clear this site's cookies, or send less."
    return Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", detail)


def range_outside(size: int) -> Problem:
    """A range of a file that begins behind its end (bytes)."""
    detail = (
        f"The file has {size:,} bytes: the range begins behind its end. Leave the header Range out, or ask for less."
    )
    headers = {"Content-Range": f"bytes */{size}"}
    return Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range-not-satisfiable", detail, headers)


def too_late() -> Problem:
    """An answer that was not ready in time."""
    detail = "The answer took too long, and was given up. Try again, or ask for less at once."
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, "deadline-exceeded", detail)


def read_only() -> Problem:
    """A key that may not do this."""
    detail = "This key may only read. Use one with write scope."
    return Problem(HTTPStatus.FORBIDDEN, "read-only-key", detail)


def cross_site() -> Problem:
    """A change that another site's page asks for."""
    detail = "The request comes from another site's page. LOOKALIKE_CORS_ORIGINS allows sites by name."
    return Problem(HTTPStatus.FORBIDDEN, "cross-site", detail)


def unknown_host() -> Problem:
    """A Host header that a server without keys does not answer to."""
    detail = (
        "Without a key, this server answers only to its own names: localhost and 127.0.0.1. "
        "LOOKALIKE_ALLOWED_HOSTS adds others; LOOKALIKE_API_KEY lets everybody in who has it."
    )
    return Problem(HTTPStatus.FORBIDDEN, "unknown-host", detail)


def unknown_index(names: list[str]) -> Problem:
    """An index name that is not served."""
    return Problem(HTTPStatus.NOT_FOUND, "unknown-index", f"No such index. Served here: {', '.join(names)}.")


_STATUS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    errors.Overloaded: (HTTPStatus.TOO_MANY_REQUESTS, "overloaded"),
    errors.NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready"),
    errors.NotAnImage: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-image"),
    errors.QuestionUnreadable: (HTTPStatus.BAD_REQUEST, "malformed"),
    errors.QuestionInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"),
    errors.SpaceInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-space"),
    errors.FileGone: (HTTPStatus.NOT_FOUND, "file-gone"),
    errors.GroupsMissing: (HTTPStatus.NOT_FOUND, "no-groups"),
    errors.MapMissing: (HTTPStatus.NOT_FOUND, "no-map"),
    errors.AddressRefused: (HTTPStatus.UNPROCESSABLE_ENTITY, "address-refused"),
    errors.LinkInvalid: (HTTPStatus.NOT_FOUND, "unknown-link"),
    search_errors.UnknownBoard: (HTTPStatus.NOT_FOUND, "unknown-board"),
    search_errors.NotOnBoard: (HTTPStatus.NOT_FOUND, "not-on-board"),
    search_errors.UnknownWatch: (HTTPStatus.NOT_FOUND, "unknown-watch"),
    search_errors.TooMany: (HTTPStatus.CONFLICT, "too-many"),
    search_errors.UnknownImage: (HTTPStatus.NOT_FOUND, "unknown-image"),
    search_errors.UnknownSpace: (HTTPStatus.NOT_FOUND, "unknown-space"),
    search_errors.NotInSpace: (HTTPStatus.CONFLICT, "not-in-space"),
    search_errors.SpaceExists: (HTTPStatus.CONFLICT, "space-exists"),
    search_errors.SpaceNeeded: (HTTPStatus.CONFLICT, "space-needed"),
    search_errors.SpaceIncomplete: (HTTPStatus.CONFLICT, "space-incomplete"),
    search_errors.SpaceUnfit: (HTTPStatus.CONFLICT, "space-of-words"),
    NoPatches: (HTTPStatus.CONFLICT, "no-patches"),
    search_errors.SpaceOfRegions: (HTTPStatus.CONFLICT, "space-of-regions"),
    search_errors.RecipeMismatch: (HTTPStatus.CONFLICT, "recipe-mismatch"),
    search_errors.FilterInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-filter"),
    search_errors.QueryInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-query"),
    search_errors.PromptInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-prompt"),
    search_errors.AnnotationInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-annotation"),
    search_errors.FeedbackInvalid: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-feedback"),
    search_errors.UnknownSession: (HTTPStatus.NOT_FOUND, "unknown-session"),
    search_errors.SessionExists: (HTTPStatus.CONFLICT, "session-exists"),
    search_errors.IndexLocked: (HTTPStatus.SERVICE_UNAVAILABLE, "index-locked"),
    search_errors.IndexDamaged: (HTTPStatus.SERVICE_UNAVAILABLE, "index-damaged"),
}
_PASSING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_PRIVATE: dict[type[Exception], str] = {
    search_errors.IndexLocked: "Another process is writing to this index. Try again in a moment.",
    search_errors.IndexDamaged: "The index is damaged. The server's log says where.",
}
"""Messages that would name paths of the server."""


def from_error(error: Exception) -> Problem:
    """The problem that an error of `search`, `indexer` or `api` is to a client."""
    if isinstance(error, ImageRejected):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "unreadable-image", f"The image cannot be used: {error}.")
    if isinstance(error, StorageFailed):
        if error.disk_full:
            return Problem(
                HTTPStatus.INSUFFICIENT_STORAGE, "disk-full", "The server's disk is full. Nothing was stored."
            )
        detail, headers = "The server cannot read or write its index.", {"Retry-After": str(RETRY_AFTER_S)}
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "storage-failed", detail, headers)
    for kind, (status, code) in _STATUS.items():
        if isinstance(error, kind):
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status in _PASSING else {}
            return Problem(status, code, _PRIVATE.get(kind, str(error)), headers)
    return from_error(errors.NotReady())


def noted(error: SearchError | IndexerError | ApiError) -> Problem:
    """`from_error`; what the operator should look after goes into the log."""
    problem = from_error(error)
    # A build that goes on elsewhere is nothing to look after; what serving raises, it has logged with its cause.
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, (IndexLocked, ServingError)):
        log.error("%s", error)
    return problem


def body(problem: Problem) -> dict[str, str | int]:
    """The JSON of a problem's answer."""
    return {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "code": problem.code,
    }


def response(problem: Problem) -> JSONResponse:
    """The HTTP answer of a problem."""
    return JSONResponse(body(problem), status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI, fields: Collection[str] = ()) -> None:
    """Make every error of an application a problem. fields: our own names, which an answer may repeat."""

    @app.exception_handler(Problem)
    async def problem(_request: Request, error: Problem) -> JSONResponse:
        return response(error)

    @app.exception_handler(SearchError)
    @app.exception_handler(IndexerError)
    @app.exception_handler(ApiError)
    async def ours(_request: Request, error: SearchError | IndexerError | ApiError) -> JSONResponse:
        answer = noted(error)
        if answer.status is HTTPStatus.TOO_MANY_REQUESTS:
            metrics.REFUSED.labels(answer.code).inc()
        return response(answer)

    @app.exception_handler(RequestValidationError)
    async def validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        return response(_from_validation(error.errors(), fields))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return response(too_large(request.app.state.settings.max_upload_bytes))
        if status is HTTPStatus.BAD_REQUEST:
            cause = error.__cause__
            if isinstance(cause, Problem):  # found while the body was read
                return response(cause)
            if isinstance(cause, ServingError):
                return response(from_error(cause))
            if "Too many files" in str(error.detail):
                return response(malformed("The form has more than one file. Send one image a call."))
            if "Too many fields" in str(error.detail):
                return response(malformed(f"The form has too many fields. An image has at most {MAX_LABELS:,} labels."))
            if isinstance(cause, OSError):  # of ours: a body is kept in a file while it comes
                log.error("an upload could not be kept: %s", cause)
                return response(from_error(StorageFailed(str(cause), disk_full=cause.errno == errno.ENOSPC)))
            return response(malformed(_UNREADABLE))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            return response(_no_such_method(request))
        code = status.phrase.lower().replace(" ", "-")
        return response(Problem(status, code, f"{status.description or status.phrase}.", error.headers))


def path_of(scope: Scope) -> str:
    """A request's path behind the one under which a proxy has us."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _no_such_method(request: Request) -> Problem:
    """Several routes may share a path, each with a method of its own: the framework names those of the first."""
    allowed: set[str] = set()
    for router in request.app.state.routers:
        for route in router.routes:
            if isinstance(route, Route) and route.path_regex.match(path_of(request.scope)):
                allowed |= route.methods or set()
    if "GET" in allowed:
        allowed.add("HEAD")
    detail = "This path has no such method. /docs lists what there is."
    return Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail, {"Allow": ", ".join(sorted(allowed))})


def _from_validation(errors: Any, fields: Collection[str]) -> Problem:
    """The problem that Pydantic found, in our field names and its rules only: `loc` and `msg` may hold user input."""
    first = errors[0]
    if first["type"] in ("json_invalid", "missing", "model_attributes_type") and len(first["loc"]) <= 2:
        if first["type"] != "missing" or first["loc"] == ("body",):
            return malformed(_UNREADABLE)
        return malformed(f"The field {first['loc'][-1]!r} is missing.{_A_FORM if 'image' in first['loc'] else ''}")
    if first["loc"] == ("body", "image") and not first["type"].startswith("string_"):
        return invalid(f"image: is not a file.{_A_FORM}")
    if first["type"] == "extra_forbidden":
        return unknown_field("body")
    field = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int) or str(part) in fields)
    rule = _RULES.get(first["type"], "is not valid") + _bound(first)
    if first["type"] == "string_pattern_mismatch":
        rule += _FORMS.get(first["loc"][-1], "")
    if "max_fmr" in first["loc"]:
        rule += ", or `auto`"
    return invalid(f"{field or 'The request'}: {rule}.")


_A_FORM = " Send a multipart form with the file in it: curl -F image=@picture.jpg."
_UNREADABLE = "The body cannot be read. Send what the content type says: JSON, or a multipart form."
_RULES = {
    "greater_than_equal": "must be at least",
    "less_than_equal": "must be at most",
    "greater_than": "must be more than",
    "less_than": "must be less than",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "too_long": "has too many entries; at most",
    "string_too_long": "has too many characters; at most",
    "too_short": "has too few entries; at least",
    "string_pattern_mismatch": "does not have the form of such a value",
}
_FORMS = {
    "id": "; it is 64 hexadecimal digits",
    "image": "; it is an image's id, 64 hexadecimal digits, or 4 or more that it alone begins with",
    "cursor": "; it is `next_cursor` of the page before",
}


def _bound(error: Mapping[str, Any]) -> str:
    context = error.get("ctx") or {}
    for name in ("ge", "le", "gt", "lt", "max_length", "min_length"):
        if isinstance(context.get(name), int | float):
            return f" {context[name]}"
    return ""
