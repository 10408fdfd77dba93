"""How every command prints: results on stdout, words about them on stderr."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_INDEX = "$LOOKALIKE_INDEX or ./lookalike.index"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
EXIT_REJECTED = 3
"""Done, but some inputs were rejected; they are listed."""


def default_index() -> Path:
    """The index that commands use when none is named."""
    return Path(os.environ.get("LOOKALIKE_INDEX") or "lookalike.index")


def print_json(answer: object) -> None:
    """Print an answer as one JSON object on stdout."""
    print(json.dumps(answer, ensure_ascii=False, allow_nan=False))  # noqa: T201


def say(text: str) -> None:
    """Print a line of a result on stdout; names that are not valid text are shown escaped."""
    print(text.encode(errors="backslashreplace").decode())  # noqa: T201


def warn(text: str) -> None:
    """Print a line about a result, rather than of it, on stderr."""
    print(text.encode(errors="backslashreplace").decode(), file=sys.stderr)  # noqa: T201


def plural(count: int, noun: str) -> str:
    """`1 image`, `1,234 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def megabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
