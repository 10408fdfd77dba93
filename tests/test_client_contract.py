"""Promises of the Python client: its contract, against a real server, and in this process without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import lookalike_client
import numpy as np
import pytest
from client_kit import DOCS, add_patiently
from conftest import Server, run_cli
from lookalike_client import (
    BadRequest,
    Client,
    DeadlineExceeded,
    NotFound,
    Part,
    SearchResult,
    Unprocessable,
    UnsupportedImage,
)
from PIL import Image as Pillow

from search.index import Index

pytestmark = pytest.mark.usefixtures("kind")


class InProcess(httpx.BaseTransport):
    """An application without a socket, for a client without an event loop."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)
        self._runner = asyncio.Runner()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())

        async def answer() -> httpx.Response:
            response = await self._transport.handle_async_request(asked)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return self._runner.run(answer())

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def application(built: tuple[Path, Path, Path]) -> Iterator[Any]:
    from api.http.access import Keys, read_keys  # imports torch: not for tests that need none
    from api.http.app import create_app
    from api.http.server import open_services
    from api.settings import Settings

    settings = Settings()
    with open_services([built[1]], settings) as services:
        yield create_app(services, settings, Keys(read_keys(["a-key"])))


@pytest.fixture(params=["socket", "in-process"])
def client(request: pytest.FixtureRequest, kind: Any) -> Iterator[Client]:
    if request.param == "socket":
        server = request.getfixturevalue("server")
        connected = kind(server.url, api_key=server.api_key)
    else:
        app = request.getfixturevalue("application")
        transport = InProcess(app) if kind is lookalike_client.Client else httpx.ASGITransport(app)
        connected = kind("http://localhost", api_key="a-key", transport=transport)
    with connected:
        yield connected


@pytest.fixture(scope="module")
def query(server: Server) -> Path:
    """An image that is not indexed."""
    return min(path for path in server.queries.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def photo(server: Server) -> Path:
    """An image that is indexed."""
    return min(path for path in server.photos.rglob("*") if path.is_file())


def id_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def picture(seed: int) -> bytes:
    """A PNG of coloured noise: nothing else looks like it."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Pillow.fromarray(noise).resize((96, 96), Pillow.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def same(one: SearchResult, other: SearchResult) -> bool:
    scores = np.allclose([hit.score for hit in one], [hit.score for hit in other], atol=1e-5)
    return scores and {hit.id for hit in one} == {hit.id for hit in other}


def test_server_is_ready(client: Client, closed_port: int) -> None:
    assert client.ready()
    with Client(f"http://127.0.0.1:{closed_port}") as nobody:
        assert not nobody.ready()


def test_every_kind_of_image_finds_the_same(client: Client, query: Path) -> None:
    count = sum(1 for _ in client.images())  # all of them: at the edge of a top ten, ties could change places
    expected = client.search(query, k=count)
    assert len(expected) == count
    assert expected.took_ms.keys() >= {"decode", "encode", "search", "total"}
    scores = [hit.score for hit in expected]
    assert scores == sorted(scores, reverse=True)
    with Pillow.open(query) as opened, query.open("rb") as file:
        for image in (str(query), query.read_bytes(), file, opened, np.asarray(opened.convert("RGB"))):
            assert same(client.search(image, k=count), expected), type(image)
        width, height = opened.size
        assert same(client.search(query, k=count, box=(0, 0, width, height)), expected)
        left = client.search(query, k=count, box=(0, 0, width // 2, height))
    assert not same(left, expected)
    assert same(client.search(parts=[Part(image=query)], k=count), expected)


def test_stored_image_is_its_own_best_hit(client: Client, photo: Path) -> None:
    best = client.search(photo, k=1)[0]
    assert best.id == id_of(photo)
    assert best.score > 0.999
    assert best.path is not None
    assert Path(best.path).samefile(photo)


def test_image_asked_for_by_id_is_not_its_own_hit(client: Client, photo: Path) -> None:
    count = sum(1 for _ in client.images())
    found = client.search(id=id_of(photo), k=count)
    assert len(found) == count - 1
    assert id_of(photo) not in {hit.id for hit in found}
    assert same(client.similar(id_of(photo), k=count), found)


def test_min_score_and_offset_cut_the_list(client: Client, query: Path) -> None:
    whole = client.search(query, k=12)
    limit = (whole[4].score + whole[5].score) / 2
    assert whole[4].score > whole[5].score
    assert [hit.id for hit in client.search(query, k=12, min_score=limit)] == [hit.id for hit in whole[:5]]
    assert same(client.search(query, k=4, offset=3), whole[3:7])
    assert len(client.search(query, k=12, min_score=1.0)) == 0


def test_filter_leaves_only_what_matches(client: Client, query: Path) -> None:
    listed = list(client.images())
    label = listed[-1].labels[0]
    matching = {image.id for image in listed if label in image.labels}
    assert 0 < len(matching) < len(listed)
    chosen = {"label": label}
    assert {hit.id for hit in client.search(query, k=len(listed), filter=chosen)} == matching
    assert {hit.id for hit in client.search(parts=[Part(image=query)], k=len(listed), filter=chosen)} == matching
    asked, *rest = sorted(matching)
    assert {hit.id for hit in client.similar(asked, k=len(listed), filter=chosen)} == set(rest)


def test_weighted_parts_are_a_weighted_sum(client: Client, query: Path, photo: Path) -> None:
    count = sum(1 for _ in client.images())
    one, other = (np.array(vector) for vector in client.embed([query, photo]))
    for weight in (0.5, -0.5):
        found = client.search(parts=[Part(image=query), Part(id=id_of(photo), weight=weight)], k=count)
        assert id_of(photo) not in {hit.id for hit in found}
        total = one + weight * other
        summed = client.search(vector=list(total / np.linalg.norm(total)), k=count)
        scores = {hit.id: hit.score for hit in summed}
        assert len(found) == count - 1
        np.testing.assert_allclose([hit.score for hit in found], [scores[hit.id] for hit in found], atol=1e-4)


def test_life_of_an_image(client: Client) -> None:
    data = picture(1)
    before = sum(1 for _ in client.images())
    added = client.add(data, labels=["first", "second"], metadata={"keep": 1, "drop": [2]}, name="noise.png")
    try:
        assert added.id == hashlib.sha256(data).hexdigest()
        assert (added.width, added.height, added.format, added.bytes) == (96, 96, "png", len(data))
        assert set(added.labels) == {"first", "second"}
        assert client.add(data).id == added.id, "adding it again is harmless"
        assert sum(1 for _ in client.images()) == before + 1
        assert client.get(added.id).metadata == {"keep": 1, "drop": [2]}
        best = client.search(data, k=1, filter={"label": "first"})[0]
        assert (best.id, best.score > 0.999) == (added.id, True)
        changed = client.update(added.id, labels=["third"], metadata={"drop": None, "new": "x"})
        assert (changed.labels, changed.metadata) == (("third",), {"keep": 1, "new": "x"})
        assert client.get(added.id) == changed
        assert len(client.search(data, filter={"label": "first"})) == 0
        assert client.search(data, filter={"metadata.new": "x"})[0].id == added.id
        assert client.update(added.id, labels=[]).labels == ()
        assert client.file(added.id) == data
    finally:
        client.delete(added.id)
    with pytest.raises(NotFound):
        client.get(added.id)
    with pytest.raises(NotFound):
        client.delete(added.id)
    assert added.id not in {hit.id for hit in client.search(data, k=before + 1)}
    assert sum(1 for _ in client.images()) == before


def test_images_lists_all_once(client: Client, server: Server) -> None:
    ids = [image.id for image in client.images(page_size=7)]
    assert len(ids) == len(set(ids))
    assert {id_of(path) for path in server.photos.rglob("*") if path.is_file()} <= set(ids)
    assert ids == [image.id for image in client.images()]


def test_embeddings_have_unit_length(client: Client, query: Path, photo: Path) -> None:
    vectors = np.array(client.embed([query, photo.read_bytes()]))
    dim = client.indexes()[0].spaces[0].dim
    assert vectors.shape == (2, dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert client.search(vector=client.embed(photo)[0], k=1)[0].id == id_of(photo)


def test_indexes_tell_what_is_served(client: Client, query: Path) -> None:
    (served,) = client.indexes()
    assert served.count == sum(1 for _ in client.images())
    assert served.spaces[0].recipe
    first = client.search(query)
    assert first.space == served.spaces[0].name
    assert same(client.search(query, index=served.name, space=served.spaces[0].name), first)


def test_pictures_are_served_by_id(client: Client, photo: Path) -> None:
    data = client.thumbnail(id_of(photo), size=48)
    with Pillow.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG"
        assert max(small.size) <= 48
    assert client.file(id_of(photo)) == photo.read_bytes()


def test_a_result_shows_its_pictures_in_a_notebook(server: Server, query: Path) -> None:
    with Client(server.url, api_key=server.api_key) as client:
        found = client.search(query, k=3)
    shown = found[:2]._repr_html_()
    assert shown is not None
    assert shown.count("data:image/jpeg;base64,") == 2
    assert f"{found[0].score:.3f}" in shown
    kept = pickle.loads(pickle.dumps(found))
    assert kept == found
    assert kept._repr_html_() is None, "the server's key would have been pickled too"


def test_a_result_is_a_table_where_pandas_is(client: Client, query: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = client.search(query, k=3).to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["score"]) == sorted(table["score"], reverse=True)
    assert len(table) == 3


def test_unknown_names_are_not_found(client: Client, query: Path) -> None:
    unknown = "0" * 64
    calls: list[Callable[[], Any]] = [
        lambda: client.get(unknown),
        lambda: client.update(unknown, labels=["x"]),
        lambda: client.delete(unknown),
        lambda: client.similar(unknown),
        lambda: client.search(id=unknown),
        lambda: client.thumbnail(unknown),
        lambda: client.file(unknown),
        lambda: client.search(query, space="no-such-space"),
        lambda: client.search(query, index="no-such-index"),
        lambda: client.embed(query, index="no-such-index"),
        lambda: client.add(query, index="no-such-index"),
        lambda: client.get(unknown, index="no-such-index"),
        lambda: next(client.images(index="no-such-index")),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.code != "unknown", number
        assert "no-such" not in str(caught.value), "never an echo of the input"


def test_what_is_no_image_is_refused_by_the_server(client: Client, query: Path) -> None:
    for data in (b"not an image" * 10, b"", b"<svg/>"):
        with pytest.raises(UnsupportedImage):
            client.search(data)
        with pytest.raises(UnsupportedImage):
            client.add(data)
        with pytest.raises(UnsupportedImage):
            client.embed([data])
        with pytest.raises(UnsupportedImage):
            client.search(parts=[Part(image=data)])
    with pytest.raises(Unprocessable):
        client.search(query.read_bytes()[:60])


def test_what_cannot_be_meant_is_refused_by_the_server(client: Client, query: Path, photo: Path) -> None:
    bad_filters: list[dict[str, Any]] = [{"no_such_field": 1}, {"width": {"between": 1}}, {"and": 7}]
    for bad in bad_filters:
        with pytest.raises((BadRequest, Unprocessable)):
            client.search(query, filter=bad)
        with pytest.raises((BadRequest, Unprocessable)):
            client.search(id=id_of(photo), filter=bad)
        with pytest.raises((BadRequest, Unprocessable)):
            client.similar(id_of(photo), filter=bad)
    refused: list[Callable[[], Any]] = [
        lambda: client.search(query, k=0),
        lambda: client.search(query, offset=-1),
        lambda: client.search(query, min_score=2),
        lambda: client.search(vector=[1.0]),
        lambda: client.search(parts=[]),
        lambda: client.search(query, box=(0, 0, 0, 0)),
        lambda: client.search(id="short"),
        lambda: client.get(".."),
        lambda: client.embed([]),
    ]
    for number, call in enumerate(refused):
        with pytest.raises((BadRequest, Unprocessable)) as caught:
            call()
        assert caught.value.code != "unknown", number


def test_duplicates_are_listed_and_decided(client: Client, server: Server) -> None:
    ids = [id_of(photo) for photo in sorted(server.photos.rglob("*.png"))[:2]]
    assert [*client.duplicates()] == []
    with pytest.raises(NotFound) as caught:
        [*client.duplicates("photo")]
    assert caught.value.code == "no-groups"
    with Index.open(server.index) as index:
        client.decide(ids)
        assert [{*held[:2]} for held in index.catalog.decisions()] == [{*ids}]
        client.decide([one.upper() for one in ids], "undecided")
        assert index.catalog.decisions() == []
        with pytest.raises(NotFound):
            client.decide([ids[0], "0" * 64])
        assert index.catalog.decisions() == []


def run_patiently(block: str, names: dict[str, Any]) -> None:
    """Run a block of the page; again where a busy machine takes longer than a request may: it may add a space twice."""
    for patience in range(5, 0, -1):
        with contextlib.suppress(*[DeadlineExceeded] * (patience > 1)):
            exec(block, names)
            return


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync"], indirect=True)  # the page names its clients itself
def test_documentation_runs(server: Server, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Pillow.open(query) as opened:
        opened.convert("RGB").save("query.jpg")
    Path("new.png").write_bytes(picture(2))
    run_cli("map", server.index)
    with Client(server.url, api_key=server.api_key) as client:
        add_patiently(client, 2)
    names: dict[str, Any] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL):
            run_patiently(block.replace("http://localhost:8000", server.url), names)
    finally:
        with Client(server.url, api_key=server.api_key) as client, contextlib.suppress(NotFound):
            client.delete(id_of(Path("new.png")))
