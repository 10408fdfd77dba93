"""Label rules: a taught question gives a label to all images that score enough, with a precision that marks measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.catalog.annotations import checked_labels
from search.errors import FeedbackInvalid
from search.feedback import FeedbackSession, LabelRule, Marks, TaughtQuestion
from search.filters import parse_filter
from search.index import Index
from search.query.candidates import COSINE_ROUNDING
from search.query.feedback import Adapted
from search.teaching import Learned, Teacher
from search.types import Hit
from search.writer import Writer

MIN_EACH = 5
"""Marks of either kind below which nothing is measured."""
CONFIDENCE = 0.95
"""How probably an interval holds the true share."""
CHUNK = 100_000
"""Images compared at once: 200 MB of a space of 512 dimensions at most."""
DOUBTFUL = 10
"""Images shown of those that would get a label: the lowest scores, which are wrong most often."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of marks, and an interval that holds the true share with CONFIDENCE; None of none."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What marks say of a rule: each is scored as if it had not been given.

    precision: of the marks that score at least `above`, how many are `more`; recall: of those that are `more`, how many
    score so. more, less: how many marks there are. Marks are no random images: most are the best of their rounds.
    """

    above: float
    precision: Share
    recall: Share
    more: int
    less: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A rule's measure, and the images it concerns now: `new` ids that lack the label, and how many have it already.

    doubtful: the first of `new` by rising score.
    """

    rule: LabelRule
    measured: Measured
    new: tuple[str, ...]
    already: int
    doubtful: tuple[Hit, ...]


def measure(adapted: Adapted, *, above: float | None = None, precision: float | None = None) -> Measured:
    """Measure a rule on the marks. precision: take the lowest score that reaches it, by the marks, instead of `above`.

    Raises FeedbackInvalid where marks are too few, or where no score is so precise.
    """
    more, less = adapted.held_out_more, adapted.held_out_less
    if (above is None) == (precision is None):
        raise FeedbackInvalid("A label needs either the score above which images get it, or a precision.")
    if min(len(more), len(less)) < MIN_EACH:
        raise FeedbackInvalid(
            f"{len(more)} marks are more and {len(less)} are less. A label rule is measured on them: mark at least "
            f"{MIN_EACH} of each."
        )
    if above is None:
        assert precision is not None
        above = _precise(more, less, precision)
    right, wrong = int((more >= above).sum()), int((less >= above).sum())
    return Measured(
        above=above,
        precision=_share(right, right + wrong),
        recall=_share(right, len(more)),
        more=len(more),
        less=len(less),
    )


def _precise(more: NDArray[np.float64], less: NDArray[np.float64], precision: float) -> float:
    cuts: list[float] = np.sort(more).tolist()
    for cut in cuts:
        right, wrong = int((more >= cut).sum()), int((less >= cut).sum())
        if right >= precision * (right + wrong):
            return math.floor(cut * 1e6) / 1e6
    raise FeedbackInvalid(
        f"No score is so precise ({precision:.0%}) by these marks. Mark more images, or ask for less."
    )


def preview(
    index: Index,
    teacher: Teacher,
    session: FeedbackSession,
    label: str,
    *,
    round_id: str | None = None,
    above: float | None = None,
    precision: float | None = None,
) -> Labelled:
    """What a label rule would do to the images that are there now. round_id: learn up to this round; None: the newest.

    Marks themselves count: `more` gets the label, `less` does not. Raises FeedbackInvalid, UnknownSession,
    AnnotationInvalid, and what `Teacher.learn` raises.
    """
    (kept_label,) = checked_labels([label]) or ("",)
    if not kept_label:
        raise FeedbackInvalid("The label is empty. Name one, such as receipts.")
    round_id = session.path(round_id)[-1].id
    learned = teacher.learn(session.question, session.marks(round_id), kept=True)
    measured = measure(learned.adapted, above=above, precision=precision)
    rule = LabelRule(
        label=kept_label, round=round_id, above=measured.above, precision=precision, measured=measured.to_json()
    )
    scores = _scores(index, session.question, learned, measured.above)
    records = index.catalog.entries(scores)
    lacking = {rowid for rowid in scores if kept_label not in records[rowid].facts["labels"]}
    waiting = sorted((scores[rowid], rowid) for rowid in lacking)
    doubtful = [Hit(score=score, **records[rowid].facts) for score, rowid in waiting[:DOUBTFUL]]
    return Labelled(
        rule=rule,
        measured=measured,
        new=tuple(records[rowid].facts["id"] for _, rowid in waiting),
        already=len(scores) - len(waiting),
        doubtful=tuple(doubtful),
    )


def again(index: Index, teacher: Teacher, session: FeedbackSession) -> Labelled:
    """What a session's kept rule would do now. Raises FeedbackInvalid where it has none, and as `preview`."""
    rule = session.rule
    if rule is None:
        raise FeedbackInvalid("The session has no label rule yet. Name a label, and a score or a precision.")
    above = rule.above if rule.precision is None else None
    return preview(index, teacher, session, rule.label, round_id=rule.round, above=above, precision=rule.precision)


def apply(writer: Writer, session: str, labelled: Labelled) -> int:
    """Keep a rule, and give its label to the images of a preview. Returns how many got it. Raises UnknownSession."""
    changed = 0
    with writer.transaction() as transaction:
        transaction.set_rule(session, labelled.rule)
        for image_id in labelled.new:
            if transaction.rowid(image_id) is not None:  # it may have been removed since
                changed += transaction.annotate(image_id, labels=[labelled.rule.label])
    return changed


def _scores(index: Index, question: TaughtQuestion, learned: Learned, above: float) -> dict[int, float]:
    """The images that a rule labels, by rowid, with their scores."""
    snapshot = index.snapshot()
    rowids = snapshot.all_rowids(snapshot.space(learned.space).name)
    if question.filter is not None:
        rowids = np.intersect1d(rowids, index.catalog.matching(parse_filter(question.filter)), assume_unique=True)
    found: dict[int, float] = {}
    target = learned.adapted.vector[None, :]
    for start in range(0, len(rowids), CHUNK):
        some = rowids[start : start + CHUNK]
        scores = snapshot.cosines(learned.space.name, target, some)
        enough = np.flatnonzero(scores >= above - COSINE_ROUNDING)
        found |= dict(zip(some[enough].tolist(), scores[enough].tolist(), strict=True))
    found = {rowid: found[rowid] for rowid in index.catalog.present(found)}
    return _as_marked(index, found, learned.marks)


def _as_marked(index: Index, found: dict[int, float], marks: Marks) -> dict[int, float]:
    for rowid in index.catalog.rowids(marks.less).values():
        found.pop(rowid, None)
    return found | {rowid: found.get(rowid, 1.0) for rowid in index.catalog.rowids(marks.more).values()}


def _share(right: int, of: int) -> Share:
    """A share with its interval: Clopper and Pearson, "The use of confidence or fiducial limits" (1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if right == 0 else _root(lambda p: _at_least(right, of, p) - tail)
    high = 1.0 if right == of else _root(lambda p: tail - (1 - _at_least(right + 1, of, p)))
    return Share(value=right / of if of else None, low=round(low, 4), high=round(high, 4))


def _at_least(right: int, of: int, share: float) -> float:
    """How probable it is that so many of `of` are right, or more, where this share of all is."""
    log, rest = math.log(share), math.log1p(-share)
    return sum(
        math.exp(math.lgamma(of + 1) - math.lgamma(one + 1) - math.lgamma(of - one + 1) + one * log + (of - one) * rest)
        for one in range(right, of + 1)
    )


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of 0..1 is zero."""
    low, high = 1e-12, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low
