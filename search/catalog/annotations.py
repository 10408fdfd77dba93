"""Labels and metadata: what a user may attach to an image, checked before it reaches the catalog."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from search.errors import AnnotationInvalid

MAX_LABELS = 1_000
MAX_LABEL = 500
"""Characters. Generous: a label may be a folder's path."""
MAX_METADATA = 256 * 1024
"""Characters of JSON: every search that finds the image reads and sends them."""
MAX_DEPTH = 10


def checked_labels(labels: Iterable[Any]) -> tuple[str, ...]:
    """Labels without surrounding space, duplicates and empty ones, sorted. Raises AnnotationInvalid."""
    texts = list(labels)
    if not all(isinstance(label, str) for label in texts):
        raise AnnotationInvalid("Labels must be strings.")
    kept = {label.strip() for label in texts if label.strip()}
    if len(kept) > MAX_LABELS or any(len(label) > MAX_LABEL for label in kept):
        raise AnnotationInvalid(f"An image has at most {MAX_LABELS:,} labels of {MAX_LABEL} characters each.")
    for label in kept:
        _check_text(label)
    return tuple(sorted(kept))


def checked_metadata(metadata: Any) -> dict[str, Any]:
    """The metadata object itself, once every value in it can be stored and read back. Raises AnnotationInvalid."""
    if not isinstance(metadata, Mapping):
        raise AnnotationInvalid('Metadata is a JSON object, such as {"price": 12.5}.')
    _check(metadata, depth=0)
    if len(json.dumps(metadata, ensure_ascii=False)) > MAX_METADATA:
        raise AnnotationInvalid(f"An image's metadata is at most {MAX_METADATA:,} characters of JSON.")
    return dict(metadata)


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise AnnotationInvalid(f"Metadata is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise AnnotationInvalid("Metadata keys must be strings.")
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise AnnotationInvalid("Numbers in metadata must be finite.")
    elif isinstance(value, int) and abs(value) >= 2**63:  # SQLite's integers end there
        raise AnnotationInvalid("Integers in metadata must fit 64 bits.")
    elif value is not None and not isinstance(value, int | float):
        raise AnnotationInvalid("Metadata holds strings, numbers, true, false, null, lists and objects.")


def _check_text(text: str) -> None:
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in text):
        raise AnnotationInvalid("Labels and metadata must be valid Unicode strings without NUL.")


def merge_metadata(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, object]:
    """An object with a patch merged into it (RFC 7396): a value replaces a key's, null removes the key."""
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = merge_metadata(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged
