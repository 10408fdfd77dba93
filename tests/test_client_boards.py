"""Promises of the Python client about boards and watches, against a real server and a list of answers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import lookalike_client
import pytest
from client_kit import Recorder, ok, problem
from conftest import HeldEncoder, image_id, vectors
from lookalike_client import BadRequest, Client, Conflict, ConnectionFailed, NotFound, Unavailable, Unprocessable
from test_edge import Serve

from search.catalog import boards as stored
from search.index import Index

pytestmark = pytest.mark.usefixtures("kind")
BOARD = {"id": 7, "name": "Spring", "note": "", "made_at": "2026-01-01T00:00:00+00:00", "count": 0}
QUESTION = {"parts": [{"vector": vectors(1)[0].tolist()}], "min_score": 0.9}


@pytest.fixture
def served(make_index: Callable[..., Index]) -> Iterator[str]:
    serving = Serve(make_index, HeldEncoder())
    yield serving(watch_private=True)
    serving.close()


def test_a_board_is_made_filled_shown_shared_and_deleted(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(served) as client:
        board = client.boards.create("Spring", note="for the catalogue")
        first = client.boards.add(board.id, image_id(1), note="the blue one")
        assert client.boards.add(board.id, image_id(1)) == first
        asked = client.boards.add_question(board.id, "like two", {"parts": [{"id": image_id(2)}], "k": 3})
        assert client.boards.move(board.id, asked.id, 0).id == asked.id
        assert client.boards.annotate(board.id, first.id, "bluer").note == "bluer"
        assert len(client.boards.hits(board.id, asked.id)) == 3
        said = client.boards.comment(board.id, "this one", name="Ada", item=first.id)
        assert client.boards.comments(board.id) == (said,)
        assert client.boards.vote(board.id, first.id, name="Ada").votes[0].name == "Ada"
        assert client.boards.vote(board.id, first.id, name="Ada", vote=False).votes == ()
        whole = client.boards.get(board.id)
        assert [item.id for item in whole.items] == [asked.id, first.id]
        assert client.boards.update(board.id, name="Summer").name == "Summer"
        assert [one.count for one in client.boards.list()] == [2]
        link = client.boards.share(board.id, "guests", days=2, may_vote=True)
        assert link.path is not None
        assert httpx.get(served + link.path).status_code == 200
        (listed,) = client.boards.shares(board.id)
        assert (listed.id, listed.path, listed.may_vote) == (link.id, None, True)
        client.boards.revoke(board.id, link.id)
        assert httpx.get(served + link.path).status_code == 404
        assert zipfile.ZipFile(io.BytesIO(client.boards.export(board.id))).namelist() == ["board.json"]
        assert client.boards.export(board.id, "sheet").startswith(b"\xff\xd8")
        client.boards.delete_comment(board.id, said.id)
        client.boards.remove(board.id, first.id)
        monkeypatch.setattr(stored, "MAX_ITEMS", 1)
        with pytest.raises(Conflict):
            client.boards.add(board.id, image_id(3))
        client.boards.delete(board.id)
        with pytest.raises(NotFound):
            client.boards.get(board.id)


def test_a_watch_is_made_listed_and_deleted(served: str) -> None:
    with Client(served) as client:
        made = client.watches.create("more", QUESTION, "http://127.0.0.1:9/hook")
        assert made.secret
        assert made.secret not in repr(made)
        assert client.watches.get(made.id).secret is None
        assert [one.id for one in client.watches.list()] == [made.id]
        assert client.watches.deliveries(made.id) == ()
        with pytest.raises(Unprocessable):
            client.watches.create("more", {"parts": QUESTION["parts"]}, "http://127.0.0.1:9/hook")
        client.watches.delete(made.id)
        with pytest.raises(NotFound):
            client.watches.deliveries(made.id)


def test_deliveries_are_read() -> None:
    message = {
        "id": 1,
        "matches": [{"id": image_id(1), "score": 0.5, "fmr": None}],
        "state": "failed",
        "attempts": 12,
        "made_at": "2026-01-01T00:00:00+00:00",
        "tried_at": None,
        "answer": None,
    }
    (read,) = Recorder(ok({"deliveries": [message]})).client.watches.deliveries(1)
    assert read.matches[0].score == 0.5
    assert read.state == "failed"


def test_what_would_be_there_twice_is_sent_again_only_where_the_server_cannot_have_done_it() -> None:
    refused = httpx.ConnectError("refused")
    for again in (refused, problem(503, "index-locked"), problem(429, "overloaded")):
        recorder = Recorder(again, ok(BOARD, 201))
        assert recorder.client.boards.create("Spring").id == 7
        assert len(recorder.requests) == 2
    for lost, error in ((httpx.ReadError("broken"), ConnectionFailed), (problem(503, "not-ready"), Unavailable)):
        recorder = Recorder(lost, ok(BOARD, 201))
        with pytest.raises(error):
            recorder.client.boards.create("Spring")
        recorder = Recorder(lost, ok({"boards": [BOARD]}))
        assert len(recorder.client.boards.list()) == 1, "to read is safe"


def test_a_deletion_whose_answer_was_lost_is_a_deletion() -> None:
    recorder = Recorder(httpx.ReadError("broken"), problem(404, "unknown-board"))
    recorder.client.boards.delete(7, index="photos")
    assert [request.url.query for request in recorder.requests] == [b"index=photos"] * 2
    with pytest.raises(BadRequest):
        Recorder(problem(400)).client.boards.delete(7)


def test_numbers_are_numbers() -> None:
    nowhere: Any = "../images"
    with pytest.raises((ValueError, TypeError)):
        Recorder().client.boards.get(nowhere)


def test_values_can_be_kept_in_sets() -> None:
    for kind in ("Board", "BoardItem", "Comment", "Share", "Watch", "Match", "Delivery", "Vote"):
        assert getattr(lookalike_client, kind).__module__ == "lookalike_client"
    board = Recorder(ok(BOARD)).client.boards.get(7)
    assert len({board, board}) == 1
