"""Promises of the edge: who may ask, how many at once, for how long; asked over a real socket, of a fake encoder."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
import uvicorn
from conftest import HeldEncoder, draw_picture, image_id, new_image, run_cli, vectors
from PIL import Image
from test_api import check_problem, upload

from api import logs
from api.ask import Asked, ask_server
from api.errors import KeysInvalid, SettingInvalid
from api.http.access import Keys, Scope, crosses_sites, host_of, key_to_send, read_keys
from api.http.app import create_app
from api.http.protocol import HTTPProtocol
from api.serving import embedding
from api.serving.questions import SearchOptions
from api.serving.service import Service
from api.settings import Settings, read_settings
from search.catalog.annotations import MAX_LABELS
from search.errors import AnnotationInvalid, IndexDamaged
from search.index import Index
from search.types import Location


class Serve:
    """Serves indexes of fifty images, each with its settings."""

    def __init__(self, make_index: Callable[..., Index], encoder: HeldEncoder) -> None:
        self._make_index = make_index
        self._encoder = encoder
        self._threads: list[threading.Thread] = []
        self.servers: list[uvicorn.Server] = []
        self.services: list[Service] = []

    def __call__(self, keys: Keys | None = None, **settings: Any) -> str:
        """The address."""
        chosen = Settings(**settings)
        service = Service("test", self._make_index(vectors(50)), self._encoder, chosen)
        app = create_app({"test": service}, chosen, keys or Keys())
        config = uvicorn.Config(app, port=0, http=HTTPProtocol, ws="none", log_config=None, root_path=chosen.root_path)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        self._threads.append(thread)
        self.servers.append(server)
        self.services.append(service)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        for server, thread, service in zip(self.servers, self._threads, self.services, strict=True):
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
            service.close()


@pytest.fixture
def encoder() -> HeldEncoder:
    return HeldEncoder()


@pytest.fixture
def serve(make_index: Callable[..., Index], encoder: HeldEncoder) -> Iterator[Serve]:
    serving = Serve(make_index, encoder)
    yield serving
    encoder.free.set()
    serving.close()


def picture(number: int = 0) -> bytes:
    out = io.BytesIO()
    draw_picture("red", "circle", number).save(out, "PNG")
    return out.getvalue()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


KEYS = ["read:look", "write:change"]


def test_keys_are_kept_as_hashes_and_read_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    hashed = "b" * 64
    file.write_text(f"# of the shop\nread:shop-key\n\nread:sha256:{hashed}\n")
    keys = Keys(read_keys(["plain"], file))
    assert [keys.scope(key) for key in ("plain", "shop-key", "none", "", hashed)] == [
        Scope.WRITE, Scope.READ, None, None, None,
    ]  # fmt: skip
    assert "shop-key" not in repr(vars(keys))
    assert Keys(read_keys(["Read:one"])).scope("one") is Scope.READ, "however it is written"
    assert not Keys()


@pytest.mark.parametrize(
    "text", ["", "two words", "read:", "ümlaut", "sha256:", "read:SHA256:" + "a" * 63, "sha256:x", "reed:KEY"]
)
def test_keys_that_cannot_be_used_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(KeysInvalid) as raised:
        read_keys([text])
    assert text in ("", "read:", "sha256:") or text not in str(raised.value)


def test_a_key_with_a_scope_may_have_colons() -> None:
    assert Keys(read_keys(["read:a:b"])).scope("a:b") is Scope.READ


def test_a_key_may_not_be_there_twice_with_different_scopes(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("write:same\n")
    with pytest.raises(KeysInvalid, match="twice"):
        read_keys(["read:same"], tmp_path / "keys")


def test_the_command_line_sends_the_first_of_the_servers_keys() -> None:
    assert [key_to_send(text) for text in ("one", "read:one", "write:one  read:two")] == ["one"] * 3
    assert [key_to_send(text) for text in ("a:b", "write:a:b")] == ["a:b"] * 2
    for text in (f"sha256:{'a' * 64}", " "):
        with pytest.raises(KeysInvalid):
            key_to_send(text)


def test_a_file_of_keys_without_any_opens_the_server_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    ended = run_cli("serve", tmp_path, "--host", "0.0.0.0", "--api-key-file", tmp_path / "keys", check=2)
    assert "has no key in it" in ended.stderr
    assert "cannot be read" in run_cli("serve", tmp_path, "--api-key-file", tmp_path / "gone", check=2).stderr


def test_a_read_key_reads_and_a_write_key_writes(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)))
    with httpx.Client(base_url=url) as http:
        check_problem(http.get("/v1/indexes"), 401, "unauthorized")
        check_problem(http.get("/v1/indexes", headers=bearer("loo")), 401, "unauthorized")
        check_problem(http.get("/metrics"), 401, "unauthorized")
        for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json", "/static/page.js"):
            assert http.get(path).status_code == 200
        read = bearer("look")
        assert http.get("/v1/indexes", headers=read).status_code == 200
        assert http.post("/v1/search/image", files=upload(picture()), headers=read).status_code == 200
        assert http.post("/v1/search", json={"parts": [{"id": image_id(3)}]}, headers=read).status_code == 200
        check_problem(http.post("/v1/images", files=upload(picture()), headers=read), 403, "read-only-key")
        check_problem(http.delete(f"/v1/images/{image_id(3)}", headers=read), 403, "read-only-key")
        check_problem(http.patch(f"/v1/images/{image_id(3)}", json={"labels": []}, headers=read), 403, "read-only-key")
        assert http.get("/v1/duplicates", headers=read).status_code == 200
        pair = {"images": [image_id(3), image_id(4)]}
        check_problem(http.post("/v1/duplicates/decisions", json=pair, headers=read), 403, "read-only-key")
        assert http.post("/v1/duplicates/decisions", json=pair, headers=bearer("change")).status_code == 200
        assert http.post("/v1/images", files=upload(picture()), headers=bearer("change")).status_code == 201


def test_a_body_without_a_key_is_not_read(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.settimeout(5)
        client.sendall(
            b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nContent-Type: text/plain\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_session_stands_for_its_key_until_it_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(Keys(read_keys(KEYS)))
    with httpx.Client(base_url=url) as http:
        check_problem(http.post("/session", json={"key": "wrong"}), 401, "unauthorized")
        opened = http.post("/session", json={"key": "look"})
        assert opened.status_code == 204
        cookie = opened.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert "look" not in cookie.partition(";")[0].partition("=")[2]
        assert http.get("/v1/indexes").status_code == 200
        check_problem(http.post("/v1/images", files=upload(picture())), 403, "read-only-key")
        value = http.cookies["lookalike_session"]
        for forged in (value[:-4] + "AAAA", value[4:], "x", "", "ü"):
            headers = {"Cookie": f"lookalike_session={forged}".encode()}
            check_problem(httpx.get(f"{url}/v1/indexes", headers=headers), 401, "unauthorized")
        assert http.delete("/session").status_code == 204
        check_problem(http.get("/v1/indexes"), 401, "unauthorized")
        late = time.time() + 13 * 3600
        monkeypatch.setattr("api.http.access.time.time", lambda: late)
        check_problem(
            httpx.get(f"{url}/v1/indexes", headers={"Cookie": f"lookalike_session={value}"}), 401, "unauthorized"
        )


def test_servers_with_one_secret_know_each_others_sessions_and_no_others() -> None:
    keys = read_keys(KEYS)
    value = Keys(keys, secret=b"s" * 32).session("change")
    assert value is not None
    assert Keys(keys, secret=b"s" * 32).session_scope(value) is Scope.WRITE
    assert Keys(keys, secret=b"t" * 32).session_scope(value) is None
    assert Keys(keys[:1], secret=b"s" * 32).session_scope(value) is None, "its key was taken away"


def test_without_a_key_only_our_own_names_are_answered(serve: Serve) -> None:
    url = serve(allowed_hosts=("shop.internal",))
    with httpx.Client(base_url=url) as http:
        for host in ("localhost", "localhost:80", "127.0.0.1:1", "[::1]:80", "shop.internal:8000"):
            assert http.get("/v1/indexes", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.5", ""):
            check_problem(http.get("/v1/indexes", headers={"Host": host}), 403, "unknown-host")
        assert http.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200, "a probe asks by address"


def test_other_sites_change_and_ask_nothing(serve: Serve) -> None:
    url = serve()
    with httpx.Client(base_url=url) as http:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            check_problem(http.post("/v1/images", files=upload(picture()), headers=headers), 403, "cross-site")
        own = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
        assert http.post("/v1/images", files=upload(picture()), headers=own).status_code == 201
        assert (
            "access-control-allow-origin"
            not in http.get("/v1/indexes", headers={"Origin": "https://a.example"}).headers
        )


def test_sites_that_are_named_may_ask(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)), cors_origins=("https://shop.example",))
    with httpx.Client(base_url=url, headers={"Origin": "https://shop.example"}) as http:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert http.options("/v1/search/image", headers=asked).status_code == 200
        found = http.post("/v1/search/image", files=upload(picture()), headers=bearer("look"))
        assert found.headers["access-control-allow-origin"] == "https://shop.example"
        asked["Origin"] = "https://evil.example"
        assert "access-control-allow-origin" not in http.options("/v1/search/image", headers=asked).headers


def test_where_every_site_may_ask_each_may_search(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)), cors_origins=("*",))
    browser = {"Origin": "https://any.example", "Sec-Fetch-Site": "cross-site"}
    found = httpx.post(f"{url}/v1/search/image", files=upload(picture()), headers=browser | bearer("look"))
    assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    ("origin", "fetch_site", "host", "crosses"),
    [
        (None, None, "a:1", False),
        ("http://a:1", None, "a:1", False),
        ("http://a:2", None, "a:1", True),
        ("http://b", "same-origin", "a", False),
        (None, "same-site", "a", True),
        ("https://ok", "cross-site", "a", False),
    ],
)
def test_what_browsers_say_of_where_a_request_comes_from(
    origin: str | None, fetch_site: str | None, host: str, crosses: bool
) -> None:
    assert crosses_sites(origin, fetch_site, host, ["https://ok"]) is crosses


def test_hosts_are_read_out_of_their_header() -> None:
    assert [host_of(text) for text in ("a", "a:1", "[::1]:80", "::1", "[::1]")] == ["a", "a", "::1", "::1", "::1"]


def test_what_comes_on_top_is_refused_at_once_and_the_rest_is_answered(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=4)
    encoder.free.clear()
    with httpx.Client(base_url=url, timeout=30) as http, ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture(number)), timeout=30)
            for number in range(4)
        ]
        wait_until_under_way(url, 4)
        refused = http.post("/v1/search/image", files=upload(picture(9)))
        check_problem(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        began = time.monotonic()
        check_problem(http.post("/v1/search/image", files=upload(b"x" * 5_000_000)), 429, "overloaded")
        assert http.get("/healthz").status_code == 200
        assert http.get(f"/v1/images/{image_id(3)}/similar").status_code == 200, "which needs no encoder"
        assert time.monotonic() - began < 2
        encoder.free.set()
        assert [one.result().status_code for one in asked] == [200] * 4
        assert http.post("/v1/search/image", files=upload(picture(9))).status_code == 200
        assert 'lookalike_refused_total{code="overloaded"}' in http.get("/metrics").text


def test_a_picture_that_is_turned_counts_as_eight(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=9)
    text = base64.b64encode(picture(1)).decode()
    encoder.free.clear()
    with ThreadPoolExecutor(2) as pool:
        form = {"files": upload(picture(0)), "data": {"turns": "true"}}
        asked = [pool.submit(httpx.post, f"{url}/v1/search/image", timeout=30, **form)]
        wait_until_under_way(url, 1)
        assert encoder.entered.wait(30)
        check_problem(httpx.post(f"{url}/v1/search/image", **form), 429, "overloaded")
        body = {"parts": [{"image": text}], "turns": True}
        check_problem(httpx.post(f"{url}/v1/search", json=body), 429, "overloaded")
        check_problem(httpx.post(f"{url}/v1/search/batch", json={"queries": [body]}), 429, "overloaded")
        asked.append(pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture(2)), timeout=30))
        wait_until_under_way(url, 2)
        check_problem(httpx.post(f"{url}/v1/search/image", files=upload(picture(3))), 429, "overloaded")
        encoder.free.set()
        assert [one.result().status_code for one in asked] == [200] * 2
    assert sum(encoder.batches) >= 9


def test_who_is_alone_enters_however_much_a_request_counts_for(serve: Serve) -> None:
    url = serve(max_waiting=1)
    # More than MAX_PLAIN_BYTES: it counts before it is read, too.
    large = base64.b64encode(picture() + b"\0" * 100_000).decode()
    assert httpx.post(f"{url}/v1/search", json={"parts": [{"image": large}]}).status_code == 200
    assert httpx.post(f"{url}/v1/embed", json={"input": [large, large]}).status_code == 200


def test_searches_that_may_take_long_have_room_of_their_own(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.serving.service.MAX_HEAVY_SEARCHES", 3)
    url = serve()
    service = serve.services[0]
    release, query = threading.Event(), {"parts": [{"id": image_id(3)}], "filter": {"width": {"gte": 1}}}
    for _ in range(2):  # all that search with filters
        service._searchers.submit(release.wait, 30)
    with httpx.Client(base_url=url) as http, ThreadPoolExecutor(3) as pool:
        try:
            asked = [pool.submit(httpx.post, f"{url}/v1/search", json=query, timeout=30) for _ in range(3)]
            wait_until_under_way(url, 3)
            check_problem(http.post("/v1/search", json=query), 429, "overloaded")
            check_problem(http.post("/v1/search/batch", json={"queries": [query]}), 429, "overloaded")
            assert http.post("/v1/search", json={"parts": [{"id": image_id(3)}]}).status_code == 200
            assert http.get("/v1/images").status_code == http.get("/readyz").status_code == 200
            assert 'lookalike_refused_total{code="overloaded"} ' in http.get("/metrics").text
        finally:
            release.set()
        assert [one.result().status_code for one in asked] == [200] * 3


def test_a_defect_is_an_answer_with_an_id_and_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Service, "search", defect)
    url = serve()
    answer = httpx.get(f"{url}/v1/images/{image_id(3)}/similar", headers={"X-Request-ID": "mine"})
    check_problem(answer, 500, "internal-error")
    assert "a defect" not in answer.text
    assert answer.headers["x-request-id"] == "mine"
    assert "content-security-policy" in answer.headers
    counted = r'lookalike_request_seconds_count{method="GET",route="/v1/images/{id}/similar",status="500"} 1.0'
    assert counted in httpx.get(f"{url}/metrics").text


@pytest.mark.slow
def test_json_of_too_many_values_is_refused_before_it_is_parsed(serve: Serve) -> None:
    url = serve()
    for path in ("/v1/search", "/v1/search/batch", "/v1/embed"):
        body = b'{"parts": [' + b"{}," * 400_000 + b"{}]}"
        refused = httpx.post(f"{url}{path}", content=body, headers={"Content-Type": "application/json"})
        check_problem(refused, 422, "invalid")
        assert "600,000 values" in refused.json()["detail"]
    queries = [{"parts": [{"vector": [0.1] * 32}]}] * 256
    assert httpx.post(f"{url}/v1/search/batch", json={"queries": queries}, timeout=30).status_code == 200


def test_what_a_build_has_read_is_drawn_however_large_an_upload_may_be(serve: Serve, tmp_path: Path) -> None:
    url = serve(max_upload_bytes=5_000, max_pixels=5_000)
    data = picture() + b"\0" * 10_000
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(data)
    index = serve.services[0].index
    location = Location(root=str(tmp_path / "photos"), path="a.png", mtime_ns=0, size=len(data))
    new = new_image(60, vectors(1)[0])
    facts = replace(new.facts, bytes=len(data))
    new = replace(new, id=hashlib.sha256(data).hexdigest(), facts=facts, location=location)
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(new)
    drawn = httpx.get(f"{url}/v1/images/{new.id}/thumbnail", params={"size": 32})
    assert drawn.status_code == 200
    assert max(Image.open(io.BytesIO(drawn.content)).size) == 32
    check_problem(httpx.post(f"{url}/v1/search/image", files=upload(data)), 413, "too-large")


def test_a_server_is_asked_with_a_smaller_picture_where_one_is_too_large_for_it(
    serve: Serve, encoder: HeldEncoder, tmp_path: Path
) -> None:
    url = serve(max_upload_bytes=90_000, max_pixels=300_000)
    large = Image.new("RGB", (900, 800), "white")
    large.paste(draw_picture("red", "circle", 0, 400), (500, 400))
    out = io.BytesIO()
    large.save(out, "PNG")
    pixels, size = tmp_path / "pixels.png", tmp_path / "bytes.png"
    pixels.write_bytes(out.getvalue())
    size.write_bytes(out.getvalue() + b"\0" * 90_000)
    check_problem(httpx.post(f"{url}/v1/search/image", files=upload(pixels.read_bytes())), 422, "unreadable-image")
    check_problem(httpx.post(f"{url}/v1/search/image", files=upload(size.read_bytes())), 413, "too-large")
    for path in (pixels, size):
        for box in ((), ("--box", "500,400,400,384")):
            assert len(json.loads(run_cli("search", path, "--server", url, *box, "--json").stdout)["hits"]) == 10
    for prompt in ("2:pixels.png - 0.5:pixels.png", f"bytes.png + id:{image_id(3)}"):
        asked = Asked(prompt=prompt, options=SearchOptions())
        with contextlib.chdir(tmp_path):
            assert len(ask_server(url, None, asked)["hits"]) == 10
    refused = run_cli("search", size, "--server", url, "--box", "800,0,200,10", check=2)
    assert f"{size} cannot be used: the box is not inside the image of 900 x 800 pixels" in refused.stderr
    size.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100_000))
    assert f"{size} cannot be used: damaged" in run_cli("search", size, "--server", url, check=2).stderr
    size.write_text("no picture")
    assert (
        f"{size} cannot be used: the content is not one of" in run_cli("search", size, "--server", url, check=2).stderr
    )


@pytest.mark.slow
def test_a_proxy_before_a_server_gets_a_smaller_picture_too(serve: Serve, tmp_path: Path) -> None:
    url, seen = serve(), list[int]()

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            seen.append(len(data))
            if len(data) > 1_000_000:
                self.answer(413, "text/html", b"<h1>413 Request Entity Too Large</h1>")
            else:
                kind = {"content-type": self.headers["content-type"]}
                self.answer(200, "application/json", httpx.post(url + self.path, content=data, headers=kind).content)

        def answer(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    path = tmp_path / "a.png"
    path.write_bytes(picture() + bytes(1_000_000))
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        asked = Asked(image=path, text=None, id=None, box=None, options=SearchOptions())
        try:
            answer = ask_server(f"http://127.0.0.1:{proxy.server_port}", None, asked)
        finally:
            proxy.shutdown()
    assert len(answer["hits"]) == 10
    assert [size > 1_000_000 for size in seen] == [True, False]


@pytest.mark.slow
def test_a_server_is_asked_with_a_jpeg_of_a_kind_that_it_does_not_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = serve()
    monkeypatch.setattr(embedding, "sniff", lambda head: head.startswith(b"\xff\xd8"))
    (tmp_path / "a.png").write_bytes(picture())
    check_problem(httpx.post(f"{url}/v1/search/image", files=upload(picture())), 415, "unsupported-image")
    assert len(json.loads(run_cli("search", tmp_path / "a.png", "--server", url, "--json").stdout)["hits"]) == 10


@pytest.mark.slow
def test_an_image_is_added_with_as_many_labels_as_it_may_have(serve: Serve) -> None:
    url = serve()
    labels = [f"label {number}" for number in range(MAX_LABELS)]
    added = httpx.post(f"{url}/v1/images", files=upload(picture()), data={"labels": labels, "metadata": "{}"})
    assert (added.status_code, added.json()["labels"]) == (201, sorted(labels))
    more = httpx.post(f"{url}/v1/images", files=upload(picture(1)), data={"labels": [*labels, "one more"]})
    check_problem(more, 422, "invalid-annotation")
    many = httpx.post(f"{url}/v1/images", files=upload(picture(1)), data={"labels": labels * 2})
    check_problem(many, 400, "malformed")
    assert many.json()["detail"].startswith("The form has too many fields.")


def test_metadata_is_judged_before_it_is_merged(serve: Serve) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    serve()
    with pytest.raises(AnnotationInvalid, match="nested"):
        asyncio.run(serve.services[0].change(image_id(3), None, deep))
    with pytest.raises(AnnotationInvalid, match="at most"):
        asyncio.run(serve.services[0].change(image_id(3), None, {"a": "x" * 300_000}))


def test_a_server_that_is_full_is_ready_all_the_same(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=1)
    encoder.free.clear()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture(1)), timeout=30)
        wait_until_under_way(url, 1)
        ready = pool.submit(httpx.get, f"{url}/readyz", timeout=30)
        time.sleep(0.3)
        encoder.free.set()
        assert ready.result().status_code == 200


def wait_until_under_way(url: str, count: int) -> None:
    until = time.monotonic() + 10
    while f"lookalike_requests_under_way {count + 1}.0" not in httpx.get(f"{url}/metrics").text:  # which is one itself
        assert time.monotonic() < until


def test_large_bodies_count_as_several(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=4)
    encoder.free.clear()
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client, httpx.Client(base_url=url) as http:
        head = "POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        client.sendall(f"{head}Content-Length: 16000000\r\n\r\n".encode())
        time.sleep(0.3)
        check_problem(http.post("/v1/search/image", files=upload(picture())), 429, "overloaded")
    until = time.monotonic() + 5
    encoder.free.set()
    while http_status(url) != 200:  # whose client has gone makes room
        assert time.monotonic() < until


def http_status(url: str) -> int:
    return httpx.post(f"{url}/v1/search/image", files=upload(picture())).status_code


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_given_up(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(request_seconds=0.5)
    encoder.free.clear()
    began = time.monotonic()
    late = httpx.post(f"{url}/v1/search/image", files=upload(picture()), timeout=30)
    check_problem(late, 504, "deadline-exceeded")
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_whose_client_has_gone_costs_no_forward_pass(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve()
    assert httpx.post(f"{url}/v1/search/image", files=upload(picture(0))).status_code == 200
    encoder.free.clear()
    encoder.entered.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture(1)), timeout=30)
        assert encoder.entered.wait(30)
        for number in range(2, 6):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/search/image", files=upload(picture(number)), timeout=0.3)
        wait_until_under_way(url, 1)
        encoder.free.set()
        assert first.result().status_code == 200
    assert httpx.post(f"{url}/v1/search/image", files=upload(picture(7))).status_code == 200
    assert sum(encoder.batches) == 3


def test_what_was_embedded_is_remembered_by_content(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(cached_embeddings=2)
    with httpx.Client(base_url=url) as http:
        for number in (0, 1, 0, 1, 2, 1, 0):
            assert http.post("/v1/search/image", files=upload(picture(number))).status_code == 200
        assert sum(encoder.batches) == 4
        boxed = http.post("/v1/search/image", files=upload(picture(0)), data={"box": "0,0,40,40"})
        assert boxed.status_code == 200
        assert sum(encoder.batches) == 5


def test_what_was_searched_for_is_added_without_encoding_it_again_and_found_as_what_was_added(
    serve: Serve, encoder: HeldEncoder
) -> None:
    with httpx.Client(base_url=serve()) as http:
        for number in (0, 1):
            assert http.post("/v1/search/image", files=upload(picture(number))).status_code == 200
        encoder.batches.clear()
        added = [http.post("/v1/images", files=upload(picture(number))) for number in (0, 1, 2)]
        assert [one.status_code for one in added] == [201, 201, 201]
        assert [(one.json()["width"], one.json()["height"]) for one in added] == [(96, 80)] * 3
        for number in (0, 1, 2):
            best = http.post("/v1/search/image", files=upload(picture(number))).json()["hits"][0]
            assert (best["id"], round(best["score"], 5)) == (added[number].json()["id"], 1)
        assert sum(encoder.batches) == 1


def test_the_index_may_be_named_in_the_address_and_what_the_body_names_comes_first(serve: Serve) -> None:
    query: dict[str, Any] = {"parts": [{"id": image_id(3)}]}
    text = base64.b64encode(picture()).decode()
    with httpx.Client(base_url=serve()) as http:
        for path, body in (
            ("/v1/search", query),
            ("/v1/search/batch", {"queries": [query]}),
            ("/v1/embed", {"input": [text]}),
        ):
            check_problem(http.post(f"{path}?index=none", json=body), 404, "unknown-index")
            assert http.post(f"{path}?index=none", json=body | {"index": "test"}).status_code == 200
        for path, status in (("/v1/search/image", 200), ("/v1/images", 201)):
            check_problem(http.post(f"{path}?index=none", files=upload(picture())), 404, "unknown-index")
            answer = http.post(f"{path}?index=none", files=upload(picture()), data={"index": "test"})
            assert answer.status_code == status


@pytest.mark.slow
def test_one_bad_picture_ends_the_work_on_those_beside_it(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve()
    encoder.free.clear()
    pictures = [base64.b64encode(picture(number)).decode() for number in range(20)]
    refused = httpx.post(f"{url}/v1/embed", json={"input": ["b@d", *pictures]}, timeout=30)
    check_problem(refused, 422, "invalid")
    encoder.free.set()
    time.sleep(0.5)
    assert sum(encoder.batches) <= 8, "nobody waits for the others"


def test_pictures_in_small_json_bodies_count_too(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=4)
    encoder.free.clear()
    pictures = [base64.b64encode(picture(number)).decode() for number in range(4)]
    queries = {"queries": [{"parts": [{"image": one}]} for one in pictures]}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/embed", json={"input": pictures}, timeout=30)
        assert encoder.entered.wait(10)
        check_problem(httpx.post(f"{url}/v1/embed", json={"input": pictures[:1]}), 429, "overloaded")
        check_problem(httpx.post(f"{url}/v1/search/batch", json=queries), 429, "overloaded")
        check_problem(httpx.post(f"{url}/v1/search", json=queries["queries"][0]), 429, "overloaded")
        check_problem(httpx.post(f"{url}/v1/search/image", files=upload(picture(9))), 429, "overloaded")
        by_id = {"queries": [{"parts": [{"id": image_id(3)}]}]}
        assert httpx.post(f"{url}/v1/search/batch", json=by_id).status_code == 200, "which has none"
        encoder.free.set()
        assert first.result().status_code == 200


def test_a_batch_asks_for_no_more_hits_than_a_search_may(serve: Serve) -> None:
    url = serve()
    query = {"parts": [{"id": image_id(3)}], "k": 5001}
    check_problem(httpx.post(f"{url}/v1/search/batch", json={"queries": [query, query]}), 422, "invalid")
    assert httpx.post(f"{url}/v1/search/batch", json={"queries": [query]}).status_code == 200


def test_strangers_hold_nothing_that_others_need(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)), max_waiting=2, max_requests=2)
    port = int(url.rpartition(":")[2])
    check_problem(httpx.post(f"{url}/session", content=b"x" * 10_000), 413, "too-large")
    head = "POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with contextlib.ExitStack() as held:
        for _ in range(2):
            stranger = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            stranger.sendall(f"{head}Content-Length: 4000\r\n\r\n".encode())
        time.sleep(0.3)
        check_problem(httpx.get(f"{url}/docs"), 429, "overloaded")
        found = httpx.post(f"{url}/v1/search/image", files=upload(picture()), headers=bearer("look"))
        assert found.status_code == 200


@pytest.mark.parametrize("headers", ["", "Content-Length: 0\r\n"])
def test_a_call_without_the_body_that_it_needs_is_answered(serve: Serve, headers: str) -> None:
    port = int(serve().rpartition(":")[2])
    for method, path in (("POST", "/v1/search"), ("POST", "/v1/search/image"), ("PATCH", f"/v1/images/{image_id(3)}")):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            assert client.recv(65536).split()[1] in (b"400", b"422")


def test_a_body_that_no_call_reads_is_no_way_around_the_deadline(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(request_seconds=0.5)
    port = int(url.rpartition(":")[2])
    service = serve.services[0]
    release = threading.Event()
    for _ in range(2):  # all that read
        service._readers.submit(release.wait, 30)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            assert b" 504 " in client.recv(65536)
    finally:
        release.set()


def test_a_cookie_of_another_program_costs_nobody_the_session(serve: Serve) -> None:
    keys = Keys(read_keys(KEYS))
    url = serve(keys)
    value = keys.session("look")
    cookie = f'prefs={{"a":1}}; lookalike_session={value}; x'
    assert httpx.get(f"{url}/v1/indexes", headers={"Cookie": cookie}).status_code == 200


def test_a_server_that_stops_says_so_to_who_still_waits(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve()
    encoder.free.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture()), timeout=30)
        assert encoder.entered.wait(10)
        serve.servers[0].config.timeout_graceful_shutdown = 0
        serve.servers[0].should_exit = True
        check_problem(asked.result(), 503, "not-ready")


def test_an_upload_that_finds_no_room_is_the_servers_fault(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    url = serve()
    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    check_problem(httpx.post(f"{url}/v1/search/image", files=upload(picture())), 507, "disk-full")


def test_a_batch_is_answered_query_by_query(serve: Serve) -> None:
    url = serve()
    with httpx.Client(base_url=url) as http:
        queries = [
            {"parts": [{"id": image_id(3)}], "k": 2},
            {"parts": [{"id": "0" * 64}]},
            {"parts": [{"id": image_id(4)}], "filter": {"label": "even"}, "k": 3},
            {"parts": [{"image": "bm8="}]},
        ]
        answers = http.post("/v1/search/batch", json={"queries": queries}).json()["answers"]
        for query, entry in zip(queries, answers, strict=True):
            alone = http.post("/v1/search", json=query)
            if alone.status_code == 200:
                assert entry["error"] is None
                assert entry["answer"]["hits"] == alone.json()["hits"]
            else:
                assert entry == {"answer": None, "error": alone.json()}
        assert [entry["error"] and entry["error"]["code"] for entry in answers] == [
            None, "unknown-image", None, "unsupported-image",
        ]  # fmt: skip
        check_problem(http.post("/v1/search/batch", json={"queries": []}), 422, "invalid")


def test_an_error_of_the_server_in_a_batch_is_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = serve()
    damaged = IndexDamaged("page 7 of /srv/photos.index is damaged")
    monkeypatch.setattr(serve.services[0], "ask", AsyncMock(side_effect=damaged))
    batch = {"queries": [{"parts": [{"id": image_id(3)}]}] * 2}
    entries = httpx.post(f"{url}/v1/search/batch", json=batch).json()["answers"]
    assert [entry["error"]["code"] for entry in entries] == ["index-damaged"] * 2
    assert "page 7" not in str(entries)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [str(damaged)] * 2


def test_a_method_that_a_path_has_not_is_told_which_it_has(serve: Serve) -> None:
    url = serve(root_path="/under")
    with httpx.Client(base_url=url) as http:
        one = f"/v1/images/{image_id(3)}"
        for path, methods in (("/v1/images", "GET, HEAD, POST"), (one, "DELETE, GET, HEAD, PATCH")):
            refused = http.put(path)
            check_problem(refused, 405, "method-not-allowed")
            assert refused.headers["allow"] == methods
        assert http.get("/v1/indexes").status_code == 200


def test_readiness_is_a_search_and_health_is_not(
    serve: Serve, encoder: HeldEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.serving.service.CHECK_SECONDS", 0.3)
    monkeypatch.setattr("api.serving.service.CHECKED_SECONDS", 0)
    url = serve()
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert sum(encoder.batches) == 1
    encoder.free.clear()
    check_problem(httpx.get(f"{url}/readyz"), 503, "not-ready")
    assert httpx.get(f"{url}/healthz").status_code == 200
    encoder.free.set()
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_every_answer_has_an_id_and_a_line_in_the_log(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    logs.install("json")
    try:
        url = serve()
        answer = httpx.get(f"{url}/v1/images/{image_id(3)}", headers={"X-Request-ID": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        other = httpx.get(f"{url}/v1/images/{'0' * 64}", headers={"X-Request-ID": "{inject\\n"})
        assert len(other.headers["x-request-id"]) == 16
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        logging.basicConfig(force=True)
    told = {line["request_id"]: line for line in lines if line["logger"] == "lookalike.access"}
    assert told["abc-1"]["status"] == 200
    assert told["abc-1"]["route"] == "/v1/images/{id}"
    assert told[other.headers["x-request-id"]]["status"] == 404
    assert image_id(3) not in json.dumps(lines), "which image it was is nobody's business"


@pytest.mark.slow
def test_what_clients_do_wrong_is_counted_and_fills_no_log(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    logs.install("text")
    try:
        url = serve()
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"no HTTP\r\n\r\n")
            assert b" 400 " in client.recv(65536)
        form = b"--b\r\nContent-Disposition: form-data\rbad: x\r\n\r\nx\r\n--bX"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert httpx.post(f"{url}/v1/search/image", content=form, headers=headers).status_code == 400
        assert 'lookalike_refused_total{code="malformed"}' in httpx.get(f"{url}/metrics").text
        assert capsys.readouterr().err == ""
    finally:
        logging.basicConfig(force=True)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LOOKALIKE_API_KEY_FIL", "keys", "no setting LOOKALIKE_API_KEY_FIL. Is it LOOKALIKE_API_KEY_FILE?"),
        ("LOOKALIKE_CORS_ORIGINS", "https://a.example b.example", "a site is its scheme and name"),
        ("LOOKALIKE_ROOT_PATH", "lookalike/", "begins with /"),
        ("LOOKALIKE_ALLOWED_HOSTS", "http://x/", "its name or address alone"),
        ("LOOKALIKE_FORWARDED_ALLOW_IPS", "127.0.0.1, 10.0.0.0/33", "10.0.0.0/8"),
        ("LOOKALIKE_FORWARDED_ALLOW_IPS", "10.0.0.1, *", "* alone"),
        ("LOOKALIKE_REQUEST_SECONDS", "inf", "finite"),
    ],
)
def test_a_setting_that_cannot_be_meant_keeps_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingInvalid, match=re.escape(says)) as raised:
        read_settings()
    assert name in str(raised.value)


def test_settings_that_can_be_meant_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CORS_ORIGINS": "https://a.example:8443, http://localhost",
        "ROOT_PATH": "/apps/look-alike",
        "ALLOWED_HOSTS": "photos.example ::1",
        "FORWARDED_ALLOW_IPS": "10.0.0.0/8, ::1",
        "INDEX": "x",
        "CACHE": "y",
        "API_SERVICE_HOST": "10.0.0.7",
        "API_PORT": "tcp://10.0.0.7:8000",
        "API_PORT_8000_TCP_ADDR": "10.0.0.7",
    }.items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    settings = read_settings(port=9)
    assert settings.cors_origins == ("https://a.example:8443", "http://localhost")
    assert (settings.root_path, settings.allowed_hosts, settings.port) == (
        "/apps/look-alike",
        ("photos.example", "::1"),
        9,
    )
    for proxies in ("*", "", "127.0.0.1,"):
        monkeypatch.setenv("LOOKALIKE_FORWARDED_ALLOW_IPS", proxies)
        assert read_settings().forwarded_allow_ips == proxies


def test_what_a_call_does_not_know_is_refused_wherever_it_stands(serve: Serve) -> None:
    with httpx.Client(base_url=serve()) as http:
        for path, field in (("/v1/search/image", "filters"), ("/v1/images", "label")):
            refused = http.post(path, files=upload(picture()), data={field: "x"})
            check_problem(refused, 422, "invalid")
            assert "does not know" in refused.json()["detail"]
        for path in ("/v1/images?label=x", f"/v1/images/{image_id(3)}/similar?min_scor=1", "/metrics?x=1"):
            check_problem(http.get(path), 422, "invalid")
        assert http.get(f"/v1/images/{image_id(3)}/similar?k=1&index=test").status_code == 200


@pytest.mark.parametrize(
    "part", [{"box": [False, 0, 1, 1]}, {"weight": True}, {"weight": "1"}, {"vector": [True]}, {"id": 1}]
)
def test_true_and_texts_are_no_numbers(serve: Serve, part: dict[str, Any]) -> None:
    url = serve()
    query = {"parts": [{"id": image_id(3)} | part]}
    check_problem(httpx.post(f"{url}/v1/search", json=query), 422, "invalid")
    for k in ("10", True, 10.5):
        check_problem(httpx.post(f"{url}/v1/search", json={"parts": [{"id": image_id(3)}], "k": k}), 422, "invalid")
    answer = httpx.post(f"{url}/v1/search", json={"parts": [{"id": image_id(3), "weight": 1}], "k": 4.0})
    assert len(answer.json()["hits"]) == 4


def test_who_sends_no_file_is_told_how(serve: Serve) -> None:
    with httpx.Client(base_url=serve()) as http:
        path = "/v1/search/image"
        raw = http.post(path, content=picture(), headers={"Content-Type": "image/png"})
        check_problem(raw, 400, "malformed")
        text = http.post(path, files={"image": (None, "hello")})
        check_problem(text, 422, "invalid")
        for refused in (raw, text):
            assert "curl -F image=@picture.jpg" in refused.json()["detail"]
        two = http.post(path, files=[("image", ("a", picture())), ("image", ("b", picture()))])
        check_problem(two, 400, "malformed")
        assert "more than one file" in two.json()["detail"]


def test_probes_may_ask_for_the_head_alone(serve: Serve) -> None:
    url = serve(Keys(read_keys(KEYS)))
    for path in ("/healthz", "/readyz"):
        answer = httpx.head(f"{url}{path}")
        assert (answer.status_code, answer.content) == (200, b"")


def test_refusals_are_counted_by_what_was_asked(serve: Serve, encoder: HeldEncoder) -> None:
    url = serve(max_waiting=1)
    encoder.free.clear()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(httpx.post, f"{url}/v1/search/image", files=upload(picture()), timeout=30)
        wait_until_under_way(url, 1)
        check_problem(httpx.post(f"{url}/v1/search/image", files=upload(picture(1))), 429, "overloaded")
        encoder.free.set()
    counted = 'lookalike_request_seconds_count{method="POST",route="/v1/search/image",status="429"} '
    assert counted in httpx.get(f"{url}/metrics").text
