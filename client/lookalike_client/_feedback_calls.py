"""Requests about feedback, as values."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from lookalike_client._answers import nothing, read_answer, read_answers
from lookalike_client._calls import Call, json_part
from lookalike_client._feedback_models import FeedbackResult, FeedbackSession, FeedbackSummary, LabelResult
from lookalike_client._models import Part


def ask(
    parts: Sequence[Part] | None,
    *,
    more: Iterable[str],
    less: Iterable[str],
    space: str | None,
    filter: Mapping[str, Any] | None,  # noqa: A002
    keep: bool,
    name: str | None,
    session: str | None,
    round: str | None,  # noqa: A002
    back: bool,
    k: int,
    offset: int,
    index: str | None,
) -> Call[FeedbackResult]:
    """A question with marks, or marks for a kept session."""
    question = _given({"space": space, "filter": filter})
    if parts is not None:
        question["parts"] = [json_part(part) for part in parts]
    body = _given({"name": name, "session": session, "round": round, "index": index})
    if back:
        body["back"] = True
    body |= {"more": _ids(more), "less": _ids(less), "k": operator.index(k), "offset": operator.index(offset)}
    if session is None:
        body |= {"question": question, "keep": bool(keep)}
    elif question:
        raise TypeError("A kept session has its question already: pass neither parts, space nor filter.")
    return Call(method="POST", path="/v1/feedback", json=body, parse=lambda one: read_answer(FeedbackResult, one))


def sessions(index: str | None) -> Call[list[FeedbackSummary]]:
    """The kept sessions."""

    def parse(response: httpx.Response) -> list[FeedbackSummary]:
        return read_answers(FeedbackSummary, response, "sessions")

    return Call(method="GET", path="/v1/feedback", params=_given({"index": index}), parse=parse)


def session(named: str, *, index: str | None) -> Call[FeedbackSession]:
    """A kept session."""
    return Call(method="GET", path=_path(named), params=_given({"index": index}), parse=_session)


def rename(named: str, name: str | None, *, index: str | None) -> Call[FeedbackSession]:
    """Name a session."""
    params = _given({"index": index})
    return Call(method="PATCH", path=_path(named), params=params, json={"name": name}, parse=_session)


def delete(named: str, *, index: str | None) -> Call[None]:
    """Forget a session."""
    params = _given({"index": index})
    return Call(method="DELETE", path=_path(named), params=params, parse=nothing, absence_is_success=True)


def label(
    named: str,
    label: str | None,
    *,
    above: float | None,
    precision: float | None,
    round: str | None,  # noqa: A002
    apply: bool,
    index: str | None,
) -> Call[LabelResult]:
    """Show or apply a label rule."""
    body = _given({"label": label, "above": above, "precision": precision, "round": round})
    return Call(
        method="POST",
        path=f"{_path(named)}/label",
        params=_given({"index": index}),
        json=body | {"apply": bool(apply)},
        parse=lambda one: read_answer(LabelResult, one),
    )


def _session(response: httpx.Response) -> FeedbackSession:
    return read_answer(FeedbackSession, response)


def _path(named: str) -> str:
    if not named:
        raise ValueError("A session is named by its id or its name; found an empty string.")
    return f"/v1/feedback/{quote(named, safe='').replace('.', '%2E')}"


def _ids(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"Marks are a sequence of ids: [{ids!r}], not {ids!r}.")
    return [*ids]


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
