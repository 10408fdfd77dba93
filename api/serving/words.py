"""From the words of a question to a vector, with the sentence encoder that the index's space of words names."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from api.serving.batching import Stage
from api.serving.gate import Gate
from api.serving.timing import Timing
from indexer.encoders.words import TextEncoder, load_sentences, load_text_encoder
from indexer.errors import IndexerError, ModelUnavailable, ModelUnsupported
from search.recipe import Recipe
from search.types import Space, Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.encoders.sentences import SentenceEncoder

LOG = logging.getLogger("lookalike")

MAX_TEXTS_AT_ONCE = 8
MAX_WAITING = 64
"""Questions with words under way at once; more are refused. Each takes some tenths of a second at most."""
MAX_ENCODERS = 3
"""That are kept, of spaces asked last: that of a text tower takes seconds to load, and some hundred megabytes."""
LOAD_AGAIN_SECONDS = 30.0
"""After which an encoder that could not be loaded is tried again."""


class Sentences:
    """The sentence encoder of this process, which all its indexes share: it takes seconds to load, and 500 MB.

    Loaded when it is first needed, or in the background before. One caller at a time.
    """

    def __init__(self) -> None:
        self._encoder: SentenceEncoder | None = None
        self._one_caller = threading.Lock()
        self._failed: tuple[float, IndexerError] | None = None

    def load_soon(self) -> None:
        """Load it in the background, so that nobody waits for it later."""
        threading.Thread(target=self._load_quietly, name="sentences", daemon=True).start()

    def _load_quietly(self) -> None:
        try:
            self.encode(["a picture"])  # the first text takes longer than later ones
        except IndexerError as error:
            LOG.warning("words are looked for in the catalog alone: %s", error)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts, (n, dim) float32 of unit length. Raises ModelUnavailable, ModelUnsupported."""
        with self._one_caller:
            if self._encoder is None:
                if self._failed is not None and time.monotonic() - self._failed[0] < LOAD_AGAIN_SECONDS:
                    raise self._failed[1]
                try:
                    self._encoder = load_sentences()
                except IndexerError as error:
                    self._failed = time.monotonic(), error
                    raise
            return self._encoder.encode(texts)


class WordsEmbedding:
    """The words of questions to one index."""

    def __init__(self, models: Path, sentences: Sentences, cached: int) -> None:
        """models: the index's folder of that name. cached: vectors of texts that are kept."""
        self._models = models
        self._sentences = sentences
        self._encoders: OrderedDict[Recipe, TextEncoder] = OrderedDict()
        self._stage: Stage[tuple[str, Recipe], Vector] = Stage("words", self._embedded, most=MAX_TEXTS_AT_ONCE)
        self._known: OrderedDict[tuple[str, Recipe], Vector] = OrderedDict()
        self._cached = cached
        self._gate = Gate(MAX_WAITING)
        self._failed: dict[Recipe, tuple[float, IndexerError]] = {}

    def close(self) -> None:
        """Finish what is under way."""
        self._stage.close()

    async def embed(self, texts: Sequence[str], space: Space, timing: Timing) -> list[Vector]:
        """The vectors of texts in a space of words, each (dim,) float32.

        Raises Overloaded, ModelUnavailable, ModelUnsupported.
        """
        if not texts:
            return []
        began = time.perf_counter()
        with self._gate.entered():
            vectors = [await self._one(text, space.recipe) for text in texts]
        timing.encode += time.perf_counter() - began
        return vectors

    async def embed_or_none(
        self, texts: Sequence[str], space: Space, timing: Timing, *, needed: bool
    ) -> Sequence[Vector]:
        """As `embed`; nothing where the encoder is not there, and the catalog's words are enough."""
        try:
            return await self.embed(texts, space, timing)
        except (ModelUnavailable, ModelUnsupported):
            if needed:
                raise
            return ()

    async def embed_apart(self, texts: Sequence[str], space: Space) -> list[Vector]:
        """As `embed`, from another event loop than the server's: nothing is kept, and nobody is refused."""
        return [await self._stage((text, space.recipe)) for text in texts]

    async def _one(self, text: str, recipe: Recipe) -> Vector:
        key = text, recipe
        vector = self._known.get(key)
        if vector is None:
            vector = await self._stage(key)
            self._known[key] = vector
        self._known.move_to_end(key)
        while len(self._known) > self._cached:
            self._known.popitem(last=False)
        return vector

    def _embedded(self, asked: Sequence[tuple[str, Recipe]]) -> list[Vector | Exception]:
        recipe = asked[0][1]
        if any(other != recipe for _, other in asked):
            return [one for pair in asked for one in self._embedded([pair])]
        try:
            return [*self._encoder(recipe).encode([text for text, _ in asked])]
        except IndexerError as error:
            return [error] * len(asked)

    def _encoder(self, recipe: Recipe) -> TextEncoder:
        if recipe not in self._encoders:
            now = time.monotonic()
            self._failed = {one: (at, why) for one, (at, why) in self._failed.items() if now - at < LOAD_AGAIN_SECONDS}
            if recipe in self._failed:
                raise self._failed[recipe][1]
            try:
                self._encoders[recipe] = load_text_encoder(recipe, self._models, self._sentences)
            except IndexerError as error:
                LOG.warning("words are looked for in the catalog alone: %s", error)
                self._failed[recipe] = now, error
                raise
            while len(self._encoders) > MAX_ENCODERS:
                self._encoders.popitem(last=False)
        self._encoders.move_to_end(recipe)
        return self._encoders[recipe]
