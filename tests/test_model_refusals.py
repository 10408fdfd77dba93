"""Promises about checkpoints that cannot be right, or that we do not run: each is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from conftest import draw_picture, run_cli

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.torch_backend import load
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import locate

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny ViT in a folder of its own."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def refusal(folder: Path) -> str:
    """The sentence that a checkpoint is refused with, which no dump of a foreign error is."""
    with pytest.raises((ModelUnsupported, ModelUnavailable)) as refused:
        load(locate(str(folder)), [SpaceRequest()])
    said = str(refused.value)
    assert "\n" not in said
    assert "<class" not in said
    assert said.endswith(".")
    assert len(said) < 900
    assert refused.value.exit_code == 2
    return said


def set_json(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("patch_size", [16, 8], "only square patches are supported, and patch_size is 16 x 8"),
        ("image_size", [224, 196], "only square input images are supported, and image_size is 224 x 196"),
        ("patch_size", 0, "patch_size must be a whole number above 0, not 0"),
        ("patch_size", "8", 'not "8"'),
        ("patch_size", 8.5, "not 8.5"),
        ("patch_size", None, "not null"),
        ("patch_size", [8], "patch_size must be one or two whole numbers"),
        ("patch_size", 64, "patches of 64 pixels are larger than its images of 32"),
        ("image_size", True, "not true"),
        ("image_size", 64, "lacks embeddings.position_embeddings"),
        ("hidden_size", 25, "hidden_size 25 cannot be shared by 2 attention heads"),
        ("hidden_size", 48, "of another shape than its config.json says"),
        ("num_attention_heads", 0, "num_attention_heads must be a whole number above 0"),
        ("num_hidden_layers", -1, "num_hidden_layers must be a whole number above 0"),
        ("num_hidden_layers", 5, "lacks layers.3.attention"),
        ("intermediate_size", 0, "intermediate_size must be"),
        ("num_channels", 1, "num_channels is 1"),
        ("hidden_act", "nonsense", "no activation function is nonsense"),
        ("hidden_act", 3, "must be the name of an activation function, not 3"),
        ("pooler_act", "nonsense", "no activation function is nonsense"),
        ("layer_norm_eps", -1, "layer_norm_eps must be a number of 0 or more, not -1"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps must be a number of 0 or more, not NaN"),
        ("qkv_bias", "no", "qkv_bias must be true or false"),
        ("hidden_dropout_prob", "x", "transformers does not accept its hidden_dropout_prob"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "quantised"),
        ("model_type", None, "names no model_type"),
        ("model_type", ["vit"], "names no model_type"),
        ("model_type", "bert", "is of type bert"),
        ("model_type", "clip_text_model", "is of type clip_text_model"),
        ("model_type", "clip", "lacks embeddings.class_embedding"),
    ],
    ids=str,
)
def test_configs_that_cannot_be_are_refused_in_a_sentence(key: str, value: Any, message: str, folder: Path) -> None:
    set_json(folder / "config.json", key, value)
    assert message in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "{", "", "3", "null", '{"model_type": "clip", "vision_config": [1]}'])
def test_a_config_of_another_form_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json of" in refusal(folder)


@pytest.mark.parametrize("key", ["vision_config", "vision_config_dict"])
def test_the_tower_inside_a_model_of_images_and_words_is_checked(key: str, tmp_path: Path) -> None:
    folder = checkpoints.save("clip", tmp_path / "clip")
    tower = json.loads((folder / "config.json").read_text())["vision_config"]
    set_json(folder / "config.json", key, {**tower, "patch_size": [8, 4]})
    assert "patch_size is 8 x 4" in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", {"height": 4, "width": 4}, "images of 4 x 4 pixels, smaller than one of its patches of 8"),
        ("size", {"height": 10**6, "width": 10**6}, "the size"),
        ("size", {"height": -32, "width": -32}, "preprocessor_config.json"),
        ("size", "big", "preprocessor_config.json"),
        ("resample", 77, "the filter 77"),
        ("image_mean", "x", "mean x"),
        ("image_mean", ["a", "b", "c"], "mean"),
        ("image_mean", [float("nan")] * 3, "mean (nan"),
        ("image_std", [float("inf")] * 3, "std (inf"),
        ("rescale_factor", "x", "preprocessor_config.json"),
    ],
    ids=str,
)
def test_preprocessing_that_cannot_be_is_refused(key: str, value: Any, message: str, folder: Path) -> None:
    set_json(folder / "preprocessor_config.json", key, value)
    assert message in refusal(folder)


def rename(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def index_file(text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (rename("model.fp16.safetensors"), ["the variant fp16", "variant='fp16').save_pretrained('converted')"]),
        (rename("model.bf16-00001-of-00002.safetensors"), ["the variant bf16", "variant='bf16'"]),
        (rename("model.safetensors.index.fp16.json"), ["the variant fp16", "variant='fp16'"]),
        (rename("pytorch_model.bin"), ["pytorch_model.bin can run code", "save_pretrained('converted')"]),
        (rename("pytorch_model-00001-of-00002.bin"), ["can run code", "save_pretrained('converted')"]),
        (rename("last.ckpt"), ["last.ckpt is not what transformers' save_pretrained writes"]),
        (rename("open_clip_model.safetensors"), ["open_clip_model.safetensors is not what"]),
        (rename("tf_model.h5"), ["tf_model.h5 is not what"]),
        (lambda folder: (folder / WEIGHTS).unlink(), ["has no model.safetensors"]),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04\x95" + bytes(50)), ["damaged"]),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), ["damaged"]),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), ["git lfs"]),
        (index_file('{"weight_map": {}}'), ["names no weights"]),
        (index_file('{"weight_map": [1]}'), ["cannot be read"]),
        (index_file("[]"), ["cannot be read"]),
    ],
)
def test_weights_that_cannot_be_read_are_named_with_what_to_do(
    change: Callable[[Path], object], messages: list[str], folder: Path
) -> None:
    change(folder)
    said = refusal(folder)
    assert all(message in said for message in messages), said


@pytest.mark.parametrize(
    ("family", "changes", "weight"),
    [
        ("vit", {"qkv_bias": False}, "layers.0.attention.k_proj.bias"),
        ("dinov2-registers", {"model_type": "dinov2"}, "embeddings.register_tokens"),
    ],
)
def test_weights_that_a_config_would_leave_out_are_not_ignored(
    family: str, changes: dict[str, Any], weight: str, tmp_path: Path
) -> None:
    folder = checkpoints.save(family, tmp_path / "model")
    checkpoints.edit_json(folder / "config.json", **changes)
    assert f"holds {weight}" in refusal(folder)


def test_a_shard_whose_tensors_the_index_leaves_out_is_missed(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "sharded", max_shard_size="40KB")
    index = folder / f"{WEIGHTS}.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first = min(weight_map.values())
    set_json(index, "weight_map", {name: shard for name, shard in weight_map.items() if shard != first})
    assert "the checkpoint lacks" in refusal(folder)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_a_checkpoint_is_refused_with_how_to_merge_it(file: str, folder: Path) -> None:
    (folder / file).write_text("{}")
    said = refusal(folder)
    assert f"has a LoRA adapter beside its weights ({file})" in said
    assert "merge_and_unload().save_pretrained('merged')" in said


def test_a_folder_that_is_only_an_adapter_is_told_as_one(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google/vit-base-patch16-224"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    said = refusal(folder)
    assert "is an adapter (adapter_config.json), not a model: it only changes another one, google/vit-base" in said
    assert f"AutoModel.from_pretrained('google/vit-base-patch16-224'), '{folder}').merge_and_unload()" in said


def test_an_adapter_that_comes_later_is_refused_by_search_and_build(folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "red.png"
    photo.parent.mkdir()
    draw_picture("red", "circle", 0).save(photo)
    run_cli("build", photo.parent, "--index", tmp_path / "i.index", "--model", folder)
    (folder / "adapter_config.json").write_text("{}")
    said = run_cli("search", photo, "--index", tmp_path / "i.index", check=2).stderr
    assert "LoRA adapter beside its weights" in said
    said = run_cli("build", photo.parent, "--index", tmp_path / "new.index", "--model", folder, check=2).stderr
    assert "LoRA adapter beside its weights" in said
    assert not (tmp_path / "new.index").exists()
