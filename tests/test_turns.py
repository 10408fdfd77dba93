"""Turned and mirrored copies: a question with `turns` asks with its pictures in all eight orientations."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Server, image_id, run_cli, start_server, stop_server, vectors
from lookalike_client import Client, Unprocessable
from PIL import Image

from indexer.pictures.preprocess import orientations, to_input
from search.errors import QueryInvalid
from search.index import Index
from search.recipe import Preprocessing
from search.types import Query, QueryPart
from search.vectors import normalise

TURNS = [None, *Image.Transpose]
"""As it is, and the seven others."""


def turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def noise(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture without any symmetry: smooth coloured noise."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("geometry", ["crop", "square", "pad"])
def test_turning_the_input_is_turning_the_picture(geometry: str) -> None:
    preprocessing = Preprocessing(
        geometry=geometry, resize=36, size=36 if geometry == "pad" else 32, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    picture = noise(1)
    views = orientations(to_input(picture, preprocessing), (preprocessing,))
    wanted = [to_input(turned(picture, turn), preprocessing) for turn in TURNS]
    for view in views:
        assert min(np.abs(view.astype(int) - one.astype(int)).max() for one in wanted) <= 2
    assert len({view.tobytes() for view in views}) == 8
    assert np.array_equal(views[0], to_input(picture, preprocessing))


def test_the_best_view_of_each_image_counts(make_index: Callable[..., Index]) -> None:
    data = vectors(300)
    index = make_index(data)
    views = vectors(8, seed=5)
    scores = (data @ views.T).max(axis=1)
    best = np.argsort(-scores)
    hits = index.search(Query(parts=[QueryPart(vector=views)], k=40, offset=3))
    assert [hit.id for hit in hits] == [image_id(number) for number in best[3:43]]
    assert [hit.score for hit in hits] == pytest.approx(scores[best[3:43]], abs=1e-6)
    everything = index.search(Query(parts=[QueryPart(vector=views)], k=1_000))
    assert [hit.id for hit in everything] == [image_id(number) for number in best]


def test_views_of_an_index_without_images_find_nothing(make_index: Callable[..., Index]) -> None:
    assert make_index(vectors(0)).search(Query(parts=[QueryPart(vector=vectors(8))])) == []


def test_a_part_of_one_view_belongs_to_every_view(make_index: Callable[..., Index]) -> None:
    data = vectors(100)
    index = make_index(data, publish=False)
    views, other = vectors(8, seed=5), vectors(1, seed=6)[0]
    parts = [QueryPart(vector=other, weight=-0.5), QueryPart(vector=views), QueryPart(id=image_id(7), weight=2)]
    scores = (data @ normalise(views - 0.5 * other + 2 * data[7]).T).max(axis=1)
    best = [number for number in np.argsort(-scores) if number != 7]
    assert [hit.id for hit in index.search(Query(parts=parts, k=100))] == [image_id(number) for number in best]
    with pytest.raises(QueryInvalid, match="views"):
        index.search(Query(parts=[QueryPart(vector=views), QueryPart(vector=views[:3])]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    """A server over twelve pictures without symmetry."""
    base = tmp_path_factory.mktemp("turns")
    (base / "photos").mkdir()
    for number in range(12):
        noise(number).save(base / "photos" / f"{number}.png")
    run_cli("build", base / "photos", "--index", base / "turns.index", "--model", checkpoint)
    process, url = start_server(base / "turns.index")
    yield Server(url=url, photos=base / "photos", queries=base, index=base / "turns.index")
    assert stop_server(process) == 0


@pytest.mark.slow
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_turned_or_mirrored_copy_finds_its_original(served: Server, turn: Image.Transpose | None) -> None:
    copy = png(turned(noise(5), turn))
    answer = httpx.post(f"{served.url}/v1/search/image", files={"image": ("q", copy)}, data={"turns": "true", "k": 3})
    first, second, _ = answer.json()["hits"]
    assert Path(first["path"]).name == "5.png"
    assert first["score"] > 0.999 > second["score"]
    part = {"image": base64.b64encode(copy).decode()}
    for body in ({"parts": [part], "turns": True, "k": 3}, {"parts": [part, {**part, "weight": 0.5}], "turns": True}):
        hits = httpx.post(f"{served.url}/v1/search", json=body).json()["hits"]
        assert hits[0]["score"] == pytest.approx(first["score"], abs=1e-5)
    batch = {"queries": [{"parts": [part], "turns": True}, {"parts": [part]}]}
    both = httpx.post(f"{served.url}/v1/search/batch", json=batch).json()["answers"]
    assert both[0]["answer"]["hits"][0]["id"] == first["id"]
    if turn is not None:
        assert both[1]["answer"]["hits"][0]["score"] < 0.999


def test_a_box_is_turned_with_its_picture(served: Server) -> None:
    sheet = Image.new("RGB", (300, 200), "white")
    sheet.paste(turned(noise(8), Image.Transpose.ROTATE_90), (100, 50))
    asked = {"turns": "true", "box": "100,50,64,96", "k": 1}
    answer = httpx.post(f"{served.url}/v1/search/image", files={"image": ("q", png(sheet))}, data=asked).json()
    assert Path(answer["hits"][0]["path"]).name == "8.png"
    assert answer["hits"][0]["score"] > 0.999


def test_client_command_line_and_server_turn_alike(served: Server, tmp_path: Path) -> None:
    query = tmp_path / "mirrored.png"
    turned(noise(3), Image.Transpose.FLIP_LEFT_RIGHT).save(query)
    with Client(served.url) as client:
        hits = client.search(query, turns=True, k=12)
        (many,) = client.search_many([query], turns=True, k=12)
        with pytest.raises(Unprocessable, match="turns"):
            client.search(id=hits[0].id, turns=True)
    assert many.result() == hits
    assert hits[0].score > 0.999
    local = json.loads(run_cli("search", query, "--turns", "--json", "-k", 12, "--index", served.index).stdout)
    remote = json.loads(run_cli("search", query, "--turns", "--json", "-k", 12, "--server", served.url).stdout)
    for answer in (local, remote):
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in hits]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert "--turns" in run_cli("search", "--turns", "--id", hits[0].id, "--index", served.index, check=2).stderr


def test_only_a_picture_can_be_turned(served: Server) -> None:
    known = httpx.get(f"{served.url}/v1/images?limit=1").json()["images"][0]["id"]
    similar = httpx.get(f"{served.url}/v1/images/{known}/similar?turns=true")
    by_id = httpx.post(f"{served.url}/v1/search", json={"parts": [{"id": known}], "turns": True})
    for refused in (similar, by_id):
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
        assert "`turns`" in refused.json()["detail"]
    assert httpx.get(f"{served.url}/v1/images/{known}/similar?turns=false").status_code == 200
    assert httpx.post(f"{served.url}/v1/search", json={"parts": [{"id": known}], "turns": 1}).status_code == 422
