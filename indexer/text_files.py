"""What a checkpoint's texts depend on besides its weights: the tokenizer's files and the text tower's configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from indexer.tower_config import read_text_config

_SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCEPIECE)
"""One of them is there where there is a tokenizer. Without any, transformers makes one of its own, of five words."""
TOKENIZER_FILES = (
    *VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""All that transformers reads for a tokenizer of the families that we run."""

CLIP_END = 49407
"""The end-of-text token of CLIP, where its config.json leaves that out."""
_CLIP = {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": CLIP_END}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "clip": _CLIP,
        "metaclip_2": _CLIP,
        "siglip": {"num_attention_heads": 12, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        "chinese_clip": {"num_attention_heads": 12, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
        "altclip": {"num_attention_heads": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1},
        "tipsv2": {
            "num_attention_heads": 12,
            "hidden_act": "relu",
            "layer_norm_eps": 1e-5,
            "scale_sqrt_depth": True,
            "pooling_epsilon": 1e-8,
        },
    }
)
"""What changes a text's embedding although every weight keeps its name and shape, with transformers' defaults."""


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a checkpoint's folder holds a vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def needs_sentencepiece(folder: Path) -> bool:
    """Tell whether a tokenizer can be read with the package sentencepiece alone."""
    return not any((folder / name).is_file() for name in VOCABULARIES if name not in _SENTENCEPIECE)


def text_sha256(folder: Path, model_type: str, name: str) -> str:
    """The SHA-256 of a checkpoint's tokenizer files, and of its text tower's configuration.

    model_type: one of `tower_config.TWO_TOWERS`. name: what the user calls the model. Raises ModelUnsupported.
    """
    written = read_text_config(folder, name)
    function: dict[str, Any] = {key: written.get(key, value) for key, value in _DEFAULTS[model_type].items()}
    for file in TOKENIZER_FILES:
        if (folder / file).is_file():
            function[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(function, sort_keys=True).encode()).hexdigest()
