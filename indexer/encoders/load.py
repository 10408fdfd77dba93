"""The encoder that an index was built with, loaded for this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexer.encoders.encoder import Encoder
from indexer.errors import ModelUnsupported
from indexer.machine import has_openvino
from indexer.models import locate
from search.types import Space


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
