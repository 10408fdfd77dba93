"""From what a user asks for to the recipes of an index."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.families import Checkpoint, open_checkpoint
from indexer.encoders.processor import preprocessing_of
from indexer.encoders.spaces import resolve
from indexer.errors import ModelUnsupported
from indexer.models import ModelFiles
from search.recipe import Geometry, Preprocessing, Recipe, space_name


def recipes_for(
    files: ModelFiles, spaces: Sequence[SpaceRequest], geometry: Geometry | None = None
) -> dict[str, Recipe]:
    """The recipes of a new index by the names of its spaces, preprocessing as the checkpoint says.

    geometry: overrides how images are brought to the input size. Raises ModelUnsupported, naming what there is, where
    the model does not offer what is asked for.
    """
    checkpoint = open_checkpoint(files)
    preprocessing = preprocessing_of(files.folder, geometry)
    if preprocessing.size < files.config.patch_size:
        raise ModelUnsupported(
            f"{files.name} prepares images of {preprocessing.size} x {preprocessing.size} pixels, smaller than one "
            f"of its patches of {files.config.patch_size} (preprocessor_config.json and config.json)."
        )
    recipes = [_recipe(checkpoint, request, preprocessing) for request in spaces or (SpaceRequest(),)]
    if len(set(recipes)) != len(recipes):
        raise ModelUnsupported("Two of the spaces asked for are the same: name each --layer once.")
    last = checkpoint.offer.last
    return {space_name(recipe.layers, recipe.pooling, recipe.final_norm, last): recipe for recipe in recipes}


def _recipe(checkpoint: Checkpoint, request: SpaceRequest, preprocessing: Preprocessing) -> Recipe:
    card = checkpoint.files.card
    space = resolve(request, checkpoint.offer, card.recommended_layer if card is not None else None)
    return Recipe(
        model=checkpoint.files.name,
        weights_sha256=checkpoint.files.weights_sha256,
        config_sha256=checkpoint.files.config.sha256,
        layers=space.layers,
        pooling=space.pooling,
        final_norm=space.final_norm,
        preprocessing=preprocessing,
        dim=len(space.layers) * checkpoint.dim(space.pooling),
    )
