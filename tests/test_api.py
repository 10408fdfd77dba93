"""Promises of the HTTP interface, asked over a real socket with plain requests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import COMMAND, Server, another_writer, draw_picture, run_cli, start_server, stop_server, write_photos
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from api.http import problems
from api.settings import Settings
from search.errors import IndexLocked, SearchError, StorageFailed
from search.index import Index

UNKNOWN = "0" * 64


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def upload(data: bytes) -> dict[str, tuple[str, bytes]]:
    return {"image": ("picture", data)}


def check_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == problems.MEDIA_TYPE
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"].endswith(".")


def test_an_uploaded_copy_finds_itself_and_says_where_the_time_went(http: httpx.Client, server: Server) -> None:
    file = server.photos / "red" / "circle-0.png"
    answer = http.post("/v1/search/image", files=upload(file.read_bytes()), data={"k": 3}).json()
    assert len(answer["hits"]) == 3
    best = answer["hits"][0]
    assert best["id"] == sha256(file.read_bytes())
    assert best["score"] == pytest.approx(1, abs=1e-3)
    assert best["path"] == best["paths"][0] == str(file)
    assert best["labels"] == ["red"]
    assert (best["width"], best["height"]) == (96, 80)
    took = answer["took_ms"]
    assert set(took) == {"decode", "encode", "search", "total"}
    assert took["total"] >= took["decode"] + took["encode"] + took["search"] - 1
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_the_same_picture_by_file_base64_vector_and_id_gives_the_same_hits(http: httpx.Client, server: Server) -> None:
    data = (server.photos / "blue" / "square-1.png").read_bytes()
    text = base64.b64encode(data).decode()
    by_file = http.post("/v1/search/image", files=upload(data), data={"k": 6}).json()["hits"]
    by_text = http.post("/v1/search", json={"parts": [{"image": text}], "k": 6}).json()["hits"]
    vector = http.post("/v1/embed", json={"input": [text]}).json()["data"][0]["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    by_vector = http.post("/v1/search", json={"parts": [{"vector": vector}], "k": 6}).json()["hits"]
    assert by_file == by_text == by_vector
    by_id = http.get(f"/v1/images/{sha256(data)}/similar", params={"k": 5}).json()["hits"]
    assert [hit["id"] for hit in by_id] == [hit["id"] for hit in by_file[1:]]


def test_filters_min_score_and_offset(http: httpx.Client, server: Server) -> None:
    data = upload((server.photos / "blue" / "square-1.png").read_bytes())

    def hits(**fields: object) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = http.post("/v1/search/image", files=data, data=fields).json()["hits"]  # type: ignore[arg-type]
        return answer

    labels = hits(k=30, filter=json.dumps({"label": {"in": ["red", "teal"]}}))
    assert len(labels) == 12
    assert {label for hit in labels for label in hit["labels"]} == {"red", "teal"}
    everything = hits(k=36)
    assert len(everything) == 36
    assert hits(k=5, offset=7) == everything[7:12]
    assert hits(k=36, min_score=everything[4]["score"]) == everything[:5]
    assert hits(k=36, filter=json.dumps({"path": {"glob": "red/*"}})) == [
        hit for hit in everything if hit["labels"] == ["red"]
    ]


def test_a_box_looks_at_that_part_only(http: httpx.Client) -> None:
    wide = Image.new("RGB", (192, 80), "white")
    left, right = draw_picture("red", "circle", 0), draw_picture("green", "stripes", 0)
    wide.paste(left, (0, 0))
    wide.paste(right, (96, 0))
    whole = http.post("/v1/search/image", files=upload(png(right)), data={"k": 1}).json()["hits"]
    part = http.post("/v1/search/image", files=upload(png(wide)), data={"k": 1, "box": "96,0,96,80"}).json()["hits"]
    assert part[0]["id"] == whole[0]["id"]
    assert part[0]["score"] == pytest.approx(whole[0]["score"], abs=1e-3)
    check_problem(
        http.post("/v1/search/image", files=upload(png(wide)), data={"box": "500,0,9,9"}), 422, "unreadable-image"
    )
    check_problem(http.post("/v1/search/image", files=upload(png(wide)), data={"box": "1,2,nan,4"}), 422, "invalid")


def test_an_added_image_is_found_changed_and_deleted(http: httpx.Client) -> None:
    data = png(draw_picture("black", "stripes", 4))
    image_id = sha256(data)
    added = http.post(
        "/v1/images", files=upload(data), data={"labels": ["new", "striped"], "metadata": '{"price": 3, "old": 1}'}
    )
    assert added.status_code == 201
    assert added.headers["location"] == f"/v1/images/{image_id}"
    assert added.json()["labels"] == ["new", "striped"]
    assert http.post("/v1/images", files=upload(data)).status_code == 200, "adding again is harmless"
    hits = http.post("/v1/search/image", files=upload(data), data={"filter": '{"label": "new"}'}).json()["hits"]
    assert [hit["id"] for hit in hits] == [image_id]
    changed = http.patch(
        f"/v1/images/{image_id}", json={"labels": ["kept"], "metadata": {"old": None, "size": {"w": 1}}}
    )
    assert changed.json()["labels"] == ["kept"]
    assert changed.json()["metadata"] == {"price": 3, "size": {"w": 1}}
    assert http.get(f"/v1/images/{image_id}/file").content == data
    stored = Path(added.json()["path"])
    assert stored.read_bytes() == data
    assert http.delete(f"/v1/images/{image_id}").status_code == 204
    assert not stored.exists()
    check_problem(http.get(f"/v1/images/{image_id}"), 404, "unknown-image")
    check_problem(http.delete(f"/v1/images/{image_id}"), 404, "unknown-image")


@pytest.mark.slow
def test_what_was_added_outlives_the_file_it_is_a_copy_of(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index, "--model", checkpoint)
    file = tmp_path / "photos" / "red" / "circle-0.png"
    data = file.read_bytes()
    process, url = start_server(index)
    try:
        assert httpx.post(f"{url}/v1/images", files=upload(data)).status_code == 200
        file.unlink()
        run_cli("build", tmp_path / "photos", "--index", index, "--prune")
        assert httpx.get(f"{url}/v1/images/{sha256(data)}/file").content == data
        assert httpx.delete(f"{url}/v1/images/{sha256(data)}").status_code == 204
        assert not list((index / "uploads").rglob("*.png"))
    finally:
        assert stop_server(process) == 0


def test_pages_list_every_image_once(http: httpx.Client) -> None:
    seen: list[str] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = http.get("/v1/images", params={"cursor": cursor, "limit": 7}).json()
        assert len(page["images"]) <= 7
        seen += [image["id"] for image in page["images"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 36


def test_pictures_come_by_id_small_and_cacheable(http: httpx.Client, server: Server) -> None:
    data = (server.photos / "teal" / "circle-1.png").read_bytes()
    thumbnail = http.get(f"/v1/images/{sha256(data)}/thumbnail", params={"size": 32})
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert "immutable" in thumbnail.headers["cache-control"]
    assert thumbnail.headers["etag"]
    assert max(Image.open(io.BytesIO(thumbnail.content)).size) == 32
    original = http.get(f"/v1/images/{sha256(data)}/file")
    assert original.content == data
    assert original.headers["content-type"] == "image/png"


@pytest.mark.slow
def test_a_file_that_changed_or_left_its_root_is_not_handed_out(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index = tmp_path / "photos.index"
    (tmp_path / "album").mkdir()
    draw_picture("teal", "square", 9).save(tmp_path / "album" / "linked.png")
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "album", target_is_directory=True)
    run_cli("build", tmp_path / "photos", "--follow-links", "--index", index, "--model", checkpoint)
    changed, escaped = tmp_path / "photos" / "red" / "circle-0.png", tmp_path / "photos" / "red" / "circle-1.png"
    changed_id, escaped_id = sha256(changed.read_bytes()), sha256(escaped.read_bytes())
    changed.write_bytes(b"something else")
    escaped.rename(tmp_path / "outside.png")
    escaped.symlink_to(tmp_path / "outside.png")
    process, url = start_server(index)
    try:
        for image_id in (changed_id, escaped_id):
            check_problem(httpx.get(f"{url}/v1/images/{image_id}/file"), 404, "file-gone")
            check_problem(httpx.get(f"{url}/v1/images/{image_id}/thumbnail"), 404, "file-gone")
        linked = (tmp_path / "album" / "linked.png").read_bytes()
        assert httpx.get(f"{url}/v1/images/{sha256(linked)}/file").content == linked, "in a folder that was followed"
    finally:
        assert stop_server(process) == 0


BAD_REQUESTS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v1/search", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "malformed"),
    (
        "POST",
        "/v1/search",
        {"content": b"[" * 99_999, "headers": {"content-type": "application/json"}},
        400,
        "malformed",
    ),
    ("POST", "/v1/search", {"content": b"\xff\xfe\0", "headers": {"content-type": "text/plain"}}, 400, "malformed"),
    (
        "POST",
        "/v1/search",
        {"content": b'{"parts": [NaN]}', "headers": {"content-type": "application/json"}},
        422,
        "invalid",
    ),
    ("POST", "/v1/search", {"content": b'{"parts":[{"id":"\\ud800"}]}'}, 400, "malformed"),
    ("POST", "/v1/search", {"json": {"parts": []}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{}]}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN, "vector": [1.0]}]}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN}]}}, 404, "unknown-image"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN}], "k": 2**70}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN}], "surprise": 1}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{"vector": [1.0, 2.0]}]}}, 422, "invalid-query"),
    ("POST", "/v1/search", {"json": {"parts": [{"vector": [1e300] * 24}]}}, 422, "invalid-query"),
    ("POST", "/v1/search", {"json": {"parts": [{"vector": [0.0] * 24}]}}, 422, "invalid-query"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN}], "space": "none"}}, 404, "unknown-space"),
    ("POST", "/v1/search", {"json": {"parts": [{"id": UNKNOWN}], "index": "none"}}, 404, "unknown-index"),
    ("POST", "/v1/search", {"json": {"parts": [{"image": "!!"}]}}, 422, "invalid"),
    ("POST", "/v1/search", {"json": {"parts": [{"image": "aGVsbG8="}]}}, 415, "unsupported-image"),
    ("POST", "/v1/search/image", {"data": {"k": 3}}, 400, "malformed"),
    ("POST", "/v1/search/image", {"files": upload(b"")}, 415, "unsupported-image"),
    ("POST", "/v1/search/image", {"files": upload(b"GIF89a")}, 422, "unreadable-image"),
    ("POST", "/v1/search/image", {"files": upload(b"\xff\xd8\xff" + bytes(21_000_000))}, 413, "too-large"),
    ("POST", "/v1/search/image", {"files": upload(b"GIF89a"), "data": {"filter": "{"}}, 400, "malformed"),
    ("POST", "/v1/search/image", {"files": upload(b"GIF89a"), "data": {"filter": '{"x": 1}'}}, 422, "invalid-filter"),
    ("POST", "/v1/search/image", {"files": upload(b"GIF89a"), "data": {"k": "x"}}, 422, "invalid"),
    ("POST", "/v1/images", {"files": upload(b"GIF89a"), "data": {"metadata": "[1]"}}, 422, "invalid"),
    ("POST", "/v1/images", {"files": upload(b"GIF89a"), "data": {"metadata": '{"a": NaN}'}}, 422, "invalid-annotation"),
    ("PATCH", f"/v1/images/{UNKNOWN}", {"json": {"labels": ["x"]}}, 404, "unknown-image"),
    ("GET", f"/v1/images/{UNKNOWN}/thumbnail", {}, 404, "unknown-image"),
    ("GET", f"/v1/images/{UNKNOWN}/file", {}, 404, "unknown-image"),
    ("GET", "/v1/images/../../etc/passwd", {}, 404, "not-found"),
    ("GET", "/v1/images/xyz", {}, 422, "invalid"),
    ("GET", "/v1/images?cursor=abc", {}, 422, "invalid"),
    ("GET", "/v1/indexes/none", {}, 404, "unknown-index"),
    ("GET", "/nowhere", {}, 404, "not-found"),
    ("DELETE", "/v1/search", {}, 405, "method-not-allowed"),
]


@pytest.mark.parametrize(("method", "path", "request_", "status", "code"), BAD_REQUESTS)
def test_every_mistake_is_a_problem_with_a_stable_code(
    http: httpx.Client, method: str, path: str, request_: dict[str, Any], status: int, code: str
) -> None:
    check_problem(http.request(method, path, **request_), status, code)


def test_no_error_echoes_the_request(http: httpx.Client) -> None:
    marker = "xyzzy<script>"
    for response in (
        http.post("/v1/search", json={"parts": [{"id": marker}], marker: marker}),
        http.post("/v1/search", json={"parts": [{"id": UNKNOWN}], "space": marker}),
        http.get("/v1/images", params={"index": marker}),
        http.get(f"/v1/images/{marker}"),
        http.post("/v1/search/image", files=upload(marker.encode())),
    ):
        assert response.status_code >= 400
        assert marker not in response.text


WORDS = [
    ("GET", "/v1/images?cursor=abc", {}, "cursor: .*; it is `next_cursor` of the page before"),
    ("GET", "/v1/images?limit=1.5", {}, "limit: must be a whole number"),
    ("POST", "/v1/search/image", {"files": upload(b"GIF89a"), "data": {"min_score": "x"}}, "min_score: must be a num"),
    ("POST", "/v1/search/batch", {"json": {"queries": [{"parts": [{"id": "x"}]}]}}, "queries.0.parts.0.id: .* 64 hex"),
]


@pytest.mark.parametrize(("method", "path", "request_", "words"), WORDS)
def test_what_is_wrong_with_a_field_is_said_where_it_is(
    http: httpx.Client, method: str, path: str, request_: dict[str, Any], words: str
) -> None:
    assert re.match(words, http.request(method, path, **request_).json()["detail"])


def test_the_openapi_description_is_complete(http: httpx.Client) -> None:
    spec = http.get("/openapi.json").json()
    calls = {(method, path) for path, methods in spec["paths"].items() for method in methods}
    assert calls == {
        ("post", "/v1/search/image"),
        ("post", "/v1/search"),
        ("post", "/v1/search/batch"),
        ("post", "/session"),
        ("delete", "/session"),
        ("get", "/v1/images"),
        ("get", "/v1/map"),
        ("get", "/v1/duplicates"),
        ("post", "/v1/duplicates/decisions"),
        ("post", "/v1/images"),
        ("get", "/v1/images/{id}"),
        ("patch", "/v1/images/{id}"),
        ("delete", "/v1/images/{id}"),
        ("get", "/v1/images/{id}/similar"),
        ("get", "/v1/images/{id}/thumbnail"),
        ("get", "/v1/images/{id}/file"),
        ("get", "/v1/images/{id}/explain"),
        ("post", "/v1/images/{id}/explain"),
        ("post", "/v1/embed"),
        ("get", "/v1/indexes"),
        ("get", "/v1/indexes/{name}"),
        ("get", "/v1/indexes/{name}/spaces"),
        ("post", "/v1/indexes/{name}/spaces"),
        ("patch", "/v1/indexes/{name}/spaces/{space}"),
        ("delete", "/v1/indexes/{name}/spaces/{space}"),
        ("get", "/b/{token}"),
        ("post", "/b/{token}/comments"),
        ("get", "/b/{token}/images/{id}"),
        ("post", "/b/{token}/votes"),
        ("get", "/v1/boards"),
        ("post", "/v1/boards"),
        ("delete", "/v1/boards/{board}"),
        ("get", "/v1/boards/{board}"),
        ("patch", "/v1/boards/{board}"),
        ("get", "/v1/boards/{board}/comments"),
        ("post", "/v1/boards/{board}/comments"),
        ("delete", "/v1/boards/{board}/comments/{comment}"),
        ("get", "/v1/boards/{board}/export"),
        ("post", "/v1/boards/{board}/items"),
        ("delete", "/v1/boards/{board}/items/{item}"),
        ("patch", "/v1/boards/{board}/items/{item}"),
        ("get", "/v1/boards/{board}/items/{item}/hits"),
        ("get", "/v1/boards/{board}/share"),
        ("post", "/v1/boards/{board}/share"),
        ("delete", "/v1/boards/{board}/share/{share}"),
        ("post", "/v1/boards/{board}/votes"),
        ("get", "/v1/feedback"),
        ("post", "/v1/feedback"),
        ("delete", "/v1/feedback/{session}"),
        ("get", "/v1/feedback/{session}"),
        ("patch", "/v1/feedback/{session}"),
        ("post", "/v1/feedback/{session}/label"),
        ("get", "/v1/watches"),
        ("post", "/v1/watches"),
        ("delete", "/v1/watches/{watch}"),
        ("get", "/v1/watches/{watch}"),
        ("get", "/v1/watches/{watch}/deliveries"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    for method, path in calls:
        call = spec["paths"][path][method]
        assert call["description"], (method, path)
        if path.startswith("/v1"):
            assert problems.MEDIA_TYPE in call["responses"]["422"]["content"]
            assert {"401", "403", "429", "503", "504"} <= set(call["responses"])
    for name in ("SearchRequest", "SearchAnswer", "ImageAnswer", "ImagePatch", "EmbedRequest", "ProblemAnswer"):
        assert spec["components"]["schemas"][name]["examples"], name


def test_health_pages_and_assets_are_our_own(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    assert "process_resident_memory_bytes" in http.get("/metrics").text
    for page in ("/", "/docs"):
        response = http.get(page)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "://" not in response.text, "a page that loads from elsewhere breaks offline"
        for asset in ("page.js", "page.css") if page == "/" else ("swagger-ui.css", "swagger-ui-bundle.js", "docs.js"):
            assert f"static/{asset}" in response.text
            assert http.get(f"/static/{asset}").status_code == 200


@pytest.mark.slow
def test_a_key_is_asked_for_where_the_server_has_one(built: tuple[Path, Path, Path]) -> None:
    process, url = start_server(built[1], "--api-key", "sesame")
    try:
        with httpx.Client(base_url=url) as http:
            check_problem(http.get("/v1/indexes"), 401, "unauthorized")
            wrong = http.get("/v1/indexes", headers={"Authorization": "Bearer open"})
            check_problem(wrong, 401, "unauthorized")
            assert wrong.headers["www-authenticate"] == "Bearer"
            assert http.get("/v1/indexes", headers={"Authorization": "Bearer sesame"}).status_code == 200
            assert http.get("/healthz").status_code == http.get("/").status_code == 200
    finally:
        assert stop_server(process) == 0


def test_a_writer_elsewhere_makes_changes_wait_not_fail(http: httpx.Client, server: Server) -> None:
    data = png(draw_picture("black", "circle", 6))
    with Index.open(server.index, writable=True) as index:
        with index.writer():
            refused = http.post("/v1/images", files=upload(data))
            check_problem(refused, 503, "index-locked")
            assert refused.headers["retry-after"]
        added = http.post("/v1/images", files=upload(data))
        assert added.status_code == 201
        assert http.delete(f"/v1/images/{added.json()['id']}").status_code == 204


@pytest.mark.parametrize(("error", "told"), [(IndexLocked("A build."), []), (StorageFailed("No disk."), ["No disk."])])
def test_the_log_tells_of_a_failing_disk_and_not_of_a_build(
    caplog: pytest.LogCaptureFixture, error: SearchError, told: list[str]
) -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    assert TestClient(app).get("/").status_code == 503
    assert [record.getMessage() for record in caplog.records if record.name == "lookalike"] == told


def test_many_clients_at_once_each_get_their_own_answer(http: httpx.Client, server: Server) -> None:
    files = sorted(server.photos.rglob("*.png"))

    def best(file: Path) -> str:
        answer = http.post("/v1/search/image", files=upload(file.read_bytes()), data={"k": 1})
        return str(answer.json()["hits"][0]["id"])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(best, files)) == [sha256(file.read_bytes()) for file in files]


@pytest.mark.slow
def test_a_build_in_another_process_is_seen_without_a_restart(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index, "--model", checkpoint)
    process, url = start_server(index)
    try:
        new = tmp_path / "photos" / "new.png"
        draw_picture("pink", "square", 3).save(new)
        run_cli("build", tmp_path / "photos", "--index", index)
        hits = httpx.post(f"{url}/v1/search/image", files=upload(new.read_bytes()), data={"k": 1}).json()["hits"]
        assert hits[0]["path"] == str(new)
        assert httpx.get(f"{url}/v1/indexes").json()["indexes"][0]["count"] == 37
    finally:
        assert stop_server(process) == 0


@pytest.mark.slow
def test_a_server_answers_without_its_generation_and_makes_it_anew(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index, "--model", checkpoint)
    (index / "generations" / "000001" / "manifest.json").write_text("{")
    file = tmp_path / "photos" / "red" / "circle-0.png"
    process, url = start_server(index)
    try:
        assert httpx.get(f"{url}/readyz").status_code == 200
        hits = httpx.post(f"{url}/v1/search/image", files=upload(file.read_bytes()), data={"k": 1}).json()["hits"]
        assert hits[0]["path"] == str(file)
        last = time.monotonic() + 20
        while httpx.get(f"{url}/v1/indexes/photos").json()["generation"] != "000002":
            assert time.monotonic() < last
            time.sleep(0.05)
    finally:
        assert stop_server(process) == 0


def readyz(url: str, *, until: int) -> httpx.Response:
    """What the server says once it has looked again: a check is believed for a second."""
    last = time.monotonic() + 10
    while (answer := httpx.get(f"{url}/readyz")).status_code != until and time.monotonic() < last:
        time.sleep(0.1)
    return answer


@pytest.mark.slow
def test_a_server_whose_index_is_moved_away_is_not_ready_and_takes_nothing(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index, away = tmp_path / "photos.index", tmp_path / "away.index"
    run_cli("build", tmp_path / "photos", "--index", index, "--model", checkpoint)
    process, url = start_server(index)
    try:
        assert httpx.get(f"{url}/readyz").status_code == 200
        index.rename(away)
        check_problem(readyz(url, until=503), 503, "storage-failed")
        added = httpx.post(f"{url}/v1/images", files=upload(png(draw_picture("black", "circle", 6))), timeout=60)
        check_problem(added, 503, "storage-failed")
        assert not index.exists(), "it was made again"
        away.rename(index)
        assert readyz(url, until=200).status_code == 200
    finally:
        assert stop_server(process) == 0


@pytest.mark.slow
def test_a_server_that_cannot_start_ends_though_it_would_mend_an_index(tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "photos")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index, "--model", checkpoint)
    other = shutil.copytree(index, tmp_path / "other.index")
    (index / "generations" / "000001" / "manifest.json").write_text("{")
    with another_writer(index):
        ended = subprocess.run(
            [*COMMAND, "serve", str(index), str(other), str(tmp_path / "none.index"), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 2
    assert "could not be published" in ended.stderr
    assert "There is no index" in ended.stderr


@pytest.mark.slow
def test_two_indexes_are_served_by_name(built: tuple[Path, Path, Path], tmp_path: Path, checkpoint: Path) -> None:
    write_photos(tmp_path / "few", variants=(5,))
    run_cli("build", tmp_path / "few", "--index", tmp_path / "few.index", "--model", checkpoint)
    process, url = start_server(built[1], str(tmp_path / "few.index"))
    try:
        names = [index["name"] for index in httpx.get(f"{url}/v1/indexes").json()["indexes"]]
        assert names == ["photos", "few"]
        assert len(httpx.get(f"{url}/v1/images", params={"index": "few", "limit": 1000}).json()["images"]) == 18
        assert len(httpx.get(f"{url}/v1/images", params={"limit": 1000}).json()["images"]) == 36
    finally:
        assert stop_server(process) == 0


def test_settings_come_from_the_environment_and_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_PORT", "9999")
    monkeypatch.setenv("LOOKALIKE_API_KEY", "sesame")
    assert Settings().port == 9999
    assert Settings(port=1).port == 1
    assert Settings().api_key == "sesame"
    for unset in ("", "  "):  # variables of a compose file that nobody set: no reason to let everybody in
        monkeypatch.setenv("LOOKALIKE_API_KEY", unset)
        assert "LOOKALIKE_API_KEY" in run_cli("serve", "/nowhere", check=2).stderr
    monkeypatch.delenv("LOOKALIKE_API_KEY")
    monkeypatch.setenv("LOOKALIKE_PORT", "none")
    assert "LOOKALIKE_PORT" in run_cli("serve", "/nowhere", check=2).stderr


def test_a_port_in_use_is_told(server: Server) -> None:
    port = server.url.rsplit(":", 1)[1]
    assert f":{port}" in run_cli("serve", server.index, "--port", port, check=2).stderr


@pytest.mark.slow
def test_stopping_waits_for_the_answers_under_way(built: tuple[Path, Path, Path]) -> None:
    process, url = start_server(built[1])
    data = (built[0] / "red" / "circle-0.png").read_bytes()
    text = base64.b64encode(data).decode()
    clients = [httpx.Client(base_url=url, timeout=60) for _ in range(2)]  # of 8 pictures at once each: all are let in
    for client in clients:
        client.get("/healthz")  # connected: what is not accepted yet may be refused
    with ThreadPoolExecutor(2) as pool:
        body = {"input": [text] * 64}  # some 64 forward passes each: they outlast the signal
        answers = [pool.submit(client.post, "/v1/embed", json=body) for client in clients]
        time.sleep(0.3)
        assert stop_server(process) == 0
        assert [answer.result().status_code for answer in answers] == [200] * 2
    for client in clients:
        client.close()
