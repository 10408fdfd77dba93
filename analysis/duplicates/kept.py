"""Groups as `dups` found them last, kept in the index for servers, and pages of what is left of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from analysis.duplicates.decided import Apart, spare, split, undecided
from analysis.duplicates.find import Files
from analysis.duplicates.groups import SURE, Decision, Group, Tier
from analysis.duplicates.keep import DEFAULT_RULES, decide, parse_rules
from search.files import write_whole
from search.index import Index
from search.journal import GROUPS
from search.types import ImageRecord

FORMAT = 1
"""Of the files; one of another format counts as none."""
LIVE: Tier = "bytes"
"""The tier that the catalog knows: nothing is kept of it."""
Member = tuple[str, float]
"""An image's id, and how surely it belongs to its group."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The groups of a tier, the largest files first, the medoid of each first, and when they were found (UTC)."""

    found_at: str
    groups: Sequence[Sequence[Member]]


@dataclass(frozen=True, kw_only=True)
class GroupPage:
    """Some groups of a tier, with what to keep of each. more: where to go on. found_at: None where that is now."""

    decisions: Sequence[Decision]
    more: int | None
    found_at: str | None


def keep_groups(index: Index, tiers: Iterable[Tier], groups: Iterable[Group]) -> None:
    """Keep the groups of these tiers, but for equal bytes, in place of those before.

    Takes the index's lock, without waiting for it: what is erased meanwhile would come back. An image that was removed
    since it was looked at is an empty id. Raises IndexLocked, IndexMoved, StorageFailed, OSError.
    """
    lines = {tier: [_line({"format": FORMAT, "found_at": _now()})] for tier in tiers if tier != LIVE}
    kept = [group for group in groups if group.tier in lines]
    if not lines:
        return
    with index.writer():
        known = index.catalog.rowids({file.image.id for group in kept for file in group.files})
        for group in kept:
            ids = dict.fromkeys(file.image.id for file in group.files)
            scores = [(name if name in known else "", round(group.scores.get(name, 1.0), 4)) for name in ids]
            lines[group.tier].append(_line(scores))
        for tier, held in lines.items():
            write_whole(_file(index, tier), "\n".join(held).encode(), durable=False)


def kept_groups(index: Index, tier: Tier) -> Kept | None:
    """The groups kept of a tier; None where there are none, or only such as cannot be read."""
    try:
        first, *lines = _file(index, tier).read_bytes().split(b"\n")
        head = json.loads(first)
        if head["format"] != FORMAT:
            return None
        groups = [[(str(name), float(score)) for name, score in json.loads(line)] for line in lines]
        return Kept(found_at=str(head["found_at"]), groups=groups)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def stamp(index: Index, tier: Tier) -> tuple[int, int] | None:
    """What changes when other groups of a tier are kept; None where there are none."""
    try:
        facts = _file(index, tier).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def live_page(index: Index, after: int, limit: int) -> GroupPage:
    """Groups of equal bytes: of up to `limit` images of several files after the rowid `after`."""
    rowids = index.catalog.with_copies(after, limit + 1)
    records = index.catalog.records(rowids[:limit])
    held = [[(record.id, 1.0)] for record in records.values()]
    more = rowids[limit - 1] if len(rowids) > limit else None
    return GroupPage(decisions=_decided(index, LIVE, held), more=more, found_at=None)


def kept_page(index: Index, tier: Tier, kept: Kept, after: int, limit: int) -> GroupPage:
    """What is left of up to `limit` kept groups after the first `after`: of images and files that are there."""
    more = after + limit if len(kept.groups) > after + limit else None
    decisions = _decided(index, tier, kept.groups[after : after + limit])
    return GroupPage(decisions=decisions, more=more, found_at=kept.found_at)


def _decided(index: Index, tier: Tier, held: Sequence[Sequence[Member]]) -> list[Decision]:
    rules = parse_rules(DEFAULT_RULES)
    return [*spare(decide(_groups(index, tier, held), rules), rules)]


def _groups(index: Index, tier: Tier, held: Sequence[Sequence[Member]]) -> Iterator[Group]:
    """The groups that kept members make today: of files that are there, and not of images that were called not
    duplicates since. Without the image that the others were proved against there is no group, unless all are equal."""
    ids = {name for group in held for name, _ in group}
    files, apart = Files(index, lambda *_: None), Apart.of(index, ids)
    rowids = index.catalog.rowids(ids)
    records = index.catalog.records(rowids.values())
    for members in held:
        there = {rowids[name]: score for name, score in members if rowids.get(name) in records}
        there = {rowid: score for rowid, score in there.items() if files.of(records[rowid])}
        if tier not in SURE and rowids.get(members[0][0]) not in there:
            continue
        for part in [[*there]] if tier in SURE else _apart(there, records, apart):
            group = Group(
                tier=tier,
                files=tuple(file for rowid in part for file in files.of(records[rowid])),
                scores={records[rowid].id: there[rowid] for rowid in part},
            )
            if len(group.files) > 1 and (len(part) > 1 or tier == LIVE):
                left = undecided(group, apart) if tier in SURE else group
                if left is not None:
                    yield left


def _apart(members: Mapping[int, float], records: Mapping[int, ImageRecord], apart: Apart) -> Iterator[list[int]]:
    """A group without members that are apart from others: those are proved against its medoid alone."""
    if len(members) > 1:
        medoid, *others = members
        whole = [(medoid, {rowid: members[rowid] for rowid in others})]
        images = {rowid: records[rowid] for rowid in members}
        for first, stays in split(images, lambda *_: [whole.pop()] if whole else [], apart):
            yield [first, *stays]


def _file(index: Index, tier: Tier) -> Path:
    return index.path / GROUPS / f"{tier}.json"


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
