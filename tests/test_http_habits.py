"""Habits of browsers, proxies and other clients: HEAD, conditions, ranges, names, base64 in any dress."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator

import httpx
import pytest
from conftest import Server
from PIL import Image

from api.errors import QuestionInvalid
from api.http.files import content_disposition
from api.serving.questions import read_base64


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def original(server: Server) -> tuple[str, bytes]:
    """An image's address, and the bytes of its file."""
    data = (server.photos / "teal" / "circle-1.png").read_bytes()
    return f"/v1/images/{hashlib.sha256(data).hexdigest()}", data


DATA = bytes(range(256)) * 3 + b"\xff"  # every character of both alphabets, and padding
PLAIN = base64.b64encode(DATA).decode()
DRESSED = {
    "plain": PLAIN,
    "data URI": f"data:image/png;base64,{PLAIN}",
    "data URI with a parameter": f"DATA:image/svg+xml;name=a.png;Base64,{PLAIN}",
    "data URI without a type": f"data:;base64,{PLAIN}",
    "escaped data URI": "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    "lines": base64.encodebytes(DATA).decode(),
    "lines of Windows": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "white space around": f"  {PLAIN}\n",
    "white space around a data URI": f"\n data:image/png;base64, {PLAIN}\n",
    "URL-safe": base64.urlsafe_b64encode(DATA).decode(),
    "no padding": PLAIN.rstrip("="),
    "URL-safe without padding, in lines": "\n".join(base64.urlsafe_b64encode(DATA).decode().rstrip("=").partition("A")),
}


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_base64_is_read_in_any_dress(text: str) -> None:
    assert read_base64(text) == DATA


@pytest.mark.parametrize(
    "text", ["!", "A", "AAAAA", "AA=A", "é", "data:image/png,abc", "data:image/png;base64", "data:"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(QuestionInvalid):
        read_base64(text)


def test_a_picture_in_json_may_be_a_data_uri(http: httpx.Client, original: tuple[str, bytes]) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(original[1]).decode()}"
    vector = http.post("/v1/embed", json={"input": [uri]}).json()["data"][0]["embedding"]
    hits = http.post("/v1/search", json={"parts": [{"image": uri}], "k": 1}).json()["hits"]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(vector) > 1


@pytest.mark.parametrize(
    "path", ["/thumbnail", "/file", "", "/similar", "/v1/images", "/v1/indexes", "/healthz", "/readyz", "/", "/docs"]
)
def test_head_is_get_without_a_body(http: httpx.Client, original: tuple[str, bytes], path: str) -> None:
    address = path if path.startswith(("/v1", "/h", "/r", "/d")) or path == "/" else original[0] + path
    got, head = http.get(address), http.head(address)
    assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
    for name in ("content-type", "etag", "cache-control", "content-disposition", "accept-ranges"):
        assert head.headers.get(name) == got.headers.get(name), name
    if path in ("/thumbnail", "/file"):
        assert head.headers["content-length"] == str(len(got.content))


def test_head_where_there_is_no_get_is_refused_and_get_is_told(http: httpx.Client) -> None:
    refused = http.head("/v1/search")
    assert refused.status_code == 405
    assert http.put("/v1/indexes").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/thumbnail?size=32", "/file"])
def test_who_has_a_picture_is_not_sent_it_again(http: httpx.Client, original: tuple[str, bytes], path: str) -> None:
    address = original[0] + path
    tag = http.get(address).headers["etag"]
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = http.get(address, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert "immutable" in answer.headers["cache-control"]
    assert http.head(address, headers={"If-None-Match": tag}).status_code == 304
    for condition in ('"other"', tag[:-2] + '"', ""):
        assert http.get(address, headers={"If-None-Match": condition}).status_code == 200
    unknown = f"/v1/images/{'0' * 64}{path}"
    assert http.get(unknown, headers={"If-None-Match": "*"}).status_code == 404


def test_a_range_of_a_file_is_sent_alone(http: httpx.Client, original: tuple[str, bytes]) -> None:
    address, data = original[0] + "/file", original[1]
    size = len(data)
    whole = http.get(address)
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=-{10 * size}", 0, size - 1),
        (f"bytes={size - 1}-{10 * size}", size - 1, size - 1),
        ("BYTES=5-5", 5, 5),
    ):
        answer = http.get(address, headers={"Range": asked})
        assert answer.status_code == 206, asked
        assert answer.content == data[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert answer.headers["content-length"] == str(last + 1 - first)
        assert answer.headers["etag"] == whole.headers["etag"]
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = http.get(address, headers={"Range": asked})
        assert (answer.status_code, answer.json()["code"]) == (416, "range-not-satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-3", "bytes=-", "bytes=a-b", "bytes=+1-2", "lines=0-3", "bytes", ""]
)
def test_a_range_that_is_none_gets_the_whole_file(http: httpx.Client, original: tuple[str, bytes], asked: str) -> None:
    answer = http.get(original[0] + "/file", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, original[1])


def test_a_range_of_another_content_gets_the_whole_file(http: httpx.Client, original: tuple[str, bytes]) -> None:
    address = original[0] + "/file"
    tag = http.get(address).headers["etag"]
    ask = {"Range": "bytes=0-9"}
    assert http.get(address, headers=ask | {"If-Range": tag}).status_code == 206
    assert http.get(address, headers=ask | {"If-Range": '"other"'}).status_code == 200
    assert http.get(address, headers=ask | {"If-None-Match": tag}).status_code == 304
    assert http.head(address, headers=ask).headers["content-length"] == str(len(original[1]))


def test_a_file_has_its_name(http: httpx.Client, original: tuple[str, bytes]) -> None:
    told = http.get(original[0] + "/file").headers["content-disposition"]
    assert told == 'inline; filename="circle-1.png"'


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zebra 1.jpg", 'inline; filename="zebra 1.jpg"'),
        ("café.jpg", "inline; filename=\"caf_.jpg\"; filename*=UTF-8''caf%C3%A9.jpg"),
        ('a"b\\c;d%41.jpg', "inline; filename=\"a_b_c;d_41.jpg\"; filename*=UTF-8''a%22b%5Cc%3Bd%2541.jpg"),
        ("a\r\nX: y.jpg", "inline; filename=\"a__X: y.jpg\"; filename*=UTF-8''a__X%3A%20y.jpg"),
        ("gpj\u202eexe.jpg", "inline; filename=\"gpj_exe.jpg\"; filename*=UTF-8''gpj_exe.jpg"),
        ("\udcff.jpg", "inline; filename=\"_.jpg\"; filename*=UTF-8''_.jpg"),
    ],
)
def test_a_name_of_any_kind_is_safe_in_a_header(name: str, told: str) -> None:
    assert content_disposition(name) == told
    assert told.isascii()


def test_an_id_may_be_in_capitals(http: httpx.Client, original: tuple[str, bytes]) -> None:
    image_id = original[0].rpartition("/")[2]
    capitals = f"/v1/images/{image_id.upper()}"
    assert http.get(capitals).json()["id"] == image_id
    assert http.get(f"{capitals}/file").content == original[1]
    assert http.get(f"{capitals}/thumbnail").headers["etag"] == http.get(original[0] + "/thumbnail").headers["etag"]
    similar = http.get(f"{capitals}/similar", params={"k": 36}).json()["hits"]
    assert similar == http.get(f"{original[0]}/similar", params={"k": 36}).json()["hits"]
    by_part = http.post("/v1/search", json={"parts": [{"id": image_id.upper()}], "k": 36}).json()["hits"]
    assert by_part == similar
    batch = http.post("/v1/search/batch", json={"queries": [{"parts": [{"id": image_id.upper()}], "k": 36}]}).json()
    assert batch["answers"][0]["answer"]["hits"] == similar


def test_changes_take_an_id_in_capitals_too(http: httpx.Client) -> None:
    out = io.BytesIO()
    Image.effect_noise((50, 40), 90).save(out, "PNG")
    image_id = http.post("/v1/images", files={"image": ("a", out.getvalue())}).json()["id"].upper()
    assert http.patch(f"/v1/images/{image_id}", json={"labels": ["x"]}).json()["labels"] == ["x"]
    assert http.delete(f"/v1/images/{image_id}").status_code == 204
