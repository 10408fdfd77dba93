"""A space to be added to an index: its recipe from the model, its encoding from the spaces that are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from indexer.encoders.encoder import SpaceRequest
from indexer.errors import ModelUnsupported
from indexer.machine import has_openvino
from indexer.models import ModelFiles, locate
from search.catalog.spaces import Spaces
from search.recipe import Geometry
from search.types import Encoding, Space


def space_to_add(there: Spaces, request: SpaceRequest | None, model: str | None = None) -> Space:
    """The space that is asked for, to be given to `Writer.add_space`.

    there: the index's, as `Catalog.spaces` gives them. request: None for the one that a new index of the model gets.
    model: another one than the default space's, whose spaces are then named after it, as are later ones of that model.
    Raises ModelUnavailable, ModelUnsupported.
    """
    from indexer.encoders.recipes import default_requests  # imports torch
    from indexer.encoders.text_towers import has_text_tower, lacks_for_texts

    default = there.of_default.recipe
    files = locate(model or default.model)
    if model is not None and request is not None and request.words and not has_text_tower(files):
        why = lacks_for_texts(files) or "It was not trained with texts."
        raise ModelUnsupported(f"Words cannot be looked up with {files.name}. {why}")
    wanted = default_requests(files)[:1] if request is None else (request,)  # its space of words comes by --words
    (space,) = _of_model(there, files, wanted, _padding(there))
    of_companion = request is not None and request.of_companion
    if model is None and not of_companion and space.recipe.weights_sha256 != default.weights_sha256:
        raise _changed(files)
    return space


def spaces_beside(
    there: Spaces, files: ModelFiles, requests: Sequence[SpaceRequest], geometry: Geometry | None = None
) -> tuple[Space, ...]:
    """The spaces that could be added beside the default one, of its model: one a request, of which no two are alike.

    files: of that model. geometry: how all of them bring images to size; None: as the default space if it pads them,
    else as the checkpoint says. Raises ModelUnsupported, also where its weights have changed, ModelUnavailable.
    """
    if files.weights_sha256 != there.of_default.recipe.weights_sha256:
        raise _changed(files)
    if geometry is None:
        return _of_model(there, files, requests, _padding(there))
    return _of_model(there, files, [replace(request, geometry=geometry) for request in requests], None)


def _padding(there: Spaces) -> Geometry | None:
    return "pad" if there.of_default.recipe.preprocessing.geometry == "pad" else None


def _of_model(
    there: Spaces, files: ModelFiles, requests: Sequence[SpaceRequest], geometry: Geometry | None
) -> tuple[Space, ...]:
    from indexer.encoders.recipes import spaces_for  # imports torch

    default = there.of_default.recipe
    spaces = spaces_for(files, requests, Encoding(), geometry)
    same = default.weights_sha256 == files.weights_sha256 == spaces[0].recipe.weights_sha256
    known = default.config_sha256 if same else None
    if known not in (None, spaces[0].recipe.config_sha256):
        raise ModelUnsupported(
            f"{files.name} has the weights that the index was built with, but another config.json, and so gives other "
            "embeddings. Put the old one back, or build another index."
        )
    encoding = _encoding(there.there, files.weights_sha256)
    prefix = _prefix(there, files)
    return tuple(replace(space, name=prefix + space.name, encoding=encoding) for space in spaces)


def _prefix(there: Spaces, files: ModelFiles) -> str:
    """What the names of a model's spaces begin with: nothing where the default space is of it, and has no such name."""
    prefix = re.sub(r"[^A-Za-z0-9.+]+", "-", PurePath(files.name).name).strip("-.") + "-"
    default = there.of_default
    of_default = default.recipe.weights_sha256 == files.weights_sha256
    return "" if of_default and not default.name.startswith(prefix) else prefix


def _changed(files: ModelFiles) -> ModelUnsupported:
    return ModelUnsupported(
        f"{files.name} is another model than the index was built with: its weights have changed. Put the old "
        "ones back, or name it with --model to add a space of the new one."
    )


def _encoding(spaces: Sequence[Space], weights: str) -> Encoding:
    """The encoding of other spaces of the model: one forward pass gives all. int8 was fitted to these: not to more."""
    known = next((space.encoding for space in spaces if space.recipe.weights_sha256 == weights), spaces[0].encoding)
    if known.model is None:
        return Encoding(backend=known.backend, precision=known.precision)
    if not has_openvino():
        return Encoding(backend="torch", precision="fp32")
    from indexer.encoders import openvino_backend

    return Encoding(backend="openvino", precision=openvino_backend.precision_for("auto"))
