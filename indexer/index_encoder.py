"""The encoder of an index on the machine where it lies now, which may lack what it was built with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder
from indexer.encoders.joint import JointEncoder
from indexer.encoders.load import encoder_for, passes
from indexer.errors import ImageRejected, ModelUnavailable, ModelUnsupported
from indexer.machine import openvino_advice
from indexer.models import lacks_package
from indexer.pictures.decode import DecodeLimits, decode_pixels
from indexer.pictures.preprocess import Inputs
from search.index import Index
from search.types import ImageRecord, Space
from search.vectors import wholes

COMPARED_IMAGES = 5
"""Embedded again, and compared with what the index holds: arithmetic that differs does so for every image."""
SEARCHED_IMAGES = 100
"""Looked at for those whose files are still there, unchanged."""
MIN_MEDIAN_COSINE = 0.995
"""With what is stored. Torch and OpenVINO in the same precision: at worst .9999 on 24 images, at layers 7, 11 and 12.
The median, because a later version may decode one picture better."""


def check_installed(space: Space) -> None:
    """Raise ModelUnavailable where a network that a space's embeddings are made with lies in a package that is not
    installed."""
    for recipe in (space.recipe, space.recipe.companion):
        if recipe is not None and (advice := lacks_package(recipe.model)) is not None:
            raise ModelUnavailable(
                f"The space {space.name} takes no new pictures: {recipe.model} is not installed. {advice}"
            )


def installed_spaces(index: Index, *, warn: Callable[[str], None] = lambda _: None) -> list[Space]:
    """An index's spaces whose networks are installed, its default in any case. warn: told of the others."""
    found, default = [], index.space()
    for space in index.spaces:
        try:
            if space != default:
                check_installed(space)
        except ModelUnavailable as error:
            warn(str(error))
        else:
            found.append(space)
    return found


def load_index_encoder(
    index: Index,
    spaces: Sequence[Space],
    *,
    warn: Callable[[str], None],
    device: str = "auto",
    batch_size: int | None = None,
    throughput: bool = False,
) -> Encoder:
    """The encoder that the spaces of an index were built with, or torch in its place where this machine lacks it.

    Spaces of one model and encoding are computed in one forward pass, the others in one each.
    What stands in is first compared with the index's own embeddings. warn: told that it stands in, and how well.
    Raises ModelUnavailable, and ModelUnsupported as `encoder_for`, or where what stands in gives other embeddings.
    """
    encoders = [
        _load_pass(index, together, warn, device=device, batch_size=batch_size, throughput=throughput)
        for together in passes(spaces)
    ]
    return encoders[0] if len(encoders) == 1 else JointEncoder(encoders)


def _load_pass(
    index: Index,
    spaces: Sequence[Space],
    warn: Callable[[str], None],
    *,
    device: str,
    batch_size: int | None,
    throughput: bool,
) -> Encoder:
    try:
        encoder = encoder_for(spaces, index.models, device=device, batch_size=batch_size, throughput=throughput)
    except ModelUnavailable as error:
        model = Path(spaces[0].recipe.model)
        if not model.is_absolute() or model.exists():
            raise
        raise ModelUnavailable(
            f"The model that {index.path} was built with is not at {model} any more. Put it back, or say where it lies "
            f"now: lookalike build PHOTOS --index {index.path} --model FOLDER"
        ) from error
    encoding = spaces[0].encoding
    if (encoder.backend, encoder.precision) == (encoding.backend, encoding.precision):
        return encoder
    lacking = f"{index.path} was encoded by {encoding.backend} in {encoding.precision}, which is not available here"
    hint = f" {openvino_advice()}" if encoding.backend == "openvino" else ""
    compared, cosine = _agreement_of_model(index, spaces, encoder, device)
    if compared and cosine < MIN_MEDIAN_COSINE:
        raise ModelUnsupported(
            f"{lacking}, and {encoder.backend} in {encoder.precision} gives other embeddings: a median cosine of "
            f"{cosine:.4f} with those of {compared} images in the index, where {MIN_MEDIAN_COSINE} is the least.{hint} "
            "Or build another index here."
        )
    how_well = "none of its files is here to compare"
    if compared:
        how_well = f"median cosine {cosine:.4f} with {compared} of its embeddings"
    warn(f"{lacking}: {encoder.backend} in {encoder.precision} stands in ({how_well}).{hint}")
    return encoder


def _agreement_of_model(index: Index, spaces: Sequence[Space], encoder: Encoder, device: str) -> tuple[int, float]:
    """`agreement` in these spaces, or, where none of them has a vector yet, in others of their model."""
    found = agreement(index, spaces, encoder)
    one = spaces[0]
    others = [
        space
        for space in index.spaces
        if space.recipe.weights_sha256 == one.recipe.weights_sha256 and space.encoding == one.encoding
    ]
    if found[0] or not others:
        return found
    together = passes(others)[0]
    return agreement(index, together, encoder_for(together, index.models, device=device))


def agreement(index: Index, spaces: Sequence[Space], encoder: Encoder) -> tuple[int, float]:
    """Compare an encoder's embeddings with those that an index holds, for COMPARED_IMAGES of its images.

    Returns the number of images compared, and the median cosine in the worst space; (0, nan) where no file of the
    index's first SEARCHED_IMAGES images is still there, unchanged. Raises IndexDamaged.
    """
    records, _ = index.catalog.page(0, SEARCHED_IMAGES)
    found = dict(_decoded(records, encoder.inputs))
    if not found:
        return 0, float("nan")
    each = map(wholes, encoder.encode(np.stack(list(found.values()))))
    embedded = dict(zip(encoder.names, each, strict=True))
    medians = []
    for space in spaces:
        stored = index.catalog.stored(space, found)
        cosines = [
            float(stored[image] @ embedded[space.name][row]) for row, image in enumerate(found) if image in stored
        ]
        medians += [float(np.median(cosines))] if cosines else []
    return (len(found), min(medians)) if medians else (0, float("nan"))


def _decoded(records: Sequence[ImageRecord], inputs: Inputs) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The pixels of COMPARED_IMAGES images whose files are still what was embedded: they were decoded before."""
    count = 0
    for record in records:
        if count == COMPARED_IMAGES:
            return
        for path in record.paths:
            try:
                data = Path(path).read_bytes() if Path(path).stat().st_size == record.facts.bytes else b""
                if hashlib.sha256(data).hexdigest() != record.id:
                    continue
                yield record.id, decode_pixels(data, inputs, limits=DecodeLimits())
            except (OSError, ImageRejected):
                continue
            count += 1
            break
