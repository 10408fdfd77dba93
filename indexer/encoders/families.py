"""The model families we run: where each keeps its embeddings, blocks, final norm and pooling head."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from indexer.encoders.spaces import Offer
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles
from indexer.tower_config import TWO_TOWERS
from search.recipe import Pooling, squares

MAX_ERROR_CHARACTERS = 300
TEXT_STUB = 8
"""Words of a text tower that is created only because its class has it."""
STATISTICS_CHANNELS = 40 + 80
"""Channels of the convolutional network whose means and deviations its `mean+std` holds."""
WINDOWS = squares(4, 2, (0, 1, 2), (112, 320))
"""Parts of an image of which its `windows` holds the means: nine squares of half its sides, by two of its blocks."""


@dataclass(frozen=True, kw_only=True)
class BlockNames:
    """Attributes of a transformer block. `out` is that of its attention; `scales`, layer scale's two modules."""

    norm1: str
    attention: str
    out: str
    norm2: str
    scales: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to take one of transformers' image towers apart.

    model_class: its class in `transformers`. layer0: normalised pixels (n, 3, size, size) to the tokens before
    `first_norm` (n, tokens, dim), an affine map with the patch tokens last. projection: the patch convolution in it.
    blocks: the transformer blocks. first_norm, final_norm, pooler: attributes of the model. prefix: tokens before the
    patch tokens (CLS, distillation), registers aside. pooler_weight: a tensor that is in a checkpoint exactly if its
    pooler was trained. projection_weight: of a model with a text tower, the matrix that brings the CLS token among the
    texts. both_towers: its class is that of both towers.
    """

    model_class: str
    layer0: Callable[[Any, Tensor], Tensor]
    projection: Callable[[Any], nn.Conv2d]
    blocks: Callable[[Any], nn.ModuleList]
    block: BlockNames
    final_norm: str
    prefix: int
    first_norm: str | None = None
    pooler: str | None = None
    pooler_weight: str | None = None
    has_cls: bool = True
    projection_weight: str | None = None
    both_towers: bool = False


def _interpolated(model: Any, pixels: Tensor) -> Tensor:
    tokens: Tensor = model.embeddings(pixels, interpolate_pos_encoding=True)  # a no-op at the checkpoint's own size
    return tokens


_VIT_BLOCK = BlockNames(norm1="layernorm_before", attention="attention", out="o_proj", norm2="layernorm_after")
_CLIP_BLOCK = BlockNames(norm1="layer_norm1", attention="self_attn", out="out_proj", norm2="layer_norm2")
_DINOV2_BLOCK = BlockNames(
    norm1="norm1", attention="attention", out="o_proj", norm2="norm2", scales=("layer_scale1", "layer_scale2")
)
_VIT = Family(
    model_class="ViTModel",
    layer0=_interpolated,
    projection=lambda model: model.embeddings.patch_embeddings.projection,
    blocks=lambda model: model.layers,
    block=_VIT_BLOCK,
    final_norm="layernorm",
    prefix=1,
    pooler="pooler",
    pooler_weight="pooler.dense.weight",
)
_DEIT = replace(_VIT, model_class="DeiTModel", prefix=2)
_DINOV2 = Family(
    model_class="Dinov2Model",
    layer0=lambda model, pixels: model.embeddings(pixels),
    projection=lambda model: model.embeddings.patch_embeddings.projection,
    blocks=lambda model: model.encoder.layer,
    block=_DINOV2_BLOCK,
    final_norm="layernorm",
    prefix=1,
)
_DINOV2_WITH_REGISTERS = replace(_DINOV2, model_class="Dinov2WithRegistersModel")  # its config counts the registers
_CLIP = Family(
    model_class="CLIPVisionModel",
    layer0=_interpolated,
    projection=lambda model: model.embeddings.patch_embedding,
    blocks=lambda model: model.encoder.layers,
    block=_CLIP_BLOCK,
    first_norm="pre_layrnorm",
    final_norm="post_layernorm",
    prefix=1,
)
_SIGLIP = Family(
    model_class="SiglipVisionModel",
    layer0=_interpolated,
    projection=lambda model: model.embeddings.patch_embedding,
    blocks=lambda model: model.encoder.layers,
    block=_CLIP_BLOCK,
    final_norm="post_layernorm",
    prefix=0,
    pooler="head",
    pooler_weight="head.probe",
    has_cls=False,
)
_CLIP_OF_TEXTS = replace(_CLIP, projection_weight="visual_projection.weight")
_TIPSV2 = replace(_DINOV2_WITH_REGISTERS, model_class="Tipsv2VisionModel")
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "vit": _VIT,
        "deit": _DEIT,
        "dinov2": _DINOV2,
        "dinov2_with_registers": _DINOV2_WITH_REGISTERS,
        "clip": _CLIP_OF_TEXTS,
        "clip_vision_model": _CLIP,
        "metaclip_2": replace(_CLIP_OF_TEXTS, model_class="MetaClip2VisionModel"),
        "chinese_clip": replace(_CLIP_OF_TEXTS, model_class="ChineseCLIPVisionModel"),
        # transformers renames `layer` to `layers` in all of it, which is right for the checkpoint as a whole alone
        "altclip": replace(_CLIP_OF_TEXTS, model_class="AltCLIPModel", both_towers=True),
        "siglip": _SIGLIP,
        "siglip_vision_model": _SIGLIP,
        "tipsv2": _TIPSV2,
    }
)
"""By `model_type` of a checkpoint's config.json."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose weights are not loaded yet. `config` is that of its image tower; `family` is None for a
    network that transformers does not have."""

    files: ModelFiles
    family: Family | None
    config: Any
    offer: Offer

    @property
    def prefix(self) -> int:
        """Tokens before the patch tokens."""
        assert self.family is not None
        return self.family.prefix + int(getattr(self.config, "num_register_tokens", 0))

    def dim(self, pooling: Pooling) -> int:
        """Width of one layer's embedding."""
        if pooling == "projection" and (matrix := self.projection()) is not None:
            return int(matrix.shape[0])
        if self.family is None and pooling == "mean+std":
            return 2 * STATISTICS_CHANNELS
        pooled = getattr(self.config, "pooler_output_size", None) if pooling == "pooler" else None
        return int(pooled or self.config.hidden_size) * len(pooling.split("+"))

    def projection(self) -> Tensor | None:
        """The matrix (dim, hidden) float32 that brings the CLS token among the texts; None where none is needed."""
        assert self.family is not None
        return None if self.family.projection_weight is None else _tensor(self.files, self.family.projection_weight)


def open_checkpoint(files: ModelFiles) -> Checkpoint:
    """A checkpoint with what it offers, its weights not loaded yet. Raises ModelUnsupported where it is unreadable."""
    if files.config.model_type not in FAMILIES:
        offer = Offer(model=files.name, first=1, last=files.config.num_hidden_layers, poolings=("mean", "mean+std"))
        return Checkpoint(files=files, family=None, config=files.config, offer=offer)
    family, config = FAMILIES[files.config.model_type], _tower_config(files)
    poolings: list[Pooling] = ["mean", "gem", "mean+std"]
    if family.has_cls:
        poolings = ["cls", "mean", "gem", "cls+mean", "cls+gem", "mean+std"]
    stored = list(tensor_names(files))
    if family.pooler_weight and any(name.endswith(family.pooler_weight) for name in stored):
        poolings.insert(len(poolings) if family.has_cls else 0, "pooler")  # without a CLS token, the head is the best
    if is_of_texts(files) and (
        family.projection_weight in stored if family.projection_weight else family.has_cls or "pooler" in poolings
    ):
        poolings.append("projection")
    offer = Offer(model=files.name, last=config.num_hidden_layers, poolings=tuple(poolings))
    return Checkpoint(files=files, family=family, config=config, offer=offer)


def load_tower(checkpoint: Checkpoint, *, deepest: int, with_pooler: bool) -> Any:
    """Load the image tower in float32 up to block `deepest`: what lies behind it is never created.

    Raises ModelUnsupported where the checkpoint lacks a weight or has one of another shape, so that nothing randomly
    initialised is ever used, and where a weight of the part that is run would be left out.
    """
    family, config = checkpoint.family, checkpoint.config
    assert family is not None
    config.num_hidden_layers = deepest
    whole = config
    if family.both_towers:
        whole = open_config(checkpoint.files)
        whole.vision_config, whole.text_config.num_hidden_layers, whole.text_config.vocab_size = config, 0, TEXT_STUB
    arguments: dict[str, Any] = {}
    if family.pooler == "pooler":
        arguments["add_pooling_layer"] = with_pooler
    elif family.pooler == "head":
        config.vision_use_head = with_pooler
    model, report = open_model(checkpoint.files, family.model_class, whole, "weights", arguments)
    _check_complete(checkpoint, report)
    return (model.vision_model if family.both_towers else model).eval()


def _check_complete(checkpoint: Checkpoint, report: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks a weight, or holds one inside the part we run that would be ignored."""
    missing = {name for name in report["missing_keys"] if not name.endswith("mask_token")}  # only training reads it
    wrong = {entry[0] for entry in report["mismatched_keys"]}
    if bad := sorted(name for name in missing | wrong if not name.startswith("text_")):
        raise ModelUnsupported(
            f"{checkpoint.files.name}: the checkpoint lacks {few(bad)} (missing, or of another shape than its "
            "config.json says). Nothing is filled in at random; get the complete checkpoint."
        )
    if bad := sorted(name for name in report["unexpected_keys"] if _is_ignored(name, checkpoint.config)):
        raise ModelUnsupported(
            f"{checkpoint.files.name}: the checkpoint holds {few(bad)}, for which its config.json has no use: without "
            "them it is another model. Get the config.json that belongs to these weights."
        )


def _is_ignored(name: str, config: Any) -> bool:
    """Tell whether a weight that was not loaded belongs to the embeddings, or to a block that we run."""
    if name.startswith("text_") or "text_model." in name or name.endswith(("mask_token", "position_ids")):
        return False
    block = re.search(r"(?:^|\.)layers?\.(\d+)\.", name)
    return int(block[1]) < config.num_hidden_layers if block else bool(re.search(r"(?:^|\.)embeddings\.", name))


def few(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def is_of_texts(files: ModelFiles) -> bool:
    """Tell whether a checkpoint is of a family that has a tower for texts."""
    return files.config.model_type in TWO_TOWERS


def open_config(files: ModelFiles) -> Any:
    """The configuration of all towers, as transformers reads it. Raises ModelUnsupported."""
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its validation raises many types
        raise ModelUnsupported(f"The config.json of {files.name} cannot be used: {sentence(error)}") from error


def open_model(
    files: ModelFiles, model_class: str, config: Any, what: str, arguments: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Any, Mapping[str, Any]]:
    """A class of transformers with a checkpoint's weights in float32, and its report of those that did not fit.

    what: is loaded, for an error's words. arguments: more of the class's own. Raises ModelUnsupported.
    """
    import transformers

    try:
        with quiet_transformers():
            model, report = getattr(transformers, model_class).from_pretrained(
                files.folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # told in the report, which the caller looks at
                output_loading_info=True,
                **arguments,
            )
    except Exception as error:  # damaged safetensors raise their own type, wrong configurations any
        raise ModelUnsupported(f"The {what} of {files.name} cannot be loaded: {sentence(error)}") from error
    return model, report


def _tower_config(files: ModelFiles) -> Any:
    from transformers.activations import ACT2FN

    config = open_config(files)
    config = getattr(config, "vision_config", config)
    for kind in (files.config.hidden_act, files.config.pooler_act):
        if kind is not None and kind not in ACT2FN:
            raise ModelUnsupported(f"The config.json of {files.name} cannot be used: no activation function is {kind}.")
    return config


def sentence(error: Exception) -> str:
    """A foreign error's words in one line of about MAX_ERROR_CHARACTERS at most, with a full stop."""
    if field := re.match(r"Validation error for field '(\w+)'", str(error)):
        return f"transformers does not accept its {field[1]}."  # rather than the names of Python's types
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"{text}." if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]}..."


def tensor_names(files: ModelFiles) -> Iterator[str]:
    """The names of a checkpoint's tensors. Raises ModelUnsupported."""
    from safetensors import SafetensorError, safe_open

    for path in files.weights:
        try:
            with safe_open(path, framework="numpy") as file:
                yield from file.keys()
        except SafetensorError as error:
            raise ModelUnsupported(
                f"{Path(path).name} of {files.name} is damaged, get it again: {sentence(error)}"
            ) from error


def _tensor(files: ModelFiles, name: str) -> Tensor:
    from safetensors import safe_open

    for path in files.weights:
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118  (it is not a mapping)
                tensor: Tensor = file.get_tensor(name).float()
                return tensor
    raise ModelUnsupported(f"{files.name}: the checkpoint lacks {name}. Get the complete checkpoint.")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and reports: what they tell is checked, and told, by us."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
