"""Whether `lookalike tune` chooses without labels what labels choose: on five labelled sets, over a list fixed before.

    python benchmarks/tune.py SETS [--sets scenes,words,stamps,clothes,clipart] [--most 0] [--keep FOLDER]

SETS is the folder of `benchmarks/relevance.py`, with Debian's dataset-fashion-mnist too (clothes: its test images, of
28 pixels). The list: layers 6 to 12 and 7-11 of the packaged model, each squashed and cropped, plain and whitened, with
and without the companion. For each set: the rank correlation (Spearman) between what `tune` measures on a sample of 400
images, 50 of them perturbed, and R@1 by labels (leave-one-out, over all images); and what `tune` recommends, from the
default recipe and from `--layer 11`, beside what the labels choose. Prints Markdown.

--most: images of a set, in whole classes drawn at random; 0 for all. --keep: a folder for what the networks gave, so
that the next run takes seconds.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from relevance import SETS

from analysis.metrics import LEVEL, RESAMPLES, Estimate
from analysis.perturbations import PERTURBATIONS
from analysis.tuning.candidates import candidates
from analysis.tuning.features import Features, Shown, by_preprocessing, read, readings
from analysis.tuning.sweep import PERTURBED, SAMPLE, Tried, choose, perturbed, self_retrieval
from indexer.encoders.joint import JointEncoder
from indexer.encoders.load import encoder_for
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.models import PACKAGED, locate
from indexer.pictures.decode import DecodeLimits, open_upright
from search.catalog.spaces import Spaces
from search.generations.kinds import KINDS
from search.recipe import IDENTITY
from search.types import Encoding, Space

BEFORE = "layer11"
"""The default before, which older indexes have."""
LISTED = 64
AT_LEAST = 512
"""Pixels of the shorter side that is decoded."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Pictures, each opened when it is its turn, and their classes."""

    open: tuple[Callable[[], Image.Image], ...]
    classes: NDArray[np.str_]


def clothes(sets: Path) -> Labelled:
    """The test images of Fashion-MNIST, the first 5,000."""
    folder = sets / "usr/share/datasets/fashion-mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28)[:5_000]
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        classes = np.frombuffer(file.read()[8:], np.uint8)[:5_000].astype(str)
    return Labelled(open=tuple(_grey(one) for one in pixels), classes=classes)


def _grey(pixels: NDArray[np.uint8]) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(pixels).convert("RGB")


def of_files(images: dict[Path, str]) -> Labelled:
    """A set of `benchmarks/relevance.py`, files of equal bytes once."""
    distinct = {path.read_bytes(): (path, name) for path, name in images.items()}
    return Labelled(
        open=tuple(_opener(path) for path, _ in distinct.values()),
        classes=np.array([name for _, name in distinct.values()]),
    )


def _opener(path: Path) -> Callable[[], Image.Image]:
    return lambda: open_upright(path.read_bytes(), limits=DecodeLimits(), at_least=AT_LEAST)


def some(labelled: Labelled, most: int, *, whole: bool) -> Labelled:
    """At most so many images: whole classes drawn at random, or the first of all."""
    kept = np.arange(min(most, len(labelled.open)))
    if whole:
        names = np.random.default_rng(1).permutation(np.unique(labelled.classes))
        sizes = np.cumsum([(labelled.classes == name).sum() for name in names])
        kept = np.flatnonzero(np.isin(labelled.classes, names[: np.searchsorted(sizes, most) + 1]))
    return Labelled(open=tuple(labelled.open[one] for one in kept), classes=labelled.classes[kept])


def listed() -> list[Space]:
    """The list that was fixed before, the default recipe first."""
    files, encoding = locate(PACKAGED.name), Encoding(backend="openvino", precision="fp32")
    default, *_ = spaces_for(files, default_requests(files), encoding)
    tried = candidates(Spaces((default,), default.name))
    plain = (IDENTITY, default.transform)
    found = [one for one in tried if one.transform in plain and one.recipe.pooling == default.recipe.pooling]
    assert len(found) == LISTED, "the list has changed"
    return found


def pictures(labelled: Labelled, drawn: list[int]) -> Iterator[tuple[Shown, Image.Image]]:
    """All pictures, and of the drawn ones their perturbed copies."""
    number = {place: count for count, place in enumerate(drawn)}
    for place, open_one in enumerate(labelled.open):
        picture = open_one()
        yield Shown(str(place), None), picture
        if place in number:
            yield from perturbed(str(place), picture, seed=(0, number[place]))


def featured(labelled: Labelled, spaces: list[Space], drawn: list[int], kept: Path | None) -> Features:
    """What the networks give, from the file where it was kept."""
    wanted = readings(spaces)
    if kept is not None and kept.is_file():
        with np.load(kept) as stored:
            shown = [Shown(image, kind or None) for image, kind in stored["shown"].tolist()]
            return Features(shown=shown, layers={layer: stored[space.name] for layer, space in wanted.items()})
    encoder = JointEncoder([encoder_for(way, Path(), throughput=True) for way in by_preprocessing(wanted)])
    features = read(pictures(labelled, drawn), encoder, wanted)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {wanted[layer].name: each for layer, each in features.layers.items()}
        np.savez(kept, shown=np.array([(image, kind or "") for image, kind in features.shown]), **arrays)
    return features


def by_labels(space: Space, features: Features, classes: NDArray[np.str_]) -> NDArray[np.float64]:
    """Whether each image's nearest other one is of its class, (n,) float64, where there are two of it."""
    rows = np.array([one.kind is None for one in features.shown])
    stored = features.vectors(space.recipe)[rows]
    drawn = np.random.default_rng(0).permutation(len(stored))
    vectors = KINDS[space.transform.kind].fit(space, lambda most: stored[drawn[:most]]).apply(stored)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    right = np.asarray(classes[scores.argmax(axis=1)] == classes, dtype=np.float64)
    names, counts = np.unique(classes, return_counts=True)
    return right[np.isin(classes, names[counts > 1])]


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation of ranks, equal values sharing theirs; nan where one side has but one value."""
    if min(np.ptp(one), np.ptp(other)) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    below = (values[:, None] > values).sum(axis=1)
    return np.asarray(below + ((values[:, None] == values).sum(axis=1) - 1) / 2, dtype=np.float64)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """The mean of one less that of the other, and its interval by the paired bootstrap."""
    gain, generator = one - other, np.random.default_rng(0)
    means = [gain[generator.integers(0, len(gain), len(gain))].mean() for _ in range(RESAMPLES)]
    tail = (1 - LEVEL) / 2
    return f"{gain.mean():+.3f} ({np.quantile(means, tail):+.3f} to {np.quantile(means, 1 - tail):+.3f})"


def measured(name: str, labelled: Labelled, kept: Path | None) -> None:
    """Print a set's rows."""
    spaces = listed()
    order = np.random.default_rng(0).permutation(len(labelled.open)).tolist()
    drawn = order[:PERTURBED]
    features = featured(labelled, spaces, drawn, kept)
    sampled = {str(place) for place in order[:SAMPLE]}
    rows = np.array([one.image in sampled for one in features.shown])
    sample = Features(
        shown=[one for one in features.shown if one.image in sampled],
        layers={layer: each[rows] for layer, each in features.layers.items()},
    )
    right = {space.name: by_labels(space, features, labelled.classes) for space in spaces}
    tried = []
    for space in spaces:
        found = self_retrieval(space, sample)[0]
        tried.append(
            Tried(
                space=space,
                found=found.mean(axis=1),
                proxy=Estimate.certain(float(found.mean())),
                kinds=dict(zip(PERTURBATIONS, found.mean(axis=0).tolist(), strict=True)),
                images_per_second=0,
                bytes_per_image=0,
                search_ms=0,
            )
        )
    recalls = np.array([right[one.space.name].mean() for one in tried])
    best = tried[int(recalls.argmax())].space.name
    rho = spearman(np.array([one.proxy.value for one in tried]), recalls)
    kinds = {kind: spearman(np.array([one.kinds[kind] for one in tried]), recalls) for kind in PERTURBATIONS}
    classes = len(np.unique(labelled.classes))
    print(f"\n### {name}: {len(labelled.open):,} images of {classes} classes, Spearman {rho:.3f}\n")
    print("By kind: " + ", ".join(f"{kind} {value:.2f}" for kind, value in kinds.items() if np.isfinite(value)) + "\n")
    print(
        f"| from | recommended | R@1 | less the best by labels ({best}, {right[best].mean():.3f}) |\n|---|---|---|---|"
    )
    for start in (tried[0], next(one for one in tried if one.space.name == BEFORE)):
        chosen = choose([start, *(one for one in tried if one is not start)]).space.name
        before, after = right[start.space.name].mean(), right[chosen].mean()
        print(
            f"| {start.space.name}, {before:.3f} | {chosen} | {after:.3f} | {difference(right[chosen], right[best])} |"
        )


def main() -> None:
    """Measure each set, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("--sets", default="scenes,words,stamps,clothes,clipart")
    parser.add_argument("--most", type=int, default=0, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    print(f"{machine()}")
    for name in asked.sets.split(","):
        folder = asked.folder.resolve()
        labelled = clothes(folder) if name == "clothes" else of_files(SETS[name](folder))
        if asked.most:
            labelled = some(labelled, asked.most, whole=name != "clothes")
        measured(name, labelled, None if asked.keep is None else asked.keep / f"{name}-{asked.most}.npz")


if __name__ == "__main__":
    main()
