"""Promises of feedback: marks move a question, rounds are kept as a tree, and a taught question gives a label."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import DIM, FakeEncoder, image_id, run_cli, vectors
from fastapi.testclient import TestClient
from lookalike_client import AsyncClient, Client, FeedbackResult, NotFound, Part
from numpy.typing import NDArray

from api.http.access import Keys, read_keys
from api.http.app import create_app
from api.serving.service import Service
from api.settings import Settings
from indexer.pictures.worker import Workers
from search.catalog.annotations import MAX_LABELS
from search.errors import AnnotationInvalid, FeedbackInvalid, QueryInvalid, SessionExists, UnknownImage, UnknownSession
from search.feedback import MAX_MARKS, Marks, TaughtQuestion, checked_marks
from search.index import Index
from search.labelling import CONFIDENCE, again, apply, measure, preview
from search.query.feedback import FEW_MARKS, RANDOM_WEIGHT, RIDGE, adapt, background_of
from search.recipe import TransformSpec
from search.teaching import Teacher, best_cut
from search.types import Query, QueryPart
from search.upkeep.verify import verify
from search.vectors import normalise

MakeIndex = Callable[..., Index]
KIND = 40
"""Images of the kind that is looked for, numbers 0 to 39, of 240."""


def kinds() -> NDArray[np.float32]:
    """Vectors of 240 images: the first 40 lean to one side in three dimensions, the others are random."""
    data = np.random.default_rng(0).normal(size=(240, DIM))
    data[:KIND, :3] += 3
    return normalise(data)


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    return make_index(kinds())


def of_kind(hits: list[str]) -> int:
    kind = {image_id(number) for number in range(KIND)}
    return sum(hit in kind for hit in hits)


def marks_of(index: Index, question: TaughtQuestion, teacher: Teacher, rounds: int) -> Marks:
    """Marks that somebody makes who looks for the kind, ten a round."""
    kind, marks = {image_id(number) for number in range(KIND)}, Marks()
    for _ in range(rounds):
        ids = [hit.id for hit in teacher.answer(question, marks).hits]
        more = tuple(one for one in ids if one in kind)
        marks = marks.then(Marks(more=more, less=tuple(one for one in ids if one not in kind)))
    return marks


QUESTION = TaughtQuestion(space="layer2", parts=(QueryPart(id=image_id(0)),))


def test_few_marks_move_the_question_between_them() -> None:
    data = vectors(4)
    background = background_of(vectors(50, seed=1))
    moved = adapt(data[0], data[1:2], data[2:3], background)
    assert moved.method == "rocchio"
    assert moved.vector @ data[1] > data[0] @ data[1]
    assert moved.vector @ data[2] < data[0] @ data[2]
    assert adapt(data[0], data[:0], data[:0], background).vector == pytest.approx(data[0])


def test_a_mark_scores_when_left_out_as_if_it_had_not_been_given() -> None:
    data, background = kinds(), background_of(vectors(50, seed=1))
    more, less = data[:8], data[100:106]
    told = adapt(None, more, less, background)
    assert told.method == "classifier"
    assert len(told.held_out_more) == 8
    assert len(told.held_out_less) == 6

    def fitted(marked: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]) -> np.ndarray:
        """The same least squares, written as rows with a constant."""
        rows = np.hstack([marked, np.ones((len(marked), 1))])
        constant = np.append(background.mean, 1)
        moments = np.block([[background.moments, background.mean[:, None]], [constant[None, :]]])
        left = (rows.T * weights) @ rows + RANDOM_WEIGHT * moments
        left[:DIM, :DIM] += penalty * np.eye(DIM)
        return np.asarray(np.linalg.solve(left, rows.T @ (weights * targets) - RANDOM_WEIGHT * constant))

    marked = np.concatenate([more, less]).astype(np.float64)
    targets = np.array([1.0] * 8 + [-1.0] * 6)
    weights = np.array([1 / 8] * 8 + [1 / 6] * 6)
    mean = (weights @ marked + RANDOM_WEIGHT * background.mean) / (2 + RANDOM_WEIGHT)
    spread = (marked.T * weights) @ marked + RANDOM_WEIGHT * background.moments
    penalty = RIDGE * np.trace(spread - (2 + RANDOM_WEIGHT) * np.outer(mean, mean)) / DIM
    whole = fitted(marked, targets, weights)
    assert told.vector == pytest.approx(whole[:DIM] / np.linalg.norm(whole[:DIM]), abs=1e-5)
    rest = np.arange(14) != 3
    without = fitted(marked[rest], targets[rest], weights[rest])
    score = without[:DIM] @ marked[3] + without[DIM] - whole[DIM]
    assert told.held_out_more[3] == pytest.approx(score / np.linalg.norm(whole[:DIM]), abs=1e-6)


def test_marks_find_more_of_the_kind(index: Index) -> None:
    teacher = Teacher(index)
    first = [hit.id for hit in index.search(Query(parts=[QueryPart(id=image_id(0))], k=KIND - 1))]
    marks = marks_of(index, QUESTION, teacher, 3)
    answer = teacher.answer(QUESTION, marks, k=KIND)
    found = of_kind([hit.id for hit in answer.hits]) + len(marks.more)
    assert found > of_kind(first)
    shown = {hit.id for hit in answer.hits}
    assert not shown & {image_id(0), *marks.more, *marks.less}
    assert answer.method == "classifier"
    assert {hit.id for hit in answer.uncertain}.isdisjoint(shown)


def test_without_marks_a_question_is_answered_as_a_search(index: Index) -> None:
    answer = Teacher(index).answer(QUESTION, Marks(), k=7)
    assert list(answer.hits) == index.search(Query(parts=[QueryPart(id=image_id(0))], k=7))
    assert answer.stable is None


def test_marks_alone_ask_and_nothing_at_all_does_not(index: Index) -> None:
    teacher, nothing = Teacher(index), TaughtQuestion(space="layer2")
    assert len(teacher.answer(nothing, Marks(more=(image_id(1), image_id(2)))).hits) == 10
    with pytest.raises(QueryInvalid, match="Nothing says what to look for"):
        teacher.answer(nothing, Marks(less=(image_id(1),)))


def test_a_whitened_space_is_taught_in_what_it_searches(make_index: MakeIndex) -> None:
    index = make_index(kinds(), transform=TransformSpec(kind="whitening", floor=0.1, max_dim=16))
    teacher = Teacher(index)
    marks = Marks(more=tuple(map(image_id, range(1, 6))), less=tuple(map(image_id, range(100, 105))))
    answer = teacher.answer(QUESTION, marks)
    (part,) = answer.query.parts
    assert part.vector is not None
    assert part.vector.shape == (index.snapshot().spaces["layer2"].transform.dim,)
    assert list(answer.hits) == index.search(answer.query)


def test_it_says_when_a_round_changed_nothing(index: Index) -> None:
    teacher = Teacher(index)
    marks = Marks(more=tuple(map(image_id, range(1, 15))), less=tuple(map(image_id, range(100, 115))))
    assert teacher.answer(QUESTION, marks, before=marks).stable
    tiny = Marks(more=(image_id(1),))
    assert teacher.answer(QUESTION, tiny).stable is None
    turned = Marks(less=tuple(map(image_id, range(1, 6))), more=tuple(map(image_id, range(100, 105))))
    assert not teacher.answer(QUESTION, turned, before=tiny).stable


def test_marks_of_images_that_are_gone_are_refused_or_passed_over(index: Index) -> None:
    teacher, marks = Teacher(index), Marks(more=(image_id(1), image_id(9_999)))
    with pytest.raises(UnknownImage):
        teacher.answer(QUESTION, marks)
    answer = teacher.answer(QUESTION, marks, kept=True)
    assert answer.ignored == 1
    assert answer.marks == Marks(more=(image_id(1),))


def test_marks_contradict_each_other_within_a_round_only() -> None:
    with pytest.raises(FeedbackInvalid, match="as more and as less"):
        checked_marks(["a"], ["a"])
    with pytest.raises(FeedbackInvalid, match="2,000 marks"):
        checked_marks([str(number) for number in range(MAX_MARKS + 1)], [])
    assert Marks(more=("a", "b")).then(Marks(less=("a",))) == Marks(more=("b",), less=("a",))


def test_rounds_are_a_tree_that_is_only_added_to(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        session = transaction.start_session(QUESTION, "cats")
        assert transaction.start_session(QUESTION, "cats") == session
        one = transaction.add_round(session, session, Marks(more=("a",)))
        two = transaction.add_round(session, one, Marks(less=("a", "b")))
        branch = transaction.add_round(session, one, Marks(more=("c",)), "other")
        assert transaction.add_round(session, one, Marks(less=("b", "a"))) == two
        with pytest.raises(UnknownSession):
            transaction.add_round(session, "no such round", Marks(more=("a",)))
        with pytest.raises(SessionExists):
            transaction.start_session(TaughtQuestion(space="layer2"), "cats")
    held = index.catalog.session("cats")
    assert held == index.catalog.session(session)
    assert [round_.id for round_ in held.rounds] == [session, one, two, branch]
    assert held.marks() == held.marks("other") == Marks(more=("a", "c"))
    assert held.marks(two) == Marks(less=("a", "b"))
    assert held.marks(session) == Marks()
    assert held.question.to_json() == QUESTION.to_json()
    assert verify(index).findings == []


def test_a_session_is_renamed_and_forgotten(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        session = transaction.start_session(QUESTION, None)
        transaction.name_session(session, "cats")
        with pytest.raises(FeedbackInvalid, match="printable"):
            transaction.name_session(session, " cats")
    assert [one.name for one in index.catalog.sessions()] == ["cats"]
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.delete_session(session)
        with pytest.raises(UnknownSession):
            transaction.delete_session(session)
    assert index.catalog.sessions() == []


def test_erasing_an_image_erases_its_marks_and_questions(index: Index) -> None:
    with index.writer() as writer:
        with writer.transaction() as transaction:
            session = transaction.start_session(TaughtQuestion(space="layer2"), "marks")
            transaction.add_round(session, session, Marks(more=(image_id(0), image_id(1))))
            transaction.start_session(QUESTION, "question")
        writer.remove([image_id(0)], erase=True)
    assert [one.name for one in index.catalog.sessions()] == ["marks"]
    assert index.catalog.session("marks").marks() == Marks(more=(image_id(1),))


def taught(index: Index, teacher: Teacher) -> str:
    """The id of a session with marks of four rounds, and some further down."""
    marks = marks_of(index, QUESTION, teacher, 4).then(Marks(less=tuple(map(image_id, range(100, 110)))))
    with index.writer() as writer, writer.transaction() as transaction:
        session = transaction.start_session(QUESTION, "kind")
        transaction.add_round(session, session, marks)
    return session


def test_a_rule_is_shown_then_given_and_given_again_to_new_images(index: Index) -> None:
    teacher = Teacher(index)
    session = index.catalog.session(taught(index, teacher))
    shown = preview(index, teacher, session, "kind", precision=0.9)
    assert shown.measured.precision.value is not None
    assert shown.measured.precision.value >= 0.9
    assert shown.measured.precision.low < shown.measured.precision.value
    assert of_kind(list(shown.new)) >= 0.8 * len(shown.new) > 0
    assert set(session.marks().more) <= set(shown.new)
    assert not set(session.marks().less) & set(shown.new)
    assert index.image(image_id(1)).labels == ("odd", "strange")
    with index.writer() as writer:
        assert apply(writer, session.id, shown) == len(shown.new)
    once = again(index, teacher, index.catalog.session("kind"))
    assert once.new == ()
    assert once.already == len(shown.new)
    with index.writer() as writer:
        writer.describe(session.marks().more[0], labels=[])
    assert again(index, teacher, index.catalog.session("kind")).new == (session.marks().more[0],)


def test_others_write_between_batches_of_a_label(
    app: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught(service.index, Teacher(service.index))
    monkeypatch.setattr("search.labelling.LABELLED_AT_ONCE", 10)
    write, held = service.write, []

    async def counted(work: Any) -> Any:
        before = {one for one in range(240) if "kind" in service.index.image(image_id(one)).labels}
        result = await write(work)
        after = {one for one in range(240) if "kind" in service.index.image(image_id(one)).labels}
        held.append(len(after - before))
        return result

    monkeypatch.setattr(service, "write", counted)
    body = {"label": "kind", "precision": 0.9, "apply": True}
    given = app.post("/v1/feedback/kind/label", json=body, headers=WRITER).json()["applied"]
    assert given == sum(held) > 10
    assert max(held) == 10


def test_no_image_gets_more_labels_than_it_may_have(index: Index) -> None:
    session = taught(index, Teacher(index))
    full, some = image_id(1), [f"label {number}" for number in range(MAX_LABELS)]
    with index.writer() as writer:
        writer.describe(full, labels=some)
        with writer.transaction() as transaction, pytest.raises(AnnotationInvalid, match="has already"):
            transaction.annotate(full, labels=["one more"])
        with writer.transaction() as transaction:
            assert not transaction.annotate(full, labels=some[:1])
            assert transaction.annotate(full, labels=["one more"], without=some[:1])
        found = preview(index, Teacher(index), index.catalog.session(session), "kind", above=-1)
        assert full in found.new
        assert apply(writer, session, found) == len(found.new) - 1
    assert len(index.image(full).labels) == MAX_LABELS


def test_a_rule_keeps_to_the_filter_of_its_question(index: Index) -> None:
    teacher = Teacher(index)
    session = index.catalog.session(taught(index, teacher))
    even = TaughtQuestion(space="layer2", parts=QUESTION.parts, filter={"label": "even"})
    with index.writer() as writer, writer.transaction() as transaction:
        made = transaction.start_session(even, "even")
        transaction.add_round(made, made, session.marks())
    found = preview(index, teacher, index.catalog.session("even"), "kind", above=-1)
    marked = {*session.marks().more}
    assert len(found.new) < 240
    assert all("even" in index.image(one).labels for one in found.new if one not in marked)


def test_a_rule_needs_marks_of_both_kinds(index: Index) -> None:
    teacher = Teacher(index)
    marks = Marks(more=tuple(map(image_id, range(1, 10))), less=(image_id(100),))
    with pytest.raises(FeedbackInvalid, match="mark at least 5 of each"):
        measure(teacher.learn(QUESTION, marks).adapted, vectors(0)[:, 0], above=0.1)
    with pytest.raises(FeedbackInvalid, match="either the score"):
        measure(teacher.learn(QUESTION, marks).adapted, vectors(0)[:, 0])


def test_an_interval_holds_the_share_as_often_as_it_says() -> None:
    from search.labelling import _share

    few = _share(9, 10)  # as R's binom.test
    assert (few.low, few.high) == (pytest.approx(0.5550, abs=1e-4), pytest.approx(0.9975, abs=1e-4))
    assert _share(0, 0).value is None
    draws = np.random.default_rng(0).binomial(20, 0.8, size=400).tolist()
    assert np.mean([_share(right, 20).low <= 0.8 <= _share(right, 20).high for right in draws]) >= CONFIDENCE


def test_a_cut_tells_both_kinds_apart() -> None:
    assert 0.3 < best_cut(np.array([0.5, 0.6]), np.array([0.1, 0.3])) < 0.5
    assert FEW_MARKS > 1


@pytest.fixture
def service(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The index, served without decoding anything."""
    monkeypatch.setattr(Workers, "start", lambda *_: None)
    one = Service("test", index, FakeEncoder(), Settings())
    yield one
    one.close()


@pytest.fixture
def app(service: Service) -> TestClient:
    """Serves the index to two keys."""
    keys = Keys(read_keys(["writer-key", "read:reader-key"]))
    return TestClient(create_app({"test": service}, Settings(), keys), base_url="http://localhost")


def in_process(app: TestClient) -> httpx.MockTransport:
    """Carries a client's requests to the application."""

    def answer(request: httpx.Request) -> httpx.Response:
        told = app.request(request.method, str(request.url), headers=dict(request.headers), content=request.read())
        return httpx.Response(told.status_code, headers=dict(told.headers), content=told.content)

    return httpx.MockTransport(answer)


WRITER, READER = {"Authorization": "Bearer writer-key"}, {"Authorization": "Bearer reader-key"}
BODY = {
    "question": {"parts": [{"id": image_id(0)}]},
    "more": [image_id(number) for number in range(1, 8)],
    "less": [image_id(number) for number in range(100, 108)],
}


def test_the_adapted_question_is_one_that_a_search_answers_alike(app: TestClient) -> None:
    answer = app.post("/v1/feedback", json=BODY, headers=READER)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["method"] == "classifier"
    found = app.post("/v1/search", json={**told["question"], "k": 30}, headers=READER).json()
    marked = {image_id(0), *told["more"], *told["less"]}
    unmarked = [hit["id"] for hit in found["hits"] if hit["id"] not in marked]
    assert unmarked[:5] == [hit["id"] for hit in told["hits"][:5]]


def test_a_key_that_may_only_read_keeps_nothing(app: TestClient) -> None:
    refused = app.post("/v1/feedback", json={**BODY, "keep": True}, headers=READER)
    assert (refused.status_code, refused.json()["code"]) == (403, "read-only-key")
    kept = app.post("/v1/feedback", json={**BODY, "keep": True, "name": "kind"}, headers=WRITER).json()
    more = {"session": kept["session"], "more": [image_id(9)]}
    assert app.post("/v1/feedback", json=more, headers=READER).status_code == 403
    assert app.post("/v1/feedback", json={"session": "kind"}, headers=READER).status_code == 200
    assert app.post("/v1/feedback/kind/label", json={"label": "a", "above": 0}, headers=READER).status_code == 403


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"session": "none"}, 404, "unknown-session"),
        ({"question": {"parts": [{"id": "0" * 64}]}, "more": [image_id(1)]}, 404, "unknown-image"),
        ({"more": [image_id(1)], "less": [image_id(1)]}, 422, "invalid-feedback"),
        ({}, 422, "invalid-query"),
        ({"session": "kind", "keep": True}, 422, "invalid"),
        ({"round": "kind"}, 422, "invalid"),
        ({"question": {"parts": [{"id": image_id(1), "searched": True}]}}, 422, "invalid"),
    ],
)
def test_what_cannot_be_meant_is_refused(app: TestClient, body: dict[str, object], status: int, code: str) -> None:
    answer = app.post("/v1/feedback", json=body, headers=WRITER)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_session_is_taught_branched_and_made_a_label_by_the_client(app: TestClient) -> None:
    with Client("http://localhost", api_key="writer-key", transport=in_process(app)) as client:
        more, less = BODY["more"], BODY["less"]
        first = client.feedback.ask([Part(id=image_id(0))], more=more, less=less, keep=True, name="kind")
        assert isinstance(first, FeedbackResult)
        assert first.parts[0].searched
        second = client.feedback.ask(session="kind", more=[first.hits[0].id])
        branch = client.feedback.ask(session="kind", round=first.round, less=[first.hits[0].id], name="other")
        assert client.feedback.ask(session="kind", round=first.round, more=[first.hits[0].id]).round == second.round
        held = client.feedback.session("kind")
        assert [one.parent for one in held.rounds] == [None, held.id, first.round, first.round]
        assert held.rounds[-1].id == branch.round
        assert client.feedback.sessions()[0].rounds == 3
        shown = client.feedback.label("kind", "thing", precision=0.9, round=second.round)
        assert shown.applied is None
        assert shown.rule.measured.precision.low <= 1
        given = client.feedback.label("kind", "thing", precision=0.9, round=second.round, apply=True)
        assert given.applied == shown.new > 0
        assert client.feedback.label("kind").already == given.applied
        assert client.get(first.hits[0].id).labels[-1] == "thing"
        assert client.feedback.rename("kind", "things").name == "things"
        client.feedback.delete("things")
        with pytest.raises(NotFound):
            client.feedback.session("things")
        with pytest.raises(TypeError, match="question already"):
            client.feedback.ask([Part(id=image_id(0))], session="kind")


def test_the_asynchronous_client_asks_the_same(app: TestClient) -> None:
    async def ask() -> FeedbackResult:
        transport = httpx.ASGITransport(app=app.app)
        async with AsyncClient("http://localhost", api_key="reader-key", transport=transport) as client:
            assert await client.feedback.sessions() == []
            return await client.feedback.ask([Part(id=image_id(0))], more=BODY["more"], less=BODY["less"])

    with Client("http://localhost", api_key="reader-key", transport=in_process(app)) as client:
        assert asyncio.run(ask()) == client.feedback.ask([Part(id=image_id(0))], more=BODY["more"], less=BODY["less"])


def test_the_command_teaches_by_name_and_labels(index: Index) -> None:
    index.close()
    marks = [one for number in range(1, 8) for one in ("--more", image_id(number))]
    marks += ["--less", ",".join(image_id(number) for number in range(100, 108))]
    once = run_cli("teach", index.path, "--id", image_id(0), *marks, "--json")
    assert json.loads(once.stdout)["session"] is None
    kept = json.loads(run_cli("teach", index.path, "--id", image_id(0), "--name", "kind", *marks, "--json").stdout)
    assert kept["hits"] == json.loads(once.stdout)["hits"]
    assert "kind: 1 round, 7 more, 8 less" in run_cli("teach", index.path, "--list").stdout
    told = run_cli("teach", index.path, "--name", "kind", "-k", "3")
    assert "would tell most" in told.stdout
    assert f"--round {kept['round']}" in told.stderr
    run_cli("teach", index.path, "--name", "kind", "--more", image_id(9))
    assert "Kept, with 7 more, 8 less" in run_cli("teach", index.path, "--name", "kind", "--undo").stderr
    assert "kind: 3 rounds, 7 more, 8 less" in run_cli("teach", index.path, "--list").stdout
    shown = run_cli("teach", index.path, "--name", "kind", "--label", "thing", "--precision", ".9")
    assert "would get the label" in shown.stdout
    all_of_them = run_cli("teach", index.path, "--name", "kind", "--label", "thing", "--above", "-1")
    assert "Your marks speak for" in all_of_them.stderr
    given = run_cli("teach", index.path, "--name", "kind", "--label", "thing", "--precision", ".9", "--apply", "--json")
    assert json.loads(given.stdout)["applied"] > 7
    assert "0 images got the label" in run_cli("teach", index.path, "--name", "kind", "--apply").stdout
    assert run_cli("teach", index.path, "--name", "kind", "--id", image_id(1), check=2).stderr
    assert "is forgotten" in run_cli("teach", index.path, "--name", "kind", "--delete").stderr
    assert "Nothing is kept" in run_cli("teach", index.path, "--list").stdout
    assert "no such feedback session" in run_cli("teach", index.path, "--name", "kind", check=2).stderr
    assert "--name" in run_cli("teach", index.path, "--apply", check=2).stderr
    run_cli("teach", index.path, "--name", "marks", "--more", image_id(9))
    undone = run_cli("teach", index.path, "--name", "marks", "--undo")
    assert undone.stdout == "No image matches.\n"
    assert "Kept, with 0 more, 0 less" in undone.stderr
    assert "no marks to take back" in run_cli("teach", index.path, "--name", "marks", "--undo", check=2).stderr
    picture = index.path.parent / "receipt.jpg"
    picture.write_bytes(b"a picture")
    assert "lookalike teach INDEX PICTURE" in run_cli("teach", picture, "--name", "m", check=2, COLUMNS="400").stderr
