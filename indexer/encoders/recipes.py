"""From what a user asks for to the recipes and spaces of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.families import FAMILIES, STATISTICS_CHANNELS, WINDOWS, Checkpoint, open_checkpoint
from indexer.encoders.processor import preprocessing_of
from indexer.encoders.spaces import resolve
from indexer.encoders.text_towers import has_text_tower
from indexer.encoders.words import head_sha256
from indexer.errors import ModelUnsupported
from indexer.models import COMPANION, ModelFiles, is_installed, locate
from indexer.packaged.e5 import E5
from indexer.text_files import text_sha256
from search.recipe import IDENTITY, Geometry, Preprocessing, Recipe, TransformSpec, Words, space_name
from search.types import Encoding, Space

WHITENING = TransformSpec(kind="whitening", floor=0.03, companion_weight=1.7, max_dim=512)
"""Chosen on three labelled sets: docs/relevance.md."""
STYLE = replace(WHITENING, floor=0.3)
"""Of the space of style: chosen on letters in many fonts, icon themes and filters, see docs/decisions.md."""
REGIONS = TransformSpec(kind="whitening", floor=0.005, companion_weight=1.0, max_dim=256)
"""Of the space of regions, whose second layer is treated as a companion is: chosen on crops, see docs/decisions.md."""
REGIONS_SIDE = 448
"""Pixels, squeezed to a square."""


def default_requests(files: ModelFiles, *, padded: bool = False) -> tuple[SpaceRequest, ...]:
    """The spaces of a new index whose user names none: the best recipe that is known for the model, and a space of
    words.

    Words are there where the model has a text tower. Else the companion is part of the first space where its package is
    installed, and tells words in the same pass, where the package is that reads them. padded: whether pictures get
    margins, which the companion never does for words.
    """
    layers = () if files.card is None else files.card.recommended_layers
    if not layers:
        return (SpaceRequest(), SpaceRequest(words=True)) if has_text_tower(files) else (SpaceRequest(),)
    default = SpaceRequest(layers=layers, geometry="square", companion=is_installed(COMPANION), whiten=True)
    told = default.companion and E5.is_installed() and not padded
    return (default, SpaceRequest(words=True)) if told else (default,)


def spaces_for(
    files: ModelFiles, requests: Sequence[SpaceRequest], encoding: Encoding, geometry: Geometry | None = None
) -> tuple[Space, ...]:
    """The spaces that are asked for, one at least. Raises ModelUnavailable, and ModelUnsupported as `recipes_for`."""
    recipes = recipes_for(files, requests, geometry)
    return tuple(
        Space(
            name=_space_name(name, recipe, request),
            recipe=recipe,
            encoding=encoding,
            # Half the bytes: what is searched is computed from them, and keeps its neighbours.
            storage="float16" if _is_transformed(request) or recipe.words is not None else "float32",
            transform=_transform(request, files),
        )
        for request, (name, recipe) in zip(requests, recipes.items(), strict=True)
    )


def _space_name(name: str, recipe: Recipe, request: SpaceRequest) -> str:
    if request.geometry is not None:  # not the checkpoint's own
        name += f"-{recipe.preprocessing.geometry}"
    return f"{name}-whitened" if request.whiten else name


def _is_transformed(request: SpaceRequest) -> bool:
    return request.whiten or request.style or request.regions


def _transform(request: SpaceRequest, files: ModelFiles) -> TransformSpec:
    if request.style or request.regions:
        return STYLE if request.style else REGIONS
    return _whitening(files) if request.whiten else IDENTITY


def _whitening(files: ModelFiles) -> TransformSpec:
    """A convolutional network's features are only centred: to even them out finds much less."""
    return replace(WHITENING, floor=1.0) if files.config.model_type not in FAMILIES else WHITENING


def recipes_for(
    files: ModelFiles, spaces: Sequence[SpaceRequest], geometry: Geometry | None = None
) -> dict[str, Recipe]:
    """The recipes of a new index by the names of its spaces, preprocessing as the checkpoint says.

    geometry: overrides how images are brought to the input size. Raises ModelUnsupported, naming what there is, where
    the model does not offer what is asked for.
    """
    checkpoint = open_checkpoint(files)
    if any(request.words for request in spaces) and has_text_tower(files):
        spaces = [replace(one, pooling="projection", words=False) if one.words else one for one in spaces]
    beside = any(request.companion or request.of_companion for request in spaces)
    companion = _companion() if beside else None
    requests = spaces or (SpaceRequest(),)
    recipes = [_recipe_of(request, checkpoint, geometry, companion) for request in requests]
    if len(set(recipes)) != len(recipes):
        raise ModelUnsupported("Two of the spaces asked for are the same: name each --layer once.")
    return {
        _name(request, recipe, checkpoint.offer.last): recipe for request, recipe in zip(requests, recipes, strict=True)
    }


def _recipe_of(
    request: SpaceRequest, checkpoint: Checkpoint, geometry: Geometry | None, companion: Recipe | None
) -> Recipe:
    if companion is None or not request.of_companion:
        return _recipe(checkpoint, request, geometry, companion)
    if request.regions:
        return _regions(companion)
    return _words(companion) if request.words else _style(companion)


def _recipe(
    checkpoint: Checkpoint, request: SpaceRequest, geometry: Geometry | None, companion: Recipe | None
) -> Recipe:
    files = checkpoint.files
    preprocessing = preprocessing_of(files.folder, geometry or request.geometry)
    if preprocessing.size < files.config.patch_size:
        raise ModelUnsupported(
            f"{files.name} prepares images of {preprocessing.size} x {preprocessing.size} pixels, smaller than one "
            f"of its patches of {files.config.patch_size} (preprocessor_config.json and config.json)."
        )
    space = resolve(request, checkpoint.offer, None if files.card is None else files.card.recommended_layer)
    recipe = Recipe(
        model=files.name,
        weights_sha256=files.weights_sha256,
        config_sha256=files.config.sha256,
        layers=space.layers,
        pooling=space.pooling,
        final_norm=space.final_norm,
        preprocessing=preprocessing,
        dim=len(space.layers) * checkpoint.dim(space.pooling),
        text_sha256=_text_sha256(files) if space.pooling == "projection" else None,
    )
    return _with_companion(recipe, companion) if request.companion and companion is not None else recipe


def _text_sha256(files: ModelFiles) -> str | None:
    """Of what texts are embedded with; None where they cannot be."""
    return text_sha256(files.folder, files.config.model_type, files.name) if has_text_tower(files) else None


def _companion() -> Recipe:
    """The companion network's own recipe. Raises ModelUnavailable."""
    (companion,) = recipes_for(locate(COMPANION.name), ()).values()
    return companion


def _words(companion: Recipe) -> Recipe:
    """The recipe of the space in which words are looked up: what the companion recognises."""
    words = Words(
        encoder=E5.name,
        encoder_sha256=E5.weights_sha256,
        head_sha256=head_sha256(),
        features=companion.dim,
    )
    return replace(companion, words=words, dim=E5.config["hidden_size"])


def _style(companion: Recipe) -> Recipe:
    """The recipe of the space of style: statistics of what the companion's early blocks see."""
    return replace(companion, pooling="mean+std", dim=2 * STATISTICS_CHANNELS)


def _regions(companion: Recipe) -> Recipe:
    """The recipe of the space of regions: what the companion sees of an image, and of parts of it, in larger pixels."""
    pixels = replace(companion.preprocessing, geometry="square", resize=REGIONS_SIDE, size=REGIONS_SIDE)
    return replace(companion, pooling="windows", dim=sum(WINDOWS.channels), regions=WINDOWS, preprocessing=pixels)


def _with_companion(recipe: Recipe, companion: Recipe) -> Recipe:
    """A recipe with the companion network on the same pixels. Raises ModelUnsupported."""
    if recipe.preprocessing.size != companion.preprocessing.size:
        raise ModelUnsupported(
            f"{COMPANION.name} takes pixels of {companion.preprocessing.size} x {companion.preprocessing.size}, "
            f"{recipe.model} of {recipe.preprocessing.size}."
        )
    own: Preprocessing = companion.preprocessing
    pixels = replace(recipe.preprocessing, mean=own.mean, std=own.std)
    companion = replace(companion, preprocessing=pixels)
    return replace(recipe, companion=companion, dim=recipe.dim + companion.dim)


def _name(request: SpaceRequest, recipe: Recipe, last: int) -> str:
    if request.style or request.regions:
        return "style" if request.style else "regions"
    if recipe.knows_words:
        return "words"
    name = space_name(recipe.layers, recipe.pooling, recipe.final_norm, last)
    return name if recipe.companion is None else f"{name}+{recipe.companion.model}"
