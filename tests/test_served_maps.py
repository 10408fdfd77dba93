"""Promises of served maps: without what was removed, in nobody's way, and not sent twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from conftest import FakeEncoder, image_id, recipe, vectors
from fastapi import FastAPI

from analysis.maps.map import Cluster, Map, Point, keep
from api.http.routes.maps import router
from api.http.schemas import MapAnswer
from api.serving import maps
from api.serving.service import Service
from api.settings import Settings
from indexer.pictures.worker import Workers
from search.index import Index
from search.types import Encoding, Space

Get = Callable[..., httpx.Response]
CLUSTERS = (0, 0, 0, 0, 1, 1, 1, 2, 2, None)
"""The clusters of ten images."""


@pytest.fixture
def service(make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Ten images with a map that was made by hand, served without decoding anything."""
    monkeypatch.setattr(Workers, "start", lambda *_: None)
    index = make_index(vectors(len(CLUSTERS)))
    keep(index, drawn(index.space()))
    one = Service("test", index, FakeEncoder(), Settings())
    yield one
    one.close()


def drawn(space: Space) -> Map:
    """A map of the ten images, in three clusters."""
    return Map(
        space=space.name,
        added_seq=space.added_seq,
        generation=None,
        seed=0,
        labels="label",
        points=tuple(
            Point(id=image_id(number), rowid=number + 1, x=number / 10, y=-0.5, cluster=cluster, isolation=0.25)
            for number, cluster in enumerate(CLUSTERS)
        ),
        clusters=tuple(
            Cluster(
                name=name,
                size=CLUSTERS.count(number),
                x=0.1,
                y=0.2,
                typical=(image_id(CLUSTERS.index(number)), image_id(CLUSTERS.index(number) + 1)),
            )
            for number, name in enumerate(("cats", "dogs", "owls"))
        ),
        outliers=(image_id(9), image_id(0)),
    )


@pytest.fixture
def app(service: Service) -> FastAPI:
    """Serves maps only."""
    made = FastAPI()
    made.include_router(router)
    made.state.services = {"test": service}
    return made


@pytest.fixture
def get(app: FastAPI) -> Get:
    """Asks for a map."""

    async def ask(**headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            return await http.get("/v1/map", headers=headers)

    return lambda **headers: asyncio.run(ask(**headers))


def remove(service: Service, *numbers: int) -> None:
    """Remove images."""
    with service.index.writer() as writer:
        writer.remove([image_id(number) for number in numbers])


def test_empty_clusters_are_dropped_and_others_numbered_anew(
    service: Service, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "PAUSE", 0)
    before = MapAnswer.model_validate_json(get().content)
    assert [(one.name, one.size) for one in before.clusters] == [("cats", 4), ("dogs", 3), ("owls", 2)]
    assert [point.cluster for point in before.points] == [*CLUSTERS]
    remove(service, 0, 1, 2, 7, 8)
    after = MapAnswer.model_validate_json(get().content)
    assert [(one.name, one.size) for one in after.clusters] == [("dogs", 3), ("cats", 1)]
    assert [(point.id, point.cluster) for point in after.points] == [
        (image_id(number), cluster) for number, cluster in ((3, 1), (4, 0), (5, 0), (6, 0), (9, None))
    ]
    assert [one.typical for one in after.clusters] == [[image_id(4), image_id(5)], []]
    assert after.outliers == [image_id(9)]


def test_a_map_that_the_client_has_is_not_sent_again(
    service: Service, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "PAUSE", 0)
    first = get()
    again = get(**{"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    remove(service, 3)
    changed = get(**{"if-none-match": first.headers["etag"]})
    assert (changed.status_code, changed.headers["etag"] == first.headers["etag"]) == (200, False)


def test_whoever_waits_for_a_map_is_in_nobodys_way(
    service: Service, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, free, kept = threading.Event(), threading.Event(), maps.kept

    def slow(index: Index, space: Space) -> Map | None:
        reached.set()
        assert free.wait(20)
        return kept(index, space)

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            waiting = [asyncio.create_task(http.get("/v1/map")) for _ in range(3)]
            assert await asyncio.to_thread(reached.wait, 20)
            try:
                assert await asyncio.wait_for(service.read(lambda index: index.info().images), 5) == len(CLUSTERS)
            finally:
                free.set()
            return [(await one).status_code for one in waiting]

    monkeypatch.setattr(maps, "kept", slow)
    assert asyncio.run(ask()) == [200, 200, 200]


def test_a_busy_catalog_has_maps_looked_through_only_now_and_then(
    service: Service, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "PAUSE", 1_000_000)
    first = get()
    remove(service, 3)
    assert get().content == first.content
    keep(service.index, drawn(service.index.space()))
    assert len(get().json()["points"]) == len(CLUSTERS) - 1, "a new map is shown at once"


def test_maps_of_dropped_spaces_are_forgotten(service: Service, get: Get) -> None:
    with service.index.writer() as writer:
        half = writer.add_space(Space(name="half", recipe=recipe(1), encoding=Encoding()))
    keep(service.index, drawn(half))
    asyncio.run(service.maps.answer("half"))
    with service.index.writer() as writer:
        writer.drop_space("half")
    service.index.sweep_dropped()
    assert [file.name for file in (service.index.path / "maps").iterdir()] == ["layer2.json"]
