"""What the user decided: images that are no duplicates of one another are in no group together, or all stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from analysis.duplicates.alike import Groups
from analysis.duplicates.groups import Decision, Group
from analysis.duplicates.keep import Rule, choose
from search.index import Index
from search.types import ImageRecord


class Apart:
    """Whether the user called two images, by their ids, no duplicates."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = frozenset(pairs)

    @classmethod
    def of(cls, index: Index) -> Apart:
        """The decisions of an index."""
        return cls((held.one, held.other) for held in index.catalog.decisions())

    def __call__(self, one: str, other: str) -> bool:
        return (min(one, other), max(one, other)) in self._pairs

    def among(self, images: Mapping[int, ImageRecord]) -> dict[int, set[int]]:
        """For each of these images, by their rowids, those that it is apart from."""
        rowids = {record.id: rowid for rowid, record in images.items()}
        found: defaultdict[int, set[int]] = defaultdict(set)
        for one, other in self._pairs:
            if one != other and one in rowids and other in rowids:
                found[rowids[one]].add(rowids[other])
                found[rowids[other]].add(rowids[one])
        return found

    def all(self, ids: Iterable[str]) -> bool:
        """Whether all of these images are apart; of one image, whether its copies are wanted."""
        names = [*dict.fromkeys(ids)]
        return self(names[0], names[0]) if len(names) == 1 else all(self(*pair) for pair in combinations(names, 2))

    def any(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of these images that are apart from another one of them, or whose copies are wanted."""
        names = [*dict.fromkeys(ids)]
        pairs = [*combinations(names, 2), *((name, name) for name in names)] if self._pairs else []
        return frozenset(name for pair in pairs if self(*pair) for name in pair)


def split(
    images: Mapping[int, ImageRecord], grouped: Callable[[Mapping[int, ImageRecord]], Groups], apart: Apart
) -> Iterator[tuple[int, dict[int, float]]]:
    """The groups of images, by their rowids, without two that are apart. grouped: finds the groups of some images.

    Of two members that are apart, the surer one stays with the medoid; groups are looked for among all others again.
    """
    while images:
        left = {}
        for medoid, members in grouped(images):
            stays = {medoid: 1.0}
            for one in sorted(members, key=lambda one: (-members[one], one)):
                if any(apart(images[one].id, images[other].id) for other in stays):
                    left[one] = images[one]
                else:
                    stays[one] = members[one]
            del stays[medoid]
            if stays:
                yield medoid, stays
        images = left


def spare(decisions: Iterable[Decision], rules: Sequence[Rule]) -> Iterator[Decision]:
    """Decisions in which the images that the user wants all stay."""
    for decision in decisions:
        files = decision.group.files
        wanted = tuple(file for file in files if file.image.id in decision.group.wanted)
        if wanted:
            safe = [file for file in files if file in wanted or file in decision.protected]
            keep, why = choose(safe, rules)
            goes = tuple(file for file in files if file.image.id != keep.image.id and file not in safe)
            decision = replace(decision, keep=keep, why=why, wanted=wanted, goes=goes)
        yield decision


def undecided(group: Group, apart: Apart) -> Group | None:
    """A group of equal files or pixels, with the images that the user wants; None where these are all."""
    ids = [file.image.id for file in group.files]
    return None if apart.all(ids) else replace(group, wanted=apart.any(ids))
