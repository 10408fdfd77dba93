"""A server follows its index's spaces, whoever adds, fills, drops them or makes one the default, without a restart."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_kit import add_patiently
from conftest import (
    FakeEncoder,
    Server,
    another_writer,
    draw_picture,
    image_id,
    recipe,
    run_cli,
    start_server,
    stop_server,
    vectors,
)
from lookalike_client import AsyncClient, Client, Conflict, Forbidden, NotFound, SpaceInfo, Unprocessable

from api.serving import service as service_module
from api.serving.embedding import Embedding
from api.serving.service import Service
from api.serving.timing import Timing
from api.settings import Settings
from indexer.errors import ModelUnavailable
from indexer.pictures.preprocess import input_of, inputs_of
from search.errors import IndexLocked, UnknownSpace
from search.index import Index
from search.types import Encoding, Space
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]


@pytest.fixture
def server(tmp_path: Path, built: tuple[Path, Path, Path]) -> Iterator[Server]:
    """A server of its own, over a copy of the tiny ViT's index, with a key that may write and one that may read."""
    photos, index = tmp_path / "photos", tmp_path / "photos.index"
    shutil.copytree(built[0], photos)
    shutil.copytree(built[1], index)
    run_cli("move-root", index, built[0], photos)
    process, url = start_server(index, "--api-key", "write:key read:look")
    yield Server(url=url, photos=photos, queries=built[2], index=index, api_key="key")
    assert stop_server(process) == 0
    with Index.open(index) as opened:
        assert [finding.problem for finding in verify(opened).findings] == []


def by_name(client: Client) -> dict[str, SpaceInfo]:
    return {space.name: space for space in client.spaces()}


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow(measured=True)
def test_a_space_is_added_filled_made_the_default_and_dropped_while_searches_go_on(server: Server) -> None:
    query = server.photos / "red" / "circle-0.png"
    with Client(server.url, api_key=server.api_key) as client:
        (first,) = client.spaces()
        assert (first.default, first.complete, first.filling, first.count) == (True, True, False, first.images)
        before = client.search(query)
        added = add_patiently(client, 1, pooling="mean")
        assert (added.name, added.default, added.images) == ("layer1-mean", False, first.images)
        counts = []
        while not (state := by_name(client)["layer1-mean"]).complete:
            counts.append(state.count)
            assert len(client.search(query, space="layer1-mean", k=1000)) >= state.count
            assert client.search(query) == before
            time.sleep(0.05)
        assert counts == sorted(counts)
        assert client.add_space([1], pooling="mean").complete, "adding it again is harmless"
        found = client.search(query, space="layer1-mean")
        assert found.hits[0].score == pytest.approx(1, abs=1e-5)
        assert found.hits[0].path == str(query)
        assert client.set_default_space("layer1-mean").default
        assert client.search(query).space == "layer1-mean"
        assert client.indexes()[0].spaces == tuple(client.spaces())
        client.drop_space(first.name)
        with pytest.raises(NotFound) as unknown:
            client.search(query, space=first.name)
        assert unknown.value.code == "unknown-space"
        assert [space.name for space in client.spaces()] == ["layer1-mean"]
        assert client.add(draw_picture("black", "circle", 1)).width == 96
        assert by_name(client)["layer1-mean"].complete


@pytest.mark.slow(measured=True)
def test_what_cannot_be_meant_is_refused(server: Server) -> None:
    with Client(server.url, api_key=server.api_key) as client:
        name = client.spaces()[0].name
        with pytest.raises(Unprocessable) as invalid:
            client.add_space(77)
        assert invalid.value.code == "invalid-space"
        with pytest.raises(Conflict) as needed:
            client.drop_space(name)
        assert needed.value.code == "space-needed"
        for call in (
            lambda: client.drop_space("layer77"),
            lambda: client.set_default_space("layer77"),
            lambda: client.spaces("nowhere"),
            lambda: client.add_space(1, index="nowhere"),
        ):
            with pytest.raises(NotFound):
                call()
        with Index.open(server.index, writable=True) as index, index.writer() as writer:
            held = index.space()
            writer.add_space(Space(name="empty", recipe=recipe(weights="b", dim=held.recipe.dim), encoding=Encoding()))
        with pytest.raises(Conflict) as incomplete:
            client.set_default_space("empty")
        assert incomplete.value.code == "space-incomplete"
        one = next(iter(client.images()))
        with pytest.raises(Conflict) as lacking:
            client.similar(one.id, space="empty")
        assert lacking.value.code == "not-in-space"
        client.drop_space("empty")
    with Client(server.url, api_key="look") as reader:
        assert len(reader.spaces()) == 1
        with pytest.raises(Forbidden):
            reader.add_space(1)
        with pytest.raises(Forbidden):
            reader.drop_space(name)
        with pytest.raises(Forbidden):
            reader.set_default_space(name)


@pytest.mark.slow(measured=True)
def test_spaces_that_another_process_adds_are_answered_and_taken_into_uploads(server: Server) -> None:
    query = server.photos / "blue" / "square-1.png"
    with Client(server.url, api_key=server.api_key) as client:
        client.search(query)
        told = json.loads(run_cli("spaces", server.index, "add", "--layer", "1", "--json").stdout)
        count = told["filled"]
        added = client.add(draw_picture("black", "stripes", 3))
        assert by_name(client)["layer1"].count == count + 1
        assert client.search(draw_picture("black", "stripes", 3), space="layer1").hits[0].id == added.id
        run_cli("spaces", server.index, "default", "layer1")
        assert client.search(query).space == "layer1"
        name = told["spaces"][0]["name"]
        run_cli("spaces", server.index, "drop", name)
        with pytest.raises(NotFound):
            client.search(query, space=name)
        assert client.ready()


@pytest.mark.slow(measured=True)
def test_an_asynchronous_client_has_the_same_calls(server: Server) -> None:
    with Client(server.url, api_key=server.api_key) as first:
        add_patiently(first, [0, 1])

    async def ask() -> list[str]:
        async with AsyncClient(server.url, api_key=server.api_key) as client:
            await client.add_space([0, 1])
            while not all(space.complete for space in await client.spaces()):
                await asyncio.sleep(0.05)
            return [space.name for space in await client.spaces()]

    assert asyncio.run(ask())[1] == "layer0+1"


def test_a_change_waits_for_a_batch_of_a_filling_and_is_refused_beside_a_build(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filling holds the lock for a moment at a time, a build to its end: no request can wait for that."""
    monkeypatch.setattr(service_module, "FILLING_LOCK_SECONDS", 60)
    index = make_index(vectors(3))
    service = Service("test", index, FakeEncoder(), Settings())
    id_ = image_id(1)

    async def label(until: asyncio.Event) -> None:
        change = asyncio.create_task(service.change(id_, ["seen"], None))
        done, _ = await asyncio.wait([change], timeout=0.3)
        assert not done, "it waits"
        until.set()
        assert (await change).labels == ("seen",)

    async def run() -> None:
        with another_writer(index.path), pytest.raises(IndexLocked):
            await service.change(id_, ["refused"], None)
        with index.writer() as writer:
            writer.add_space(Space(name="layer1", recipe=recipe(1), encoding=Encoding()))
        released = asyncio.Event()
        with another_writer(index.path):
            change = asyncio.create_task(label(released))
            await released.wait()
        await change

    try:
        asyncio.run(run())
    finally:
        service.close()


@pytest.mark.slow(measured=True)
def test_uploads_are_taken_while_a_space_is_filled(server: Server) -> None:
    for number in range(30):
        draw_picture("purple", "stripes", number, size=900).save(server.photos / f"more-{number}.png")
    run_cli("build", server.photos, "--index", server.index)
    with Client(server.url, api_key=server.api_key) as client:
        add_patiently(client, 1)
        added = [client.add(draw_picture("black", "square", number, size=100 + number)).id for number in range(20)]
        wait_until(lambda: by_name(client)["layer1"].complete, 120)
        space = by_name(client)["layer1"]
        assert space.count == space.images
        found = client.search(draw_picture("black", "square", 3, size=103), space="layer1")
        assert found.hits[0].id == added[3]
        assert found.hits[0].score == pytest.approx(1, abs=1e-5)


class Recorded(FakeEncoder):
    """An encoder of any spaces, whose vectors tell which weights made them."""

    def __init__(self, spaces: Any) -> None:
        super().__init__()
        self.names = tuple(space.name for space in spaces)
        self.recipes = tuple(space.recipe for space in spaces)

    def encode(self, pixels: Any) -> list[Any]:
        return [
            np.tile(vectors(1, seed=ord(one.weights_sha256[0]))[0], (len(pixels), 1)).astype(np.float32)
            for one in self.recipes
        ]


def test_an_encoder_is_loaded_beside_for_a_space_that_has_the_name_of_another_before(make_index: MakeIndex) -> None:
    index, loads = make_index(vectors(3)), []

    def load(spaces: Any) -> FakeEncoder:
        loads.append([space.identity for space in spaces])
        if len(loads) == 2:
            raise ModelUnavailable("not now")
        return Recorded(spaces)

    def add(weights: str) -> Space:
        with index.writer() as writer:
            return writer.add_space(Space(name="layer1", recipe=recipe(1, weights=weights), encoding=Encoding()))

    async def embed() -> None:
        picture = draw_png()
        first = add("a")
        one = await embedding.embed(picture, first, Timing())
        assert one.tobytes() == vectors(1, seed=ord("a"))[0].tobytes()
        with index.writer() as writer:
            writer.drop_space("layer1")
        second = add("b")
        with pytest.raises(UnknownSpace):
            await embedding.embed(draw_png(1), replace(first, name="gone"), Timing())
        for _ in range(3):  # loaded once: what failed a moment ago is not tried for every request
            with pytest.raises(ModelUnavailable):
                await embedding.embed(picture, second, Timing())
        assert len(loads) == 2
        embedding._failed = None
        other = await asyncio.gather(*(embedding.embed(picture, second, Timing()) for _ in range(4)))
        assert len(loads) == 3
        assert {one.tobytes() for one in other} == {vectors(1, seed=ord("b"))[0].tobytes()}
        again = await embedding.embed(picture, index.space("layer2"), Timing())
        assert again.tobytes() == vectors(1, seed=ord("a"))[0].tobytes()

    embedding = Embedding(index, Recorded(index.spaces), load, Settings())
    try:
        asyncio.run(embed())
    finally:
        embedding.close()


def test_models_are_looked_up_beside_requests(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index, threads = make_index(vectors(3)), []

    def looked_up(index: Index) -> list[Space]:
        threads.append(threading.current_thread())
        return index.spaces[:1]

    monkeypatch.setattr("api.serving.embedding.installed_spaces", looked_up)
    embedding = Embedding(index, Recorded(index.spaces), Recorded, Settings())
    with index.writer() as writer:
        writer.add_space(Space(name="layer1", recipe=recipe(1, weights="b"), encoding=Encoding()))
    try:
        asyncio.run(embedding.describe(draw_png()))
    finally:
        embedding.close()
    assert threads
    assert threading.current_thread() not in threads


def draw_png(variant: int = 0) -> bytes:
    out = BytesIO()
    draw_picture("red", "circle", variant).save(out, "PNG")
    return out.getvalue()


class OfPixels(Recorded):
    """An encoder of spaces that may take different pixels; it remembers what it was given."""

    def __init__(self, spaces: Any) -> None:
        super().__init__(spaces)
        self.inputs = inputs_of(self.recipes)
        self.seen: list[tuple[int, ...]] = []

    def encode(self, pixels: Any) -> list[Any]:
        self.seen.append(pixels.shape[1:])
        for one in self.recipes:
            input_of(pixels, self.inputs, one.preprocessing)  # raises where they are others
        return super().encode(pixels)


@pytest.mark.parametrize("added", [False, True], ids=["search", "add"])
def test_an_upload_that_is_decoded_while_the_encoder_is_replaced_gets_the_new_ones_pixels(
    make_index: MakeIndex, added: bool
) -> None:
    index, encoders = make_index(vectors(3)), []

    def load(spaces: Any) -> FakeEncoder:
        encoders.append(OfPixels(spaces))
        return encoders[-1]

    async def embed() -> None:
        apart = embedding._apart

        async def replaced_meanwhile(*arguments: Any, **words: Any) -> Any:
            decoded = await apart(*arguments, **words)
            if len(encoders) == 1:
                padded = replace(recipe(1), preprocessing=replace(recipe().preprocessing, geometry="pad", size=48))
                with index.writer() as writer:
                    writer.add_space(Space(name="layer1", recipe=padded, encoding=Encoding()))
                await embedding._follow()
            return decoded

        embedding._apart = replaced_meanwhile
        space = index.space("layer2")
        if added:
            _, embedded = await embedding.describe(draw_png())
            vector = embedded.vectors["layer2"]
        else:
            vector = await embedding.embed(draw_png(), space, Timing())
        assert vector.tobytes() == vectors(1, seed=ord("a"))[0].tobytes()
        assert len(encoders) == 2
        assert encoders[0].seen[1:] == [], "but for warming up"
        size = recipe().preprocessing.size
        assert encoders[1].seen[-1] == (3 * (size**2 + 48**2),)

    embedding = Embedding(index, load(index.spaces), load, Settings())
    try:
        asyncio.run(embed())
    finally:
        embedding.close()
