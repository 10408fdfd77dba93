"""How well a space finds: every labelled image asks for the others of its class, by exact search."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import LabelsInvalid
from analysis.labels import Relevance
from analysis.metrics import Estimate, estimates, of_rankings
from search.index import Index
from search.types import Space

MAX_CELLS = 400_000_000
"""Pairs of query and image that are ranked, at most: half a minute. Of more, queries are drawn at random."""
MIN_QUERIES = 500
BATCH_CELLS = 4_000_000
"""Pairs that are ranked at once: 160 MB with all that is counted of them."""


VOTES = 10
"""Nearest images that vote for an image's class."""
KNN = "knn_at_10"
"""The metric that these votes make, by the name that `--json` has: the share of images that get a class of theirs."""
SHOWN_HITS = 5
"""Hits kept of a query, for a report."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one query found. image, hits: ids, the best hits first; first: the rank of the first relevant one, from 1;
    precision: its average precision; voted: the class that the nearest images voted for, None where there are pairs."""

    image: str
    hits: tuple[str, ...]
    first: int
    precision: float
    voted: str | None


@dataclass(frozen=True, kw_only=True)
class SpaceScores:
    """How well a space finds: each metric over all queries, recall@1 of each class, and every query's answer."""

    space: str
    metrics: dict[str, Estimate]
    classes: dict[str, float]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """images: how many are ranked for each query; queries: how many were asked."""

    images: int
    queries: int
    spaces: tuple[SpaceScores, ...]


def complete_spaces(index: Index) -> list[Space]:
    """The spaces in which every image has one vector of how it looks: not those of words, nor of regions. Raises
    LabelsInvalid where there is none."""
    if found := [space for space in index.spaces if space.complete and space.recipe.shows_whole]:
        return found
    raise LabelsInvalid("No space of the index is complete. Fill one: lookalike spaces INDEX add. Or name it: --space.")


def evaluate(index: Index, relevance: Relevance, spaces: Sequence[Space], seed: int = 0) -> Evaluation:
    """Ask with every labelled image for those that are relevant to it, in each space. Raises LabelsInvalid.

    The image itself is not among those that are ranked, nor are images whose files are all gone. The same queries are
    asked in each space.
    """
    held = [index.searched(space) for space in spaces]
    common = held[0][0]
    for rowids, _ in held[1:]:
        common = np.intersect1d(common, rowids)
    ids = index.catalog.ids(index.catalog.present(common.tolist()))
    common = np.array([rowid for rowid in common.tolist() if rowid in ids], dtype=np.int64)
    gallery = Gallery(relevance, [ids[rowid] for rowid in common.tolist()])
    queries = _drawn(gallery.queries, len(gallery.places), seed)
    if not len(queries):
        raise LabelsInvalid(
            "No two images of the index are alike by these labels: there is nothing to ask for. Name others by "
            "--labels; --labels none measures without labels."
        )
    scores = []
    for space, (rowids, vectors) in zip(spaces, held, strict=True):
        here = vectors[np.searchsorted(rowids, common[gallery.places])]
        values, answers = _asked(here, gallery, queries)
        if relevance.pairs is None:
            right = [one.voted in relevance.classes[one.image] for one in answers]
            values[KNN] = np.array(right, dtype=np.float64)
        classes = _by_class(values["r_at_1"], relevance, [one.image for one in answers])
        found = SpaceScores(space=space.name, metrics=estimates(values, seed), classes=classes, answers=tuple(answers))
        scores.append(found)
    return Evaluation(images=len(gallery.places), queries=len(queries), spaces=tuple(scores))


class Gallery:
    """The images that are ranked, and which of them are relevant to which."""

    def __init__(self, relevance: Relevance, names: Sequence[str]) -> None:
        """names: the ids of all images. Those without a class are left out, unless pairs say what is relevant."""
        self._relevance = relevance
        ranks = relevance.ranks()
        ranked = [number for number, name in enumerate(names) if ranks(name)]
        self.places = np.array(ranked, dtype=np.int64)
        """Of `names`, those that are ranked."""
        self.names = [names[number] for number in ranked]
        self._place_of = {name: place for place, name in enumerate(self.names)}
        members: defaultdict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(self.names):
            for held in relevance.classes.get(name, ()):
                members[held].append(place)
        self._members = {held: np.array(places, dtype=np.int64) for held, places in members.items()}
        self.queries = [place for place, name in enumerate(self.names) if self._has_relevant(name)]

    def _has_relevant(self, name: str) -> bool:
        if self._relevance.pairs is not None:
            return any(one in self._place_of for one in self._relevance.pairs.get(name, ()))
        return any(len(self._members[held]) > 1 for held in self._relevance.classes[name])

    def unknown(self, place: int) -> list[int]:
        """The images of which nobody knows whether they are relevant to one of them."""
        if self._relevance.against is None:
            return []
        query = self.names[place]
        return [other for other, name in enumerate(self.names) if not self._relevance.judges(query, name)]

    def vote(self, places: Sequence[int]) -> str | None:
        """The class that most of these images have, of several the one that comes first; None where there are pairs."""
        votes = Counter(held for place in places for held in sorted(self._relevance.classes.get(self.names[place], ())))
        return max(votes, key=lambda held: votes[held], default=None)  # the first of the largest: they are in order

    def relevant(self, place: int) -> NDArray[np.bool_]:
        """Which images are relevant to one of them, (n,); it is not relevant to itself."""
        found = np.zeros(len(self.names), dtype=np.bool_)
        name = self.names[place]
        if self._relevance.pairs is not None:
            found[[self._place_of[one] for one in self._relevance.pairs[name] if one in self._place_of]] = True
        for held in self._relevance.classes.get(name, ()):
            found[self._members[held]] = True
        found[place] = False
        return found


def _drawn(queries: Sequence[int], images: int, seed: int) -> NDArray[np.int64]:
    most = max(MIN_QUERIES, MAX_CELLS // max(1, images))
    found = np.array(queries, dtype=np.int64)
    if len(found) <= most:
        return found
    return np.sort(np.random.default_rng(seed).choice(found, most, replace=False))


def _asked(
    vectors: NDArray[np.float32], gallery: Gallery, queries: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], list[Answer]]:
    """Each metric of each query, and its answer. vectors: (n, dim) float32 unit vectors of the images ranked."""
    batch = max(1, BATCH_CELLS // len(vectors))
    parts, answers = [], []
    for start in range(0, len(queries), batch):
        asked = queries[start : start + batch]
        scores = vectors[asked] @ vectors.T
        for row, place in enumerate(asked.tolist()):
            scores[row, gallery.unknown(place)] = -np.inf
        scores[np.arange(len(asked)), asked] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        wanted = np.stack([gallery.relevant(place) for place in asked.tolist()])
        ranked = np.take_along_axis(wanted, order, axis=1)
        parts.append(of_rankings(ranked))
        for place, nearest, first, precision in zip(
            asked.tolist(),
            order[:, :VOTES].tolist(),
            ranked.argmax(axis=1).tolist(),
            parts[-1]["map"].tolist(),
            strict=True,
        ):
            answers.append(
                Answer(
                    image=gallery.names[place],
                    hits=tuple(gallery.names[hit] for hit in nearest[:SHOWN_HITS]),
                    first=first + 1,
                    precision=precision,
                    voted=gallery.vote(nearest),
                )
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, answers


def _by_class(values: NDArray[np.float64], relevance: Relevance, asked: Sequence[str]) -> dict[str, float]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for value, name in zip(values.tolist(), asked, strict=True):
        for held in relevance.classes.get(name, ()):
            found[held].append(value)
    return {name: float(np.mean(each)) for name, each in sorted(found.items())}
