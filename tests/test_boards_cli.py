"""Promises of the commands `boards` and `watches`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_picture, image_id, new_image, vectors
from PIL import Image
from typer.testing import CliRunner, Result

from api.cli import app
from search.index import Index
from search.types import Location, NewImage

MakeIndex = Callable[..., Index]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def answer(*arguments: str | Path) -> Any:
    ended = run(*arguments, "--json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.fixture
def board(make_index: MakeIndex, tmp_path: Path) -> Path:
    """An index with a board of a picture that is there, one whose file is gone, and a question."""
    index = make_index(vectors(5))
    file = tmp_path / "red.png"
    draw_picture("red", "circle", 1).save(file)
    data = file.read_bytes()
    name = hashlib.sha256(data).hexdigest()
    like = new_image(9, vectors(10)[9])
    facts = file.stat()
    location = Location(root=str(tmp_path), path="red.png", mtime_ns=facts.st_mtime_ns, size=facts.st_size)
    picture = NewImage(
        id=name,
        facts=type(like.facts)(width=96, height=80, format="png", bytes=len(data)),
        location=location,
        vectors=like.vectors,
    )
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(picture)
        number = transaction.add_board("Spring", "for the catalogue")
        item, _ = transaction.add_image_item(number, name, "the red one")
        transaction.add_image_item(number, image_id(1))
        transaction.add_question_item(number, "like it", {"parts": [{"id": name}]})
        transaction.add_vote(number, item, "Ada")
        transaction.add_comment(number, item, "Ada", "this one")
    return index.path


def test_boards_are_listed_and_shown(board: Path) -> None:
    assert "3 items  Spring" in run("boards", board).output
    assert answer("boards", board)["boards"][0]["name"] == "Spring"
    shown = run("boards", board, "show", "1").output
    for words in ("for the catalogue", "the red one", "1 vote", "question: like it", "Ada on 1: this one"):
        assert words in shown
    assert [item["note"] for item in answer("boards", board, "show", "1")["items"]] == ["the red one", "", ""]


def test_the_index_may_be_the_default_one(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_INDEX", str(board))
    assert "question: like it" in run("boards", "show", "1").output
    assert "3 items  Spring" in run("boards").output


def test_a_board_is_exported_as_files_and_as_a_sheet(board: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "Wrote 2 files" in run("boards", board, "export", "1", "--to", out).output
    names = sorted(path.name for path in out.iterdir())
    assert names[1] == "board.json"
    assert (out / names[0]).read_bytes() == (tmp_path / "red.png").read_bytes()
    assert names[0] == "0001-red.png"
    assert json.loads((out / "board.json").read_text())["items"][0]["file"] == names[0]
    assert "there already" in str(run("boards", board, "export", "1", "--to", out).exception)
    answer("boards", board, "export", "1", "--sheet", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 900


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        ("list", "1"),
        ("export", "1"),
        ("export", "1", "--to", "a", "--sheet", "b.png"),
        ("show", "1", "--to", "x"),
        ("export", "1", "--sheet", "x.nothing"),
    ],
)
def test_what_boards_cannot_mean_is_refused(board: Path, words: tuple[str, ...]) -> None:
    assert run("boards", board, *words).exit_code == 2


def test_watches_are_added_listed_and_dropped(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(5))
    file = tmp_path / "question.json"
    file.write_text(json.dumps({"parts": [{"id": image_id(1)}], "min_score": 0.5}))
    assert "No watches" in run("watches", index.path).output
    added = answer("watches", index.path, "add", "more", "--question", file, "--url", "https://example.com/secret")
    assert len(added["secret"]) == 64
    (listed,) = answer("watches", index.path)["watches"]
    assert (listed["id"], listed["name"], listed["address"]) == (added["watch"], "more", "https://example.com")
    shown = run("watches", index.path).output
    assert "0 waiting, 0 failed" in shown
    assert "secret" not in shown
    assert "Dropped the watch 1" in run("watches", index.path, "drop", "1").output
    assert "no such watch" in str(run("watches", index.path, "drop", "1").exception)
    assert run("watches", index.path, "drop", "more").exit_code == 2
    assert run("watches", index.path, "add", "more").exit_code == 2
    for text in ("[]", "{", json.dumps({"parts": [{"id": image_id(1)}]}), json.dumps({"parts": [{"text": "x"}]})):
        file.write_text(text)
        refused = run("watches", index.path, "add", "more", "--question", file, "--url", "https://example.com/")
        assert refused.exit_code == 1
        assert type(refused.exception).__name__ == "QuestionInvalid"
