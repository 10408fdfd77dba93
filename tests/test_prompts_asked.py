"""Promises of prompts and aspects as questions: of an index, a server and the client, and what they refuse."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Server, image_id, new_image, recipe, run_cli, start_server, stop_server, vectors
from lookalike_client import Aspect as ClientAspect
from lookalike_client import Client, Part, SearchResult, Unprocessable
from lookalike_client import PromptInvalid as ClientPromptInvalid
from numpy.typing import NDArray

import api.ask
from api.ask import Asked, query_of
from api.errors import QuestionInvalid
from api.serving.prompts import resolved
from api.serving.questions import Question, QuestionAspect, QuestionPart, SearchOptions
from api.serving.timing import Timing
from search.errors import PromptInvalid
from search.index import Index
from search.query.fusion import WORDS_SHARE
from search.query.prompt import read_prompt
from search.recipe import Recipe
from search.types import Aspect, Encoding, Hit, Query, QueryPart, Space
from search.vectors import normalise

COUNT = 60
SAMPLE = Path(__file__).parent.parent / "data" / "sample"
STRAWBERRY = SAMPLE.parent / "queries" / "strawberry.png"


def ask(index: Index, prompt: str, *, combine: str = "sum", space: str | None = None, k: int = 5) -> list[Hit]:
    options = SearchOptions(k=k, space=space)
    question = Question(prompt=read_prompt(prompt), combine="best" if combine == "best" else "sum", options=options)
    asked = resolved(question, index)
    return index.search(asked.query(asked.draft(index)))


def test_generated_prompts_of_images_agree_with_brute_force(make_index: Callable[..., Index]) -> None:
    data = vectors(COUNT)
    index = make_index(data)
    generator = np.random.default_rng(0)
    for _ in range(300):
        numbers = generator.choice(COUNT, size=generator.integers(1, 5), replace=False)
        weights = [1.0, *generator.choice([0.5, 2.0, -1.0, -0.5], size=len(numbers) - 1).tolist()]
        best = bool(generator.random() < 0.5)
        parts = zip(numbers.tolist(), weights, strict=True)
        prompt = " ".join(
            f"--no id:{image_id(number)[:8]}"
            if weight == -0.5
            else f"{'+' if weight > 0 else '-'} {abs(weight)}:id:{image_id(number)[: generator.integers(6, 64)]}"
            for number, weight in parts
        )
        hits = ask(index, prompt, combine="best" if best else "sum", k=7)
        cosines = data @ data[numbers].T
        if best:
            positive = np.array(weights) > 0
            scores = cosines[:, positive].max(axis=1)
            scores[cosines[:, ~positive].max(axis=1, initial=-2) > scores] = -np.inf
        else:
            scores = data @ normalise(np.array(weights)[None, :] @ data[numbers])[0]
        scores[numbers] = -np.inf
        order = [number for number in np.argsort(-scores)[:7] if np.isfinite(scores[number])]
        assert [hit.id for hit in hits] == [image_id(number) for number in order], prompt
        np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-5)


def test_the_beginning_of_an_id_is_one_image_or_an_error_that_points_at_it(make_index: Callable[..., Index]) -> None:
    index = make_index(vectors(COUNT))
    known = sorted(image_id(number) for number in range(COUNT))
    nobody = next(f"{n:04x}" for n in range(2**16) if not any(one.startswith(f"{n:04x}") for one in known))
    with pytest.raises(PromptInvalid, match="no image whose id begins") as raised:
        ask(index, f"id:{known[0][:12]} - id:{nobody}")
    assert raised.value.position == len("id:") + 12 + len(" - ")
    with index.writer() as writer, writer.transaction() as transaction:
        twin = known[0][:32] + ("0" * 32 if known[0][32] != "0" else "f" * 32)
        plain = new_image(COUNT, vectors(1, seed=3)[0])
        transaction.add(type(plain)(**{**vars(plain), "id": twin}))
    with pytest.raises(PromptInvalid, match=r"Several images.*Add digits"):
        ask(index, f"id:{known[0][:20]}")


@pytest.mark.parametrize("named", ["style-gram", "other-model-style"])
def test_a_style_is_an_aspect_of_its_own_space(tmp_path: Path, make_index: Callable[..., Index], named: str) -> None:
    data = {name: vectors(COUNT, dim=dim, seed=dim) for name, dim in {"layer2": 16, named: 8}.items()}
    spaces = [Space(name=name, recipe=recipe(dim=one.shape[1]), encoding=Encoding()) for name, one in data.items()]
    with Index.create(tmp_path / "i.index", spaces) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number in range(COUNT):
                own = {name: one[number] for name, one in data.items()}
                plain = new_image(number, data["layer2"][number])
                transaction.add(type(plain)(**{**vars(plain), "vectors": own}))
        index.publish()

        def by_hand(weight: float) -> list[Hit]:
            content = Aspect(parts=[QueryPart(id=image_id(1), weight=2)], space="layer2", weight=2)
            style = Aspect(parts=[QueryPart(id=image_id(2))], space=named, weight=2 * weight)
            return index.search(Query(aspects=[content, style], k=5))

        one, two = (f"id:{image_id(number)[:16]}" for number in (1, 2))
        assert ask(index, f"2:{one} --style {two} --sw 300") == by_hand(3)
        assert ask(index, f"2:{one} --style {two}", space="layer2") == by_hand(1)
        assert ask(index, f"--style {two}") == index.search(
            Query(aspects=[Aspect(parts=[QueryPart(id=image_id(2))], space=named)], k=5)
        )
    without = make_index(vectors(COUNT))
    with pytest.raises(PromptInvalid, match="add --style"):
        ask(without, f"--style id:{image_id(2)[:16]}")


def test_words_of_an_aspect_are_looked_for_in_the_catalog_too(make_index: Callable[..., Index]) -> None:
    index = make_index(vectors(COUNT))
    like = QuestionAspect(parts=[QuestionPart(id=image_id(7))], weight=3)
    words = QuestionAspect(parts=[QuestionPart(text="strange")])
    question = Question(aspects=[like, words], options=SearchOptions(k=COUNT))
    draft = question.draft(index)
    assert (draft.words, draft.words_share) == ("strange", 0.25)
    hits = index.search(question.query(draft))
    assert "strange" in hits[0].labels
    assert [reason.space for reason in hits[0].why] == ["layer2", None]
    assert all(sum(reason.share for reason in hit.why) == pytest.approx(hit.score, abs=1e-5) for hit in hits)
    with pytest.raises(QuestionInvalid, match="knows no words"):
        Question(aspects=[QuestionAspect(parts=words.parts, space="layer2")], options=SearchOptions()).draft(index)
    with pytest.raises(QuestionInvalid, match="aspects, each with its own"):
        Question(aspects=[like], options=SearchOptions(space="layer2")).draft(index)


def test_an_image_that_asks_takes_no_share_of_words_from_others(make_index: Callable[..., Index]) -> None:
    index = make_index(vectors(COUNT))
    first, _ = index.catalog.find_words("strange", 1, None)[0]
    asked = next(name for name, rowid in index.catalog.rowids(map(image_id, range(COUNT))).items() if rowid == first)
    hits = index.search(Query(parts=[QueryPart(id=asked)], words="strange", words_share=0.5, k=COUNT))
    assert max(hit.why[-1].share for hit in hits) == pytest.approx(WORDS_SHARE * 0.5)


def test_the_texts_of_a_prompt_load_their_encoder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = replace(recipe(dim=8), text_sha256="f" * 64)
    spaces = [
        Space(name=name, recipe=one, encoding=Encoding()) for name, one in (("layer2", recipe()), ("words", told))
    ]
    loaded = []

    class Texts:
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return vectors(len(texts), dim=8, seed=len(texts[0]))

    def load(of: Recipe, models: Path) -> Texts:
        loaded.append(of)
        return Texts()

    monkeypatch.setattr(api.ask, "load_text_encoder", load)
    with Index.create(tmp_path / "i.index", spaces) as index:
        asked = Asked(prompt="red - blue + 2:green", options=SearchOptions())
        query, _ = query_of(index, asked, Timing(), warn=pytest.fail)
    assert len(query.parts) == 3
    assert loaded == [told]


def test_what_is_vetoed_is_not_found_by_its_words_either(make_index: Callable[..., Index]) -> None:
    index = make_index(vectors(COUNT))
    parts = [QueryPart(id=image_id(2)), QueryPart(vector=vectors(COUNT)[9], weight=-1)]
    query = Query(parts=parts, combine="best", words="strange", k=COUNT)
    found = {hit.id for hit in index.search(query)}
    assert image_id(9) not in found
    assert found == {hit.id for hit in index.search(Query(parts=parts, combine="best", k=COUNT))}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    """A server over sample drawings, with a space of words."""
    base = tmp_path_factory.mktemp("prompts")
    for name in ("birds", "fruit", "houses"):
        shutil.copytree(SAMPLE / name, base / "photos" / name)
    index = base / "photos.index"
    run_cli("build", base / "photos", "--index", index, "--model", checkpoint, "--backend", "torch")
    run_cli("spaces", index, "add", "--words")
    process, url = start_server(index)
    yield Server(url=url, photos=base / "photos", queries=base, index=index)
    assert stop_server(process) == 0


def ids(found: SearchResult) -> list[str]:
    return [hit.id for hit in found]


@pytest.mark.slow(measured=True)
def test_command_line_client_and_server_read_a_prompt_alike(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STRAWBERRY.parent)
    prompt = '2:strawberry.png + "a bird" --no house'
    local = json.loads(run_cli("search", prompt, "--index", served.index, "-k", "5", "--json").stdout)["hits"]
    remote = json.loads(run_cli("search", prompt, "--server", served.url, "-k", "5", "--json").stdout)["hits"]
    with Client(served.url) as client:
        found = client.search(prompt=prompt, k=5)
        space = next(one.name for one in client.spaces() if one.default)
        image = Part(image=STRAWBERRY, weight=2)
        texts = [Part(text="a bird"), Part(text="house", weight=-0.5)]
        by_hand = client.search(
            aspects=[ClientAspect(parts=[image], weight=2), ClientAspect(parts=texts, weight=1.5)], k=5
        )
    assert [hit["id"] for hit in local] == [hit["id"] for hit in remote] == ids(found) == ids(by_hand)
    assert [reason.space for reason in found[0].why] == [space, "words", None]
    assert [reason["space"] for reason in local[0]["why"]] == [space, "words", None]
    assert found[0].score == pytest.approx(local[0]["score"], abs=1e-4)


@pytest.mark.slow
def test_a_prompt_names_a_picture_far_down(served: Server, tmp_path: Path) -> None:
    far = tmp_path / ("a" * 120) / ("b" * 120) / "far.png"
    far.parent.mkdir(parents=True)
    far.write_bytes(STRAWBERRY.read_bytes())
    with Client(served.url) as client:
        assert ids(client.search(prompt=str(far), k=3)) == ids(client.search(STRAWBERRY, k=3))


@pytest.mark.slow(measured=True)
def test_aspects_are_answered_over_http_and_say_why(served: Server) -> None:
    with Client(served.url) as client:
        first, second, *_ = client.images()
        parts = [Part(id=first.id), Part(id=second.id)]
        best = client.search(parts=parts, combine="best", k=3)
        space = best.space
        both = client.search(
            aspects=[ClientAspect(parts=parts[:1], space=space), ClientAspect(parts=parts[1:], space="words")], k=3
        )
        plain = client.search(aspects=[ClientAspect(parts=parts[:1])], k=3)
        assert plain == client.search(id=first.id, k=3)
        alone = [client.search(id=one.id, k=100) for one in (first, second)]
    scores = {hit.id: hit.score for one in alone for hit in reversed(one) if hit.id not in (first.id, second.id)}
    for one in alone:
        for hit in one:
            scores[hit.id] = max(scores.get(hit.id, -1), hit.score)
    assert best[0].score == pytest.approx(max(scores[name] for name in scores if name not in (first.id, second.id)))
    assert [reason.space for reason in both[0].why] == [space, "words"]
    assert sum(reason.share for reason in both[0].why) == pytest.approx(both[0].score, abs=1e-5)
    assert plain[0].why[0].score == plain[0].why[0].share == plain[0].score


@pytest.mark.slow(measured=True)
def test_what_a_server_cannot_mean_is_refused(served: Server) -> None:
    part = {"text": "a bird"}
    picture = base64.b64encode(STRAWBERRY.read_bytes()).decode()
    refused = {
        "exactly one of parts": [{}, {"parts": [part], "prompt": "a bird"}, {"parts": [part], "aspects": []}],
        "a server does not open": [{"prompt": "a bird + bird.png"}, {"prompt": "/etc/passwd"}],
        "at character 8": [{"prompt": "a bird --seed 3"}],
        "names no image": [{"prompt": "a bird", "images": {"bird.png": picture}}],
        "a prompt names": [{"parts": [part], "images": {"bird.png": picture}}],
        "add --style": [{"prompt": "--style s.png", "images": {"s.png": picture}}],
        "needs a positive weight": [{"parts": [{**part, "weight": -1}], "space": "words", "combine": "best"}],
        "No false-match rate": [
            {"aspects": [{"parts": [{"image": picture}]}, {"parts": [part]}], "max_fmr": 0.01},
        ],
    }
    for said, bodies in refused.items():
        for body in bodies:
            answer = httpx.post(f"{served.url}/v1/search", json=body)
            assert answer.status_code == 422, body
            assert said in answer.text or not body.get("aspects", True), (said, answer.text)
    assert httpx.post(f"{served.url}/v1/search", json={"prompt": "x --seed"}).json()["code"] == "invalid-prompt"
    batch = {"queries": [{"prompt": "a bird", "k": 1}, {"prompt": "a bird +", "k": 1}]}
    good, bad = httpx.post(f"{served.url}/v1/search/batch", json=batch).json()["answers"]
    assert len(good["answer"]["hits"]) == 1
    assert bad["error"]["code"] == "invalid-prompt"
    with Client(served.url) as client:
        with pytest.raises(ClientPromptInvalid) as raised:
            client.search(prompt="red --seed")
        assert raised.value.position == 4
        with pytest.raises(FileNotFoundError):
            client.search(prompt="bird.svg")
        with pytest.raises(Unprocessable, match="no image whose id"):
            client.search(prompt="id:00000000")
        with pytest.raises(TypeError, match="aspects and prompt"):
            client.search(prompt="red", text="red")


def test_the_command_line_points_at_what_is_wrong(served: Server) -> None:
    for prompt, said in {
        "a bird --seed 3": "`--seed` is not known",
        "a bird + nowhere.svg": "nowhere.svg cannot be read",
        "a bird - id:00000000": "no image whose id begins with 00000000",
    }.items():
        lines = run_cli("search", prompt, "--index", served.index, check=2).stderr.splitlines()
        assert said in lines[0]
        assert lines[1] == prompt
        assert lines[2].index("^") == prompt.index(prompt.split(" ")[2 if "--seed" in prompt else 3])
    assert "sum or best" in run_cli("search", "a", "--index", served.index, "--combine", "most", check=2).stderr


def test_an_existing_file_of_any_name_is_found_first(served: Server, tmp_path: Path) -> None:
    for name in ("2:red - blue --no x::2", 'a "bird', "photo"):
        shutil.copy(STRAWBERRY, tmp_path / name)
        found = json.loads(run_cli("search", tmp_path / name, "--index", served.index, "-k", "1", "--json").stdout)
        assert len(found["hits"]) == 1
        assert found["space"] != "words"
    named = f'file:"{tmp_path}/a \\"bird" - "a house"'
    assert json.loads(run_cli("search", named, "--index", served.index, "--json").stdout)["hits"]
