"""What an encoder is: preprocessed pixels in, one unit-length embedding a space out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.errors import ModelUnsupported
from search.recipe import Pooling, Recipe
from search.types import Space

Precision = Literal["fp32", "bf16", "fp16", "int8"]

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time in each so many: what `docker --cpus`, or a limit of Kubernetes, becomes."""


@dataclass(frozen=True, kw_only=True)
class SpaceRequest:
    """A space as asked for on the command line: layers still relative (negative, or None for the default)."""

    layers: tuple[int, ...] | None = None
    pooling: Pooling | None = None
    final_norm: bool | None = None


class Encoder(Protocol):
    """Runs one model for one or more spaces in a single forward pass. Not thread-safe: one caller at a time."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """One recipe a space, in the order of `encode`'s answer; all share model and preprocessing."""

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, e.g. `layer11`, in the same order."""

    @property
    def backend(self) -> str:
        """What runs it: `torch` or `openvino`."""

    @property
    def precision(self) -> Precision:
        """The arithmetic it runs in."""

    @property
    def batch_size(self) -> int:
        """How many images it takes best at once."""

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Whatever it has to do once with the first images of a build, e.g. choose a precision by them.

        remaining: how many are to be embedded in all: for many, it may take its time to become faster.
        """

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed a batch.

        pixels: (n, size, size, 3) uint8, RGB, as `preprocess.to_input` gives them.
        Returns one (n, dim) float32 array a space, rows of unit length.
        """

    def per_core(self) -> Sequence[Encoder]:
        """Encoders of the same model on one core each, which may be called at the same time, by a thread each.

        They do as much as this one on all cores, and more where others need these cores too: none waits for another
        at every layer. Empty where that is of no use. Loads the model once more.
        """


def encoder_for(
    spaces: Sequence[Space],
    models: Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    throughput: bool = False,
) -> Encoder:
    """The encoder that an index's spaces were built with, in their encoding. Takes a second: it loads the model.

    models: the index's folder of that name. throughput: for many images at once, rather than for single ones soon.
    Raises ModelUnavailable, or ModelUnsupported where this machine lacks the backend, or the weights found are not
    those of the recipes.
    """
    from indexer.models import locate

    recipes, encoding = {space.name: space.recipe for space in spaces}, spaces[0].encoding
    if encoding.backend == "torch":
        from indexer.encoders import torch_backend

        files = locate(spaces[0].recipe.model)
        return torch_backend.load_recipes(
            files,
            recipes,
            device=device,
            precision=encoding.precision,
            batch_size=batch_size,
            throughput=throughput,
        )
    if not has_openvino():
        raise ModelUnsupported(
            "The index was built with OpenVINO, which is not installed here: pip install 'lookalike[openvino]'"
        )
    from indexer.encoders import openvino_backend

    if encoding.model is not None:
        folder = models / encoding.model
        return openvino_backend.load_stored(folder, recipes, batch_size=batch_size, throughput=throughput)
    return openvino_backend.load_recipes(
        locate(spaces[0].recipe.model),
        recipes,
        precision="bf16" if encoding.precision == "bf16" else "fp32",
        batch_size=batch_size,
        throughput=throughput,
    )


def cores() -> int:
    """Those that this process may use: in a container, or under taskset, not all of the machine's."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, an older one, or "max"
        return count


def has_openvino() -> bool:
    """Whether the extra is installed; without importing it."""
    return find_spec("openvino") is not None
