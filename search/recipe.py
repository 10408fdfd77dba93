"""The identity of an embedding: which model, which layers, which preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Pooling = Literal["cls", "mean", "gem", "cls+mean", "cls+gem", "mean+std", "pooler", "projection"]
"""How a layer's tokens become one vector; two that are joined by `+` each have unit length. `std` is the standard
deviation of each number over the patches, or places: with the mean, it tells a style. `projection`: as the model was
trained to compare it with a text."""
Reading = Literal[Pooling, "windows", "stretches", "tokens"]
"""What is read of a layer. `windows`: the means of parts of an image, see Regions. No space is stored as the others:
`stretches`, an image of other proportions, which queries of parts need; `tokens`, all of them, one after the other, to
compare images patch by patch."""
Geometry = Literal["crop", "square", "pad"]
Storage = Literal["float32", "float16"]
"""The type of a stored vector's numbers."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How RGB pixels become the encoder's input: one fixed size, one normalisation.

    `geometry`: `crop` resizes the shortest edge to `resize` and cuts the centre `size` x `size` out;
    `square` resizes to `resize` x `resize`, ignoring the aspect ratio, and cuts the same centre out where
    `size` is smaller; `pad` fits the whole image into `size` x `size` and fills the rest with the mean colour.
    `resample` is Pillow's filter number. `mean` and `std` apply to pixels scaled to 0..1.
    """

    geometry: Geometry
    resize: int
    size: int
    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Words:
    """How words are looked up in a space: both the text's vector and an image's are of a sentence encoder's kind.

    encoder: the sentence encoder's name, not part of the identity, as encoder_sha256 is. head_sha256: of the file that
    turns a network's features, `features` numbers, into such vectors.
    """

    encoder: str = field(compare=False)
    encoder_sha256: str
    head_sha256: str
    features: int

    @property
    def kept_as(self) -> str:
        """The name of the head's file among an index's models, where it was learned from the index's own captions."""
        return f"words-{self.head_sha256}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Parts of an image with a vector each, behind that of the whole image, which is the first.

    cells: into how many columns, and rows, the whole image is divided. windows: x, y, width, height of each part, in
    cells. channels: how many numbers of a vector each layer gives, in their order.
    """

    cells: int
    windows: tuple[tuple[int, int, int, int], ...]
    channels: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many vectors an image has."""
        return 1 + len(self.windows)

    def box(self, number: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Where the part with a vector lies: x, y, width, height in pixels of an upright image of this size, 1 wide and
        high at least. Raises IndexError for a vector that there is not."""
        if not 0 <= number < self.count:
            raise IndexError(f"an image has {self.count} vectors, none with the number {number}")
        if number == 0:
            return 0, 0, width, height
        x, y, across, down = self.windows[number - 1]
        left, top = x * width // self.cells, y * height // self.cells
        right, bottom = -(-(x + across) * width // self.cells), -(-(y + down) * height // self.cells)
        return left, top, right - left, bottom - top

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Regions:
        """Rebuild from a recipe's JSON."""
        windows = tuple((x, y, width, height) for x, y, width, height in data["windows"])
        return cls(cells=data["cells"], windows=windows, channels=tuple(data["channels"]))


def squares(cells: int, side: int, begins: tuple[int, ...], channels: tuple[int, ...]) -> Regions:
    """Squares of so many cells a side, which begin at each of these cells across and down."""
    windows = tuple((x, y, side, side) for y in begins for x in begins)
    return Regions(cells=cells, windows=windows, channels=channels)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The identity that two embeddings must share to be comparable. Equal recipes give equal spaces.

    `layers` are resolved, non-negative block numbers (0 = patch + position embedding). Several layers are each
    normalised, concatenated in this order, and normalised again: `dim` counts the result. `final_norm` says, for
    each layer, whether the model's final norm was applied. `model` tells where the weights were found and is not
    part of the identity: `weights_sha256` is. `config_sha256` is the hash of what the model's configuration changes
    about embeddings of the same weights, None in indexes made before it was kept: those may match any configuration,
    so that equality leaves it out. Whoever loads a model compares it. `companion` is the recipe of a second network on
    the same pixels, but for their mean and std: its embedding, of unit length, follows the model's own, both are
    normalised together, and `dim` counts it too. `words` is set where an image's vector says which words fit it.
    `regions` is set where an image has several vectors, of `dim` numbers each.
    `text_sha256` is set where texts are embedded into the space by the text tower of the same weights: the hash of what
    their vectors depend on besides, the tokenizer and the tower's configuration.
    """

    model: str = field(compare=False)
    weights_sha256: str
    layers: tuple[int, ...]
    pooling: Reading
    final_norm: tuple[bool, ...]
    preprocessing: Preprocessing
    dim: int
    config_sha256: str | None = field(default=None, compare=False)
    companion: Recipe | None = None
    words: Words | None = None
    regions: Regions | None = None
    text_sha256: str | None = None

    @property
    def count(self) -> int:
        """How many vectors an image has."""
        return 1 if self.regions is None else self.regions.count

    @property
    def shows_whole(self) -> bool:
        """Whether an image has one vector, of how it looks as a whole: not so in spaces of words, and of regions."""
        return self.words is None and self.regions is None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what an image has: (dim,), or (count, dim) where it has several vectors."""
        return (self.dim,) if self.regions is None else (self.count, self.dim)

    @property
    def knows_words(self) -> bool:
        """Whether a text can be looked up in the space."""
        return self.words is not None or self.text_sha256 is not None

    @property
    def parts(self) -> tuple[int, ...]:
        """How many numbers each network gives, in their order: the model, and its companion if there is one. Of parts
        of images, each layer."""
        if self.regions is not None:
            return self.regions.channels
        dim = self.source.dim
        return (dim,) if self.companion is None else (dim - self.companion.dim, self.companion.dim)

    @property
    def source(self) -> Recipe:
        """The recipe of the features that tell words; of all other spaces, this one."""
        return self if self.words is None else replace(self, words=None, dim=self.words.features)

    @property
    def own(self) -> Recipe:
        """The recipe of the model's own part, without its companion, and of its features where these tell words."""
        return self.source if self.companion is None else replace(self.source, companion=None, dim=self.parts[0])

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy, without what is about texts, parts or a companion where there is none;
        `from_json` is its inverse."""
        data = asdict(self)
        if self.text_sha256 is None:
            del data["text_sha256"]
        if self.companion is None:
            del data["companion"]
        else:
            for key in ("words", "text_sha256", "regions"):  # which only a space of its own has
                del data["companion"][key]
        if self.words is None:
            del data["words"]
        if self.regions is None:
            del data["regions"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Rebuild a recipe from `to_json`'s answer, as stored in a catalog or manifest."""
        pre, regions = data["preprocessing"], data.get("regions")
        return cls(
            model=data["model"],
            weights_sha256=data["weights_sha256"],
            layers=tuple(data["layers"]),
            pooling=data["pooling"],
            final_norm=tuple(data["final_norm"]),
            preprocessing=Preprocessing(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])}),
            dim=data["dim"],
            config_sha256=data.get("config_sha256"),
            companion=None if data.get("companion") is None else cls.from_json(data["companion"]),
            words=None if data.get("words") is None else Words(**data["words"]),
            regions=None if regions is None else Regions.from_json(regions),
            text_sha256=data.get("text_sha256"),
        )


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """How a space's stored vectors become searched ones; each generation fits it to its own images.

    kind: its name in `search.generations.transform.KINDS`. floor, companion_weight and max_dim are the figures of
    `search.generations.whitening`.
    """

    kind: str = "identity"
    floor: float = 0.03
    companion_weight: float = 1.7
    max_dim: int = 512

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy, without what an identity does not need; `from_json` is its inverse."""
        return {"kind": self.kind} if self == IDENTITY else asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransformSpec:
        """Rebuild a transform's figures from `to_json`'s answer."""
        return cls(**data)


IDENTITY = TransformSpec()
"""Vectors are searched as they are stored."""


def space_name(layers: tuple[int, ...], pooling: Reading, final_norm: tuple[bool, ...], last: int) -> str:
    """`layer11`, `layer7+11`, `layer7-11`, `layer11-mean`; `-norm` or `-nonorm` after it where the final norm is not
    the default.

    Three layers or more in a row are named by the first and the last. `last` is the model's deepest layer: by default
    the final norm is applied there and nowhere else.
    """
    in_a_row = len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1))
    name = f"layer{layers[0]}-{layers[-1]}" if in_a_row else "layer" + "+".join(str(layer) for layer in layers)
    if pooling != "cls":
        name += f"-{pooling}"
    if final_norm != tuple(layer == last for layer in layers):
        name += "-norm" if all(final_norm) else "-nonorm"
    return name
