"""Images by what the words of their names mean: `fire engine.png` for `Feuerwehrauto`."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Catalog
from search.catalog.meanings import Learned
from search.query.allowed import Selection
from search.types import Vector
from search.vectors import normalise

WORDS = 64
"""Words nearest to a question by which images are looked for."""
IMAGES = 2_000
"""Images with such words that are compared with the question, at most: some 10 ms."""
NEAR = 0.1
"""The least cosine of a word, and of an image's words together, that is not chance."""


class Meanings:
    """The meanings that the catalog has learned, held in memory. Any number of threads may ask it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._held: dict[str, tuple[int, Learned]] = {}
        self._reading = threading.Lock()

    def are_known(self, head: str) -> bool:
        """Whether any word's meaning is known by a head's encoder."""
        return bool(self._known(head).words)

    def nearest(
        self, head: str, vector: Vector, allowed: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The images whose words mean what a question means: rowids (n,) and cosines (n,) float32, best first.

        vector: the question's, (dim,) float32 of unit length, by the encoder of a head. An image's words are the mean
        of their vectors, which finds as much as the vector of its whole name does, and of each word one is enough.
        Raises IndexDamaged, StorageFailed.
        """
        known = self._known(head)
        cosines = known.vectors @ vector
        near = np.argsort(-cosines, kind="stable")[:WORDS]
        asked = [known.words[place] for place in near[cosines[near] >= NEAR]]
        having = self._catalog.having(asked, IMAGES, None if allowed is None else allowed.rowids)
        places = {word: place for place, word in enumerate(known.words)}
        kinds: dict[tuple[int, ...], list[int]] = {}
        for rowid, own in having.items():
            kinds.setdefault(tuple(sorted(places[word] for word in own if word in places)), []).append(rowid)
        found = [
            (float(normalise(known.vectors[[*kind]].mean(axis=0)) @ vector), rowids) for kind, rowids in kinds.items()
        ]
        ranked = sorted((-cosine, rowid) for cosine, rowids in found if cosine >= NEAR for rowid in rowids)
        return (
            np.array([rowid for _, rowid in ranked], dtype=np.int64),
            np.array([-cosine for cosine, _ in ranked], dtype=np.float32),
        )

    def _known(self, head: str) -> Learned:
        """What is learned by now. Words are only added while the index is open, but for those that no image has."""
        version = self._catalog.version()
        with self._reading:
            read, known = self._held.get(head, (-1, Learned((), np.empty((0, 0), np.float32), 0)))
            if read != version:
                new = self._catalog.learned(head, known.last)
                if new.words:
                    vectors = np.concatenate([known.vectors, new.vectors]) if known.words else new.vectors
                    known = Learned(known.words + new.words, vectors, new.last)
                self._held[head] = version, known
            return known
