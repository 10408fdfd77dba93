"""Spaces of words over time: made by another version, not complete, shared by indexes, and questions they refuse."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import new_image, run_cli, vectors

from api.serving.words import MAX_ENCODERS, Sentences, WordsEmbedding
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import own_parts
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.encoders.words import is_known, load_text_encoder
from indexer.errors import ModelUnavailable
from indexer.index_encoder import load_index_encoder
from indexer.models import PACKAGED, locate
from search.catalog import migrate
from search.errors import QueryInvalid, SpaceUnfit
from search.index import Index
from search.recipe import Recipe
from search.types import Encoding, Query, QueryPart, Space

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


def words_space(head: str | None = None) -> Space:
    (space,) = spaces_for(locate(PACKAGED.name), [SpaceRequest(words=True)], Encoding())
    words = space.recipe.words
    assert words is not None
    return (
        space if head is None else replace(space, recipe=replace(space.recipe, words=replace(words, head_sha256=head)))
    )


@pytest.fixture(scope="module")
def outdated(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A few drawings in an index whose space of words another version made, complete."""
    folder = tmp_path_factory.mktemp("outdated")
    shutil.copytree(SAMPLE / "birds", folder / "photos")
    path = folder / "photos.index"
    run_cli("build", folder / "photos", "--index", path, "--model", checkpoint, "--backend", "torch")
    with Index.open(path, writable=True) as index:
        with index.writer() as writer:
            space = writer.add_space(words_space("0" * 64))
            records, _ = index.catalog.page(0, 100)
            with writer.transaction() as transaction:
                made = vectors(len(records), space.recipe.dim)
                transaction.fill(space, {one.id: vector for one, vector in zip(records, made, strict=True)})
        assert index.space("words").complete
    return path


def test_a_build_replaces_words_of_another_version(outdated: Path, tmp_path: Path) -> None:
    shutil.copytree(outdated, tmp_path / "photos.index")
    shutil.copytree(SAMPLE / "birds", tmp_path / "photos")
    shutil.copy(SAMPLE / "fruit" / "pineapple.png", tmp_path / "photos")
    ended = run_cli("build", tmp_path / "photos", "--index", tmp_path / "photos.index")
    assert "words is dropped: another version" in ended.stderr
    with Index.open(tmp_path / "photos.index") as index:
        assert is_known(index.space("words").recipe, index.models)
        pineapple = next(one for one in index.catalog.page(0, 100)[0] if one.paths[0].endswith("pineapple.png"))
        assert len(index.vector(pineapple.id, index.space("words"))) == 384
    assert "dropped" not in run_cli("build", tmp_path / "photos", "--index", tmp_path / "photos.index").stderr


def test_words_of_another_version_are_looked_for_in_names_until_then(outdated: Path) -> None:
    with Index.open(outdated) as index:
        name = Path(index.catalog.page(0, 1)[0][0].paths[0]).stem
    ended = run_cli("search", name, "--index", outdated, "--json")
    assert "another version" in ended.stderr
    assert Path(json.loads(ended.stdout)["hits"][0]["path"]).stem == name


def test_pictures_are_found_beside_words_of_another_version(outdated: Path) -> None:
    picture = next((SAMPLE / "birds").glob("*.png"))
    found = json.loads(run_cli("search", picture, "--index", outdated, "--json").stdout)["hits"]
    assert found[0]["path"].endswith(picture.name)


def test_a_space_of_words_is_never_the_default(outdated: Path) -> None:
    ended = run_cli("spaces", outdated, "default", "words", check=None)
    assert ended.returncode == 2
    assert "says what pictures show" in ended.stderr
    with Index.open(outdated, writable=True) as index, index.writer() as writer, pytest.raises(SpaceUnfit):
        writer.set_default("words", force=True)


def test_scores_of_words_have_no_least(outdated: Path) -> None:
    with Index.open(outdated) as index, pytest.raises(QueryInvalid, match="words have ranks"):
        index.search(Query(parts=[], words="bird", min_score=0.2))
    ended = run_cli("search", "bird", "--index", outdated, "--min-score", "0.2", check=None)
    assert ended.returncode == 2
    assert "Leave it out" in ended.stderr


def test_words_that_are_no_text_are_refused_before_a_server_is_asked() -> None:
    ended = run_cli("search", "a bird \udcff", "--server", "http://127.0.0.1:9", check=None)
    assert ended.returncode == 2
    assert "not text in UTF-8" in ended.stderr


def test_what_is_no_hit_takes_no_rank_from_others(tmp_path: Path) -> None:
    space = replace(words_space(), name="layer2", storage="float32")
    made = vectors(4, space.recipe.dim)
    with Index.create(tmp_path / "ranks.index", [space]) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number in range(4):
                transaction.add(replace(new_image(number, made[number]), labels=("bird",)))
        parts = [QueryPart(id=new_image(0, made[0]).id), QueryPart(vector=made[1], weight=0.1, of_words=True)]
        (first, *_) = index.search(Query(parts=parts, words="bird", words_share=0.5))
        # the asked image was first in both rankings: what follows it there is first now, at least in one
        assert first.score > 0.965
        with index.writer() as writer, writer.transaction() as transaction:
            gone = new_image(1, made[1]).location
            transaction.mark_missing(gone.root, [gone.path], missing=True)
        hits = index.search(Query(parts=[QueryPart(vector=made[1])], words="bird"))
        assert [hit.id for hit in hits if hit.id == new_image(1, made[1]).id] == []
        best = max(hits, key=lambda hit: float(index.vector(hit.id, space) @ made[1]))
        vector_first = index.search(Query(parts=[QueryPart(vector=made[1])]))[0]
        assert best.id == vector_first.id
        assert hits[0].score > 0.97


def test_one_sentence_encoder_serves_all_indexes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = []

    class Encoder:
        def encode(self, texts: list[str]) -> object:
            return vectors(len(texts), 384)

    def load() -> Encoder:
        loaded.append(True)
        return Encoder()

    monkeypatch.setattr("api.serving.words.load_sentences", load)
    shared = Sentences()
    for _ in range(3):
        assert load_text_encoder(words_space().recipe, tmp_path, shared).encode(["a", "b"]).shape == (2, 384)
    assert len(loaded) == 1


def test_questions_that_alternate_between_spaces_load_each_encoder_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[Recipe] = []

    class Encoder:
        def encode(self, texts: list[str]) -> object:
            return vectors(len(texts), 384)

    def load(recipe: Recipe, *_: object) -> Encoder:
        loaded.append(recipe)
        if recipe.words is not None and recipe.words.head_sha256 == "2" * 64:
            raise ModelUnavailable("not installed")
        return Encoder()

    async def ask(words: WordsEmbedding, *spaces: Space) -> None:
        for _ in range(3):
            for space in spaces:
                with suppress(ModelUnavailable):
                    await words.embed_apart(["a bird"], space)

    monkeypatch.setattr("api.serving.words.load_text_encoder", load)
    words = WordsEmbedding(tmp_path, Sentences(), 10)
    asyncio.run(ask(words, words_space(), words_space("1" * 64), words_space("2" * 64)))
    assert len(loaded) == len(set(loaded)) == 3
    asyncio.run(ask(words, *(words_space(f"{digit}" * 64) for digit in range(3, 6))))
    assert len(words._encoders) == MAX_ENCODERS
    words.close()


def test_an_encoder_that_is_not_there_is_not_tried_for_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def load() -> None:
        tried.append(True)
        raise ModelUnavailable("not installed")

    monkeypatch.setattr("api.serving.words.load_sentences", load)
    shared = Sentences()
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            shared.encode(["a"])
    assert len(tried) == 1


def test_int8_is_fitted_to_what_the_model_gives() -> None:
    files = locate(PACKAGED.name)
    both = [*spaces_for(files, default_requests(files)[:1], Encoding()), words_space()]
    assert [space.name for space in own_parts(both)] == [both[0].name]
    assert [space.recipe.companion for space in own_parts(both)] == [None]
    assert [space.recipe.dim for space in own_parts([words_space()])] == [1280]


def test_a_long_migration_says_so(
    outdated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy import create_engine

    shutil.copy(outdated / "catalog.sqlite", tmp_path / "catalog.sqlite")
    monkeypatch.setattr(migrate, "TOLD_IMAGES", 1)
    engine = create_engine(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with engine.begin() as connection, caplog.at_level(logging.WARNING, "lookalike"):
        connection.exec_driver_sql("DROP TABLE words")
        connection.exec_driver_sql("DROP TABLE words_due")
        for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        migrate._from_5(Operations(MigrationContext.configure(connection)))
    engine.dispose()
    assert "brought up to date" in caplog.text


def test_an_image_beside_words_is_asked_for_where_it_has_a_vector(outdated: Path, tmp_path: Path) -> None:
    from api.serving.questions import Question, QuestionPart, SearchOptions

    shutil.copytree(outdated, tmp_path / "photos.index")
    with Index.open(tmp_path / "photos.index", writable=True) as index:
        with index.writer() as writer:
            writer.drop_space("words")
            writer.add_space(words_space())
        image = index.catalog.page(0, 1)[0][0].id
        parts = [QuestionPart(id=image), QuestionPart(text="bird")]
        draft = Question(parts=parts, options=SearchOptions()).draft(index)
        assert index.space(draft.space).recipe.words is None
        assert draft.words == "bird"
        assert index.space(Question(parts=parts[1:], options=SearchOptions()).draft(index).space).name == "words"


def test_the_encoder_of_an_index_gives_words_beside_its_own_spaces(outdated: Path, tmp_path: Path) -> None:
    shutil.copytree(outdated, tmp_path / "photos.index")
    run_cli("spaces", tmp_path / "photos.index", "add", "--words")
    with Index.open(tmp_path / "photos.index") as index:
        assert {"words", index.space().name} == {*load_index_encoder(index, index.spaces, warn=print).names}
