"""Duplicates of a served index: equal bytes as the catalog knows them, other kinds as `lookalike dups` found them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from analysis.duplicates.groups import Tier
from analysis.duplicates.kept import LIVE, GroupPage, Kept, kept_groups, kept_page, live_page, place, stamp
from api.errors import GroupsMissing, QuestionInvalid
from search.index import Index


class Duplicates:
    """The groups of one index's duplicates, a page at a time.

    To find equal pixels or photos takes minutes to hours of a core: servers read what the command has kept. A page
    looks at each file, on whatever disk it is: in a thread of its own.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="duplicates")
        self._kept: dict[Tier, tuple[object, Kept]] = {}

    def close(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()

    async def page(self, tier: Tier, cursor: str | None, limit: int) -> GroupPage:
        """Up to `limit` groups of a tier. cursor: of the page before. Raises GroupsMissing, QuestionInvalid."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._page, tier, cursor, limit)

    def _page(self, tier: Tier, cursor: str | None, limit: int) -> GroupPage:
        if tier == LIVE:
            return live_page(self._index, _after(cursor, tier, None), limit)
        now = stamp(self._index, tier)
        if tier not in self._kept or self._kept[tier][0] != now:
            self._kept.pop(tier, None)
            kept = kept_groups(self._index, tier)
            if kept is None:
                raise GroupsMissing(tier)
            self._kept[tier] = (now, kept)
        held = self._kept[tier][1]
        return kept_page(self._index, tier, held, _after(cursor, tier, held.found_at), limit)


def _after(cursor: str | None, tier: Tier, found_at: str | None) -> int:
    after = 0 if cursor is None else place(cursor, tier, found_at)
    if after is None:
        raise QuestionInvalid(
            "This cursor is of another kind of duplicates, or they were found again since that page. Begin again "
            "without a cursor."
        )
    return after
