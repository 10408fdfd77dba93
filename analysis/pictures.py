"""Small pictures of an index's images, for reports."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from indexer.errors import ImageRejected
from indexer.pictures.decode import DecodeLimits, thumbnail
from search.errors import UnknownImage
from search.index import Index

THUMBNAIL = 112
"""Pixels of the longer side of a picture."""


class Pictures:
    """Small pictures of an index's images as data URIs, each read once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[str, Mapping[str, str]] = {}

    def of(self, image: str) -> Mapping[str, str]:
        """`source`: a data URI, empty where no file of the image can be read; `path`: its first one, or its id.

        An image that was removed has neither.
        """
        if image not in self._known:
            try:
                paths = self._index.image(image).paths
            except UnknownImage:
                paths = ()
            self._known[image] = {
                "source": next(filter(None, map(data_uri, paths)), ""),
                "path": paths[0] if paths else image,
            }
        return self._known[image]


def data_uri(path: str) -> str:
    """A small picture of a file as a data URI, empty where it cannot be read."""
    try:
        small = thumbnail(Path(path).read_bytes(), THUMBNAIL, limits=DecodeLimits())
    except (OSError, ImageRejected):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}"
