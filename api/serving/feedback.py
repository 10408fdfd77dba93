"""Feedback on a served index: answered, kept where that is wanted, and made a label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from api.serving.questions import Question, SearchOptions
from api.serving.service import Service
from api.serving.timing import Timing
from search.errors import UnknownImage
from search.feedback import Marks, TaughtQuestion, checked_number
from search.labelling import Labelled, batches, give, keep_rule, shown
from search.query.parts import check_window
from search.teaching import Taught
from search.types import Query, Space
from search.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Told:
    """The answer to a question and marks, and the session and round that keep them; None of what is not kept."""

    question: TaughtQuestion
    taught: Taught
    session: str | None = None
    round: str | None = None


async def taught_question(service: Service, question: Question, timing: Timing) -> TaughtQuestion:
    """A question as it is kept, its pictures and words embedded; it may have no parts. Raises as `Service.query`."""
    if not question.parts:
        space = service.index.space(question.options.space)
        check_window(question.draft(service.index))
        return TaughtQuestion(space=space.name, filter=question.options.filter)
    query, _ = await service.query(question, timing)
    return kept_form(query, question.options)


def kept_form(query: Query, options: SearchOptions) -> TaughtQuestion:
    """A query as feedback keeps it."""
    assert isinstance(query.space, Space)
    return TaughtQuestion.of(query, query.space, options.filter)


async def teach(
    service: Service, question: TaughtQuestion, marks: Marks, options: SearchOptions, *, keep: bool, name: str | None
) -> Told:
    """Answer a question and its marks. keep: they become a session, called `name`. Raises as `Teacher.answer`, and
    SessionExists, IndexLocked, Overloaded."""
    taught = await service.heavy(
        partial(service.teacher.answer, question, marks, k=options.k, offset=options.offset, fold=options.fold)
    )
    if not keep:
        return Told(question=question, taught=taught)

    def store(writer: Writer) -> tuple[str, str]:
        with writer.transaction() as transaction:
            session = transaction.start_session(question, name)
            return session, transaction.add_round(session, session, marks) if len(marks) else session

    session, made = await service.write(store)
    return Told(question=question, taught=taught, session=session, round=made)


async def go_on(
    service: Service,
    named: str,
    marks: Marks,
    options: SearchOptions,
    *,
    after: str | None,
    name: str | None,
    back: bool = False,
) -> Told:
    """Add marks to those of a kept session's round, and answer. after: the round's id or name; None: the newest.

    Without marks, the round is answered, and nothing is added. name: of the new round. back: first let the round be the
    one that others go on from. Raises as `teach`, and UnknownSession.
    """
    session = await service.read(lambda index: index.catalog.session(named))
    if back:
        to = session.path(after)[-1].id

        def go_back(writer: Writer) -> str:
            with writer.transaction() as transaction:
                return transaction.go_back(session.id, to)

        after = await service.write(go_back)
        session = await service.read(lambda index: index.catalog.session(session.id))
    path = session.base(marks, after, name) if len(marks) else session.path(after)
    here = path[-1].id
    before = session.marks(here)
    total = checked_number(before.then(marks))
    compared = before if len(marks) else session.before(here)
    wanted = [*marks.more, *marks.less]
    known = await service.read(lambda index: index.catalog.rowids(wanted))
    if len(known) < len(wanted):
        raise UnknownImage("The index has no image with one of these ids.")
    taught = await service.heavy(
        partial(
            service.teacher.answer,
            session.question,
            total,
            k=options.k,
            offset=options.offset,
            fold=options.fold,
            before=compared,
            kept=True,
        )
    )
    if len(marks):

        def store(writer: Writer) -> str:
            with writer.transaction() as transaction:
                return transaction.add_round(session.id, here, marks, name)

        here = await service.write(store)
    return Told(question=session.question, taught=taught, session=session.id, round=here)


async def label(
    service: Service,
    named: str,
    *,
    label: str | None,
    after: str | None,
    above: float | None,
    precision: float | None,
    do_apply: bool,
) -> tuple[Labelled, int | None]:
    """What a session's label rule does now, and how many images got the label; None where it was only shown.

    label: None for the rule that is kept. Raises as `shown`, and IndexLocked.
    """
    index, teacher = service.index, service.teacher
    session = await service.read(lambda index: index.catalog.session(named))
    work = partial(shown, index, teacher, session, label, round_id=after, above=above, precision=precision)
    found = await service.heavy(work)
    if not do_apply:
        return found, None
    await service.write(lambda writer: keep_rule(writer, session.id, found))
    given = 0
    for batch in batches(found):  # between these, others may write
        given += await service.write(partial(give, label=found.rule.label, image_ids=batch))
    return found, given
