"""Learning what the words of names and labels mean, with the sentence encoder that questions are embedded with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from indexer.encoders.words import TextEncoder
from search.catalog.meanings import MAX_LEARNED
from search.errors import IndexLocked, StorageFailed
from search.index import Index
from search.types import Space, Vector

AT_ONCE = 64
"""Words embedded at once, in some .1 s."""
KEPT_AT_ONCE = 1_024
"""Words stored in one transaction: each makes searches look again at what they keep of the catalog."""
FIND_AT_ONCE = 8_192
"""Words looked up at once: it takes as long for one as for all."""


def learn_words(
    index: Index,
    space: Space,
    encoder: TextEncoder,
    *,
    most: int = MAX_LEARNED,
    go_on: Callable[[], bool] = lambda: True,
) -> bool:
    """Learn what words mean that are new in names, labels and captions, the most frequent first. Returns whether all
    are known now.

    space: of words, with a head; encoder: the one of its questions. most: words to learn. go_on: asked before each
    batch. Where another process writes, or the index cannot be written to, what was stored until then stays, and
    nothing is raised.
    """
    if space.recipe.words is None:
        return True
    head, going = space.recipe.words.head_sha256, True
    while going and most > 0 and (new := index.catalog.unlearned(head, min(FIND_AT_ONCE, most))):
        most -= len(new)
        for kept in range(0, len(new), KEPT_AT_ONCE):
            words = new[kept : kept + KEPT_AT_ONCE]
            vectors: list[Vector] = []
            while going and len(vectors) < len(words):
                if going := go_on():
                    vectors += [*encoder.encode(words[len(vectors) : len(vectors) + AT_ONCE])]
            if not vectors:
                break
            try:
                _keep(index, head, words[: len(vectors)], np.array(vectors))
            except (IndexLocked, StorageFailed):
                return False
    return going and not index.catalog.unlearned(head, 1)


def _keep(index: Index, head: str, words: Sequence[str], vectors: Vector) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.unlearn(
            [space.recipe.words.head_sha256 for space in index.spaces if space.recipe.words is not None]
        )
        transaction.learn(head, words, vectors)
