"""Label rules: a taught question gives a label to all images that score enough.

Marks say how precise a rule is among what was marked. The scores of all other images say whether so few marks can speak
for so many images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.catalog.annotations import checked_labels
from search.errors import AnnotationInvalid, FeedbackInvalid
from search.feedback import FeedbackSession, LabelRule, TaughtQuestion
from search.filters import Condition, OneOf, Present, parse_filter
from search.index import Index
from search.query.candidates import COSINE_ROUNDING
from search.query.feedback import Adapted
from search.teaching import Learned, Teacher
from search.types import Hit
from search.writer import Writer

MIN_EACH = 5
"""Marks of either kind below which nothing is measured."""
SURE_SHARE = 0.2
"""Share of the marks that are `more` from which on images that score so are counted: of fewer, the count is chance."""
WANTED_PER_MARK = (1, 10)
"""Images without a mark that are looked for, for each mark that is `more`: as many at least, and at most. Chosen with
SURE_SHARE on Scratch, clothes and openclipart (`benchmarks/teach.py --rules`)."""
CONFIDENCE = 0.95
"""How probably an interval holds the true share."""
CHUNK = 100_000
"""Images compared at once: 200 MB of a space of 512 dimensions at most."""
LABELLED_AT_ONCE = 500
"""Images that get a label in one transaction: about .2 s."""
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
    backed: of the images without a mark that score so, the share that the marks speak for; None where none scores so.
    """

    above: float
    precision: Share
    recall: Share
    more: int
    less: int
    backed: float | None = None

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


def measure(
    adapted: Adapted, unmarked: NDArray[np.float32], *, above: float | None = None, precision: float | None = None
) -> Measured:
    """Measure a rule on the marks, and on the images that have none.

    unmarked: (n,), what these score. precision: take the lowest score that reaches it, by the marks and by `backed`,
    instead of `above`. Raises FeedbackInvalid where marks are too few, or where no score is so precise.
    """
    more, less = adapted.held_out_more, adapted.held_out_less
    if (above is None) == (precision is None):
        raise FeedbackInvalid("A label needs either the score above which images get it, or a precision.")
    if min(len(more), len(less)) < MIN_EACH:
        raise FeedbackInvalid(
            f"{len(more)} marks are more and {len(less)} are less. A label rule is measured on them: mark at least "
            f"{MIN_EACH} of each."
        )
    others = np.sort(unmarked)
    if above is None:
        assert precision is not None
        above = _precise(more, less, others, precision)
    right, wrong = int((more >= above).sum()), int((less >= above).sum())
    return Measured(
        above=above,
        precision=_share(right, right + wrong),
        recall=_share(right, len(more)),
        more=len(more),
        less=len(less),
        backed=_backed(more, others, above),
    )


def _precise(
    more: NDArray[np.float64], less: NDArray[np.float64], others: NDArray[np.float32], precision: float
) -> float:
    cuts: list[float] = np.sort(more).tolist()
    for cut in cuts:
        right, wrong = int((more >= cut).sum()), int((less >= cut).sum())
        backed = _backed(more, others, cut)
        if right >= precision * (right + wrong) and (backed is None or backed >= precision):
            return math.floor(cut * 1e6) / 1e6
    raise FeedbackInvalid(
        f"No score is so precise ({precision:.0%}): these marks are too mixed, or too few for the images that score "
        "so. Mark some of the best images that have no mark, or ask for less."
    )


def _backed(more: NDArray[np.float64], others: NDArray[np.float32], above: float) -> float | None:
    """Of the images that score at least `above`, the share that marks speak for; None where none scores so.

    more: (p,), what marks that are `more` score when left out; others: (n,), ascending, what images without a mark do.
    What is looked for among these scores like `more`. So it is no more, at any score, than the images that score so,
    divided by the share of `more` that does: the least such number bounds it (Scott, "A rate of convergence for mixture
    proportion estimation", AISTATS 2015). Below `above`, images that grow faster than marks are mostly others.
    """

    def scoring(least: NDArray[np.float64] | float) -> NDArray[np.int64]:
        return np.asarray(len(others) - np.searchsorted(others, least))

    there = int(scoring(above))
    if not there:
        return None
    falling = np.sort(more)[::-1]
    shares = np.arange(1, len(more) + 1) / len(more)
    sure = shares >= SURE_SHARE
    least, most = (each * len(more) for each in WANTED_PER_MARK)
    wanted = float(np.clip((scoring(falling[sure]) / shares[sure]).min(), least, most))
    return min(1.0, wanted * float((more >= above).mean()) / there)


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
    more = np.array([*index.catalog.rowids(learned.marks.more).values()], dtype=np.int64)
    less = np.array([*index.catalog.rowids(learned.marks.less).values()], dtype=np.int64)
    rowids, scores = _unmarked(index, session.question, learned, np.concatenate([more, less]))
    measured = measure(learned.adapted, scores, above=above, precision=precision)
    rule = LabelRule(
        label=kept_label, round=round_id, above=measured.above, precision=precision, measured=measured.to_json()
    )
    enough = scores >= measured.above - COSINE_ROUNDING
    rowids, scores = np.concatenate([more, rowids[enough]]), np.concatenate([np.ones(len(more)), scores[enough]])
    lacking = ~np.isin(rowids, index.catalog.matching(Condition("label", (OneOf((kept_label,)),))))
    order = np.lexsort((rowids[lacking], scores[lacking]))
    waiting, their = rowids[lacking][order].tolist(), scores[lacking][order].tolist()
    ids, records = index.catalog.ids(waiting), index.catalog.entries(waiting[:DOUBTFUL])
    return Labelled(
        rule=rule,
        measured=measured,
        new=tuple(ids[rowid] for rowid in waiting if rowid in ids),
        already=len(rowids) - len(waiting),
        doubtful=tuple(
            Hit(score=score, **records[rowid].facts)
            for rowid, score in zip(waiting, their, strict=True)
            if rowid in records
        ),
    )


def again(index: Index, teacher: Teacher, session: FeedbackSession) -> Labelled:
    """What a session's kept rule would do now. Raises FeedbackInvalid where it has none, and as `preview`."""
    rule = session.rule
    if rule is None:
        raise FeedbackInvalid("The session has no label rule yet. Name a label, and a score or a precision.")
    above = rule.above if rule.precision is None else None
    return preview(index, teacher, session, rule.label, round_id=rule.round, above=above, precision=rule.precision)


def shown(
    index: Index,
    teacher: Teacher,
    session: FeedbackSession,
    label: str | None,
    *,
    round_id: str | None = None,
    above: float | None = None,
    precision: float | None = None,
) -> Labelled:
    """`preview` of a label, `again` without one: then FeedbackInvalid too where the kept rule is to be another."""
    if label is not None:
        return preview(index, teacher, session, label, round_id=round_id, above=above, precision=precision)
    if (round_id, above, precision) != (None, None, None):
        raise FeedbackInvalid("Without a label, the kept rule is meant, as it is: to change it, name its label too.")
    return again(index, teacher, session)


def apply(writer: Writer, session: str, labelled: Labelled) -> int:
    """Keep a rule, and give its label to the images of a preview. Returns how many got it. Raises UnknownSession."""
    keep_rule(writer, session, labelled)
    return sum(give(writer, labelled.rule.label, batch) for batch in batches(labelled))


def keep_rule(writer: Writer, session: str, labelled: Labelled) -> None:
    """Keep the rule of a preview. Raises UnknownSession."""
    with writer.transaction() as transaction:
        transaction.set_rule(session, labelled.rule)


def batches(labelled: Labelled) -> list[tuple[str, ...]]:
    """The images that lack a rule's label, as many at once as others that write may well wait for."""
    return [labelled.new[start : start + LABELLED_AT_ONCE] for start in range(0, len(labelled.new), LABELLED_AT_ONCE)]


def give(writer: Writer, label: str, image_ids: Sequence[str]) -> int:
    """Give images a label. Returns how many got it: not those that were removed since, or have too many labels."""
    changed = 0
    with writer.transaction() as transaction:
        for image_id in image_ids:
            if transaction.rowid(image_id) is not None:
                with suppress(AnnotationInvalid):
                    changed += transaction.annotate(image_id, labels=[label])
    return changed


def _unmarked(
    index: Index, question: TaughtQuestion, learned: Learned, marked: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The images that a rule may label, but those that are marked: rowids and scores, (n,) each."""
    snapshot = learned.snapshot
    rowids = snapshot.all_rowids(learned.space.name)
    if question.filter is not None:
        rowids = np.intersect1d(rowids, index.catalog.matching(parse_filter(question.filter)), assume_unique=True)
    rowids = np.setdiff1d(rowids, marked, assume_unique=True)
    rowids = rowids[np.isin(rowids, index.catalog.matching(Present()))]
    target = learned.adapted.vector[None, :]
    chunks = [rowids[start : start + CHUNK] for start in range(0, len(rowids), CHUNK)]
    scores = [snapshot.cosines(learned.space.name, target, some) for some in chunks]
    return rowids, np.concatenate([np.empty(0, np.float32), *scores])


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
