"""Promises of feedback that is kept: rules that few marks do not widen, sessions that stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import FakeEncoder, image_id, run_cli, vectors
from fastapi.testclient import TestClient
from lookalike_client import Client, Unprocessable
from test_teach import KIND, QUESTION, in_process, kinds

from api.http.access import Keys, read_keys
from api.http.app import create_app
from api.serving.questions import SearchOptions
from api.serving.service import Service
from api.settings import Settings
from api.teaching import IndexLessons, Lesson, Lessons, Rule, ServerLessons
from indexer.pictures.worker import Workers
from search.errors import FeedbackInvalid, QueryInvalid, UnknownSession
from search.feedback import Marks, TaughtQuestion
from search.index import Index
from search.labelling import WANTED_PER_MARK, preview, shown
from search.recipe import TransformSpec
from search.teaching import Teacher
from search.types import Encoding, Query, QueryPart, Space

MakeIndex = Callable[..., Index]
MARKS = Marks(more=tuple(map(image_id, range(1, 7))), less=tuple(map(image_id, range(100, 106))))


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    return make_index(kinds())


def kept(index: Index, *rounds: Marks, name: str = "kind", question: TaughtQuestion = QUESTION) -> str:
    """A session of these rounds, each after the one before."""
    with index.writer() as writer, writer.transaction() as transaction:
        here = session = transaction.start_session(question, name)
        for marks in rounds:
            here = transaction.add_round(session, here, marks)
    return session


def test_a_few_marks_do_not_label_a_large_part_of_the_index(index: Index) -> None:
    # Marks that are less lie far away, at random: by them alone every image that leans a little would be one of these.
    far = sorted(range(KIND, 240), key=lambda number: float(kinds()[0] @ kinds()[number]))[:6]
    session = index.catalog.session(kept(index, replace(MARKS, less=tuple(map(image_id, far)))))
    teacher = Teacher(index)
    found = preview(index, teacher, session, "kind", precision=0.9)
    right = {image_id(number) for number in range(KIND)}
    new = set(found.new) - set(MARKS.more)
    assert len(new) <= WANTED_PER_MARK[1] * len(MARKS.more) / 0.9
    assert len(new & right) >= 0.8 * len(new)
    assert found.measured.backed is None or found.measured.backed >= 0.9
    wide = preview(index, teacher, session, "kind", above=-1).measured
    assert wide.precision.value == 0.5
    assert wide.backed is not None
    assert wide.backed < 0.5


def test_a_kept_rule_is_not_changed_in_passing(index: Index) -> None:
    session = index.catalog.session(kept(index, MARKS))
    with pytest.raises(FeedbackInvalid, match="kept rule is meant"):
        shown(index, Teacher(index), session, None, above=0.5)
    assert "It is labels" in run_cli("teach", index.path, "--name", "kind", "--above", ".5", check=2).stderr


def test_sessions_are_counted_as_their_marks_count(index: Index) -> None:
    turned = Marks(more=MARKS.less[:2], less=MARKS.more[:1])
    session = kept(index, MARKS, turned, name="one")
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add_round(session, session, Marks(less=(image_id(9),)))
    kept(index, MARKS, turned, name="two")
    kept(index, name="three")
    counted = index.catalog.sessions()
    assert [one.name for one in counted] == ["one", "two", "three"]
    for one in counted:
        whole = index.catalog.session(one.id)
        assert (one.more, one.less) == (len(whole.marks().more), len(whole.marks().less))
        assert one.rounds == len(whole.rounds) - 1
        assert (one.space, one.label, one.added_at) == ("layer2", None, whole.rounds[0].added_at)


def test_a_question_is_not_added_to_one_that_was_renamed(index: Index) -> None:
    first = kept(index, name="cats")
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.name_session(first, "dogs")
    second = kept(index, name="cats")
    assert second != first
    assert kept(index, name="cats") == second
    assert index.catalog.session("dogs").id == first


def test_a_session_is_found_by_its_id_whatever_others_are_called(index: Index) -> None:
    second = kept(index, name="late", question=replace(QUESTION, parts=(QueryPart(id=image_id(9)),)))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.delete_session(second)
    kept(index, name=second)
    assert kept(index, name="late", question=replace(QUESTION, parts=(QueryPart(id=image_id(9)),))) == second
    assert index.catalog.session(second).name == "late"


def test_a_space_that_was_made_again_is_learned_from_again(make_index: MakeIndex) -> None:
    index = make_index(kinds(), publish=False)
    teacher = Teacher(index)

    def make(dim: int) -> TaughtQuestion:
        recipe = replace(index.space("layer2").recipe, dim=dim, weights_sha256=f"{dim:064x}")
        with index.writer() as writer:
            space = writer.add_space(Space(name="other", recipe=recipe, encoding=Encoding()))
            with writer.transaction() as transaction:
                transaction.fill(space, {image_id(one): row for one, row in enumerate(vectors(240, seed=dim, dim=dim))})
        parts = [QueryPart(vector=vectors(1, seed=dim, dim=dim)[0])]
        return TaughtQuestion.of(Query(parts=parts, space=space), space, None)

    first = make(16)
    by_id = TaughtQuestion(space="other", parts=QUESTION.parts)
    assert teacher.answer(first, MARKS).method == teacher.answer(by_id, MARKS).method == "classifier"
    with index.writer() as writer:
        writer.drop_space("other")
    second = make(8)
    assert teacher.answer(by_id, MARKS).method == "classifier"
    assert teacher.answer(TaughtQuestion.from_json(second.to_json()), MARKS).method == "classifier"
    for marks in (MARKS, Marks()):
        with pytest.raises(QueryInvalid, match="Begin another"):
            teacher.answer(TaughtQuestion.from_json(first.to_json()), marks)


def test_a_name_that_is_no_part_of_an_address_is_refused(client: Client) -> None:
    with pytest.raises(Unprocessable, match="no `/`"):
        client.feedback.ask(more=[image_id(1)], keep=True, name="2024/cats")
    client.feedback.ask(more=[image_id(1)], keep=True, name="2024 cats?")
    with pytest.raises(Unprocessable, match="no `/`"):
        client.feedback.rename("2024 cats?", "a/label")
    client.feedback.delete("2024 cats?")
    assert client.feedback.sessions() == []


def test_a_round_that_is_sent_twice_is_there_once(client: Client) -> None:
    client.feedback.ask(more=[image_id(1)], keep=True, name="cats")
    first = client.feedback.ask(session="cats", less=[image_id(100)], more=[image_id(2)])
    again = client.feedback.ask(session="cats", more=[image_id(2)], less=[image_id(100)])
    assert again == first
    assert client.feedback.sessions()[0].rounds == 2
    assert client.feedback.ask(session="cats", less=[image_id(101)]).round != first.round


def test_to_go_back_twice_is_to_go_back_once_and_marks_are_added_there(client: Client) -> None:
    first = client.feedback.ask(more=[image_id(1)], keep=True, name="cats").round
    client.feedback.ask(session="cats", more=[image_id(2)])
    back = client.feedback.ask(session="cats", round=first, back=True)
    assert client.feedback.ask(session="cats", round=first, back=True) == back
    assert back.more == (image_id(1),)
    again = client.feedback.ask(session="cats", more=[image_id(3)])
    assert again.more == (image_id(1), image_id(3))
    client.feedback.ask(session="cats", round=first, back=True)
    assert client.feedback.ask(session="cats").more == (image_id(1),)
    with pytest.raises(Unprocessable, match="no marks"):
        client.feedback.ask(session="cats", round=first, back=True, more=[image_id(4)])


@pytest.fixture
def client(index: Index, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the served index, without sockets, and without decoding anything."""
    monkeypatch.setattr(Workers, "start", lambda *_: None)
    service = Service("test", index, FakeEncoder(), Settings())
    app = TestClient(create_app({"test": service}, Settings(), Keys(read_keys([]))), base_url="http://localhost")
    with Client("http://localhost", transport=in_process(app)) as one:
        yield one
    service.close()


def lesson(**given: Any) -> Lesson:
    return Lesson(**{"marks": Marks(), "options": SearchOptions(k=4), **given})


def lessons_given(lessons: Lessons) -> list[dict[str, Any]]:
    """The answers to a course of lessons."""
    answers = [lessons.teach(lesson(id=image_id(0), marks=MARKS))]
    answers += [lessons.teach(lesson(id=image_id(0), name="kind", marks=MARKS))]
    answers += [lessons.teach(lesson(name="kind"))]
    answers += [lessons.teach(lesson(name="kind", marks=Marks(more=(image_id(20),))))]
    rule = Rule(label="thing", above=0.2, precision=None, given=False)
    answers += [lessons.label(lesson(name="kind"), rule)]
    answers += [lessons.label(lesson(name="kind"), replace(rule, given=True))]
    answers += [lessons.label(lesson(name="kind"), Rule(label=None, above=None, precision=None, given=False))]
    once = lessons.undo(lesson(name="kind"))
    assert (len(once["more"]), once["hits"]) == (len(MARKS.more), lessons.teach(lesson(name="kind"))["hits"])
    answers += [once, lessons.undo(lesson(name="kind")), lessons.teach(lesson(name="kind"))]
    assert [len(one["more"]) for one in answers[-2:]] == [0, 0]
    with pytest.raises(FeedbackInvalid, match="no marks to take back"):
        lessons.undo(lesson(name="kind"))
    answers += [lessons.teach(lesson(name="kind", marks=MARKS)), lessons.undo(lesson(name="kind"))]
    assert [len(one["more"]) for one in answers[-2:]] == [len(MARKS.more), 0]
    answers += lessons.sessions()
    lessons.forget("kind")
    assert lessons.sessions() == []
    for refused in (lesson(name="kind"), lesson(name="kind", id=image_id(0), after="none")):
        with pytest.raises(UnknownSession):
            lessons.teach(refused)
    lessons.teach(lesson(name="kind", marks=MARKS))
    with pytest.raises(FeedbackInvalid, match="question already"):
        lessons.teach(lesson(name="kind", id=image_id(0)))
    lessons.forget("kind")
    return answers


def test_a_server_is_taught_as_an_index_is(index: Index, client: Client) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            found = {key: plain(one) for key, one in value.items() if key != "added_at"}
            return found | {key: sorted(found[key]) for key in ("more", "less") if isinstance(found.get(key), list)}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return round(value, 5) if isinstance(value, float) else value  # stored marks have another order

    over_http = plain(lessons_given(ServerLessons(client)))
    with index.writer() as writer, writer.transaction() as transaction:
        for number in range(240):
            transaction.annotate(image_id(number), without=["thing"])
    on_disk = plain(lessons_given(IndexLessons(index, print)))
    assert over_http == on_disk


def test_a_command_teaches_an_index_or_a_server(index: Index) -> None:
    both = run_cli("teach", index.path, "words", "--server", "http://127.0.0.1:1", check=2)
    assert "either an index or a server" in both.stderr
    mixture = run_cli("teach", index.path, "red - blue", check=2)
    assert "marks say the rest" in mixture.stderr
    gone = run_cli("teach", "words", "--server", "http://127.0.0.1:1", check=2)
    assert "http://127.0.0.1:1" in gone.stderr


def test_marks_beyond_the_limit_are_not_kept(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = IndexLessons(index, print)
    lessons.teach(lesson(name="kind", marks=MARKS))
    monkeypatch.setattr("search.feedback.MAX_MARKS", 14)
    with pytest.raises(FeedbackInvalid, match="14 marks at most, not 15"):
        lessons.teach(lesson(name="kind", marks=Marks(more=(image_id(20), image_id(21), image_id(22)))))
    assert lessons.sessions()[0]["more"] == len(MARKS.more)


def test_an_answer_is_of_one_generation(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whitening that is fitted while a question is answered gives its vectors other meanings."""
    index = make_index(kinds(), publish=False, transform=TransformSpec(kind="whitening", floor=0.1, max_dim=16))
    teacher, search, calls = Teacher(index), index.search_many, 0

    def published_meanwhile(queries: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            index.publish()
            index.refresh()
        return search(queries)

    monkeypatch.setattr(index, "search_many", published_meanwhile)
    answer = teacher.answer(QUESTION, MARKS)
    assert calls == 2
    assert list(answer.hits) == index.search(answer.query)
