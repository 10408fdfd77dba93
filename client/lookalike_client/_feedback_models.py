"""Values of feedback: answers to marks, sessions and their rounds, label rules. All are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lookalike_client._models import Hit, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackResult:
    """The answer to a question and marks.

    hits: of the adapted question, without what was marked. uncertain: hits further down whose marks would tell most.
    method: `question`, `rocchio` or `classifier`. more, less: all marks that count; ignored: how many do not, as their
    images are gone. cut: the score that tells more from less best; undecided: of the 200 best hits, how many lie
    between both kinds of marks; stable: further marks would change little. All three are None where it cannot be told.
    session, round: None of what is not kept. question: the adapted question, None without marks: see `parts`.
    """

    hits: tuple[Hit, ...]
    space: str
    uncertain: tuple[Hit, ...]
    method: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    ignored: int
    cut: float | None
    undecided: int | None
    stable: bool | None
    session: str | None
    round: str | None
    question: Mapping[str, Any] | None = field(hash=False)

    @property
    def parts(self) -> list[Part]:
        """The adapted question, for `search(parts=..., space=...)`; empty without marks."""
        given = () if self.question is None else self.question.get("parts", ())
        return [Part(vector=one["vector"], searched=True) for one in given]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRound:
    """Marks added to those of the round `parent`, None of the root. added_at: ISO 8601, UTC."""

    id: str
    parent: str | None
    name: str | None
    added_at: str
    more: tuple[str, ...]
    less: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredShare:
    """A share of marks, None of none, and an interval that holds the true share of 95% of such marks."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRule:
    """A rule's precision and recall on `more` and `less` marks, each scored as if it had not been given. backed: of the
    images without a mark that score so, the share that the marks speak for; None where none does.
    """

    precision: MeasuredShare
    recall: MeasuredShare
    more: int
    less: int
    backed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Images that score at least `above` get the label. precision: what `above` was chosen for; None: it was given."""

    label: str
    round: str
    above: float
    precision: float | None
    measured: MeasuredRule


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelResult:
    """What a rule does: how many images are `new` to its label, how many have it `already`; the new ones with the
    lowest scores; how many got it, None where it was only shown.
    """

    rule: LabelRule
    new: int
    already: int
    doubtful: tuple[Hit, ...]
    applied: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSummary:
    """A kept session: how many rounds it has, and marks up to the newest; the label of its rule, if it has one."""

    id: str
    name: str | None
    space: str
    added_at: str
    rounds: int
    more: int
    less: int
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSession:
    """A kept session: the indexed images and the words of its question, and its tree of rounds, the root first."""

    id: str
    name: str | None
    space: str
    filter: Mapping[str, Any] | None = field(hash=False)
    ids: tuple[str, ...]
    words: str | None
    rounds: tuple[FeedbackRound, ...]
    rule: LabelRule | None
