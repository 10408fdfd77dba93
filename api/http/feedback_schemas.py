"""Feedback as it goes over the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.http.schemas import EXAMPLE_ID, ImageId, Request
from api.http.search_schemas import HitAnswer, Part, SearchAnswer
from api.serving.feedback import Told
from api.serving.questions import Name, Question, SearchOptions, Whole
from api.serving.timing import Timing
from search.feedback import MAX_MARKS, MAX_NAME, FeedbackSession, LabelRule
from search.labelling import Labelled
from search.query.parts import MAX_PARTS, MAX_WINDOW

SessionName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Ids = Annotated[list[ImageId], Field(max_length=MAX_MARKS)]
Share = Annotated[float, Field(gt=0, le=1)]


class TaughtRequest(Request):
    """The question that is taught: parts as of a search; none where marks alone say what is looked for."""

    parts: list[Part] = Field(default_factory=list, max_length=MAX_PARTS)
    space: Name | None = Field(default=None, description="Default: as of a search.")
    filter: dict[str, Any] | None = Field(default=None, description="Which images may be hits.")


class FeedbackRequest(Request):
    """A question with marks, or a kept session and the marks to add."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question": {"parts": [{"id": EXAMPLE_ID}]}, "more": [EXAMPLE_ID[::-1]]}]}
    )

    question: TaughtRequest | None = None
    more: Ids = Field(default_factory=list, description="Images to find more like.")
    less: Ids = Field(default_factory=list, description="Images to find less like.")
    keep: bool = Field(default=False, description="Keep question and marks as a session. Needs a key that may write.")
    name: SessionName | None = Field(default=None, description="Of the session, or of the new round.")
    session: SessionName | None = Field(default=None, description="A kept session, by id or name, to go on with.")
    round: SessionName | None = Field(default=None, description="Add to this round. Default: the newest.")
    back: bool = Field(default=False, description="Let `round` be the one that later marks are added to.")
    k: Whole = Field(default=10, ge=1, le=MAX_WINDOW, description="How many hits.")
    offset: Whole = Field(default=0, ge=0, le=MAX_WINDOW, description="How many hits to pass over first.")
    fold: bool = Field(default=False, description="Near-equal images are one hit.")
    index: Name | None = Field(default=None, description="Default: the first one served.")

    def asked(self) -> Question:
        """Raises QuestionInvalid."""
        taught = self.question or TaughtRequest()
        options = SearchOptions(k=self.k, offset=self.offset, fold=self.fold, filter=taught.filter, space=taught.space)
        return Question(parts=[part.meant() for part in taught.parts], options=options)


class AdaptedQuestion(BaseModel):
    """The adapted question, for /v1/search. It holds until the space is fitted again."""

    parts: list[dict[str, Any]]
    space: str
    filter: dict[str, Any] | None


class FeedbackAnswer(SearchAnswer):
    """Hits of the adapted question, without what was marked, and what to mark next."""

    model_config = ConfigDict(json_schema_extra={})

    uncertain: list[HitAnswer] = Field(description="Hits further down whose marks would tell most.")
    method: str = Field(description="`question` without marks; `rocchio` of few; `classifier` of five or more.")
    more: list[str] = Field(description="All marks that count.")
    less: list[str]
    ignored: int = Field(description="Marks of images that the index has no more.")
    cut: float | None = Field(description="The score that tells more from less best, by marks left out in turn.")
    undecided: int | None = Field(description="Of the 200 best, how many lie between both kinds of marks.")
    stable: bool | None = Field(description="Further marks would change little; null where that cannot be told.")
    session: str | None
    round: str | None
    question: AdaptedQuestion | None = Field(description="The adapted question; null without marks.")

    @classmethod
    def told(cls, told: Told, timing: Timing) -> FeedbackAnswer:
        """The answer to a question and marks."""
        taught = told.taught
        adapted = None
        if taught.method != "question":
            (part,) = taught.query.parts
            assert part.vector is not None
            parts = [{"vector": part.vector.tolist(), "searched": True}]
            matching = None if told.question.filter is None else dict(told.question.filter)
            adapted = AdaptedQuestion(parts=parts, space=taught.space, filter=matching)
        return cls(
            **SearchAnswer.of(taught.hits, taught.space, timing).model_dump(),
            uncertain=[HitAnswer.model_validate(hit) for hit in taught.uncertain],
            method=taught.method,
            more=[*taught.marks.more],
            less=[*taught.marks.less],
            ignored=taught.ignored,
            cut=taught.cut,
            undecided=taught.undecided,
            stable=taught.stable,
            session=told.session,
            round=told.round,
            question=adapted,
        )


class ShareAnswer(BaseModel):
    """A share of marks, and the interval that holds the true share of 95% of such marks."""

    value: float | None
    low: float
    high: float


class RuleAnswer(BaseModel):
    """A label rule: images that score at least `above` get the label. `precision`: what `above` was chosen for."""

    label: str
    round: str
    above: float
    precision: float | None
    measured: MeasuredAnswer

    @classmethod
    def of(cls, rule: LabelRule) -> RuleAnswer:
        """The answer of a rule."""
        measured = MeasuredAnswer.model_validate(rule.measured)
        return cls(label=rule.label, round=rule.round, above=rule.above, precision=rule.precision, measured=measured)


class MeasuredAnswer(BaseModel):
    """Precision and recall of a rule on its marks, each scored as if it had not been given."""

    precision: ShareAnswer
    recall: ShareAnswer
    more: int
    less: int
    backed: float | None = Field(
        default=None, description="Of the images without a mark that score so, the share that the marks speak for."
    )


class RoundAnswer(BaseModel):
    """A round: marks added to those of its `parent`; null of the root."""

    id: str
    parent: str | None
    name: str | None
    added_at: str
    more: list[str]
    less: list[str]


class SessionSummary(BaseModel):
    """A kept session, and how many rounds and marks it has up to the newest round."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str | None
    space: str
    added_at: str
    rounds: int
    more: int
    less: int
    label: str | None = Field(description="Of its label rule.")


class SessionsAnswer(BaseModel):
    """All kept sessions, the oldest first."""

    sessions: list[SessionSummary]


class SessionAnswer(BaseModel):
    """A kept session: its question's images and words, and its tree of rounds, the root first."""

    id: str
    name: str | None
    space: str
    filter: dict[str, Any] | None
    ids: list[str] = Field(description="Indexed images that the question consists of.")
    words: str | None
    rounds: list[RoundAnswer]
    rule: RuleAnswer | None

    @classmethod
    def of(cls, session: FeedbackSession) -> SessionAnswer:
        """The answer of a session."""
        question = session.question
        return cls(
            id=session.id,
            name=session.name,
            space=question.space,
            filter=None if question.filter is None else dict(question.filter),
            ids=[part.id for part in question.parts if part.id is not None],
            words=question.words,
            rounds=[
                RoundAnswer(
                    id=one.id,
                    parent=one.parent,
                    name=one.name,
                    added_at=one.added_at,
                    more=[*one.marks.more],
                    less=[*one.marks.less],
                )
                for one in session.rounds
            ],
            rule=None if session.rule is None else RuleAnswer.of(session.rule),
        )


class SessionPatch(Request):
    """A session's new name; null takes it away."""

    name: SessionName | None


class LabelRequest(Request):
    """A label rule of a session. Without a label: the rule that is kept."""

    label: str | None = Field(default=None, min_length=1, max_length=500)
    above: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False, description="The least score.")
    precision: Share | None = Field(default=None, description="Instead: the precision that the marks must show.")
    round: SessionName | None = Field(default=None, description="Learn up to this round. Default: the newest.")
    apply: bool = Field(default=False, description="Give the label; else only say what it would do.")


class LabelledAnswer(BaseModel):
    """A rule, the number of images that lack its label, and of those that have it already."""

    rule: RuleAnswer
    new: int
    already: int
    doubtful: list[HitAnswer] = Field(description="Of the new, those with the lowest scores.")
    applied: int | None = Field(description="How many images got the label; null where it was only shown.")

    @classmethod
    def of(cls, labelled: Labelled, applied: int | None) -> LabelledAnswer:
        """The answer of a rule that was shown or applied."""
        return cls(
            rule=RuleAnswer.of(labelled.rule),
            new=len(labelled.new),
            already=labelled.already,
            doubtful=[HitAnswer.model_validate(hit) for hit in labelled.doubtful],
            applied=applied,
        )
