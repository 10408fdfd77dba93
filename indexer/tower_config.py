"""The configuration of a checkpoint's image tower: config.json, read without torch, and refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from indexer.errors import ModelUnsupported

_VIT = {"layer_norm_eps": 1e-12, "patch_size": 16, "pooler_act": "tanh", "qkv_bias": True}
_DINOV2 = {"layer_norm_eps": 1e-6, "patch_size": 14, "qkv_bias": True}
_CLIP = {"layer_norm_eps": 1e-5, "patch_size": 32, "hidden_act": "quick_gelu"}
_SIGLIP = {"layer_norm_eps": 1e-6, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh"}
_ALL = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "hidden_act": "gelu",
}
_EFFICIENTNET = {
    "hidden_size": 1280,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "relu6",
    "layer_norm_eps": 1e-3,
}
"""Of a convolutional network in a transformer's words: its one layer is what it pools, its patches are its strides."""
CONVOLUTIONAL = ("efficientnet_lite",)
"""The `model_type` of networks that have no patches."""
FAMILY_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit": {**_ALL, **_VIT},
        "deit": {**_ALL, **_VIT},
        "dinov2": {**_ALL, **_DINOV2},
        "dinov2_with_registers": {**_ALL, **_DINOV2, "patch_size": 16},
        "clip": {**_ALL, **_CLIP},
        "clip_vision_model": {**_ALL, **_CLIP},
        "metaclip_2": {**_ALL, **_CLIP},
        "chinese_clip": {**_ALL, **_CLIP},
        "altclip": {**_ALL, **_CLIP},
        "siglip": {**_ALL, **_SIGLIP},
        "siglip_vision_model": {**_ALL, **_SIGLIP},
        "tipsv2": {**_ALL, **_DINOV2, "image_size": 448},
        "efficientnet_lite": _EFFICIENTNET,
    }
)
"""The values for keys that config.json leaves out, by `model_type`, of all that we run: those of transformers, where it
has the model."""


_CLIPS = ("clip", "metaclip_2", "chinese_clip", "altclip")
TWO_TOWERS = (*_CLIPS, "siglip", "tipsv2")
"""The `model_type` of checkpoints that have a tower for images and one for texts."""


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """An image tower's configuration, every default filled in; sizes in pixels, of squares.

    `qkv_bias`, and `pooler_act`, the pooling head's activation function: None where the family has no such choice.
    """

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    hidden_act: str
    layer_norm_eps: float
    qkv_bias: bool | None = None
    pooler_act: str | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of what changes embeddings although every weight keeps its name and shape.

        Another `hidden_size`, say, does not fit the weights, and is refused when they are loaded. A tower is the same
        by itself and inside a model of images and words.
        """
        function = {
            "family": self.model_type.removesuffix("_vision_model"),
            "num_attention_heads": self.num_attention_heads,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "qkv_bias": self.qkv_bias,
            "pooler_act": self.pooler_act,
        }
        return hashlib.sha256(json.dumps(function, sort_keys=True).encode()).hexdigest()


def read_tower_config(folder: Path, name: str) -> TowerConfig:
    """Read what a checkpoint's config.json says of its image tower. name: what the user calls the model.

    Raises ModelUnsupported where it is missing, unreadable, of a family that we do not run, or where a value cannot be.
    """
    config, model_type = _read(folder, name)
    tower = _part(config, model_type, "vision_config", name) if model_type in TWO_TOWERS else config
    return _Values(tower, FAMILY_DEFAULTS[model_type], name).config(model_type)


def read_text_config(folder: Path, name: str) -> Mapping[str, Any]:
    """The part of a config.json that is about the text tower, as it is written. Raises ModelUnsupported."""
    config, model_type = _read(folder, name)
    return _part(config, model_type, "text_config", name)


def _read(folder: Path, name: str) -> tuple[Mapping[str, Any], str]:
    if not (folder / "config.json").is_file():
        raise ModelUnsupported(f"{name} has no config.json: it is not a Hugging Face checkpoint of an image model.")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        model_type = config.get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelUnsupported(f"The config.json of {name} cannot be read: it is not a JSON object.") from error
    if not isinstance(model_type, str) or model_type not in FAMILY_DEFAULTS:
        found = f"is of type {model_type}" if isinstance(model_type, str) else "names no model_type in its config.json"
        raise ModelUnsupported(
            f"{name} {found}. It must be a vision transformer of one of these types: {', '.join(FAMILY_DEFAULTS)}."
        )
    return config, model_type


def _part(config: Mapping[str, Any], model_type: str, key: str, name: str) -> Mapping[str, Any]:
    """The part of a configuration that is about one of two towers."""
    old = config.get(f"{key}_dict") if model_type in _CLIPS else None
    tower = config.get(key, {}) if old is None else old  # as transformers does
    if not isinstance(tower, dict):
        raise ModelUnsupported(f"The config.json of {name} cannot be used: its {key} is not a JSON object.")
    return tower


class _Values:
    """The values of one configuration, checked as they are read."""

    def __init__(self, tower: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> None:
        self._known = defaults
        self._values = {**defaults, **tower}
        self._name = name

    def config(self, model_type: str) -> TowerConfig:
        """All of them. Raises ModelUnsupported."""
        if self._values.get("quantization_config") is not None:
            raise self._refused("its weights are quantised, and only plain ones are read; get the original checkpoint")
        for key in ("intermediate_size", "mlp_ratio"):
            if key in self._values and not (key == "mlp_ratio" and model_type == "tipsv2"):  # whose largest has 3.7362
                self._count(key)
        width, heads = self._count("hidden_size"), self._count("num_attention_heads")
        if width % heads:
            raise self._refused(f"hidden_size {width} cannot be shared by {heads} attention heads")
        image, patch = self._side("image_size"), self._side("patch_size")
        if patch > image:
            raise self._refused(f"its patches of {patch} pixels are larger than its images of {image}")
        if (channels := self._count("num_channels")) != 3:
            raise self._refused(f"num_channels is {channels}, and images have the three of RGB")
        return TowerConfig(
            model_type=model_type,
            hidden_size=width,
            num_hidden_layers=self._count("num_hidden_layers"),
            num_attention_heads=heads,
            num_channels=channels,
            image_size=image,
            patch_size=patch,
            hidden_act=self._word("hidden_act"),
            layer_norm_eps=self._epsilon(),
            qkv_bias=self._flag("qkv_bias") if "qkv_bias" in self._known else None,
            pooler_act=self._word("pooler_act") if "pooler_act" in self._known else None,
        )

    def _count(self, key: str) -> int:
        value = self._values[key]
        if type(value) is not int or value < 1:
            raise self._refused(f"{key} must be a whole number above 0, not {_shown(value)}")
        return value

    def _side(self, key: str) -> int:
        value = self._values[key]
        if not isinstance(value, list):
            return self._count(key)
        if len(value) != 2 or any(type(side) is not int or side < 1 for side in value):
            raise self._refused(f"{key} must be one or two whole numbers above 0, not {_shown(value)}")
        if value[0] != value[1]:
            what = "patches" if key == "patch_size" else "input images"
            raise self._refused(f"only square {what} are supported, and {key} is {value[0]} x {value[1]}")
        return int(value[0])

    def _word(self, key: str) -> str:
        value = self._values[key]
        if not isinstance(value, str):
            raise self._refused(f"{key} must be the name of an activation function, not {_shown(value)}")
        return value

    def _flag(self, key: str) -> bool:
        value = self._values[key]
        if not isinstance(value, bool):
            raise self._refused(f"{key} must be true or false, not {_shown(value)}")
        return value

    def _epsilon(self) -> float:
        value = self._values["layer_norm_eps"]
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise self._refused(f"layer_norm_eps must be a number of 0 or more, not {_shown(value)}")
        return float(value)

    def _refused(self, why: str) -> ModelUnsupported:
        return ModelUnsupported(f"The config.json of {self._name} cannot be used: {why}.")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
