"""From the words of a question to a vector, with the sentence encoder that the index's space of words names."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

from api.serving.batching import Stage
from api.serving.timing import Timing
from indexer.encoders.words import TextEncoder, load_text_encoder
from indexer.errors import IndexerError
from search.recipe import Recipe
from search.types import Space, Vector

MAX_TEXTS_AT_ONCE = 32


class WordsEmbedding:
    """Loads the sentence encoder when somebody first asks with words: it takes seconds, and 500 MB, of which the tokenizer has 300."""

    def __init__(self, cached: int) -> None:
        """cached: vectors of texts that are kept."""
        self._encoders: dict[Recipe, TextEncoder] = {}
        self._stage: Stage[tuple[str, Recipe], Vector] = Stage("words", self._embedded, most=MAX_TEXTS_AT_ONCE)
        self._known: OrderedDict[tuple[str, Recipe], Vector] = OrderedDict()
        self._cached = cached

    def close(self) -> None:
        """Finish what is under way."""
        self._stage.close()

    async def embed(self, texts: Sequence[str], space: Space, timing: Timing) -> list[Vector]:
        """The vectors of texts in a space of words, each (dim,) float32. Raises ModelUnavailable, ModelUnsupported."""
        began = time.perf_counter()
        vectors = [await self._one(text, space.recipe) for text in texts]
        timing.encode += time.perf_counter() - began
        return vectors

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
        return [self._now(text, recipe) for text, recipe in asked]

    def _now(self, text: str, recipe: Recipe) -> Vector | Exception:
        try:
            if recipe not in self._encoders:
                self._encoders = {recipe: load_text_encoder(recipe)}
            vector: Vector = self._encoders[recipe].encode([text])[0]
        except IndexerError as error:
            return error
        return vector
