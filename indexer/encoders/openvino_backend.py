"""The encoder on OpenVINO: faster than torch on CPUs, and without importing torch once a model is exported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from filelock import FileLock
from numpy.typing import NDArray

from indexer.encoders.encoder import Precision
from indexer.encoders.taps import Tap, TapEncoder, all_taps
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.machine import cores
from indexer.models import ModelFiles, identified
from indexer.packaged.package import cache_folder
from search.errors import StorageFailed
from search.files import make_folder, storage_errors, sync
from search.recipe import Preprocessing, Recipe

FORMAT = 3
"""The version of exported models in the cache: counts up when `tower` changes them."""
BATCH, STREAM_BATCH, CORE_BATCH = 8, 2, 4
"""Images of one inference: on all cores, of one core's stream in a build, and of one core in a server, whose thread has
more to do between two. More gain nothing, and take longer to wait for."""
STREAM_IMAGES = 32
"""Images that one call gives each stream: two seconds' work, after which one stream waits for the other."""
KEPT_EXPORTS = 12
"""A model, its companion, the regions of that with and without views, its places, and the patches of the model: each as
two indexes need some."""
GROUP = 128
"""Consecutive input channels that share a scale in int8, in weights and, token by token, in activations."""
XML, WEIGHTS, MANIFEST = "model.xml", "model.bin", "manifest.json"


class OpenVinoEncoder(TapEncoder):
    """An `Encoder` that runs an exported tower on the CPU. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        model: openvino.Model,
        spaces: Mapping[str, Recipe],
        *,
        precision: Precision,
        batch_size: int | None = None,
        throughput: bool = False,
    ) -> None:
        """model: with an output for every tap of the spaces, named as the tap; for int8, as `int8.quantise` gives it.

        throughput: one inference a core, side by side: for builds, 10% faster than all cores on each, which answers a
        single image sooner, and with the views that queries need.
        """
        super().__init__(
            spaces,
            precision=precision,
            batch_size=batch_size or (STREAM_BATCH if throughput else BATCH),
            views=not throughput,
        )
        wanted = [model.output(tap.name) for tap in self._taps]
        used = openvino.Model([output.node for output in wanted], model.get_parameters())
        self._throughput = throughput
        self._streams = cores() if throughput else 1
        compiled = self._compiled(used, self._streams)
        self._model = None if throughput else used  # for `per_core`
        self._runs: openvino.AsyncInferQueue | openvino.InferRequest = (
            openvino.AsyncInferQueue(compiled, self._streams) if throughput else compiled.create_infer_request()
        )

    def per_core(self) -> Sequence[OpenVinoEncoder]:
        """Encoders of the same model on one core each; none on a single core, or where all cores work side by side."""
        streams = cores()
        if streams == 1 or self._model is None:
            return ()
        compiled, found = self._compiled(self._model, streams), []
        for _ in range(streams):
            one = copy(self)
            one._model, one._runs, one._batch_size = None, compiled.create_infer_request(), CORE_BATCH
            found.append(one)
        return found

    def _compiled(self, model: openvino.Model, streams: int) -> openvino.CompiledModel:
        options = {
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "bf16" if self._precision != "fp32" and _has_bf16() else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if self._precision == "int8" else 0,
            "ENABLE_CPU_PINNING": False,  # decoding, and other processes, need the same cores
        }
        return openvino.Core().compile_model(model, "CPU", options)

    @property
    def batch_size(self) -> int:
        """The number of images in a batch: several inferences a stream, so that none waits long for the others."""
        return max(self._batch_size, STREAM_IMAGES) * self._streams if self._throughput else self._batch_size

    @property
    def backend(self) -> str:
        """The name of this backend."""
        return "openvino"

    def _run(self, batches: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        answers: dict[int, list[NDArray[np.float32]]] = {}

        def keep(request: Any, number: int) -> None:
            answers[number] = [np.array(request.get_output_tensor(column).data) for column in range(len(self._taps))]

        if isinstance(self._runs, openvino.AsyncInferQueue):
            self._runs.set_callback(keep)
            for number, batch in enumerate(batches):
                self._runs.start_async({0: np.ascontiguousarray(batch)}, number)
            self._runs.wait_all()
        else:
            for number, batch in enumerate(batches):
                self._runs.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)
                keep(self._runs, number)
        return [answers[number] for number in range(len(batches))]


def load_recipes(
    files: ModelFiles,
    spaces: Mapping[str, Recipe],
    *,
    precision: Precision,
    batch_size: int | None = None,
    throughput: bool = False,
) -> OpenVinoEncoder:
    """The encoder of these recipes, by the names of their spaces, in fp32 or bf16; exports the model on first use.

    Raises ModelUnsupported where weights or config are not those of the recipes.
    """
    known = identified(files, spaces)
    recipes = tuple(known.values())
    model = exported(files, all_taps(recipes, views=not throughput), recipes[0].preprocessing)
    return OpenVinoEncoder(model, known, precision=precision, batch_size=batch_size, throughput=throughput)


def load_stored(
    folder: Path, spaces: Mapping[str, Recipe], *, batch_size: int | None = None, throughput: bool = False
) -> OpenVinoEncoder:
    """The int8 encoder that lies inside an index. Raises ModelUnsupported where it is missing or damaged."""
    model = read_model(folder)
    if model is None:
        raise ModelUnsupported(
            f"The index's int8 encoder {folder} is missing or damaged. Restore it from a backup, or build a new index."
        )
    return OpenVinoEncoder(model, spaces, precision="int8", batch_size=batch_size, throughput=throughput)


def precision_for(name: str) -> Precision:
    """`auto` is bf16 where the CPU has it, else fp32. Raises ModelUnsupported."""
    if name == "fp16":
        raise ModelUnsupported("fp16 is for GPUs. On the CPU use --precision bf16, or auto.")
    if name == "bf16" and not _has_bf16():
        raise ModelUnsupported("This CPU does not compute in bf16. Use --precision fp32, or auto.")
    return "bf16" if name == "bf16" or (name == "auto" and _has_bf16()) else "fp32"


def _has_bf16() -> bool:
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def exported(files: ModelFiles, taps: Sequence[Tap], preprocessing: Preprocessing) -> openvino.Model:
    """A tower as an OpenVINO model in float32: from the cache, or exported from torch into it.

    The cache keeps the KEPT_EXPORTS that were used last: one is four bytes for each parameter of the model.
    """
    made_by = [FORMAT, openvino.get_version(), version("torch"), version("transformers")]
    model = [files.weights_sha256, _sha256(files.folder / "config.json"), [tap.name for tap in taps]]
    shape = [preprocessing.size, preprocessing.mean, preprocessing.std]
    key = hashlib.sha256(json.dumps([*made_by, *model, *shape]).encode()).hexdigest()[:32]
    stored = None
    try:
        exports = cache_folder() / "exports"
        folder = exports / key
        exports.mkdir(parents=True, exist_ok=True)
        with FileLock(exports / "lock"):
            stored = read_model(folder)
            if stored is None:
                stored = _export(files, taps, preprocessing)
                write_model(stored, exports, key)
            os.utime(folder)
            for old in sorted(filter(Path.is_dir, exports.iterdir()), key=lambda path: -path.stat().st_mtime)[
                KEPT_EXPORTS:
            ]:
                shutil.rmtree(old, ignore_errors=True)
    except (OSError, StorageFailed, ModelUnavailable):  # no room, no right, no home: it works without a cache
        pass
    return _export(files, taps, preprocessing) if stored is None else stored


def _export(files: ModelFiles, taps: Sequence[Tap], preprocessing: Preprocessing) -> openvino.Model:
    from indexer.encoders.families import open_checkpoint  # imports torch: only where there is something to export
    from indexer.encoders.tower import open_tower

    return convert(open_tower(open_checkpoint(files), taps, preprocessing), taps, preprocessing.size)


def convert(tower: Any, taps: Sequence[Tap], size: int) -> openvino.Model:
    """A tower as an OpenVINO model: (n, size, size, 3) uint8 in, for any n; one output a tap, named as the tap."""
    import torch

    with warnings.catch_warnings():  # of tracing: about other shapes than ours, and about torch's plans
        warnings.simplefilter("ignore")
        model = openvino.convert_model(tower, example_input=torch.zeros(2, size, size, 3, dtype=torch.uint8))
    model.reshape({0: [-1, size, size, 3]})
    for output, tap in zip(model.outputs, taps, strict=True):
        output.get_tensor().set_names({tap.name})
    return model


def write_model(model: openvino.Model, parent: Path, name: str | None = None) -> Path:
    """Store a model durably in a new folder, named by its SHA-256 if not otherwise. Returns the folder.

    It appears complete or not at all. Raises StorageFailed.
    """
    with storage_errors(parent):
        make_folder(parent)
        draft = Path(tempfile.mkdtemp(dir=parent))
        try:
            openvino.save_model(model, draft / XML, compress_to_fp16=False)
            manifest = json.dumps({name: _sha256(draft / name) for name in (XML, WEIGHTS)}).encode()
            (draft / MANIFEST).write_bytes(manifest)
            draft.chmod(0o755)  # mkdtemp makes it its owner's alone, but a server may be somebody else
            for path in (*draft.iterdir(), draft):
                sync(path)
            folder = parent / (name or hashlib.sha256(manifest).hexdigest())
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or the very same
            draft.rename(folder)
            sync(parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return folder


def read_model(folder: Path) -> openvino.Model | None:
    """A stored model; None where it is missing, incomplete or not what was stored."""
    try:
        hashes = json.loads((folder / MANIFEST).read_bytes())
        if any(_sha256(folder / name) != hashes[name] for name in (XML, WEIGHTS)):
            return None
        return openvino.Core().read_model(folder / XML)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
