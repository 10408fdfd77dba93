"""The encoder on torch: one forward pass, stopped at the deepest layer asked for, several embeddings out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoder import Precision, SpaceRequest
from indexer.encoders.families import Checkpoint, load_tower, open_checkpoint
from indexer.encoders.processor import preprocessing_of
from indexer.encoders.spaces import resolve
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles
from search.recipe import Geometry, Pooling, Preprocessing, Recipe, space_name
from search.vectors import concatenate

__all__ = ["TorchEncoder", "load", "load_recipes", "preprocessing_of"]

CPU_BATCH, ACCELERATOR_BATCH = 8, 64
"""On two cores 8 images keep both busy, and more gain nothing; a GPU wants more work at once."""


@dataclass(frozen=True)
class _Tap:
    """What is read off a layer: (n, tokens, dim) becomes (n, dim)."""

    layer: int
    pooling: Pooling
    final_norm: bool


class TorchEncoder:
    """An `Encoder` that runs a transformers image tower. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        model: Any,
        checkpoint: Checkpoint,
        recipes: Sequence[Recipe],
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        """model: as `load_tower` gives it, on `device`, deep enough for every recipe."""
        self._model = model
        self._family = checkpoint.family
        self._prefix = checkpoint.prefix
        self._recipes = tuple(recipes)
        self._names = tuple(
            space_name(recipe.layers, recipe.pooling, recipe.final_norm, checkpoint.offer.last) for recipe in recipes
        )
        self._taps = [_taps(recipe) for recipe in recipes]
        self._device = device
        self._precision = precision
        self._batch_size = batch_size
        preprocessing = recipes[0].preprocessing
        self._size = preprocessing.size
        self._mean, self._std = (
            torch.tensor(values, device=device).reshape(1, 3, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """As `Encoder`."""
        return self._recipes

    @property
    def names(self) -> tuple[str, ...]:
        """As `Encoder`."""
        return self._names

    @property
    def precision(self) -> Precision:
        """As `Encoder`."""
        return self._precision

    @property
    def batch_size(self) -> int:
        """As `Encoder`; `encode` splits what is longer."""
        return self._batch_size

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """As `Encoder`. Raises ValueError for another shape or dtype than (n, size, size, 3) uint8."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self._size, self._size, 3):
            raise ValueError(f"pixels are {pixels.shape} {pixels.dtype}, not (n, {self._size}, {self._size}, 3) uint8")
        if not len(pixels):
            return [np.empty((0, recipe.dim), np.float32) for recipe in self._recipes]
        starts = range(0, len(pixels), self._batch_size)
        batches = [self._run(pixels[start : start + self._batch_size]) for start in starts]
        return [concatenate([np.concatenate([batch[tap] for batch in batches]) for tap in taps]) for taps in self._taps]

    def _run(self, pixels: NDArray[np.uint8]) -> dict[_Tap, NDArray[np.float32]]:
        """One forward pass: (n, size, size, 3) uint8 in, (n, dim) float32, not normalised, for each tap out."""
        wanted = {tap for taps in self._taps for tap in taps}
        pooled: dict[_Tap, NDArray[np.float32]] = {}
        # TensorFloat-32 in the patch convolution would be worth 1e-3 of error on CUDA, and torch's default allows it
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens = self._family.embed(self._model, self._normalised(pixels))
            for layer, block in enumerate((None, *self._family.blocks(self._model))):
                if block is not None:
                    tokens = block(tokens, None)
                for tap in wanted:
                    if tap.layer == layer:
                        pooled[tap] = self._pool(tokens, tap).float().cpu().numpy()
        return pooled

    def _normalised(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """(n, size, size, 3) uint8 to (n, 3, size, size), scaled to 0..1, then mean and std, in the model's dtype."""
        batch = torch.from_numpy(np.array(pixels)).to(self._device)  # a copy: torch warns of read-only arrays
        scaled = batch.permute(0, 3, 1, 2).to(torch.float32).div(255)
        return scaled.sub(self._mean).div(self._std).to(self._model.dtype)

    def _pool(self, tokens: torch.Tensor, tap: _Tap) -> torch.Tensor:
        """(n, tokens, dim) to (n, dim). The norm works on each token by itself: of `cls`, it needs that token only."""
        if tap.pooling == "cls":
            tokens = tokens[:, :1]
        if tap.final_norm:
            tokens = getattr(self._model, self._family.final_norm)(tokens)
        if tap.pooling == "cls":
            return tokens[:, 0]
        if tap.pooling == "mean":
            return tokens[:, self._prefix :].float().mean(dim=1)
        assert self._family.pooler is not None
        head: torch.nn.Module = getattr(self._model, self._family.pooler)
        answer: torch.Tensor = head(tokens)
        return answer


def load(
    files: ModelFiles,
    spaces: Sequence[SpaceRequest],
    *,
    device: str = "auto",
    precision: str = "auto",
    geometry: Geometry | None = None,
    batch_size: int | None = None,
) -> TorchEncoder:
    """The encoder of a new index: `spaces` as asked for, preprocessing as the checkpoint says.

    geometry: overrides how images are brought to the input size. precision `auto`: bf16 where the hardware has it,
    else fp32. Raises ModelUnsupported, naming what there is, where the model or this machine cannot do it.
    """
    checkpoint = open_checkpoint(files)
    preprocessing = preprocessing_of(files.folder, geometry)
    recommended = files.card.recommended_layer if files.card is not None else None
    recipes = [
        _recipe(checkpoint, request, preprocessing, default_layer=recommended)
        for request in spaces or (SpaceRequest(),)
    ]
    if len(set(recipes)) != len(recipes):
        raise ModelUnsupported("Two of the spaces asked for are the same: name each --layer once.")
    return _load(checkpoint, recipes, device=device, precision=precision, batch_size=batch_size)


def load_recipes(
    files: ModelFiles,
    recipes: Sequence[Recipe],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
) -> TorchEncoder:
    """The encoder of an existing index: exactly its recipes, their preprocessing included.

    Raises ModelUnsupported where the weights found are not those that the index was built with.
    """
    for recipe in recipes:
        if recipe.weights_sha256 != files.weights_sha256:
            raise ModelUnsupported(
                f"The index was built with weights {recipe.weights_sha256[:12]}... of {recipe.model}; those found in "
                f"{files.folder} are {files.weights_sha256[:12]}... Put the old ones back, or build a new index."
            )
    return _load(open_checkpoint(files), recipes, device=device, precision=precision, batch_size=batch_size)


def _recipe(
    checkpoint: Checkpoint, request: SpaceRequest, preprocessing: Preprocessing, *, default_layer: int | None
) -> Recipe:
    space = resolve(request, checkpoint.offer, default_layer)
    return Recipe(
        model=checkpoint.files.name,
        weights_sha256=checkpoint.files.weights_sha256,
        layers=space.layers,
        pooling=space.pooling,
        final_norm=space.final_norm,
        preprocessing=preprocessing,
        dim=len(space.layers) * checkpoint.dim(space.pooling),
    )


def _load(
    checkpoint: Checkpoint, recipes: Sequence[Recipe], *, device: str, precision: str, batch_size: int | None
) -> TorchEncoder:
    where = _device(device)
    arithmetic = _precision(precision, where)
    model = load_tower(
        checkpoint,
        deepest=max(layer for recipe in recipes for layer in recipe.layers),
        with_pooler=any(recipe.pooling == "pooler" for recipe in recipes),
        dtype=torch.bfloat16 if arithmetic == "bf16" else torch.float32,
    )
    return TorchEncoder(
        model.to(where),
        checkpoint,
        recipes,
        device=where,
        precision=arithmetic,
        batch_size=batch_size or (CPU_BATCH if where.type == "cpu" else ACCELERATOR_BATCH),
    )


def _taps(recipe: Recipe) -> list[_Tap]:
    return [
        _Tap(layer, recipe.pooling, final_norm)
        for layer, final_norm in zip(recipe.layers, recipe.final_norm, strict=True)
    ]


def _device(name: str) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [device for device, there in available.items() if there]
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise ModelUnsupported(f"The device {name} is not available here; there is {', '.join(present)}.")
    return torch.device(name)


def _precision(name: str, device: torch.device) -> Precision:
    if name not in ("auto", "fp32", "bf16"):
        raise ModelUnsupported(f"The torch backend computes in fp32 or bf16, not in {name}.")
    wants_bf16 = name == "bf16" or (name == "auto" and _has_native_bf16(device))
    return "bf16" if wants_bf16 else "fp32"


def _has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is arithmetic of the hardware: emulated, it is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # every CPU with AMX has this as well
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return bool(torch._C._has_mkldnn and supported())
    return False
