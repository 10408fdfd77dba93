"""Answers: from a response to values, or to a ProtocolError or APIError.

What we do not know in an answer is passed over, so that a newer server can say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import httpx

from lookalike_client._errors import APIError, ProtocolError, error_class
from lookalike_client._models import DuplicateGroup, Hit, Image, ImageMap, IndexInfo, SearchResult, SpaceInfo

PROBLEM = "application/problem+json"
UNKNOWN = "unknown"
"""The code of an error that is not told as the server tells its errors: it comes from something else."""

Kind = TypeVar("Kind")
Model = TypeVar("Model")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of the images, and where to go on; None after the last."""

    images: list[Image]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class DuplicatePage:
    """Some groups of duplicates, and where to go on; None after the last."""

    groups: list[DuplicateGroup]
    next_cursor: str | None


def search_result(response: httpx.Response) -> SearchResult:
    """Parse the answer of a search."""
    data = _json(response)
    took = _take(data, "took_ms", dict)
    return SearchResult(
        hits=tuple(_read(Hit, hit) for hit in _take(data, "hits", list)),
        space=_take(data, "space", str),
        took_ms={stage: _number(took, stage) for stage in took},
    )


def image(response: httpx.Response) -> Image:
    """Parse the answer of reading, adding or changing an image."""
    return _read(Image, _json(response))


def page(response: httpx.Response) -> Page:
    """Parse the answer of listing images."""
    data = _json(response)
    return Page(
        images=[_read(Image, entry) for entry in _take(data, "images", list)],
        next_cursor=_take_or_none(data, "next_cursor", str),
    )


def duplicates(response: httpx.Response) -> DuplicatePage:
    """Parse the answer of listing duplicates."""
    data = _json(response)
    found_at = _take_or_none(data, "found_at", str)
    groups = [_read(DuplicateGroup, group) for group in _take(data, "groups", list)]
    return DuplicatePage(
        groups=[replace(group, found_at=found_at) for group in groups],
        next_cursor=_take_or_none(data, "next_cursor", str),
    )


def decision(response: httpx.Response) -> None:
    """Parse the answer of a decision about duplicates. Its count of pairs is 0 where the call had to be repeated."""
    _take(_json(response), "pairs", int)


def embeddings(response: httpx.Response, *, count: int) -> list[list[float]]:
    """Parse the answer of embedding `count` images, in their order."""
    entries = _take(_json(response), "data", list)
    vectors = {_take(entry, "index", int): _numbers(entry, "embedding") for entry in entries}
    if len(entries) != count or vectors.keys() != set(range(count)):
        raise ProtocolError(f"The server answered {len(entries)} embeddings for {count} images, or misnumbered them.")
    return [vectors[number] for number in range(count)]


def image_map(response: httpx.Response) -> ImageMap:
    """Parse the answer of asking for a map."""
    return _read(ImageMap, _json(response))


def indexes(response: httpx.Response) -> list[IndexInfo]:
    """Parse the answer of asking what is served."""
    return [_read(IndexInfo, entry) for entry in _take(_json(response), "indexes", list)]


def spaces(response: httpx.Response) -> list[SpaceInfo]:
    """Parse the answer of asking for the spaces of an index."""
    return [_read(SpaceInfo, entry) for entry in _take(_json(response), "spaces", list)]


def space(response: httpx.Response) -> SpaceInfo:
    """Parse the answer of adding or changing a space."""
    return _read(SpaceInfo, _json(response))


def read_answer(kind: type[Model], response: httpx.Response) -> Model:
    """Parse an answer that is one value of a dataclass."""
    return _read(kind, _json(response))


def read_answers(kind: type[Model], response: httpx.Response, member: str) -> list[Model]:
    """Parse an answer that lists values of a dataclass."""
    return [_read(kind, entry) for entry in _take(_json(response), member, list)]


def picture(response: httpx.Response) -> bytes:
    """Parse the answer of asking for a thumbnail or a file."""
    kind = _content_type(response)
    if not kind.startswith("image/"):
        raise ProtocolError(f"The server answered {kind or 'no content type'} where an image was expected.")
    return response.content


def ready(response: httpx.Response) -> bool:
    """Parse the answer of readiness: the server says so by its status; the body only shows who answers."""
    _take(_json(response), "status", str)
    return True


def read(kind: type[Model], response: httpx.Response) -> Model:
    """Parse an answer that is one value."""
    return _read(kind, _json(response))


def listed(kind: type[Model], response: httpx.Response, name: str) -> tuple[Model, ...]:
    """Parse an answer that is a list under a name."""
    return tuple(_read(kind, entry) for entry in _take(_json(response), name, list))


def nothing(response: httpx.Response) -> None:
    """Parse the answer of a deletion; a 404 comes here only where it counts as a success."""
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


def _read(kind: type[Model], data: Any) -> Model:
    """A value of one of our dataclasses from an object with its fields' names. What has a default may be absent."""
    types, values = _types(cast("Any", kind)), {}
    for one in fields(cast("Any", kind)):
        optional = one.default is not MISSING or one.default_factory is not MISSING
        if not (optional and isinstance(data, Mapping) and one.name not in data):
            values[one.name] = _as(types[one.name], _member(data, one.name), one.name)
    return kind(**values)


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _as(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as the type that a field is annotated with: scalars, objects, tuples, our dataclasses, None."""
    arguments = get_args(kind)
    if type(None) in arguments:
        return None if value is None else _as(next(one for one in arguments if one is not type(None)), value, name)
    if is_dataclass(kind):
        return _read(cast("type[Any]", kind), value)
    origin = get_origin(kind) or kind
    if origin is tuple:
        return _tuple(arguments, _typed(list, value, name), name)
    if origin is Mapping:
        return _typed(dict, value, name)
    return _float(value, name) if kind is float else _typed(kind, value, name)


def _tuple(arguments: tuple[Any, ...], values: list[Any], name: str) -> tuple[Any, ...]:
    kinds = [arguments[0]] * len(values) if arguments[-1] is Ellipsis else list(arguments)
    if len(values) != len(kinds):
        raise _unlike(name, f"list of {len(kinds)}")
    return tuple(_as(kind, one, name) for kind, one in zip(kinds, values, strict=True))


def _take(data: Any, name: str, kind: type[Kind]) -> Kind:
    return _typed(kind, _member(data, name), name)


def _typed(kind: type[Kind], value: Any, name: str) -> Kind:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _unlike(name, kind.__name__)
    return value


def _take_or_none(data: Any, name: str, kind: type[Kind]) -> Kind | None:
    return None if _member(data, name) is None else _take(data, name, kind)


def _number(data: Any, name: str) -> float:
    return _float(_member(data, name), name)


def _numbers(data: Any, name: str) -> list[float]:
    return [_float(value, name) for value in _take(data, name, list)]


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
