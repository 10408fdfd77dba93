"""Images are found by what the words of their names mean."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import another_writer, image_id, new_image, recipe, run_cli, start_server, stop_server
from lookalike_client import Client
from numpy.typing import NDArray

from api.serving.learning import Learning
from api.serving.words import Sentences
from indexer.names import AT_ONCE, learn_words
from search.catalog.meanings import MAX_LEARNED
from search.filters import parse_filter
from search.index import Index
from search.query.meanings import Meanings
from search.recipe import Words
from search.types import Aspect, Encoding, Hit, Location, Query, QueryPart, Space
from search.vectors import normalise

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
HEAD = "b" * 64
WORDS = Words(encoder="e5", encoder_sha256="a" * 64, head_sha256=HEAD, features=4)
THINGS = ("dog", "boat", "tree", "red", "house", "img")
"""The directions that words have, each with a number of its own."""
TONGUES = {"hund": "dog", "puppy": "dog", "schiff": "boat", "ship": "boat", "baum": "tree", "rot": "red"}
NAMES = ("dog.png", "redBoat.jpg", "tree_02.png", "IMG_0001.JPG", "IMG_0002.JPG", "house.png")


class Dictionary:
    """A text encoder that knows THINGS, and by which other names they go."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The mean of the words' directions; of one that is not known, a direction of its own."""
        self.asked += texts
        found = []
        for text in texts:
            total = np.zeros(len(THINGS) + 40, dtype=np.float32)
            for word in text.split():
                thing = TONGUES.get(word, word)
                number = THINGS.index(thing) if thing in THINGS else len(THINGS) + sum(map(ord, word)) % 40
                total[number] += 1
            found.append(total)
        return normalise(np.array(found))


DIM = len(THINGS) + 40


def space() -> Space:
    return Space(name="words", recipe=replace(recipe(dim=DIM), words=WORDS), encoding=Encoding())


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Images that vectors do not tell apart, with the names of NAMES."""
    vector = np.full(DIM, DIM**-0.5, dtype=np.float32)
    with Index.create(tmp_path / "i.index", [space()]) as made:
        with made.writer() as writer, writer.transaction() as transaction:
            for number, name in enumerate(NAMES):
                image = new_image(number, vector, spaces=["words"])
                place = Location(root="/photos", path=f"2024/{name}", mtime_ns=1, size=2)
                transaction.add(replace(image, labels=(), metadata={}, location=place))
        made.publish()
        made.refresh()
        yield made


def learn(index: Index, encoder: Dictionary, go_on: Callable[[], bool] = lambda: True) -> bool:
    return learn_words(index, space(), encoder, go_on=go_on)


def ask(index: Index, words: str, **options: object) -> list[Hit]:
    (vector,) = Dictionary().encode([words.lower()])
    return index.search(replace(Query(parts=[QueryPart(vector=vector, of_words=True)], words=words, k=3), **options))


def named(hits: Sequence[Hit]) -> list[str]:
    return [Path(hit.paths[0]).name for hit in hits]


def test_a_name_in_another_language_is_found_once_its_words_are_learned(index: Index) -> None:
    assert ask(index, "Hund")[0].score < 0.2
    assert learn(index, Dictionary())
    (first, *others) = ask(index, "Hund")
    assert named([first]) == ["dog.png"]
    assert first.score > others[0].score + 0.2
    assert first.why[-1].space is None
    assert first.why[-1].share > 0
    assert named(ask(index, "schiff"))[0] == "redBoat.jpg"


def test_the_letters_of_a_name_still_count_more(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.annotate(image_id(5), labels=["puppy"], metadata={})
    learn(index, Dictionary())
    assert named(ask(index, "puppy"))[:2] == ["house.png", "dog.png"]


def test_words_are_learned_once_and_only_those_that_mean_something(index: Index) -> None:
    encoder = Dictionary()
    assert learn(index, encoder)
    assert {"dog", "boat", "red", "tree", "img", "house"} <= set(encoder.asked)
    assert not {"png", "jpg", "0001", "02", "2024"} & set(encoder.asked)
    asked = len(encoder.asked)
    assert learn(index, encoder)
    assert len(encoder.asked) == asked
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.annotate(image_id(0), labels=["ship"], metadata={})
    assert learn(index, encoder)
    assert encoder.asked[asked:] == ["ship"]
    assert named(ask(index, "boat ship"))[0] == "dog.png"


def test_a_filter_holds_for_what_is_meant(index: Index) -> None:
    learn(index, Dictionary())
    hits = ask(index, "hund", filter=parse_filter({"path": {"glob": "*IMG*"}}))
    assert {*named(hits)} == {"IMG_0001.JPG", "IMG_0002.JPG"}


def test_names_of_equal_words_are_told_apart_by_nothing(index: Index) -> None:
    learn(index, Dictionary())
    meanings = Meanings(index.catalog)
    rowids, cosines = meanings.nearest(HEAD, Dictionary().encode(["img"])[0], None)
    assert len(rowids) == 2
    assert cosines[0] == cosines[1] == pytest.approx(1, abs=1e-3)


def test_what_is_twice_unwanted_is_wanted_and_what_cancels_out_means_nothing(index: Index) -> None:
    learn(index, Dictionary())
    hund, schiff = Dictionary().encode(["hund", "schiff"])

    def first(*parts: QueryPart, weight: float) -> str:
        aspects = [Aspect(parts=parts, weight=weight)]
        return named(index.search(Query(aspects=aspects, words="hund", k=1)))[0]

    assert first(QueryPart(vector=hund, of_words=True, weight=-1), weight=-1) == "dog.png"
    opposite = (QueryPart(vector=hund, of_words=True), QueryPart(vector=-hund, of_words=True))
    assert first(*opposite, QueryPart(vector=schiff, weight=2), weight=1)


def test_words_that_are_learned_only_run_together_are_passed_over(index: Index) -> None:
    encoder = Dictionary()
    assert not learn_words(index, space(), encoder, most=0)
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.learn(HEAD, ["redboat", "dog"], encoder.encode(["redboat", "dog"]))
    assert named(ask(index, "redboat"))[0] == "redBoat.jpg"  # by its letters


def test_learning_stops_when_it_is_told_to_and_goes_on_later(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        labels = [f"word{chr(97 + a)}{chr(97 + b)}" for a in range(10) for b in range(12)]
        transaction.annotate(image_id(0), labels=labels, metadata={})
    turns = iter([True, False])
    encoder = Dictionary()
    assert not learn(index, encoder, lambda: next(turns))
    assert len(encoder.asked) == AT_ONCE
    assert learn(index, encoder)
    assert len(encoder.asked) == len(set(encoder.asked))
    assert index.catalog.unlearned(HEAD, MAX_LEARNED) == []


def test_while_another_writes_it_is_searched_by_what_is_known(index: Index) -> None:
    with another_writer(index.path):
        assert not learn(index, Dictionary())
    assert named(ask(index, "dog"))[0] == "dog.png"


def test_a_server_learns_once_a_build_lets_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Dictionary()
    monkeypatch.setattr("api.serving.learning.load_text_encoder", lambda *_: encoder)
    learning = Learning(index, Sentences())
    with another_writer(index.path):
        assert not learning.learn()
    assert learning.learn()
    asked = len(encoder.asked)
    assert learning.learn()
    assert len(encoder.asked) == asked
    learning.close()


def test_what_no_image_has_is_forgotten_with_its_words(index: Index) -> None:
    learn(index, Dictionary())
    with index.writer() as writer:
        writer.remove([image_id(0)], erase=True)
        writer.rewrite_words()
    assert "dog" not in index.catalog.learned(HEAD).words
    assert "boat" in index.catalog.learned(HEAD).words


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Sample drawings with English names, in an index of a tiny model with a space of words."""
    folder = tmp_path_factory.mktemp("names")
    shutil.copytree(SAMPLE / "fruit", folder / "photos")
    run_cli("build", folder / "photos", "--index", folder / "i.index", "--model", checkpoint, "--backend", "torch")
    run_cli("spaces", folder / "i.index", "add", "--words")
    return folder / "i.index"


def test_a_search_and_a_server_learn_names_of_another_language(album: Path, tmp_path: Path) -> None:
    served = tmp_path / "served.index"
    shutil.copytree(album, served)
    hits = json.loads(run_cli("search", "Erdbeere", "--index", album, "--json").stdout)["hits"]
    assert Path(hits[0]["path"]).name == "strawberry.png"
    assert hits[0]["why"][-1]["score"] == 0  # not by its letters
    assert hits[0]["why"][-1]["share"] > 0.2
    server, url = start_server(served)
    try:
        with Index.open(served) as index, Client(url) as client:
            recipe = index.space("words").recipe
            assert recipe.words is not None
            deadline = time.monotonic() + 60
            while index.catalog.unlearned(recipe.words.head_sha256, 1) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert client.search(text="Erdbeere").hits[0].score == pytest.approx(hits[0]["score"], abs=1e-3)
    finally:
        stop_server(server)


def test_an_index_that_cannot_be_written_to_is_searched_by_letters(album: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.index"
    shutil.copytree(album, held)
    with another_writer(held):
        assert json.loads(run_cli("search", "Banane", "--index", held, "--json").stdout)["hits"]
