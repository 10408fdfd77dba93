"""Pairs of images that the user called no duplicates, by their content: they outlive removal, and a later build."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from search.catalog.lookup import Lookup
from search.catalog.schema import decisions

MAX_IMAGES = 100
"""Images of one decision, which is stored as pairs: 4,950."""
_ADD = insert(decisions).on_conflict_do_nothing()
_FORGET_PAIR = delete(decisions).where(decisions.c.one == bindparam("a"), decisions.c.other == bindparam("b"))
_FORGET_IMAGE = delete(decisions).where((decisions.c.one == bindparam("id")) | (decisions.c.other == bindparam("id")))


class NotDuplicates(NamedTuple):
    """Two images that are no duplicates of one another, by their ids, the smaller first; or one image twice: its copies
    are wanted. decided_at: ISO 8601, UTC."""

    one: str
    other: str
    decided_at: str


class DecisionChanges(Lookup):
    """The part of a write transaction that holds decisions."""

    def set_not_duplicates(self, image_ids: Iterable[str]) -> int:
        """Note that images are no duplicates of one another; an id given twice: that its copies are wanted.

        Returns how many pairs are new.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return sum(
            self._connection.execute(_ADD, {"one": one, "other": other, "decided_at": now}).rowcount
            for one, other in _pairs(image_ids)
        )

    def clear_not_duplicates(self, image_ids: Sequence[str]) -> int:
        """Forget that images are no duplicates of one another; of a single one, of any other.

        Returns how many pairs there were.
        """
        if len(image_ids) == 1:
            return self._connection.execute(_FORGET_IMAGE, {"id": image_ids[0]}).rowcount
        return sum(
            self._connection.execute(_FORGET_PAIR, {"a": one, "b": other}).rowcount for one, other in _pairs(image_ids)
        )


def _pairs(image_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    return iter(dict.fromkeys(combinations(sorted(image_ids), 2)))


def read_decisions(connection: Connection) -> list[NotDuplicates]:
    """All pairs, the oldest first."""
    query = select(decisions.c.one, decisions.c.other, decisions.c.decided_at)
    rows = connection.execute(query.order_by(decisions.c.decided_at, decisions.c.one, decisions.c.other))
    return [NotDuplicates(*row) for row in rows]
