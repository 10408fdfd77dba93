"""Groups as `dups` found them last, kept in the index for servers, and pages of what is left of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from analysis.duplicates.decided import Apart, listing, with_decisions
from analysis.duplicates.find import Files
from analysis.duplicates.groups import SURE, Decision, Group, Tier
from analysis.duplicates.keep import DEFAULT_RULES, parse_rules
from search.files import write_whole
from search.index import Index
from search.journal import GROUPS
from search.types import ImageRecord

FORMAT = 1
"""Of the files; one of another format counts as none."""
LIVE: Tier = "bytes"
"""The tier that the catalog knows: nothing is kept of it."""
MAX_FILES = 200
"""Files of a group that are looked at for a page, and listed."""
PAGE_FILES = 2_000
"""Files after which a page ends."""
Member = tuple[str, float]
"""An image's id, and how surely it belongs to its group."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The groups of a tier, the largest files first, the medoid of each first, and when they were found (UTC)."""

    found_at: str
    groups: Sequence[Sequence[Member]]


@dataclass(frozen=True, kw_only=True)
class GroupPage:
    """Some groups of a tier, with what to keep of each. cursor: of the next page. found_at: None where that is now."""

    decisions: Sequence[Decision]
    cursor: str | None
    found_at: str | None


def keep_groups(index: Index, tiers: Iterable[Tier], groups: Iterable[Group]) -> None:
    """Keep the groups of these tiers, but for equal bytes, in place of those before.

    Takes the index's lock, without waiting for it: what is erased meanwhile would come back. An image that was removed
    since it was looked at is an empty id. Raises IndexLocked, IndexMoved, StorageFailed, OSError.
    """
    lines = {tier: [_line({"format": FORMAT, "found_at": _now()})] for tier in tiers if tier != LIVE}
    kept = [group for group in groups if group.tier in lines and not group.settled]
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
    names = index.catalog.ids(rowids[:limit])
    decisions, used = _decided(index, LIVE, [[(names.get(rowid, ""), 1.0)] for rowid in rowids[:limit]])
    more = _cursor(LIVE, None, rowids[used - 1]) if used < len(rowids) else None
    return GroupPage(decisions=decisions, cursor=more, found_at=None)


def kept_page(index: Index, tier: Tier, kept: Kept, after: int, limit: int) -> GroupPage:
    """What is left of up to `limit` kept groups after the first `after`: of images and files that are there."""
    decisions, used = _decided(index, tier, kept.groups[after : after + limit])
    more = _cursor(tier, kept.found_at, after + used) if after + used < len(kept.groups) else None
    return GroupPage(decisions=decisions, cursor=more, found_at=kept.found_at)


def place(cursor: str, tier: Tier, found_at: str | None) -> int | None:
    """Where a page begins by the cursor of the one before; None where that was of another tier, or of other groups."""
    number = cursor.rpartition("-")[2]
    return int(number) if cursor == _cursor(tier, found_at, int(number)) else None


def _cursor(tier: Tier, found_at: str | None, number: int) -> str:
    return f"{tier}-{re.sub('[^0-9]', '', found_at or '')}-{number}"


def _decided(index: Index, tier: Tier, held: Sequence[Sequence[Member]]) -> tuple[list[Decision], int]:
    """Decisions about kept groups, up to PAGE_FILES, and how many of the groups these are."""
    rules = parse_rules(DEFAULT_RULES)
    groups, used, looked = list[Group](), 0, 0
    for group in _groups(index, tier, held):
        used += 1
        if group is not None:
            groups.append(group)
            looked += len(group.files)
        if looked >= PAGE_FILES:
            break
    return [*listing(groups, rules).decisions], used


def _groups(index: Index, tier: Tier, held: Sequence[Sequence[Member]]) -> Iterator[Group | None]:
    """The group that the members of each kept one make today, None where there is none: of up to MAX_FILES files that
    are there, and not of images that were called not duplicates since. Without the image that the others were proved
    against there is none, unless all are equal."""
    ids = {name for members in held for name, _ in members[:MAX_FILES]}
    files, apart = Files(index, lambda *_: None, most=MAX_FILES), Apart.of(index, ids)
    rowids = index.catalog.rowids(ids)
    for members in held:
        looked, beyond = members[:MAX_FILES], members[MAX_FILES:]
        records = index.catalog.records(rowids[name] for name, _ in looked if name in rowids)
        there: dict[int, float] = {}
        left, unlisted = MAX_FILES, len(beyond)
        for name, score in looked:
            record = records.get(rowids.get(name, 0))
            if record is None:
                continue
            if left <= 0:
                unlisted += record.path_count
            elif found := files.of(record):
                there[rowids[name]] = score
                left -= len(found)
                unlisted += max(0, record.path_count - MAX_FILES) if len(found) == MAX_FILES else 0
        whole = tier in SURE
        if not whole:
            there = there if rowids.get(members[0][0]) in there else {}
        part = [*there] if whole or not there else _together(there, records, apart)
        names = [records[rowid].id for rowid in part]
        some = tuple(file for rowid in part for file in files.of(records[rowid]))
        group = Group(
            tier=tier,
            files=some[:MAX_FILES],
            unlisted=unlisted + len(some[MAX_FILES:]),
            scores={records[rowid].id: there[rowid] for rowid in part},
            centre=names[0] if names and tier == "photo" else None,
            shown=dict.fromkeys(names if tier == "photo" else (), 0),
        )
        group = with_decisions(group, apart) if whole and names else group
        yield group if len(group.files) > 1 and (len(part) > 1 or tier == LIVE) and not group.settled else None


def _together(members: Mapping[int, float], records: Mapping[int, ImageRecord], apart: Apart) -> list[int]:
    """The members of a group, its centre first, without those that are apart from others: the surer ones stay."""
    unlike = apart.among({rowid: records[rowid] for rowid in members})
    centre, *others = members
    stays = {centre}
    for one in sorted(others, key=lambda one: -members[one]):
        if unlike.get(one, set()).isdisjoint(stays):
            stays.add(one)
    return [one for one in members if one in stays]


def _file(index: Index, tier: Tier) -> Path:
    return index.path / GROUPS / f"{tier}.json"


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
