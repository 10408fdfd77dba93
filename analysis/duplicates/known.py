"""Known images: their records by rowid, read from the catalog as they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from search.index import Index
from search.types import ImageFacts, ImageRecord

PAGE = 1_000
"""Records read at once."""
HELD = 20_000
"""Records held: some 2 KB each. All of a million would be 2 GB."""


GONE = ImageRecord(
    id="",
    facts=ImageFacts(width=1, height=1, format="", bytes=0),
    paths=(),
    path_count=0,
    labels=(),
    metadata={},
    missing=True,
)
"""Of an image that was removed meanwhile: it has no file."""


class Known(Mapping[int, ImageRecord]):
    """Some images of an index: a few records are held, those that were asked for last."""

    @classmethod
    def all(cls, index: Index) -> Known:
        """All images of an index."""
        return cls(index, np.sort(index.catalog.rowids_by_id()))

    def __init__(self, index: Index, rowids: NDArray[np.int64]) -> None:
        """rowids: (n,) int64, ascending."""
        self._catalog, self._rowids = index.catalog, rowids
        self._there = np.zeros(int(rowids[-1]) + 1 if len(rowids) else 0, dtype=np.bool_)
        self._there[rowids] = True
        self._held: OrderedDict[int, ImageRecord] = OrderedDict()

    def __getitem__(self, rowid: int) -> ImageRecord:
        if rowid in self._held:
            self._held.move_to_end(rowid)
            return self._held[rowid]
        if rowid not in self:
            raise KeyError(rowid)
        record = self._held[rowid] = self._catalog.records([rowid]).get(rowid, GONE)
        if len(self._held) > HELD:
            self._held.popitem(last=False)
        return record

    def __contains__(self, rowid: object) -> bool:
        return isinstance(rowid, int | np.integer) and bool(0 <= rowid < len(self._there) and self._there[rowid])

    def __iter__(self) -> Iterator[int]:
        return iter(self._rowids.tolist())

    def __len__(self) -> int:
        return len(self._rowids)

    def items(self) -> ItemsView[int, ImageRecord]:
        """Rowids and records, which are read some at a time, and not held."""
        return _Items(self)

    def read(self) -> Iterator[tuple[int, ImageRecord]]:
        """As `items`, one after the other."""
        for start in range(0, len(self._rowids), PAGE):
            yield from sorted(self._catalog.records(self._rowids[start : start + PAGE].tolist()).items())


class _Items(ItemsView[int, ImageRecord]):
    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._known = known

    def __iter__(self) -> Iterator[tuple[int, ImageRecord]]:
        return self._known.read()
