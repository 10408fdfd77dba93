"""Text towers: texts are embedded exactly as the checkpoints of images and texts were trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
import two_towers
from checkpoints import edit_json
from conftest import draw_picture, run_cli, start_server, stop_server
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from indexer.encoders import torch_backend
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for, passes
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.encoders.text_towers import TextTower, has_text_tower, lacks_for_texts, load_text_tower
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import locate
from search.index import Index
from search.recipe import Recipe
from search.types import Encoding, Space

TEXTS = ("a red cat", "red", "Two dogs, ON. a mat", "long " * 80)
LENGTHS = {"clip": 77, "metaclip_2": 77, "siglip": 64, "siglip2": 64, "chinese_clip": 52, "altclip": 77, "tipsv2": 64}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Tiny matrices: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint, saved when it is first asked for; not to be changed."""
    base, saved = tmp_path_factory.mktemp("towers"), dict[str, Path]()

    def folder(family: str) -> Path:
        if family not in saved:
            saved[family] = two_towers.save(family, base / family)
        return saved[family]

    return folder


@pytest.fixture
def own(tmp_path: Path, folder_of: Callable[[str], Path]) -> Callable[[str], Path]:
    """A copy of a tiny checkpoint, which a test may change."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(folder_of(family), tmp_path / family))

    return copy


def spaces_of(folder: Path) -> tuple[Space, ...]:
    files = locate(str(folder))
    return spaces_for(files, default_requests(files), Encoding(backend="torch", precision="fp32"))


def words_recipe(folder: Path) -> Recipe:
    return spaces_of(folder)[1].recipe


def noise(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, two_towers.SIZE, two_towers.SIZE, 3), dtype=np.uint8)


def unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def tokens_of(family: str, folder: Path, texts: list[str]) -> Any:
    """As the checkpoint's own processor gives them, with the arguments that its documentation names."""
    tokenizer = transformers.PreTrainedTokenizerFast if family == "siglip" else transformers.AutoTokenizer
    if family == "siglip2":
        texts = [text.lower() for text in texts]
    if family == "siglip":
        texts = [text.lower().replace(",", "").replace(".", "").strip() for text in texts]
    padding = "max_length" if family.startswith(("siglip", "tips")) else True
    return tokenizer.from_pretrained(folder)(
        texts, padding=padding, truncation=True, max_length=LENGTHS[family], return_tensors="pt"
    )


@pytest.mark.parametrize("family", two_towers.FAMILIES)
def test_images_and_texts_are_embedded_as_transformers_does(family: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(family)
    spaces = spaces_of(folder)
    assert [space.name for space in spaces] == ["layer2-pooler" if family.startswith("siglip") else "layer2", "words"]
    (together,) = passes(spaces)  # one forward pass gives both
    pixels = noise(3)
    images = encoder_for(together, folder).encode(pixels)[1]
    texts = load_text_tower(spaces[1].recipe).encode(TEXTS)

    model = transformers.AutoModel.from_pretrained(folder).eval()
    pre = spaces[1].recipe.preprocessing
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (pre.mean, pre.std))
    whole = tokens_of(family, folder, list(TEXTS))
    tokens = {key: whole[key] for key in ("input_ids", "attention_mask") if key in whole}
    with torch.no_grad():
        answer = model(pixel_values=(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std, **tokens)
        alone = model.get_text_features(**tokens).pooler_output
    assert np.abs(texts - unit(alone)).max() < 1e-5
    assert np.abs(texts - answer.text_embeds.numpy()).max() < 1e-5
    assert np.abs(images - answer.image_embeds.numpy()).max() < 1e-5
    assert np.abs(images @ texts.T - (answer.image_embeds @ answer.text_embeds.T).numpy()).max() < 1e-5
    assert images.shape[1] == spaces[1].recipe.dim
    assert texts.dtype == np.float32


@pytest.mark.parametrize("family", ["clip", "siglip2", "tipsv2"])
def test_openvino_gives_images_the_same_place_among_texts(family: str, folder_of: Callable[[str], Path]) -> None:
    openvino_backend = pytest.importorskip("indexer.encoders.openvino_backend")
    files = locate(str(folder_of(family)))
    recipes = {space.name: space.recipe for space in spaces_of(files.folder)}
    exact = torch_backend.load_recipes(files, recipes, precision="fp32").encode(noise(5))
    ours = openvino_backend.load_recipes(files, recipes, precision="fp32").encode(noise(5))
    for one, other in zip(exact, ours, strict=True):
        assert np.abs(one - other).max() < 1e-5


def test_int8_keeps_images_near_their_texts(tmp_path: Path) -> None:
    int8 = pytest.importorskip("indexer.encoders.int8")
    files = locate(str(two_towers.save("clip", tmp_path / "wide", width=128)))
    recipes = {space.name: space.recipe for space in spaces_of(files.folder)}
    encoder, store = int8.fit(files, recipes, noise(40), tmp_path / "models")
    exact = torch_backend.load_recipes(files, recipes, precision="fp32").encode(noise(20, seed=1))
    ours = encoder.encode(noise(20, seed=1))
    for one, other in zip(exact, ours, strict=True):
        assert (one * other).sum(axis=1).min() > 0.98
        assert np.abs(one - other).max() > 1e-5
    stored = [Space(name=name, recipe=one, encoding=Encoding()) for name, one in recipes.items()]
    encoding = Encoding(backend="openvino", precision="int8", model=store())
    again = encoder_for([replace(space, encoding=encoding) for space in stored], tmp_path / "models")
    np.testing.assert_allclose(again.encode(noise(3))[1], encoder.encode(noise(3))[1], atol=2e-3)


@pytest.mark.parametrize("family", two_towers.FAMILIES)
def test_a_text_has_one_vector_alone_and_among_others_and_ends_where_training_did(
    family: str, folder_of: Callable[[str], Path]
) -> None:
    tower = load_text_tower(words_recipe(folder_of(family)))
    together = tower.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.abs(tower.encode([text])[0] - vector).max() < 1e-5
    many = tower.encode(["a red cat"] * 70)
    assert np.abs(many - together[0]).max() < 1e-5
    read = LENGTHS[family] * 2  # letters, each of them a token
    same, other = tower.encode(["z" * read, "z" * read + "abc"])
    assert np.array_equal(same, other)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for text in ("", " \n"):
        with pytest.raises(ValueError, match="must not be empty"):
            tower.encode(["red", text])
    assert np.isfinite(tower.encode(["half \ud800 a character", "\u7ea2", "a" * 100_000])).all()


def test_the_name_of_a_file_is_a_text(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tower = load_text_tower(words_recipe(folder_of("clip")))
    names = ["cat", str(tmp_path / "cat"), "https://example.org/cat"]
    before = tower.encode(names)
    draw_picture("red", "circle", 0).save(tmp_path / "cat", "png")
    assert np.array_equal(tower.encode(names), before)


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_siglip_texts_are_in_lower_case_unless_the_checkpoint_says_otherwise(
    family: str, own: Callable[[str], Path]
) -> None:
    folder = own(family)
    lower, upper = load_text_tower(words_recipe(folder)).encode(["a red cat", "A Red CAT"])
    assert np.array_equal(lower, upper)
    edit_json(folder / "tokenizer_config.json", do_lower_case=False)
    lower, upper = load_text_tower(words_recipe(folder)).encode(["a red cat", "A Red CAT"])
    assert np.abs(lower - upper).max() > 1e-3


def test_the_first_siglip_reads_no_punctuation(folder_of: Callable[[str], Path]) -> None:
    plain, punctuated = load_text_tower(words_recipe(folder_of("siglip"))).encode(["a red cat", " A red,  cat. "])
    assert np.array_equal(plain, punctuated)


def test_a_clip_whose_configuration_names_the_old_end_of_text(own: Callable[[str], Path]) -> None:
    folder = own("clip")
    config = json.loads((folder / "config.json").read_text())
    before = load_text_tower(words_recipe(folder)).encode(TEXTS)
    edit_json(folder / "config.json", text_config={**config["text_config"], "eos_token_id": 2})  # as on the hub
    assert np.abs(load_text_tower(words_recipe(folder)).encode(TEXTS) - before).max() < 1e-6


def test_a_checkpoint_without_tokenizer_or_text_tower_is_of_images_alone(own: Callable[[str], Path]) -> None:
    folder = own("clip")
    stored = load_file(folder / "model.safetensors")
    for lacking, wrong in (("tokenizer.json", "has no tokenizer"), ("text", "hold no text tower")):
        if lacking == "text":
            kept = {name: tensor for name, tensor in stored.items() if not name.startswith("text_")}
            save_file(kept, folder / "model.safetensors", {"format": "pt"})
        else:
            (folder / lacking).unlink()
        files = locate(str(folder))
        assert wrong in (lacks_for_texts(files) or "")
        assert not has_text_tower(files)
        assert default_requests(files) == (SpaceRequest(),)
    assert len(spaces_for(files, [SpaceRequest(pooling="projection")], Encoding())) == 1  # for images, it is there
    assert spaces_for(files, [SpaceRequest(pooling="projection")], Encoding())[0].recipe.text_sha256 is None


def test_a_broken_or_foreign_tokenizer_is_told_before_anything_is_embedded(own: Callable[[str], Path]) -> None:
    folder = own("metaclip_2")
    edit_json(folder / "tokenizer_config.json", eos_token="a")
    assert "ends texts with token" in (lacks_for_texts(locate(str(folder))) or "")
    (folder / "tokenizer.json").write_text("{")
    assert "cannot be used" in (lacks_for_texts(locate(str(folder))) or "")


def test_a_tokenizer_with_more_words_than_the_model_is_refused(own: Callable[[str], Path]) -> None:
    folder = own("chinese_clip")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelUnsupported, match="another model's: it gives token 58"):
        TextTower(locate(str(folder))).encode(["unheard"])


@pytest.mark.parametrize(("family", "vocabulary"), [("siglip", "spiece.model"), ("tipsv2", "tokenizer.model")])
def test_a_vocabulary_that_needs_another_package_says_which(
    family: str, vocabulary: str, own: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.encoders.text_towers.find_spec", lambda _: None)
    folder = own(family)
    (folder / "tokenizer.json").rename(folder / vocabulary)
    assert "pip install sentencepiece" in (lacks_for_texts(locate(str(folder))) or "")


@pytest.mark.parametrize("change", ["tokenizer", "configuration", "weights", "gone"])
def test_texts_are_looked_up_with_what_the_space_was_made_with_or_not_at_all(
    change: str, own: Callable[[str], Path]
) -> None:
    folder = own("altclip")
    recipe = words_recipe(folder)
    load_text_tower(recipe)
    expected: type[Exception] = ModelUnsupported
    if change == "tokenizer":
        edit_json(folder / "tokenizer_config.json", add_prefix_space=False)
        message = "tokenizer in .* is not the one"
    elif change == "configuration":
        text = json.loads((folder / "config.json").read_text())["text_config"]
        edit_json(folder / "config.json", text_config={**text, "hidden_act": "relu"})
        message = "the text_config of its config.json, is not the one"
    elif change == "weights":
        two_towers.save("altclip", folder, seed=1)
        message = "built with weights"
    else:
        shutil.rmtree(folder)
        expected, message = ModelUnavailable, "is not at .* any more"
    with pytest.raises(expected, match=message):
        load_text_tower(recipe)


@pytest.mark.parametrize(("family", "block"), [("clip", "layers.1"), ("altclip", "layer.1"), ("tipsv2", "resblocks.1")])
def test_an_incomplete_text_tower_is_refused(family: str, block: str, own: Callable[[str], Path]) -> None:
    folder = own(family)
    stored = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in stored.items() if not (name.startswith("text_") and f".{block}." in name)}
    assert len(kept) < len(stored)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnsupported, match="the text tower lacks text_model"):
        TextTower(locate(str(folder)))
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**config, "num_hidden_layers": 1})
    with pytest.raises(ModelUnsupported, match="has no use"):
        TextTower(locate(str(folder)))


def test_a_recipe_with_a_text_tower_is_stored_whole(folder_of: Callable[[str], Path]) -> None:
    image, words = (space.recipe for space in spaces_of(folder_of("clip")))
    assert Recipe.from_json(json.loads(json.dumps(words.to_json()))) == words
    assert words.knows_words
    assert not image.knows_words
    assert "text_sha256" not in image.to_json()
    assert replace(words, text_sha256="0" * 64) != words


def test_the_projection_asked_for_by_name_is_the_space_of_words(folder_of: Callable[[str], Path]) -> None:
    files = locate(str(folder_of("clip")))
    (named,) = spaces_for(files, [SpaceRequest(layers=(2,), pooling="projection")], Encoding())
    assert named == spaces_for(files, [SpaceRequest(words=True)], Encoding())[0]
    with pytest.raises(ModelUnsupported, match="projection works at the last layer"):
        spaces_for(files, [SpaceRequest(layers=(1,), pooling="projection")], Encoding())
    with pytest.raises(ModelUnsupported, match="projection reads tokens after the final norm"):
        spaces_for(files, [SpaceRequest(pooling="projection", final_norm=False)], Encoding())


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, folder_of: Callable[[str], Path]) -> Path:
    """An index of drawings by a tiny CLIP, whose two spaces were made by one build."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "photos").mkdir()
    for number, colour in enumerate(("red", "green", "blue", "teal")):
        draw_picture(colour, "circle", number).save(folder / "photos" / f"{number}.png")
    run_cli(
        *("build", folder / "photos", "--index", folder / "photos.index", "--model", folder_of("clip")),
        *("--backend", "torch", "--precision", "fp32"),
    )
    return folder / "photos.index"


def expected_scores(album: Path, folder: Path, text: str) -> dict[str, float]:
    """By transformers alone, from the files."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokens = tokens_of("clip", folder, [text])
    scores = {}
    for path in sorted((album.parent / "photos").iterdir()):
        with Image.open(path) as image, torch.no_grad():
            pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
            answer = model(pixel_values=pixels, **tokens)
        scores[str(path)] = float(answer.text_embeds @ answer.image_embeds.T)
    return scores


@pytest.mark.slow
def test_words_find_images_from_the_command_line_and_a_server(album: Path, folder_of: Callable[[str], Path]) -> None:
    expected = expected_scores(album, folder_of("clip"), "a blue boat")
    best = sorted(expected, key=lambda path: -expected[path])
    answer = json.loads(run_cli("search", "a blue boat", "--index", album, "--json", "--space", "words").stdout)
    assert [hit["path"] for hit in answer["hits"]] == best
    for hit in answer["hits"]:
        assert hit["score"] == pytest.approx(expected[hit["path"]], abs=1e-5)
    plain = json.loads(run_cli("search", "a blue boat", "--index", album, "--json").stdout)
    assert plain["space"] == "words"
    assert plain["hits"][0]["path"] == best[0]
    process, url = start_server(album)
    try:
        parts = {"parts": [{"text": "a blue boat"}], "space": "words"}
        served = httpx.post(f"{url}/v1/search", json=parts, timeout=60).json()
        assert [hit["id"] for hit in served["hits"]] == [hit["id"] for hit in answer["hits"]]
        refused = httpx.post(f"{url}/v1/search", json={**parts, "space": "layer2"}, timeout=60)
        assert "knows no words" in refused.text
    finally:
        stop_server(process)
    with Index.open(album) as index:
        assert [space.name for space in index.spaces] == ["layer2", "words"]
        assert index.space().name == "layer2"


@pytest.mark.slow
def test_a_space_of_words_can_be_added_of_the_same_and_of_another_model(
    album: Path, folder_of: Callable[[str], Path], tmp_path: Path, checkpoint: Path
) -> None:
    run_cli("build", album.parent / "photos", "--index", tmp_path / "i", "--model", checkpoint, "--backend", "torch")
    refused = run_cli("spaces", tmp_path / "i", "add", "--words", "--model", checkpoint, check=None)
    assert "was not trained with texts" in refused.stderr
    assert refused.returncode != 0
    run_cli("spaces", tmp_path / "i", "add", "--words", "--model", folder_of("clip"))
    answer = json.loads(run_cli("search", "a blue boat", "--index", tmp_path / "i", "--json").stdout)
    assert answer["space"] == "clip-words"
    shutil.copytree(album, tmp_path / "own")
    run_cli("spaces", tmp_path / "own", "drop", "words")
    run_cli("spaces", tmp_path / "own", "add", "--words")
    with Index.open(album) as before, Index.open(tmp_path / "own") as after:
        for record in before.catalog.page(0, 9)[0]:
            one, other = (index.catalog.stored(index.space("words"), [record.id]) for index in (before, after))
            assert np.abs(one[record.id] - other[record.id]).max() < 1e-6


def test_a_build_says_that_a_checkpoint_lacks_its_tokenizer(own: Callable[[str], Path], tmp_path: Path) -> None:
    folder = own("siglip2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (tmp_path / "photos").mkdir()
    draw_picture("red", "circle", 0).save(tmp_path / "photos" / "0.png")
    built = run_cli(*("build", tmp_path / "photos", "--index", tmp_path / "i", "--model", folder, "--backend", "torch"))
    assert "has no tokenizer" in built.stderr
    with Index.open(tmp_path / "i") as index:
        assert [space.name for space in index.spaces] == ["layer2-pooler"]
