"""What the user decided: images that are not duplicates are in no group together, or all stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from analysis.duplicates.groups import Decision, File, Group
from analysis.duplicates.keep import Rule, choose, decide
from search.index import Index
from search.types import ImageRecord


class Apart:
    """The images that the user called not duplicates, by their ids."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """pairs: an image twice means that its copies are wanted."""
        self._partners: defaultdict[str, set[str]] = defaultdict(set)
        for one, other in pairs:
            self._partners[one].add(other)
            self._partners[other].add(one)

    @classmethod
    def of(cls, index: Index, ids: Iterable[str] | None = None) -> Apart:
        """The decisions of an index. ids: only those that name one of these images."""
        return cls((held.one, held.other) for held in index.catalog.decisions(ids))

    def __bool__(self) -> bool:
        return bool(self._partners)

    def partners(self, name: str) -> Set[str]:
        """The images that one is not a duplicate of; itself, where its copies are wanted."""
        return self._partners.get(name, set())

    def among(self, images: Mapping[int, ImageRecord]) -> dict[int, set[int]]:
        """For each of these images, by their rowids, those that it is apart from."""
        if not self:
            return {}
        rowids = {record.id: rowid for rowid, record in images.items() if record.id in self._partners}
        found = {}
        for name in rowids:
            if unlike := {rowids[other] for other in self.partners(name) if other != name and other in rowids}:
                found[rowids[name]] = unlike
        return found

    def all(self, ids: Iterable[str]) -> bool:
        """Whether each two of these images are apart; of one image, whether a decision names it."""
        names = {*ids}
        if len(names) == 1:
            return bool(self.named(names))
        return all(names - {name} <= self.partners(name) for name in names)

    def named(self, ids: Iterable[str]) -> frozenset[str]:
        """Those of these images that a decision names, whatever the other image is."""
        return frozenset(name for name in ids if name in self._partners)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Groups that are listed, with what to keep of each. spared: files that would be extra if no decision named
    them."""

    decisions: Sequence[Decision]
    spared: Sequence[File] = ()


def listing(groups: Sequence[Group], rules: Sequence[Rule], protect: Sequence[str] = ()) -> Listing:
    """What to keep of each group that is not settled. protect: as of `decide`."""
    before = decide(groups, rules, protect)
    decisions = [*_spare((one for one in before if not one.group.settled), rules)]
    goes = {file.path for one in decisions for file in one.goes}
    spared = {file.path: file for one in before for file in one.goes if file.path not in goes}
    return Listing(decisions=decisions, spared=[*spared.values()])


def _spare(decisions: Iterable[Decision], rules: Sequence[Rule]) -> Iterator[Decision]:
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


def with_decisions(group: Group, apart: Apart) -> Group:
    """A group of equal files or pixels, with the images that the user wants: all that a decision names, since either
    file of equal ones may be the one that was named."""
    ids = [file.image.id for file in group.files]
    return replace(group, wanted=apart.named(ids), settled=apart.all(ids))
