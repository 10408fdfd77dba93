"""Which words fit an image: from a classifier's features to a vector of a sentence encoder's kind.

Two guesses, added: the expected sentence of the likeliest classes (Norouzi et al., "Zero-Shot Learning by Convex
Combination of Semantic Embeddings", arXiv:1312.5650), and a linear map that was learned from named drawings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.errors import ModelUnsupported
from indexer.packaged.e5 import E5
from indexer.packaged.package import checkpoint_folder
from search.recipe import Recipe, Words
from search.vectors import normalise

if TYPE_CHECKING:
    from indexer.encoders.sentences import SentenceEncoder

Floats = NDArray[np.float32]
_AGAIN = "Drop the space and add it again: lookalike spaces INDEX drop words, then lookalike spaces INDEX add --words."
HEAD = Path(__file__).parent.parent / "packaged" / "words.safetensors"
"""Made by `benchmarks/words_head.py`, which says from what."""


@dataclass(frozen=True, kw_only=True)
class WordsHead:
    """classifier (classes, features), bias (classes,): the network's own last layer, of features as long as `length`;
    classes (classes, dim): each class's sentence; map (features, dim) and mean (features,): of the linear map."""

    classifier: Floats
    bias: Floats
    classes: Floats
    map: Floats
    mean: Floats
    length: float
    temperature: float
    likeliest: int
    share: float

    def __call__(self, features: Floats) -> Floats:
        """Embed features (n, features) of unit length: (n, dim) float32 of unit length."""
        logits = (self.length * features @ self.classifier.T + self.bias) / self.temperature
        least = np.partition(logits, -self.likeliest, axis=1)[:, -self.likeliest, None]
        weights = np.where(logits >= least, np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
        recognised = normalise(weights @ self.classes)
        mapped = normalise((features - self.mean) @ self.map)
        return normalise((1 - self.share) * recognised + self.share * mapped)


class TextEncoder(Protocol):
    """Embeds texts for a space of words. One caller at a time."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts: (n, dim) float32 of unit length."""


class CentredSentences:
    """Embeds texts with a sentence encoder, for a space of what a network recognises."""

    def __init__(self, sentences: SentenceEncoder, centre: Floats) -> None:
        """centre: what the embeddings of all sentences have in common, (dim,)."""
        self._sentences = sentences
        self._centre = centre

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts of any language: (n, dim) float32 of unit length."""
        return normalise(self._sentences.encode(texts) - self._centre)


def load_text_encoder(recipe: Recipe) -> TextEncoder:
    """The encoder of what is looked up in a space of words. Takes seconds.

    Raises ModelUnavailable where its package is not installed or its checkpoint not found, ModelUnsupported where that
    is another one, or another version's.
    """
    if recipe.text_sha256 is not None:
        from indexer.encoders.text_towers import load_text_tower  # imports torch

        return load_text_tower(recipe)
    from safetensors.numpy import load_file

    from indexer.encoders.sentences import SentenceEncoder  # imports torch

    words = recipe.words
    assert words is not None
    _check_head(words)
    if (words.encoder, words.encoder_sha256) != (E5.name, E5.weights_sha256):
        raise ModelUnsupported(
            f"This version of Lookalike does not know the sentence encoder {words.encoder}. {_AGAIN}"
        )
    return CentredSentences(SentenceEncoder(checkpoint_folder(E5)), load_file(HEAD)["centre"])


def head_sha256() -> str:
    """The SHA-256 of the head that this version has."""
    return hashlib.sha256(HEAD.read_bytes()).hexdigest()


def _check_head(words: Words) -> None:
    if head_sha256() != words.head_sha256:
        raise ModelUnsupported(f"The index's space of words was made by another version of Lookalike. {_AGAIN}")


def load_head(words: Words, network: Sequence[Path]) -> WordsHead:
    """The head of a space of words. network: the classifier's weights. Raises ModelUnsupported for another head."""
    from safetensors.numpy import load_file

    _check_head(words)
    stored = {name: tensor for file in (HEAD, *network) for name, tensor in load_file(file).items()}
    length, temperature, likeliest, share = stored["figures"].tolist()
    return WordsHead(
        classifier=stored["classifier.weight"],
        bias=stored["classifier.bias"],
        classes=stored["classes"].astype(np.float32),
        map=stored["map"].astype(np.float32),
        mean=stored["mean"].astype(np.float32),
        length=length,
        temperature=temperature,
        likeliest=int(likeliest),
        share=share,
    )
