"""The vocabulary: what goes into an index and what comes out of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.filters import Filter
from search.recipe import IDENTITY, Recipe, Storage, TransformSpec

JsonObject = Mapping[str, Any]
Vector = NDArray[np.float32]
Combine = Literal["sum", "best"]
AUTO: Literal["auto"] = "auto"
"""As `Query.max_fmr`: what 20 images of the index reach by chance, and at most .05, and `search.query.near_copies`;
without effect where no rate is known."""


def absolute(root: str, path: str) -> str:
    """A path below a root, written with `/`, as the operating system writes it. Unlike Path, it costs nothing."""
    return os.path.join(root, path.replace("/", os.sep))  # noqa: PTH118


@dataclass(frozen=True, kw_only=True)
class Location:
    """A path at which an image was seen: `path` is relative to `root`, with `/`, and unique under it."""

    root: str
    path: str
    mtime_ns: int
    size: int

    @property
    def absolute(self) -> str:
        """The file's absolute path as the operating system writes it."""
        return absolute(self.root, self.path)


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Facts that the file itself tells of an image. `width` and `height` are those of the upright image, in pixels.

    `format` is lower case (`jpeg`); `taken_at` is `YYYY-MM-DDTHH:MM:SS` in the camera's own time; `gps` is (latitude,
    longitude) in degrees; `phash` is a 64-bit perceptual hash as a signed integer.
    """

    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None = None
    camera: str | None = None
    gps: tuple[float, float] | None = None
    phash: int | None = None


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """One image to add: where it was seen, and its embedding in each space (space name -> `Recipe.shape` float32).

    Spaces that are not complete yet may be left out.
    """

    id: str
    facts: ImageFacts
    location: Location
    vectors: Mapping[str, Vector]
    labels: tuple[str, ...] = ()
    metadata: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image as the catalog knows it. `paths` are absolute: up to 1,000 of `path_count`, those that are there first.

    `missing`: the last build found none of its files.
    """

    id: str
    facts: ImageFacts
    paths: tuple[str, ...]
    path_count: int
    missing: bool
    labels: tuple[str, ...]
    metadata: JsonObject


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A file that could not be indexed, and why. It is not tried again while its size and time stay the same."""

    root: str
    path: str
    mtime_ns: int
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a space's embeddings are computed, chosen with the first images and kept by later builds and queries.

    `check` holds the quality gate's figures against fp32 on the user's own images, e.g. `{"images": 8,
    "min_cosine": 0.9993}`; it is empty where there was nothing to compare. `model` names the folder in the index's
    `models/` that holds an int8 encoder.
    """

    backend: str = "torch"
    precision: str = "fp32"
    check: JsonObject = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Space:
    """The embeddings of one recipe inside an index.

    `added_seq` is the change that added it, None where it came with the index. `complete_seq` is the change with which
    every image had a vector in it, as all later ones have; 0 where that was always so, None where it is not so yet.
    `storage` is how the catalog keeps its vectors, `transform` what generations make of them before they are searched.
    """

    name: str
    recipe: Recipe
    encoding: Encoding
    storage: Storage = "float32"
    transform: TransformSpec = IDENTITY
    added_seq: int | None = None
    complete_seq: int | None = 0

    @property
    def identity(self) -> tuple[str, int | None]:
        """Name and added_seq: they tell it from one of the same name that was dropped before."""
        return self.name, self.added_seq

    def same_as(self, other: Space) -> bool:
        """Whether another one would be searched alike: of the same recipe and transform."""
        return (self.recipe, self.transform) == (other.recipe, other.transform)

    @property
    def complete(self) -> bool:
        """Whether every image has a vector in it."""
        return self.complete_seq is not None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why an image is a hit: what one aspect of the query gave to its score.

    space: where the aspect was looked for; None: in the words of labels, metadata and names. score: the image's cosine
    there (with `best`, that of the aspect's nearest part), of words the share of them that it has, 0..1; None where it
    has no vector there. share: what that added to the hit's score, to which its reasons' shares add up.
    """

    space: str | None
    score: float | None
    share: float


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer. `score` is the cosine of the angle between query and image, -1..1; see `Query` of several aspects.

    fmr: the false-match rate of the score, the share of random pairs of different images of the index that have at
    least this score; None where it is not known: of mixed queries, and of spaces with few images.
    probability: how probable it is that the hit is alike, where labels of the index's own calibrated the space.
    copies: of a folded query, the ids of images that look the same, best first, the first of `copy_count`.
    why: a Reason for each aspect, and for words, in the query's order. box: in a space of regions, the part of the
    image that is nearest: x, y, width, height in pixels of the upright image. match: of a hit that was compared with
    the query's picture place by place, how alike they are in the box, -1..1.
    """

    id: str
    score: float
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    metadata: JsonObject
    width: int
    height: int
    path_count: int
    """How many paths the image has; `paths` holds up to 20 of them, those that are there first."""
    copies: tuple[str, ...] = ()
    copy_count: int = 0
    fmr: float | None = None
    probability: float | None = None
    why: tuple[Reason, ...] = ()
    box: tuple[int, int, int, int] | None = None
    match: float | None = None

    @property
    def path(self) -> str | None:
        """The first absolute path, or None where the image has none."""
        return self.paths[0] if self.paths else None


@dataclass(frozen=True, kw_only=True)
class QueryPart:
    """One weighted part of a query: the id of an indexed image, or an embedding.

    vector: (dim,) float32, or (v, dim): the embeddings of v views of one picture, turned say. of_words: it is that of
    words, whose cosines with images are not those of an image. searched: it is one as it is searched, (searched dim,),
    which goes through no transform any more, as feedback makes them. phash: the perceptual hash of its picture, if
    it is known.
    """

    id: str | None = None
    vector: Vector | None = None
    weight: float = 1.0
    of_words: bool = False
    searched: bool = False
    phash: int | None = None


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One side of a query: weighted parts in one space. A negative weight looks for what is unlike them.

    `space` None means the index's default, a Space that one and no other of its name.
    """

    parts: Sequence[QueryPart]
    space: str | Space | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query. Its vector is the normalised weighted sum of its parts' embeddings.

    Parts with several views make as many vectors, view by view; an image's score is the best of them. `aspects` instead
    of `parts` and `space` look in several spaces. combine `sum`: an image's score is the weighted mean of its cosines
    there, each weight divided by how widely that aspect's cosines spread in the index. `best`: the score is that of the
    positive part that is nearest, and an image that is nearer to a negative part is no hit; of a part's weight only the
    sign counts. That is a cosine where all parts are of one space and none or all of them words, else 0 by chance and 1
    at most.

    `filter` is a tree of `search.filters`; `space` None means the index's default, a Space that one and no other of its
    name. Images that are parts by id are not among the hits. fold: near-equal images are one hit, with its copies.
    max_fmr: hits have at most this false-match rate, 0..1; AUTO chooses it. words: looked for in labels, metadata and
    names too, also without parts; a score is then of the ranks in both (`search.query.fusion`). words_share: of the
    query, 0..1, where it has other parts as well. without: ids of images that are not to be hits.
    """

    parts: Sequence[QueryPart] = ()
    aspects: Sequence[Aspect] = ()
    combine: Combine = "sum"
    k: int = 10
    offset: int = 0
    fold: bool = False
    words: str | None = None
    words_share: float = 1.0
    min_score: float | None = None
    max_fmr: float | Literal["auto"] | None = None
    filter: Filter | None = None
    space: str | Space | None = None
    without: frozenset[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether it has one aspect, no filter and no words, and folds nothing: it takes a millisecond."""
        one = len(self.aspects) < 2 and self.combine == "sum"
        return one and self.filter is None and self.words is None and not self.fold


@dataclass(frozen=True, kw_only=True)
class SpaceInfo:
    """A space, how many images it holds, of how many in the index, and whether it is the default.

    `structure` is what the current generation says of how it is searched: `structure` (`exact` or `hnsw`), `distinct`
    (different vectors), `search` (a graph's parameters and measured recall, on average and in the worst tenth of the
    queries), `bytes_per_vector`, `build_seconds`; empty without a generation.
    """

    space: Space
    count: int
    images: int
    default: bool
    structure: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """An index at a glance. `seq` counts its changes.

    `generation` is what searches read, None before the first one; `current` the one that the catalog names, another one
    where that is damaged, gone, or just being loaded.
    """

    path: str
    images: int
    locations: int
    failures: int
    generation: str | None
    current: str | None
    seq: int
    delta: int
    spaces: tuple[SpaceInfo, ...]
