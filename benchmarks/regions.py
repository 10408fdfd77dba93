"""How often a part of a picture finds the picture: the default space beside ten vectors an image, one of each part.

    python benchmarks/regions.py SETS PHOTOS [--images N] [--queries N] [--keep FILE.npz]

SETS is the folder in which Debian's package openclipart-png was unpacked (`dpkg -x PACKAGE.deb SETS`), PHOTOS the one
with plasma-workspace-wallpapers and gnome-backgrounds. Drawings on which the windows, layers and weights were chosen
(a third, by a hash of their names) are left out. Queries are crops of 10 to 40% of an image's area, at random places,
with sides in ratios of 1:2 to 2:1. Two rules keep out crops that nobody could place: at least half of the sixteenths of
a crop vary (a deviation of 8 grey levels), and no other image has a perceptual hash within 10 bits of its image's.

Parts are windows of the maps of EfficientNet-Lite0, run on 448 x 448 pixels: the whole image, seen at half that size,
and nine squares of half its sides. Each has the means of a middle layer (112 numbers) and of the last block (320).
Prints Markdown. --keep: where vectors are kept, for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from edits import opened
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from indexer.encoders.efficientnet import EfficientNet
from indexer.encoders.families import open_checkpoint
from indexer.encoders.load import encoder_for
from indexer.encoders.recipes import default_requests, recipes_for, spaces_for
from indexer.encoders.tower import open_tower
from indexer.models import COMPANION, PACKAGED, locate
from indexer.pictures.facts import perceptual_hash
from indexer.pictures.preprocess import to_input
from search.generations.ann import exact, scores
from search.generations.whitening import fit
from search.recipe import TransformSpec
from search.types import Encoding, Space
from search.vectors import normalise

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]

SIDE = 448
"""Pixels of the squeezed image; the whole is seen at half of it, as a query is."""
MIDDLE, LAST = 10, 15
"""Blocks of EfficientNet-Lite0: the end of the fifth stage (stride 16), and of the seventh (stride 32)."""
WINDOWS = 10
STARTS = (0.0, 0.25, 0.5)
"""Where windows of half a side begin."""
WHITENING = TransformSpec(kind="whitening", floor=0.01, companion_weight=1.0, max_dim=256)
AREA, RATIO = (0.1, 0.4), 2.0
LEAST_DEVIATION, LEAST_SHARE, NEAR_BITS = 8, 0.5, 10
CHOSEN_ON = 85
"""Of 256 hashes of names, those of drawings on which the figures were chosen."""
LARGEST = 2_000_000
"""Bytes of a file: six drawings have 168 megapixels."""
BATCH = 8


class Parts(nn.Module):
    """Pixels (n, SIDE, SIDE, 3) uint8 to (n, 10, 432) float32; half as large ones to (n, 1, 432)."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """The whole image alone, where it has half the side."""
        mean, std = self.network.get_buffer("mean"), self.network.get_buffer("std")
        image = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
        if int(image.shape[2]) < SIDE:
            return self._means(image, whole=True)
        whole = self._means(nn.functional.avg_pool2d(image, 2), whole=True)
        return torch.cat([whole, self._means(image, whole=False)], dim=1)

    def _means(self, image: Tensor, *, whole: bool) -> Tensor:
        features, kept = nn.functional.relu6(self.network.stem(image)), []
        for number, block in enumerate(self.network.blocks):
            features = block(features)
            if number in (MIDDLE, LAST):
                kept.append(features.mean(dim=(2, 3))[:, None] if whole else _windows(features))
        return torch.cat([nn.functional.normalize(part, dim=2) for part in kept], dim=2)


def _windows(features: Tensor) -> Tensor:
    side = int(features.shape[2])
    begins = [round(start * side) for start in STARTS]
    cut = [features[:, :, y : y + side // 2, x : x + side // 2] for y in begins for x in begins]
    return torch.stack([part.mean(dim=(2, 3)) for part in cut], dim=1)


def pictures(sets: Path, photos: Path, count: int) -> list[Path]:
    """All photos, and drawings drawn at random, `count` in all."""
    found = [path for path in sorted(photos.rglob("*")) if path.suffix in (".png", ".jpg", ".webp")]
    seen: dict[str, Path] = {}
    for path in found:  # Plasma has each wallpaper in several sizes
        seen.setdefault(str(path.parents[2]) if "images" in path.parent.name else str(path), path)
    drawings = [
        path
        for path in sorted((sets / "usr/share/openclipart/png").rglob("*.png"))
        if path.stat().st_size < LARGEST and hashlib.sha1(str(path).encode()).digest()[0] >= CHOSEN_ON
    ]
    random.Random(0).shuffle(drawings)
    return [*seen.values(), *drawings][:count]


def crop(image: Image.Image, generator: np.random.Generator) -> Image.Image | None:
    """A part of a picture that shows something; None where twenty tries find none."""
    for _ in range(20):
        area = generator.uniform(*AREA) * image.width * image.height
        ratio = float(np.exp(generator.uniform(-np.log(RATIO), np.log(RATIO))))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if not (8 <= width <= image.width and 8 <= height <= image.height):
            continue
        x, y = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
        part = image.crop((int(x), int(y), int(x) + width, int(y) + height))
        grey = np.asarray(part.convert("L").resize((64, 64)), np.float32).reshape(4, 16, 4, 16)
        if (grey.std(axis=(1, 3)) >= LEAST_DEVIATION).mean() >= LEAST_SHARE:
            return part
    return None


def apart(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these pictures have no other within NEAR_BITS of their perceptual hashes."""
    return np.array([(np.bitwise_count(one ^ hashes) <= NEAR_BITS).sum() == 1 for one in hashes])


def batches(images: Sequence[Image.Image], pixels: Callable[[Image.Image], NDArray[np.uint8]]) -> Iterator[Floats]:
    """The pixels of some at a time."""
    for start in range(0, len(images), BATCH):
        yield np.stack([pixels(image) for image in images[start : start + BATCH]])


def squeezed(side: int) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """Brings a picture to a square of this side."""
    return lambda image: np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def r_at(found: Floats, sources: NDArray[np.int64], k: int) -> float:
    """The share of queries whose source is among their k best images; found: (q, n), each image's best cosine."""
    own = found[np.arange(len(sources)), sources]
    return float(((found > own[:, None]).sum(axis=1) < k).mean())


def best_of_each(vectors: Floats, queries: Floats, images: int) -> Floats:
    """The best cosine of each query with any vector of each image, (q, images)."""
    return (queries @ vectors.T).reshape(len(queries), images, -1).max(axis=2)


def milliseconds(vectors: Floats, queries: Floats) -> float:
    """Of comparing one query with all, the median of fifty."""
    taken = []
    for query in queries[:50]:
        began = time.perf_counter()
        scores(vectors, query[None], exact(vectors, query[None], 160))
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def network() -> Callable[[NDArray[np.uint8]], Floats]:
    """`Parts` of the companion, by OpenVINO."""
    import openvino

    (recipe,) = recipes_for(locate(COMPANION.name), ()).values()
    tower = open_tower(open_checkpoint(locate(COMPANION.name)), (), recipe.preprocessing)
    assert isinstance(tower, EfficientNet)
    made = {}
    for side in (SIDE, SIDE // 2):
        example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
        model = openvino.convert_model(Parts(tower).eval(), example_input=example)
        model.reshape({0: [-1, side, side, 3]})
        made[side] = openvino.Core().compile_model(model, "CPU", {"ENABLE_CPU_PINNING": False})
    return lambda pixels: np.array(made[pixels.shape[1]](pixels)[0])


def embedded(
    images: Sequence[Image.Image], crops: Sequence[Image.Image], default: Space
) -> tuple[dict[str, Floats], float, float]:
    """Vectors of images and of crops in the default space and of their parts, and seconds an image of each."""
    encoder = encoder_for([default], Path())
    began = time.perf_counter()
    vectors = {
        name: np.concatenate(
            [
                encoder.encode(some)[0]
                for some in batches(these, lambda one: to_input(one, default.recipe.preprocessing))
            ]
        )
        for name, these in (("default", images), ("default_crops", crops))
    }
    whole = (time.perf_counter() - began) / (len(images) + len(crops))
    parts = network()
    began = time.perf_counter()
    vectors["parts"] = np.concatenate([parts(some) for some in batches(images, squeezed(SIDE))])
    each = (time.perf_counter() - began) / len(images)
    vectors["parts_crops"] = np.concatenate([parts(some) for some in batches(crops, squeezed(SIDE // 2))])[:, 0]
    return vectors, whole, each


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()

    def read(path: Path) -> Image.Image | None:
        try:
            return opened(path)
        except (OSError, ValueError, Image.DecompressionBombError):
            return None

    with ThreadPoolExecutor(2) as pool:
        images = [one for one in pool.map(read, pictures(asked.sets, asked.photos, asked.images)) if one is not None]
    hashes = np.array([perceptual_hash(one) for one in images], dtype=np.int64).view(np.uint64)
    alone, generator = np.flatnonzero(apart(hashes)), np.random.default_rng(7)
    crops, sources = [], []
    for number in generator.permutation(alone).tolist():
        part = crop(images[number], generator) if len(crops) < asked.queries else None
        if part is not None:
            crops.append(part)
            sources.append(number)
    files = locate(PACKAGED.name)
    (default,) = spaces_for(files, default_requests(files), Encoding(backend="openvino", precision="fp32"))
    if asked.keep is not None and asked.keep.exists():
        kept = dict(np.load(asked.keep))
        whole, each = kept.pop("seconds").tolist()
    else:
        kept, whole, each = embedded(images, crops, default)
        if asked.keep is not None:
            np.savez(asked.keep, seconds=np.array([whole, each]), **kept)
    truth, total = np.array(sources), len(images)
    transform = fit(default, lambda count: generator.permutation(kept["default"])[:count])
    flat = normalise(kept["parts"].reshape(-1, kept["parts"].shape[2]))
    of_parts = fit(parted(), lambda count: generator.permutation(flat)[:count])
    print(f"{machine()}\n\n{total:,} images, {len(crops):,} crops.\n")
    print("| space | R@1 | R@10 | bytes an image: stored, searched | ms a search | ms an image |")
    print("|---|---|---|---|---|---|")
    rows = (
        ("default", transform.apply(kept["default"]), transform.apply(kept["default_crops"]), 2 * default.recipe.dim),
        ("parts", of_parts.apply(flat), of_parts.apply(normalise(kept["parts_crops"])), 2 * WINDOWS * 432),
    )
    for (name, vectors, queries, stored), seconds in zip(rows, (whole, each), strict=True):
        found = best_of_each(vectors, queries, total)
        print(
            f"| {name} | {r_at(found, truth, 1):.3f} | {r_at(found, truth, 10):.3f} | "
            f"{stored:,}, {vectors.nbytes // total:,} | {milliseconds(vectors, queries):.1f} | {1e3 * seconds:.0f} |"
        )


def parted() -> Space:
    """A space of such parts: its transform evens out what the middle layer gives, and centres what the last does."""
    (recipe,) = recipes_for(locate(COMPANION.name), ()).values()
    recipe = replace(recipe, dim=112 + 320, companion=replace(recipe, dim=320))
    return Space(name="parts", recipe=recipe, encoding=Encoding(), transform=WHITENING)


if __name__ == "__main__":
    main()
