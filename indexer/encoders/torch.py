"""The encoder on torch, for CPUs, CUDA and Apple's GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoder import Precision, SpaceRequest
from indexer.encoders.families import open_checkpoint
from indexer.encoders.recipes import recipes_for
from indexer.encoders.taps import TapEncoder, all_taps
from indexer.encoders.tower import Tower, open_tower
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles, check_weights
from search.recipe import Geometry, Recipe

CPU_BATCH, ACCELERATOR_BATCH = 8, 64
"""On two cores 8 images keep both busy, and more gain nothing; a GPU wants more work at once."""


class TorchEncoder(TapEncoder):
    """An `Encoder` that runs a tower on torch. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        tower: Tower,
        spaces: Mapping[str, Recipe],
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
    ) -> None:
        """tower: made for all taps of the spaces, on `device` and in `precision`."""
        super().__init__(spaces, precision=precision, batch_size=batch_size)
        self._tower = tower
        self._device = device

    @property
    def backend(self) -> str:
        """As `Encoder`."""
        return "torch"

    def _run(self, batches: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        with torch.inference_mode():
            # a copy: torch warns of read-only arrays
            answers = [self._tower(torch.from_numpy(np.array(batch)).to(self._device)) for batch in batches]
            return [[pooled.cpu().numpy() for pooled in answer] for answer in answers]


def load(
    files: ModelFiles,
    spaces: Sequence[SpaceRequest],
    *,
    device: str = "auto",
    precision: str = "auto",
    geometry: Geometry | None = None,
    batch_size: int | None = None,
) -> TorchEncoder:
    """The encoder of spaces as asked for. Raises ModelUnsupported, as `recipes_for` and `load_recipes`."""
    named = recipes_for(files, spaces, geometry)
    return load_recipes(files, named, device=device, precision=precision, batch_size=batch_size)


def load_recipes(
    files: ModelFiles,
    spaces: Mapping[str, Recipe],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
) -> TorchEncoder:
    """The encoder of these recipes, by the names of their spaces; precision `auto`: bf16 where the hardware has it.

    Raises ModelUnsupported where the weights are not those of the recipes, or this machine cannot do it.
    """
    recipes = tuple(spaces.values())
    check_weights(files, recipes)
    where = device_for(device)
    arithmetic = precision_for(precision, where)
    tower = open_tower(open_checkpoint(files), all_taps(recipes), recipes[0].preprocessing)
    return TorchEncoder(
        tower.to(where, torch.bfloat16 if arithmetic == "bf16" else torch.float32),
        spaces,
        device=where,
        precision=arithmetic,
        batch_size=batch_size or (CPU_BATCH if where.type == "cpu" else ACCELERATOR_BATCH),
    )


def device_for(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises ModelUnsupported for one that this machine lacks."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [device for device, there in available.items() if there]
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise ModelUnsupported(f"The device {name} is not available here; there is {', '.join(present)}.")
    return torch.device(name)


def precision_for(name: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the hardware has it, else fp32. Raises ModelUnsupported."""
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
