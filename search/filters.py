"""Filters: which images may be hits. JSON or the command line's short form is parsed once, to a frozen tree.

The catalog compiles the tree to SQL (`search.catalog.conditions`); another engine would compile the same tree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from search.errors import FilterInvalid

NUMBER_FIELDS = ("width", "height", "bytes", "latitude", "longitude")
STRING_FIELDS = ("label", "path", "root", "format", "camera", "taken_at")
PRESENCE_FIELDS = ("gps",)
"""Fields that are there or not, and have no one value to compare."""
FIELDS = f"{', '.join((*STRING_FIELDS, *NUMBER_FIELDS, *PRESENCE_FIELDS))}, metadata.<key>"
OPERATORS = "in, gte, gt, lte, lt, glob, exists"
FORMAT_ALIASES = {
    **dict.fromkeys(("jpg", "jpe"), "jpeg"),
    **dict.fromkeys(("heif", "hif"), "heic"),
    **dict.fromkeys(("jp2", "j2k"), "jpeg2000"),
    "tif": "tiff",
}
"""Other names of formats, with those of the catalog."""
MAX_DEPTH = 12
"""Levels of nesting: SQLite's parser holds a hundred levels, and each of ours is several of its own."""
MAX_TERMS = 200
"""Conditions: SQLite's limit for the depth of an expression is 1,000."""
MAX_VALUES = 10_000
"""Values of all lists together: SQLite takes 32,766 in a statement."""
MAX_STRING_CHARACTERS = 1_000

Scalar = str | int | float | bool


@dataclass(frozen=True)
class OneOf:
    """The value is one of these. None of them: nothing matches."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Compare:
    """The value is of the bound's JSON type, and compares with it so."""

    operator: Literal["gte", "gt", "lte", "lt"]
    bound: str | int | float


@dataclass(frozen=True)
class Glob:
    """The value matches a pattern with `*`, `?` and `[...]`. A bracket also stands for itself."""

    pattern: str


Test = OneOf | Compare | Glob


@dataclass(frozen=True)
class Condition:
    """One value of a field passes all tests; without any test, the field has a value.

    `field` is one of `STRING_FIELDS`, `NUMBER_FIELDS`, `PRESENCE_FIELDS`, or `metadata.` and a key.
    """

    field: str
    tests: tuple[Test, ...] = ()


@dataclass(frozen=True)
class And:
    """All parts match. No part: everything matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Or:
    """One part matches. No part: nothing matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The part does not match."""

    part: Filter


@dataclass(frozen=True)
class Present:
    """A file of the image was there when a build last looked, or it has no location. Nobody can type it."""


@dataclass(frozen=True)
class Added:
    """The image got its vector in a space after one change, and not after another one, by their `seq`. It was added
    after `since`, and not before the space. Nobody can type it.
    """

    space: str
    after: int
    upto: int
    since: int


Filter = And | Or | Not | Condition | Present | Added


class KeyTwice(ValueError):
    """JSON in which an object has a key twice: the last would count, and a condition before it would not."""

    def __init__(self) -> None:
        super().__init__("an object has a key twice")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, KeyTwice, RecursionError."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyTwice
    return found


def parse_filter(expression: object) -> Filter:
    """The tree that a filter object stands for. Raises FilterInvalid, naming the part.

    Keys are joined by `and`. A field's value is a scalar (equality) or an object of operators. `{"and": [...]}`,
    `{"or": [...]}` and `{"not": {...}}` nest. A field with several values (labels, paths, a metadata list) matches
    if one of them does; a missing one, or null, matches nothing but `{"exists": false}`. A value of the metadata is
    compared with values of its own JSON type: true is not 1, and an empty list exists.
    """
    return _Parser().group(expression, depth=0)


class _Parser:
    """Counts terms while it goes down, so that the size of the whole expression is bounded."""

    def __init__(self) -> None:
        self._terms = 0
        self._values = 0

    def group(self, expression: object, depth: int) -> Filter:
        if not isinstance(expression, Mapping):
            raise FilterInvalid(f'A filter is a JSON object such as {{"label": "cat"}}, not {_kind(expression)}.')
        if depth > MAX_DEPTH:
            raise FilterInvalid(f"The filter is nested more than {MAX_DEPTH} deep.")
        self._count(0 if expression else 1)
        parts = tuple(self._term(key, value, depth) for key, value in expression.items())
        return parts[0] if len(parts) == 1 else And(parts)

    def _count(self, terms: int, values: int = 0) -> None:
        self._terms += terms
        self._values += values
        if self._terms > MAX_TERMS or self._values > MAX_VALUES:
            raise FilterInvalid(f"The filter has more than {MAX_TERMS} conditions, or {MAX_VALUES:,} values in all.")

    def _term(self, key: object, value: object, depth: int) -> Filter:
        if not isinstance(key, str):
            raise FilterInvalid(f"The keys of a filter are strings. Filter on: {FIELDS}.")
        listed = value.get("in") if isinstance(value, Mapping) else None
        self._count(1, len(listed) if isinstance(listed, list) else 0)
        if key in ("and", "or"):
            if not isinstance(value, list):
                raise FilterInvalid(f'"{key}" takes a list of filters, not {_kind(value)}.')
            parts = tuple(self.group(part, depth + 1) for part in value)
            return And(parts) if key == "and" else Or(parts)
        if key == "not":
            return Not(self.group(value, depth + 1))
        return _condition(key, value)


def _condition(name: str, value: object) -> Filter:
    _check_field(name)
    if not isinstance(value, Mapping):
        return _tested(name, (OneOf((_scalar(name, value),)),))
    if not value:
        raise FilterInvalid(f"The condition on {_shown(name)} is empty. Use one of: {OPERATORS}.")
    # Each operator may be met by another value of the field, as in "one label is a, one is not b"; a range on one
    # value is what people mean by gte + lte, so all tests of a condition go to the same value.
    tests: list[Test] = []
    wanted = True
    for operator, operand in value.items():
        if operator == "exists":
            if not isinstance(operand, bool):
                raise FilterInvalid(f'"exists" on {_shown(name)} takes true or false.')
            wanted = operand
        else:
            tests.append(_test(name, operator, operand))
    if not wanted and tests:
        raise FilterInvalid(f'"exists": false on {_shown(name)} leaves nothing for the other conditions to test.')
    found = _tested(name, tuple(tests))
    return found if wanted else Not(found)


def _tested(name: str, tests: tuple[Test, ...]) -> Condition:
    if name in PRESENCE_FIELDS and tests:
        raise FilterInvalid(
            f'{_shown(name)} takes only {{"exists": true}} or false. For a place, compare latitude and longitude.'
        )
    return Condition(name, tests)


def _check_field(name: str) -> None:
    if name in (*STRING_FIELDS, *NUMBER_FIELDS, *PRESENCE_FIELDS):
        return
    if not name.startswith("metadata.") or len(name) == len("metadata."):
        raise FilterInvalid(f"Unknown field {_shown(name)}. Filter on: {FIELDS}.")
    key = _string(name, name.removeprefix("metadata."))
    if any(character in '"\\' or character < " " for character in key):
        raise FilterInvalid("A metadata key in a filter cannot contain a double quote, a backslash or a line break.")


def _test(name: str, operator: object, operand: object) -> Test:
    if operator == "in":
        if not isinstance(operand, list):
            raise FilterInvalid(f'"in" on {_shown(name)} takes a list of values.')
        return OneOf(tuple(_scalar(name, item) for item in operand))
    if operator == "glob":
        if not isinstance(operand, str) or len(operand) > MAX_STRING_CHARACTERS:
            raise FilterInvalid(f'"glob" on {_shown(name)} takes a pattern such as "2024/*".')
        return Glob(_string(name, operand))
    if operator in ("gte", "gt", "lte", "lt"):
        bound = _scalar(name, operand)
        if isinstance(bound, bool):
            raise FilterInvalid(f"{_shown(operator)} on {_shown(name)} takes a number or a string, not a boolean.")
        return Compare(operator, bound)
    raise FilterInvalid(f"Unknown operator {_shown(str(operator))} on {_shown(name)}. Use one of: {OPERATORS}.")


def _scalar(name: str, value: object) -> Scalar:
    if name in NUMBER_FIELDS and isinstance(value, str | bool):
        raise FilterInvalid(f"{_shown(name)} is a number: it cannot be compared with {_kind(value)}.")
    if name == "taken_at" and isinstance(value, str) and not _is_moment(value):
        raise FilterInvalid('"taken_at" is a real date such as "2024", "2024-05", "2024-05-31" or "2024-05-31T14:30".')
    if name in STRING_FIELDS and isinstance(value, int | float):
        raise FilterInvalid(f'{_shown(name)} is a string: it cannot be compared with {_kind(value)}. Quote it: "2024".')
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        string = _string(name, value)
        return FORMAT_ALIASES.get(string.lower(), string.lower()) if name == "format" else string
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise FilterInvalid(f"The value for {_shown(name)} must be a string, a finite number of 64 bits, true or false.")


def _string(name: str, value: str) -> str:
    if len(value) > MAX_STRING_CHARACTERS:
        raise FilterInvalid(f"The value for {_shown(name)} is longer than {MAX_STRING_CHARACTERS:,} characters.")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in value):
        raise FilterInvalid(f"The value for {_shown(name)} holds a character that is not valid Unicode, or a NUL.")
    return value


def _shown(name: str) -> str:
    """A name from the request, made safe to show: printable ASCII, short."""
    return ascii(name[:40])


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def _is_moment(value: str) -> bool:
    if not _MOMENT.fullmatch(value):
        return False
    day = value[: len("YYYY-MM-DD")]
    with suppress(ValueError):
        return len(day) < len("YYYY-MM-DD") or bool(date.fromisoformat(day))
    return False


_MOMENT = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-\d\d(T([01]\d|2[0-3])(:[0-5]\d(:[0-5]\d)?)?)?)?)?", re.ASCII)
"""The form of a time as images have it, `YYYY-MM-DDTHH:MM:SS`, or of its beginning."""
_SHORT = re.compile(r"^\s*(?P<field>[^=<>!~]+?)\s*(?P<operator>>=|<=|!=|=|>|<|~)\s*(?P<value>.*?)\s*$", re.DOTALL)
_SHORT_OPERATORS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "~": "glob"}


def parse_short(text: str) -> dict[str, Any]:
    """The filter object for the command line's form: `label=cat,width>=1000`, comma-joined, all of them to be met.

    Operators: `=` `!=` `>=` `>` `<=` `<`, and `~` for a glob. A value that reads as a number is one; in double
    quotes it is a string, commas included. What begins with `{` is taken as the JSON object itself. Raises
    FilterInvalid.
    """
    if text.lstrip().startswith("{"):
        try:
            value = parse_json(text)
        except ValueError as error:
            raise FilterInvalid(f"The filter begins with {{ but is not valid JSON: {error}.") from error
        except RecursionError as error:
            raise FilterInvalid(f"The filter is nested more than {MAX_DEPTH} deep.") from error
        return dict(value)
    if text.count('"') % 2:
        raise FilterInvalid('A double quote of the filter is not closed. Write e.g. metadata.name="a, b".')
    terms: list[dict[str, Any]] = []
    for part in re.findall(r'(?:[^,"]|"[^"]*")+', text):
        match = _SHORT.match(part)
        if not match or match["value"].startswith(("=", "<", ">", "~", "!")):
            raise FilterInvalid(f"Cannot read the filter {_shown(part)}. Write e.g. label=cat,width>=1000,path~2024/*.")
        name, operator, raw = match["field"], match["operator"], match["value"]
        if operator == "~":
            terms.append({name: {"glob": _unquoted(raw)}})
        elif operator in _SHORT_OPERATORS:
            terms.append({name: {_SHORT_OPERATORS[operator]: _values(name, raw)[0]}})
        else:
            equal: dict[str, Any] = {name: {"in": _values(name, raw)}}
            terms.append(equal if operator == "=" else {"not": equal})
    if not terms:
        raise FilterInvalid("The filter is empty. Write e.g. label=cat,width>=1000.")
    return terms[0] if len(terms) == 1 else {"and": terms}


def _values(name: str, raw: str) -> list[Scalar]:
    """Every value that a shell user may mean: `10` is a number where the field can hold one, and a string as well."""
    value = _unquoted(raw)
    if value != raw or name in STRING_FIELDS:
        return [value]
    if name not in NUMBER_FIELDS and raw in ("true", "false"):
        return [raw == "true", raw]
    if not re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][+-]?\d{1,3})?", raw):
        return [raw]
    number = int(raw) if raw.lstrip("-").isdigit() else float(raw)
    return [number] if name in NUMBER_FIELDS else [number, raw]


def _unquoted(raw: str) -> str:
    return raw[1:-1] if len(raw) >= 2 and raw[0] == raw[-1] == '"' else raw
