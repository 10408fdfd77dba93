"""The torch encoder against plain transformers, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import checkpoints
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from indexer.encoders.encoder import Encoder, SpaceRequest
from indexer.encoders.patches import PatchEncoder
from indexer.encoders.processor import preprocessing_of
from indexer.encoders.recipes import recipes_for, spaces_for
from indexer.encoders.torch_backend import TorchEncoder, load, load_recipes
from indexer.errors import ModelUnsupported
from indexer.machine import cores
from indexer.models import PACKAGED, ModelFiles, locate
from indexer.pictures.preprocess import to_input
from search.recipe import Pooling
from search.types import Encoding

LAST = checkpoints.LAYERS


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Tiny matrices: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint, saved when it is first asked for."""
    base, saved = tmp_path_factory.mktemp("checkpoints"), dict[str, Path]()

    def folder(family: str) -> Path:
        if family not in saved:
            saved[family] = checkpoints.save(family, base / family)
        return saved[family]

    return folder


def pictures(count: int, size: int = checkpoints.SIZE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def plain_layers(model: Any, processor: Any, pixels: NDArray[np.uint8]) -> list[torch.Tensor]:
    """transformers' own hidden states, before any final norm, of already resized pictures."""
    inputs = processor(list(pixels), do_resize=False, do_center_crop=False, return_tensors="pt")
    interpolates = not isinstance(model, transformers.Dinov2Model | transformers.Dinov2WithRegistersModel)
    arguments = {"interpolate_pos_encoding": True} if interpolates else {}
    with torch.no_grad():
        answer = model(**inputs, output_hidden_states=True, **arguments)
    return list(answer.hidden_states)


def plain_tower(family: str, folder: Path) -> tuple[Any, str, int]:
    """The image tower as transformers' auto classes load it, its final norm's name, its tokens before the patches."""
    if family == "vit-classifier":
        return transformers.ViTForImageClassification.from_pretrained(folder).vit, "layernorm", 1
    if family == "deit":
        return transformers.DeiTForImageClassificationWithTeacher.from_pretrained(folder).deit, "layernorm", 2
    model = transformers.AutoModel.from_pretrained(folder)
    if family.startswith(("clip", "siglip")):
        tower = getattr(model, "vision_model", model)
        return tower, "post_layernorm", 1 if family.startswith("clip") else 0
    return model, "layernorm", 4 if family == "dinov2-registers" else 1


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_layer_pooling_and_norm_equals_plain_transformers(family: str, folders: Callable[[str], Path]) -> None:
    folder = folders(family)
    poolings: Sequence[Pooling] = ("mean", "gem", "mean+std")
    if not family.startswith("siglip"):
        poolings = ("cls", *poolings, "cls+mean", "cls+gem")
    requests = [
        SpaceRequest(layers=(layer,), pooling=pooling, final_norm=final_norm)
        for layer in range(LAST + 1)
        for pooling in poolings
        for final_norm in (False, True)
    ]
    encoder = load(locate(str(folder)), requests, precision="fp32", batch_size=3)
    pixels = pictures(4)
    ours = encoder.encode(pixels)

    model, norm_name, prefix = plain_tower(family, folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    states = plain_layers(model.eval(), processor, pixels)
    assert len(states) == LAST + 1
    norm = getattr(model, norm_name)
    for request, embeddings in zip(requests, ours, strict=True):
        assert request.layers is not None
        with torch.no_grad():
            tokens = states[request.layers[0]]
            tokens = norm(tokens) if request.final_norm else tokens
        patches = tokens[:, prefix:]
        parts = {
            "cls": tokens[:, 0],
            "mean": patches.mean(dim=1),
            "std": patches.std(dim=1, correction=0),
            "gem": (patches.clamp(min=1e-6) ** 3).mean(dim=1) ** (1 / 3),
        }
        expected = np.concatenate([unit(parts[name]) for name in str(request.pooling).split("+")], axis=1)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(embeddings - expected).max() < 1e-5, request
        assert embeddings.dtype == np.float32


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2-registers", "siglip"])
def test_patches_equal_those_of_transformers_without_the_tokens_before(
    family: str, folders: Callable[[str], Path]
) -> None:
    files = locate(str(folders(family)))
    request = SpaceRequest(layers=(1, LAST), pooling="mean")
    (space,) = spaces_for(files, [request], Encoding(backend="torch", precision="fp32"))
    pixels = pictures(3)
    ours = PatchEncoder(space, Path()).encode(pixels)

    model, norm_name, prefix = plain_tower(family, folders(family))
    processor = transformers.AutoImageProcessor.from_pretrained(folders(family))
    states = plain_layers(model.eval(), processor, pixels)
    with torch.no_grad():
        tokens = [states[1][:, prefix:], getattr(model, norm_name)(states[LAST])[:, prefix:]]
    expected = np.concatenate([unit(one) for one in tokens], axis=2) / np.sqrt(2)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 1e-5


@pytest.mark.parametrize("family", ["vit", "siglip", "siglip-vision"])
def test_pooler_equals_the_trained_head_of_transformers(family: str, folders: Callable[[str], Path]) -> None:
    encoder = load(locate(str(folders(family))), [SpaceRequest(pooling="pooler")], precision="fp32")
    model, _, _ = plain_tower(family, folders(family))
    processor = transformers.AutoImageProcessor.from_pretrained(folders(family))
    pixels = pictures(3)
    with torch.no_grad():
        answer = model.eval()(**processor(list(pixels), do_resize=False, return_tensors="pt"))
    assert np.abs(encoder.encode(pixels)[0] - unit(answer.pooler_output)).max() < 1e-5
    assert encoder.names == (f"layer{LAST}-pooler",)


def test_clip_at_its_last_layer_is_the_normed_cls_before_the_projection(folders: Callable[[str], Path]) -> None:
    model, _, _ = plain_tower("clip", folders("clip"))
    processor = transformers.AutoImageProcessor.from_pretrained(folders("clip"))
    pixels = pictures(3)
    inputs = processor(list(pixels), do_resize=False, do_center_crop=False, return_tensors="pt")
    with torch.no_grad():
        expected = model.eval()(**inputs).pooler_output
    encoder = load(locate(str(folders("clip"))), [SpaceRequest()], precision="fp32")
    assert np.abs(encoder.encode(pixels)[0] - unit(expected)).max() < 1e-5


@pytest.mark.slow(measured=True)
def test_packaged_model_equals_transformers_at_all_layers_on_pictures_of_any_shape(tmp_path: Path) -> None:
    files = locate(PACKAGED.name)
    requests = [SpaceRequest(layers=(layer,)) for layer in range(13)] + [SpaceRequest(pooling="mean")]
    encoder = load(files, requests, precision="fp32")
    images = [noise_picture(*size) for size in ((300, 300), (640, 250), (120, 90))]
    preprocessing = encoder.recipes[0].preprocessing
    ours = encoder.encode(np.stack([to_input(image, preprocessing) for image in images]))

    model = transformers.AutoModel.from_pretrained(files.folder)
    processor = transformers.AutoImageProcessor.from_pretrained(files.folder)
    with torch.no_grad():
        answer = model.eval()(**processor(images, return_tensors="pt"), output_hidden_states=True)
    for layer in range(13):
        expected = (answer.last_hidden_state if layer == 12 else answer.hidden_states[layer])[:, 0]
        assert np.abs(ours[layer] - unit(expected)).max() < 1e-5, layer
    assert np.abs(ours[13] - unit(answer.hidden_states[11][:, 1:].mean(dim=1))).max() < 1e-5  # 11 is recommended


def noise_picture(width: int, height: int) -> Image.Image:
    rough = np.random.default_rng(width).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def test_blocks_behind_the_deepest_layer_are_never_created(folders: Callable[[str], Path]) -> None:
    for deepest in (0, 2):
        encoder = load(locate(str(folders("clip"))), [SpaceRequest(layers=(deepest,))], precision="fp32")
        assert len(encoder._tower.blocks) == deepest
        assert encoder.encode(pictures(1))[0].shape == (1, checkpoints.DIM)


def test_stopping_early_gives_the_same_layer(folders: Callable[[str], Path]) -> None:
    files, pixels = locate(str(folders("dinov2"))), pictures(2)
    early = load(files, [SpaceRequest(layers=(1,))], precision="fp32").encode(pixels)[0]
    late = load(files, [SpaceRequest(layers=(1,)), SpaceRequest()], precision="fp32").encode(pixels)[0]
    np.testing.assert_allclose(early, late, atol=1e-6)  # one computes the CLS token alone


def test_several_layers_are_normalised_concatenated_and_normalised(folders: Callable[[str], Path]) -> None:
    files, pixels = locate(str(folders("vit"))), pictures(2)
    encoder = load(files, [SpaceRequest(layers=k) for k in ((-3,), (3,), (-3, -1))], precision="fp32")
    first, last, both = encoder.encode(pixels)
    assert encoder.names == ("layer1", "layer3", "layer1+3")
    assert encoder.recipes[2].dim == 2 * checkpoints.DIM
    np.testing.assert_allclose(both, np.concatenate([first, last], axis=1) / np.sqrt(2), atol=1e-6)


def test_recipe_says_what_was_resolved(folders: Callable[[str], Path]) -> None:
    files = locate(str(folders("vit")))
    encoder = load(files, [SpaceRequest(layers=(1, -1)), SpaceRequest(final_norm=False)], precision="fp32")
    both, plain = encoder.recipes
    assert both.layers == (1, 3)
    assert both.final_norm == (False, True)
    assert both.weights_sha256 == files.weights_sha256
    assert both.model == str(folders("vit").resolve())
    assert plain.final_norm == (False,)
    assert encoder.names == ("layer1+3", "layer3-nonorm")


def test_recommended_layer_is_the_default_of_the_packaged_model() -> None:
    encoder = load(locate(PACKAGED.name), [SpaceRequest()], precision="fp32")
    assert encoder.names == ("layer11",)
    assert encoder.recipes[0].model == PACKAGED.name


def test_siglip_defaults_to_its_head_and_to_patches_below_it(folders: Callable[[str], Path]) -> None:
    files = locate(str(folders("siglip")))
    assert load(files, [SpaceRequest(), SpaceRequest(layers=(1,))]).names == ("layer3-pooler", "layer1-mean")


def test_no_images_give_empty_embeddings(folders: Callable[[str], Path]) -> None:
    encoder = load(locate(str(folders("vit"))), [SpaceRequest(), SpaceRequest(layers=(1, 2))])
    assert [part.shape for part in encoder.encode(pictures(0))] == [(0, 24), (0, 48)]


def test_images_of_another_size_are_a_programming_error(folders: Callable[[str], Path]) -> None:
    encoder = load(locate(str(folders("vit"))), [SpaceRequest()])
    with pytest.raises(ValueError, match="not \\(n, 32, 32, 3\\) uint8"):
        encoder.encode(pictures(1, size=40))


def test_batches_do_not_change_embeddings(folders: Callable[[str], Path]) -> None:
    files, pixels = locate(str(folders("deit"))), pictures(5)
    at_once = load(files, [SpaceRequest()], precision="fp32").encode(pixels)[0]
    by_two = load(files, [SpaceRequest()], precision="fp32", batch_size=2).encode(pixels)[0]
    np.testing.assert_allclose(at_once, by_two, atol=1e-6)


def test_bf16_is_near_fp32_and_unit_length(folders: Callable[[str], Path]) -> None:
    files, pixels = locate(str(folders("dinov2"))), pictures(4)
    half = load(files, [SpaceRequest()], precision="bf16")
    exact = load(files, [SpaceRequest()], precision="fp32").encode(pixels)[0]
    rough = half.encode(pixels)[0]
    assert half.precision == "bf16"
    assert (rough * exact).sum(axis=1).min() > 0.995
    np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-6)


def short_of_memory(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch, error: Exception, room: int) -> list[int]:
    """Let the tower fail for more than `room` images at once. Returns the sizes it was asked for, as they come."""
    asked: list[int] = []
    forward = encoder._tower.forward

    def limited(batch: torch.Tensor) -> Any:
        asked.append(len(batch))
        if len(batch) > room:
            raise error
        return forward(batch)

    monkeypatch.setattr(encoder._tower, "forward", limited)
    return asked


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_batches_that_do_not_fit_the_memory_are_halved_for_good(
    error: Exception, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(locate(str(folders("vit"))), [SpaceRequest()], device="cpu", precision="fp32", batch_size=8)
    pixels = pictures(9)
    expected = encoder.encode(pixels)[0]
    asked = short_of_memory(encoder, monkeypatch, error, room=3)
    np.testing.assert_allclose(encoder.encode(pixels)[0], expected, atol=1e-6)
    assert asked == [8, 4, 2, 2, 2, 2, 1]
    encoder.encode(pixels)
    assert max(asked[7:]) == 2
    short_of_memory(encoder, monkeypatch, error, room=0)
    with pytest.raises(type(error), match="memory"):
        encoder.encode(pixels)
    assert encoder.batch_size == 2, "what did not help is not kept"


@pytest.mark.slow(measured=True)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_long_work_is_compiled_and_stays_the_same(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    encoder = load(locate(str(folders("vit"))), [SpaceRequest()], device="cpu", precision="fp32", batch_size=4)
    pixels = pictures(11)
    expected = encoder.encode(pixels)[0]
    encoder.prepare(pixels, 1_000)
    assert encoder._tower.__class__.__name__ == "Tower", "too little work to be worth it"
    encoder.prepare(pixels, 10**9)
    assert encoder._tower.__class__.__name__ == "OptimizedModule"
    calls = short_of_memory(encoder, monkeypatch, RuntimeError(), room=100)
    np.testing.assert_allclose(encoder.encode(pixels)[0], expected, atol=1e-5)
    assert set(calls) == {4}, "another shape would be compiled once more"


@pytest.mark.slow(measured=True)
def test_without_a_compiler_long_work_is_done_all_the_same(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    encoder = load(locate(str(folders("deit"))), [SpaceRequest()], device="cpu", precision="fp32", batch_size=4)
    pixels = pictures(5)
    expected = encoder.encode(pixels)[0]
    encoder.prepare(pixels, 10**9)
    assert encoder._tower.__class__.__name__ == "Tower"
    np.testing.assert_array_equal(encoder.encode(pixels)[0], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.99999), ("bf16", 0.99), ("fp16", 0.999)])
def test_a_gpu_gives_what_the_cpu_gives(precision: str, cosine: float, folders: Callable[[str], Path]) -> None:
    files, pixels = locate(str(folders("vit"))), pictures(75)
    expected = load(files, [SpaceRequest()], device="cpu", precision="fp32").encode(pixels)[0]
    recipes = recipes_for(files, [SpaceRequest()])
    there = load_recipes(files, recipes, device="cuda", precision=precision, batch_size=8, throughput=True)
    for _ in range(3):
        assert (there.encode(pixels)[0] * expected).sum(axis=1).min() > cosine
    there.prepare(pixels, 10**9)
    assert there._compiled
    assert (there.encode(pixels)[0] * expected).sum(axis=1).min() > cosine


def test_larger_input_is_interpolated(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    size = {"height": 48, "width": 48}
    checkpoints.edit_json(folder / "preprocessor_config.json", size=size)
    pixels = pictures(2, size=48)
    encoder = load(locate(str(folder)), [SpaceRequest()], precision="fp32")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    state = plain_layers(model, transformers.AutoImageProcessor.from_pretrained(folder), pixels)[-1]
    with torch.no_grad():
        expected = unit(model.layernorm(state)[:, 0])
    assert np.abs(encoder.encode(pixels)[0] - expected).max() < 1e-5


def test_index_recipes_are_run_exactly(folders: Callable[[str], Path]) -> None:
    files = locate(str(folders("dinov2")))
    first = load(files, [SpaceRequest(layers=(2,)), SpaceRequest(layers=(1, 3))], precision="fp32", geometry="pad")
    again = load_recipes(files, dict(zip(first.names, first.recipes, strict=True)), precision="fp32")
    assert again.recipes == first.recipes
    assert again.names == first.names
    for ours, theirs in zip(again.encode(pictures(2)), first.encode(pictures(2)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_weights_than_the_index_was_built_with_are_refused(tmp_path: Path) -> None:
    files = locate(str(checkpoints.save("vit", tmp_path / "vit")))
    spaces = recipes_for(files, [SpaceRequest()])
    changed = locate(str(checkpoints.save("vit", tmp_path / "vit", seed=1)))
    with pytest.raises(ModelUnsupported, match=f"weights {files.weights_sha256[:12]}.*{changed.weights_sha256[:12]}"):
        load_recipes(changed, spaces)


@pytest.mark.parametrize(
    ("family", "request_", "message"),
    [
        ("siglip", SpaceRequest(pooling="cls"), "no cls pooling; it offers pooler, mean"),
        ("siglip", SpaceRequest(layers=(1,), pooling="pooler"), r"last layer \(3\) alone, not at 1"),
        ("siglip", SpaceRequest(final_norm=False), "leave --no-final-norm out"),
        ("vit-classifier", SpaceRequest(pooling="pooler"), "no pooler pooling; it offers cls, mean"),
        ("dinov2", SpaceRequest(pooling="pooler"), "no pooler pooling; it offers cls, mean"),
        ("vit", SpaceRequest(layers=(4,)), r"no layer 4: its layers are 0 \(patch embedding\) to 3"),
        ("vit", SpaceRequest(layers=(-5,)), "no layer -5"),
        ("vit", SpaceRequest(layers=(3, -1)), "each once"),
        ("vit", SpaceRequest(layers=()), "needs layers"),
    ],
)
def test_what_the_model_cannot_give_is_refused_with_what_it_can(
    family: str, request_: SpaceRequest, message: str, folders: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelUnsupported, match=message):
        load(locate(str(folders(family))), [request_])


def test_the_same_space_twice_is_refused(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ModelUnsupported, match="are the same"):
        load(locate(str(folders("vit"))), [SpaceRequest(layers=(3,)), SpaceRequest(layers=(-1,))])


def test_missing_devices_and_unknown_precisions_are_refused(folders: Callable[[str], Path]) -> None:
    files = locate(str(folders("vit")))
    absent = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ModelUnsupported, match=f"{absent} is not available here; there is .*cpu"):
        load(files, [SpaceRequest()], device=absent)
    with pytest.raises(ModelUnsupported, match="fp32, bf16 or fp16, not in int8"):
        load(files, [SpaceRequest()], precision="int8")
    with pytest.raises(ModelUnsupported, match="fp16 is for GPUs"):
        load(files, [SpaceRequest()], device="cpu", precision="fp16")


def test_checkpoint_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.save("dinov2", tmp_path / "dinov2")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("1.norm2.weight"))
    for damaged in (
        {key: value for key, value in weights.items() if key != name},
        {**weights, name: torch.zeros(checkpoints.DIM + 1)},
    ):
        save_file(damaged, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelUnsupported, match=r"the checkpoint lacks .*norm2\.weight"):
            load(locate(str(folder)), [SpaceRequest()])
    load(locate(str(folder)), [SpaceRequest(layers=(1,))])  # which does not need that block


def test_absent_mask_token_is_no_loss(tmp_path: Path) -> None:
    folder = checkpoints.save("dinov2", tmp_path / "dinov2")
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.mask_token"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(locate(str(folder)), [SpaceRequest()]).names == ("layer3",)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    (folder / "model.safetensors").write_bytes(b"\x10" * 1000)
    with pytest.raises(ModelUnsupported, match="damaged"):
        load(locate(str(folder)), [SpaceRequest()])


def test_other_model_types_are_refused_with_those_supported(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    checkpoints.edit_json(folder / "config.json", model_type="siglip2")
    with pytest.raises(ModelUnsupported, match=r"of type siglip2\. It must be .*: vit, deit, dinov2"):
        load(locate(str(folder)), [SpaceRequest()])


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoImageProcessor": "evil.Processor"}
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n")
    checkpoints.edit_json(folder / "config.json", auto_map=auto_map)
    checkpoints.edit_json(folder / "preprocessor_config.json", auto_map=auto_map)
    load(locate(str(folder)), [SpaceRequest()])
    assert not (tmp_path / "ran").exists()


def test_loading_prints_nothing(folders: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    load(locate(str(folders("clip"))), [SpaceRequest(layers=(1,))])
    assert capfd.readouterr() == ("", "")
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()


def test_preprocessing_is_that_of_the_checkpoint(folders: Callable[[str], Path]) -> None:
    deit, clip = preprocessing_of(folders("deit")), preprocessing_of(folders("clip"))
    assert (deit.geometry, deit.resize, deit.size, deit.resample) == ("square", 40, 32, 3)
    assert (clip.geometry, clip.resize, clip.size) == ("crop", 40, 32)
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073)
    assert preprocessing_of(folders("clip"), "pad") == replace(clip, geometry="pad", resize=32)
    assert preprocessing_of(folders("clip"), "square") == replace(clip, geometry="square", resize=32)
    assert preprocessing_of(folders("clip"), "crop") == clip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": {"height": 32, "width": 30}}, "a crop of 30 x 32"),
        ({"crop_size": {"height": 48, "width": 48}}, "a crop of 48 x 48 after resizing to 40"),
        ({"do_center_crop": False}, "images of any aspect ratio"),
        ({"do_resize": False}, "do_resize is off"),
        ({"do_rescale": False}, "rescaling by 1"),
        ({"rescale_factor": 0.5}, "rescaling by 0.5"),
        ({"size": {"height": 40, "width": 50}}, "the size"),
        ({"image_mean": [0.5, 0.5]}, "mean"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "a ConvNext"),
    ],
)
def test_preprocessing_that_cannot_be_expressed_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = checkpoints.save("clip-vision", tmp_path / "clip")
    checkpoints.edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ModelUnsupported, match=message):
        preprocessing_of(folder)


def test_missing_preprocessor_config_says_what_to_add(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnsupported, match=r"no preprocessor_config\.json.* Copy the one of the model"):
        load(locate(str(folder)), [SpaceRequest()])


def test_registry_facts_are_those_of_the_packaged_checkpoint() -> None:
    files = locate(PACKAGED.name)
    config = json.loads((files.folder / "config.json").read_text())
    model = transformers.AutoModel.from_pretrained(files.folder)
    assert config["num_hidden_layers"] == PACKAGED.layers
    assert config["hidden_size"] == PACKAGED.dim
    assert sum(parameter.numel() for parameter in model.parameters()) == PACKAGED.parameters
    assert preprocessing_of(files.folder).size == PACKAGED.input_size


def test_torch_encoder_is_an_encoder(folders: Callable[[str], Path]) -> None:
    files: ModelFiles = locate(str(folders("vit")))
    poolings = [pooling for pooling in get_args(Pooling) if pooling != "projection"]  # a ViT has no tower for texts
    encoder: Encoder = load(files, [SpaceRequest(pooling=pooling) for pooling in poolings])
    assert encoder.batch_size > 0
    assert len(encoder.encode(pictures(1))) == len(poolings)


@pytest.mark.parametrize(("limit", "allowed"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 7), ("", 7)])
def test_cores_are_those_that_a_container_may_use(
    limit: str, allowed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7), raising=False)
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr("indexer.machine.CPU_MAX", tmp_path / "cpu.max")
    assert cores() == allowed
