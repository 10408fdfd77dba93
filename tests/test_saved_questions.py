"""Promises of questions that are kept: prompts among them, and the cuts that watches need."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import HeldEncoder, image_id, new_image, recipe, vectors
from test_api import check_problem
from test_edge import Serve
from typer.testing import CliRunner

from api.cli import app
from api.errors import QuestionInvalid
from api.serving.saved import SavedQuestion, settled
from api.serving.watched import check_cut, checked_watch, watched
from search.errors import PromptInvalid
from search.index import Index
from search.types import Encoding, Space

COUNT = 120
WORDS = vectors(COUNT, dim=8, seed=8)
ONE, TWO = (image_id(number)[:12] for number in (1, 2))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """With a space of words, in which image n lies where the text of n letters does."""
    told = replace(recipe(dim=8), text_sha256="f" * 64)
    spaces = [Space(name=name, recipe=of, encoding=Encoding()) for name, of in (("layer2", recipe()), ("words", told))]
    pictures = vectors(COUNT)
    with Index.create(tmp_path / "i.index", spaces) as made:
        with made.writer() as writer, writer.transaction() as transaction:
            for number in range(COUNT):
                both = {"layer2": pictures[number], "words": WORDS[number]}
                transaction.add(replace(new_image(number, pictures[number]), vectors=both))
        made.publish()
        yield made


def saved(**fields: Any) -> SavedQuestion:
    return SavedQuestion.model_validate(fields)


WITHOUT_RATES: list[dict[str, Any]] = [
    {"parts": [{"text": "bicycle"}]},
    {"parts": [{"id": image_id(1)}, {"id": image_id(2)}]},
    {"parts": [{"id": image_id(1), "weight": -1.0}]},
    {"prompt": "bicycle"},
    {"prompt": f"id:{ONE} - car"},
]


@pytest.mark.parametrize("question", WITHOUT_RATES)
@pytest.mark.parametrize("share", ["auto", 0.01])
def test_a_watch_whose_cut_would_cut_nothing_is_refused_with_one_that_works(
    index: Index, question: dict[str, Any], share: Any
) -> None:
    with pytest.raises(QuestionInvalid, match="Send min_score") as refused:
        checked_watch(saved(**question, max_fmr=share), index)
    assert "max_fmr 'auto'" not in str(refused.value)
    assert checked_watch(saved(**question, min_score=0.5), index).min_score == 0.5


def test_a_share_of_one_is_no_cut(index: Index) -> None:
    with pytest.raises(QuestionInvalid, match="needs a cut"):
        checked_watch(saved(parts=[{"id": image_id(1)}], max_fmr=1.0), index)


@pytest.mark.parametrize("question", [{"parts": [{"text": "bicycle"}]}, {"prompt": "bicycle"}])
def test_the_least_score_of_watched_words_cuts(index: Index, question: dict[str, Any]) -> None:
    kept = checked_watch(saved(**question, min_score=0.9), index)
    assert kept.space == "words"
    asked = watched(kept, index)
    draft = asked.draft(index)
    assert [text for text, _ in asked.texts_in(draft)] == ["bicycle"]
    hits = index.search(asked.query(draft, (), [WORDS[7]]))
    assert [hit.id for hit in hits] == [image_id(7)]
    check_cut(asked, hits)


def test_auto_of_one_image_needs_rates_that_are_known(index: Index, make_index: Callable[..., Index]) -> None:
    few = make_index(vectors(20))
    for of, refused in ((index, False), (few, True)):
        question = watched(checked_watch(saved(prompt=f"id:{ONE}", max_fmr="auto"), of), of)
        hits = of.search(question.query(replace(question.draft(of), max_fmr=None if refused else "auto")))
        if refused:
            with pytest.raises(QuestionInvalid, match="published with too few images"):
                check_cut(question, hits)
        else:
            check_cut(question, hits)


def test_a_kept_prompt_names_images_by_whole_ids_and_no_picture(index: Index) -> None:
    kept = settled(saved(prompt=f"2:id:{ONE} snow --no id:{TWO}", k=4), index)
    assert kept.to_json() == {"prompt": f"2:id:{image_id(1)} + snow - 0.5:id:{image_id(2)}", "k": 4}
    assert settled(kept, index) == kept
    with pytest.raises(PromptInvalid, match="keeps no pictures"):
        settled(saved(prompt="bird.png + snow"), index)
    for fields in ({}, {"filter": {"label": "odd"}}, {"prompt": "a", "parts": [{"text": "b"}]}):
        with pytest.raises(QuestionInvalid, match="exactly one of `parts`"):
            settled(saved(**fields), index)


def test_a_watch_of_a_style_is_refused(index: Index) -> None:
    with pytest.raises(QuestionInvalid, match="--style"):
        checked_watch(saved(prompt=f"--style id:{ONE}", min_score=0.5), index)


def test_a_question_in_a_file_says_which_field_is_wrong(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "q1.json"
    add = ["watches", str(index.path), "add", "bikes", "--question", str(file), "--url", "https://example.com/"]
    file.write_text(json.dumps({"parts": [{"txt": "bikes"}], "min_score": 0.5}))
    refused = str(CliRunner().invoke(app, add).exception)
    assert "q1.json: parts.0.txt: " in refused
    assert "Delete it" not in refused
    file.write_text(json.dumps({"prompt": f"id:{ONE}", "min_score": 0.5}))
    assert "Added the watch 1" in CliRunner().invoke(app, add).output


@pytest.fixture
def http(make_index: Callable[..., Index]) -> Iterator[httpx.Client]:
    serving = Serve(make_index, HeldEncoder())
    with httpx.Client(base_url=serving(watch_private=True), timeout=60) as client:
        yield client
    serving.close()


def refusal(answer: httpx.Response) -> str:
    check_problem(answer, 422, "invalid")
    return str(answer.json()["detail"])


def test_a_board_takes_prompts_and_short_ids_and_says_what_else_is_missing(http: httpx.Client) -> None:
    items = f"/v1/boards/{http.post('/v1/boards', json={'name': 'Spring'}).json()['id']}/items"
    item = http.post(items, json={"question": {"prompt": f"id:{ONE}", "k": 3}, "name": "like one"})
    assert item.status_code == 201, item.text
    hits = http.get(f"{items}/{item.json()['id']}/hits").json()["hits"]
    assert len(hits) == 3
    assert image_id(1) not in [hit["id"] for hit in hits]
    refused = refusal(http.post(items, json={"question": {"filter": {"label": "odd"}}}))
    assert "`parts` (each with text, id or vector) and `prompt`" in refused
    assert "field" in refusal(http.post(items, json={"question": {"session": 3}}))

    placed = http.post(items, json={"image": ONE.upper()})
    assert (placed.status_code, placed.json()["image"]) == (201, image_id(1))
    assert http.post(items, json={"image": image_id(1)[:20]}).status_code == 200
    check_problem(http.post(items, json={"image": "0000000000000000"}), 404, "unknown-image")
    for wrong in ("9f8", "picture.jpg", 5):
        detail = refusal(http.post(items, json={"image": wrong}))
        assert "curl" not in detail
        assert detail.startswith("image: ")
    url = {"url": "http://127.0.0.1/", "name": "more"}
    body = {**url, "question": {"parts": [{"id": image_id(1)}], "max_fmr": "auto"}}
    assert "too few images" in refusal(http.post("/v1/watches", json=body))
