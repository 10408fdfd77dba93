"""Which words fit an image: from a classifier's features to a vector of a sentence encoder's kind.

Two guesses, added: the expected sentence of the likeliest classes (Norouzi et al., "Zero-Shot Learning by Convex
Combination of Semantic Embeddings", arXiv:1312.5650), and a linear map that was learned from named drawings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.aligned import AlignedHead, Head, Tensors, is_aligned, read_aligned, tensors_of
from indexer.errors import ModelUnsupported
from indexer.models import locate
from indexer.packaged.e5 import E5
from indexer.packaged.efficientnet import EFFICIENTNET
from indexer.packaged.package import checkpoint_folder, write_safetensors
from search.files import make_folder, storage_errors, sync
from search.recipe import Recipe, Words
from search.types import Space
from search.vectors import normalise

if TYPE_CHECKING:
    from indexer.encoders.sentences import SentenceEncoder

Floats = NDArray[np.float32]
HEAD = Path(__file__).parent.parent / "packaged" / "words.safetensors"
"""Made by `benchmarks/words_head.py`, which says from what."""


@dataclass(frozen=True, kw_only=True)
class WordsHead:
    """classifier (classes, features), bias (classes,): the network's own last layer, of features as long as `length`;
    classes (classes, dim): each class's sentence; map (features, dim) and mean (features,): of the linear map; turn
    (dim, dim): from both to vectors of the sentence encoder's kind, None where they are such already."""

    classifier: Floats
    bias: Floats
    classes: Floats
    map: Floats
    mean: Floats
    turn: Floats | None
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
        both = (1 - self.share) * recognised + self.share * mapped
        return normalise(both if self.turn is None else both @ self.turn)


class TextEncoder(Protocol):
    """Embeds texts for a space of words. One caller at a time."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts: (n, dim) float32 of unit length."""


class CentredSentences:
    """Embeds texts with a sentence encoder, for a space of what a network recognises."""

    def __init__(self, sentences: TextEncoder, centre: Floats) -> None:
        """centre: what the embeddings of all sentences have in common, (dim,)."""
        self._sentences = sentences
        self._centre = centre

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts of any language: (n, dim) float32 of unit length."""
        return normalise(self._sentences.encode(texts) - self._centre)


def spaces_of_words(spaces: Sequence[Space]) -> list[Space]:
    """Those in which words are looked up, the best first: complete ones; of these, those of a model that was trained
    with texts, then what an index learned last, then what is known without learning."""
    trained = [space for space in spaces if space.recipe.text_sha256 is not None]
    told = [space for space in reversed(spaces) if space.recipe.words is not None]
    told.sort(key=lambda space: space.recipe.words is not None and space.recipe.words.head_sha256 == head_sha256())
    return sorted([*trained, *told], key=lambda space: not space.complete)


def load_sentences() -> SentenceEncoder:
    """The one sentence encoder that this version knows. Takes seconds, and 500 MB. Raises ModelUnavailable."""
    from indexer.encoders.sentences import SentenceEncoder  # imports torch

    return SentenceEncoder(checkpoint_folder(E5))


def load_text_encoder(recipe: Recipe, models: Path, sentences: TextEncoder | None = None) -> TextEncoder:
    """The encoder of what is looked up in a space of words. models: the index's folder of that name. sentences: the
    sentence encoder; None loads it.

    Raises ModelUnavailable where its package is not installed or its checkpoint not found, ModelUnsupported where that
    is another one, or another version's.
    """
    if recipe.text_sha256 is not None:
        from indexer.encoders.text_towers import load_text_tower  # imports torch

        return load_text_tower(recipe)
    centre = _stored(recipe, models)["centre"]
    return CentredSentences(sentences or load_sentences(), centre)


def head_sha256() -> str:
    """The SHA-256 of the head that this version has."""
    return _known_sha256(HEAD)


@cache
def _known_sha256(path: Path) -> str:
    return _sha256(path)


def packaged_centre() -> Floats:
    """What the embeddings of all sentences have in common, (dim,)."""
    centre: Floats = _packaged()["centre"]
    return centre


def packaged_head(recipe: Recipe) -> WordsHead | None:
    """This version's head, for the features with which a recipe's embeddings end; None where they are no classifier's.

    Raises ModelUnavailable.
    """
    network = recipe.companion or recipe
    # Its statistics, which tell a style, are not what its last layer classifies.
    if network.weights_sha256 != EFFICIENTNET.weights_sha256 or network.pooling != "mean":
        return None
    return _recognition(_packaged(), locate(network.model).weights)


def keep_head(head: AlignedHead, recipe: Recipe, models: Path) -> Recipe:
    """Store a head durably in an index, and return the recipe of the space that it fills. recipe: of its features.
    models: the index's folder of that name. Raises StorageFailed."""
    packaged = _packaged()
    stored = packaged if head.recognition is not None else {"centre": packaged["centre"]}
    with storage_errors(models):
        make_folder(models)
        draft = models / f"words-{os.getpid()}.part"
        write_safetensors(draft, stored | tensors_of(head))
        words = Words(
            encoder=E5.name,
            encoder_sha256=E5.weights_sha256,
            head_sha256=_sha256(draft),
            features=recipe.dim,
        )
        sync(draft)
        draft.replace(models / words.kept_as)
        sync(models)
    return replace(recipe, words=words, dim=E5.config["hidden_size"])


def _packaged() -> Tensors:
    from safetensors.numpy import load_file

    return load_file(HEAD)


def is_known(recipe: Recipe, models: Path) -> bool:
    """Whether a space's vectors can be computed, and its words looked up, by this version. models: as above."""
    words = recipe.words
    return words is None or (words.encoder_sha256 == E5.weights_sha256 and _head_file(words, models) is not None)


def load_head(recipe: Recipe, models: Path) -> Head:
    """The head of a space of words. models: the index's folder of that name.

    Raises ModelUnsupported where the head is not there, ModelUnavailable where its network is not.
    """
    stored = _stored(recipe, models)
    recognition = None
    if "classes" in stored:
        network = recipe.source.companion or recipe.source
        recognition = _recognition(stored, locate(network.model).weights)
    if not is_aligned(stored):
        assert recognition is not None
        return recognition
    return read_aligned(stored, recipe.parts, recognition)


def _recognition(stored: Tensors, network: Sequence[Path]) -> WordsHead:
    """network: the classifier's weights."""
    from safetensors.numpy import load_file

    classifier = {name: tensor for file in network for name, tensor in load_file(file).items()}
    length, temperature, likeliest, share = stored["figures"].tolist()
    return WordsHead(
        classifier=classifier["classifier.weight"],
        bias=classifier["classifier.bias"],
        classes=stored["classes"].astype(np.float32),
        map=stored["map"].astype(np.float32),
        mean=stored["mean"].astype(np.float32),
        # What older versions learned from captions has none.
        turn=stored["turn"].astype(np.float32) if "turn" in stored else None,
        length=length,
        temperature=temperature,
        likeliest=int(likeliest),
        share=share,
    )


def _stored(recipe: Recipe, models: Path) -> Tensors:
    from safetensors.numpy import load_file

    words = recipe.words
    assert words is not None
    file = _head_file(words, models)
    if words.encoder_sha256 != E5.weights_sha256 or file is None:
        raise ModelUnsupported(
            "The index's space of words was made by another version of Lookalike, or has lost its head. Drop the space "
            "and add it again: lookalike spaces INDEX drop words, then lookalike spaces INDEX add --words."
        )
    return load_file(file)


def _head_file(words: Words, models: Path) -> Path | None:
    """The file of a head: this version's, or one that the index keeps. None where it is not there, or another."""
    if words.head_sha256 == head_sha256():
        return HEAD
    kept = models / words.kept_as
    return kept if kept.is_file() and _sha256(kept) == words.head_sha256 else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
