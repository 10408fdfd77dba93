"""A checkpoint's own preprocessing, read from its preprocessor_config.json."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from indexer.encoders.families import quiet_transformers, sentence
from indexer.errors import ModelUnsupported
from search.recipe import Geometry, Preprocessing

PROCESSORS = ("ViT", "DeiT", "CLIP", "ChineseCLIP", "Siglip", "Bit")
"""Image processors that do what a Preprocessing can say: resize, centre crop, rescale, normalise, and no more."""

_TIPSV2 = {"size": {"height": 448, "width": 448}, "resample": 2, "do_normalize": False}
"""Its defaults, where they differ from those of SigLIP's processor."""
MAX_SIDE_PIXELS = 4096
"""The largest square that a checkpoint may resize to; the largest known is 518."""


def preprocessing_of(folder: Path, geometry: Geometry | None = None) -> Preprocessing:
    """The preprocessing that a checkpoint asks for, or with another `geometry` at the same input size.

    Raises ModelUnsupported where there is none, or where it does something that a Preprocessing cannot express.
    """
    processor = _processor(folder)
    try:
        preprocessing = _checked(processor, folder)
    except (AttributeError, TypeError, ValueError) as error:  # a value of another type than its name says
        raise ModelUnsupported(f"{folder}/preprocessor_config.json cannot be used: {sentence(error)}") from error
    if geometry is None or geometry == preprocessing.geometry:
        return preprocessing
    resize = preprocessing.resize if geometry == "crop" else preprocessing.size  # the others take the whole image
    return replace(preprocessing, geometry=geometry, resize=resize)


def _processor(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ModelUnsupported(
            f"{folder} has no preprocessor_config.json, so nobody knows how its images are to be prepared. Copy "
            "the one of the model it was trained from into the folder."
        )
    from transformers import AutoImageProcessor, SiglipImageProcessorPil

    try:
        if (written := _tipsv2(folder)) is not None:
            return SiglipImageProcessorPil(**written)
        with quiet_transformers():
            return AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, backend="pil"
            )
    except Exception as error:  # a broken file raises whatever its reader trips over
        raise ModelUnsupported(f"{folder}/preprocessor_config.json cannot be used: {sentence(error)}") from error


def _tipsv2(folder: Path) -> dict[str, Any] | None:
    """The figures of TIPSv2's processor, of which transformers has none on Pillow; None for another's."""
    names = ("preprocessor_config.json", "processor_config.json")
    written = json.loads(next(folder / name for name in names if (folder / name).is_file()).read_bytes())
    written = written.get("image_processor", written)
    if not str(written.get("image_processor_type", "")).startswith("Tipsv2"):
        return None
    return {**_TIPSV2, **{key: value for key, value in written.items() if not key.endswith("_type")}}


def _checked(processor: Any, folder: Path) -> Preprocessing:
    def refuse(what: str) -> ModelUnsupported:
        return ModelUnsupported(
            f"{folder}/preprocessor_config.json asks for {what}. Supported: resize to a square or by the shortest "
            f"edge, up to {MAX_SIDE_PIXELS:,} pixels, by a filter of Pillow; a square centre crop no larger than that; "
            "rescale by 1/255; mean and std of three channels."
        )

    kind = type(processor).__name__
    if kind.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor") not in PROCESSORS:
        raise refuse(f"a {kind}")
    if not processor.do_resize:
        raise refuse("no resizing (do_resize is off)")
    if getattr(processor, "do_pad", None):
        raise refuse("padding (do_pad)")
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-6):
        raise refuse(f"rescaling by {processor.rescale_factor if processor.do_rescale else 1}")
    mean = _channels(processor.image_mean if processor.do_normalize else 0.0)
    std = _channels(processor.image_std if processor.do_normalize else 1.0)
    if mean is None or std is None or not all(std):
        raise refuse(f"mean {processor.image_mean} and std {processor.image_std}")
    if processor.resample not in set(Image.Resampling):
        raise refuse(f"the filter {processor.resample} for resizing, where Pillow has 0 to {max(Image.Resampling)}")
    geometry, resize = _resizing(processor.size)
    if geometry is None:
        raise refuse(f"the size {dict(processor.size)}")
    size = resize
    if getattr(processor, "do_center_crop", None):
        crop = processor.crop_size
        if not _is_side(crop.height) or crop.height != crop.width or crop.height > resize:
            raise refuse(f"a crop of {crop.width} x {crop.height} after resizing to {resize}")
        size = crop.height
    elif geometry == "crop":
        raise refuse("images of any aspect ratio (shortest_edge without do_center_crop)")
    return Preprocessing(
        geometry=geometry, resize=resize, size=size, resample=int(processor.resample), mean=mean, std=std
    )


def _resizing(size: Any) -> tuple[Geometry | None, int]:
    """Geometry and edge of a processor's `size`; no geometry where it is neither square nor a shortest edge."""
    if _is_side(size.height) and size.height == size.width:
        return "square", size.height
    if _is_side(size.shortest_edge) and not size.longest_edge:
        return "crop", size.shortest_edge
    return None, 0


def _is_side(pixels: object) -> bool:
    return type(pixels) is int and 0 < pixels <= MAX_SIDE_PIXELS


def _channels(value: Any) -> tuple[float, float, float] | None:
    """Three numbers, as a list; one number stands for all three channels."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    if len(numbers) != 3:
        return None
    if any(type(number) not in (int, float) or not math.isfinite(number) for number in numbers):
        return None
    red, green, blue = map(float, numbers)
    return red, green, blue
