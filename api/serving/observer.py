"""The recall that searches have in truth: some are run again, exactly, while nobody is waiting."""

from __future__ import annotations

import logging
import threading
from collections import deque

import faiss
from prometheus_client import Counter

from api.serving import activity
from search.errors import SearchError
from search.index import Index
from search.types import Query

IDLE = 1.0
"""Seconds without any work of this process after which a search is run again, and between two of an index."""
REMEMBERED = 32
"""Searches that wait to be run again; older ones are forgotten. With the most parts, 64 of 384 numbers, 3 MB."""

TRUE = Counter("lookalike_true_neighbours", "Ten nearest of searches that were run again, exactly", ["index"])
FOUND = Counter("lookalike_true_neighbours_found", "Those of them that the search had found", ["index"])

LOG = logging.getLogger("lookalike")
_one_at_a_time = threading.Lock()
"""Lock of all observers: the other cores are for the next request."""


class Observer:
    """Watches one served index, from a thread of its own."""

    def __init__(self, name: str, index: Index) -> None:
        self._name = name
        self._index = index
        self._queries: deque[Query] = deque(maxlen=REMEMBERED)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observe", daemon=True)
        self._thread.start()

    def asked(self, query: Query) -> None:
        """Take note of a search that was answered: of any other, the parts may be of any size."""
        if query.filter is None:
            self._queries.append(query)

    def close(self) -> None:
        """Stop, and wait for the search under way."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        faiss.omp_set_num_threads(1)  # of this thread
        while not self._stopping.wait(IDLE):
            with _one_at_a_time:
                if self._queries and activity.HERE.idle() >= IDLE:
                    self._again(self._queries.popleft())

    def _again(self, query: Query) -> None:
        try:
            found = self._index.observed(query)
        except SearchError:  # an image it named is gone, say
            return
        except Exception:  # no search of anybody's: the next one may fare better
            LOG.exception("a search of the index %s could not be run again", self._index.path)
            return
        if found is not None:
            TRUE.labels(self._name).inc(found[1])
            FOUND.labels(self._name).inc(found[0])
