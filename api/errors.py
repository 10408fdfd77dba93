"""Errors between an index and its clients. No status codes: `api.http.problems` has those.

ApiError
├── SettingInvalid      a setting in the environment that cannot be used
├── KeysInvalid         API keys that cannot be used
├── CannotServe         the server cannot start as it was asked to
├── ServerFailed        a server that the command line asked cannot be reached, or refused
└── ServingError        one request that a running service cannot answer
    ├── Overloaded      too much is under way
    ├── NotReady        a search would fail, or take too long
    ├── NotAnImage      bytes that begin like no image format
    ├── QuestionUnreadable   a part of a question that is not JSON
    ├── QuestionInvalid      a question that is well formed and cannot be meant
    ├── FileGone        an image's file is gone, or has changed
    ├── GroupsMissing   nobody has looked for duplicates of this kind yet
    ├── MapMissing      no map of a space was made yet
    ├── AddressRefused  an address that a watch may not tell
    ├── LinkInvalid     a guest's link that opens nothing, or not this
    └── SpaceInvalid    layers or a pooling that the index's model does not offer
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """Base of everything `api` raises on purpose; its message is made for the user."""

    exit_code: ClassVar[int] = 2


class SettingInvalid(ApiError):
    """A setting in the environment that cannot be read; the message names it."""


class KeysInvalid(ApiError):
    """Keys that cannot be used; the message says why, and shows none."""


class CannotServe(ApiError):
    """The server cannot start as it was asked to; the message says what to change."""


class ServerFailed(ApiError):
    """A server that cannot be reached, or that refused the question; the message is the server's own."""


class ServingError(ApiError):
    """Base of what a running service cannot do for one request."""


class Overloaded(ServingError):
    """More is under way than may wait; the same request succeeds later."""

    def __init__(self) -> None:
        super().__init__("The server is busy. Try again in a moment.")


class NotReady(ServingError):
    """A search would not be answered now. The log says why."""

    def __init__(self) -> None:
        super().__init__("The server cannot answer this now. Its log says why.")


class NotAnImage(ServingError):
    """Bytes that do not begin like any format we read."""

    def __init__(self) -> None:
        super().__init__(
            "The upload is not an image we read. Send a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file; HEIC and JPEG XL "
            "need the extras heif and jxl where the server is installed."
        )


class QuestionUnreadable(ServingError):
    """A question that cannot be read; the message says what was expected."""


class QuestionInvalid(ServingError):
    """A question that is well formed and cannot be meant; the message says what was expected."""


class FileGone(ServingError):
    """An image whose file is not there any more, or holds something else by now."""

    def __init__(self) -> None:
        super().__init__(
            "The image's file is not there any more, or has changed. "
            "Run `lookalike build` to bring the index up to date."
        )


class SpaceInvalid(ServingError):
    """A space that the index's model cannot give; the message says what there is."""


class GroupsMissing(ServingError):
    """A kind of duplicates that nobody has looked for."""

    def __init__(self, tier: str) -> None:
        super().__init__(
            "Nobody has looked for duplicates of this kind yet. Where the index is, run: "
            f"lookalike dups INDEX --tier {tier}"
        )


class MapMissing(ServingError):
    """A space of which there is no map."""

    def __init__(self) -> None:
        super().__init__("There is no map of this space yet. Where the index is, run: lookalike map INDEX --space NAME")


class AddressRefused(ServingError):
    """An address that a watch may not tell; the message says which it may."""


class LinkInvalid(ServingError):
    """A link that never was, has expired, was revoked, or does not allow this."""

    def __init__(self) -> None:
        super().__init__("This link opens nothing here. Ask whoever sent it for a new one.")
