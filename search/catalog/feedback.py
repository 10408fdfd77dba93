"""Feedback in the catalog: sessions, their rounds and marks.

A round's id is the hash of what it holds and follows: to add the same one twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, delete, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from search.catalog.lookup import Lookup
from search.catalog.schema import feedback, rounds
from search.errors import FeedbackInvalid, SessionExists, UnknownSession
from search.feedback import MAX_NAME, FeedbackSession, LabelRule, Marks, Round, SessionSummary, TaughtQuestion
from search.sqlite.store import Store

MAX_SESSIONS = 10_000
"""Sessions of an index: whoever may write can add them."""
MAX_ROUNDS = 1_000
"""Rounds of a session."""
_ADD_ROUND = insert(rounds).on_conflict_do_nothing()
_SUMMARIES = text(
    """
    WITH RECURSIVE
    sizes AS (SELECT session, count(*) - 1 AS rounds, max(number) AS newest FROM rounds GROUP BY session),
    path AS (
        SELECT session, id, parent, 0 AS back FROM rounds WHERE number IN (SELECT newest FROM sizes)
        UNION ALL SELECT path.session, it.id, it.parent, back + 1 FROM path JOIN rounds AS it ON it.id = path.parent
    ),
    marked AS (SELECT session, more, min(back) FROM path JOIN feedback ON round = path.id GROUP BY session, image),
    marks AS (SELECT session, sum(more) AS more, sum(NOT more) AS less FROM marked GROUP BY session)
    SELECT root.id, root.name, json_extract(root.question, '$.space') AS space, root.added_at, sizes.rounds,
        ifnull(marks.more, 0) AS more, ifnull(marks.less, 0) AS less, json_extract(root.rule, '$.label') AS label
    FROM rounds AS root JOIN sizes ON sizes.session = root.id LEFT JOIN marks ON marks.session = root.id
    WHERE root.parent IS NULL ORDER BY root.number
    """
)
"""Of an image that was marked twice, `more` is that of the row with the least `back`, the later one: so is SQLite's
`min` in a query without other aggregates."""
_FORGET_MARKS = delete(feedback).where(feedback.c.image == bindparam("image_id"))


class FeedbackChanges(Lookup):
    """The part of a write transaction that holds feedback."""

    def start_session(self, question: TaughtQuestion, name: str | None) -> str:
        """Keep a question, to be taught. Returns the session's id: that of an equal one with this name, if there is.

        Raises FeedbackInvalid, SessionExists (another one has the name).
        """
        held = question.to_json()
        for number in count():  # one that was given another name since is not meant
            session = _digest("session", name, held, *[number][:number])
            there = self._connection.execute(select(rounds.c.name).where(rounds.c.id == session)).first()
            if there is None:
                break
            if there.name == name:
                return session
        self._must_be_free(name, session)
        roots = select(func.count()).select_from(rounds).where(rounds.c.parent.is_(None))
        if self._connection.execute(roots).scalar_one() >= MAX_SESSIONS:
            raise FeedbackInvalid(f"An index keeps {MAX_SESSIONS:,} feedback sessions. Delete some first.")
        self._add(session, session, None, Marks(), name=name, question=held)
        return session

    def add_round(self, session: str, parent: str, marks: Marks, name: str | None = None) -> str:
        """Add marks to those of a round. Returns the new round's id: that of an equal one, if there is.

        Raises UnknownSession, FeedbackInvalid.
        """
        known = set(self._connection.execute(select(rounds.c.id).where(rounds.c.session == session)).scalars())
        if parent not in known:
            raise UnknownSession("The index has no such feedback session, or the session no such round.")
        made = _digest("round", parent, name, sorted(marks.more), sorted(marks.less))
        if made not in known:
            if len(known) >= MAX_ROUNDS:
                raise FeedbackInvalid(f"A feedback session has {MAX_ROUNDS:,} rounds at most. Begin another one.")
            _check_name(name)
            self._add(session, made, parent, marks, name=name)
        return made

    def go_back(self, session: str, to: str) -> str:
        """Let marks be added to a round, and those after it count no more: by a round without marks, whose id is
        returned. Where that is the newest already, nothing changes. Raises as `add_round`.
        """
        held = _session(self._connection, session)
        if to == held.newest.id or (to == held.newest.parent and not len(held.newest.marks)):
            return held.newest.id
        known = {one.id for one in held.rounds}
        while (made := self.add_round(session, to, Marks())) in known:  # gone back to before
            to = made
        return made

    def _add(self, session: str, made: str, parent: str | None, marks: Marks, **values: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"id": made, "session": session, "parent": parent, "added_at": now, **values}
        self._connection.execute(_ADD_ROUND, row)
        rows = [{"round": made, "image": image, "more": 1} for image in marks.more]
        rows += [{"round": made, "image": image, "more": 0} for image in marks.less]
        if rows:
            self._connection.execute(feedback.insert(), rows)

    def name_session(self, session: str, name: str | None) -> None:
        """Call a session so. Raises UnknownSession, FeedbackInvalid, SessionExists."""
        self._must_be_free(name, session)
        self._change(session, name=name)

    def set_rule(self, session: str, rule: LabelRule | None) -> None:
        """Keep what a session labels, or nothing. Raises UnknownSession."""
        self._change(session, rule=None if rule is None else asdict(rule))

    def _change(self, session: str, **values: Any) -> None:
        if not self._connection.execute(update(rounds).where(rounds.c.id == session).values(**values)).rowcount:
            raise _unknown()

    def delete_session(self, session: str) -> None:
        """Forget a session with all its marks. Raises UnknownSession."""
        its = select(rounds.c.id).where(rounds.c.session == session)
        self._connection.execute(delete(feedback).where(feedback.c.round.in_(its)))
        if not self._connection.execute(delete(rounds).where(rounds.c.session == session)).rowcount:
            raise _unknown()

    def forget_marks(self, image_id: str) -> None:
        """Forget all marks of an image, and sessions whose questions it is a part of."""
        self._connection.execute(_FORGET_MARKS, {"image_id": image_id})
        asked = func.instr(cast(rounds.c.question, Text), image_id) > 0
        for session in self._connection.execute(select(rounds.c.id).where(asked)).scalars().all():
            self.delete_session(session)

    def _must_be_free(self, name: str | None, session: str) -> None:
        _check_name(name)
        same = (rounds.c.name == name) & rounds.c.parent.is_(None) & (rounds.c.id != session)
        if name is not None and self._connection.execute(select(rounds.c.id).where(same)).first():
            raise SessionExists("A feedback session has this name already. Go on with that one, or take another name.")


class StoredFeedback(Store):
    """Reads of the feedback in a catalog."""

    def session(self, named: str) -> FeedbackSession:
        """A session by its id or name. Raises UnknownSession."""
        here = (rounds.c.id == named) | (rounds.c.name == named)
        with self.reading() as connection:
            roots = select(rounds.c.id).where(here, rounds.c.parent.is_(None)).order_by(rounds.c.id != named)
            root = connection.execute(roots).scalar()
            if root is None:
                raise _unknown()
            return _session(connection, root)

    def sessions(self) -> list[SessionSummary]:
        """All sessions, the oldest first."""
        with self.reading() as connection:
            return [SessionSummary(**row._mapping) for row in connection.execute(_SUMMARIES)]


def _session(connection: Connection, session: str) -> FeedbackSession:
    rows = connection.execute(select(rounds).where(rounds.c.session == session).order_by(rounds.c.number)).all()
    here = select(rounds.c.id).where(rounds.c.session == session)
    marked: dict[tuple[str, int], list[str]] = defaultdict(list)
    for one in connection.execute(select(feedback).where(feedback.c.round.in_(here))):
        marked[one.round, one.more].append(one.image)
    its = tuple(
        Round(
            id=row.id,
            parent=row.parent,
            name=row.name,
            added_at=row.added_at,
            marks=Marks(more=tuple(marked[row.id, 1]), less=tuple(marked[row.id, 0])),
        )
        for row in rows
    )
    root = rows[0]
    rule = None if root.rule is None else LabelRule(**root.rule)
    return FeedbackSession(id=session, question=TaughtQuestion.from_json(root.question), rounds=its, rule=rule)


def _digest(*held: Any) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:32]


def _check_name(name: str | None) -> None:
    if name is not None and not (0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()):
        raise FeedbackInvalid(f"A name has 1 to {MAX_NAME} printable characters, without space around them.")
    if name is not None and "/" in name:
        raise FeedbackInvalid("A name has no `/`: it is part of an address over HTTP.")


def _unknown() -> UnknownSession:
    return UnknownSession("The index has no such feedback session.")
