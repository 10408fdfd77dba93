"""A proxy for labels: how often a perturbed picture of the index finds the one that it was made from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import LabelsInvalid
from analysis.metrics import Estimate, estimates
from analysis.perturbations import PERTURBATIONS
from indexer.encoders.encoder import Encoder
from indexer.errors import ImageRejected
from indexer.index_encoder import load_index_encoder
from indexer.pictures.decode import DecodeLimits, open_upright
from indexer.pictures.preprocess import to_inputs
from search.filters import Present
from search.index import Index
from search.query.snapshot import EXACTLY
from search.types import ImageRecord, Space

SAMPLE = 80
"""Images that are perturbed, each in every way: 800 pictures to embed."""
SIDE = 512
"""Pixels of the longer side of what is perturbed: more than models look at."""

TIE = 1e-6
"""How far the cosine of equal vectors may be from one."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Of one space: the share of perturbed pictures whose nearest image is the one that they were made from; and by
    the name of each perturbation."""

    space: str
    value: Estimate
    kinds: dict[str, float]


def proxies(
    index: Index,
    spaces: Sequence[Space],
    *,
    warn: Callable[[str], None],
    sample: int = SAMPLE,
    seed: int = 0,
) -> list[Proxy]:
    """Perturb some of the index's own pictures, and search for each in every space, among all images.

    warn: told where another encoder stands in for the index's own. Raises LabelsInvalid where no picture can be read,
    ModelUnavailable, ModelUnsupported.
    """
    encoder = load_index_encoder(index, spaces, warn=warn, throughput=True)
    vectors: defaultdict[str, list[NDArray[np.float32]]] = defaultdict(list)
    asked: list[tuple[str, str]] = []
    for ids, kinds, pixels in _batches(_perturbed(index, spaces, encoder, sample, seed), encoder.batch_size):
        for name, found in zip(encoder.names, encoder.encode(pixels), strict=True):
            vectors[name].append(found)
        asked += zip(ids, kinds, strict=True)
    if not asked:
        raise LabelsInvalid("None of the index's pictures can be read: there is nothing to perturb.")
    rowids = index.catalog.rowids({image for image, _ in asked})
    own = np.array([rowids[image] for image, _ in asked])
    answers = []
    for space in spaces:
        right = _finds(index, space, np.concatenate(vectors[space.name]), own)
        by_kind = {
            kind: [one for one, (_, of) in zip(right, asked, strict=True) if of == kind] for kind in PERTURBATIONS
        }
        answers.append(
            Proxy(
                space=space.name,
                value=estimates({"proxy": _by_image(right, [image for image, _ in asked])}, seed)["proxy"],
                kinds={kind: float(np.mean(each)) for kind, each in by_kind.items()},
            )
        )
    return answers


def _perturbed(
    index: Index, spaces: Sequence[Space], encoder: Encoder, sample: int, seed: int
) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """An image's id, a perturbation's name, and pixels for the encoder, for images that are drawn at random.

    Only images that all spaces have, from files that have not changed since they were indexed.
    """
    generator = np.random.default_rng(seed)
    common = index.searched(spaces[0])[0]
    for space in spaces[1:]:
        common = np.intersect1d(common, index.searched(space)[0])
    there = index.catalog.ids(index.catalog.present(common.tolist()))
    found = 0
    for rowid in generator.permutation(sorted(there)).tolist():
        picture = opened(index.image(there[rowid]), SIDE)
        if picture is None:
            continue
        picture.thumbnail((SIDE, SIDE))
        for number, (kind, perturb) in enumerate(PERTURBATIONS.items()):
            changed = perturb(picture, np.random.default_rng([seed, found, number]))
            yield there[rowid], kind, to_inputs(changed, encoder.inputs)
        found += 1
        if found == sample:
            return


def opened(record: ImageRecord, at_least: int) -> Image.Image | None:
    """An image's picture, upright; None where none of its files can be read, or is what it was.

    at_least: pixels of the shorter side, where it has as many: large pictures are decoded at reduced size.
    """
    for path in record.paths:
        try:
            data = Path(path).read_bytes()
            if hashlib.sha256(data).hexdigest() != record.id:
                continue
            return open_upright(data, limits=DecodeLimits(), at_least=at_least)
        except (OSError, ImageRejected):
            continue
    return None


def _batches(
    perturbed: Iterator[tuple[str, str, NDArray[np.uint8]]], size: int
) -> Iterator[tuple[Sequence[str], Sequence[str], NDArray[np.uint8]]]:
    while together := list(islice(perturbed, size)):
        ids, kinds, pixels = zip(*together, strict=True)
        yield ids, kinds, np.stack(pixels)


def _finds(index: Index, space: Space, vectors: NDArray[np.float32], own: NDArray[np.int64]) -> list[bool]:
    """Whether each perturbed picture's nearest image is its own, or one with the same vector."""
    nearest = index.nearest(vectors, 1, space=space.name, matching=Present(), ef=EXACTLY)[0][:, 0]
    rowids, searched = index.searched(space)
    found = searched[np.searchsorted(rowids, nearest)]
    wanted = searched[np.searchsorted(rowids, own)]
    right: list[bool] = (np.einsum("ij,ij->i", found, wanted) >= 1 - TIE).tolist()
    return right


def _by_image(right: Sequence[bool], images: Sequence[str]) -> NDArray[np.float64]:
    """The share that is right of each image's perturbations: those of one image are not independent."""
    each: defaultdict[str, list[bool]] = defaultdict(list)
    for one, image in zip(right, images, strict=True):
        each[image].append(one)
    return np.array([np.mean(shares) for shares in each.values()])
