"""How every command prints: results on stdout, words about them on stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from search.names import UNPRINTABLE, escaped

DEFAULT_INDEX = "$LOOKALIKE_INDEX or ./lookalike.index"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
EXIT_REJECTED = 3
"""Done, but some inputs were rejected; they are listed."""


def default_index() -> Path:
    """The index that commands use when none is named."""
    return Path(os.environ.get("LOOKALIKE_INDEX") or "lookalike.index")


def prepare_streams() -> None:
    """Let stdout show what its encoding lacks as escapes, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_json(answer: object) -> None:
    """Print an answer as one JSON object on stdout: in ASCII where the stream's encoding lacks a character of it."""
    line = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    line = UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)  # the same JSON, and harmless
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(answer, allow_nan=False)
    print(line)  # noqa: T201


def print_paths(paths: Iterable[str], *, end: str = "\n") -> None:
    """Print paths on stdout: on a terminal as people can read them, else the names' own bytes, whatever they are."""
    if sys.stdout.isatty():
        for path in paths:
            say(path)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())
    broken = 0
    for path in paths:
        print(path, end=end)  # noqa: T201
        broken += end in path
    if broken:
        warn(f"{plural(broken, 'path')} with a line break in it; to tell where each ends, add -0")


def say(line: str) -> None:
    """Print a line of a result on stdout. Names in it cannot drive a terminal, nor begin another line."""
    print(escaped(line))  # noqa: T201


def warn(line: str) -> None:
    """Print a line about a result, rather than of it, on stderr. Names are shown as `say` does."""
    print(escaped(line), file=sys.stderr)  # noqa: T201


def plural(count: int, noun: str) -> str:
    """`1 image`, `1,234 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_size(count: int) -> str:
    """A number of bytes as people read it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return plural(count, "byte")
