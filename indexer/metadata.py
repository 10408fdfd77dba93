"""A `--metadata` file: labels and metadata for images by path or id, from CSV or JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.errors import MetadataInvalid
from search.catalog.annotations import checked_labels, checked_metadata
from search.errors import AnnotationInvalid


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What one line of the file says: which image (`id` or `path` relative to its root), and what to attach to it."""

    id: str | None
    path: str | None
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_metadata(file: Path) -> Iterator[Annotation]:
    """The annotations of a CSV file (with a header) or a JSON lines file, in order.

    Column `path` or `id` names the image; `labels` is a list, or a text with `;` between labels; every other column
    becomes metadata. CSV texts that read as numbers become numbers; empty cells are left out. Raises
    MetadataInvalid, naming the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = _json_rows(lines, file) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(lines, file)
            for number, row in rows:
                yield _annotation(row, f"{file}, line {number}")
    except UnicodeDecodeError as error:
        raise MetadataInvalid(f"{file} is not UTF-8 text. Save it as UTF-8 and try again.") from error
    except OSError as error:
        raise MetadataInvalid(f"{file} cannot be read: {error.strerror}.") from error


def _csv_rows(lines: Any, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines)
    if not {"path", "id"} & set(reader.fieldnames or ()):
        raise MetadataInvalid(f"{file} needs a header with a column `path` or `id`.")
    try:
        for row in reader:
            if None in row:
                raise MetadataInvalid(f"{file}, line {reader.line_num}: more cells than the header has columns.")
            cells = {key: value for key, value in row.items() if value not in (None, "")}
            texts = ("id", "path", "labels")
            yield reader.line_num, {key: cells[key] if key in texts else _number(cells[key]) for key in cells}
    except csv.Error as error:
        raise MetadataInvalid(f"{file}, line {reader.line_num}: {error}.") from error


def _json_rows(lines: Any, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
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
    labels = row.get("labels") or ()
    try:
        for text in filter(None, identity.values()):
            str(text).encode()
        return Annotation(
            id=identity["id"] or None,
            path=identity["path"] or None,
            labels=checked_labels(labels.split(";") if isinstance(labels, str) else labels),
            metadata=checked_metadata({key: row[key] for key in row.keys() - {"id", "path", "labels"}}),
        )
    except UnicodeEncodeError as error:
        raise MetadataInvalid(f"{where}: the `path` or `id` is not valid text.") from error
    except (AnnotationInvalid, TypeError) as error:
        raise MetadataInvalid(f"{where}: {error}") from error


def _number(text: str) -> str | int | float:
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})\.\d+", text):
        return float(text)
    return text
