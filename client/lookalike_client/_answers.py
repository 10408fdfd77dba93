"""Answers: from a response to values, or to a ProtocolError or APIError.

What we do not know in an answer is passed over, so that a newer server can say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from lookalike_client._errors import APIError, ProtocolError, error_class
from lookalike_client._models import Hit, Image, IndexInfo, SearchResult, SpaceInfo

PROBLEM = "application/problem+json"
UNKNOWN = "unknown"
"""The code of an error that is not told as the server tells its errors: it comes from something else."""

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the images, and where to go on; None after the last."""

    images: list[Image]
    next_cursor: str | None


def search_result(response: httpx.Response) -> SearchResult:
    """Of a search."""
    data = _json(response)
    took = _take(data, "took_ms", dict)
    return SearchResult(
        hits=tuple(_hit(hit) for hit in _take(data, "hits", list)),
        space=_take(data, "space", str),
        took_ms={stage: _number(took, stage) for stage in took},
    )


def image(response: httpx.Response) -> Image:
    """Of reading, adding or changing an image."""
    return _image(_json(response))


def page(response: httpx.Response) -> Page:
    """Of listing images."""
    data = _json(response)
    return Page(
        images=[_image(entry) for entry in _take(data, "images", list)],
        next_cursor=_take_or_none(data, "next_cursor", str),
    )


def embeddings(response: httpx.Response, *, count: int) -> list[list[float]]:
    """Of embedding `count` images, in their order."""
    entries = _take(_json(response), "data", list)
    vectors = {_take(entry, "index", int): _numbers(entry, "embedding") for entry in entries}
    if len(entries) != count or vectors.keys() != set(range(count)):
        raise ProtocolError(f"The server answered {len(entries)} embeddings for {count} images, or misnumbered them.")
    return [vectors[number] for number in range(count)]


def indexes(response: httpx.Response) -> list[IndexInfo]:
    """Of asking what is served."""
    return [_index(entry) for entry in _take(_json(response), "indexes", list)]


def picture(response: httpx.Response) -> bytes:
    """Of asking for a thumbnail or a file."""
    kind = _content_type(response)
    if not kind.startswith("image/"):
        raise ProtocolError(f"The server answered {kind or 'no content type'} where an image was expected.")
    return response.content


def ready(response: httpx.Response) -> bool:
    """Of asking whether the server is ready: it says so by its status; the body only shows who answers."""
    _take(_json(response), "status", str)
    return True


def nothing(response: httpx.Response) -> None:
    """Of a deletion; a 404 comes here only where it counts as a success."""
    if response.status_code not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND):
        raise ProtocolError(f"The server answered {response.status_code} where 204 was expected.")


def refusal(response: httpx.Response) -> APIError:
    """The error of a response with an error status, from whomever it comes."""
    code, detail = UNKNOWN, ""
    if _content_type(response) == PROBLEM:
        try:
            problem = _json(response)
            code, detail = _take(problem, "code", str), _take(problem, "detail", str)
        except ProtocolError:
            pass  # an error that is badly told is still the error of its status
    if not detail:
        detail = f"The answer of {response.request.method} {response.request.url.path} was {_status(response)}."
    return error_class(response.status_code)(response.status_code, code, detail, _retry_after(response))


def check_success(response: httpx.Response) -> None:
    """Raise ProtocolError unless the status is 2xx. Error statuses are for `refusal`."""
    if response.is_redirect:
        raise ProtocolError(
            f"The server redirects ({_status(response)}), which the client does not follow: its key would go along. "
            "Give the address that it leads to as base_url."
        )
    if not response.is_success:
        raise ProtocolError(f"The server answered {_status(response)}, which is neither success nor error.")


def _status(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}".rstrip()


def _content_type(response: httpx.Response) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def _retry_after(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds from now: it may be a number or a date (RFC 9110, 10.2.3). Anything else is ignored."""
    text: str = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:  # "-0000"
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        kind = _content_type(response) or "no content type"
        raise ProtocolError(
            f"{response.request.method} {response.request.url.path} was answered with {kind} that is not JSON. "
            "Is base_url the address of a Lookalike server?"
        ) from error


def _hit(data: Any) -> Hit:
    return Hit(
        id=_take(data, "id", str),
        score=_number(data, "score"),
        path=_take_or_none(data, "path", str),
        paths=_texts(data, "paths"),
        labels=_texts(data, "labels"),
        metadata=_take(data, "metadata", dict),
        width=_take(data, "width", int),
        height=_take(data, "height", int),
    )


def _image(data: Any) -> Image:
    return Image(
        id=_take(data, "id", str),
        path=_take_or_none(data, "path", str),
        paths=_texts(data, "paths"),
        labels=_texts(data, "labels"),
        metadata=_take(data, "metadata", dict),
        width=_take(data, "width", int),
        height=_take(data, "height", int),
        format=_take(data, "format", str),
        bytes=_take(data, "bytes", int),
        taken_at=_take_or_none(data, "taken_at", str),
        camera=_take_or_none(data, "camera", str),
        gps=_gps(data),
    )


def _index(data: Any) -> IndexInfo:
    return IndexInfo(
        name=_take(data, "name", str),
        count=_take(data, "count", int),
        generation=_take_or_none(data, "generation", str),
        spaces=tuple(_space(entry) for entry in _take(data, "spaces", list)),
    )


def _space(data: Any) -> SpaceInfo:
    return SpaceInfo(name=_take(data, "name", str), dim=_take(data, "dim", int), recipe=_take(data, "recipe", dict))


def _gps(data: Any) -> tuple[float, float] | None:
    if _take_or_none(data, "gps", list) is None:
        return None
    numbers = _numbers(data, "gps")
    if len(numbers) != 2:
        raise _unlike("gps", "two numbers")
    return numbers[0], numbers[1]


def _take(data: Any, name: str, kind: type[Kind]) -> Kind:
    value = _member(data, name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _unlike(name, kind.__name__)
    return value


def _take_or_none(data: Any, name: str, kind: type[Kind]) -> Kind | None:
    return None if _member(data, name) is None else _take(data, name, kind)


def _number(data: Any, name: str) -> float:
    return _float(_member(data, name), name)


def _numbers(data: Any, name: str) -> list[float]:
    return [_float(value, name) for value in _take(data, name, list)]


def _texts(data: Any, name: str) -> tuple[str, ...]:
    values = _take(data, name, list)
    if not all(isinstance(value, str) for value in values):
        raise _unlike(name, "list of str")
    return tuple(values)


def _float(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _unlike(name, "float")
    return float(value)


def _member(data: Any, name: str) -> Any:
    if not isinstance(data, Mapping) or name not in data:
        raise ProtocolError(f"The server's answer lacks `{name}`. Do server and client have the same version?")
    return data[name]


def _unlike(name: str, expected: str) -> ProtocolError:
    return ProtocolError(
        f"`{name}` in the server's answer is not of the type {expected}. Do server and client have the same version?"
    )
