"""The text towers of checkpoints that were trained with texts: a text in, its embedding among the images' out."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoders.families import (
    few,
    is_of_texts,
    open_config,
    open_model,
    quiet_transformers,
    sentence,
    tensor_names,
)
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import ModelFiles, identified, is_folder, locate
from indexer.text_files import CLIP_END, VOCABULARIES, has_tokenizer, needs_sentencepiece, text_sha256
from indexer.tower_config import read_text_config
from search.recipe import Recipe
from search.vectors import normalise

BATCH = 64
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _lower(text: str) -> str:
    return text.lower()


def _canonical(text: str) -> str:
    """As SigLIP's first checkpoints were trained: lower case, without ASCII punctuation, single spaces."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


@dataclass(frozen=True, kw_only=True)
class TextFamily:
    """How a family's texts were prepared in training.

    model_class: in `transformers`, of both towers. most_tokens: of a text, its special ones counted, where that is less
    than the positions that the tower has. padded: always to the full length. masked: padding is not attended to.
    ends: the embedding is read at the tokenizer's end-of-text token.
    """

    model_class: str
    most_tokens: int | None = None
    padded: bool = False
    masked: bool = True
    ends: bool = False


TEXT_FAMILIES: Mapping[str, TextFamily] = MappingProxyType(
    {
        "clip": TextFamily(model_class="CLIPModel", ends=True),
        "metaclip_2": TextFamily(model_class="MetaClip2Model", ends=True),
        "siglip": TextFamily(model_class="SiglipModel", padded=True, masked=False),
        # BERT and XLM-R have positions for 512 tokens, of which the training saw so many.
        "chinese_clip": TextFamily(model_class="ChineseCLIPModel", most_tokens=52),
        "altclip": TextFamily(model_class="AltCLIPModel", most_tokens=77),
        "tipsv2": TextFamily(model_class="Tipsv2Model", padded=True),
    }
)
"""By `model_type` of a checkpoint's config.json."""


class TextTower:
    """Embeds texts with a checkpoint's own text tower and tokenizer. One caller at a time."""

    def __init__(self, files: ModelFiles) -> None:
        """files: of a checkpoint with two towers. Raises ModelUnsupported where texts cannot be embedded with it."""
        self._name = files.name
        self._family = TEXT_FAMILIES[files.config.model_type]
        self._tokenizer = _open_tokenizer(files)
        self._prepare = _preparation(files)
        self._model = _load(files, self._family)
        config = self._model.config.text_config
        self._vocabulary = int(config.vocab_size)
        positions = int(config.max_position_embeddings)
        self._most_tokens = min(positions, self._family.most_tokens or positions)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dim) float32, rows of unit length. What is beyond the tower's length is not read.

        Raises ValueError for a text without a word, ModelUnsupported where the tokenizer is another model's.
        """
        for text in texts:
            if not text.strip():
                raise ValueError("A text must not be empty.")
        found = [self._encoded(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return normalise(np.concatenate(found))

    def _encoded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # A list of strings, and nothing else: no library underneath may take one for the name of a file.
        whole = [self._prepare(text.encode("utf-8", "replace").decode("utf-8")) for text in texts]
        tokens = self._tokenizer(
            whole,
            padding="max_length" if self._family.padded else "longest",
            truncation=True,
            max_length=self._most_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = tokens["input_ids"], tokens["attention_mask"] if self._family.masked else None
        if int(ids.max()) >= self._vocabulary:
            raise _foreign(self._name, f"gives token {int(ids.max())}, where the model knows {self._vocabulary}")
        with torch.inference_mode():
            answer = self._model.get_text_features(input_ids=ids, attention_mask=mask)
        pooled: NDArray[np.float32] = answer.pooler_output.float().numpy()
        return pooled


def load_text_tower(recipe: Recipe) -> TextTower:
    """The text tower that a space's texts are embedded with. Takes seconds.

    Raises ModelUnavailable where the checkpoint is not found, ModelUnsupported where it is not the one that the space
    was made with, its tokenizer included.
    """
    assert recipe.text_sha256 is not None
    try:
        files = locate(recipe.model)
    except ModelUnavailable as error:
        if not is_folder(recipe.model) or Path(recipe.model).exists():
            raise
        raise ModelUnavailable(
            f"The model whose text tower words are looked up with is not at {recipe.model} any more. Put it back, or "
            "say where it lies now: lookalike build PHOTOS --index INDEX --model FOLDER"
        ) from error
    identified(files, {"": recipe})
    if text_sha256(files.folder, files.config.model_type, files.name) != recipe.text_sha256:
        raise ModelUnsupported(
            f"The tokenizer in {files.folder}, or the text_config of its config.json, is not the one that the space "
            "was made with. Put the old files back, or drop the space and add it again: lookalike spaces INDEX add "
            "--words."
        )
    return TextTower(files)


def has_text_tower(files: ModelFiles) -> bool:
    """Tell whether texts can be looked up with a checkpoint's own text tower."""
    return is_of_texts(files) and lacks_for_texts(files) is None


def lacks_for_texts(files: ModelFiles) -> str | None:
    """What a checkpoint of a two-tower family lacks for looking texts up, in a sentence; None where it lacks nothing,
    or was not made for texts."""
    if not is_of_texts(files):
        return None
    if not any(name.startswith("text_") for name in tensor_names(files)):
        return f"The weights of {files.name} hold no text tower."
    if not has_tokenizer(files.folder):
        fetch = f"Fetch it: hf download {files.name}."
        copy = "Copy the tokenizer's files of the model that it was trained from into its folder."
        return f"{files.name} has no tokenizer ({', '.join(VOCABULARIES)}). {copy if is_folder(files.name) else fetch}"
    return _tokenizer_fault(files, text_sha256(files.folder, files.config.model_type, files.name))


@lru_cache(maxsize=8)
def _tokenizer_fault(files: ModelFiles, identity: str) -> str | None:
    """What is wrong with a tokenizer, which takes seconds to find out. identity: its `text_sha256`."""
    del identity
    try:
        _open_tokenizer(files)
    except ModelUnsupported as error:
        return str(error)
    return None


def _open_tokenizer(files: ModelFiles) -> Any:
    """A checkpoint's own tokenizer. Raises ModelUnsupported."""
    import transformers

    if needs_sentencepiece(files.folder) and find_spec("sentencepiece") is None:
        raise ModelUnsupported(
            f"The tokenizer of {files.name} needs a package: pip install sentencepiece protobuf. Or save it once where "
            "that is installed, as tokenizer.json."
        )
    # As it is written, where it is: SigLIP's own class wants another package, and Gemma's pads on the other side.
    written = files.config.model_type == "siglip" and (files.folder / "tokenizer.json").is_file()
    kind = transformers.PreTrainedTokenizerFast if written else transformers.AutoTokenizer
    try:
        with quiet_transformers():
            tokenizer = kind.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
            tokenizer(["a", "a b"], padding=True)
    except Exception as error:  # whatever a broken file makes its reader trip over
        raise ModelUnsupported(f"The tokenizer of {files.name} cannot be used: {sentence(error)}") from error
    if TEXT_FAMILIES[files.config.model_type].ends:  # else another token is taken for the end, silently the first
        end = read_text_config(files.folder, files.name).get("eos_token_id", CLIP_END)
        largest = end == 2 and files.config.model_type == "clip"  # as its first checkpoints have it, whatever it says
        if not largest and end != tokenizer.eos_token_id:
            raise _foreign(files.name, f"ends texts with token {tokenizer.eos_token_id}, and the model with {end}")
    return tokenizer


def _foreign(name: str, why: str) -> ModelUnsupported:
    return ModelUnsupported(f"The tokenizer of {name} is another model's: it {why}. Get the checkpoint's own.")


def _preparation(files: ModelFiles) -> Callable[[str], str]:
    """What becomes of a text before it is tokenized, where the tokenizer may leave that out."""
    if files.config.model_type != "siglip":
        return str
    path = files.folder / "tokenizer_config.json"
    try:
        written = json.loads(path.read_bytes()) if path.is_file() else {}
        kind, lower = written.get("tokenizer_class", ""), written.get("do_lower_case", True)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelUnsupported(f"The tokenizer_config.json of {files.name} cannot be read.") from error
    if not lower:
        return str
    return _canonical if kind == "SiglipTokenizer" else _lower


def _load(files: ModelFiles, family: TextFamily) -> Any:
    """Both towers as transformers has them, that of the images without a block. Raises ModelUnsupported.

    A text tower alone is not loaded: of two families, transformers would leave every weight random.
    """
    config = open_config(files)
    config.vision_config.num_hidden_layers = 0
    model, report = open_model(files, family.model_class, config, "text tower")
    lacking = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    if bad := sorted(name for name in lacking if name.startswith("text_")):
        raise ModelUnsupported(
            f"{files.name}: the text tower lacks {few(bad)} (missing, or of another shape than its config.json says). "
            "Get the complete checkpoint."
        )
    if bad := sorted(name for name in report["unexpected_keys"] if _is_of_text(name)):
        raise ModelUnsupported(
            f"{files.name}: the text tower holds {few(bad)}, for which its config.json has no use. Get the config.json "
            "that belongs to these weights."
        )
    return model.eval().requires_grad_(False)


def _is_of_text(name: str) -> bool:
    return name.startswith("text_") and not name.endswith("position_ids") and ".pooler." not in name
