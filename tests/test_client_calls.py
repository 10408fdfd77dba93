"""Promises of the Python client: what each call of the client sends, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import httpx
import lookalike_client
import numpy as np
import pytest
from client_kit import ID, IMAGE, OTHER, Recorder, ok, problem
from lookalike_client import (
    Client,
    Hit,
    ImageMap,
    IndexInfo,
    MapCluster,
    MapPoint,
    NotFound,
    Part,
    ProtocolError,
    Reason,
    SpaceInfo,
    Unprocessable,
)
from lookalike_client._many import run_many_async
from PIL import Image as Pillow

pytestmark = pytest.mark.usefixtures("kind")


def test_who_stops_iterating_leaves_no_task_behind() -> None:
    async def asked() -> None:
        began, ended = [], []

        async def call(number: int) -> int:
            began.append(number)
            try:
                await asyncio.sleep(30 if number else 0)
            finally:
                await asyncio.sleep(0)  # as connections do, to be closed
                ended.append(number)
            return number

        outcomes: Any = run_many_async(call, range(10), 3, False)
        async for _ in outcomes:
            break
        await outcomes.aclose()
        assert len(began) > 1
        assert sorted(ended) == sorted(began)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(asked())


def test_search_by_image_is_a_form() -> None:
    api = Recorder(ok())
    result = api.client.search(
        b"pixels",
        k=np.int64(5),  # type: ignore[arg-type]
        offset=2,
        min_score=0.5,
        max_fmr="auto",
        filter={"label": "café"},
        space="s",
        index="i",
        box=(1, 2.5, 30, 4000000),
    )
    assert api.line == ("POST", "/v1/search/image")
    assert api.form == {
        "image": ("image", b"pixels"),
        "k": ["5"],
        "offset": ["2"],
        "min_score": ["0.5"],
        "max_fmr": ["auto"],
        "filter": ['{"label": "café"}'],
        "space": ["s"],
        "index": ["i"],
        "box": ["1,2.5,30,4000000"],
    }
    assert result[0] == Hit(
        id=ID,
        score=0.875,
        path="/photos/2024/zebra.jpg",
        paths=("/photos/2024/zebra.jpg",),
        path_count=1,
        labels=("2024", "cat"),
        metadata={"price": 12.5},
        width=40,
        height=30,
        fmr=0.00012,
        probability=0.94,
        why=(Reason(space="layer11", score=0.875, share=0.875),),
        box=(20, 0, 20, 15),
        match=0.75,
    )


def test_what_is_not_given_is_not_sent() -> None:
    api = Recorder(ok())
    api.client.search(b"pixels")
    assert api.form.keys() == {"image", "k", "offset"}
    api = Recorder(ok())
    api.client.search(id=ID)
    assert api.json == {"parts": [{"id": ID, "weight": 1.0}], "k": 10, "offset": 0}


def test_weighted_parts_are_json() -> None:
    api = Recorder(ok())
    parts = [
        Part(image=b"pixels", weight=2, box=(1, 2, 3, 4)),
        Part(id=ID, weight=-0.5),
        Part(vector=np.array([1, 0], np.float32)),  # type: ignore[arg-type]
    ]
    api.client.search(
        parts=parts, k=3, min_score=-1, max_fmr=np.float32(0.25), filter={"width": {"gte": 9}}, space="s", index="i"
    )
    assert api.line == ("POST", "/v1/search")
    assert api.json == {
        "parts": [
            {"image": base64.b64encode(b"pixels").decode(), "weight": 2.0, "box": [1.0, 2.0, 3.0, 4.0]},
            {"id": ID, "weight": -0.5},
            {"vector": [1.0, 0.0], "weight": 1.0},
        ],
        "k": 3,
        "offset": 0,
        "min_score": -1.0,
        "max_fmr": 0.25,
        "filter": {"width": {"gte": 9}},
        "space": "s",
        "index": "i",
    }


def test_search_by_vector_is_json() -> None:
    api = Recorder(ok())
    api.client.search(vector=[0.6, 0.8])
    assert api.json["parts"] == [{"vector": [0.6, 0.8], "weight": 1.0}]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"image": b"x", "id": ID},
        {"id": ID, "vector": [1.0]},
        {"vector": [1.0], "parts": [Part(id=ID)]},
        {"id": ID, "box": (0, 0, 1, 1)},
        {"parts": [{"id": ID}]},
    ],
)
def test_search_takes_exactly_one_thing(arguments: dict[str, Any]) -> None:
    api = Recorder()
    with pytest.raises(TypeError):
        api.client.search(**arguments)
    assert not api.requests


def test_part_has_exactly_one_thing() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Part()
    with pytest.raises(ValueError, match="exactly one"):
        Part(id=ID, image=b"x")
    with pytest.raises(ValueError, match="box"):
        Part(id=ID, box=(0, 0, 1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Part(id=ID).weight = 2  # type: ignore[misc]


def test_similar_is_a_get() -> None:
    api = Recorder(ok())
    api.client.similar(ID, k=3, offset=1, min_score=0.25, max_fmr="auto", filter={"label": "a&b"}, space="s", index="i")
    assert api.line == ("GET", f"/v1/images/{ID}/similar")
    assert api.query == {
        "k": "3",
        "offset": "1",
        "min_score": "0.25",
        "max_fmr": "auto",
        "filter": '{"label": "a&b"}',
        "space": "s",
        "index": "i",
    }


def test_add_is_a_form() -> None:
    api = Recorder(ok(IMAGE, 201))
    image = api.client.add(b"pixels", labels=["cat", "ümlaut"], metadata={"n": [1]}, index="i", name="zebra.jpg")
    assert api.line == ("POST", "/v1/images")
    assert api.form == {
        "image": ("zebra.jpg", b"pixels"),
        "labels": ["cat", "ümlaut"],
        "metadata": ['{"n": [1]}'],
        "index": ["i"],
    }
    assert image.gps == (48.2, 16.5)
    assert (image.bytes, image.format, image.labels) == (99, "jpeg", ("2024", "cat"))


def test_add_sends_no_file_name_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "private.jpg"
    path.write_bytes(b"pixels")
    api = Recorder(ok(IMAGE, 201))
    api.client.add(path)
    assert api.form == {"image": ("image", b"pixels")}


def test_labels_are_not_one_text() -> None:
    api = Recorder()
    with pytest.raises(TypeError, match="labels"):
        api.client.add(b"pixels", labels="cat")
    with pytest.raises(TypeError, match="labels"):
        api.client.update(ID, labels="cat")


def test_get_reads_an_image() -> None:
    api = Recorder(ok(IMAGE | {"path": None, "paths": [], "gps": None, "camera": None, "taken_at": None}))
    image = api.client.get(ID, index="i")
    assert api.line == ("GET", f"/v1/images/{ID}")
    assert api.query == {"index": "i"}
    assert (image.path, image.paths, image.gps, image.camera, image.taken_at) == (None, (), None, None, None)


def test_update_sends_only_what_changes() -> None:
    api = Recorder(ok(IMAGE))
    api.client.update(ID, metadata={"price": 9, "old": None}, index="i")
    assert api.line == ("PATCH", f"/v1/images/{ID}")
    assert api.json == {"metadata": {"price": 9, "old": None}}
    assert api.query == {"index": "i"}
    api = Recorder(ok(IMAGE))
    api.client.update(ID, labels=[])
    assert api.json == {"labels": []}


def test_delete_says_nothing() -> None:
    api = Recorder(httpx.Response(204))
    assert api.client.delete(ID, index="i") is None  # type: ignore[func-returns-value]
    assert api.line == ("DELETE", f"/v1/images/{ID}")
    assert api.query == {"index": "i"}


def test_images_reads_page_after_page() -> None:
    pages = [
        {"images": [IMAGE, IMAGE | {"id": OTHER}], "next_cursor": "7"},
        {"images": [], "next_cursor": "9"},
        {"images": [IMAGE | {"id": "c" * 64}], "next_cursor": None},
    ]
    api = Recorder(*map(ok, pages))
    iterator = api.client.images(page_size=2, index="i")
    assert next(iterator).id == ID
    assert len(api.requests) == 1, "a page is read when it is needed"
    assert [image.id[0] for image in iterator] == ["b", "c"]
    assert [dict(request.url.params) for request in api.requests] == [
        {"limit": "2", "index": "i"},
        {"cursor": "7", "limit": "2", "index": "i"},
        {"cursor": "9", "limit": "2", "index": "i"},
    ]


def test_embed_keeps_the_order() -> None:
    data = [{"index": 1, "embedding": [0, 1.0]}, {"index": 0, "embedding": [1, 0.0]}]
    api = Recorder(ok({"data": data, "model": "m"}))
    assert api.client.embed([b"one", b"two"], space="s", index="i") == [[1.0, 0.0], [0.0, 1.0]]
    assert api.line == ("POST", "/v1/embed")
    texts = [base64.b64encode(image).decode() for image in (b"one", b"two")]
    assert api.json == {"input": texts, "space": "s", "index": "i"}


@pytest.mark.parametrize("kind", ["bytes", "file", "array", "pillow"])
def test_embed_of_one_image_is_a_list_of_one(kind: str) -> None:
    api = Recorder(ok({"data": [{"index": 0, "embedding": [1.0]}], "model": "m"}))
    array = np.zeros((4, 5, 3), np.uint8)
    images: dict[str, Any] = {
        "bytes": b"one",
        "file": io.BytesIO(b"one"),
        "array": array,
        "pillow": Pillow.fromarray(array),
    }
    assert api.client.embed(images[kind]) == [[1.0]]
    assert len(api.json["input"]) == 1


@pytest.mark.parametrize("numbers", [[0], [0, 0], [0, 2], [0, 1, 2]])
def test_embed_refuses_misnumbered_answers(numbers: list[int]) -> None:
    api = Recorder(ok({"data": [{"index": number, "embedding": [1.0]} for number in numbers], "model": "m"}))
    with pytest.raises(ProtocolError):
        api.client.embed([b"one", b"two"])


FAR: dict[str, Any] = {"count": 2, "images": 3, "complete": False, "filling": True, "default": True}


def test_indexes_are_described() -> None:
    space = {"name": "layer11", "dim": 192, **FAR, "recipe": {"model": "m"}}
    api = Recorder(ok({"indexes": [{"name": "photos", "count": 3, "generation": None, "spaces": [space]}]}))
    assert api.client.indexes() == [
        IndexInfo(
            name="photos",
            count=3,
            generation=None,
            spaces=(SpaceInfo(name="layer11", dim=192, **FAR, recipe={"model": "m"}),),
        )
    ]
    assert api.line == ("GET", "/v1/indexes")


def test_spaces_are_listed_added_made_the_default_and_dropped() -> None:
    space = {"name": "layer7+11-mean", "dim": 192, **FAR, "recipe": {"model": "m"}}
    read = SpaceInfo(name="layer7+11-mean", dim=192, **FAR, recipe={"model": "m"})
    api = Recorder(ok({"spaces": [space]}))
    assert api.client.spaces("my photos") == [read]
    assert api.raw == ("GET", "/v1/indexes/my%20photos/spaces")
    api = Recorder(ok(space))
    assert api.client.add_space((7, 11), pooling="mean", index="photos") == read
    assert (api.raw, api.json) == (("POST", "/v1/indexes/photos/spaces"), {"layers": [7, 11], "pooling": "mean"})
    api = Recorder(ok(space))
    assert api.client.set_default_space(read.name, index="photos") == read
    assert api.raw == ("PATCH", "/v1/indexes/photos/spaces/layer7%2B11-mean")
    assert api.json == {"default": True, "force": False}
    api = Recorder(httpx.Response(204))
    api.client.drop_space(read.name, index="photos")
    assert api.raw == ("DELETE", "/v1/indexes/photos/spaces/layer7%2B11-mean")


def test_spaces_of_no_named_index_are_those_of_the_first() -> None:
    served = {"indexes": [{"name": "photos", "count": 3, "generation": None, "spaces": []}]}
    api = Recorder(ok(served), ok({"spaces": []}))
    assert api.client.spaces() == []
    assert [one.url.path for one in api.requests] == ["/v1/indexes", "/v1/indexes/photos/spaces"]


def test_a_map_is_points_and_clusters() -> None:
    cluster = {"name": "cats", "size": 2, "x": 0.5, "y": -1, "typical": ["a"]}
    points = [{"id": "a", "x": 0.5, "y": -1, "cluster": 0, "isolation": 0.1}]
    points.append({"id": "b", "x": 1, "y": 0, "cluster": None, "isolation": 0.9})
    facts = {"space": "layer11", "generation": None, "seed": 0, "labels": "folder"}
    api = Recorder(ok({**facts, "clusters": [cluster], "outliers": ["b"], "points": points}))
    assert api.client.map(space="layer11", index="photos") == ImageMap(
        **facts,
        clusters=(MapCluster(name="cats", size=2, x=0.5, y=-1.0, typical=("a",)),),
        outliers=("b",),
        points=(
            MapPoint(id="a", x=0.5, y=-1.0, cluster=0, isolation=0.1),
            MapPoint(id="b", x=1.0, y=0.0, cluster=None, isolation=0.9),
        ),
    )
    assert api.line == ("GET", "/v1/map")
    assert dict(api.requests[0].url.params) == {"space": "layer11", "index": "photos"}


def test_pictures_are_bytes() -> None:
    jpeg = httpx.Response(200, content=b"\xff\xd8", headers={"content-type": "image/jpeg"})
    api = Recorder(jpeg)
    assert api.client.thumbnail(ID, size=64, index="i") == b"\xff\xd8"
    assert (api.line, api.query) == (("GET", f"/v1/images/{ID}/thumbnail"), {"size": "64", "index": "i"})
    api = Recorder(jpeg)
    assert api.client.file(ID, index="i") == b"\xff\xd8"
    assert (api.line, api.query) == (("GET", f"/v1/images/{ID}/file"), {"index": "i"})


def test_ready_is_yes_or_no() -> None:
    assert Recorder(ok({"status": "ready"})).client.ready() is True
    for answer in (problem(503), httpx.Response(502), httpx.ConnectError("refused"), httpx.ReadTimeout("slow")):
        api = Recorder(answer)
        assert api.client.ready() is False
        assert api.slept == [], "whoever asks whether it is ready does not want to wait until it is"
    with pytest.raises(NotFound):
        Recorder(httpx.Response(404)).client.ready()
    with pytest.raises(ProtocolError):
        Recorder(httpx.Response(200, html="<p>Another program")).client.ready()


def test_id_cannot_leave_its_place_in_the_path() -> None:
    for wild in ("..", "../indexes", "a/b?c#d"):
        api = Recorder(problem(422))
        with pytest.raises(Unprocessable):
            api.client.get(wild)
        assert api.request.url.raw_path.startswith(b"/v1/images/")
        assert api.request.url.raw_path.count(b"/") == 3
        assert b".." not in api.request.url.raw_path
    with pytest.raises(ValueError, match="empty"):
        Recorder().client.delete("")


def test_key_and_path_prefix_are_sent() -> None:
    api = Recorder(ok(IMAGE), base_url="http://host:9/under/", api_key="s3cret")
    api.client.get(ID)
    assert api.request.url == f"http://host:9/under/v1/images/{ID}"
    assert api.request.headers["authorization"] == "Bearer s3cret"
    assert api.request.headers["user-agent"] == f"lookalike-client/{lookalike_client.__version__}"


def test_key_comes_from_the_caller_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_API_KEY", "s3cret")
    api = Recorder(ok(IMAGE))
    api.client.get(ID)
    assert "authorization" not in api.request.headers


def test_settings_that_cannot_be_meant_are_refused_and_keys_not_shown() -> None:
    for url in ("localhost:8000", "", "ftp://host", "http://", "http://h:port", "http://h:99999"):
        with pytest.raises(ValueError, match="base_url"):
            Client(url)
    for key in ("", "s3cret\n", "s3crét", "s3cret key"):
        with pytest.raises(ValueError, match="api_key") as caught:
            Client(api_key=key)
        assert "s3cr" not in str(caught.value)
    with pytest.raises(ValueError, match="retries"):
        Client(retries=-1)
    client = Client("http://user:passw0rd@host/", api_key="s3cret")
    assert "s3cret" not in repr(client)
    assert "passw0rd" not in repr(client)


def test_duplicates_are_read_page_after_page() -> None:
    file = {"id": ID, "paths": ["/a.png"], "score": 1, "keep": True, "why": "older"}
    pages = [
        {"groups": [{"tier": "photo", "images": [file, file | {"keep": False, "why": None}], "file_count": 3}]},
        {"groups": [], "next_cursor": None},
    ]
    found_at = "2026-11-30T08:05:42.123+00:00"
    api = Recorder(*(ok({"next_cursor": "50", "found_at": found_at, **page}) for page in pages))
    (group,) = api.client.duplicates("photo", page_size=2, index="i")
    assert (group.tier, group.file_count, group.found_at) == ("photo", 3, found_at)
    assert [(one.paths, one.keep, one.why) for one in group.images] == [
        (("/a.png",), True, "older"),
        (("/a.png",), False, None),
    ]
    assert [dict(request.url.params) for request in api.requests] == [
        {"tier": "photo", "limit": "2", "index": "i"},
        {"tier": "photo", "cursor": "50", "limit": "2", "index": "i"},
    ]


def test_a_decision_names_ids() -> None:
    api = Recorder(ok({"pairs": 1}))
    api.client.decide([ID, OTHER], index="i")
    assert api.line == ("POST", "/v1/duplicates/decisions")
    assert api.query == {"index": "i"}
    assert api.json == {"images": [ID, OTHER], "decision": "not-duplicates"}
