"""The identity of an embedding: which model, which layers, which preprocessing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Pooling = Literal["cls", "mean", "pooler"]
Geometry = Literal["crop", "square", "pad"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "pooler")


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
class Recipe:
    """The identity that two embeddings must share to be comparable. Equal recipes give equal spaces.

    `layers` are resolved, non-negative block numbers (0 = patch + position embedding). Several layers are each
    normalised, concatenated in this order, and normalised again: `dim` counts the result. `final_norm` says, for
    each layer, whether the model's final norm was applied. `model` tells where the weights were found and is not
    part of the identity: `weights_sha256` is. `config_sha256` is the hash of what the model's configuration changes
    about embeddings of the same weights, None in indexes made before it was kept: those may match any configuration,
    so that equality leaves it out. Whoever loads a model compares it.
    """

    model: str = field(compare=False)
    weights_sha256: str
    layers: tuple[int, ...]
    pooling: Pooling
    final_norm: tuple[bool, ...]
    preprocessing: Preprocessing
    dim: int
    config_sha256: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable copy; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Rebuild a recipe from `to_json`'s answer, as stored in a catalog or manifest."""
        pre = data["preprocessing"]
        return cls(
            model=data["model"],
            weights_sha256=data["weights_sha256"],
            layers=tuple(data["layers"]),
            pooling=data["pooling"],
            final_norm=tuple(data["final_norm"]),
            preprocessing=Preprocessing(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])}),
            dim=data["dim"],
            config_sha256=data.get("config_sha256"),
        )


def space_name(layers: tuple[int, ...], pooling: Pooling, final_norm: tuple[bool, ...], last: int) -> str:
    """`layer11`, `layer7+11`, `layer11-mean`; `-norm` or `-nonorm` where the final norm is not the default.

    `last` is the model's deepest layer: by default the final norm is applied there and nowhere else.
    """
    name = "layer" + "+".join(str(layer) for layer in layers)
    if pooling != "cls":
        name += f"-{pooling}"
    if final_norm != tuple(layer == last for layer in layers):
        name += "-norm" if all(final_norm) else "-nonorm"
    return name
