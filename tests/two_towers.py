"""Tiny checkpoints of images and texts, one of each family, with the tokenizers that these families have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIZE = 32
FAMILIES = ("clip", "metaclip_2", "siglip", "siglip2", "chinese_clip", "altclip", "tipsv2")
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}


def _clip_words() -> dict[str, int]:
    ends = ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate([*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *ends])}


def _tokenizer(family: str, folder: Path) -> Any:
    """A tokenizer of single letters."""
    t = transformers
    if family == "clip":
        return t.CLIPTokenizer(vocab=_clip_words(), merges=[], model_max_length=77)
    if family in ("metaclip_2", "altclip"):
        special = [(word, 0.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
        letters = [(letter, -2.0) for letter in LETTERS]
        return t.XLMRobertaTokenizer(vocab=[*special, ("\u2581", -3.0), *letters, ("<mask>", 0.0)])
    if family == "chinese_clip":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u7ea2", *LETTERS, *(f"##{one}" for one in LETTERS)]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        return t.BertTokenizer(vocab=str(folder / "vocab.txt"))
    if family == "tipsv2":
        words = ["<pad>", "<unk>", "\u2581", *LETTERS]
        return t.Tipsv2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *LETTERS, *map(str.upper, LETTERS), ".", ","]
    return t.GemmaTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        do_lower_case=True,
        model_input_names=["input_ids"],
    )


def _model(family: str, words: int, width: int) -> Any:
    t, look = transformers, {**_VISION, "hidden_size": width}
    text = {**_TEXT, "vocab_size": words, "max_position_embeddings": 77}
    match family:
        case "clip":
            text |= {"eos_token_id": words - 1, "pad_token_id": words - 1}
            return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=look, projection_dim=16))
        case "metaclip_2":
            return t.MetaClip2Model(t.MetaClip2Config(text_config=text, vision_config=look, projection_dim=16))
        case "chinese_clip":
            text |= {"max_position_embeddings": 512, "pad_token_id": 0}
            return t.ChineseCLIPModel(t.ChineseCLIPConfig(text_config=text, vision_config=look, projection_dim=16))
        case "altclip":
            text |= {"max_position_embeddings": 514, "project_dim": 20}
            return t.AltCLIPModel(t.AltCLIPConfig(text_config=text, vision_config=look, projection_dim=16))
        case "tipsv2":
            text |= {"max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": None, "bos_token_id": None}
            vision = {key: value for key, value in look.items() if key != "intermediate_size"}
            return t.Tipsv2Model(t.Tipsv2Config(text_config=text, vision_config={**vision, "mlp_ratio": 2.5}))
    text |= {"max_position_embeddings": 64, "projection_size": 24}
    return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=look))


def _save_processor(family: str, folder: Path) -> None:
    t, square = transformers, {"height": SIZE, "width": SIZE}
    if family == "tipsv2":  # whose own needs torchvision
        written = {"image_processor_type": "Tipsv2ImageProcessor", "processor_class": "Tipsv2Processor", "size": square}
        (folder / "preprocessor_config.json").write_text(json.dumps(written))
    elif family.startswith("siglip"):
        t.SiglipImageProcessorPil(size=square).save_pretrained(folder)
    elif family == "chinese_clip":
        t.ChineseCLIPImageProcessorPil(size=square, do_center_crop=False).save_pretrained(folder)
    else:
        t.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=square).save_pretrained(folder)


def save(family: str, folder: Path, *, seed: int = 0, width: int = 24) -> Path:
    """Save a tiny checkpoint of one of FAMILIES with random weights, and its tokenizer. Returns `folder`.

    width: of the image tower; only a CLIP can have another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(family, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(family, len(tokenizer), width)
        with torch.no_grad():  # a random model's norms are all ones, its biases zero: nothing to mix up
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family == "siglip":  # which was trained without punctuation
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    _save_processor(family, folder)
    return folder
