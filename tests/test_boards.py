"""Promises of boards over HTTP: what is on them stays, guests see one board by a link, and nothing else."""

from __future__ import annotations

import html
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from conftest import HeldEncoder, draw_picture, image_id
from PIL import Image
from test_api import check_problem, png, sha256, upload
from test_edge import KEYS, Serve, bearer

from api.http.access import Keys, read_keys
from api.serving import boards as serving_boards
from search.catalog import boards, shares
from search.index import Index
from search.upkeep.verify import verify

NASTY = "<script>alert(1)</script>\"'&{{ 7 * 7 }}{% x %}"


@pytest.fixture
def encoder() -> HeldEncoder:
    return HeldEncoder()


@pytest.fixture
def serve(make_index: Callable[..., Index], encoder: HeldEncoder) -> Iterator[Serve]:
    serving = Serve(make_index, encoder)
    yield serving
    serving.close()


@pytest.fixture
def http(serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(), timeout=60) as client:
        yield client


def sent(answer: httpx.Response, status: int = 201) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def add_pictures(http: httpx.Client, count: int) -> list[str]:
    pictures = [png(draw_picture("red", "circle", number)) for number in range(count)]
    return [sent(http.post("/v1/images", files=upload(data)))["id"] for data in pictures]


def new_board(http: httpx.Client, images: list[str], **fields: Any) -> int:
    number: int = sent(http.post("/v1/boards", json={"name": "Spring", **fields}))["id"]
    for image in images:
        sent(http.post(f"/v1/boards/{number}/items", json={"image": image, "note": f"note of {image[:4]}"}))
    return number


def link(http: httpx.Client, board: int, **fields: Any) -> str:
    path: str = sent(http.post(f"/v1/boards/{board}/share", json={"name": "guests", **fields}))["path"]
    return path


def test_a_board_holds_images_and_questions_in_order_with_notes_comments_and_votes(http: httpx.Client) -> None:
    board = new_board(http, [image_id(1), image_id(2)], note="for the catalogue")
    first, second = (item["id"] for item in http.get(f"/v1/boards/{board}").json()["items"])
    question = {"parts": [{"id": image_id(3)}], "k": 4, "filter": {"label": "odd"}}
    asked = sent(http.post(f"/v1/boards/{board}/items", json={"question": question, "name": "like three"}))
    assert sent(http.post(f"/v1/boards/{board}/items", json={"image": image_id(1)}), 200)["id"] == first
    sent(http.patch(f"/v1/boards/{board}/items/{asked['id']}", json={"place": 0, "note": "first"}), 200)
    sent(http.post(f"/v1/boards/{board}/comments", json={"name": "Ada", "text": "which?", "item": second}))
    said = sent(http.post(f"/v1/boards/{board}/comments", json={"name": "Bob", "text": "all"}))
    for name, vote, count in (("Ada", True, 1), ("Ada", True, 1), ("Bob", True, 2), ("Ada", False, 1)):
        voted = sent(http.post(f"/v1/boards/{board}/votes", json={"item": first, "name": name, "vote": vote}), 200)
        assert len(voted["votes"]) == count
    whole = http.get(f"/v1/boards/{board}").json()
    assert [item["id"] for item in whole["items"]] == [asked["id"], first, second]
    assert whole["items"][0]["question"] == question
    assert whole["items"][1]["votes"] == [{"name": "Bob", "guest": False}]
    assert [one["text"] for one in http.get(f"/v1/boards/{board}/comments").json()["comments"]] == ["which?", "all"]
    assert http.delete(f"/v1/boards/{board}/comments/{said['id']}").status_code == 204
    hits = http.get(f"/v1/boards/{board}/items/{asked['id']}/hits").json()["hits"]
    assert len(hits) == 4
    assert {hit["labels"][0] for hit in hits} == {"odd"}
    alike = http.get(f"/v1/boards/{board}/items/{first}/hits").json()["hits"]
    assert len(alike) == 10
    assert image_id(1) not in [hit["id"] for hit in alike]
    assert http.get("/v1/boards").json()["boards"][0]["count"] == 3
    assert http.delete(f"/v1/boards/{board}/items/{first}").status_code == 204
    sent(http.patch(f"/v1/boards/{board}", json={"name": "Summer"}), 200)
    assert http.get("/v1/boards").json()["boards"][0]["name"] == "Summer"
    assert http.delete(f"/v1/boards/{board}").status_code == 204
    check_problem(http.get(f"/v1/boards/{board}"), 404, "unknown-board")


def test_what_cannot_be_on_a_board_is_refused(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    board = new_board(http, [image_id(1)])
    items = f"/v1/boards/{board}/items"
    check_problem(http.post(items, json={"image": image_id(99)}), 404, "unknown-image")
    check_problem(http.post(items, json={}), 422, "invalid")
    check_problem(http.post(items, json={"question": {"parts": [{"image": "aGFsbG8="}]}}), 422, "invalid")
    check_problem(http.post(items, json={"question": {"parts": []}}), 422, "invalid")
    check_problem(http.post(items, json={"question": {"parts": [{"text": "a", "id": image_id(1)}]}}), 422, "invalid")
    check_problem(
        http.post(items, json={"question": {"parts": [{"id": image_id(1)}], "filter": {"no": 1}}}),
        422,
        "invalid-filter",
    )
    check_problem(
        http.post(items, json={"question": {"parts": [{"vector": [0.123456789] * 10_000}] * 3}}), 422, "invalid"
    )
    check_problem(http.post("/v1/boards", json={"name": " \n "}), 422, "invalid")
    check_problem(http.post("/v1/boards", json={"name": "a\u0000b"}), 422, "invalid")
    check_problem(http.post("/v1/boards", json={"name": 201 * "x"}), 422, "invalid")
    check_problem(http.get(f"/v1/boards/{2**60}"), 422, "invalid")
    check_problem(http.delete(f"{items}/99"), 404, "not-on-board")
    check_problem(http.get(f"{items}/99/hits"), 404, "not-on-board")
    check_problem(http.post(f"/v1/boards/{board}/votes", json={"item": 99, "name": "A"}), 404, "not-on-board")
    check_problem(http.delete(f"/v1/boards/{board}/share/99"), 404, "not-on-board")
    monkeypatch.setattr(boards, "MAX_ITEMS", 1)
    check_problem(http.post(items, json={"image": image_id(2)}), 409, "too-many")


def test_an_image_that_is_gone_is_shown_as_gone(http: httpx.Client, serve: Serve) -> None:
    board = new_board(http, [image_id(1), image_id(2)])
    assert http.delete(f"/v1/images/{image_id(1)}").status_code == 204
    items = http.get(f"/v1/boards/{board}").json()["items"]
    assert [item["gone"] for item in items] == [True, False]
    assert "This picture is gone" in http.get(link(http, board)).text
    check_problem(http.get(f"/v1/boards/{board}/items/{items[0]['id']}/hits"), 404, "unknown-image")
    assert verify(serve.services[0].index).findings == []


def test_a_board_is_taken_along_as_an_archive_a_contact_sheet_and_json(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_pictures(http, 3)
    board = new_board(http, [*ids, image_id(1)])  # the file of the last one is nowhere
    answer = http.get(f"/v1/boards/{board}/export", params={"form": "zip"})
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    names = archive.namelist()
    assert names == [*(f"{place:04}-{one}.png" for place, one in enumerate(ids, start=1)), "board.json"]
    assert [sha256(archive.read(name)) for name in names[:-1]] == ids
    described = json.loads(archive.read("board.json"))
    assert [item.pop("file") for item in described["items"]] == [*names[:-1], None]
    plain = http.get(f"/v1/boards/{board}/export").json()
    assert [item.pop("file") for item in plain["items"]] == [None] * 4
    assert described == plain
    assert [item["image"] for item in described["items"]] == [*ids, image_id(1)]
    sheet = http.get(f"/v1/boards/{board}/export", params={"form": "sheet"})
    assert sheet.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(sheet.content)).width > 900
    monkeypatch.setattr(serving_boards, "MAX_SHEET", 3)
    check_problem(http.get(f"/v1/boards/{board}/export", params={"form": "sheet"}), 422, "invalid")


def test_a_guests_page_shows_the_board_escaped_and_runs_no_script(http: httpx.Client) -> None:
    (image,) = add_pictures(http, 1)
    board = new_board(http, [], name=NASTY, note=NASTY)
    item = sent(http.post(f"/v1/boards/{board}/items", json={"image": image, "note": NASTY}))["id"]
    question = {"parts": [{"id": image_id(3)}]}
    sent(http.post(f"/v1/boards/{board}/items", json={"question": question, "name": NASTY}))
    sent(http.post(f"/v1/boards/{board}/comments", json={"name": NASTY, "text": NASTY, "item": item}))
    sent(http.post(f"/v1/boards/{board}/votes", json={"name": NASTY, "item": item}), 200)
    answer = http.get(link(http, board, may_comment=True, may_vote=True))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in answer.text
    assert "49" not in re.sub(r"[0-9a-f]{64}|/b/[^/\"]+", "", answer.text), "what users write is no template"
    assert html.unescape(answer.text).count(NASTY) >= 8
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert "script-src" not in policy
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == policy["img-src"] == policy["style-src"] == "'self'"
    assert "style=" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    # not no-referrer: browsers send forms of such a page as those of no site, and so the edge refuses them
    assert answer.headers["referrer-policy"] == "same-origin"
    style = re.search(r'href="([^"]+\.css)"', answer.text)
    assert style is not None
    assert http.get(style[1]).status_code == 200


def test_a_link_opens_the_images_of_its_board_and_nothing_else(serve: Serve) -> None:
    base = serve(Keys(read_keys(KEYS)))
    with (
        httpx.Client(base_url=base, timeout=60, headers=bearer("change")) as http,
        httpx.Client(base_url=base) as guest,
    ):
        mine, other, another = add_pictures(http, 3)
        board, hidden = new_board(http, [mine]), new_board(http, [other])
        path = link(http, board)
        token = path.removeprefix("/b/")
        shown = guest.get(path)
        assert mine in shown.text
        assert other not in shown.text
        for found in re.findall(r'src="([^"]+)"', shown.text):
            assert guest.get(found).headers["content-type"] == "image/jpeg"
        small = Image.open(io.BytesIO(guest.get(f"{path}/images/{mine}").content))
        assert max(small.size) <= 512
        for one in (other, another, image_id(1), "f" * 64):
            check_problem(guest.get(f"{path}/images/{one}"), 404, "unknown-link")
        for refused in (
            guest.get("/v1/boards"),
            guest.get(f"/v1/boards/{board}", headers=bearer(token)),
            guest.get(f"/v1/boards/{hidden}/export"),
            guest.get(f"/v1/images/{mine}", headers=bearer(token)),
            guest.get(f"/v1/images/{mine}/file", headers=bearer(token)),
            guest.get(f"/v1/images/{mine}/thumbnail", params={"size": 64}),
            guest.post("/v1/search", json={"parts": [{"id": mine}]}, headers=bearer(token)),
            guest.post("/session", json={"key": token}),
        ):
            check_problem(refused, 401, "unauthorized")
        said, voted = {"name": "Eve", "text": "hello"}, {"name": "Eve", "item": "1"}
        check_problem(guest.post(f"{path}/comments", data=said), 404, "unknown-link")
        check_problem(guest.post(f"{path}/votes", data=voted), 404, "unknown-link")
        assert guest.get(f"{path}/file").status_code == 404
        assert http.get(f"/v1/boards/{board}/comments").json()["comments"] == []


def test_a_link_that_was_revoked_or_has_expired_opens_nothing(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = add_pictures(http, 1)
    board = new_board(http, [image])
    good, bad = link(http, board, days=2), link(http, board)
    listed = http.get(f"/v1/boards/{board}/share").json()["shares"]
    assert len(listed) == 2
    assert not any(path.removeprefix("/b/") in json.dumps(listed) for path in (good, bad))
    assert http.delete(f"/v1/boards/{board}/share/{listed[1]['id']}").status_code == 204
    for path in (bad, f"{bad}/images/{image}", "/b/no-such-token", f"{good}x", f"/b/{'A' * 43}"):
        check_problem(http.get(path), 404, "unknown-link")
    page = http.get(bad, headers={"Accept": "text/html,*/*;q=.8"})  # of a browser
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "This link opens nothing" in page.text
    assert page.headers["cache-control"] == "no-store"
    assert http.get(good).status_code == 200
    monkeypatch.setattr(shares, "now", lambda: "2099-01-01T00:00:00+00:00")
    check_problem(http.get(good), 404, "unknown-link")
    check_problem(http.get(f"{good}/images/{image}"), 404, "unknown-link")
    check_problem(http.post(f"{good}/comments", data={"name": "A", "text": "b"}), 404, "unknown-link")
    monkeypatch.undo()
    assert http.delete(f"/v1/boards/{board}").status_code == 204
    check_problem(http.get(good), 404, "unknown-link")


def test_a_guest_comments_and_votes_where_the_link_allows_it_and_cannot_pass_for_others(http: httpx.Client) -> None:
    board = new_board(http, [image_id(1)])
    item = http.get(f"/v1/boards/{board}").json()["items"][0]["id"]
    sent(http.post(f"/v1/boards/{board}/votes", json={"item": item, "name": "Ada"}), 200)
    path = link(http, board, may_comment=True, may_vote=True)
    for vote in ("true", "false", "true"):
        answer = http.post(f"{path}/votes", data={"item": item, "name": "Ada", "vote": vote})
        assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert http.get(f"/v1/boards/{board}").json()["items"][0]["votes"] == [
        {"name": "Ada", "guest": False},
        {"name": "Ada", "guest": True},
    ]
    long = 2_000 * "\u732b"
    for data in ({"name": "Eve", "text": long}, {"name": "Eve", "text": NASTY, "item": item}):
        assert http.post(f"{path}/comments", data=data).status_code == 303
    said = http.get(f"/v1/boards/{board}/comments").json()["comments"]
    assert [(one["name"], one["text"], one["item"], one["guest"]) for one in said] == [
        ("Eve", long, None, True),
        ("Eve", NASTY, item, True),
    ]
    check_problem(http.post(f"{path}/comments", data={"name": "Eve", "text": " "}), 422, "invalid")
    check_problem(http.post(f"{path}/comments", data={"name": "Eve", "text": "x", "admin": "1"}), 422, "invalid")
    check_problem(http.post(f"{path}/comments", data={"name": "Eve", "text": 40_000 * "x"}), 413, "too-large")
    check_problem(http.post(f"{path}/votes", data={"name": "Eve", "item": 99}), 404, "not-on-board")
    elsewhere = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    check_problem(http.post(f"{path}/votes", data={"name": "E", "item": item}, headers=elsewhere), 403, "cross-site")


def test_one_guest_does_not_use_up_the_votes_of_all(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "MAX_GUEST_VOTES_OF_ITEM", 3)
    board = new_board(http, [image_id(1), image_id(2)])
    first, second = (item["id"] for item in http.get(f"/v1/boards/{board}").json()["items"])
    path = link(http, board, may_vote=True)
    for number in range(3):
        assert http.post(f"{path}/votes", data={"item": first, "name": f"Eve {number}"}).status_code == 303
    check_problem(http.post(f"{path}/votes", data={"item": first, "name": "Eve"}), 409, "too-many")
    assert http.post(f"{path}/votes", data={"item": second, "name": "Eve"}).status_code == 303
    sent(http.post(f"/v1/boards/{board}/votes", json={"item": first, "name": "Ada"}), 200)


def test_what_a_guest_says_is_not_kept_where_the_link_is_revoked_while_it_waits(
    serve: Serve, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = new_board(http, [image_id(1)])
    path = link(http, board, may_comment=True, may_vote=True)
    item = http.get(f"/v1/boards/{board}").json()["items"][0]["id"]
    with serve.services[0].index.catalog.reading() as connection:
        held = shares.find_share(connection, path.rpartition("/")[2])
    assert http.delete(f"/v1/boards/{board}/share/1").status_code == 204
    monkeypatch.setattr("api.http.routes.guests.guests_share", lambda *_: held)
    check_problem(http.post(f"{path}/comments", data={"name": "Eve", "text": "late"}), 404, "unknown-link")
    check_problem(http.post(f"{path}/votes", data={"name": "Eve", "item": item}), 404, "unknown-link")
    assert http.get(f"/v1/boards/{board}/comments").json()["comments"] == []
    assert http.get(f"/v1/boards/{board}").json()["items"][0]["votes"] == []


def test_a_link_works_under_a_proxys_path(serve: Serve) -> None:
    with httpx.Client(base_url=serve(root_path="/pictures"), timeout=60) as http:
        board = new_board(http, [image_id(1)])
        path = link(http, board)
        assert path.startswith("/pictures/b/")
        shown = http.get(path.removeprefix("/pictures"))  # the proxy takes it away
        assert f'src="{path}/images/{image_id(1)}"' in shown.text
        assert 'href="/pictures/static/board.css"' in shown.text


def test_a_key_that_may_read_changes_no_board(serve: Serve) -> None:
    with httpx.Client(base_url=serve(Keys(read_keys(KEYS))), timeout=60) as http:
        check_problem(http.post("/v1/boards", json={"name": "x"}, headers=bearer("look")), 403, "read-only-key")
        board = sent(http.post("/v1/boards", json={"name": "x"}, headers=bearer("change")))["id"]
        for path, body in (
            ("items", {"image": image_id(1)}),
            ("share", {"name": "x"}),
            ("votes", {"item": 1, "name": "x"}),
        ):
            check_problem(
                http.post(f"/v1/boards/{board}/{path}", json=body, headers=bearer("look")), 403, "read-only-key"
            )
        assert http.get(f"/v1/boards/{board}/export", headers=bearer("look")).status_code == 200
