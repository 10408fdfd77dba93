"""Which model and spaces a build uses: what the user asked for, or what the index was built with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexer.encoder import Encoder, SpaceRequest, encoder_for
from indexer.models import PACKAGED, locate
from indexer.precision import CheckedEncoder
from search.errors import RecipeMismatch
from search.index import Index, write_lock
from search.types import Encoding, Space


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What the user said about model and spaces; all of it may be left out."""

    model: str | None
    spaces: tuple[SpaceRequest, ...]
    pad: bool
    precision: str
    device: str
    batch_size: int | None

    @property
    def says_what(self) -> bool:
        """Whether it says anything about what an embedding is."""
        return self.model is not None or bool(self.spaces) or self.pad


def open_for_build(
    stack: ExitStack, path: Path, wanted: ModelChoice, *, dry_run: bool
) -> tuple[Index, Callable[[], Encoder]]:
    """The index, locked until `stack` closes, and what loads its encoder. Makes the index where there is none.

    Raises ModelUnavailable, ModelUnsupported, RecipeMismatch (the index was built with another model), IndexLocked.
    """
    if (path / "catalog.sqlite").exists():
        if not dry_run:
            stack.enter_context(write_lock(path))
        index = stack.enter_context(Index.open(path, writable=not dry_run))
        return index, _encoder_of(index, wanted)
    encoder = _load(wanted, wanted.precision)  # first: without a model, nothing is left behind
    stack.enter_context(write_lock(path))
    spaces = [
        Space(name=name, recipe=recipe, encoding=Encoding(precision=encoder.precision))
        for name, recipe in zip(encoder.names, encoder.recipes, strict=True)
    ]
    index = stack.enter_context(Index.create(path, spaces))

    def settled(precision: str, check: dict[str, Any]) -> None:
        with index.writing() as transaction:
            for space in spaces:
                transaction.set_encoding(space.name, Encoding(precision=precision, check=check))

    may_fall_back = wanted.precision == "auto"
    checked = CheckedEncoder(encoder, lambda: _load(wanted, "fp32"), settled, may_fall_back=may_fall_back)
    return index, lambda: checked


def _load(wanted: ModelChoice, precision: str) -> Encoder:
    from indexer.encoders.torch import load  # takes two seconds: not before the user's words are checked

    return load(
        locate(wanted.model or PACKAGED.name),
        wanted.spaces or (SpaceRequest(),),
        device=wanted.device,
        precision=precision,
        geometry="pad" if wanted.pad else None,
        batch_size=wanted.batch_size,
    )


def _encoder_of(index: Index, wanted: ModelChoice) -> Callable[[], Encoder]:
    """What loads the encoder of an existing index, after checking that the user asks for no other."""
    encoding = index.spaces[0].encoding
    if wanted.precision not in ("auto", encoding.precision):
        raise RecipeMismatch(
            f"{index.path} is encoded in {encoding.precision}, and stays so. For {wanted.precision}, build another "
            "index with --index."
        )
    if wanted.says_what:
        asked = _load(replace(wanted, model=wanted.model or index.spaces[0].recipe.model), encoding.precision)
        if asked.recipes != tuple(space.recipe for space in index.spaces):
            held = ", ".join(space.name for space in index.spaces)
            raise RecipeMismatch(
                f"{index.path} holds {held} of {index.spaces[0].recipe.model}; {', '.join(asked.names)} of "
                f"{asked.recipes[0].model} was asked for. Leave --model, --layer, --pooling and --pad out to go on "
                "with it, or build another index with --index."
            )
        return lambda: asked
    loaded: list[Encoder] = []

    def encoder() -> Encoder:
        if not loaded:
            loaded.append(encoder_for(index.spaces, device=wanted.device, batch_size=wanted.batch_size))
        return loaded[0]

    return encoder
