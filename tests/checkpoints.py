"""Tiny checkpoints with random but fixed weights, one of each family, saved as Hugging Face saves its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIZE, PATCH, LAYERS, HEADS, DIM = 32, 8, 3, 2, 24
"""Every tiny tower: 32 px, 16 patches, 3 blocks, 24 wide."""

_TOWER: dict[str, Any] = {
    "hidden_size": DIM,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": SIZE,
    "patch_size": PATCH,
}
_TOWER_MLP = {**_TOWER, "intermediate_size": 48}
_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

FAMILIES = (
    "vit",
    "vit-classifier",
    "deit",
    "dinov2",
    "dinov2-registers",
    "clip-vision",
    "clip",
    "siglip-vision",
    "siglip",
)


def _model(family: str, width: int) -> Any:
    t = transformers
    if family == "dinov2" and width != DIM:
        return t.Dinov2Model(t.Dinov2Config(**{**_TOWER, "hidden_size": width}, mlp_ratio=2))
    match family:
        case "vit":
            return t.ViTModel(t.ViTConfig(**_TOWER_MLP))
        case "vit-classifier":
            return t.ViTForImageClassification(t.ViTConfig(**_TOWER_MLP, num_labels=5))
        case "deit":
            return t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**_TOWER_MLP, num_labels=5))
        case "dinov2":
            return t.Dinov2Model(t.Dinov2Config(**{**_TOWER, "image_size": 48}, mlp_ratio=2))  # as its big ones
        case "dinov2-registers":
            config = t.Dinov2WithRegistersConfig(**_TOWER, mlp_ratio=2, num_register_tokens=3)
            return t.Dinov2WithRegistersModel(config)
        case "clip-vision":
            return t.CLIPVisionModel(t.CLIPVisionConfig(**_TOWER_MLP))
        case "clip":
            return t.CLIPModel(t.CLIPConfig(text_config=_TEXT, vision_config=_TOWER_MLP, projection_dim=8))
        case "siglip-vision":
            return t.SiglipVisionModel(t.SiglipVisionConfig(**_TOWER_MLP))
        case "siglip":
            return t.SiglipModel(t.SiglipConfig(text_config=_TEXT, vision_config=_TOWER_MLP))
    raise ValueError(family)


def _processor(family: str) -> Any:
    t, square = transformers, {"height": SIZE, "width": SIZE}
    if family.startswith("vit"):
        return t.ViTImageProcessorPil(size=square)
    if family == "deit":
        return t.DeiTImageProcessorPil(size={"height": 40, "width": 40}, crop_size=square)
    if family.startswith("siglip"):
        return t.SiglipImageProcessorPil(size=square)
    kind = t.CLIPImageProcessorPil if family.startswith("clip") else t.BitImageProcessorPil
    return kind(size={"shortest_edge": 40}, crop_size=square)


def save(family: str, folder: Path, *, seed: int = 0, width: int = DIM, **arguments: Any) -> Path:
    """Save a tiny checkpoint of one of FAMILIES; `arguments` go to `save_pretrained`. Returns `folder`.

    width: only a DINOv2 can have another than DIM.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(family, width)
        with (
            torch.no_grad()
        ):  # a random model's norms and layer scales are all ones, its biases zero: nothing to mix up
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(folder, **arguments)
    _processor(family).save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def save_vit(folder: Path) -> Path:
    """Save the tiny ViT, for tests to which any model will do. Returns `folder`."""
    return save("vit", folder)
