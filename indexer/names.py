"""Learning what the words of names and labels mean, with the sentence encoder that questions are embedded with."""

from __future__ import annotations

import time
from collections.abc import Callable

from indexer.encoders.words import TextEncoder
from search.errors import IndexLocked, StorageFailed
from search.index import Index
from search.types import Space

AT_ONCE = 64
"""Words embedded at once, in some .1 s, and stored in one transaction."""
FIND_AT_ONCE = 8_192
"""Words looked up at once: it takes as long for one as for all."""


def learn_words(index: Index, space: Space, encoder: TextEncoder, *, go_on: Callable[[], bool]) -> bool:
    """Learn what words mean that are new in names, labels and captions, the most frequent first. Returns whether all
    are known now.

    space: of words, with a head; encoder: the one of its questions. go_on: asked before each batch. Where another
    process writes, or the index cannot be written to, what was learned until then is kept, and nothing is raised.
    """
    if space.recipe.words is None:
        return True
    head = space.recipe.words.head_sha256
    while new := index.catalog.unlearned(head, FIND_AT_ONCE):
        for start in range(0, len(new), AT_ONCE):
            if not go_on():
                return False
            some = new[start : start + AT_ONCE]
            vectors = encoder.encode(some)
            try:
                with index.writer() as writer, writer.transaction() as transaction:
                    transaction.learn(head, some, vectors)
            except (IndexLocked, StorageFailed):
                return False
    return True


def for_seconds(seconds: float) -> Callable[[], bool]:
    """What `go_on` of `learn_words` is, to learn so long."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until
