"""Watching: a thread that asks saved questions of images that are new, and sends what they find.

What a question finds waits in the catalog from the transaction on that notes how far it has looked: nothing is lost,
and nothing is found twice. What was sent is remembered until the catalog knows it: within a run of the server, nothing
is sent twice. Searches and builds never wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import faiss
from filelock import FileLock, Timeout

from api.errors import ApiError
from api.serving import notify
from api.serving.saved import read_saved
from api.serving.watched import check_cut, watched
from api.serving.words import WordsEmbedding
from indexer.errors import IndexerError
from search.catalog.watches import (
    MAX_WAITING_DELIVERIES,
    Delivery,
    DeliveryState,
    Match,
    Watch,
    newest_seq,
    next_new,
    read_deliveries,
    read_watches,
)
from search.errors import IndexLocked, SearchError, UnknownWatch
from search.filters import Added, And
from search.index import Index
from search.types import JsonObject, Query

LOOK_SECONDS = 1.0
"""Between two looks whether the catalog was changed: one takes microseconds."""
LOCK_SECONDS = 2.0
"""For which the index's lock is waited for: filling takes it for a moment again and again."""
LOCKED_SECONDS = 5.0
"""Until the next try where another process writes for long: a build. What it has added is found once it is done."""
PROBLEM_SECONDS = 60.0
"""Until a question is asked again that could not be asked: its encoder may be there by then."""
NEW_AT_ONCE = 1_000
"""Images that are new, or newly have a vector, of which a question is asked at once: at worst each is a match."""
MATCHES_IN_MESSAGE: dict[str, int] = {"json": 100, "discord": 10}
"""Matches of a message, by its form: Discord takes ten embeds."""
MAX_ATTEMPTS = 12
"""To send a message, over three hours or so; then it has failed, and the next one is tried."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0
"""Seconds after a failed attempt, doubled each time, of which a random half is left out."""
MAX_SENDING = 8
"""Messages under way at once, at most one of each watch."""
CLOSING_SECONDS = 2.0
"""For messages under way when the server stops; what is cut off then is sent again by the next one."""
Result = TypeVar("Result")
LOG = logging.getLogger("lookalike")


class Watching:
    """The watches of one served index. Of several servers of an index, one does it: who has `watches.lock`."""

    def __init__(self, name: str, index: Index, words: WordsEmbedding, *, private: bool) -> None:
        """private: also addresses of this machine and of private networks are told."""
        self._name = name
        self._index = index
        self._words = words
        self._private = private
        self._stop = threading.Event()
        self._lock = FileLock(index.path / "watches.lock", timeout=0, thread_local=False)
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="watch", initializer=partial(faiss.omp_set_num_threads, 1)
        )
        self._version: int | None = None
        self._later, self._again = 0.0, math.inf
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._due: dict[int, float] = {}
        self._attempts: dict[int, int] = {}
        self._outcomes: dict[int, tuple[int, DeliveryState, str]] = {}
        self._told = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Messages under way have CLOSING_SECONDS."""
        self._stop.set()
        self._thread.join()
        self._worker.shutdown()

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._round()
            except IndexLocked:
                self._later = time.monotonic() + LOCKED_SECONDS
            except Exception as error:  # a full disk, say: searches go on, and so does this
                message = f"{type(error).__name__}: {error}"
                if message != self._told:
                    LOG.warning("the watches of %s cannot be served, which is tried again: %s", self._name, message)
                self._told, self._later = message, time.monotonic() + LOCKED_SECONDS
            else:
                self._told = ""
            await self._pause()
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=CLOSING_SECONDS)
        with suppress(Exception):  # the next server sends again what this one could not note
            await self._note_outcomes()
        self._lock.release()

    async def _pause(self) -> None:
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until and not self._stop.is_set():
            await asyncio.sleep(LOOK_SECONDS / 20)

    async def _round(self) -> None:
        """Send what waits, note what was sent, and look for matches where the catalog was changed."""
        version = self._index.catalog.version()
        waits = self._due or self._outcomes or self._sending
        if version == self._version and time.monotonic() < self._again and not waits:
            return
        watches = await self._apart(self._watches)
        if watches and not self._mine():
            return
        await self._start_sending(watches)
        if time.monotonic() < self._later:
            return
        await self._note_outcomes()
        if version != self._version or time.monotonic() >= self._again:
            self._again = math.inf
            for watch in watches:
                await self._look(watch)
            self._version = version

    def _mine(self) -> bool:
        with suppress(Timeout):
            if not self._lock.is_locked:
                self._lock.acquire()
        return self._lock.is_locked

    def _watches(self) -> list[Watch]:
        with self._index.catalog.reading() as connection:
            return read_watches(connection)

    async def _look(self, watch: Watch) -> None:
        """Ask a watch's question of images that are new to it, some at a time, and keep what it finds."""
        waiting = watch.waiting
        seen = watch.seen_seq
        while not self._stop.is_set() and waiting < MAX_WAITING_DELIVERIES:
            upto, newest = await self._apart(partial(self._next, seen, watch.made_seq))
            if upto <= seen and watch.problem is None:
                return
            await self._write(lambda: None)  # where a build writes, the question would be asked in vain
            messages: list[list[Match]] = []
            problem = None
            try:
                matches = await self._matches(watch, seen, upto)
                most = MATCHES_IN_MESSAGE[watch.form]
                messages = [matches[start : start + most] for start in range(0, len(matches), most)]
            except (SearchError, IndexerError, ApiError) as error:
                problem = str(error)
                self._again = time.monotonic() + PROBLEM_SECONDS
                if problem == watch.problem:
                    return
            await self._write(partial(self._keep, watch.number, messages, upto if problem is None else seen, problem))
            if problem is not None or upto >= newest:
                return
            seen, waiting = upto, waiting + len(messages)

    def _next(self, seen: int, since: int) -> tuple[int, int]:
        with self._index.catalog.reading() as connection:
            return next_new(connection, seen, NEW_AT_ONCE, since=since), newest_seq(connection)

    def _keep(self, watch: int, messages: Sequence[Sequence[Match]], seen_seq: int, problem: str | None) -> None:
        with self._index.writer(timeout=LOCK_SECONDS) as writer, writer.transaction() as transaction:
            transaction.note_matches(watch, messages, seen_seq=seen_seq, problem=problem)

    async def _matches(self, watch: Watch, after: int, upto: int) -> list[Match]:
        question = await self._apart(partial(watched, read_saved(watch.question), self._index))
        draft = question.draft(self._index)
        texts = [text for text, _ in question.texts_in(draft)]
        space = self._index.space(draft.space)
        words = await self._words.embed_apart(texts, space)
        new = Added(space.name, after, upto, watch.made_seq)
        query = new_images(question.query(draft, (), words), new)
        hits = await self._apart(partial(self._index.search, query))
        check_cut(question, hits)
        return [Match(hit.id, hit.score, hit.fmr) for hit in hits]

    async def _start_sending(self, watches: Sequence[Watch]) -> None:
        waiting = {watch.number: await self._apart(partial(self._waiting, watch.number)) for watch in watches}
        there = {message.number for messages in waiting.values() for message in messages}
        for number in self._due.keys() - there:  # of a watch that was deleted
            self._due.pop(number)
            self._attempts.pop(number, None)
        for watch in watches:
            if watch.number in self._sending or len(self._sending) >= MAX_SENDING:
                continue
            for message in waiting[watch.number]:
                if message.number in self._outcomes and self._outcomes[message.number][1] != "waiting":
                    continue  # sent, which the catalog does not know yet
                if time.monotonic() >= self._due.get(message.number, 0.0):
                    self._due[message.number] = 0.0
                    task = asyncio.create_task(self._send(watch, message))
                    self._sending[watch.number] = task
                    task.add_done_callback(partial(self._sent, watch.number))
                break  # in their order

    def _sent(self, watch: int, _: asyncio.Task[None]) -> None:
        del self._sending[watch]

    def _waiting(self, watch: int) -> list[Delivery]:
        with suppress(UnknownWatch), self._index.catalog.reading() as connection:
            return read_deliveries(connection, watch, state="waiting")
        return []

    async def _send(self, watch: Watch, message: Delivery) -> None:
        attempts = self._attempts.get(message.number, message.attempts) + 1
        try:
            told = await self._tell(watch, message)
        except Exception:  # the catalog could not be read, say
            LOG.warning("a message of %s could not be made, which is tried again", self._name, exc_info=True)
            told = notify.Told(ok=False, answer="it could not be made")
        if told is None:
            self._end(message.number, attempts, "failed", "its images are gone")
        elif told.ok:
            self._end(message.number, attempts, "sent", told.answer)
        elif attempts >= MAX_ATTEMPTS:
            LOG.warning("a message of the watch %d of %s was given up: %s", watch.number, self._name, told.answer)
            self._end(message.number, attempts, "failed", told.answer)
        else:
            pause = min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
            pause = max(pause, min(told.retry_after or 0.0, LONGEST_PAUSE))
            self._attempts[message.number], self._due[message.number] = attempts, time.monotonic() + pause
            self._outcomes[message.number] = attempts, "waiting", told.answer

    async def _tell(self, watch: Watch, message: Delivery) -> notify.Told | None:
        """Send a message once; nothing where none of its images is left."""
        matches = await self._apart(partial(self._shown, message))
        if not matches:
            return None
        shown, delivery = {"id": watch.number, "name": watch.name}, f"{watch.number}-{message.number}"
        if watch.form == "discord":
            body = notify.discord_message(shown, matches)
        else:
            body = notify.json_message(self._name, shown, delivery, matches)
        headers = notify.headers_of(watch.form, watch.secret, delivery, body)
        return await notify.tell(watch.url, headers, body, private=self._private)

    def _end(self, delivery: int, attempts: int, state: DeliveryState, answer: str) -> None:
        self._due.pop(delivery, None)
        self._attempts.pop(delivery, None)
        self._outcomes[delivery] = attempts, state, answer

    def _shown(self, message: Delivery) -> list[JsonObject]:
        """The matches of a message that are still in the index, as they are told."""
        rowids = self._index.catalog.rowids([match.id for match in message.matches])
        entries = self._index.catalog.entries(rowids.values())
        shown: list[JsonObject] = []
        for match in message.matches:
            entry = entries.get(rowids.get(match.id, -1))
            if entry is not None:
                facts = entry.facts
                name = facts["paths"][0].replace("\\", "/").rpartition("/")[2] if facts["paths"] else None
                shown.append(
                    {
                        **match._asdict(),
                        "name": name,
                        "labels": [*facts["labels"]],
                        "width": facts["width"],
                        "height": facts["height"],
                    }
                )
        return shown

    async def _note_outcomes(self) -> None:
        outcomes = dict(self._outcomes)
        if outcomes:
            await self._write(partial(self._store, outcomes))
            for number, outcome in outcomes.items():
                if self._outcomes[number] == outcome:
                    del self._outcomes[number]

    def _store(self, outcomes: dict[int, tuple[int, DeliveryState, str]]) -> None:
        with self._index.writer(timeout=LOCK_SECONDS) as writer, writer.transaction() as transaction:
            for number, (attempts, state, answer) in outcomes.items():
                transaction.note_attempt(number, attempts=attempts, state=state, answer=answer)

    async def _write(self, work: Callable[[], None]) -> None:
        """Do a piece of work, if nobody else writes for long. Raises IndexLocked."""

        def locked() -> None:
            with self._index.writer(timeout=LOCK_SECONDS):
                work()

        await self._apart(locked)

    async def _apart(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def new_images(query: Query, added: Added) -> Query:
    """A query of new images alone; all that match are hits."""
    matching = added if query.filter is None else And((query.filter, added))
    return replace(query, filter=matching, k=NEW_AT_ONCE, offset=0, fold=False)
