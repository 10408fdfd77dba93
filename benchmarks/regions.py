"""How often a part of a picture finds the picture: in the default space, in the space of regions, and there reranked.

    python benchmarks/regions.py SETS PHOTOS [--images N] [--queries N] [--of-photos N] [--index DIR]

SETS is the folder in which Debian's package openclipart-png was unpacked (`dpkg -x PACKAGE.deb SETS`), PHOTOS the one
with plasma-workspace-wallpapers and gnome-backgrounds. Drawings on which the windows, layers and weights were chosen
(a third, by a hash of their names) are left out. An index of them is built by `lookalike build --regions`, in DIR where
it is given: there it is kept, and gone on with.

Queries are crops of 10 to 40% of an image's area, at random places, with sides in ratios of 1:2 to 2:1, asked for as by
`lookalike search --box`, and with `--rerank`. Two rules keep out crops that nobody could place: at least half of the
sixteenths of a crop vary (a deviation of 8 grey levels), and no other image has a perceptual hash within 10 bits of its
image's. One is cut out of each picture, or with `--of-photos` so many of each photo, and none of drawings. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from relevance import build

from api.serving.reranking import reranked
from indexer.encoders.encoder import Encoder
from indexer.encoders.places import PlacesEncoder
from indexer.errors import ImageRejected
from indexer.index_encoder import load_index_encoder
from indexer.pictures.decode import Box, DecodeLimits, decode, decode_pixels, open_upright
from search.index import Index
from search.types import Hit, Query, QueryPart, Space
from search.vectors import BLOB_DTYPES, views

AREA, RATIO = (0.1, 0.4), 2.0
LEAST_DEVIATION, LEAST_SHARE, NEAR_BITS = 8, 0.5, 10
CHOSEN_ON = 85
"""Of 256 hashes of names, those of drawings on which the figures were chosen."""
CHOSEN_IN = "/tmp/sets/"
"""What their names began with then."""
LARGEST = 2_000_000
"""Bytes of a file: six drawings have 168 megapixels."""
LIMITS = DecodeLimits().raised(max_pixels=200_000_000, max_seconds=None)
BATCH, TIMED = 8, 30
REACHED = 0.25
"""The least share of the union of two boxes that their intersection is, where one says where the other lies."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of an indexed image."""

    image: str
    path: Path
    box: Box


def pictures(sets: Path, photos: Path, count: int) -> list[Path]:
    """All photos, and drawings drawn at random, `count` in all."""
    found = [path for path in sorted(photos.rglob("*")) if path.suffix in (".png", ".jpg", ".webp")]
    seen: dict[str, Path] = {}
    for path in found:  # Plasma has each wallpaper in several sizes
        seen.setdefault(str(path.parents[2]) if "images" in path.parent.name else str(path), path)
    drawings = [
        path
        for path in sorted((sets / "usr/share/openclipart/png").rglob("*.png"))
        if path.stat().st_size < LARGEST and _hash(path.relative_to(sets)) >= CHOSEN_ON
    ]
    random.Random(0).shuffle(drawings)
    return [*seen.values(), *drawings][:count]


def _hash(path: Path) -> int:
    return hashlib.sha1(f"{CHOSEN_IN}{path.as_posix()}".encode()).digest()[0]


def part(image: Image.Image, generator: np.random.Generator) -> Box | None:
    """A part of a picture that shows something; None where twenty tries find none."""
    for _ in range(20):
        area = generator.uniform(*AREA) * image.width * image.height
        ratio = float(np.exp(generator.uniform(-np.log(RATIO), np.log(RATIO))))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if not (8 <= width <= image.width and 8 <= height <= image.height):
            continue
        x, y = int(generator.integers(image.width - width + 1)), int(generator.integers(image.height - height + 1))
        shown = image.crop((x, y, x + width, y + height)).convert("L").resize((64, 64))
        grey = np.asarray(shown, np.float32).reshape(4, 16, 4, 16)
        if (grey.std(axis=(1, 3)) >= LEAST_DEVIATION).mean() >= LEAST_SHARE:
            return x, y, width, height
    return None


def crops(index: Index, count: int, of_photos: int | None) -> list[Crop]:
    """Parts of images that have no other within NEAR_BITS of their perceptual hashes: one an image, or so many of each
    photo."""
    records, _ = index.catalog.page(0, 100_000)
    hashes = np.array([record.facts.phash or 0 for record in records], dtype=np.int64).view(np.uint64)
    alone = [n for n, one in enumerate(hashes) if (np.bitwise_count(one ^ hashes) <= NEAR_BITS).sum() == 1]
    generator, found = np.random.default_rng(7), list[Crop]()
    for number in generator.permutation(alone).tolist():
        if len(found) >= count:
            break
        path = Path(records[number].paths[0])
        if of_photos is not None and "openclipart" in path.parts:
            continue
        picture = open_upright(path.read_bytes(), limits=LIMITS, at_least=None)
        for _ in range(of_photos or 1):
            if (box := part(picture, generator)) is not None:
                found.append(Crop(image=records[number].id, path=path, box=box))
    return found[:count]


def found_in(index: Index, space: Space, asked: list[Crop]) -> list[list[Hit]]:
    """The ten nearest of each crop in a space."""
    encoder = load_index_encoder(index, [space], warn=print)
    found = []
    for start in range(0, len(asked), BATCH):
        pixels = np.concatenate([_pixels(encoder, one) for one in asked[start : start + BATCH]])
        vectors = encoder.encode(pixels)[0]
        asked_by = [views(vectors[row : row + 1], space.recipe.count) for row in range(len(vectors))]
        found += [Query(parts=[QueryPart(vector=vector)], space=space, k=10) for vector in asked_by]
    return [index.search(query) for query in found]


def _pixels(encoder: Encoder, one: Crop) -> NDArray[np.uint8]:
    return decode_pixels(one.path.read_bytes(), encoder.inputs, limits=LIMITS, box=one.box)[None]


def milliseconds(work: Callable[[int], object]) -> float:
    """The median processor time of TIMED calls, after one that is not timed: other work does not change it much."""
    taken = []
    for number in range(TIMED + 1):
        began = time.process_time()
        work(number)
        taken.append(time.process_time() - began)
    return 1e3 * float(np.median(taken[1:]))


def share_of_both(one: Box, other: Box) -> float:
    """The intersection of two boxes, by their union."""
    sides = [max(0.0, min(one[n] + one[n + 2], other[n] + other[n + 2]) - max(one[n], other[n])) for n in (0, 1)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def reranked_in(index: Index, space: Space, asked: list[Crop], found: list[list[Hit]]) -> tuple[list[list[Hit]], float]:
    """Hits as `--rerank` orders them, and the median milliseconds of processors that each took."""
    encoder, answers, taken = PlacesEncoder(space, index.models), list[list[Hit]](), []
    for one, hits in zip(asked, found, strict=True):
        began = time.process_time()
        part, *shown = (
            decode(path.read_bytes(), (encoder.preprocessing,), limits=LIMITS, box=box)
            for path, box in [(one.path, one.box), *((Path(hit.paths[0]), None) for hit in hits)]
        )
        pictures = {hit.id: picture for hit, picture in zip(hits, shown, strict=True)}
        answers.append(reranked(encoder, part, one.box, hits, pictures))
        taken.append(time.process_time() - began)
    return answers, 1e3 * float(np.median(taken))


def row(index: Index, space: Space, asked: list[Crop]) -> str:
    """A row of the table; of a space of regions, another one of the reranked hits."""
    found = found_in(index, space, asked)
    encoder = load_index_encoder(index, [space], warn=print)
    pixels = _pixels(encoder, asked[0])
    encode = milliseconds(lambda _: encoder.encode(pixels))
    count = len(views(encoder.encode(pixels)[0], space.recipe.count))
    vectors = np.random.default_rng(0).standard_normal((TIMED + 1, count, space.recipe.dim)).astype(np.float32)
    search = milliseconds(
        lambda number: index.search(Query(parts=[QueryPart(vector=vectors[number])], space=space, k=10))
    )
    stored = BLOB_DTYPES[space.storage].itemsize * int(np.prod(space.recipe.shape))
    dim = index.snapshot().spaces[space.name].transform.dim
    cells = [f"{stored:,}, {4 * dim * space.recipe.count:,}", f"{encode:.0f}", f"{search:.1f}"]
    table = f"| {space.name} | {' | '.join([*shares(found, asked), *cells, ''])} |"
    if space.recipe.regions is None:
        return table
    answers, taken = reranked_in(index, space, asked, found)
    return f"{table}\n| reranked | {' | '.join([*shares(answers, asked), *cells, f'{taken:.0f}'])} |"


def shares(found: list[list[Hit]], asked: list[Crop]) -> list[str]:
    """R@1, R@10, and how many of the boxes are where the crop is."""
    first = np.array([hits[0].id == one.image for hits, one in zip(found, asked, strict=True)])
    ten = np.array([one.image in {hit.id for hit in hits} for hits, one in zip(found, asked, strict=True)])
    boxes = [hits[0].box for hits in found]
    places = [
        share_of_both(box, one.box) >= REACHED
        for box, one, right in zip(boxes, asked, first, strict=True)
        if right and box is not None
    ]
    return [
        f"{first.mean():.3f}",
        f"{ten.mean():.3f}",
        f"{np.mean(places):.3f}" if places else "",
    ]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--of-photos", type=int, metavar="N")
    parser.add_argument("--index", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        where = given.index or Path(work) / "index"
        build(pictures(given.sets, given.photos, given.images), where, "--regions")
        with Index.open(where) as index:
            try:
                asked = crops(index, given.queries, given.of_photos)
            except (OSError, ImageRejected) as error:
                raise SystemExit(f"A picture cannot be read any more: {error}") from error
            print(f"{machine()}\n\n{index.catalog.counts()[0]:,} images, {len(asked):,} crops")
            print(f"of {len({one.image for one in asked}):,} of them.\n")
            print("| space | R@1 | R@10 | box | bytes stored, searched | core ms to embed | to search | to rerank |")
            print("|---|---|---|---|---|---|---|---|", flush=True)
            for space in (index.space(), index.space("regions")):
                print(row(index, space, asked), flush=True)


if __name__ == "__main__":
    main()
