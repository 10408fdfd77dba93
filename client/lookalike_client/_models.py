"""Values of queries and answers: parts, hits, images, indexes. All are frozen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, overload

from lookalike_client._images import ImageInput
from lookalike_client._notebook import Pictures, gallery

_SHOWN = 20
_NAME_WIDTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One weighted part of a query: exactly one of an image, words, the id of an indexed image, or an embedding of the
    space.

    text: what the images show, in any language. vector: (dim,) numbers; searched: it is one that feedback answered
    with. weight: may be negative (less like this). box: x, y, width, height in pixels of the upright image; only this
    part of `image` is looked at. Raises ValueError where it has none or two of the four, or a box and no image.
    """

    image: ImageInput | None = None
    text: str | None = None
    id: str | None = None
    vector: Sequence[float] | None = None
    weight: float = 1.0
    box: tuple[float, float, float, float] | None = None
    searched: bool = False

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.image, self.text, self.id, self.vector)) != 1:
            raise ValueError("A part has exactly one of image, text, id and vector.")
        if self.box is not None and self.image is None:
            raise ValueError("Only a part with an image has a box.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """Weighted parts that are looked for in one space. space: None for the index's default, or, of parts with words,
    the one that knows them. weight: how much it counts beside the other aspects; negative: less like this.
    """

    parts: Sequence[Part]
    space: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What one aspect of a search gave to a hit. `space`: where it was looked for; None: in labels, metadata and names.
    `score`: the cosine there; of words, how much of them the image has, 0..1; None where it has no vector there.
    `share`: what that added to the hit's score.
    """

    space: str | None
    score: float | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer. `score` is the cosine, -1..1. `fmr` is its false-match rate: the share of random pairs of different
    images with at least this score; `probability`: how probable it is that the hit is alike, where labels calibrated
    the space. Both are None where the server knows none. `path` is the first of `paths`, absolute, on
    the server; None where there is none. `paths` are up to 20 of `path_count`. `width` and `height` are those of
    the upright image, in pixels.

    `copies`: of a folded search, the ids of images that look the same, best first, the first 100 of `copy_count`.
    `why`: a Reason for each aspect of the search, in its order, and for its words.
    `box`: in a space of regions, the nearest part of the image: x, y, width, height in pixels of the upright image.
    `match`: of a reranked hit, how alike the searched picture and the box are, -1..1.
    """

    id: str
    score: float
    path: str | None
    paths: tuple[str, ...]
    path_count: int
    labels: tuple[str, ...]
    metadata: Mapping[str, Any] = field(hash=False)
    width: int
    height: int
    copies: tuple[str, ...] = ()
    copy_count: int = 0
    fmr: float | None = None
    probability: float | None = None
    why: tuple[Reason, ...] = ()
    box: tuple[int, int, int, int] | None = None
    match: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SearchResult(Sequence[Hit]):
    """Hits by falling score, ties by id: a sequence that cannot be changed; a slice of it is one too.

    `space` is where the search took place. `took_ms` says where the server's time went, in milliseconds: `decode`,
    `encode`, `search` and `total`.
    """

    hits: tuple[Hit, ...]
    space: str
    took_ms: Mapping[str, float] = field(compare=False)
    _pictures: Pictures | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, position: int) -> Hit: ...

    @overload
    def __getitem__(self, position: slice) -> "SearchResult": ...

    def __getitem__(self, position: int | slice) -> "Hit | SearchResult":
        if isinstance(position, slice):
            return replace(self, hits=self.hits[position])
        return self.hits[position]

    def __repr__(self) -> str:
        """A table: score, file name, labels; the first 20 hits."""
        count = len(self.hits)
        title = f"SearchResult: {count} {'hit' if count == 1 else 'hits'} in {_printable(self.space)}"
        rows = [(f"{hit.score:6.3f}", _file_name(hit), _printable(", ".join(hit.labels))) for hit in self.hits[:_SHOWN]]
        width = max((len(name) for _, name, _ in rows), default=0)
        lines = [f"{score}  {name:<{width}}  {labels}".rstrip() for score, name, labels in rows]
        more = [f"... {count - _SHOWN} more"] if count > _SHOWN else []
        return "\n".join([title, *lines, *more])

    def _repr_html_(self) -> str | None:
        """HTML for a notebook: the first 20 hits' thumbnails, fetched now. None where nobody knows the server."""
        return None if self._pictures is None else gallery(self.hits[:_SHOWN], _file_name, self._pictures)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each hit; every key of the metadata is a column, `metadata.price`.

        Raises ImportError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("This needs pandas: pip install pandas") from error
        facts = ["score", *(one.name for one in fields(Hit) if one.name not in ("score", "paths", "metadata", "why"))]
        rows = [
            {name: getattr(hit, name) for name in facts} | {f"metadata.{key}": one for key, one in hit.metadata.items()}
            for hit in self.hits
        ]
        return pandas.DataFrame(rows, columns=None if rows else facts)

    def to_json(self) -> dict[str, Any]:
        """The answer in the form the server gave it: `{"hits": [...], "space", "took_ms"}`, ready for `json.dumps`."""
        hits = [
            {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(hit).items()} for hit in self
        ]
        return {"hits": hits, "space": self.space, "took_ms": dict(self.took_ms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An indexed image. `id` is the SHA-256 of its file, 64 hex digits; `bytes` the file's size; `format` is lower case
    (`jpeg`); `taken_at` is `YYYY-MM-DDTHH:MM:SS` in the camera's own time; `gps` is (latitude, longitude) in degrees.
    `paths` are up to 1,000 of `path_count`. `missing`: the last build found none of its files, so that it is not a hit.
    """

    id: str
    path: str | None
    paths: tuple[str, ...]
    path_count: int
    labels: tuple[str, ...]
    metadata: Mapping[str, Any] = field(hash=False)
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None
    camera: str | None
    gps: tuple[float, float] | None
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceInfo:
    """A space of an index: its name, the length of its embeddings, and the recipe they are made by.

    `count` of the index's `images` have a vector in it; it is searched as far as it goes. `complete`: all have.
    `filling`: the server is giving the rest theirs now. `default`: where searches look that name no space.
    `transform`: what its vectors go through before they are searched.
    """

    name: str
    dim: int
    count: int
    images: int
    complete: bool
    filling: bool
    default: bool
    recipe: Mapping[str, Any] = field(hash=False)
    transform: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """A served index: how many images it holds, its generation (None before the first), its spaces; one of these
    is the default.
    """

    name: str
    count: int
    generation: str | None
    spaces: tuple[SpaceInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPoint:
    """An image on a map. `x` and `y` are -1..1, rightwards and upwards. `cluster` is its place in the map's `clusters`;
    None where it is in none. `isolation` is 1 - its mean cosine to its ten nearest images.
    """

    id: str
    x: float
    y: float
    cluster: int | None
    isolation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCluster:
    """Images that lie together on a map: their name, how many, their middle, and the ids of typical ones, the medoid
    first: at most five, without those that were removed since.
    """

    name: str
    size: int
    x: float
    y: float
    typical: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMap:
    """A space in two dimensions. `generation` is the index's when the map was made; `labels` is what clusters are named
    by. `clusters`: the largest first. `outliers`: ids of images like no others, the most isolated first.
    """

    space: str
    generation: str | None
    seed: int
    labels: str
    clusters: tuple[MapCluster, ...]
    outliers: tuple[str, ...]
    points: tuple[MapPoint, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFile:
    """A file of a group of duplicates: the id of its image, and its path, the only one of `paths`. `score`: how surely
    it belongs to the group, 0..1. `keep`: False where it is extra. `why` it is kept; None where no rule says.
    """

    id: str
    paths: tuple[str, ...]
    score: float
    keep: bool
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup:
    """Files that are duplicates of one another. `tier`: `bytes`, `pixels`, `photo`, `moment` or `alike`.

    `images`: an entry for each of up to 200 files, of `file_count`. `found_at`: when `lookalike dups` found the group,
    ISO 8601, UTC; None: as it is now.
    """

    tier: str
    images: tuple[DuplicateFile, ...]
    file_count: int
    found_at: str | None = None


def _file_name(hit: Hit) -> str:
    name = hit.id[:12] if hit.path is None else re.split(r"[/\\]", hit.path)[-1]  # the server may be a Windows machine
    name = _printable(name)
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."


def _printable(text: str) -> str:
    """File names are other people's: none may move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)
