"""Errors.

LookalikeError
├── ConnectionFailed      no answer: the server cannot be reached, or the connection broke
├── TimedOut              no answer within the client's own `timeout`
├── ProtocolError         an answer that is not what this client knows: another program, or a newer server
└── APIError              the server says no: `status`, `code`, `detail`, `retry_after`
    ├── BadRequest        400  malformed
    ├── Unauthorized      401  no key, or a wrong one
    ├── Forbidden         403  a key that may read, not write
    ├── NotFound          404  no such image, space or index; or the image's file is gone
    ├── Conflict          409  no vector in the space yet; a space needed, incomplete or there already
    ├── TooLarge          413  the upload is over the server's limit
    ├── UnsupportedImage  415  not an image the server reads
    ├── Unprocessable     422  an image that cannot be decoded, or values that cannot be meant
    ├── Overloaded        429  too many requests at once
    ├── Unavailable       503  not ready, or another process writes to the index
    ├── DeadlineExceeded  504  the server's own limit of time
    ├── DiskFull          507  nothing was stored
    └── ServerError       any other 5xx

Errors in the call itself are Python's own and reach no server: FileNotFoundError (and any other OSError of reading an
image), TypeError and ValueError. PromptInvalid is a ValueError.
"""

from __future__ import annotations


class LookalikeError(Exception):
    """Base of all that this package raises on purpose."""


class ConnectionFailed(LookalikeError):
    """The server cannot be reached, or the connection broke before its answer was complete."""


class TimedOut(LookalikeError):
    """No answer within the client's own `timeout`. A change that was asked for may have been made nevertheless."""


class ProtocolError(LookalikeError):
    """The answer is not what the contract says."""


class APIError(LookalikeError):
    """The server refused. `status` is HTTP's, `code` is for programs and stable, `detail` is for people.

    `code` is `unknown` where something else than a Lookalike server answered, such as a proxy. `retry_after` is the
    server's wish in seconds, None where it has none.
    """

    def __init__(self, status: int, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(status, code, detail, retry_after)  # all of them, so that the error can be pickled
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.detail} ({self.status}, {self.code})"


class BadRequest(APIError):
    """400: the request is malformed."""


class Unauthorized(APIError):
    """401: no key, or a wrong one."""


class Forbidden(APIError):
    """403: the key may not do this."""


class NotFound(APIError):
    """404: no such image, space or index, or the image's file is not there any more."""


class Conflict(APIError):
    """409: the image has no vector in the space, or the space is needed, incomplete, or there already."""


class TooLarge(APIError):
    """413: the upload is over the server's limit."""


class UnsupportedImage(APIError):
    """415: the upload is not an image that the server reads."""


class Unprocessable(APIError):
    """422: the image cannot be decoded, or a value cannot be meant."""


class Overloaded(APIError):
    """429: too many requests at once, after the client's own retries. `retry_after` says how long to wait."""


class Unavailable(APIError):
    """503: the server is not ready, or another process writes to the index, after the client's own retries."""


class DeadlineExceeded(APIError):
    """504: the server ran out of its own time."""


class DiskFull(APIError):
    """507: the server's disk is full; nothing was stored."""


class ServerError(APIError):
    """Any other 5xx: the server, or a proxy before it, failed."""


class PromptInvalid(ValueError):
    """A prompt that cannot be read. `position`: the character, from 0, at which what is wrong stands."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message, position)
        self.message = message
        self.position = position

    def __str__(self) -> str:
        return f"{self.message} (at character {self.position + 1} of the prompt)"


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedImage,
    422: Unprocessable,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
    507: DiskFull,
}


def error_class(status: int) -> type[APIError]:
    """The class of an error status (400..599); APIError itself for one of the 4xx that has none of its own."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
