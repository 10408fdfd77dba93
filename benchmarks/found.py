"""What methods find: the best scores of each question among references, and tables of them, for `duplicates.py`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PRECISION = 0.999
KEPT = 50
"""Wrong references kept of each question, those with the best scores: a micro average precision counts no others."""
ROWS = 1_000
"""Questions that are compared at once with all references."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A picture that asks. answer: the file of its original, None of a hard negative; kind, strength: of its edit;
    beside: of a hard negative, the picture that it is alike. Other hard negatives may be of the same photo."""

    file: Path
    kind: str
    strength: int
    answer: Path | None
    beside: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Pairs that a method scored, (p,) each: the numbers of questions, scores, and whether each is right."""

    questions: NDArray[np.int64]
    scores: NDArray[np.float32]
    right: NDArray[np.bool_]

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[int, int, float]], right: Sequence[set[int]], left_out: Sequence[set[int]]
    ) -> Found:
        """Of (question, reference, score). right: the right references of each question; left_out: those that do not
        count, as they may be right."""
        rows = [
            (question, score, reference in right[question])
            for question, reference, score in pairs
            if reference not in left_out[question]
        ]
        asked, scores, correct = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(
            questions=np.array(asked, dtype=np.int64),
            scores=np.array(scores, dtype=np.float32),
            right=np.array(correct, dtype=np.bool_),
        )

    def cut(self) -> float:
        """The least score at which at least PRECISION of the pairs with it or more are right; of 0 or less none is."""
        order = np.argsort(-self.scores, kind="stable")
        ordered = self.scores[order]
        precision = np.cumsum(self.right[order]) / np.arange(1, len(order) + 1)
        last = np.append(ordered[1:] != ordered[:-1], True)[: len(order)]  # equal scores are told apart by no cut
        good = np.flatnonzero((precision >= PRECISION) & last & (ordered > 0))
        return float(ordered[good[-1]]) if len(good) else float("inf")

    def average_precision(self, wanted: int) -> float:
        """Of all pairs in one ranking. wanted: how many right ones there are."""
        hits = self.right[np.argsort(-self.scores, kind="stable")]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        return float((precision * hits).sum() / wanted)

    def found(self, least: float) -> NDArray[np.int64]:
        """Questions whose right reference has such a score or more."""
        return np.unique(self.questions[self.right & (self.scores >= least)])

    def fooled(self, least: float) -> NDArray[np.int64]:
        """Questions of which a wrong reference has."""
        return np.unique(self.questions[~self.right & (self.scores >= least)])


def by_product(
    questions: NDArray[np.float32],
    references: NDArray[np.float32],
    right: Sequence[set[int]],
    left_out: Sequence[set[int]],
) -> Found:
    """Pairs by the products of their vectors, (n, dim) each: all right ones, and KEPT of the others."""
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(questions), ROWS):
        products = questions[start : start + ROWS] @ references.T
        best = np.argpartition(-products, min(KEPT, products.shape[1] - 1), axis=1)[:, :KEPT]
        for row, places in enumerate(best.tolist()):
            number = start + row
            chosen = {*places} | right[number]
            pairs += [(number, place, float(products[row, place])) for place in chosen]
    return Found.of(pairs, right, left_out)


def tables(methods: Mapping[str, Found], listed: str, right: Sequence[set[int]], questions: Sequence[Question]) -> None:
    """Print the share of edits found by kind at PRECISION, the micro average precision, and who was fooled.

    listed: the method whose every score above 0 is shown to people: it gets a column of its own for that.
    """
    cuts = {name: found.cut() for name, found in methods.items()}
    columns = {name: (found, cuts[name]) for name, found in methods.items()}
    columns[f"{listed}, all listed"] = methods[listed], float(np.finfo(np.float32).tiny)
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    hard: defaultdict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        (hard if question.answer is None else kinds)[question.kind].append(number)
    everything = [number for numbers in kinds.values() for number in numbers]
    print("| edit | copies | " + " | ".join(columns) + " |\n|---" + "|---" * (1 + len(columns)) + "|")
    held = {name: {*found.found(least).tolist()} for name, (found, least) in columns.items()}
    for kind, numbers in [*kinds.items(), ("**all**", everything)]:
        shares = [f"{sum(number in held[name] for number in numbers) / len(numbers):.3f}" for name in columns]
        print(f"| {kind} | {len(numbers)} | " + " | ".join(shares) + " |")
    wanted = sum(len(one) for one in right)
    precise = [f"{found.average_precision(wanted):.3f}" for found, _ in columns.values()]
    print("| micro AP | | " + " | ".join(precise) + " |")
    print("\nQuestions that a wrong picture was found for:\n")
    print("| kind | questions | " + " | ".join(columns) + " |\n|---" + "|---" * (1 + len(columns)) + "|")
    fooled = {name: {*found.fooled(least).tolist()} for name, (found, least) in columns.items()}
    for kind, numbers in [*hard.items(), ("edits, of another drawing", everything)]:
        counts = [str(sum(number in fooled[name] for number in numbers)) for name in columns]
        print(f"| {kind} | {len(numbers)} | " + " | ".join(counts) + " |")
    precision = [_precision(found, least) for found, least in columns.values()]
    print("| precision of pairs | | " + " | ".join(precision) + " |")
    print("\nCuts: " + ", ".join(f"{name} {least:.4f}" for name, least in cuts.items()))
    wrong = Counter(questions[number].kind for number in fooled[f"{listed}, all listed"])
    print(f"Of `{listed}`, the kinds of questions with a wrong picture: {dict(wrong) or 'none'}")


def _precision(found: Found, least: float) -> str:
    taken = found.right[found.scores >= least]
    return f"{taken.mean():.4f}" if len(taken) else "-"
