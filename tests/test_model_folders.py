"""Promises about checkpoint folders: the config is part of a model's identity, and what cannot be right is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from conftest import draw_picture, run_cli

from indexer.encoders import torch_backend
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import recipes_for
from indexer.errors import ModelUnsupported
from indexer.machine import has_openvino
from indexer.models import locate
from search.index import Index
from search.recipe import Recipe

CHANGES: dict[str, Any] = {
    "num_attention_heads": 4,
    "hidden_act": "relu",
    "layer_norm_eps": 0.5,
    "qkv_bias": False,
    "pooler_act": "relu",
}
"""Of the tiny ViT's config.json: none of them changes the shape of a weight, each another embedding."""


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny ViT in a folder of its own."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> Path:
    """An index of three pictures, built with the checkpoint in `folder`."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in ("red", "green", "blue"):
        draw_picture(colour, "circle", 0).save(photos / f"{colour}.png")
    run_cli("build", photos, "--index", tmp_path / "i.index", "--model", folder)
    return tmp_path / "i.index"


def forget_config(index: Path) -> None:
    """Make an index's recipes those of a Lookalike that did not keep the config's hash."""
    with Index.open(index, writable=True) as opened, opened.writer() as writer, writer.transaction() as transaction:
        transaction.set_config_sha256(opened.space().recipe.weights_sha256, None)


@pytest.mark.skipif(not has_openvino(), reason="exports are OpenVINO's")
def test_same_weights_under_another_config_get_an_export_of_their_own(folder: Path, tmp_path: Path) -> None:
    from indexer.encoders import openvino_backend

    other = Path(shutil.copytree(folder, tmp_path / "other"))
    checkpoints.edit_json(other / "config.json", num_attention_heads=4)
    pixels = np.random.default_rng(0).integers(0, 256, (3, checkpoints.SIZE, checkpoints.SIZE, 3), dtype=np.uint8)
    for path in (folder, other):
        files = locate(str(path))
        spaces = recipes_for(files, [])
        ours = openvino_backend.load_recipes(files, spaces, precision="fp32").encode(pixels)[0]
        theirs = torch_backend.load_recipes(files, spaces, precision="fp32").encode(pixels)[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="exports are OpenVINO's")
@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_another_version_of_what_exports_makes_another_export(
    folder: Path, library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from indexer.encoders import openvino_backend

    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    files = locate(str(folder))
    spaces = recipes_for(files, [])
    openvino_backend.load_recipes(files, spaces, precision="fp32")
    real = openvino_backend.version
    monkeypatch.setattr(openvino_backend, "version", lambda name: "99" if name == library else real(name))
    openvino_backend.load_recipes(files, spaces, precision="fp32")
    assert len([path for path in (tmp_path / "cache" / "exports").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_that_changes_embeddings_is_part_of_a_models_identity(key: str, folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, checkpoints.SIZE, checkpoints.SIZE, 3), dtype=np.uint8)
    spaces = recipes_for(locate(str(folder)), [SpaceRequest(pooling="pooler")])
    before = torch_backend.load_recipes(locate(str(folder)), spaces).encode(pixels)[0]
    checkpoints.edit_json(folder / "config.json", **{key: CHANGES[key]})
    files = locate(str(folder))
    with pytest.raises(ModelUnsupported, match=r"another config\.json.*Put the old one back"):
        torch_backend.load_recipes(files, spaces)
    if key == "qkv_bias":  # the checkpoint has biases, which are not ignored in a new index either
        return
    after = torch_backend.load(files, [SpaceRequest(pooling="pooler")]).encode(pixels)[0]
    assert np.abs(before - after).max() > 1e-3


def test_a_changed_config_is_noticed_as_changed_weights_are(folder: Path, index: Path) -> None:
    checkpoints.edit_json(folder / "config.json", num_attention_heads=4)
    photos = index.parent / "photos"
    said = run_cli("search", photos / "red.png", "--index", index, check=2).stderr
    assert "another config.json" in said
    draw_picture("teal", "square", 0).save(photos / "teal.png")
    assert "another config.json" in run_cli("build", photos, "--index", index, check=2).stderr
    said = run_cli("build", photos, "--index", index, "--model", folder, check=2).stderr
    assert "the same weights, but another config.json" in " ".join(said.split())


def test_a_config_that_says_the_same_in_other_words_is_the_same(folder: Path, index: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    shuffled = {key: content[key] for key in sorted(content, reverse=True) if key != "qkv_bias"}  # true by default
    shuffled |= {"transformers_version": "4.0", "architectures": ["Other"], "image_size": [32, 32]}
    (folder / "config.json").write_text(json.dumps(shuffled, indent=1))
    run_cli("search", index.parent / "photos" / "red.png", "--index", index)


def test_an_index_from_before_configs_were_hashed_matches_and_learns_at_its_next_build(
    folder: Path, index: Path
) -> None:
    known = locate(str(folder)).config.sha256
    forget_config(index)
    photo = index.parent / "photos" / "red.png"
    run_cli("search", photo, "--index", index)
    run_cli("build", photo.parent, "--index", index, "--model", folder, "--layer", "3")  # nothing new: matches
    draw_picture("teal", "square", 0).save(photo.with_name("teal.png"))
    run_cli("build", photo.parent, "--index", index)
    with Index.open(index) as opened:
        assert {space.recipe.config_sha256 for space in opened.spaces} == {known}
    checkpoints.edit_json(folder / "config.json", num_attention_heads=4)
    run_cli("search", photo, "--index", index, check=2)


def test_recipes_without_the_field_are_read(index: Path) -> None:
    catalog = sqlite3.connect(f"file:{index / 'catalog.sqlite'}?mode=ro", uri=True)
    (stored,) = catalog.execute("select recipe from spaces").fetchone()
    catalog.close()
    data = json.loads(stored)
    new = Recipe.from_json(data)
    assert new.config_sha256 is not None
    del data["config_sha256"]
    assert Recipe.from_json(data).config_sha256 is None
    assert Recipe.from_json(data) == new


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_defaults_of_a_config_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    import transformers

    from indexer.tower_config import FAMILY_DEFAULTS, read_tower_config

    folder = checkpoints.save(family, tmp_path)
    ours = read_tower_config(folder, "it")
    theirs = transformers.AutoConfig.from_pretrained(folder)
    theirs = getattr(theirs, "vision_config", theirs)
    for name, value in FAMILY_DEFAULTS[ours.model_type].items():
        assert getattr(type(theirs)(), name) == value, name
        assert getattr(ours, name) == getattr(theirs, name), name


def test_families_that_are_read_are_those_that_are_run() -> None:
    from indexer.encoders.families import FAMILIES
    from indexer.tower_config import FAMILY_DEFAULTS

    assert [*FAMILIES, "efficientnet_lite"] == list(FAMILY_DEFAULTS)
