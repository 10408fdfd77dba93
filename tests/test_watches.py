"""Promises of watches: new matches are told once, whoever receives them; nothing else waits for that."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpcore
import httpx
import numpy as np
import pytest
from conftest import HeldEncoder, another_writer, image_id, new_image, recipe, vectors
from test_api import check_problem
from test_edge import KEYS, Serve, bearer
from webhook_kit import Receiver, fine, huge, never, raw, receiving, soon, status

from api.errors import AddressRefused
from api.http.access import Keys, read_keys
from api.serving import notify, watching
from api.serving.watching import MAX_ATTEMPTS
from api.settings import read_settings
from indexer.errors import ModelUnavailable
from search.catalog.watches import newest_seq, read_watches
from search.index import Index
from search.types import Encoding, Space
from search.upkeep.verify import verify

DATA = vectors(50)
NEAR = {"parts": [{"vector": DATA[7].tolist()}], "min_score": 0.9}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watching, "LOCKED_SECONDS", 0.1)
    monkeypatch.setattr(watching, "LOCK_SECONDS", 0.0)
    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watching, "LONGEST_PAUSE", 0.05)


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
    with httpx.Client(base_url=serve(watch_private=True), timeout=60) as client:
        yield client


def index_of(serve: Serve) -> Index:
    return serve.services[0].index


def add(index: Index, *numbers: int, like: int | None = 7, spaces: tuple[str, ...] = ("layer2",)) -> list[str]:
    """Add images as a build beside the server does; like: nearly equal to this one."""
    noise = vectors(1_000, seed=5)
    with (
        Index.open(index.path, writable=True) as beside,
        beside.writer(timeout=30) as writer,
        writer.transaction() as transaction,
    ):
        for number in numbers:
            vector = noise[number % 1_000] if like is None else DATA[like] + 0.05 * noise[number % 1_000]
            transaction.add(new_image(number, (vector / np.linalg.norm(vector)).astype(np.float32), spaces=spaces))
    return [image_id(number) for number in numbers]


def watch(http: httpx.Client, receiver: Receiver, **options: Any) -> Any:
    body = {"name": "more", "question": NEAR, "url": receiver.url, **options}
    answer = http.post("/v1/watches", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def deliveries(http: httpx.Client, made: Any) -> list[Any]:
    found: list[Any] = http.get(f"/v1/watches/{made['id']}/deliveries").json()["deliveries"]
    return found


def all_sent(http: httpx.Client, made: Any, count: int = 1) -> bool:
    return [one["state"] for one in deliveries(http, made)] == ["sent"] * count


def test_each_new_match_is_told_once_also_of_images_that_a_build_adds_beside_the_server(
    http: httpx.Client, serve: Serve
) -> None:
    with receiving() as receiver:
        made = watch(http, receiver)
        first = add(index_of(serve), 100, 101)
        add(index_of(serve), 102, like=None)
        soon(lambda: len(receiver.told) >= 2)
        second = add(index_of(serve), 103)
        soon(lambda: len(receiver.told) >= 3)
        soon(lambda: http.get(f"/v1/watches/{made['id']}").json()["waiting"] == 0)
        time.sleep(0.3)
        assert sorted(receiver.told[:2]) == sorted(first)
        assert receiver.told[2:] == second
        message = receiver.messages[0]
        assert message["watch"] == {"id": made["id"], "name": "more"}
        assert message["index"] == "test"
        assert set(message["matches"][0]) == {"id", "score", "fmr", "name", "labels", "width", "height"}
        assert message["matches"][0]["score"] >= 0.9
        assert "/" not in message["matches"][0]["name"], "where files lie is nobody's business there"
    assert verify(index_of(serve)).findings == []


def test_a_message_is_signed_so_that_anybody_with_the_secret_can_check_it(http: httpx.Client, serve: Serve) -> None:
    with receiving() as receiver:
        made = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: receiver.got)
        headers, body = receiver.got[0]
        signed = headers["lookalike-timestamp"].encode() + b"." + body
        wanted = hmac.new(made["secret"].encode(), signed, hashlib.sha256).hexdigest()
        assert headers["lookalike-signature"] == f"v1={wanted}"
        assert abs(int(headers["lookalike-timestamp"]) - time.time()) < 600
        assert headers["lookalike-delivery"] == receiver.messages[0]["delivery"]
        assert headers["host"] == f"127.0.0.1:{receiver.port}"


def test_secrets_are_shown_once_and_addresses_without_their_paths(http: httpx.Client) -> None:
    with receiving() as receiver:
        made = watch(http, receiver, secret="a secret of my own")
        assert made["secret"] == "a secret of my own"
        listed = http.get("/v1/watches").text + http.get(f"/v1/watches/{made['id']}").text
        assert "secret" not in listed
        assert made["address"] == f"http://127.0.0.1:{receiver.port}"


def test_a_receiver_that_fails_in_every_way_gets_each_match_in_the_end_and_searches_go_on(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SEND_SECONDS", 0.5)
    elsewhere = Receiver()
    broken = [
        status(500),
        status(302, Location=elsewhere.url),
        status(429, Retry_After="1"),
        never,
        raw(b"garbage\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n" + 300_000 * b"x"),
        raw(b""),
        fine,
    ]
    with receiving(*broken) as receiver:
        made = watch(http, receiver)
        ids = add(index_of(serve), 100, 101)
        while len(receiver.got) < len(broken):
            answer = http.post("/v1/search", json={"parts": [{"id": image_id(3)}], "k": 3})
            assert len(answer.json()["hits"]) == 3
        soon(lambda: all_sent(http, made))
        assert [sorted(match["id"] for match in message["matches"]) for message in receiver.messages] == [
            sorted(ids)
        ] * len(broken)
        assert len({headers["lookalike-delivery"] for headers, _ in receiver.got}) == 1, "one message, tried again"
        time.sleep(0.2)
        assert len(receiver.got) == len(broken), "once it has arrived, it is not sent again"
    assert elsewhere.got == [], "no redirect is followed"
    elsewhere.close()


def test_of_an_answer_without_end_only_the_head_is_read(http: httpx.Client, serve: Serve) -> None:
    with receiving(huge) as receiver:
        made = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: all_sent(http, made))
        assert len(receiver.got) == 1


def test_a_message_that_nobody_takes_is_given_up_and_the_next_one_is_tried(http: httpx.Client, serve: Serve) -> None:
    with receiving(*[status(500)] * MAX_ATTEMPTS, fine) as receiver:
        made = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: receiver.got)
        later = add(index_of(serve), 101)
        soon(lambda: [one["state"] for one in deliveries(http, made)] == ["failed", "sent"])
        assert receiver.told[-1:] == later
        given_up = deliveries(http, made)[0]
        assert (given_up["attempts"], given_up["answer"]) == (MAX_ATTEMPTS, "500")
        assert http.get(f"/v1/watches/{made['id']}").json()["failed"] == 1


def test_a_slow_receiver_holds_up_nobody_else(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(never) as slow, receiving() as quick:
        watch(http, slow)
        watch(http, quick)
        for number in (100, 101, 102):
            ids = add(index_of(serve), number)
            soon(lambda: quick.told[-1:] == ids)  # noqa: B023
        assert len(quick.told) == 3


def test_while_a_build_writes_nothing_is_lost_and_what_was_sent_is_not_sent_again(
    http: httpx.Client, serve: Serve
) -> None:
    index = index_of(serve)
    with receiving(status(500), fine) as receiver:
        made = watch(http, receiver)
        ids = add(index, 100)
        soon(lambda: receiver.got)
        with another_writer(index.path):
            soon(lambda: len(receiver.got) == 2)
            time.sleep(0.5)
            assert len(receiver.got) == 2, "that it was sent could not be noted yet"
            assert http.post("/v1/search", json={"parts": [{"id": image_id(3)}]}).status_code == 200
        later = add(index, 101)
        soon(lambda: all_sent(http, made, 2))
        assert receiver.told == [*ids, *ids, *later], "the first attempt failed, and had to be repeated"


def test_more_matches_than_may_wait_are_not_lost(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "NEW_AT_ONCE", 7)
    monkeypatch.setattr(watching, "MAX_WAITING_DELIVERIES", 2)
    monkeypatch.setitem(watching.MATCHES_IN_MESSAGE, "json", 3)
    with receiving(status(500), fine) as receiver:
        watch(http, receiver)
        ids = add(index_of(serve), *range(100, 160))
        soon(lambda: len(receiver.told) >= 63)  # three of them twice
        time.sleep(0.2)
        assert sorted(receiver.told[3:]) == sorted(ids)
        assert max(len(message["matches"]) for message in receiver.messages) == 3


def test_new_images_that_get_their_vectors_later_are_told_then_and_once(http: httpx.Client, serve: Serve) -> None:
    index = index_of(serve)

    def fill(space: Space, *numbers: int) -> None:
        with index.writer(timeout=30) as writer, writer.transaction() as transaction:
            transaction.fill(space, {image_id(number): DATA[7] for number in numbers})

    with index.writer(timeout=30) as writer:
        space = writer.add_space(Space(name="layer3", recipe=recipe(3), encoding=Encoding()))
    with receiving() as receiver:
        made = watch(http, receiver, question={**NEAR, "space": "layer3"})
        ids = add(index, *range(100, 108))
        soon(lambda: seen(index) == newest(index))
        fill(space, 0, 1, 2, 100, 101)
        soon(lambda: len(receiver.told) >= 2)
        fill(space, *range(102, 108))
        add(index, 108, like=None)
        soon(lambda: len(receiver.told) >= 8)
        fill(space, *range(3, 50), 108)
        assert index.space("layer3").complete
        soon(lambda: len(receiver.told) >= 9)
        ids += add(index, 109, spaces=("layer2", "layer3"))
        soon(lambda: len(receiver.told) >= 10)
        with index.writer(timeout=30) as writer:  # the same space again: what was told is not new
            writer.drop_space("layer3")
            space = writer.add_space(Space(name="layer3", recipe=recipe(3), encoding=Encoding()))
        fill(space, *range(50), *range(100, 110))
        soon(lambda: seen(index) == newest(index))
        soon(lambda: http.get(f"/v1/watches/{made['id']}").json()["waiting"] == 0)
        assert sorted(receiver.told) == sorted([*ids, image_id(108)])


def seen(index: Index) -> int:
    with index.catalog.reading() as connection:
        return read_watches(connection)[0].seen_seq


def newest(index: Index) -> int:
    with index.catalog.reading() as connection:
        return newest_seq(connection)


def test_the_filter_of_a_question_holds_for_new_images_too(http: httpx.Client, serve: Serve) -> None:
    with receiving() as receiver:
        watch(http, receiver, question={**NEAR, "filter": {"label": "odd"}})
        add(index_of(serve), 100, 101, 102, 103)
        soon(lambda: len(receiver.told) == 2)
        assert sorted(receiver.told) == sorted([image_id(101), image_id(103)])


def test_the_next_server_sends_what_was_found_and_finds_what_was_added_meanwhile(
    http: httpx.Client, serve: Serve, make_index: Callable[..., Index], encoder: HeldEncoder
) -> None:
    index = index_of(serve)
    with receiving(status(500)) as receiver:
        made = watch(http, receiver)
        first = add(index, 100)
        soon(lambda: receiver.got)
        serve.servers[0].should_exit = True
        soon(lambda: not serve._threads[0].is_alive())
        serve.services[0].close()
        receiver.answers, receiver.got = [fine], []
        second = add(index, 101)
        opened = Index.open(index.path, writable=True)
        again = watching.Watching("test", opened, serve.services[0].words, private=True)
        soon(lambda: len(receiver.told) == 2)
        again.close()
        opened.close()
        assert receiver.told == [*first, *second]
        assert made["id"] == 1
    serve.servers.clear()
    serve.services.clear()
    serve._threads.clear()


def test_a_second_server_of_an_index_sends_nothing_until_the_first_has_ended(http: httpx.Client, serve: Serve) -> None:
    opened = Index.open(index_of(serve).path, writable=True)
    with receiving() as receiver:
        made = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: all_sent(http, made))
        second = watching.Watching("test", opened, serve.services[0].words, private=True)
        for number in range(101, 106):
            add(index_of(serve), number)
        soon(lambda: len(receiver.told) >= 6)
        time.sleep(0.3)
        assert len(receiver.told) == 6
        second.close()
    opened.close()


def test_discord_is_told_in_its_own_form_and_nobody_is_mentioned(http: httpx.Client, serve: Serve) -> None:
    with receiving() as receiver:
        watch(http, receiver, form="discord", name="@everyone " + 180 * "x")
        add(index_of(serve), *range(100, 113))
        soon(lambda: len(receiver.got) == 2)
        for headers, body in receiver.got:
            message = json.loads(body)
            assert message["allowed_mentions"] == {"parse": []}
            assert 0 < len(message["content"]) <= 2_000
            assert 0 < len(message["embeds"]) <= 10
            assert all(len(embed["title"]) <= 256 for embed in message["embeds"])
            assert "lookalike-signature" not in headers


def test_a_question_that_cannot_be_asked_any_more_says_so_and_goes_on_when_it_can(
    http: httpx.Client, serve: Serve
) -> None:
    index = index_of(serve)
    with receiving() as receiver:
        made = watch(http, receiver, question={"parts": [{"id": image_id(7)}], "min_score": 0.9})
        with index.writer() as writer:
            writer.remove([image_id(7)])
        ids = add(index, 100)
        soon(lambda: http.get(f"/v1/watches/{made['id']}").json()["problem"])
        assert receiver.got == []
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.add(new_image(7, DATA[7]))
        soon(lambda: receiver.told == ids)
        assert http.get(f"/v1/watches/{made['id']}").json()["problem"] is None


def test_a_watch_that_was_deleted_tells_nothing(http: httpx.Client, serve: Serve) -> None:
    with receiving(status(500)) as receiver:
        made = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: receiver.got)
        assert http.delete(f"/v1/watches/{made['id']}").status_code == 204
        check_problem(http.delete(f"/v1/watches/{made['id']}"), 404, "unknown-watch")
        check_problem(http.get(f"/v1/watches/{made['id']}/deliveries"), 404, "unknown-watch")
        time.sleep(0.3)
        count = len(receiver.got)
        add(index_of(serve), 101)
        time.sleep(0.3)
        assert len(receiver.got) == count


@pytest.mark.parametrize(
    "question",
    [
        {"parts": NEAR["parts"]},
        {**NEAR, "k": 5},
        {**NEAR, "fold": True},
        {"parts": [{"text": "zebra"}], "min_score": 0.2},
        {"parts": [{"id": image_id(1), "text": "zebra"}], "min_score": 0.2},
        {"parts": [{}], "min_score": 0.2},
    ],
    ids=["no cut", "k", "fold", "words where no space knows any", "two in one", "an empty part"],
)
def test_a_question_that_cannot_be_watched_is_refused(http: httpx.Client, question: Any) -> None:
    body = {"name": "more", "question": question, "url": "http://127.0.0.1/"}
    check_problem(http.post("/v1/watches", json=body), 422, "invalid")


def test_a_watch_has_a_name_and_a_secret_that_signs_as_it_was_given(http: httpx.Client) -> None:
    body = {"name": "more", "question": NEAR, "url": "http://127.0.0.1:9/"}
    for wrong in ({"name": " "}, {"secret": 16 * " "}, {"secret": " and white space around it "}, {"secret": "short"}):
        check_problem(http.post("/v1/watches", json={**body, **wrong}), 422, "invalid")


def test_a_message_that_cannot_be_made_is_tried_again_later_and_does_not_stay_first_for_ever(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, message = notify.json_message, list[int]()

    def broken(index: str, watch: Any, delivery: str, matches: Any) -> bytes:
        message.append(int(delivery.rpartition("-")[2]))
        if message[-1] == message[0]:
            raise UnicodeError
        return made(index, watch, delivery, matches)

    monkeypatch.setattr(notify, "json_message", broken)
    with receiving() as receiver:
        watched = watch(http, receiver)
        add(index_of(serve), 100)
        soon(lambda: message)
        later = add(index_of(serve), 101)
        soon(lambda: [one["state"] for one in deliveries(http, watched)] == ["failed", "sent"])
        assert receiver.told == later
        assert deliveries(http, watched)[0]["answer"] == "it could not be made"


def test_a_question_that_cannot_be_asked_is_asked_again_although_nothing_changed(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PROBLEM_SECONDS", 0.1)
    real, tried = watching.Watching._matches, list[int]()

    async def matches(self: Any, *arguments: Any) -> Any:
        tried.append(len(tried))
        if len(tried) < 6:
            raise ModelUnavailable("not installed yet")
        return await real(self, *arguments)

    monkeypatch.setattr(watching.Watching, "_matches", matches)
    with receiving() as receiver:
        watch(http, receiver)
        ids = add(index_of(serve), 100)
        soon(lambda: receiver.told == ids)


PRIVATE = [
    "http://127.0.0.1/hook",
    "http://localhost:9000/",
    "http://a.localhost/",
    "http://10.1.2.3/",
    "http://192.168.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[fec0::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://0.0.0.0/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
]


@pytest.mark.parametrize(
    "url", [*PRIVATE, "ftp://example.com/", "https://", "no address", "https://user:pass@example.com/"]
)
def test_an_address_that_may_not_be_told_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        notify.checked_url(url, private=False)
    if url in PRIVATE:
        assert notify.checked_url(url, private=True)


def test_public_addresses_may_be_told() -> None:
    for url in ("https://example.com/hook?x=1", "http://93.184.216.34:8080/", "https://[2606:4700::1111]/"):
        assert notify.checked_url(url, private=False)


def test_a_name_that_leads_to_a_private_address_is_not_connected_to(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, httpx.Client(base_url=serve(), timeout=60) as http:
        asked: list[str] = []

        def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            asked.append(str(host))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]

        check_problem(
            http.post("/v1/watches", json={"name": "m", "question": NEAR, "url": receiver.url}), 422, "address-refused"
        )
        made = watch(http, replace_url(receiver, f"http://rebound.example:{receiver.port}/"))
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *rest, **more: resolve(host, 0) if "rebound" in str(host) else real(host, *rest, **more),
        )
        add(index_of(serve), 100)
        soon(lambda: deliveries(http, made) and deliveries(http, made)[0]["attempts"])
        assert deliveries(http, made)[0]["answer"] == "the address is private"
        assert receiver.got == []
        assert "rebound.example" in asked


def replace_url(receiver: Receiver, url: str) -> Receiver:
    receiver.url = url
    return receiver


def test_a_name_is_looked_up_once_for_each_attempt_and_connected_to_as_it_was_checked(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        looked.append(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    with receiving() as receiver:
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *rest, **more: resolve(host) if host == "hook.example" else real(host, *rest, **more),
        )
        made = watch(http, replace_url(receiver, f"http://hook.example:{receiver.port}/"))
        add(index_of(serve), 100)
        soon(lambda: all_sent(http, made))
        assert looked == ["hook.example"]
        assert receiver.got[0][0]["host"] == f"hook.example:{receiver.port}"


def test_the_next_address_of_a_name_is_tried_where_one_cannot_be_reached(
    http: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")]

    with receiving() as receiver:  # which listens at 127.0.0.1 alone
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *rest, **more: resolve() if host == "two.example" else real(host, *rest, **more),
        )
        made = watch(http, replace_url(receiver, f"http://two.example:{receiver.port}/"))
        add(index_of(serve), 100)
        soon(lambda: all_sent(http, made))
        assert deliveries(http, made)[0]["attempts"] == 1
        assert len(receiver.got) == 1


def test_of_a_name_with_public_and_private_addresses_only_the_public_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    async def connect(self: Any, host: str, *rest: Any, **more: Any) -> Any:
        tried.append(host)
        raise httpcore.ConnectError("nobody there")

    addresses = ("127.0.0.1", "93.184.216.34", "10.0.0.1", "2606:4700::1111", "93.184.216.34")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("httpcore._backends.auto.AutoBackend.connect_tcp", connect)
    told = asyncio.run(notify.tell("http://both.example/", {}, b"{}", private=False))
    assert not told.ok
    assert told.answer == "no answer (ConnectError)"
    assert tried == ["93.184.216.34", "2606:4700::1111"]


def test_only_a_key_that_may_write_makes_watches(serve: Serve) -> None:
    with httpx.Client(base_url=serve(Keys(read_keys(KEYS)), watch_private=True), timeout=60) as http:
        body = {"name": "m", "question": NEAR, "url": "http://127.0.0.1:9/"}
        check_problem(http.post("/v1/watches", json=body), 401, "unauthorized")
        check_problem(http.get("/v1/watches"), 401, "unauthorized")
        check_problem(http.post("/v1/watches", json=body, headers=bearer("look")), 403, "read-only-key")
        assert http.post("/v1/watches", json=body, headers=bearer("change")).status_code == 201
        check_problem(http.delete("/v1/watches/1", headers=bearer("look")), 403, "read-only-key")
        assert len(http.get("/v1/watches", headers=bearer("look")).json()["watches"]) == 1


def test_private_addresses_are_refused_unless_a_setting_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings().watch_private
    monkeypatch.setenv("LOOKALIKE_WATCH_PRIVATE", "true")
    assert read_settings().watch_private
