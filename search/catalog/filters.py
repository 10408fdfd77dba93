"""Filters: which images may be hits. A JSON object, or the command line's short form, becomes one SQL condition."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from search.catalog.schema import images, labels, locations
from search.errors import FilterInvalid

COLUMNS = ("width", "height", "format", "taken_at")
NUMBER_FIELDS = ("width", "height")
TEXT_FIELDS = ("label", "path", "format", "taken_at")
FIELDS = "label, path, width, height, format, taken_at, metadata.<key>"
OPERATORS = "in, gte, gt, lte, lt, glob, exists"
MAX_DEPTH = 12
"""SQLite's parser keeps a hundred things in mind, and each level is several."""
MAX_TERMS = 200
"""Bounds what one request can make SQLite parse: its expression depth limit is 1,000."""
MAX_VALUES = 10_000
"""In all lists together: SQLite takes 32,766 values in a statement."""
MAX_TEXT = 1_000

Scalar = str | int | float | bool
Test = Callable[[ColumnElement[Any], ColumnElement[str]], ColumnElement[bool]]
"""A condition on a value and its type, which has one of SQLite's names for JSON types: `integer`, `text`, `true`."""
NUMBERS, BOOLEANS = ("integer", "real"), ("true", "false")


def compile_filter(expression: Mapping[str, Any]) -> ColumnElement[bool]:
    """The SQL condition on `images` that a filter object stands for. Raises FilterInvalid, naming the part.

    Keys are joined by `and`. A field's value is a scalar (equality) or an object of operators. `{"and": [...]}`,
    `{"or": [...]}` and `{"not": {...}}` nest. A field with several values (labels, paths, a metadata list) matches
    if one of them does; a missing one, or null, matches nothing but `{"exists": false}`. A value of the metadata is
    compared with values of its own JSON type: true is not 1, and an empty list exists.
    """
    return _Compiler().group(expression, depth=0)


class _Compiler:
    """Counts terms while it goes down, so that the size of the whole expression is bounded."""

    def __init__(self) -> None:
        self._terms = 0
        self._values = 0

    def group(self, expression: object, depth: int) -> ColumnElement[bool]:
        if not isinstance(expression, Mapping):
            raise FilterInvalid(f'A filter is a JSON object such as {{"label": "cat"}}, not {_kind(expression)}.')
        if depth > MAX_DEPTH:
            raise FilterInvalid(f"The filter is nested more than {MAX_DEPTH} deep.")
        self._count(0 if expression else 1)
        return and_(true(), *(self._term(key, value, depth) for key, value in expression.items()))

    def _count(self, terms: int, values: int = 0) -> None:
        self._terms += terms
        self._values += values
        if self._terms > MAX_TERMS or self._values > MAX_VALUES:
            raise FilterInvalid(f"The filter has more than {MAX_TERMS} conditions, or {MAX_VALUES:,} values in all.")

    def _term(self, key: object, value: object, depth: int) -> ColumnElement[bool]:
        if not isinstance(key, str):
            raise FilterInvalid(f"The keys of a filter are texts. Filter on: {FIELDS}.")
        listed = value.get("in") if isinstance(value, Mapping) else None
        self._count(1, len(listed) if isinstance(listed, list) else 0)
        if key in ("and", "or"):
            if not isinstance(value, list):
                raise FilterInvalid(f'"{key}" takes a list of filters, not {_kind(value)}.')
            parts = [self.group(part, depth + 1) for part in value]
            return and_(true(), *parts) if key == "and" else or_(false(), *parts)
        if key == "not":
            return not_(self.group(value, depth + 1))
        return _condition(key, value)


def _condition(name: str, value: object) -> ColumnElement[bool]:
    if not isinstance(value, Mapping):
        return _matches(name, _one_of([_scalar(name, value)]))
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
    found = _matches(name, (lambda value, kind: and_(*(test(value, kind) for test in tests))) if tests else None)
    return found if wanted else not_(found)


_COMPARISONS: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {"gte": ge, "gt": gt, "lte": le, "lt": lt}


def _test(name: str, operator: object, operand: object) -> Test:
    if operator == "in":
        if not isinstance(operand, list):
            raise FilterInvalid(f'"in" on {_shown(name)} takes a list of values.')
        return _one_of([_scalar(name, item) for item in operand])
    if operator == "glob":
        if not isinstance(operand, str) or len(operand) > MAX_TEXT:
            raise FilterInvalid(f'"glob" on {_shown(name)} takes a pattern such as "2024/*".')
        pattern = _text(name, operand)
        return lambda value, kind: and_(kind.not_in(BOOLEANS), cast(value, String).op("GLOB")(pattern))
    if isinstance(operator, str) and operator in _COMPARISONS:
        bound = _scalar(name, operand)
        if isinstance(bound, bool):
            raise FilterInvalid(f"{_shown(operator)} on {_shown(name)} takes a number or a text, not a boolean.")
        # SQLite orders every text after every number: without its type, a text would be "> 10".
        kinds, compare = ("text",) if isinstance(bound, str) else NUMBERS, _COMPARISONS[operator]
        return lambda value, kind: and_(kind.in_(kinds), compare(value, literal(bound)))
    raise FilterInvalid(f"Unknown operator {_shown(str(operator))} on {_shown(name)}. Use one of: {OPERATORS}.")


def _matches(name: str, test: Test | None) -> ColumnElement[bool]:
    """An SQL condition that some value passes `test`, or that there is one. Never NULL: `not` turns it round."""

    def passes(column: ColumnElement[Any]) -> ColumnElement[bool]:
        return true() if test is None else test(column, literal("integer" if name in NUMBER_FIELDS else "text"))

    if name in COLUMNS:
        stored = images.c[name]
        return func.coalesce(and_(stored.is_not(None), passes(stored)), false())
    # Not correlated: one look into an index, or through it, instead of one for every image.
    if name == "path":
        return images.c.rowid.in_(
            select(locations.c.image).where(locations.c.image.is_not(None), passes(locations.c.path))
        )
    if name == "label":
        return images.c.rowid.in_(select(labels.c.image).where(passes(labels.c.label)))
    if not name.startswith("metadata.") or len(name) == len("metadata."):
        raise FilterInvalid(f"Unknown field {_shown(name)}. Filter on: {FIELDS}.")
    key = _text(name, name.removeprefix("metadata."))
    if any(character in '"\\' or character < " " for character in key):
        raise FilterInvalid("A metadata key in a filter cannot contain a double quote, a backslash or a line break.")
    place = f'$."{key}"'
    whole = func.json_type(images.c.metadata, place)
    if test is None:
        return func.coalesce(whole != "null", false())
    # The value, or those of a list; what is inside an object has a name of its own.
    values = func.json_each(images.c.metadata, place).table_valued("value", "type", name="metadata_each")
    here = and_(whole != "object", values.c.type.not_in(("object", "array")), test(values.c.value, values.c.type))
    return exists(select(1).select_from(values).where(here).correlate(images))


def _one_of(wanted: Sequence[Scalar]) -> Test:
    # SQLite's JSON functions give true and false as 1 and 0: only their types tell them from numbers.
    booleans = {str(one).lower() for one in wanted if isinstance(one, bool)}
    others = [literal(one) for one in wanted if not isinstance(one, bool)]

    def test(value: ColumnElement[Any], kind: ColumnElement[str]) -> ColumnElement[bool]:
        found = [and_(value.in_(others), kind.not_in(BOOLEANS))] if others else []
        return or_(false(), *found, *([kind.in_(booleans)] if booleans else []))

    return test


def _scalar(name: str, value: object) -> Scalar:
    if name in NUMBER_FIELDS and isinstance(value, str | bool):
        raise FilterInvalid(f"{_shown(name)} is a number of pixels: it cannot be compared with {_kind(value)}.")
    if name in TEXT_FIELDS and isinstance(value, int | float):
        raise FilterInvalid(f'{_shown(name)} is a text: it cannot be compared with {_kind(value)}. Write e.g. "2024".')
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise FilterInvalid(f"The value for {_shown(name)} must be a text, a finite number of 64 bits, true or false.")


def _text(name: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise FilterInvalid(f"The value for {_shown(name)} is longer than {MAX_TEXT:,} characters.")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in value):
        raise FilterInvalid(f"The value for {_shown(name)} is not valid text.")
    return value


def _shown(name: str) -> str:
    """A name from the request, made safe to show: printable ASCII, short."""
    return ascii(name[:40])


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


_SHORT = re.compile(r"^\s*(?P<field>[^=<>!~]+?)\s*(?P<operator>>=|<=|!=|=|>|<|~)\s*(?P<value>.*?)\s*$", re.DOTALL)
_SHORT_OPERATORS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "~": "glob"}


def parse_short(text: str) -> dict[str, Any]:
    """The filter object for the command line's form: `label=cat,width>=1000`, comma-joined, all of them to be met.

    Operators: `=` `!=` `>=` `>` `<=` `<`, and `~` for a glob. A value that reads as a number is one; in double
    quotes it is a text, commas included. A text that begins with `{` is taken as the JSON object itself.
    """
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
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
    """What a shell user may mean by a value: `10` is a number where the field can hold one, and a text as well."""
    value = _unquoted(raw)
    if value != raw or name in TEXT_FIELDS:
        return [value]
    if name not in NUMBER_FIELDS and raw in ("true", "false"):
        return [raw == "true", raw]
    if not re.fullmatch(r"-?(0|[1-9]\d{0,17})(\.\d+)?([eE][+-]?\d{1,3})?", raw):
        return [raw]
    number = int(raw) if raw.lstrip("-").isdigit() else float(raw)
    return [number] if name in NUMBER_FIELDS else [number, raw]


def _unquoted(raw: str) -> str:
    return raw[1:-1] if len(raw) >= 2 and raw[0] == raw[-1] == '"' else raw
