"""Images by what the words of their names mean: `fire engine.png` for `Feuerwehrauto`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.catalog.catalog import Catalog
from search.query.allowed import Selection
from search.types import Vector

WORDS = 64
"""Words nearest to a question by which images are looked for."""
IMAGES = 2_000
"""Images with such words that are compared with the question, at most: some 10 ms."""
NEAR = 0.1
"""The least cosine of a word, and of an image's words together, that is not chance."""


@dataclass(frozen=True)
class _Known:
    """What was learned until a version of the catalog, and the number of the last word: words, where each is among
    them, and what they mean, (n, dim) float32."""

    version: int
    last: int
    words: tuple[str, ...]
    places: Mapping[str, int]
    vectors: Vector


class Meanings:
    """The meanings that the catalog has learned, held in memory. Any number of threads may ask it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._held: dict[str, _Known] = {}
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
        near = np.argpartition(-cosines, min(WORDS, len(cosines)) - 1)[:WORDS]
        near = near[np.argsort(-cosines[near], kind="stable")]
        asked = [known.words[place] for place in near[cosines[near] >= NEAR]]
        having = self._catalog.having(asked, IMAGES, None if allowed is None else allowed.rowids)
        kinds: dict[tuple[int, ...], list[int]] = {}
        for rowid, own in having.items():
            kinds.setdefault(tuple(sorted(known.places[word] for word in own if word in known.places)), []).append(
                rowid
            )
        found = [(_cosine(known.vectors[[*kind]], vector), rowids) for kind, rowids in kinds.items() if kind]
        ranked = sorted((-cosine, rowid) for cosine, rowids in found if cosine >= NEAR for rowid in rowids)
        return (
            np.array([rowid for _, rowid in ranked], dtype=np.int64),
            np.array([-cosine for cosine, _ in ranked], dtype=np.float32),
        )

    def _known(self, head: str) -> _Known:
        """What is learned by now. Words are only added while the index is open, but for those that no image has."""
        version = self._catalog.version()
        with self._reading:
            known = self._held.get(head) or _Known(-1, 0, (), {}, np.empty((0, 0), np.float32))
            if known.version != version:
                last, words, vectors = self._catalog.learned(head, known.last)
                if words:
                    vectors = np.concatenate([known.vectors, vectors]) if known.words else vectors
                    words = known.words + words
                    places = {word: place for place, word in enumerate(words)}
                    known = _Known(version, last, words, places, vectors)
                self._held[head] = known = replace(known, version=version)
            return known


def _cosine(words: Vector, vector: Vector) -> float:
    """Of a question, (dim,), with the mean of words, (w, dim); 0 where these cancel out."""
    mean = words.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return float(mean @ vector) / length if length else 0.0
