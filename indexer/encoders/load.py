"""The encoder that an index was built with, loaded for this machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from indexer.encoders.companion import CompanionEncoder, is_of
from indexer.encoders.encoder import Encoder
from indexer.encoders.words import load_head
from indexer.encoders.words_encoder import WordsEncoder
from indexer.errors import ModelUnsupported
from indexer.machine import has_openvino, openvino_advice
from indexer.models import locate
from indexer.pictures.preprocess import inputs_of
from search.recipe import Recipe
from search.types import Encoding, Space


def encoder_for(
    spaces: Sequence[Space],
    models: Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    throughput: bool = False,
) -> Encoder:
    """The encoder that an index's spaces were built with, in their encoding. Takes a second: it loads the model.

    Where this machine lacks OpenVINO, torch in the same precision; where it has no GPU for fp16, torch in fp32: compare
    the encoder's `backend` and `precision` with the encoding. models: the index's folder of that name. throughput: for
    many images at once, rather than for single ones soon. Raises ModelUnavailable, or ModelUnsupported where this
    machine can do neither, or weights or config found are not those of the recipes.
    """
    load = partial(_of_one_network, models=models, device=device, batch_size=batch_size, throughput=throughput)
    own = own_parts(spaces)
    return completed(load(own) if own else None, spaces, load, models)


def own_parts(spaces: Sequence[Space]) -> list[Space]:
    """What the model itself gives of these spaces, without the companion beside it, and not what that gives alone."""
    companion = _companion_of(spaces)
    return [
        replace(space, recipe=space.recipe.own)
        for space in spaces
        if companion is None or not is_of(space.recipe.source, companion)
    ]


def completed(
    model: Encoder | None, spaces: Sequence[Space], load: Callable[[Sequence[Space]], Encoder], models: Path
) -> Encoder:
    """An encoder of these spaces: of `own_parts`, None where there is none; of their companion; of words.

    load: an encoder of one network. models: the index's folder of that name. Raises ModelUnavailable, and
    ModelUnsupported where the head of a space of words is not there.
    """
    recipes = {space.name: space.recipe for space in spaces}
    heads = {name: load_head(recipe, models) for name, recipe in recipes.items() if recipe.words is not None}
    sources = {name: recipe.source for name, recipe in recipes.items()}
    companion = _companion_of(spaces)
    if companion is not None:
        encoding = spaces[0].encoding
        if model is not None and model.precision == "int8":  # fitted to the model alone; the companion is small
            encoding = Encoding(backend=encoding.backend, precision="fp32")
        others = [
            Space(name=name, recipe=source, encoding=encoding)
            for name, source in sources.items()
            if is_of(source, companion) and source != companion
        ]
        beside = load([Space(name="companion", recipe=companion, encoding=encoding), *others])
        model = CompanionEncoder(model, beside, sources)
    assert model is not None
    return WordsEncoder(model, recipes, heads) if heads else model


def _companion_of(spaces: Sequence[Space]) -> Recipe | None:
    """The recipe of the small network that runs beside these spaces' model, of which there is one."""
    return next((space.recipe.companion for space in spaces if space.recipe.companion is not None), None)


def _of_one_network(
    spaces: Sequence[Space], *, models: Path, device: str, batch_size: int | None, throughput: bool
) -> Encoder:
    recipes, encoding = {space.name: space.recipe for space in spaces}, spaces[0].encoding
    if encoding.backend == "openvino" and has_openvino():
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
    if encoding.precision == "int8":
        raise ModelUnsupported(
            "The index is encoded in int8, which OpenVINO alone computes, and it is not installed here. "
            f"{openvino_advice()} Or build another index here."
        )
    from indexer.encoders import torch_backend

    lacks_fp16 = encoding.precision == "fp16" and torch_backend.device_for(device).type == "cpu"
    return torch_backend.load_recipes(
        locate(spaces[0].recipe.model),
        recipes,
        device=device,
        precision="fp32" if lacks_fp16 else encoding.precision,
        batch_size=batch_size,
        throughput=throughput,
    )


def passes(spaces: Sequence[Space]) -> list[list[Space]]:
    """The spaces in groups that one forward pass gives: of the same networks, encoding and pixels."""
    configs = {
        space.recipe.weights_sha256: space.recipe.config_sha256 for space in spaces if space.recipe.config_sha256
    }
    hosts = {_network(space.recipe.companion): space for space in spaces if space.recipe.companion is not None}
    companions = {space.recipe.companion for space in hosts.values()}
    groups: dict[tuple[Hashable, ...], list[Space]] = {}
    for space in spaces:
        host = hosts.get(_network(space.recipe), space)  # of words or style: with the model whose companion tells them
        recipe, encoding = host.recipe, host.encoding
        # Of an older index, the configuration may not be known: it is that of other spaces of the same weights.
        config = recipe.config_sha256 or configs.get(recipe.weights_sha256)
        # Where there is one companion only, spaces without it come with the others.
        companion = recipe.companion if len(companions) > 1 else None
        (pixels,) = inputs_of([recipe])
        key = (recipe.weights_sha256, config, encoding.backend, encoding.precision, encoding.model, companion, pixels)
        groups.setdefault(key, []).append(space)
    return list(groups.values())


def _network(recipe: Recipe) -> Hashable:
    """A network on its pixels."""
    return recipe.weights_sha256, recipe.preprocessing
