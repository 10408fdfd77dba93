"""A sentence encoder: words in, one unit-length embedding a text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoders.families import quiet_transformers
from search.vectors import normalise

MAX_CHARACTERS = 2_000
"""Of a text that are read."""
MAX_TOKENS = 128
"""Of a text, of the 512 that the model takes: a question is a sentence or two, and time grows with its length."""
PREFIX = "query: "
"""Before each text, as E5 was trained."""
BATCH = 64
_WORDS = "embeddings.word_embeddings.weight"


class SentenceEncoder:
    """Multilingual E5: the mean of the last layer's tokens. One caller at a time."""

    def __init__(self, folder: Path) -> None:
        """folder: of a converted checkpoint: config.json, model.safetensors and tokenizer.json."""
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        stored = load_file(folder / "model.safetensors")
        self._words = stored.pop(_WORDS)  # 192 MB in float16, of which only the rows of a text's words are read
        config = BertConfig.from_json_file(folder / "config.json")
        config.vocab_size, config.pad_token_id = 1, 0
        with quiet_transformers():
            self._model = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
        stored[_WORDS] = torch.zeros(1, config.hidden_size)
        self._model.load_state_dict({name: tensor.float() for name, tensor in stored.items()})

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts of any language: (n, dim) float32, rows of unit length."""
        found = [self._encoded(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return normalise(np.concatenate(found))

    def _encoded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer.encode_batch([PREFIX + _readable(text) for text in texts])
        ids = torch.tensor([one.ids for one in tokens])
        mask = torch.tensor([one.attention_mask for one in tokens])
        with torch.inference_mode():
            states = self._model(inputs_embeds=self._words[ids].float(), attention_mask=mask).last_hidden_state
            pooled: NDArray[np.float32] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
        return pooled


def _readable(text: str) -> str:
    """A text that the tokenizer takes: not too long, without halves of characters."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
