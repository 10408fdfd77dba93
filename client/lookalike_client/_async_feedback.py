"""Feedback: more and less like this. `_feedback.py` is made of `_async_feedback.py`: change this one."""
# ruff: noqa: A002  (filter and round are the interface's own words)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lookalike_client import _feedback_calls
from lookalike_client._async_connection import AsyncConnection
from lookalike_client._feedback_models import FeedbackResult, FeedbackSession, FeedbackSummary, LabelResult
from lookalike_client._many import apart_async
from lookalike_client._models import Part


class AsyncFeedback:
    """Questions that marks adapt: `client.feedback`.

    A session is named by its id or its name. Every call that changes something raises Forbidden (the key may only
    read), Unavailable and DiskFull too.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def ask(
        self,
        parts: Sequence[Part] | None = None,
        *,
        more: Iterable[str] = (),
        less: Iterable[str] = (),
        space: str | None = None,
        filter: Mapping[str, Any] | None = None,
        keep: bool = False,
        name: str | None = None,
        session: str | None = None,
        round: str | None = None,
        back: bool = False,
        k: int = 10,
        offset: int = 0,
        index: str | None = None,
    ) -> FeedbackResult:
        """The images nearest to a question as marks adapt it, and which to mark next.

        parts: the question; None where marks alone say what is looked for. more, less: ids of indexed images. keep: as
        a session, called `name`. session: a kept one, to which the marks are added, after its newest round, or after
        `round`; without marks that round is answered. back: later marks are added to `round`, and those after it count
        no more. Nothing is kept otherwise, and asking twice changes nothing more.

        Raises NotFound (an id, a session, a round), Unprocessable, Conflict (another session has the name), TypeError.
        """
        call = await apart_async(
            _feedback_calls.ask,
            parts,
            more=more,
            less=less,
            space=space,
            filter=filter,
            keep=keep,
            name=name,
            session=session,
            round=round,
            back=back,
            k=k,
            offset=offset,
            index=index,
        )
        return await self._connection._run(call)

    async def sessions(self, index: str | None = None) -> list[FeedbackSummary]:
        """The kept sessions, the oldest first."""
        return await self._connection._run(_feedback_calls.sessions(index))

    async def session(self, named: str, index: str | None = None) -> FeedbackSession:
        """A kept session with its rounds. Raises NotFound."""
        return await self._connection._run(_feedback_calls.session(named, index=index))

    async def rename(self, named: str, name: str | None, index: str | None = None) -> FeedbackSession:
        """Call a session by another name, or None. Raises NotFound, Conflict, Unprocessable."""
        return await self._connection._run(_feedback_calls.rename(named, name, index=index))

    async def delete(self, named: str, index: str | None = None) -> None:
        """Forget a session and its marks; labels that it gave stay."""
        await self._connection._run(_feedback_calls.delete(named, index=index))

    async def label(
        self,
        named: str,
        label: str | None = None,
        *,
        above: float | None = None,
        precision: float | None = None,
        round: str | None = None,
        apply: bool = False,
        index: str | None = None,
    ) -> LabelResult:
        """What a label rule would do, with its precision by the marks; apply: keep it, and give images the label.

        label: None for the rule that is kept. above: the least score; or precision, 0..1, that the marks must show.
        Raises NotFound, Unprocessable (marks are too few).
        """
        call = _feedback_calls.label(
            named, label, above=above, precision=precision, round=round, apply=apply, index=index
        )
        return await self._connection._run(call)
