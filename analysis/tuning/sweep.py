"""A sweep over recipes: how well each finds perturbed pictures among the index's own, what it costs, and which to take.

Perturbation retrieval as the measure: Skean et al., "Layer by Layer", ICML 2025 (arXiv:2502.02013), and Thilak et al.,
"LiDAR", 2023 (arXiv:2312.04000), find invariance to perturbations to rank layers where rank and entropy alone do not.
Whether any recipe is better than the present one: sign flips and the largest statistic, Westfall and Young,
"Resampling-Based Multiple Testing", 1993.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import TooFewImages
from analysis.metrics import LEVEL, RESAMPLES, Estimate, estimates
from analysis.perturbations import PERTURBATIONS
from analysis.proxy import SIDE, TIE, opened
from analysis.tuning.candidates import candidates
from analysis.tuning.costs import TIMED_IMAGES, bytes_per_image, rates, search_ms
from analysis.tuning.features import Features, Shown, by_preprocessing, read, readings
from indexer.encoders.encoder import Encoder
from indexer.encoders.joint import JointEncoder
from indexer.index_encoder import load_index_encoder
from indexer.pictures.preprocess import input_of, needed_size, to_inputs
from indexer.report import Progress
from search.console import plural
from search.filters import Present
from search.generations.kinds import KINDS
from search.generations.space_draft import needs_graph
from search.generations.transform import Transform
from search.generations.whitening import floor_of
from search.index import Index
from search.recipe import Recipe, TransformSpec
from search.types import ImageRecord, Space

SAMPLE = 400
"""Images that are read, if no other number is asked for."""
MIN_IMAGES = 20
"""Of fewer, each perturbed picture finds its original in any space."""
PERTURBED, SHARE = 50, 8
"""Images that are perturbed in each way, which rank recipes as 80 do; or one in so many of those read, if that is more.
"""
LOOKED_UP = 500
"""Images that are looked up in the catalog at once."""
ROWS = 1_024
"""Perturbed pictures that are compared with all images at once: 16 MB at 4,000 images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A recipe, as a space that there is or could be, and what came of it.

    found: of each perturbed image, the share of its perturbed copies whose nearest image it is, (images,) float64 0..1.
    proxy: their mean, and its interval; kinds: the share by the name of each perturbation. images_per_second: are
    embedded, files read and decoded aside. search_ms: None where a graph is searched, and not every vector.
    """

    space: Space
    found: NDArray[np.float64]
    proxy: Estimate
    kinds: dict[str, float]
    images_per_second: float
    bytes_per_image: int
    search_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All recipes that were tried, the default space's first. images: were read and searched among; perturbed: of them;
    skipped: could not be read. chosen: the recipe to take; the default's where none is better beyond noise.
    """

    images: int
    perturbed: int
    skipped: int
    tried: tuple[Tried, ...]
    chosen: Tried

    @property
    def default(self) -> Tried:
        """The recipe that the index is searched by now."""
        return self.tried[0]

    @property
    def differs(self) -> bool:
        """Whether a recipe is better than the default's."""
        return self.chosen is not self.default


def sweep(
    index: Index,
    *,
    warn: Callable[[str], None],
    progress: Progress,
    stopped: Callable[[], bool],
    sample: int = SAMPLE,
    seed: int = 0,
) -> Sweep | None:
    """Try every candidate on a sample of the index's images, drawn at random; None where it was stopped.

    warn: told where another encoder stands in for the index's own. Raises TooFewImages, ModelUnavailable,
    ModelUnsupported.
    """
    _check(len(index.catalog.matching(Present())), index, "there")  # before minutes of loading
    spaces = candidates(index.catalog.spaces())
    wanted = readings(spaces)

    def load(some: Sequence[Space]) -> Encoder:
        return load_index_encoder(index, some, warn=warn, throughput=True)

    ways = by_preprocessing(wanted)
    encoders = [load(way) for way in ways]
    encoder = encoders[0] if len(encoders) == 1 else JointEncoder(encoders)
    reader = _Reader(index, encoder, sample, seed, progress, stopped)
    features = read(reader.pictures(), encoder, wanted)
    if stopped():
        return None
    _check(reader.originals, index, "readable")
    pixels = input_of(reader.pixels, encoder.inputs, ways[0][0].recipe.preprocessing)
    speed = rates(ways[0], encoders[0], load, pixels)
    images = index.catalog.counts()[0]
    measured = []
    distinct = _distinct(spaces, reader.originals)
    progress.start(len(distinct), what="Trying recipes")
    for space in distinct:  # a transform takes 13 MB: none is kept
        found, transform, vector = self_retrieval(space, features)
        graph = needs_graph(images, transform.dim, index.catalog.min_recall(), index.policy)
        milliseconds = None if graph else search_ms(transform, vector, images)
        measured.append((space, found, bytes_per_image(space, transform), milliseconds))
        progress.done(1)
    proxies = estimates({str(number): found.mean(axis=1) for number, (_, found, _, _) in enumerate(measured)}, seed)
    tried = tuple(
        Tried(
            space=space,
            found=found.mean(axis=1),
            proxy=proxies[str(number)],
            kinds=dict(zip(PERTURBATIONS, found.mean(axis=0).tolist(), strict=True)),
            images_per_second=speed.images_per_second(space),
            bytes_per_image=size,
            search_ms=milliseconds,
        )
        for number, (space, found, size, milliseconds) in enumerate(measured)
    )
    return Sweep(
        images=reader.originals,
        perturbed=len(tried[0].found),
        skipped=reader.skipped,
        tried=tried,
        chosen=choose(tried, seed),
    )


def _check(images: int, index: Index, what: str) -> None:
    if images < MIN_IMAGES:
        raise TooFewImages(
            f"{plural(images, 'image')} of {index.path} {'is' if images == 1 else 'are'} {what}, and recipes are "
            f"compared on {MIN_IMAGES} at least. Add images with lookalike build, or bring back the files that are "
            "missing."
        )


def _distinct(spaces: Sequence[Space], images: int) -> list[Space]:
    """Without those whose floor makes no difference to so many images."""
    found: dict[tuple[Recipe, TransformSpec], Space] = {}
    for space in spaces:
        spec = space.transform
        found.setdefault((space.recipe, replace(spec, floor=floor_of(spec.floor, images))), space)
    return list(found.values())


class _Reader:
    """Reads images of an index, drawn at random, and perturbs the first of them."""

    def __init__(
        self, index: Index, encoder: Encoder, sample: int, seed: int, progress: Progress, stopped: Callable[[], bool]
    ) -> None:
        self._index = index
        self._inputs = encoder.inputs
        self._sample = sample
        self._seed = seed
        self._progress = progress
        self._stopped = stopped
        self._pixels: list[NDArray[np.uint8]] = []
        self.originals = 0
        self.skipped = 0

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Of the first images, for the encoder: (n, bytes) uint8, or (n, size, size, 3)."""
        return np.stack(self._pixels)

    def pictures(self) -> Iterator[tuple[Shown, Image.Image]]:
        """Each image as it is, and after it, of the first ones, its perturbed copies. Files that are gone, have changed
        or cannot be read are skipped."""
        there = self._index.catalog.matching(Present())
        wanted = min(self._sample, len(there))
        changed = min(wanted, max(PERTURBED, wanted // SHARE))
        self._progress.start(wanted + len(PERTURBATIONS) * changed)
        for record in self._records(np.random.default_rng(self._seed).permutation(there)):
            if self.originals == wanted or self._stopped():
                return
            picture = opened(record, needed_size(self._inputs))
            if picture is None:
                self.skipped += 1
                continue
            number, name = self.originals, _name(picture)
            self.originals += 1
            if len(self._pixels) < TIMED_IMAGES:
                self._pixels.append(to_inputs(picture, self._inputs))
            yield Shown(name, None), picture
            self._progress.done(1)
            if number < changed:
                for copy in perturbed(name, picture, seed=(self._seed, number)):
                    yield copy
                    self._progress.done(1)

    def _records(self, rowids: NDArray[np.int64]) -> Iterator[ImageRecord]:
        for start in range(0, len(rowids), LOOKED_UP):
            drawn = rowids[start : start + LOOKED_UP].tolist()
            records = self._index.catalog.records(drawn)
            yield from (records[rowid] for rowid in drawn if rowid in records)


def _name(picture: Image.Image) -> str:
    return hashlib.sha256(repr((picture.mode, picture.size)).encode() + picture.tobytes()).hexdigest()


def perturbed(image: str, picture: Image.Image, *, seed: tuple[int, int]) -> Iterator[tuple[Shown, Image.Image]]:
    """A picture's copies, perturbed in each way."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    for kind, (name, perturb) in enumerate(PERTURBATIONS.items()):
        yield Shown(image, name), perturb(small, np.random.default_rng([*seed, kind]))


def self_retrieval(space: Space, features: Features) -> tuple[NDArray[np.float64], Transform, NDArray[np.float32]]:
    """Which perturbed copies find their image first, (images, kinds) float64 0..1; the transform, fitted to the images
    as a generation fits it; and a stored vector, (dim,) float32.

    features: of images, each in all its kinds or in none. Images of one name are one picture, and any of them is
    right. Of m images that are equally near, each counts 1/m: a space in which all vectors are equal finds nothing.
    """
    rows = np.array([one.kind is None for one in features.shown])
    vectors = features.vectors(space.recipe)
    transform = KINDS[space.transform.kind].fit(space, lambda most: vectors[rows][:most])
    images, copies = transform.apply(vectors[rows]), transform.apply(vectors[~rows])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(one.image for one in features.shown))}
    pictures = np.array([numbers[one.image] for one in features.shown])
    there, own = pictures[rows], pictures[~rows]
    right = np.empty(len(copies), dtype=np.float64)
    for start in range(0, len(copies), ROWS):
        scores = copies[start : start + ROWS] @ images.T
        first = scores >= scores.max(axis=1, keepdims=True) - TIE
        mine = first & (there == own[start : start + ROWS, None])
        right[start : start + ROWS] = mine.sum(axis=1) / first.sum(axis=1)
    return right.reshape(-1, len(PERTURBATIONS)), transform, vectors[0]


def choose(tried: Sequence[Tried], seed: int = 0) -> Tried:
    """The recipe with the best proxy; the first, the default's, where none is better than it beyond noise.

    The noise is that of the best of as many recipes as there are: where none is better, an image's gains in all of
    them could as well have the other sign. Each gain counts in units of its own size, whatever the signs.
    """
    gains = np.stack([one.found - tried[0].found for one in tried])
    sizes = np.maximum(np.linalg.norm(gains, axis=1), 1e-9)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (RESAMPLES, gains.shape[1]))
    largest = (signs @ gains.T / sizes).max(axis=1)
    beyond = gains.sum(axis=1) / sizes > np.quantile(largest, LEVEL)
    if not beyond.any():
        return tried[0]
    return max((one for one, is_better in zip(tried, beyond.tolist(), strict=True) if is_better), key=_proxy)


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """The recipes than which no other is better in one respect, and as good in all: quality, rate and bytes.

    The time of a search is left out: it follows from the bytes.
    """

    def marks(one: Tried) -> tuple[float, float, float]:
        return one.proxy.value, one.images_per_second, -one.bytes_per_image

    return [
        one
        for one in tried
        if not any(
            marks(other) != marks(one) and all(a >= b for a, b in zip(marks(other), marks(one), strict=True))
            for other in tried
        )
    ]


def _proxy(one: Tried) -> float:
    return one.proxy.value
