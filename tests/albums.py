"""Folders of small pictures with an index of each, for promises of builds."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import FakeEncoder, recipe, vectors
from PIL import Image

from indexer.build import Build
from indexer.progress import Quiet
from indexer.report import BuildOptions, BuildReport
from indexer.sources import resolve_sources
from search.index import Index
from search.types import Encoding, Hit, Query, QueryPart, Space


class Album:
    """A folder of pictures and its index."""

    def __init__(self, folder: Path) -> None:
        self.photos = folder / "photos"
        self.photos.mkdir()
        self.index = Index.create(folder / "i.index", [Space(name="layer2", recipe=recipe(), encoding=Encoding())])

    def draw(self, *names: str) -> None:
        for name in names:
            path = self.photos / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(name).save(path, quality=95)

    def build(self, *sources: Path, listed: Sequence[Path] = (), dry: bool = False, **options: Any) -> BuildReport:
        known = [root for root in self.index.catalog.roots() if root != str(self.index.uploads)]
        with self.index.writer() as writer:
            chosen = BuildOptions(workers=1, **options)
            build = Build(
                self.index, None if dry else writer, FakeEncoder, chosen, Quiet(), lambda: False, time.perf_counter()
            )
            named = sources or (() if listed else (self.photos,))
            return build.run(resolve_sources(named, listed, known))

    def label(self, name: str, *labels: str, **metadata: object) -> None:
        with self.index.writer() as writer:
            writer.describe(self.hit(name).id, labels=labels, metadata=metadata)

    def hits(self, k: int = 1000, **query: Any) -> list[Hit]:
        return self.index.search(Query(parts=[QueryPart(vector=vectors(1, seed=3)[0])], k=k, **query))

    def names(self) -> set[str]:
        return {Path(path).name for hit in self.hits() for path in hit.paths}

    def hit(self, name: str) -> Hit:
        return next(hit for hit in self.hits() if any(Path(path).name == name for path in hit.paths))


def noise(name: str) -> Image.Image:
    """A picture of coarse noise: another for each name."""
    blocks = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((96, 96), Image.Resampling.BICUBIC)
