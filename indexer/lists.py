"""Lists of files, as `--files-from` takes them: a path a line, or each ended with NUL."""

from __future__ import annotations

from pathlib import Path

from indexer.errors import ListInvalid
from search.files import decoded


def read_list(data: bytes, *, null: bool = False) -> list[Path]:
    """The paths that a list names, in order. Raises ListInvalid.

    Only `\\n` or `\\r\\n` end a line: other line separators of Unicode are parts of names. null: paths end with NUL
    instead, as `find -print0` writes them, and are taken as they are.
    """
    try:
        text = decoded(data, errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise ListInvalid("it is not UTF-8 or UTF-16") from error
    if null:
        return [Path(name) for name in text.split("\0") if name]
    if "\0" in text:
        raise ListInvalid("it holds NUL characters. For a list by find -print0 add -0; else save it as UTF-8")
    return [Path(line.removesuffix("\r")) for line in text.split("\n") if line.strip()]
