"""Models that need no hub: taken once out of the files of packages that carry them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from indexer.errors import ModelUnavailable

_ADVICE = "Set LOOKALIKE_CACHE to a folder that can be written, with 300 MB of room."

Tensors = dict[str, NDArray[Any]]
"""Float32 or float16, by name."""
_SAFE_DTYPES = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A model whose weights lie in a package for another purpose.

    name: what the user calls it. source: the package, for people. install: the command that installs it. file: the
    package's module, and the file's path in it; tensors: takes its bytes apart. weights_sha256: of the converted
    `model.safetensors`; the conversion is deterministic to the byte. preprocessor: None of a model that takes no
    images. otherwise: what users can do without it. made: files that are made of the package's bytes too, with their
    SHA-256.
    """

    name: str
    source: str
    install: str
    file: tuple[str, str]
    file_sha256: str
    weights_sha256: str
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any] | None = None
    tensors: Callable[[bytes], Tensors]
    otherwise: str = "A new index can use another one: --model PATH."
    made: Mapping[str, tuple[Callable[[bytes], bytes], str]] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """The checkpoint's files that are known before the package's is read."""
        known = {"config.json": self.config, "preprocessor_config.json": self.preprocessor}
        return {name: json.dumps(facts, indent=2).encode() for name, facts in known.items() if facts is not None}

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of its other files, by name."""
        return {"model.safetensors": self.weights_sha256} | {name: hash_ for name, (_, hash_) in self.made.items()}

    def is_installed(self) -> bool:
        """Whether its package is there. Imports nothing."""
        return _found(self) is not None


def checkpoint_folder(package: Package) -> Path:
    """A packaged model as a Hugging Face checkpoint folder, converted on first use and checked on every other.

    It lies in the user's cache (`$LOOKALIKE_CACHE`, else `lookalike` in `$XDG_CACHE_HOME` or `~/.cache`); a damaged
    copy is replaced. Several processes may call this at once. Raises ModelUnavailable without the package, with another
    version's file, or where the cache cannot be written.
    """
    folder = _cached_folder(package)
    models = folder.parent
    if _is_intact(folder, package):
        return folder
    file = _file_of(package)
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{folder.name}.lock"):
            if not _is_intact(folder, package):  # another process may have been first
                _replace(folder, package, file)
    except OSError as error:
        raise ModelUnavailable(
            f"The cache folder {models} cannot be written ({error.strerror or type(error).__name__}). {_ADVICE}"
        ) from error
    return folder


def is_at_hand(package: Package) -> bool:
    """Whether `checkpoint_folder` needs nothing that is not there: the package, or else a copy that it made before."""
    return package.is_installed() or _is_intact(_cached_folder(package), package)


def _cached_folder(package: Package) -> Path:
    # a changed conversion gets a folder of its own
    return cache_folder() / "models" / f"{package.name}-{package.weights_sha256[:16]}"


def cache_folder() -> Path:
    """The folder for files that can be made again: `$LOOKALIKE_CACHE`, else the user's cache folder.

    Raises ModelUnavailable where neither is known: a user without a home, as in `docker run --user 955`.
    """
    try:
        if own := os.environ.get("LOOKALIKE_CACHE"):
            return Path(own).expanduser().absolute()
        base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
        return Path(base or "~/.cache").expanduser() / "lookalike"
    except RuntimeError as error:
        raise ModelUnavailable(f"There is no cache folder: this user has no home folder here. {_ADVICE}") from error


def _is_intact(folder: Path, package: Package) -> bool:
    try:
        if any((folder / name).read_bytes() != text for name, text in package.files.items()):
            return False
        return all(_sha256(folder / name) == hash_ for name, hash_ in package.hashes.items())
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # of 88 MB: 50 ms


def _found(package: Package) -> Path | None:
    module, name = package.file
    spec = importlib.util.find_spec(module)  # finds, does not import: its dependencies are not installed
    folders = spec.submodule_search_locations if spec is not None else None
    return next((path for folder in folders or () if (path := Path(folder) / name).is_file()), None)


def _file_of(package: Package) -> Path:
    path = _found(package)
    if path is None:
        raise ModelUnavailable(
            f"The packaged model {package.name} is not installed. Install it with `{package.install}`. "
            f"{package.otherwise}"
        )
    return path


def _read(package: Package, file: Path) -> bytes:
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != package.file_sha256:
        raise ModelUnavailable(
            f"{file} is not the file of {package.source} (SHA-256 {package.file_sha256[:12]}... expected, "
            f"{found[:12]}... found). Reinstall it with `{package.install} --force-reinstall`."
        )
    return data


def _replace(folder: Path, package: Package, file: Path) -> None:
    """Convert into a folder beside `folder`, then put it in its place. Under the lock of `checkpoint_folder`."""
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in package.files.items():
            (staging / name).write_bytes(text)
        data = _read(package, file)
        for name, (make, _) in package.made.items():
            (staging / name).write_bytes(make(data))
        write_safetensors(staging / "model.safetensors", package.tensors(data))
        if not _is_intact(staging, package):
            raise ModelUnavailable(
                f"Converting {file} gave other weights than expected. Reinstall the package, numpy and onnx, or use "
                "another model with --model PATH."
            )
        staging.chmod(0o755)  # mkdtemp's folders are private; a shared cache is not
        shutil.rmtree(folder, ignore_errors=True)  # only ever a damaged one
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write tensors in the safetensors format, in the order of their names.

    By hand, because the file's SHA-256 is a constant of ours and the library promises no order of bytes. Format:
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _SAFE_DTYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            file.write(np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).tobytes())
