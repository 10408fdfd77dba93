"""Pairs of images that the user called not duplicates, by their content: they outlive removal, and a later build."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select, union
from sqlalchemy.dialects.sqlite import insert

from search.catalog.lookup import Lookup
from search.catalog.schema import decisions

MAX_IMAGES = 100
"""Images of one decision, which is stored as pairs: 4,950."""
_ADD = insert(decisions).on_conflict_do_nothing()
_FORGET_PAIR = delete(decisions).where(decisions.c.one == bindparam("a"), decisions.c.other == bindparam("b"))
_FORGET_IMAGE = delete(decisions).where((decisions.c.one == bindparam("id")) | (decisions.c.other == bindparam("id")))

_IDS = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
_NAMED = union(*(select(decisions).where(column.in_(_IDS)) for column in (decisions.c.one, decisions.c.other)))
"""By the primary key, and by the index on `other`: no other pairs are read."""


class NotDuplicates(NamedTuple):
    """Two images that are not duplicates of each other, by their ids, the smaller first; or one image twice: its copies
    are wanted. decided_at: ISO 8601, UTC."""

    one: str
    other: str
    decided_at: str


class DecisionChanges(Lookup):
    """The part of a write transaction that holds decisions."""

    def set_not_duplicates(self, image_ids: Iterable[str]) -> int:
        """Note that images are not duplicates of each other; an id given twice: that its copies are wanted.

        Returns how many pairs are new.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return sum(
            self._connection.execute(_ADD, {"one": one, "other": other, "decided_at": now}).rowcount
            for one, other in _pairs(image_ids)
        )

    def clear_not_duplicates(self, image_ids: Sequence[str]) -> int:
        """Forget that images are not duplicates of each other; of a single one, of any other.

        Returns how many pairs there were.
        """
        if len(image_ids) == 1:
            return self._connection.execute(_FORGET_IMAGE, {"id": image_ids[0]}).rowcount
        return sum(
            self._connection.execute(_FORGET_PAIR, {"a": one, "b": other}).rowcount for one, other in _pairs(image_ids)
        )


def _pairs(image_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    return iter(dict.fromkeys(combinations(sorted(image_ids), 2)))


def read_decisions(connection: Connection, ids: Iterable[str] | None = None) -> list[NotDuplicates]:
    """All pairs, or those that name one of these images; the oldest first."""
    columns = (decisions.c.one, decisions.c.other, decisions.c.decided_at)
    if ids is None:
        rows = connection.execute(select(*columns))
    else:
        rows = connection.execute(_NAMED, {"ids": json.dumps([*ids])})
    return sorted((NotDuplicates(*row) for row in rows), key=lambda held: (held.decided_at, held.one, held.other))
