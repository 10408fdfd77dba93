"""What commands that search share: telling pictures from words, ids, and hits on a terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from search.console import say


def is_picture(asks: str) -> bool:
    """Whether what is looked for is a picture's path, there or not, and not words."""
    from indexer.pictures.formats import FORMATS
    from indexer.sources import as_on_disk

    if "/" in asks or os.sep in asks:
        return True
    with suppress(OSError, ValueError):  # words may be longer than any name
        if as_on_disk(Path(asks)).is_file():
            return True
    return any(asks.lower().endswith(f".{end}") for one in FORMATS for end in one.extensions)


def checked_id(text: str, option: str = "--id") -> str:
    """An id as the index has it. Raises BadParameter, which names the option."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise typer.BadParameter("An id is 64 hexadecimal digits: the SHA-256 of the file.", param_hint=option)
    return text.lower()


def print_hits(answer: Mapping[str, Any]) -> None:
    """Print the hits of a search's answer."""
    if not answer["hits"]:
        say("No image matches.")
    print_lines(answer["hits"])


def print_lines(hits: Iterable[Mapping[str, Any]]) -> None:
    """Print hits, one a line."""
    for hit in hits:
        labels = f"  [{', '.join(hit['labels'])}]" if hit["labels"] else ""
        copies = f"  (+{hit['copy_count']:,} alike)" if hit["copy_count"] else ""
        probable = "" if hit["probability"] is None else f"  {hit['probability']:4.0%}"
        box = "" if hit["box"] is None else f"  at {','.join(map(str, hit['box']))}"
        say(f"{hit['score']:.4f}{probable}  {hit['path'] or hit['id']}{box}{labels}{copies}")
