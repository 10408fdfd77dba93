"""Which models there are, and where their files lie: a name, a Hugging Face id or a folder becomes a checkpoint."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.packaged.dinov2 import DINOV2
from indexer.packaged.efficientnet import EFFICIENTNET
from indexer.packaged.package import Package, checkpoint_folder, is_at_hand
from indexer.text_files import TOKENIZER_FILES
from indexer.tower_config import TowerConfig, read_tower_config
from indexer.weights import adapter_files, refuse_adapter, weight_files, weights_hash
from search.recipe import Pooling, Recipe

HUB_FILES = [
    "config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
]
"""Files fetched from a hub repository: no pickled weights, and no code."""
HUB_TIMEOUT = 5.0
"""Seconds for the one request that finds out whether the hub answers at all: a firewall that drops packets costs this
much, and nothing more."""
CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts of a model that are known before it is loaded.

    `parameters`, `dim` and `layers` are those of its image tower; `input_size` is the side, in pixels, of the square
    that its own preprocessing makes.
    """

    name: str
    source: str
    licence: str
    parameters: int
    dim: int
    input_size: int
    layers: int
    recommended_layer: int
    recommended_pooling: Pooling
    recommended_layers: tuple[int, ...] = ()
    """Of a first build that names none: searched together, after whitening. Empty: the recommended layer alone."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A checkpoint on this machine. `name` is what a recipe stores: `locate(name)` finds it again.

    `weights_sha256`: the SHA-256 of the one safetensors file; of several (a sharded checkpoint), the SHA-256 of the
    sorted lines `<sha256 of the file> <file name>\\n`.
    """

    name: str
    folder: Path
    weights: tuple[Path, ...]
    weights_sha256: str
    config: TowerConfig
    card: ModelCard | None


def _hub(
    name: str,
    licence: str,
    parameters: int,
    dim: int,
    layers: int,
    *,
    size: int = 224,
    pooling: Pooling = "cls",
) -> ModelCard:
    return ModelCard(
        name=name,
        source="Hugging Face",
        licence=licence,
        parameters=parameters,
        dim=dim,
        input_size=size,
        layers=layers,
        recommended_layer=layers,
        recommended_pooling=pooling,
    )


PACKAGED = ModelCard(
    name=DINOV2.name,
    source=DINOV2.source,
    licence="MIT",
    parameters=22_056_576,
    dim=384,
    input_size=224,
    layers=12,
    # its twelfth block was retrained for saliency: R@1 on 656 stamps is .683 at layer 11, .607 at 12
    recommended_layer=11,
    recommended_pooling="cls",
    recommended_layers=(7, 8, 9, 10, 11),
)
"""The default model: needs no hub."""

COMPANION = ModelCard(
    name=EFFICIENTNET.name,
    source=EFFICIENTNET.source,
    licence="Apache-2.0",
    parameters=3_371_024,
    dim=1280,
    input_size=224,
    layers=1,
    recommended_layer=1,
    recommended_pooling="mean",
)
"""A convolutional network whose features stand beside the default model's, where its package is installed."""
_PACKAGES: Mapping[str, Package] = {package.name: package for package in (DINOV2, EFFICIENTNET)}

REGISTRY: tuple[ModelCard, ...] = (
    PACKAGED,
    COMPANION,
    _hub("google/vit-base-patch16-224", "Apache-2.0", 85_798_656, 768, 12),
    _hub("google/vit-large-patch16-384", "Apache-2.0", 303_690_752, 1024, 24, size=384),
    _hub("facebook/dinov2-small", "Apache-2.0", 22_056_576, 384, 12),
    _hub("facebook/dinov2-base", "Apache-2.0", 86_580_480, 768, 12),
    _hub("facebook/dinov2-large", "Apache-2.0", 304_368_640, 1024, 24),
    _hub("facebook/dinov2-with-registers-base", "Apache-2.0", 86_583_552, 768, 12),
    _hub("openai/clip-vit-base-patch32", "MIT", 87_456_000, 768, 12),
    _hub("openai/clip-vit-large-patch14", "MIT", 303_179_776, 1024, 24),
    _hub("google/siglip2-base-patch16-224", "Apache-2.0", 92_884_224, 768, 12, pooling="pooler"),
    _hub("facebook/deit-base-distilled-patch16-224", "Apache-2.0", 85_800_192, 768, 12),
)
"""The models known by name; any other checkpoint of these families works too, by hub id or folder."""


def locate(name: str) -> ModelFiles:
    """Find a model's files: the packaged model, a local checkpoint folder, or a Hugging Face id, in this order.

    A hub model is looked for in the local cache first, without a network call. Reads the weights once, for their
    SHA-256 (2 GB/s). Raises ModelUnavailable where the files are missing and cannot be fetched, ModelUnsupported where
    they hold no safetensors weights, an adapter, or a config that cannot be used.
    """
    if name in _PACKAGES:
        package = _PACKAGES[name]
        folder = checkpoint_folder(package)
        return ModelFiles(
            name=name,
            folder=folder,
            weights=(folder / "model.safetensors",),
            weights_sha256=package.weights_sha256,
            config=read_tower_config(folder, name),
            card=_card(name),
        )
    path = _as_path(name)
    if name and path.is_dir():
        return _files(str(path.resolve()), path.resolve())
    if _looks_like_path(name) or (name and path.exists()):
        found = "is a file, not a folder" if path.exists() else "does not exist"
        raise ModelUnavailable(
            f"The model folder {name} {found}. --model PATH needs a folder with config.json, preprocessor_config.json "
            f"and model.safetensors. {_instead()}"
        )
    if not _HUB_ID.fullmatch(name) or "--" in name or ".." in name:
        near = difflib.get_close_matches(name, [card.name for card in REGISTRY], n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise ModelUnavailable(
            f"{name!r} is not a known model, a folder, or a Hugging Face id (owner/name). {meant}`lookalike models` "
            f"lists the known ones; --model PATH takes a checkpoint folder. {_instead()}"
        )
    return _files(name, _hub_folder(name))


def identified(files: ModelFiles, spaces: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """These recipes, after they were compared with the model found; complete where an older Lookalike made them.

    Raises ModelUnsupported where weights or config are not those that an index was built with.
    """
    found = files.config.sha256
    for recipe in spaces.values():
        if recipe.weights_sha256 != files.weights_sha256:
            raise ModelUnsupported(
                f"The index was built with weights {recipe.weights_sha256[:12]}... of {recipe.model}; those found in "
                f"{files.folder} are {files.weights_sha256[:12]}... Put the old ones back, or build a new index."
            )
        if recipe.config_sha256 not in (None, found):
            raise ModelUnsupported(
                f"The index was built with another config.json of {recipe.model} than the one found in {files.folder}: "
                "the same weights, but other attention heads, activation functions, biases or layer-norm epsilon. Put "
                "the old one back, or build a new index."
            )
    return {name: replace(recipe, config_sha256=found) for name, recipe in spaces.items()}


def is_folder(name: str) -> bool:
    """Tell whether a recipe's model is a folder, wherever it lies now, rather than a name."""
    return Path(name).is_absolute()


def _as_path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return Path(name)


def _looks_like_path(name: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return name.startswith((*separators, "~")) or name in (".", "..") or bool(re.match(r"\.{1,2}[/\\]", name))


def _instead() -> str:
    return f"The packaged model needs no download: --model {PACKAGED.name}."


def _files(name: str, folder: Path) -> ModelFiles:
    if not (folder / "config.json").is_file():
        refuse_adapter(folder, name)  # which has no config.json of its own
    config = read_tower_config(folder, name)
    weights = weight_files(folder, name)
    return ModelFiles(
        name=name, folder=folder, weights=weights, weights_sha256=weights_hash(weights), config=config, card=_card(name)
    )


def _card(name: str) -> ModelCard | None:
    return next((card for card in REGISTRY if card.name == name), None)


def is_installed(card: ModelCard) -> bool:
    """Whether a packaged model's package is there. Imports nothing."""
    return _PACKAGES[card.name].is_installed()


def lacks_package(name: str) -> str | None:
    """How to install a packaged model that is not at hand; None for all others. Imports nothing."""
    package = _PACKAGES.get(name)
    return None if package is None or is_at_hand(package) else f"Install it with `{package.install}`."


def how_to_install(card: ModelCard) -> str:
    """A sentence that says how to install a packaged model's package."""
    return f"Install it with `{_PACKAGES[card.name].install}`."


def _hub_folder(name: str) -> Path:
    """The hub snapshot's folder, from the cache or the network."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        cached = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
        if _is_complete(cached):
            return cached
    except (OSError, ValueError):  # not in the cache, or only a part of it
        pass
    except RuntimeError as error:  # of a path that begins with ~
        raise _unavailable(
            name, "there is no folder to keep it in, because this user has no home folder here (set HF_HOME)"
        ) from error
    if _offline():
        raise _unavailable(name, "it is not in the local cache, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")
    try:
        HfApi().repo_info(name, timeout=HUB_TIMEOUT)  # snapshot_download itself may wait for minutes
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, etag_timeout=HUB_TIMEOUT))
    except Exception as error:  # the hub client raises its own, its HTTP library's and the system's errors
        raise _unavailable(name, _reason(error)) from error


def _is_complete(folder: Path) -> bool:
    """Tell whether a cached snapshot is complete; an interrupted download is not."""
    if adapter_files(folder):
        return True  # which is refused: no download would change that
    if not (folder / "config.json").is_file():
        return False
    try:
        return bool(weight_files(folder, folder.name))
    except (ModelUnavailable, ModelUnsupported):
        return False


def _offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "its owner asks for a login there (set HF_TOKEN)"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no public model of that name"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answers with HTTP {error.response.status_code}"
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        return f"its cache cannot be written ({error.strerror}; set HF_HOME to a folder with room)"
    return f"the hub cannot be reached ({type(error).__name__})"


def _unavailable(name: str, reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{name} cannot be fetched from Hugging Face: {reason}. Copy the checkpoint to this machine and use --model "
        f"PATH. {_instead()}"
    )
