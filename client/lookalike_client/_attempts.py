"""From one attempt to the next: what is sent again and when, and what a failure becomes. The only place that knows
httpx's exceptions.

Sent again, at most `retries` times: what met a refused or broken connection, and what was answered 503; and what was
answered 429, three times as often. Not sent again: what ran into a timeout. The caller has waited as long as they meant
to, and a server that is too slow for one request does not get faster by a second.
"""

from __future__ import annotations

import random
from typing import Generic

import httpx

from lookalike_client import _answers
from lookalike_client._calls import Answer, Call
from lookalike_client._errors import APIError, ConnectionFailed, LookalikeError, NotFound, ProtocolError, TimedOut

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
MAX_WAIT_S = 30.0
"""A server may ask for any time; a caller who has waited this long and fails again reads `retry_after` in the error."""
BUSY_TIMES = 3
"""A server that says 429 lives, and says when to come back: it is asked again so many times as often."""
_BUSY = 429
_PASSING_STATUS = frozenset([_BUSY, 503])
_PASSING_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError)
_MAY_BE_DONE = frozenset([_answers.UNKNOWN, "not-ready"])
"""Codes of a 503 after which a change may have been made: a proxy's that lost the answer, and a stopping server's."""


class Attempts(Generic[Answer]):
    """The attempts of one call. It neither sends nor sleeps: that is all a sync and an async client do differently."""

    def __init__(self, call: Call[Answer], *, retries: int, server: str) -> None:
        self._call = call
        self._left, self._left_busy = retries, BUSY_TIMES * retries
        self._server = server
        self._backoff = FIRST_BACKOFF_S
        self._may_be_done = False

    def after_failure(self, failure: httpx.HTTPError) -> float:
        """Seconds to wait before the next attempt. Raises LookalikeError where there is none."""
        error = _translate(failure, self._server)
        perhaps_done = self._call.once and not isinstance(failure, httpx.ConnectError)
        if self._left == 0 or perhaps_done or not isinstance(failure, _PASSING_ERRORS):
            raise error from failure
        # Without a connection nothing was sent; otherwise it may be only the answer that was lost.
        self._may_be_done |= not isinstance(failure, httpx.ConnectError)
        return self._next_wait(0.0)

    def after_answer(self, response: httpx.Response) -> float | None:
        """Seconds to wait before the next attempt; None where the answer is a success. Raises LookalikeError."""
        if not response.is_error:
            _answers.check_success(response)
            return None
        error = _answers.refusal(response)
        if self._call.absence_is_success and self._may_be_done and _says_absent(error):
            return None
        if error.status not in _PASSING_STATUS or (self._left_busy if error.status == _BUSY else self._left) == 0:
            raise error
        self._may_be_done |= error.status == 503 and error.code in _MAY_BE_DONE
        if self._call.once and self._may_be_done:
            raise error
        return self._next_wait(error.retry_after or 0.0, busy=error.status == _BUSY)

    def answer(self, response: httpx.Response) -> Answer:
        """Parse a successful answer. Raises ProtocolError."""
        return self._call.parse(response)

    def _next_wait(self, asked: float, *, busy: bool = False) -> float:
        if busy:
            self._left_busy -= 1
        else:
            self._left -= 1
        # Full jitter, so that clients who failed together do not come back together:
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        jitter = random.uniform(0, self._backoff)  # noqa: S311
        self._backoff = min(MAX_BACKOFF_S, 2 * self._backoff)
        return min(MAX_WAIT_S, asked + jitter)


def _says_absent(error: APIError) -> bool:
    return isinstance(error, NotFound) and error.code != "unknown-index"


def _translate(error: httpx.HTTPError, server: str) -> LookalikeError:
    """Turn an exception of httpx into one of ours."""
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"{server} did not answer in time ({type(error).__name__}). Pass a larger timeout, in seconds.")
    if isinstance(error, httpx.DecodingError):
        return ProtocolError(f"The answer of {server} cannot be decompressed: {error}.")
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return ConnectionFailed(f"{server} cannot be reached: {reason}. Is `lookalike serve` running there?")
    return ConnectionFailed(f"The connection to {server} broke before its answer was complete: {reason}.")
