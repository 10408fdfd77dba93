"""Alignment: an index's own captions teach which words fit its images, where that finds more than before.

A ridge regression from whitened embeddings to the embeddings of captions. Space, strength and share are chosen by how
well captions find their images, of such as were kept from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import AlignmentUseless, CaptionsInvalid
from analysis.labels import records
from indexer.encoders.aligned import AlignedHead, Head, whitened
from indexer.encoders.words import packaged_centre, packaged_head
from indexer.metadata import read_metadata
from search.catalog.fulltext import TITLE_KEYS, strings
from search.generations.whitening import FIT_VECTORS, Part, fit
from search.index import Index
from search.types import ImageRecord, JsonObject, Space
from search.vectors import normalise

Floats = NDArray[np.float32]

MIN_CAPTIONS = 60
"""Images with a caption that are needed: of fewer, those kept back say nothing."""
MAX_CAPTIONS = 12_000
"""That are learned from, drawn at random: 150 MB of embeddings, and some minutes."""
MAX_SPACES = 4
"""That are tried, the default first."""
FOLDS = 3
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
"""Of the regression's penalty, as shares of the mean square of a whitened embedding."""
SHARES = (0.3, 0.5, 0.7)
"""Of what captions taught in the sum with what is recognised without them; all of it where nothing is."""
FIRST = 10
"""A caption has found its image where that is among so many."""
SURE = 1.64
"""Standard errors by which more must be found than before: by chance, one alignment in twenty finds so much more."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """What was learned from so many captions, and what captions kept back find: R@10 with it, and before, each 0..1.

    strength, share: as STRENGTHS and SHARES.
    """

    space: Space
    head: AlignedHead
    captions: int
    strength: float
    share: float
    found: float
    found_before: float


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What a space holds of captioned images: whitened (n, d), and what is recognised in them (n, dim), if anything."""

    space: Space
    parts: tuple[Part, ...]
    recognition: Head | None
    whitened: Floats
    recognised: Floats | None


def captions_of(index: Index, file: Path | None = None) -> dict[str, str]:
    """A caption for each image that has one, by id: of a file's lines, else of metadata that says what an image shows,
    else of its labels.

    file: as `build --metadata` takes it; of its columns, those count that say what an image shows, or else all. Paths
    are absolute, or relative to the file or to a folder that a build read. Raises CaptionsInvalid, MetadataInvalid.
    """
    if file is None:
        found = {record.id: _said(record.metadata, record.labels) for record in records(index)}
    else:
        known, found = _by_path(records(index)), {}
        places = [file.absolute().parent, *map(Path, index.catalog.roots())]
        for line in read_metadata(file):
            named = [line.id or "", *(str(place / line.path) for place in places if line.path is not None)]
            image_id = next((known[name] for name in named if name in known), None)
            if image_id is not None:
                found[image_id] = _said(line.metadata, line.labels or (), everything=True)
    captions = {name: text for name, text in found.items() if text}
    if len(captions) < MIN_CAPTIONS:
        raise CaptionsInvalid(
            f"Of the images in the index, {len(captions):,} have a caption, and {MIN_CAPTIONS} must have one. Attach "
            "metadata with build --metadata, or name a file with the columns path and caption: --captions FILE."
        )
    return captions


def _by_path(images: Iterable[ImageRecord]) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in images:
        found |= dict.fromkeys((record.id, *record.paths), record.id)
    return found


def _said(metadata: JsonObject, labels: Sequence[str], *, everything: bool = False) -> str:
    titles = [text for key, value in metadata.items() if key.casefold() in TITLE_KEYS for text in strings(value)]
    others = [text for value in metadata.values() for text in strings(value)] if everything else []
    return ", ".join(dict.fromkeys(titles or others or labels)).strip()


def align(
    index: Index, captions: Mapping[str, str], encode: Callable[[Sequence[str]], Floats], *, tell: Callable[[str], None]
) -> Alignment:
    """Learn from captions, by image id. encode: embeds texts, (n, dim) float32 of unit length.

    tell: told what was found in each space. Raises AlignmentUseless where no space finds more than was found before.
    """
    ids = sorted(captions)
    if len(ids) > MAX_CAPTIONS:
        ids = sorted(np.random.default_rng(0).choice(ids, MAX_CAPTIONS, replace=False).tolist())
    wanted = normalise(encode([captions[one] for one in ids]) - packaged_centre())
    _, texts = np.unique([captions[one] for one in ids], return_inverse=True)
    folds = np.random.default_rng(0).integers(0, FOLDS, texts.max() + 1)[texts]  # equal captions are kept back together
    spaces = [space for space in index.spaces if space.complete and space.recipe.shows_whole]
    spaces.sort(key=lambda space: space.name != index.space().name)
    before, best = _before(index, ids), None
    for space in spaces[:MAX_SPACES]:
        known = _known(index, space, ids)
        before = known.recognised if before is None else before
        tried = max(_tried(known, wanted, texts, folds), key=lambda one: float(one[0].mean()))
        tell(f"{space.name}: of captions kept back, {tried[0].mean():.0%} find their image among {FIRST}")
        if best is None or tried[0].mean() > best[0].mean():
            best = (*tried, known)
    assert best is not None  # an index has a space, and its default is of no words
    found, strength, share, known = best
    if before is None:  # chance finds some too
        before = np.random.default_rng(0).standard_normal(wanted.shape).astype(np.float32)
    found_before = _found(normalise(before), wanted, texts, folds)
    gain = found.astype(np.float64) - found_before
    if gain.mean() <= SURE * gain.std() / np.sqrt(len(gain)):
        raise AlignmentUseless(
            f"By what others teach, {found.mean():.0%} of {len(ids):,} captions find their image among the first "
            f"{FIRST}; without it, {found_before.mean():.0%} do. That is not surely more, so nothing was changed. More "
            "captions may help, or such as say more."
        )
    return Alignment(
        space=known.space,
        head=AlignedHead(
            parts=known.parts,
            mean=known.whitened.mean(axis=0),
            map=_ridge(known.whitened, wanted, strength),
            recognition=known.recognition,
            share=share,
        ),
        captions=len(ids),
        strength=strength,
        share=share,
        found=float(found.mean()),
        found_before=float(found_before.mean()),
    )


def _before(index: Index, ids: Sequence[str]) -> Floats | None:
    """What the index's space of words holds of images, if it has one that was not learned from captions."""
    own = (space for space in index.spaces if space.complete and space.recipe.words is not None)
    space = next((space for space in own if space.name == "words"), None)
    return None if space is None else _stored(index, space, ids)


def _stored(index: Index, space: Space, ids: Sequence[str]) -> Floats:
    held = index.catalog.stored(space, ids)
    return np.stack([held[one] for one in ids])


def _known(index: Index, space: Space, ids: Sequence[str]) -> _Known:
    features = _stored(index, space, ids)
    everything = [record.id for record in records(index)]
    drawn = np.random.default_rng(0).permutation(len(everything))[:FIT_VECTORS]
    sample = _stored(index, space, [everything[number] for number in drawn])
    parts = fit(space, lambda most: sample[:most]).parts
    recognition = packaged_head(space.recipe)
    last = len(parts[-1].mean)
    recognised = None if recognition is None else recognition(normalise(features[:, -last:]))
    return _Known(
        space=space,
        parts=parts,
        recognition=recognition,
        whitened=whitened(parts, features),
        recognised=recognised,
    )


def _tried(
    known: _Known, wanted: Floats, texts: NDArray[np.intp], folds: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.bool_], float, float]]:
    """Which captions find their image, (n,), by a strength and a share, each learned from the other folds' captions."""
    for strength in STRENGTHS:
        mapped = np.empty_like(wanted)
        for fold in range(FOLDS):
            kept = folds == fold
            learned = known.whitened[~kept]
            found = _ridge(learned, wanted[~kept], strength)
            mapped[kept] = (known.whitened[kept] - learned.mean(axis=0)) @ found
        mapped = normalise(mapped)
        for share in SHARES if known.recognised is not None else (1.0,):
            both = mapped if known.recognised is None else (1 - share) * known.recognised + share * mapped
            yield _found(normalise(both), wanted, texts, folds), strength, share


def _found(images: Floats, wanted: Floats, texts: NDArray[np.intp], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each caption, (n,), finds an image of its own among the first of its fold."""
    found = np.zeros(len(texts), dtype=np.bool_)
    for fold in range(FOLDS):
        kept = np.flatnonzero(folds == fold)
        for start in range(0, len(kept), 1_000):
            rows = kept[start : start + 1_000]
            order = np.argsort(-(wanted[rows] @ images[kept].T), axis=1, kind="stable")[:, :FIRST]
            found[rows] = (texts[kept[order]] == texts[rows][:, None]).any(axis=1)
    return found


def _ridge(features: Floats, wanted: Floats, strength: float) -> Floats:
    """The map (d, dim) of a ridge regression from features (n, d), without their mean, to vectors (n, dim), by the
    smaller Gram matrix."""
    features = features - features.mean(axis=0)
    penalty = strength * float((features**2).sum(axis=1).mean())
    count, dim = features.shape
    if count < dim:
        products = features @ features.T
        products[np.diag_indices(count)] += penalty
        found = features.T @ np.linalg.solve(products, wanted)
    else:
        products = features.T @ features
        products[np.diag_indices(dim)] += penalty
        found = np.linalg.solve(products, features.T @ wanted)
    return found.astype(np.float32)
