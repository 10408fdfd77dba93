"""The command `list`: the images of an index, or those that a filter lets through."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import DEFAULT_INDEX, Json, default_index, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from search.filters import Filter
    from search.index import Index
    from search.types import ImageRecord, JsonObject

PAGE = 1_000
"""Images read at once."""


def list_images(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    filter: Annotated[  # noqa: A002
        str | None, typer.Option(metavar="EXPR", help="Only these, e.g. label=cat,width>=1000,path~2024/*")
    ] = None,
    most: Annotated[int | None, typer.Option("-n", min=1, help="How many at most.  [all]")] = None,
    as_json: Json = False,
) -> None:
    """List images with their labels, in the order they were added."""
    from search.filters import parse_filter, parse_short
    from search.index import Index

    only = () if filter is None else (parse_filter(parse_short(filter)),)
    with Index.open(directory) as index:
        records = islice(_records(index, *only), most)
        if as_json:
            print_json({"images": [_facts(record) for record in records]})
            return
        found = False
        for record in records:
            labels = f"  [{', '.join(record.labels)}]" if record.labels else ""
            say(f"{record.paths[0] if record.paths else record.id}{labels}")
            found = True
        if not found:
            say("No image matches.")


def _facts(record: ImageRecord) -> JsonObject:
    return {
        "id": record.id,
        "paths": [*record.paths],
        "missing": record.missing,
        "labels": [*record.labels],
        "metadata": record.metadata,
    }


def _records(index: Index, *only: Filter) -> Iterator[ImageRecord]:
    after: int | None = 0
    while after is not None:
        records, after = index.catalog.page(after, PAGE, *only)
        yield from records
