"""A file as an answer: conditions, ranges, and the name it is saved under (RFC 9110, RFC 6266)."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.http import problems

READ_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(?P<first>[0-9]*)-(?P<last>[0-9]*)", re.IGNORECASE)
_SAVED_AS = re.compile(r"[^ !#-$&-\[\]-~]")
"""Characters that a plain `filename` lacks: quotes, backslashes, `%` (some browsers decode it), non-ASCII, controls."""


def is_known(request: Request, etag: str) -> bool:
    """Whether the client says that it has this content: by `If-None-Match`, one tag, several, or `*`."""
    tags = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]


def content_disposition(name: str) -> str:
    """The header that names a file without its folder. No character of it can end the header, or hide its extension."""
    # Control, format (such as right-to-left) and surrogate characters.
    shown = "".join("_" if unicodedata.category(one).startswith("C") else one for one in name)
    plain = _SAVED_AS.sub("_", shown)
    told = f'inline; filename="{plain}"'
    return told if plain == name else f"{told}; filename*=UTF-8''{quote(shown, safe='')}"


def sent(request: Request, opened: BinaryIO, headers: dict[str, str], media_type: str) -> Response:
    """The answer that sends an open file, or the range of it that is asked for, and closes it.

    headers: with its `ETag`. Raises Problem 416 for a range that begins behind its end.
    """
    size = os.fstat(opened.fileno()).st_size
    headers = headers | {"Accept-Ranges": "bytes"}
    if request.method == "HEAD":  # to which ranges mean nothing
        opened.close()
        return Response(media_type=media_type, headers=headers | {"Content-Length": str(size)})
    part = _part(request, size, headers["ETag"])
    if part is None:
        headers |= {"Content-Length": str(size)}
        return StreamingResponse(_chunks(opened, size), media_type=media_type, headers=headers)
    if not part:
        opened.close()
        raise problems.range_outside(size)
    opened.seek(part.start)
    headers |= {"Content-Length": str(len(part)), "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}"}
    return StreamingResponse(_chunks(opened, len(part)), status_code=206, media_type=media_type, headers=headers)


def _part(request: Request, size: int, etag: str) -> range | None:
    """The bytes that are asked for, none of them where they lie behind the end; None for the whole file.

    Several ranges at once, and what is no range, get the whole file, as the standard allows.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match["first"], match["last"]
    if len(first) > 18 or len(last) > 18 or not (first or last):
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)


def _chunks(opened: BinaryIO, count: int) -> Iterator[bytes]:
    with opened:
        while chunk := opened.read(min(READ_CHUNK_BYTES, count)):
            count -= len(chunk)
            yield chunk
