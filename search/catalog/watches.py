"""Watches: saved questions whose new matches are told to an address, and the messages on their way there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from search.catalog.lookup import Lookup
from search.catalog.questions import add_question, now, questions_naming
from search.catalog.schema import deliveries, embeddings, images, questions, state, watches
from search.errors import TooMany, UnknownWatch
from search.types import JsonObject

MAX_WATCHES = 100
"""Of an index: each asks its question after every change."""
MAX_KEPT_DELIVERIES = 100
"""Messages of a watch that were sent or given up, and are still listed."""
MAX_WAITING_DELIVERIES = 200
"""Messages of a watch that wait. While there are more, its question is not asked: the images stay new to it."""
DeliveryState = Literal["waiting", "sent", "failed"]
WebhookForm = Literal["json", "discord"]


class Match(NamedTuple):
    """An image that a watch has found, by its id, with its score and false-match rate."""

    id: str
    score: float
    fmr: float | None


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A watch, with its question. waiting, failed: how many of its messages are so. problem: why it is not asked."""

    number: int
    name: str
    question: JsonObject
    url: str
    form: WebhookForm
    secret: str
    made_at: str
    made_seq: int
    seen_seq: int
    problem: str | None
    waiting: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message of a watch. answer: to the last attempt, an HTTP status, or why there was none."""

    number: int
    watch: int
    matches: tuple[Match, ...]
    state: DeliveryState
    attempts: int
    made_at: str
    tried_at: str | None
    answer: str | None


class WatchChanges(Lookup):
    """The part of a write transaction that holds watches."""

    def add_watch(self, name: str, body: JsonObject, *, url: str, form: WebhookForm, secret: str) -> int:
        """Tell of images that are added from now on. body: the question. Returns its number. Raises TooMany."""
        count = select(func.count()).select_from(watches)
        if self._connection.execute(count).scalar_one() >= MAX_WATCHES:
            raise TooMany(f"An index has at most {MAX_WATCHES} watches. Delete one first.")
        seq = newest_seq(self._connection)
        question = add_question(self._connection, name, body)
        values = {"question": question, "url": url, "form": form, "secret": secret, "made_seq": seq, "seen_seq": seq}
        key = self._connection.execute(insert(watches).values(values)).inserted_primary_key
        assert key is not None, "the table has a number for each row"
        return int(key[0])

    def drop_watch(self, watch: int) -> None:
        """Delete a watch, and its messages. Raises UnknownWatch."""
        question = self._connection.execute(select(watches.c.question).where(watches.c.watch == watch)).scalar()
        if question is None:
            raise UnknownWatch("The index has no such watch.")
        for table in (deliveries, watches):
            self._connection.execute(delete(table).where(table.c.watch == watch))
        self._connection.execute(delete(questions).where(questions.c.question == question))

    def note_matches(
        self, watch: int, messages: Sequence[Sequence[Match]], *, seen_seq: int, problem: str | None = None
    ) -> None:
        """Put messages on their way, and note how far the watch has looked: both or neither is stored.

        Nothing where it was deleted meanwhile. problem: why its question could not be asked.
        """
        values = {"seen_seq": seen_seq, "problem": problem}
        if not self._connection.execute(update(watches).where(watches.c.watch == watch).values(values)).rowcount:
            return
        for matches in messages:
            held = [match._asdict() for match in matches]
            row = {"watch": watch, "matches": held, "state": "waiting", "made_at": now()}
            self._connection.execute(insert(deliveries).values(row))

    def note_attempt(self, delivery: int, *, attempts: int, state: DeliveryState, answer: str) -> None:
        """Note what became of a message. Of those that wait no more, the last MAX_KEPT_DELIVERIES are kept."""
        values = {"attempts": attempts, "state": state, "answer": answer, "tried_at": now()}
        self._connection.execute(update(deliveries).where(deliveries.c.delivery == delivery).values(values))
        if state == "waiting":
            return
        here = select(deliveries.c.watch).where(deliveries.c.delivery == delivery).scalar_subquery()
        done = select(deliveries.c.delivery).where(deliveries.c.watch == here, deliveries.c.state != "waiting")
        old = done.order_by(deliveries.c.delivery.desc()).offset(MAX_KEPT_DELIVERIES).limit(-1)
        outdated = self._connection.execute(old).scalars().all()
        self._connection.execute(delete(deliveries).where(deliveries.c.delivery.in_(outdated)))

    def take_from_watches(self, image_id: str) -> None:
        """Forget an image in messages, and watches whose questions name it."""
        named = questions_naming(self._connection, image_id)
        found = select(watches.c.watch).where(watches.c.question.in_(named))
        for watch in self._connection.execute(found).scalars().all():
            self.drop_watch(watch)
        mention = func.instr(deliveries.c.matches, image_id) > 0
        for row in self._connection.execute(select(deliveries).where(mention)).all():
            here = deliveries.c.delivery == row.delivery
            left = [match for match in row.matches if match["id"] != image_id]
            change = update(deliveries).where(here).values(matches=left) if left else delete(deliveries).where(here)
            self._connection.execute(change)


def newest_seq(connection: Connection) -> int:
    """The number of the catalog's newest change."""
    return int(connection.execute(select(state.c.value).where(state.c.key == "seq")).scalar_one())


def next_new(connection: Connection, after: int, most: int, *, since: int) -> int:
    """Up to which change at most `most` images, or vectors of such as were added after `since`, came after another
    one; the newest where there are fewer."""
    came = select(images.c.seq).where(images.c.seq > after).order_by(images.c.seq).limit(most)
    late = select(embeddings.c.seq).join(images, images.c.rowid == embeddings.c.image_rowid)
    late = late.where(embeddings.c.seq > after, images.c.seq > since).order_by(embeddings.c.seq).limit(most)
    found = {seq for query in (came, late) for seq in connection.execute(query).scalars()}
    return sorted(found)[most - 1] if len(found) >= most else newest_seq(connection)


def read_watches(connection: Connection, watch: int | None = None) -> list[Watch]:
    """All watches, the oldest first, or one. Raises UnknownWatch."""
    query = select(watches, questions.c.name, questions.c.body, questions.c.saved_at)
    query = query.join(questions, questions.c.question == watches.c.question).order_by(watches.c.watch)
    rows = connection.execute(query if watch is None else query.where(watches.c.watch == watch)).all()
    if watch is not None and not rows:
        raise UnknownWatch("The index has no such watch.")
    grouped = select(deliveries.c.watch, deliveries.c.state, func.count()).group_by(
        deliveries.c.watch, deliveries.c.state
    )
    counts = {(row[0], row[1]): row[2] for row in connection.execute(grouped)}
    return [
        Watch(
            number=row.watch,
            name=row.name,
            question=row.body,
            url=row.url,
            form=row.form,
            secret=row.secret,
            made_at=row.saved_at,
            made_seq=row.made_seq,
            seen_seq=row.seen_seq,
            problem=row.problem,
            waiting=counts.get((row.watch, "waiting"), 0),
            failed=counts.get((row.watch, "failed"), 0),
        )
        for row in rows
    ]


def read_deliveries(connection: Connection, watch: int, *, state: DeliveryState | None = None) -> list[Delivery]:
    """The messages of a watch, the oldest first; state: those in it. Raises UnknownWatch."""
    read_watches(connection, watch)
    query = select(deliveries).where(deliveries.c.watch == watch).order_by(deliveries.c.delivery)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    return [_delivery(row) for row in connection.execute(query)]


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        number=row.delivery,
        watch=row.watch,
        matches=tuple(Match(**match) for match in row.matches),
        state=row.state,
        attempts=row.attempts,
        made_at=row.made_at,
        tried_at=row.tried_at,
        answer=row.answer,
    )
