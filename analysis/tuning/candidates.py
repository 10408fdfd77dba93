"""Candidates: the spaces that an index could be searched by, its default first."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from itertools import chain, count, product

from indexer.encoders.encoder import SpaceRequest
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import COMPANION, ModelFiles, is_installed, locate
from indexer.new_space import spaces_beside
from search.catalog.spaces import Spaces
from search.recipe import IDENTITY, Geometry, Pooling
from search.types import Space

TOGETHER = 5
"""Layers that are taken together where nothing is known of a model: its last."""
FLOORS = (0.01, 0.1)
COMPANION_WEIGHTS = (1.0, 2.5)
DIMS = (256,)
"""Figures of the transform besides its usual ones, tried on the layers that are taken together."""
WAYS: tuple[tuple[Geometry | None, Pooling | None], ...] = (
    *((None, None), ("square", None)),
    *(("square", "mean"), ("square", "gem"), ("square", "cls+gem")),
)
"""How pictures are brought to size, and layers become one vector; None: as the default space, or the model, does."""


def candidates(there: Spaces) -> list[Space]:
    """The default space, and those of its model that could be added: the upper half of its layers, each and several
    together; as the default pads its pictures, or the checkpoint frames them, and squeezed whole, there also by means
    of the patches; plain and whitened; with and without companion.

    there: the index's spaces. Those that it has keep their names, which no others get. All get one encoding, so that
    one forward pass gives them: int8 was fitted to the spaces that it was made for. Raises ModelUnavailable,
    ModelUnsupported.
    """
    default = there.of_default
    possible = [*_possible(there, locate(default.recipe.model))]
    found = [replace(default, encoding=possible[0].encoding)]
    taken = {space.name for space in there.there}
    for space in possible:
        if not any(space.same_as(one) for one in found):
            name = next((one.name for one in there.there if one.same_as(space)), None) or _free(space.name, taken)
            taken.add(name)
            found.append(replace(space, name=name))
    return found


def _free(name: str, taken: Container[str]) -> str:
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def layer_sets(files: ModelFiles) -> list[tuple[int, ...]]:
    """The layers of each candidate: those of the upper half one by one, and several together, which are the last."""
    last = files.config.num_hidden_layers
    known = () if files.card is None else files.card.recommended_layers
    together = known or tuple(range(max(1, last - TOGETHER + 1), last + 1))
    single = [(layer,) for layer in range(max(1, last // 2), last + 1) if (layer,) != together]
    return [*single, together]


def _possible(there: Spaces, files: ModelFiles) -> Iterator[Space]:
    companions = (False, True) if _has_companion(there, files) else (False,)
    for (geometry, pooling), whiten, companion in product(WAYS, (False, True), companions):
        requests = [
            SpaceRequest(layers=layers, pooling=pooling, whiten=whiten, companion=companion)
            for layers in layer_sets(files)
        ]
        spaces = spaces_beside(there, files, requests, geometry)
        yield from spaces
        yield from _variants(spaces[-1])


def _variants(space: Space) -> Iterator[Space]:
    """A whitened space with other figures of its transform."""
    spec = space.transform
    if spec == IDENTITY:
        return
    for floor in FLOORS:
        yield replace(space, name=f"{space.name}-floor{floor}", transform=replace(spec, floor=floor))
    for weight in COMPANION_WEIGHTS if space.recipe.companion is not None else ():
        yield replace(space, name=f"{space.name}-weight{weight}", transform=replace(spec, companion_weight=weight))
    for dim in DIMS:
        if dim < min(space.recipe.dim, spec.max_dim):
            yield replace(space, name=f"{space.name}-{dim}", transform=replace(spec, max_dim=dim))


def _has_companion(there: Spaces, files: ModelFiles) -> bool:
    """Whether the companion can stand beside the model: it is installed, another network, and takes such pixels."""
    if not is_installed(COMPANION) or files.name == COMPANION.name:
        return False
    try:
        spaces_beside(there, files, [SpaceRequest(companion=True)])
    except (ModelUnsupported, ModelUnavailable):
        return False
    return True
