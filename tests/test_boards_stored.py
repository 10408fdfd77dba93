"""Promises about boards and watches in the catalog: they outlive images, and forget those that are erased."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import image_id, new_image, vectors

from search.catalog.boards import MAX_GUEST_COMMENTS, BoardItem, read_board, read_comments, read_items
from search.catalog.shares import find_share, read_shares
from search.catalog.watches import MAX_KEPT_DELIVERIES, Match, read_deliveries, read_watches
from search.errors import NotOnBoard, TooMany, UnknownBoard, UnknownImage, UnknownWatch
from search.index import Index
from search.upkeep.backup import backup
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]
LATER, BEFORE = "2100-01-01T00:00:00+00:00", "2000-01-01T00:00:00+00:00"


def items(index: Index, board: int) -> list[BoardItem]:
    with index.catalog.reading() as connection:
        return read_items(connection, board)


def filled(index: Index) -> int:
    """A board with two images, and a question like the second."""
    with index.writer() as writer, writer.transaction() as transaction:
        board = transaction.add_board("Spring", "for the catalogue")
        first, _ = transaction.add_image_item(board, image_id(1), "the blue one")
        second, _ = transaction.add_image_item(board, image_id(2))
        transaction.add_question_item(board, "like it", {"parts": [{"id": image_id(2).upper()}]})
        for item in (first, second):
            transaction.add_comment(board, item, "Ada", "this one")
            transaction.add_vote(board, item, "Ada")
    return board


def test_a_board_keeps_its_order_and_each_image_once(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    with index.writer() as writer, writer.transaction() as transaction:
        board = transaction.add_board("Spring")
        numbers = [transaction.add_image_item(board, image_id(number))[0] for number in range(4)]
        assert transaction.add_image_item(board, image_id(2)) == (numbers[2], False)
        transaction.change_item(board, numbers[3], place=0, note="first")
        transaction.change_item(board, numbers[1], place=900)
        transaction.drop_item(board, numbers[0])
    assert [(item.image, item.note) for item in items(index, board)] == [
        (image_id(3), "first"),
        (image_id(2), ""),
        (image_id(1), ""),
    ]
    with index.catalog.reading() as connection:
        assert read_board(connection, board).items == 3


def test_an_image_that_was_removed_is_shown_as_gone_and_is_there_again_when_it_comes_back(
    make_index: MakeIndex, tmp_path: Path
) -> None:
    data = vectors(6)
    index = make_index(data)
    board = filled(index)
    with index.writer() as writer:
        writer.remove([image_id(1)])
    assert [item.gone for item in items(index, board)] == [True, False, False]
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(new_image(1, data[1]))
    index.compact()
    assert not items(index, board)[0].gone
    with backup(index, tmp_path / "copy.index") as copy:
        assert items(copy, board) == items(index, board)
        assert verify(copy).findings == []


def test_an_erased_image_is_on_no_board_and_in_no_message_or_question(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    board = filled(index)
    with index.writer() as writer, writer.transaction() as transaction:
        body = {"parts": [{"id": image_id(2)}], "min_score": 0.5}
        named = transaction.add_watch("named", body, url="https://example.com/", form="json", secret="s")
        other = transaction.add_watch(
            "other", {"parts": [{"id": image_id(3)}]}, url="https://example.com/", form="json", secret="s"
        )
        both = [Match(image_id(2), 0.5, None), Match(image_id(4), 0.5, None)]
        transaction.note_matches(other, [both, both[:1]], seen_seq=6)
    with index.writer() as writer:
        writer.remove([image_id(2)], erase=True)
    index.compact()
    assert [item.image for item in items(index, board)] == [image_id(1)]
    with index.catalog.reading() as connection:
        assert [comment.item for comment in read_comments(connection, board)] == [items(index, board)[0].number]
        assert [watch.name for watch in read_watches(connection)] == ["other"]
        assert [message.matches for message in read_deliveries(connection, other)] == [(both[1],)]
        with pytest.raises(UnknownWatch):
            read_deliveries(connection, named)
    assert verify(index).findings == []
    rest = sqlite3.connect(index.path / "catalog.sqlite")
    for (table,) in rest.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'tombstones'"):
        if not table.startswith("words"):
            assert not [row for row in rest.execute(f"SELECT * FROM {table}") if image_id(2) in str(row)], table
    rest.close()


def test_a_board_goes_with_all_that_is_on_it(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    board = filled(index)
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add_share(board, "guests", "token", may_comment=True, may_vote=True, expires_at=LATER)
        transaction.drop_board(board)
        assert transaction.add_board("next") > board, "an address of the old one must not lead to it"
    rest = sqlite3.connect(index.path / "catalog.sqlite")
    for table in ("board_items", "comments", "votes", "shares", "questions"):
        assert rest.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    rest.close()
    assert verify(index).findings == []


def test_a_link_opens_its_board_until_it_expires_or_is_revoked(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    board = filled(index)
    with index.writer() as writer, writer.transaction() as transaction:
        for token, expires in (("old", BEFORE), ("a secret", LATER), ("bad", LATER)):
            share = transaction.add_share(board, token[:1], token, may_comment=False, may_vote=True, expires_at=expires)
        transaction.drop_share(board, share)
    with index.catalog.reading() as connection:
        found = find_share(connection, "a secret")
        assert found is not None
        assert (found.board, found.may_comment, found.may_vote) == (board, False, True)
        assert [find_share(connection, token) for token in ("old", "bad", "", "\udc80")] == [None] * 4
        assert [share.name for share in read_shares(connection, board)] == ["a"]
    stored = sqlite3.connect(index.path / "catalog.sqlite")
    assert "a secret" not in str(stored.execute("SELECT * FROM shares").fetchall())
    stored.close()


def test_what_is_not_there_is_refused(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    board = filled(index)
    there = items(index, board)[0].number
    with index.writer() as writer, writer.transaction() as transaction:
        another = transaction.add_board("another")
        with pytest.raises(UnknownImage):
            transaction.add_image_item(board, image_id(99))
        for call in (
            lambda: transaction.drop_item(another, there),
            lambda: transaction.add_vote(another, there, "Eve"),
            lambda: transaction.add_comment(another, there, "Eve", "no"),
            lambda: transaction.drop_comment(another, 1),
            lambda: transaction.drop_share(another, 1),
        ):
            with pytest.raises(NotOnBoard):
                call()
        for refused in (lambda: transaction.drop_board(99), lambda: transaction.add_image_item(99, image_id(1))):
            with pytest.raises(UnknownBoard):
                refused()
        with pytest.raises(UnknownWatch):
            transaction.drop_watch(99)


def test_a_guest_cannot_use_up_the_comments_of_all(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    board = filled(index)
    with index.writer() as writer, writer.transaction() as transaction:
        for _ in range(MAX_GUEST_COMMENTS):
            transaction.add_comment(board, None, "guest", "more", share=1)
        with pytest.raises(TooMany):
            transaction.add_comment(board, None, "guest", "more", share=1)
        transaction.add_comment(board, None, "Ada", "enough")


def test_a_watch_keeps_all_messages_that_wait_and_the_last_of_the_others(make_index: MakeIndex) -> None:
    index = make_index(vectors(6))
    body = {"parts": [{"id": image_id(2)}]}
    found = Match(image_id(3), 0.5, 1e-4)
    with index.writer() as writer, writer.transaction() as transaction:
        watch = transaction.add_watch("one", body, url="https://example.com/", form="json", secret="s")
        transaction.note_matches(watch, [[found]] * (MAX_KEPT_DELIVERIES + 30), seen_seq=6)
    with index.catalog.reading() as connection:
        waiting = read_deliveries(connection, watch)
    with index.writer() as writer, writer.transaction() as transaction:
        for message in waiting[10:]:
            transaction.note_attempt(message.number, attempts=1, state="sent", answer="200")
    with index.catalog.reading() as connection:
        kept = read_deliveries(connection, watch)
        assert [message.number for message in kept if message.state == "waiting"] == [m.number for m in waiting[:10]]
        assert [message.number for message in kept if message.state == "sent"] == [m.number for m in waiting[30:]]
        assert read_watches(connection, watch)[0].waiting == 10
