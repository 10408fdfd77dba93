"""What commands that search share: telling pictures from words, ids, and hits on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import typer

from search.console import say


class Meant(NamedTuple):
    """What is looked for: a picture's path, there or not, or words, or a prompt of several parts."""

    picture: Path | None = None
    words: str | None = None
    prompt: str | None = None


def meant(asks: str) -> Meant:
    """What somebody typed. A file that is there is that file; else it is read as a prompt is, which may be one path.

    Raises PromptInvalid, BadParameter.
    """
    from indexer.sources import as_on_disk
    from search.query.prompt import read_prompt

    with suppress(OSError, ValueError):  # words may be longer than any name
        if as_on_disk(Path(asks)).is_file():
            return Meant(picture=Path(asks))
    if not asks.isascii() and asks != asks.encode("utf-8", "replace").decode("utf-8"):
        raise typer.BadParameter("The words are not text in UTF-8. Type them again.", param_hint="IMAGE|WORDS|PROMPT")
    prompt = read_prompt(asks)
    if len(prompt.parts) == 1 and not prompt.style and prompt.parts[0].kind == "path" and prompt.parts[0].weight == 1:
        return Meant(picture=Path(prompt.parts[0].value))
    words = prompt.only_words
    return Meant(words=words) if words is not None else Meant(prompt=asks)


def checked_id(text: str, option: str = "--id") -> str:
    """An id as the index has it. Raises BadParameter, which names the option."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise typer.BadParameter("An id is 64 hexadecimal digits: the SHA-256 of the file.", param_hint=option)
    return text.lower()


def numbers(text: str) -> tuple[float, float, float, float]:
    """The box that --box means. Raises BadParameter."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter("Four numbers: x,y,width,height in pixels.", param_hint="--box") from error
    return x, y, width, height


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
        match = "" if hit["match"] is None else f" (match {hit['match']:.2f})"
        say(f"{hit['score']:.4f}{probable}  {hit['path'] or hit['id']}{box}{match}{labels}{copies}")
