"""A `--metadata` file: labels and metadata for images by path or id, from CSV or JSON lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from indexer.errors import MetadataInvalid
from search.catalog.annotations import checked_labels, checked_metadata
from search.errors import AnnotationInvalid
from search.files import decoded
from search.filters import KeyTwice, parse_json

SPECIAL_COLUMNS = {"id", "path", "labels"}
SEPARATORS = (",", ";", "\t")
HEADER_CHARACTERS = 1_000
"""Looked through for NUL, which UTF-16 without a mark is full of."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One line of the file: which image (`id` or `path` relative to its root), and what to attach to it."""

    id: str | None
    path: str | None
    labels: tuple[str, ...] | None = None
    """None: the line says nothing about labels."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_metadata(file: Path) -> Iterator[Annotation]:
    """The annotations of a CSV file (with a header) or a JSON lines file, in order.

    Column `path` or `id`, in any case, names the image; `labels` is a list, or a string with `;` between labels; every
    other column becomes metadata. CSV values that read as numbers become numbers; empty cells are left out. Taken as
    spreadsheets write them: with `,`, `;` or tabs, in UTF-8 or marked UTF-16, after a line `sep=;`. Raises
    MetadataInvalid, naming the line.
    """
    try:
        text = decoded(file.read_bytes())
    except UnicodeDecodeError as error:
        raise MetadataInvalid(f"{file} is not UTF-8. Save it as UTF-8 and try again.") from error
    except OSError as error:
        raise MetadataInvalid(f"{file} cannot be read: {error.strerror}.") from error
    if "\0" in text[:HEADER_CHARACTERS]:
        raise MetadataInvalid(f"{file} holds NUL characters. Save it as UTF-8 and try again.")
    lines = StringIO(text, newline="")
    rows = _json_rows(lines, file) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(lines, file)
    for number, row in rows:
        yield _annotation(row, f"{file}, line {number}")


def _csv_rows(lines: StringIO, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    separator, skipped = _separator(lines)
    reader = csv.reader(lines, delimiter=separator)
    try:
        header = [_column(name) for name in next(reader, [])]
        if not {"path", "id"} & {*header}:
            raise MetadataInvalid(
                f"{file} needs a header with a column `path` or `id`, and `,`, `;` or tabs between columns."
            )
        # Columns without a name may be several: a spreadsheet has them where nothing is.
        if doubled := [name for name in header if name and header.count(name) > 1]:
            raise MetadataInvalid(f"{file} has two columns `{doubled[0]}`. Keep one.")
        for cells in reader:
            where = reader.line_num + skipped
            if any(cells[len(header) :]):
                raise MetadataInvalid(f"{file}, line {where}: more cells than the header has columns.")
            row = dict(zip(header, cells, strict=False))
            if any(row.values()):  # a spreadsheet goes on below its last row
                yield (
                    where,
                    {
                        name: value if name in SPECIAL_COLUMNS else _number(value, comma=separator == ";")
                        for name, value in row.items()
                        if value or name == "labels"
                    },
                )
    except csv.Error as error:
        raise MetadataInvalid(f"{file}, line {reader.line_num + skipped}: {error}.") from error


def _separator(lines: StringIO) -> tuple[str, int]:
    """The separator of a table's cells, and the number of lines before its header. Leaves `lines` at the header."""
    first = lines.readline()
    named = re.fullmatch(r'"?sep=(.)"?', first.rstrip("\r\n"), re.IGNORECASE)
    if named:
        return named[1], 1
    lines.seek(0)
    header = first.rstrip("\r\n").replace('"', "")
    found = (one for one in SEPARATORS if {"path", "id"} & {_column(name) for name in header.split(one)})
    return next(found, ","), 0


def _column(name: str) -> str:
    """A column by its name in a header: spreadsheets and people write `Path` and `LABELS`."""
    special = name.strip().lower()
    return special if special in SPECIAL_COLUMNS else name.strip()


def _json_rows(lines: Any, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = parse_json(line)
            except KeyTwice as error:
                raise MetadataInvalid(f"{file}, line {number}: {error}. Keep one.") from error
            except (ValueError, RecursionError) as error:
                raise MetadataInvalid(f"{file}, line {number}: not valid JSON: {error}.") from error
            if not isinstance(row, dict):
                raise MetadataInvalid(f"{file}, line {number}: each line must be a JSON object.")
            yield number, row


def _annotation(row: Mapping[str, Any], where: str) -> Annotation:
    identity = {key: row.get(key) for key in ("id", "path")}
    if not any(identity.values()) or any(
        value is not None and not isinstance(value, str) for value in identity.values()
    ):
        raise MetadataInvalid(f"{where}: a `path` or an `id` is needed to tell which image is meant.")
    labels = row.get("labels")
    try:
        for text in filter(None, identity.values()):
            str(text).encode()
        return Annotation(
            id=(identity["id"] or "").lower() or None,
            path=identity["path"] or None,
            labels=None if labels is None else checked_labels(labels.split(";") if isinstance(labels, str) else labels),
            metadata=checked_metadata({key: row[key] for key in row.keys() - SPECIAL_COLUMNS}),
        )
    except UnicodeEncodeError as error:
        raise MetadataInvalid(f"{where}: the `path` or `id` is not a valid string.") from error
    except (AnnotationInvalid, TypeError) as error:
        raise MetadataInvalid(f"{where}: {error}") from error


def _number(value: str, *, comma: bool) -> str | int | float:
    """A cell as a number where it reads as one. comma: tables with `;` are of languages that write 12,5."""
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", value):
        return int(value)
    if re.fullmatch(rf"-?(0|[1-9]\d{{0,17}})[{'.,' if comma else '.'}]\d+", value):
        return float(value.replace(",", "."))
    return value
