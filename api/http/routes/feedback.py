"""Feedback: more and less like this; kept in sessions; made a label."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from api.http import problems
from api.http.edge import MAY_WRITE
from api.http.feedback_schemas import (
    FeedbackAnswer,
    FeedbackRequest,
    LabelledAnswer,
    LabelRequest,
    SessionAnswer,
    SessionPatch,
    SessionsAnswer,
    SessionSummary,
)
from api.http.routes import CheckedRoute, Chosen, InAddress, answers, choose, rendered
from api.http.routes.search import room
from api.serving.feedback import go_on, label, taught_question, teach
from api.serving.timing import Timing
from search.feedback import MAX_NAME, checked_marks
from search.writer import Writer

router = APIRouter(prefix="/v1/feedback", tags=["feedback"], route_class=CheckedRoute)
Session = Annotated[str, PathParameter(max_length=MAX_NAME, description="A session's id, or its name.")]


@router.post("", response_model=FeedbackAnswer, responses=answers(404, 409, 413, 415, 507))
async def feedback(request: Request, body: FeedbackRequest, in_address: InAddress = None) -> Response:
    """More like this, less like that: a question adapted to marks, its hits, and what to mark next.

    Nothing is kept unless `keep` is set, or marks are given for a kept `session`: that needs a key that may write.
    Doing it twice leaves the index as doing it once does.
    """
    began, timing = time.perf_counter(), Timing()
    service = choose(request, body.index, in_address)
    marks = checked_marks(body.more, body.less)
    if body.session is not None and (body.question is not None or body.keep):
        raise problems.invalid("A session has its question already, and is kept: send neither `question` nor `keep`.")
    if body.session is None and (body.round is not None or (body.name is not None and not body.keep)):
        raise problems.invalid("`round` belongs to a session, and `name` to what is kept.")
    if body.back and (body.round is None or len(marks) or body.name is not None):
        raise problems.invalid("`back` goes back to a `round`: send its id, and no marks and no name.")
    if (body.keep or body.back or (body.session is not None and len(marks))) and not request.scope[MAY_WRITE]:
        raise problems.read_only()
    asked = body.asked()
    with room(request, [1] * len(asked.pictures)):
        if body.session is None:
            question = await taught_question(service, asked, timing)
            told = await teach(service, question, marks, asked.options, keep=body.keep, name=body.name)
        else:
            told = await go_on(
                service, body.session, marks, asked.options, after=body.round, name=body.name, back=body.back
            )
    timing.total = time.perf_counter() - began
    return rendered(FeedbackAnswer.told(told, timing))


@router.get("", responses=answers(404))
async def list_sessions(service: Chosen) -> SessionsAnswer:
    """The kept sessions, the oldest first."""
    sessions = await service.read(lambda index: index.catalog.sessions())
    return SessionsAnswer(sessions=[SessionSummary.model_validate(one) for one in sessions])


@router.get("/{session}", responses=answers(404))
async def read_session(service: Chosen, session: Session) -> SessionAnswer:
    """A kept session with its rounds. To undo a round, go on from its parent; to branch, add two rounds to one."""
    return SessionAnswer.of(await service.read(lambda index: index.catalog.session(session)))


@router.patch("/{session}", responses=answers(404, 409, 413, 507))
async def name_session(service: Chosen, session: Session, body: SessionPatch) -> SessionAnswer:
    """Name a session."""

    def change(writer: Writer) -> str:
        held = writer.index.catalog.session(session)
        with writer.transaction() as transaction:
            transaction.name_session(held.id, body.name)
        return held.id

    changed = await service.write(change)
    return SessionAnswer.of(await service.read(lambda index: index.catalog.session(changed)))


@router.delete("/{session}", status_code=204, responses=answers(404, 507))
async def delete_session(service: Chosen, session: Session) -> None:
    """Forget a session and its marks. Labels that it gave stay."""

    def delete(writer: Writer) -> None:
        held = writer.index.catalog.session(session)
        with writer.transaction() as transaction:
            transaction.delete_session(held.id)

    await service.write(delete)


@router.post("/{session}/label", responses=answers(404, 413, 507))
async def label_images(service: Chosen, session: Session, body: LabelRequest) -> LabelledAnswer:
    """Say what a label rule would do, with its precision by the marks; with `apply`, keep it and give the label."""
    labelled, applied = await label(
        service,
        session,
        label=body.label,
        after=body.round,
        above=body.above,
        precision=body.precision,
        do_apply=body.apply,
    )
    return LabelledAnswer.of(labelled, applied)
