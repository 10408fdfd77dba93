"""What is given twice, where one value counts, is refused: of two filters, the first would be passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest
from conftest import Server
from test_api import check_problem, upload

TWICE = '{"label": "red", "label": "blue"}'


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def data(server: Server) -> bytes:
    return (server.photos / "red" / "circle-0.png").read_bytes()


def test_in_an_address(http: httpx.Client, data: bytes) -> None:
    similar = f"/v1/images/{hashlib.sha256(data).hexdigest()}/similar"
    for address in (
        f"{similar}?k=1&k=2",
        f'{similar}?filter={{"label":"red"}}&filter={{"label":"blue"}}',
        f"{similar}?filter={TWICE}",
        "/v1/images?limit=1&limit=1",
    ):
        check_problem(http.get(address), 422, "invalid")
    check_problem(http.post("/v1/search?index=a&index=b", json={}), 422, "invalid")


def test_in_a_form(http: httpx.Client, data: bytes) -> None:
    for fields in (
        {"k": ["1", "2"]},
        {"filter": ['{"label": "red"}', '{"label": "blue"}']},
        {"filter": TWICE},
    ):
        check_problem(http.post("/v1/search/image", files=upload(data), data=fields), 422, "invalid")
    for fields in ({"metadata": ["{}", "{}"]}, {"metadata": TWICE}):
        check_problem(http.post("/v1/images", files=upload(data), data=fields), 422, "invalid")
    check_problem(http.post("/v1/search/image", files=[("image", data), ("image", data)]), 400, "malformed")


def test_in_json(http: httpx.Client, data: bytes) -> None:
    image_id = hashlib.sha256(data).hexdigest()
    one = f'"parts": [{{"id": "{image_id}"}}]'
    kind = {"Content-Type": "application/json"}
    for body in (
        f'{{{one}, "k": 1, "k": 2}}',
        f'{{{one}, "filter": {TWICE}}}',
        f'{{{one}, "filter": {{"width": {{"gte": 5, "gte": 9000}}}}}}',
    ):
        refused = http.post("/v1/search", content=body, headers=kind)
        check_problem(refused, 422, "invalid")
        assert "a key twice" in refused.json()["detail"]
    check_problem(
        http.patch(f"/v1/images/{image_id}", content=f'{{"metadata": {TWICE}}}', headers=kind), 422, "invalid"
    )
    assert http.post("/v1/search", content=f"{{{one}}}", headers=kind).status_code == 200
