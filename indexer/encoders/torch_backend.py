"""The encoder on torch, for CPUs, CUDA and Apple's GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoders.encoder import Precision, SpaceRequest
from indexer.encoders.families import open_checkpoint
from indexer.encoders.recipes import recipes_for
from indexer.encoders.taps import TapEncoder, all_taps
from indexer.encoders.tower import Network, open_tower
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles, identified
from search.recipe import Geometry, Recipe

CPU_BATCH, ACCELERATOR_BATCH = 8, 128
"""On two cores 8 images keep both busy, and more gain nothing; a GPU wants more work at once."""
BATCHES_AHEAD = 4
"""Batches that one call gives a GPU in a build, so that the next is copied while one is computed."""
MIN_SECONDS_TO_COMPILE = 300
"""Compiling takes half a minute (15 to 27 s measured), and saves a sixth of what follows."""
MIN_COSINE = 0.999
"""Between compiled and not, in any precision; less is a compiler's mistake, not rounding (measured: .99988)."""
MIN_BATCHES_TO_COMPILE = 40
"""For less work than this, timing two of them would take longer than it could save."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEncoder(TapEncoder):
    """An `Encoder` that runs a tower on torch. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        tower: Network,
        spaces: Mapping[str, Recipe],
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
        throughput: bool = False,
    ) -> None:
        """tower: made for all taps of the spaces, on `device` and in `precision`. throughput: for builds, which
        need no views."""
        super().__init__(spaces, precision=precision, batch_size=batch_size, views=not throughput)
        self._tower: Any = tower
        self._plain = tower
        self._device = device
        self._ahead = BATCHES_AHEAD if throughput and device.type == "cuda" else 1  # a query comes alone, unpadded
        self._compiled = False
        self._feed: _Feed | None = None

    @property
    def batch_size(self) -> int:
        """The number of images in a batch: several forward passes on a GPU, where one is copied during another."""
        return self._batch_size * self._ahead

    @property
    def backend(self) -> str:
        """The name of this backend."""
        return "torch"

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Compile the model, with frozen weights, where a compiler is there and so much is to be done that it pays."""
        sample = pixels[: self._batch_size]
        if remaining < MIN_BATCHES_TO_COMPILE * len(sample) or self._device.type == "mps":
            return
        try:
            self.encode(sample)  # the first pass is slow
            began = time.perf_counter()
            expected = self.encode(sample)
        except Exception:  # an image that cannot be embedded: found out, and left out, when it is its turn
            return
        if remaining / len(sample) * (time.perf_counter() - began) < MIN_SECONDS_TO_COMPILE:
            return
        from torch._inductor import config  # takes a second

        self._tower, self._compiled = torch.compile(self._plain, dynamic=False), True
        try:
            # Settings for the whole process: as options of `compile`, freezing has half the effect. One thread:
            # compilers in processes of their own would be in the way of Ctrl-C.
            with config.patch(freezing=True, compile_threads=1):
                found = self.encode(sample)
            worst = min(float((one * other).sum(axis=-1).min()) for one, other in zip(found, expected, strict=True))
        except Exception:  # no compiler, or one that cannot do this: it works without
            worst = -1.0
        if worst < MIN_COSINE:
            self._tower, self._compiled = self._plain, False

    def _run(self, batches: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        if self._ahead > 1 and (self._feed is None or self._feed.batch_size != self._batch_size):
            self._feed = _Feed(self._batch_size, self._size, self._device)
        with torch.inference_mode():
            answers = [self._infer(batch) for batch in batches]
            return [[pooled.cpu().numpy() for pooled in answer] for answer in answers]

    def _infer(self, batch: NDArray[np.uint8]) -> list[torch.Tensor]:
        if self._feed is not None:
            with self._feed.brought(batch) as pixels:
                answers = self._tower(pixels)
        else:
            whole = batch
            if self._compiled and len(batch) < self._batch_size:  # for another shape it would be compiled again
                whole = np.zeros((self._batch_size, *batch.shape[1:]), np.uint8)
                whole[: len(batch)] = batch
            # a copy: torch warns of read-only arrays
            answers = self._tower(torch.from_numpy(np.array(whole)).to(self._device))
        return [pooled[: len(batch)] for pooled in answers]

    def _is_out_of_memory(self, error: Exception) -> bool:
        if not (isinstance(error, torch.OutOfMemoryError) or super()._is_out_of_memory(error)):
            return False
        self._feed = None
        self._tower, self._compiled = self._plain, False  # or each smaller batch would be compiled for again
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return True


class _Feed:
    """Batches on their way to a GPU, always of one shape: while one is computed, the next is copied.

    Two page-locked buffers here and two there, with a stream of their own for the copies.
    """

    def __init__(self, batch_size: int, size: int, device: torch.device) -> None:
        cuda: Any = torch.cuda
        shape = (batch_size, size, size, 3)
        self.batch_size = batch_size
        self._here = [torch.zeros(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._there = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self._copied = [cuda.Event() for _ in range(2)]
        self._used = [cuda.Event() for _ in range(2)]
        self._copies = cuda.Stream(device)
        self._copies.wait_stream(cuda.current_stream(device))  # what used this memory before may still be under way
        self._turn = 0

    @contextmanager
    def brought(self, batch: NDArray[np.uint8]) -> Iterator[torch.Tensor]:
        """A batch on the GPU, filled up to the whole shape, until the block ends."""
        turn = self._turn
        self._turn = 1 - turn
        self._used[turn].synchronize()  # what was computed from these buffers before is done
        self._here[turn].numpy()[: len(batch)] = batch
        with torch.cuda.stream(self._copies):
            self._there[turn].copy_(self._here[turn], non_blocking=True)
            self._copied[turn].record()
        torch.cuda.current_stream().wait_event(self._copied[turn])
        yield self._there[turn]
        self._used[turn].record()


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
    throughput: bool = False,
) -> TorchEncoder:
    """The encoder of these recipes, by the names of their spaces; precision as `precision_for` takes it.

    Raises ModelUnsupported where weights or config are not those of the recipes, or this machine cannot do it.
    """
    known = identified(files, spaces)
    recipes = tuple(known.values())
    where = device_for(device)
    arithmetic = precision_for(precision, where)
    taps = all_taps(recipes, views=not throughput)
    tower = open_tower(open_checkpoint(files), taps, recipes[0].preprocessing)
    return TorchEncoder(
        tower.to(where, DTYPES[arithmetic]),
        known,
        device=where,
        precision=arithmetic,
        batch_size=batch_size or (CPU_BATCH if where.type == "cpu" else ACCELERATOR_BATCH),
        throughput=throughput,
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
    """`auto` is bf16 where the hardware has it, else fp16 on a CUDA GPU, else fp32. Raises ModelUnsupported."""
    if name == "auto":
        if _has_native_bf16(device):
            return "bf16"
        return "fp16" if device.type == "cuda" else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ModelUnsupported("fp16 is for GPUs. Use --precision bf16, or auto.")
    for known in DTYPES:
        if known == name:
            return known
    raise ModelUnsupported(f"The torch backend computes in fp32, bf16 or fp16, not in {name}.")


def _has_native_bf16(device: torch.device) -> bool:
    """Tell whether the hardware computes in bf16: emulated, it is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # every CPU with AMX has this as well
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return bool(torch._C._has_mkldnn and supported())
    return False
