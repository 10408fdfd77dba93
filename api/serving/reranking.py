"""Reranking: the best hits of a space of regions in the order of how alike the picture is to a place in each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from api.errors import FileGone
from api.serving.pictures import open_original
from api.serving.questions import QueryPicture
from api.serving.timing import Timing
from indexer.encoders.places import PlacesEncoder
from indexer.errors import ImageRejected
from indexer.pictures.decode import Box, Decoded, DecodeLimits, decode
from indexer.rerank import Places, find
from search.errors import UnknownImage
from search.index import Index
from search.types import Hit, Query, Space

RERANKED = 10
"""Best hits that are looked at: nearly all parts of pictures are found among so many (docs/relevance.md)."""


def reranks(query: Query) -> bool:
    """Whether the page of a query has any of the hits that are looked at."""
    return query.offset < RERANKED


def widened(query: Query) -> Query:
    """A query of all hits up to the end of a page, and of those that are looked at."""
    return replace(query, k=max(query.k + query.offset, RERANKED), offset=0)


def reranked(
    encoder: PlacesEncoder, query: Decoded, box: Box | None, hits: Sequence[Hit], pictures: Mapping[str, Decoded]
) -> list[Hit]:
    """Hits by how alike the query's picture is to a place in them, with `match` and the place as `box`; then those of
    the first RERANKED that are not among the pictures, and the others as they were.

    query: decoded for the encoder, where it was for a box (x, y, width, height in pixels). pictures: of hits, by id.
    """
    size = (query.facts.width, query.facts.height) if box is None else box[2:]
    (part,) = _places(encoder, [query], [size])
    looked_at = [hit for hit in hits[:RERANKED] if hit.id in pictures]
    shown = [pictures[hit.id] for hit in looked_at]
    each = _places(encoder, shown, [(hit.width, hit.height) for hit in looked_at]) if looked_at else []
    found = []
    for hit, picture in zip(looked_at, each, strict=True):
        place = find(part, picture)
        found.append(replace(hit, match=place.match, box=_in_pixels(place.box, hit.width, hit.height)))
    found.sort(key=lambda hit: -(hit.match or 0.0))
    return [*found, *(hit for hit in hits[:RERANKED] if hit.id not in pictures), *hits[RERANKED:]]


def rerank_here(
    index: Index, space: Space, query: QueryPicture | str, hits: Sequence[Hit], timing: Timing
) -> list[Hit]:
    """`reranked` hits of an index on this machine. query: a picture, or the id of an indexed image.

    Raises ImageRejected where the query's picture cannot be decoded, UnknownImage, FileGone, and what loading the
    network raises.
    """
    encoder = PlacesEncoder(space, index.models)
    start = time.perf_counter()

    def decoded(data: bytes, box: Box | None = None) -> Decoded:
        return decode(data, (encoder.preprocessing,), limits=DecodeLimits(), box=box)

    def indexed(image_id: str) -> Decoded:
        with open_original(index, image_id).file as file:
            return decoded(file.read())

    box = None if isinstance(query, str) else query.box
    part = indexed(query) if isinstance(query, str) else decoded(query.data, box)
    pictures = {}
    for hit in hits[:RERANKED]:
        with suppress(FileGone, ImageRejected, UnknownImage):
            pictures[hit.id] = indexed(hit.id)
    timing.decode += time.perf_counter() - start
    start = time.perf_counter()
    found = reranked(encoder, part, box, hits, pictures)
    timing.encode += time.perf_counter() - start
    return found


def _places(encoder: PlacesEncoder, pictures: Sequence[Decoded], sizes: Sequence[tuple[float, float]]) -> list[Places]:
    wholes, halves = encoder.encode(np.stack([picture.pixels for picture in pictures]))
    return [
        Places(whole, half, width / height) for whole, half, (width, height) in zip(wholes, halves, sizes, strict=True)
    ]


def _in_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    left, right = (min(width, round(share * width)) for share in (box[0], box[0] + box[2]))
    top, bottom = (min(height, round(share * height)) for share in (box[1], box[1] + box[3]))
    return min(left, width - 1), min(top, height - 1), max(1, right - left), max(1, bottom - top)
