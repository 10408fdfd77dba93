"""Int8 that keeps neighbours: weights rounded with their errors compensated, activations scaled token by token.

Weights are stored as int8 with a float scale for each output channel and GROUP consecutive input channels. OpenVINO
quantises activations while it runs, with a scale for each token and group, so that nothing has to be calibrated for
them and no outlier token costs the others their precision. Three steps, each on the user's own images:

- Channels that are large in activations and small in weights are evened out (SmoothQuant, arXiv:2211.10438): the
  factor goes into the norm, or the value projection, before the linear layer, where it costs nothing.
- Weights are rounded one input channel after the other, and the error of each is made up for in those still to come,
  given how inputs correlate (GPTQ, arXiv:2210.17323).
- The patch embedding stays as it is, and so does what the last block computes for the CLS token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13
from torch import Tensor, nn

from indexer.encoders.families import open_checkpoint
from indexer.encoders.openvino_backend import BATCH, GROUP, OpenVinoEncoder, convert, write_model
from indexer.encoders.taps import Tap, all_taps
from indexer.encoders.tower import Tower, open_tower
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles
from search.recipe import Recipe

SMOOTHING = 0.7
"""The share of the difference between channels that moves from activations into weights."""
DAMPING = 0.01
"""The share of the mean diagonal that is added to it: keeps the correlations of few images invertible."""


@dataclass(frozen=True)
class _Group:
    """Linear layers that read the same input, by name, and what that input comes out of (a norm, a linear layer)."""

    before: Any
    readers: dict[str, nn.Linear]

    @property
    def name(self) -> str:
        return next(iter(self.readers))


def quantise(tower: Tower, taps: Sequence[Tap], pixels: NDArray[np.uint8]) -> openvino.Model:
    """An int8 model of a tower, which is used up. pixels: (n, size, size, 3) uint8, the images it is fitted to.

    Raises ModelUnsupported where no layer has a width that is a multiple of GROUP.
    """
    rounded: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.inference_mode():
        groups = [group for number, block in enumerate(tower.blocks) for group in _groups(f"blocks.{number}", block)]
        peaks, correlations = _watch(tower, pixels, groups)
        for group in groups:  # all of them before any is rounded: the value projection is in two groups
            if group.before is not None:
                factors = _even_out(group.before, list(group.readers.values()), peaks[group.name])
                correlations[group.name] /= torch.outer(factors, factors)
        for group in groups:
            for name, linear in group.readers.items():
                if linear.in_features % GROUP == 0 and not _is_spared(tower, name):
                    rounded[name] = round_weights(linear.weight, correlations[group.name])
    model = convert(tower, taps, pixels.shape[1])
    if _replace_weights(model, rounded) != len(rounded) or not rounded:
        raise ModelUnsupported("This model cannot be computed in int8: use --precision bf16.")
    return model


def fit(
    files: ModelFiles,
    recipes: Mapping[str, Recipe],
    pixels: NDArray[np.uint8],
    models: Path,
    *,
    batch_size: int | None = None,
) -> tuple[OpenVinoEncoder, Callable[[], str]]:
    """An int8 encoder of these recipes, fitted to pixels, and what stores it in `models` and returns its name there."""
    taps, preprocessing = all_taps(recipes.values()), next(iter(recipes.values())).preprocessing
    tower = open_tower(open_checkpoint(files), taps, preprocessing)
    if not isinstance(tower, Tower):
        raise ModelUnsupported(f"{files.name} cannot be computed in int8: use --precision bf16.")
    model = quantise(tower, taps, pixels)
    encoder = OpenVinoEncoder(model, recipes, precision="int8", batch_size=batch_size, throughput=True)
    return encoder, lambda: write_model(model, models).name


def round_weights(weights: Tensor, correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Round (out, in) weights to int8 so that outputs change least, given the inputs' (in, in) sum of outer products.

    Returns int8 (out, in) and float32 scales (out, in / GROUP).
    """
    left = weights.double().clone()
    hessian = correlation.double().clone()
    diagonal = hessian.diagonal()
    diagonal += DAMPING * diagonal.mean() + 1e-12
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(left, dtype=torch.int8)
    scales = torch.zeros(left.shape[0], left.shape[1] // GROUP, dtype=left.dtype)
    for group in range(scales.shape[1]):
        here = slice(group * GROUP, (group + 1) * GROUP)
        block, triangle = left[:, here].clone(), factor[here, here]
        scale = block.abs().amax(dim=1).clamp_min(1e-12) / 127
        errors = torch.zeros_like(block)
        for column in range(GROUP):
            whole = (block[:, column] / scale).round().clamp(-127, 127)
            errors[:, column] = (block[:, column] - whole * scale) / triangle[column, column]
            block[:, column:] -= errors[:, column, None] * triangle[None, column, column:]
            rounded[:, group * GROUP + column] = whole.to(torch.int8)
        left[:, here.stop :] -= errors @ factor[here, here.stop :]
        scales[:, group] = scale
    return rounded, scales.float()


def _groups(name: str, block: Any) -> Iterator[_Group]:
    mlp = block.mlp
    first = ("fc1",) if hasattr(mlp, "fc1") else ("gate_proj", "up_proj")
    last = "fc2" if hasattr(mlp, "fc2") else "down_proj"
    yield _Group(block.norm1, {f"{name}.k": block.k, f"{name}.v": block.v, f"{name}.q": block.q})
    yield _Group(block.v, {f"{name}.out": block.out})
    yield _Group(block.norm2, {f"{name}.mlp.{reader}": getattr(mlp, reader) for reader in first})
    yield _Group(None, {f"{name}.mlp.{last}": getattr(mlp, last)})  # an activation function stands before it


def _is_spared(tower: Tower, name: str) -> bool:
    """Tell whether a layer runs for the CLS token alone, where int8 gains nothing."""
    _, number, layer = name.split(".", 2)
    return tower.first_only and int(number) == len(tower.blocks) - 1 and layer not in ("k", "v")


def _watch(
    tower: Tower, pixels: NDArray[np.uint8], groups: Sequence[_Group]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Watch the inputs of each group. Returns by its name the largest magnitude a channel (in,), and the sum of outer
    products (in, in)."""
    peaks: dict[str, Tensor] = {}
    correlations: dict[str, Tensor] = {}

    def watcher(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def watch(_module: Any, arguments: tuple[Tensor, ...]) -> None:
            rows = arguments[0][:, : tower.real].flatten(0, -2)
            peaks[name] = torch.maximum(rows.abs().amax(dim=0), peaks.get(name, torch.zeros(())))
            correlations[name] = rows.T @ rows + correlations.get(name, 0)

        return watch

    handles = [group.readers[group.name].register_forward_pre_hook(watcher(group.name)) for group in groups]
    for start in range(0, len(pixels), BATCH):
        tower(torch.from_numpy(np.array(pixels[start : start + BATCH])))
    for handle in handles:
        handle.remove()
    return peaks, correlations


def _even_out(before: Any, linears: Sequence[nn.Linear], peaks: Tensor) -> Tensor:
    """Divide what the layers read by a factor a channel, and multiply their weights by it. Returns the factors."""
    weights = torch.cat([linear.weight for linear in linears]).abs().amax(dim=0).clamp_min(1e-5)
    factors = peaks.clamp_min(1e-5) ** SMOOTHING / weights ** (1 - SMOOTHING)
    factors /= factors.log().mean().exp()
    before.weight.div_(factors if before.weight.ndim == 1 else factors[:, None])
    if before.bias is not None:
        before.bias.div_(factors)
    for linear in linears:
        linear.weight.mul_(factors)
    return factors


def _replace_weights(model: openvino.Model, rounded: dict[str, tuple[Tensor, Tensor]]) -> int:
    """Put int8 weights with their scales where the float ones are. Returns how many were found."""
    found = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        name = node.get_friendly_name().split("/")[0].removeprefix("__module.")
        if name not in rounded:
            continue
        weights, scales = (tensor.numpy() for tensor in rounded[name])
        grouped = opset13.constant(weights.reshape(len(weights), -1, GROUP), dtype=openvino.Type.i8)
        scaled = opset13.multiply(opset13.convert(grouped, "f32"), opset13.constant(scales[:, :, None]))
        whole = opset13.reshape(scaled, opset13.constant(np.array(weights.shape, np.int64)), False)
        replacement = opset13.matmul(node.input_value(0), whole, False, True)
        openvino.utils.replace_node(node, replacement)
        found += 1
    model.validate_nodes_and_infer_types()
    return found
