"""The weights in a checkpoint folder: safetensors files that are complete, and nothing that would change them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from indexer.errors import ModelUnavailable, ModelUnsupported

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""How peft stores a LoRA. Where peft is installed, transformers applies it to the weights beside it; else not."""
LFS_POINTER = b"version https://git-lfs"

_VARIANT = re.compile(
    r"model\.(?P<single>[\w-]+?)(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.(?P<sharded>[\w-]+)\.json"
)


def weight_files(folder: Path, name: str) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, shards sorted by name. name: what the user calls the model.

    Raises ModelUnsupported where there are none, or an adapter would change them; ModelUnavailable where they are
    incomplete. Each says what was found instead, and how to make of it what can be read.
    """
    refuse_adapter(folder, name)
    if (folder / SINGLE).is_file():
        weights: tuple[Path, ...] = (folder / SINGLE,)
    elif (folder / INDEX).is_file():
        weights = _shards(folder, name)
    else:
        raise ModelUnsupported(_no_weights(folder, name))
    for path in weights:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelUnavailable(
                    f"{name} is incomplete: {path.name} is only a pointer of Git LFS. Fetch the file: git lfs pull."
                )
    return weights


def weights_hash(weights: tuple[Path, ...]) -> str:
    """The identity of weights: the SHA-256 of the one file; of several, that of the sorted lines
    `<sha256 of the file> <file name>\\n`."""
    hashes = [_sha256(path) for path in weights]
    if len(hashes) == 1:
        return hashes[0]
    lines = sorted(f"{digest} {path.name}\n" for digest, path in zip(hashes, weights, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def adapter_files(folder: Path) -> list[str]:
    """The names of an adapter's files in a folder."""
    return [file for file in ADAPTER_FILES if (folder / file).is_file()]


def refuse_adapter(folder: Path, name: str) -> None:
    """Raise ModelUnsupported where a folder is a LoRA adapter, or has one beside its weights."""
    found = adapter_files(folder)
    if not found:
        return
    base = _base_of(folder)
    alone = not any((folder / file).is_file() for file in (SINGLE, INDEX))
    merge = (
        'python -c "from peft import PeftModel; from transformers import AutoModel; PeftModel.from_pretrained('
        f"AutoModel.from_pretrained({base or 'BASE'!r}), {name if alone else 'ADAPTER'!r}).merge_and_unload()"
        ".save_pretrained('merged')\", copy the preprocessor_config.json of the model that it changes into merged, and "
        "use --model ./merged."
    )
    if alone:
        raise ModelUnsupported(
            f"{name} is an adapter ({found[0]}), not a model: it only changes another one{base and f', {base}'}. Merge "
            f"both once, where peft is installed: {merge}"
        )
    raise ModelUnsupported(
        f"{name} has a LoRA adapter beside its weights ({found[0]}). Whether it counts would depend on whether peft is "
        "installed. To use the weights without it, take the adapter's files out of the folder. To use it, move them to "
        f"a folder ADAPTER, and merge both once, where peft is installed: {merge}"
    )


def _base_of(folder: Path) -> str:
    try:
        base = json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return base if isinstance(base, str) else ""


def _shards(folder: Path, name: str) -> tuple[Path, ...]:
    try:
        names = sorted({str(shard) for shard in json.loads((folder / INDEX).read_bytes())["weight_map"].values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnsupported(f"{name} has a {INDEX} that cannot be read.") from error
    if not names:
        raise ModelUnsupported(f"{name} has a {INDEX} that names no weights. Get the complete checkpoint.")
    for shard in names:
        if shard != Path(shard).name or not (folder / shard).is_file():
            raise ModelUnavailable(f"{name} is incomplete: {shard}, named in {INDEX}, is missing.")
    return tuple(folder / shard for shard in names)


def _no_weights(folder: Path, name: str) -> str:
    """A sentence about what a folder has instead of weights that can be read, and what to do."""
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    for file in present:
        if variant := _VARIANT.fullmatch(file):
            kind = variant["single"] or variant["sharded"]
            return (
                f"{name} has no {SINGLE}, only the variant {kind} of its weights ({file}). Store it as the main one: "
                f"{_conversion(name, f', variant={kind!r}')}"
            )
    for file in present:
        if file.startswith("pytorch_model") and ".bin" in file:
            return (
                f"{name} has no {SINGLE}, and only safetensors weights are read (pickled ones such as {file} can run "
                f"code). Convert them once, where you trust them: {_conversion(name)}"
            )
    other = [file for file in present if Path(file).suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    other += [file for file in present if Path(file).suffix in (".h5", ".keras", ".msgpack", ".onnx", ".gguf")]
    if other:
        return (
            f"{name} has no {SINGLE}, and {other[0]} is not what transformers' save_pretrained writes for torch. Only "
            f"safetensors weights are read: get the checkpoint that has {SINGLE}, or load this one with the library "
            "that made it, and save it as a transformers model."
        )
    return (
        f"{name} has no {SINGLE}, and only safetensors weights are read. Get the complete checkpoint. Where it has "
        f"pickled weights only, which can run code, convert them once, where you trust them: {_conversion(name)}"
    )


def _conversion(name: str, options: str = "") -> str:
    return (
        f'python -c "from transformers import AutoModel; AutoModel.from_pretrained({name!r}{options})'
        ".save_pretrained('converted')\", copy preprocessor_config.json into converted, and use --model ./converted."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
