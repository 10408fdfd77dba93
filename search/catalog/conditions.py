"""Filters as SQL conditions on `images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    case,
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

from search.catalog.schema import embeddings, images, labels, locations, spaces
from search.filters import NUMBER_FIELDS, Added, And, Compare, Condition, Filter, Glob, Not, OneOf, Or, Present, Test
from search.names import composed, folded

NUMBERS, BOOLEANS = ("integer", "real"), ("true", "false")
_COMPARISONS: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {"gte": ge, "gt": gt, "lte": le, "lt": lt}


def sql_condition(tree: Filter) -> ColumnElement[bool]:
    """The SQL condition that a filter stands for. It is never NULL: `not` turns it round."""
    match tree:
        case And(parts):
            return and_(true(), *map(sql_condition, parts))
        case Or(parts):
            return or_(false(), *map(sql_condition, parts))
        case Not(part):
            return not_(sql_condition(part))
        case Condition(field, tests):
            return _condition(field, tests)
        case Present():
            return images.c.rowid.not_in(_missing())
        case Added():
            return _added(tree)


def _added(here: Added) -> ColumnElement[bool]:
    """That of images whose vectors came with them, and of those whose vectors came later. Each has one `seq`."""
    space = and_(spaces.c.space == embeddings.c.space_id, spaces.c.name == here.space, spaces.c.dropped == 0)
    late = select(embeddings.c.image_rowid).join(spaces, space).join(images, images.c.rowid == embeddings.c.image_rowid)
    late = late.where(embeddings.c.seq > here.after, embeddings.c.seq <= here.upto)
    late = late.where(images.c.seq > here.since, images.c.seq > func.coalesce(spaces.c.added_seq, 0))
    later = exists().where(embeddings.c.image_rowid == images.c.rowid, embeddings.c.seq > here.upto, space)
    came = and_(images.c.seq > here.after, images.c.seq <= here.upto, ~later.correlate(images))
    return or_(came, images.c.rowid.in_(late))


def _missing() -> Select[tuple[int]]:
    """The rowids of images whose files are all gone: one look through the locations, however many there are."""
    there = locations.alias()
    elsewhere = exists().where(there.c.image == locations.c.image, there.c.missing_since.is_(None))
    gone = locations.c.missing_since.is_not(None), locations.c.image.is_not(None), ~elsewhere.correlate(locations)
    return select(locations.c.image).where(*gone)


def _condition(name: str, tests: Sequence[Test]) -> ColumnElement[bool]:
    if name == "gps":
        return and_(images.c.latitude.is_not(None), images.c.longitude.is_not(None))
    # Not correlated: one look into an index, or through it, instead of one for every image.
    if name == "label":
        return images.c.rowid.in_(select(labels.c.image).where(_label(tests)))
    if name in ("path", "root"):
        found = _path(tests) if name == "path" else _root(tests)
        return images.c.rowid.in_(select(locations.c.image).where(locations.c.image.is_not(None), found))
    if name.startswith("metadata."):
        return _metadata(name.removeprefix("metadata."), tests)
    stored = images.c[name]
    if name in NUMBER_FIELDS:
        passed = _all(tests, stored, literal("integer"))
    elif name == "taken_at":
        passed = _moment(tests, stored)
    else:  # format and camera, in any case
        passed = _all([_lowered(test) for test in tests], func.lower(stored), literal("text"))
    return func.coalesce(and_(stored.is_not(None), passed), false())


def _all(tests: Sequence[Test], value: ColumnElement[Any], kind: ColumnElement[str]) -> ColumnElement[bool]:
    """A value passes all tests. kind: its type, by SQLite's names for JSON types: `integer`, `text`, `true`."""
    return and_(true(), *(_passes(test, value, kind) for test in tests))


def _passes(test: Test, value: ColumnElement[Any], kind: ColumnElement[str]) -> ColumnElement[bool]:
    match test:
        case OneOf(values):
            # SQLite's JSON functions give true and false as 1 and 0: only their types tell them from numbers.
            booleans = {str(one).lower() for one in values if isinstance(one, bool)}
            others = [literal(one) for one in values if not isinstance(one, bool)]
            found = [and_(value.in_(others), kind.not_in(BOOLEANS))] if others else []
            return or_(false(), *found, *([kind.in_(booleans)] if booleans else []))
        case Compare(operator, bound):
            # SQLite orders every string after every number: without its type, a string would be "> 10".
            kinds = ("text",) if isinstance(bound, str) else NUMBERS
            return and_(kind.in_(kinds), _COMPARISONS[operator](value, literal(bound)))
        case Glob(pattern):
            return and_(kind.not_in(BOOLEANS), _globbed(cast(value, String), pattern))


def _globbed(value: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """`[2023] trip/*` names a folder to whoever typed it, and a class of characters to SQLite: either may match."""
    found = value.op("GLOB")(pattern)
    return or_(found, value.op("GLOB")(pattern.replace("[", "[[]"))) if "[" in pattern else found


def _lowered(test: Test) -> Test:
    match test:
        case OneOf(values):
            return OneOf(tuple(one.lower() if isinstance(one, str) else one for one in values))
        case Compare(operator, bound):
            return Compare(operator, bound.lower() if isinstance(bound, str) else bound)
        case Glob(pattern):
            return Glob(pattern.lower())


def _label(tests: Sequence[Test]) -> ColumnElement[bool]:
    """Labels in any case, and by their last part: `africa` finds `2024/Africa`."""
    conditions: list[ColumnElement[bool]] = []
    for test in tests:
        match test:
            case OneOf(values):
                conditions.append(labels.c.key.in_([folded(str(one)) for one in values]))
            case Compare(operator, bound):
                conditions.append(_COMPARISONS[operator](labels.c.label, bound))
            case Glob(pattern):
                conditions.append(_globbed(labels.c.key, folded(pattern)))
    return and_(true(), *conditions)


def _path(tests: Sequence[Test]) -> ColumnElement[bool]:
    """A path below its root, or with it. Decomposed names (of macOS) are found by composed ones."""
    below = _in_form(locations.c.path, tests)
    if not any(_may_be_absolute(test) for test in tests):
        return below
    with_root = func.replace(locations.c.root, "\\", "/") + literal("/") + locations.c.path
    return or_(below, _in_form(with_root, [_slashed(test) for test in tests]))


def _root(tests: Sequence[Test]) -> ColumnElement[bool]:
    bare: list[Test] = [
        OneOf(tuple(str(one).rstrip("/") or "/" for one in test.values)) if isinstance(test, OneOf) else test
        for test in tests
    ]
    return _in_form(func.replace(locations.c.root, "\\", "/"), [_slashed(test) for test in bare])


def _in_form(name: ColumnElement[Any], tests: Sequence[Test]) -> ColumnElement[bool]:
    """A name, in composed form where it is not ASCII, passes all tests: the function is called for few names."""
    value = case((name.op("GLOB")("*[^ -~]*"), func.composed(name)), else_=name)
    asked: list[Test] = []
    for test in tests:
        match test:
            case OneOf(values):
                asked.append(OneOf(tuple(composed(str(one)) for one in values)))
            case Compare(operator, bound):
                asked.append(Compare(operator, composed(str(bound))))
            case Glob(pattern):
                asked.append(Glob(composed(pattern)))
    return _all(asked, value, literal("text"))


def _slashed(test: Test) -> Test:
    """With `/`, as roots are compared."""
    match test:
        case OneOf(values):
            return OneOf(tuple(str(one).replace("\\", "/") for one in values))
        case Compare(operator, bound):
            return Compare(operator, str(bound).replace("\\", "/"))
        case Glob(pattern):
            return Glob(pattern.replace("\\", "/"))


def _may_be_absolute(test: Test) -> bool:
    """Whether an absolute path can pass: most patterns say by their beginning that none can."""
    match test:
        case OneOf(values):
            return any(_begins_absolute(str(one)) for one in values)
        case Compare():
            return False
        case Glob(pattern):
            return pattern[:1] in ("*", "?", "[") or _begins_absolute(pattern)


def _begins_absolute(path: str) -> bool:
    return path[:1] in ("/", "\\") or path[1:2] == ":"


def _moment(tests: Sequence[Test], stored: ColumnElement[Any]) -> ColumnElement[bool]:
    """Dates as far as they are given: 2024 is all of that year, also as an upper bound."""
    conditions: list[ColumnElement[bool]] = []
    for test in tests:
        match test:
            case OneOf(values):
                same = (func.substr(stored, 1, len(str(one))) == str(one) for one in values if one != "")
                conditions.append(or_(false(), *same))
            case Compare(operator, bound):
                conditions.append(_COMPARISONS[operator](func.substr(stored, 1, len(str(bound))), bound))
            case Glob():
                conditions.append(_passes(test, stored, literal("text")))
    return and_(true(), *conditions)


def _metadata(key: str, tests: Sequence[Test]) -> ColumnElement[bool]:
    place = f'$."{key}"'
    whole = func.json_type(images.c.metadata, place)
    if not tests:
        return func.coalesce(whole != "null", false())
    # The value, or those of a list; what is inside an object has a name of its own.
    values = func.json_each(images.c.metadata, place).table_valued("value", "type", name="metadata_each")
    passed = _all(tests, values.c.value, values.c.type)
    here = and_(whole != "object", values.c.type.not_in(("object", "array")), passed)
    return exists(select(1).select_from(values).where(here).correlate(images))
