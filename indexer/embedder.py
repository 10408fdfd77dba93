"""From decoded images to embedded ones: the encoder's first images, and those it cannot bear."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from indexer.encoders.encoder import Encoder
from indexer.errors import IndexerError
from indexer.pipeline import Decoded
from search.errors import SearchError
from search.types import NewImage


class Embedded(NamedTuple):
    """The outcome of new images, by id: what to add, or why not."""

    images: dict[str, NewImage]
    failed: dict[str, str]


class Embedder:
    """Embeds batches with an encoder that is loaded for the first of them. One caller at a time."""

    def __init__(self, encoder: Callable[[], Encoder], is_startup: Callable[[float], None]) -> None:
        """is_startup: told the seconds that the encoder took once, with the first images."""
        self._encoder = encoder
        self._is_startup = is_startup
        self._prepared = False
        self._works = False
        self._refused: IndexerError | SearchError | None = None

    def embed(self, fresh: Mapping[str, Decoded], remaining: int) -> Embedded:
        """Embed new images; where the encoder fails, one by one, so that only the culprits are left out.

        remaining: how many there are at most, these and later ones.
        Raises IndexerError where it manages none of several, or has not managed one yet: that is no file's fault. It
        is raised for later images too: they may have been handed in before anybody saw the first error.
        """
        if self._refused is not None:
            raise self._refused
        try:
            return self._embed(fresh, remaining)
        except (IndexerError, SearchError) as error:
            self._refused = error
            raise

    def _embed(self, fresh: Mapping[str, Decoded], remaining: int) -> Embedded:
        if not fresh:
            return Embedded({}, {})
        encoder, images = self._encoder(), list(fresh.values())
        if not self._prepared:
            began = time.perf_counter()
            encoder.prepare(_pixels(images), remaining)
            self._is_startup(time.perf_counter() - began)
            self._prepared = True
        try:
            embedded = Embedded(_new_images(encoder, images), {})
        except (IndexerError, SearchError):
            raise
        except Exception:  # whatever a backend raises
            embedded = _one_by_one(encoder, images)
        if not embedded.images and (len(images) > 1 or not self._works):
            reason = next(iter(embedded.failed.values()))
            raise IndexerError(
                f"The encoder fails with every image ({reason}). What was embedded before is kept: run the same "
                "command again, or build a new index with --backend torch --precision fp32."
            )
        self._works = True
        return embedded


def _one_by_one(encoder: Encoder, images: Sequence[Decoded]) -> Embedded:
    embedded = Embedded({}, {})
    for image in images:
        try:
            embedded.images.update(_new_images(encoder, [image]))
        except Exception as error:
            embedded.failed[image.id] = f"it cannot be embedded: {type(error).__name__}"
    return embedded


def _pixels(images: Sequence[Decoded]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([image.pixels for image in images])


def _new_images(encoder: Encoder, images: Sequence[Decoded]) -> dict[str, NewImage]:
    embedded = encoder.encode(_pixels(images))
    return {
        image.id: NewImage(
            id=image.id,
            facts=image.facts,
            location=image.location,
            vectors={name: vectors[row] for name, vectors in zip(encoder.names, embedded, strict=True)},
        )
        for row, image in enumerate(images)
    }
