"""Watches: every call of theirs as a method.

`_watches.py` is made of `_async_watches.py`: change this one, and run `python client/generate.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import httpx

from lookalike_client import _answers
from lookalike_client._board_models import Delivery, Watch
from lookalike_client._calls import Call, given
from lookalike_client._connection import Connection

_WATCHES = "/v1/watches"


class Watches:
    """The watches of a server: `client.watches`. Watches are named by their numbers.

    index: the served index; None: the first. Every method raises NotFound for what is not there; those that change
    something raise Unprocessable, Conflict (there are as many as there may be), Forbidden, Unavailable and DiskFull.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, index: str | None = None) -> tuple[Watch, ...]:
        """All watches, the oldest first, without their secrets."""
        call = Call(method="GET", path=_WATCHES, params=given({"index": index}), parse=_watches)
        return self._connection._run(call)

    def get(self, watch: int, index: str | None = None) -> Watch:
        """A watch, without its secret."""
        call = Call(method="GET", path=f"{_WATCHES}/{watch:d}", params=given({"index": index}), parse=_watch)
        return self._connection._run(call)

    def create(
        self,
        name: str,
        question: Mapping[str, Any],
        url: str,
        *,
        form: Literal["json", "discord"] = "json",
        secret: str | None = None,
        index: str | None = None,
    ) -> Watch:
        """Tell an address of each image that is added from now on, and matches.

        question: the body of a search over HTTP, without pictures, with a cut: `{"parts": [{"id": "9f86..."}],
        "min_score": 0.7}`. secret: signs messages (`form` json); None: a new one, which only this answer has. Raises
        Unprocessable also for an address that may not be told.
        """
        body = given({"name": name, "question": dict(question), "url": url, "form": form, "secret": secret})
        call = Call(method="POST", path=_WATCHES, params=given({"index": index}), json=body, parse=_watch, once=True)
        return self._connection._run(call)

    def delete(self, watch: int, index: str | None = None) -> None:
        """Delete a watch, with the messages that wait."""
        call = Call(
            method="DELETE",
            path=f"{_WATCHES}/{watch:d}",
            params=given({"index": index}),
            parse=_answers.nothing,
            absence_is_success=True,
        )
        self._connection._run(call)

    def deliveries(self, watch: int, index: str | None = None) -> tuple[Delivery, ...]:
        """The messages of a watch, the oldest first: all that wait, and the last hundred of the others."""
        path = f"{_WATCHES}/{watch:d}/deliveries"
        call = Call(method="GET", path=path, params=given({"index": index}), parse=_deliveries)
        return self._connection._run(call)


def _watches(response: httpx.Response) -> tuple[Watch, ...]:
    return _answers.listed(Watch, response, "watches")


def _watch(response: httpx.Response) -> Watch:
    return _answers.read(Watch, response)


def _deliveries(response: httpx.Response) -> tuple[Delivery, ...]:
    return _answers.listed(Delivery, response, "deliveries")
