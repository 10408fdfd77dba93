"""Learning what the words of an index's names mean, beside its searches."""

from __future__ import annotations

import logging
import threading

from api.serving.words import Sentences
from indexer.encoders.words import load_text_encoder, spaces_of_words
from indexer.errors import IndexerError
from indexer.names import learn_words
from search.errors import SearchError
from search.index import Index

PAUSE_SECONDS, LONGEST_PAUSE = 30.0, 3_600.0
"""Between two looks at whether there are new words. Twice as long after each that could keep nothing: during a build,
or where the index cannot be written to."""

LOG = logging.getLogger("lookalike")


class Learning:
    """A thread that learns the words of one index, from its start until it is closed."""

    def __init__(self, index: Index, sentences: Sentences) -> None:
        """sentences: loaded by the first words, where there are any to learn."""
        self._index = index
        self._sentences = sentences
        self._closing = threading.Event()
        self._seen: int | None = None
        self._thread = threading.Thread(target=self._run, name="learn", daemon=True)

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def close(self) -> None:
        """Finish the words under way, whether it was started or not."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._closing.is_set():
            try:
                pause = PAUSE_SECONDS if self.learn() else min(2 * pause, LONGEST_PAUSE)
            except IndexerError:
                return  # questions say so, too: without an encoder nothing is learned
            except SearchError as error:
                LOG.warning("what names mean cannot be learned now: %s", error)
            self._closing.wait(pause)

    def learn(self) -> bool:
        """Learn all words that are new since the last time. Returns whether all are known.

        Raises SearchError, ModelUnavailable, ModelUnsupported.
        """
        version = self._index.catalog.version()
        known = [space for space in spaces_of_words(self._index.spaces) if space.recipe.words is not None]
        if version == self._seen or not known:
            return True
        encoder = load_text_encoder(known[0].recipe, self._index.models, self._sentences)
        if not learn_words(self._index, known[0], encoder, go_on=lambda: not self._closing.is_set()):
            return False
        self._seen = version  # not the present one: others may have written since
        return True
