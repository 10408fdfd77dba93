"""From a space as asked for to layers, pooling and final norm, checked against what the model offers."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.encoders.encoder import SpaceRequest
from indexer.errors import ModelUnsupported
from search.recipe import Pooling

TRAINED: tuple[Pooling, ...] = ("pooler", "projection")
"""Poolings with weights of their own, which were trained at the last layer."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The layers and poolings that a checkpoint offers.

    `first` and `last` are its first and its deepest layer; `poolings`, the best first, are those that work at the last:
    `pooler` and `projection` work nowhere else.
    """

    model: str
    last: int
    poolings: tuple[Pooling, ...]
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class ResolvedSpace:
    """A space with every default filled in; `layers` are non-negative, `final_norm` has one answer a layer."""

    layers: tuple[int, ...]
    pooling: Pooling
    final_norm: tuple[bool, ...]


def resolve(request: SpaceRequest, offer: Offer, default_layer: int | None = None) -> ResolvedSpace:
    """Fill in the defaults: the recommended layer (`default_layer`, else the last), the model's best pooling at these
    layers, the final norm at the last layer only. Raises ModelUnsupported, naming what there is."""
    asked = request.layers if request.layers is not None else (offer.last if default_layer is None else default_layer,)
    layers = tuple(_layer(number, offer) for number in asked)
    if not layers or len(set(layers)) != len(layers):
        raise ModelUnsupported(f"A space needs layers, each once; asked for: {','.join(map(str, asked)) or 'none'}.")
    usable = tuple(pooling for pooling in offer.poolings if pooling not in TRAINED or layers == (offer.last,))
    pooling = request.pooling or usable[0]
    if pooling not in usable:
        raise ModelUnsupported(_no_pooling(pooling, layers, offer))
    if pooling in TRAINED and request.final_norm is False:
        raise ModelUnsupported(f"{pooling} reads tokens after the final norm: leave --no-final-norm out.")
    final_norm = tuple(layer == offer.last if request.final_norm is None else request.final_norm for layer in layers)
    return ResolvedSpace(layers=layers, pooling=pooling, final_norm=final_norm)


def _layer(number: int, offer: Offer) -> int:
    layer = number if number >= 0 else offer.last + 1 + number
    if not offer.first <= layer <= offer.last:
        there = f"its layers are 0 (patch embedding) to {offer.last} (or -1)"
        if offer.first == offer.last:
            there = f"it offers layer {offer.last} (or -1) alone"
        raise ModelUnsupported(f"{offer.model} has no layer {number}: {there}.")
    return layer


def _no_pooling(pooling: Pooling, layers: tuple[int, ...], offer: Offer) -> str:
    choices = ", ".join(offer.poolings)
    if pooling in offer.poolings:  # only these depend on the layer
        rest = ", ".join(other for other in offer.poolings if other not in TRAINED)
        named = ",".join(map(str, layers))
        return f"{pooling} works at the last layer ({offer.last}) alone, not at {named}. Poolings there: {rest}."
    return f"{offer.model} offers no {pooling} pooling; it offers {choices}."
