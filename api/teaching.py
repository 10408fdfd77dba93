"""One lesson from the command line: given to an index on disk, or to a server, answered in the same JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lookalike_client import Client, FeedbackResult, Hit, NotFound, Part, SearchResult

from api.ask import Asked, query_of, sent, server_errors
from api.http.feedback_schemas import LabelledAnswer, SessionSummary
from api.http.search_schemas import HitAnswer
from api.serving.feedback import kept_form
from api.serving.questions import SearchOptions
from api.serving.timing import Timing
from search.errors import FeedbackInvalid, UnknownImage, UnknownSession
from search.feedback import Marks, TaughtQuestion, checked_number
from search.index import Index
from search.labelling import apply, shown
from search.lock import PATIENCE
from search.teaching import Taught, Teacher


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A question of the command line, and marks. name: what they are kept under; None: nothing is kept.

    image, text, id: the question to begin with, or none of them. after: the round to go on from; None: the newest.
    """

    image: Path | None = None
    text: str | None = None
    id: str | None = None
    name: str | None = None
    marks: Marks
    after: str | None = None
    options: SearchOptions

    @property
    def begins(self) -> bool:
        """Whether it has a question, and not marks alone."""
        return (self.image, self.text, self.id) != (None, None, None)

    def asked(self) -> Asked:
        """Its question as that of a search."""
        return Asked(image=self.image, text=self.text, id=self.id, options=self.options)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A label rule, as of `search.labelling.shown`; given: its label is given to the images."""

    label: str | None
    above: float | None
    precision: float | None
    given: bool


class Lessons(Protocol):
    """Where lessons are given. Answers are the members that `--json` prints."""

    def sessions(self) -> list[dict[str, Any]]:
        """What is kept."""

    def forget(self, name: str) -> None:
        """Forget what is kept under a name."""

    def teach(self, lesson: Lesson) -> dict[str, Any]:
        """Answer a lesson, and keep it where it has a name."""

    def undo(self, lesson: Lesson) -> dict[str, Any]:
        """Take the last marks back of what is kept under a lesson's name, and answer it."""

    def label(self, lesson: Lesson, rule: Rule) -> dict[str, Any]:
        """Keep a lesson, then show or apply a label rule of it."""


@contextmanager
def lessons_of_index(path: Path, *, writable: bool, warn: Callable[[str], None]) -> Iterator[Lessons]:
    """An index on disk. warn: told where another encoder stands in for the index's own."""
    with Index.open(path, writable=writable) as index:
        yield IndexLessons(index, warn)


@contextmanager
def lessons_of_server(url: str, api_key: str | None) -> Iterator[Lessons]:
    """A running server. Its refusals are ServerFailed, in its own words."""
    with server_errors(url), Client(url, api_key=api_key) as client:
        yield ServerLessons(client)


class IndexLessons:
    """Lessons given to an index on disk."""

    def __init__(self, index: Index, warn: Callable[[str], None]) -> None:
        self._index = index
        self._warn = warn
        self._teacher = Teacher(index)

    def sessions(self) -> list[dict[str, Any]]:
        """What is kept."""
        return [SessionSummary.model_validate(one).model_dump() for one in self._index.catalog.sessions()]

    def forget(self, name: str) -> None:
        """Forget what is kept under a name. Raises UnknownSession."""
        session = self._index.catalog.session(name)
        with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
            transaction.delete_session(session.id)

    def teach(self, lesson: Lesson) -> dict[str, Any]:
        """Answer a lesson. Raises as `Teacher.answer`, and UnknownSession, IndexLocked."""
        answer = partial(self._teacher.answer, k=lesson.options.k)
        if lesson.name is None:
            return _told(answer(self._question(lesson), lesson.marks), None, None)
        here = self._kept(lesson, lesson.name)
        session = self._index.catalog.session(lesson.name)
        taught = answer(session.question, session.marks(here), before=session.before(here), kept=True)
        return _told(taught, session.id, here)

    def undo(self, lesson: Lesson) -> dict[str, Any]:
        """Take the last marks back, and answer. Raises as `teach`, and FeedbackInvalid where there are none."""
        assert lesson.name is not None
        session = self._index.catalog.session(lesson.name)
        to = session.undone()
        with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
            transaction.go_back(session.id, to)
        return self.teach(lesson)

    def label(self, lesson: Lesson, rule: Rule) -> dict[str, Any]:
        """Show or apply a label rule. Raises as `teach` and `shown`."""
        assert lesson.name is not None
        here = self._kept(lesson, lesson.name)
        session = self._index.catalog.session(lesson.name)
        found = shown(
            self._index,
            self._teacher,
            session,
            rule.label,
            round_id=here if rule.label is not None else lesson.after,
            above=rule.above,
            precision=rule.precision,
        )
        applied = None
        if rule.given:
            with self._index.writer(timeout=PATIENCE) as writer:
                applied = apply(writer, session.id, found)
        return LabelledAnswer.of(found, applied).model_dump()

    def _question(self, lesson: Lesson) -> TaughtQuestion:
        if not lesson.begins:
            return TaughtQuestion(space=self._index.space(lesson.options.space).name, filter=lesson.options.filter)
        query, _ = query_of(self._index, lesson.asked(), Timing(), warn=self._warn)
        return kept_form(query, lesson.options)

    def _kept(self, lesson: Lesson, name: str) -> str:
        """Keep a question and marks under a name, or marks alone where it is there. Returns the round."""
        marks = lesson.marks
        wanted = [*marks.more, *marks.less]
        if len(self._index.catalog.rowids(wanted)) < len(wanted):
            raise UnknownImage("One of the marked images is not in the index.")
        try:
            session = self._index.catalog.session(name)
        except UnknownSession:
            _must_begin(lesson)
            question = self._question(lesson)
            with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
                root = transaction.start_session(question, name)
                return transaction.add_round(root, root, marks) if len(marks) else root
        _must_go_on(lesson)
        if not len(marks):
            return session.path(lesson.after)[-1].id
        here = session.base(marks, lesson.after, None)[-1].id
        checked_number(session.marks(here).then(marks))
        with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
            return transaction.add_round(session.id, here, marks)


class ServerLessons:
    """Lessons given to a running server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def sessions(self) -> list[dict[str, Any]]:
        """What is kept."""
        return [asdict(one) for one in self._client.feedback.sessions()]

    def forget(self, name: str) -> None:
        """Forget what is kept under a name. Raises NotFound."""
        self._client.feedback.delete(self._client.feedback.session(name).id)

    def teach(self, lesson: Lesson) -> dict[str, Any]:
        """Answer a lesson. Raises FeedbackInvalid, UnknownSession, and what the client raises."""
        marks, options, ask = lesson.marks, lesson.options, self._client.feedback.ask
        if lesson.name is not None and self._has(lesson.name, lesson):
            found = ask(session=lesson.name, more=marks.more, less=marks.less, round=lesson.after, k=options.k)
            return _of_client(found)

        def begin(data: bytes | None, _: Any) -> FeedbackResult:
            return ask(
                [Part(image=data, text=lesson.text, id=lesson.id)] if lesson.begins else None,
                more=marks.more,
                less=marks.less,
                space=options.space,
                filter=options.filter,
                keep=lesson.name is not None,
                name=lesson.name,
                k=options.k,
            )

        return _of_client(sent(lesson.asked(), begin))

    def undo(self, lesson: Lesson) -> dict[str, Any]:
        """Take the last marks back, and answer. Raises as `teach`, and FeedbackInvalid where there are none."""
        assert lesson.name is not None
        rounds = self._client.feedback.session(lesson.name).rounds
        known, here = {one.id: one for one in rounds}, rounds[-1]
        while not (here.more or here.less):
            if here.parent is None:
                raise FeedbackInvalid("There are no marks to take back.")
            here = known[here.parent]
        told = self._client.feedback.ask(session=lesson.name, round=here.parent, back=True, k=lesson.options.k)
        return _of_client(told)

    def label(self, lesson: Lesson, rule: Rule) -> dict[str, Any]:
        """Show or apply a label rule. Raises as `teach`."""
        assert lesson.name is not None
        here = lesson.after
        if len(lesson.marks) or not self._has(lesson.name, lesson):
            here = self.teach(lesson)["round"]
        found = self._client.feedback.label(
            lesson.name,
            rule.label,
            above=rule.above,
            precision=rule.precision,
            round=here if rule.label is not None else lesson.after,
            apply=rule.given,
        )
        return asdict(found) | {"doubtful": _hits(found.doubtful)}

    def _has(self, name: str, lesson: Lesson) -> bool:
        try:
            self._client.feedback.session(name)
        except NotFound:
            _must_begin(lesson)
            return False
        _must_go_on(lesson)
        return True


def _must_begin(lesson: Lesson) -> None:
    """Raises UnknownSession where a lesson goes on with what is not there."""
    if lesson.after is not None or not (lesson.begins or lesson.marks.more):
        raise UnknownSession("The index has no such feedback session.")


def _must_go_on(lesson: Lesson) -> None:
    """Raises FeedbackInvalid where a lesson begins with what is there already."""
    if lesson.begins:
        raise FeedbackInvalid(f"{lesson.name} has its question already: mark images, or take another name.")


def _told(taught: Taught, session: str | None, here: str | None) -> dict[str, Any]:
    return {
        "hits": [HitAnswer.model_validate(hit).model_dump() for hit in taught.hits],
        "uncertain": [HitAnswer.model_validate(hit).model_dump() for hit in taught.uncertain],
        "space": taught.space,
        "method": taught.method,
        "more": [*taught.marks.more],
        "less": [*taught.marks.less],
        "ignored": taught.ignored,
        "cut": taught.cut,
        "undecided": taught.undecided,
        "stable": taught.stable,
        "session": session,
        "round": here,
    }


def _of_client(told: FeedbackResult) -> dict[str, Any]:
    return {
        "hits": _hits(told.hits),
        "uncertain": _hits(told.uncertain),
        "space": told.space,
        "method": told.method,
        "more": [*told.more],
        "less": [*told.less],
        "ignored": told.ignored,
        "cut": told.cut,
        "undecided": told.undecided,
        "stable": told.stable,
        "session": told.session,
        "round": told.round,
    }


def _hits(hits: tuple[Hit, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = SearchResult(hits=hits, space="", took_ms={}).to_json()["hits"]
    return found
