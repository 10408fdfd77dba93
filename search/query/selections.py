"""What the latest filters let through, kept for the next page and for the same filter again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from search.catalog.catalog import Catalog
from search.filters import Filter
from search.query.allowed import Selection

MAX_KEPT_BYTES = 64 << 20
"""Of all selections together, and what they remember of generations."""
MAX_KEPT_FILTERS = 256


class Selections:
    """The selections of filters in a catalog. Any number of threads may ask for them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: OrderedDict[tuple[int, bytes], Selection] = OrderedDict()
        self._changing = threading.Lock()

    def holds(self, tree: Filter, version: int) -> bool:
        """Whether the selection of a filter at this version is kept: to ask for it costs nothing then."""
        with self._changing:
            return _key(tree, version) in self._kept

    def of(self, tree: Filter | None, version: int) -> Selection | None:
        """The selection that a filter lets through at this version of the catalog; None without a filter."""
        if tree is None:
            return None
        key = _key(tree, version)
        with self._changing:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        selection = Selection(self._catalog.matching(tree))
        with self._changing:
            for outdated in [kept for kept in self._kept if kept[0] != version]:
                del self._kept[outdated]
            self._kept[key] = selection
            while (
                len(self._kept) > MAX_KEPT_FILTERS or sum(kept.nbytes for kept in self._kept.values()) > MAX_KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return selection


def _key(tree: Filter, version: int) -> tuple[int, bytes]:
    return version, hashlib.sha256(repr(tree).encode()).digest()  # a filter may be megabytes long
