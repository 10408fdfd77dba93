"""Promises of reranking: the picture that a part was cut from comes first, with the place that it was cut from."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import run_cli, start_server, stop_server
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_client import Client
from numpy.typing import NDArray
from PIL import Image
from test_regions_asked import pages

from indexer.rerank import LEAST_CELLS, Places, find
from search.vectors import normalise

NUMBERS = 16


def seen(seed: int, side: int = 28) -> NDArray[np.float32]:
    """A map in which neighbours are alike, and places far apart are not."""
    coarse = np.random.default_rng(seed).standard_normal((side // 2, side // 2, NUMBERS))
    return normalise(
        np.kron(coarse, np.ones((2, 2, 1))) + 0.3 * np.random.default_rng(0).standard_normal((side, side, 1))
    )


def shrunk(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of 14 x 14 of a part: the nearest places."""
    rows, columns = (np.arange(14) * count // 14 for count in places.shape[:2])
    return np.ascontiguousarray(places[rows][:, columns])


@pytest.mark.parametrize(
    ("y", "x", "height", "width"), [(7, 14, 14, 14), (5, 3, 10, 20), (2, 9, 20, 10), (0, 0, 9, 9), (6, 0, 22, 22)]
)
def test_a_part_is_found_where_it_was(y: int, x: int, height: int, width: int) -> None:
    whole = seen(1)
    part = Places(seen(2), shrunk(whole[y : y + height, x : x + width]), ratio=1.5 * width / height)
    there, elsewhere = (find(part, Places(seen(seed), seen(3, 14), ratio=1.5)) for seed in (1, 4))
    left, top, across, down = (28 * share for share in there.box)
    assert abs(left - x) <= 2
    assert abs(top - y) <= 2
    assert abs(across - width) <= 4
    assert abs(down - height) <= 4
    assert there.match > elsewhere.match + 0.2


def test_a_whole_picture_is_found_in_itself() -> None:
    whole = seen(5)
    found = find(Places(seen(2), shrunk(whole), ratio=0.7), Places(whole, seen(3, 14), ratio=0.7))
    assert found.box == (0, 0, 1, 1)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4), st.integers(0, 5))
def test_whatever_the_proportions_the_place_is_inside(ratio: float, other: float, seed: int) -> None:
    found = find(Places(seen(6), seen(seed, 14), ratio), Places(seen(7), seen(8, 14), other))
    x, y, width, height = found.box
    assert -1 < found.match <= 1 + 1e-6
    assert min(x, y) >= 0
    assert min(width, height) >= LEAST_CELLS / 28
    assert max(x + width, y + height) <= 1 + 1e-9


# ---- from the command line, and of a server


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Six pages of four drawings each in an index with a space of regions."""
    folder = tmp_path_factory.mktemp("rerank")
    (folder / "pages").mkdir()
    for number, page in enumerate(pages()):
        page.save(folder / "pages" / f"{number}.png")
    arguments = ("build", folder / "pages", "--index", folder / "i", "--model", checkpoint, "--backend", "torch")
    run_cli(*arguments, "--regions")
    return folder / "i"


PART = (60, 90, 200, 130)
"""Of no window: parts of all four drawings of a page."""


@pytest.fixture(scope="module")
def part(album: Path) -> Path:
    path = album.parent / "part.png"
    with Image.open(album.parent / "pages" / "4.png") as page:
        page.crop((PART[0], PART[1], PART[0] + PART[2], PART[1] + PART[3])).save(path)
    return path


def is_there(box: list[int]) -> bool:
    """Whether both boxes cover each other by half at least."""
    sides = [max(0, min(box[n] + box[n + 2], PART[n] + PART[n + 2]) - max(box[n], PART[n])) for n in (0, 1)]
    both = sides[0] * sides[1]
    return both / (box[2] * box[3] + PART[2] * PART[3] - both) > 0.5


def test_the_picture_comes_first_with_the_place(album: Path, part: Path) -> None:
    asked = ("search", part, "--index", album, "--space", "regions", "--json")
    plain, hits = (json.loads(run_cli(*asked, *more).stdout)["hits"] for more in ((), ("--rerank",)))
    assert {hit["id"]: hit["score"] for hit in plain} == {hit["id"]: hit["score"] for hit in hits}
    assert all(hit["match"] is None for hit in plain)
    assert Path(hits[0]["path"]).stem == "4"
    assert is_there(hits[0]["box"]), hits[0]["box"]
    matches = [hit["match"] for hit in hits]
    assert matches == sorted(matches, reverse=True)
    assert matches[0] > matches[1] + 0.1
    assert f"(match {matches[0]:.2f})" in run_cli(*asked[:-1], "--rerank").stdout
    whole = ("search", album.parent / "pages" / "4.png", "--box", ",".join(map(str, PART)), *asked[2:])
    boxed = json.loads(run_cli(*whole, "--rerank").stdout)["hits"]
    assert [hit["id"] for hit in boxed] == [hit["id"] for hit in hits]
    assert is_there(boxed[0]["box"])


def test_an_indexed_picture_asks_too_and_a_gone_one_comes_last(album: Path, part: Path) -> None:
    page = album.parent / "pages" / "4.png"
    asked = ("search", part, "--index", album, "--space", "regions", "--json", "--rerank")
    one = json.loads(run_cli(*asked).stdout)["hits"][0]["id"]
    by_id = ("search", "--id", one, *asked[2:])
    hits = json.loads(run_cli(*by_id).stdout)["hits"]
    assert len(hits) == 5
    assert all(hit["match"] is not None for hit in hits)
    data = page.read_bytes()
    try:
        page.write_bytes(b"not what it was")
        last = json.loads(run_cli(*asked).stdout)["hits"][-1]
        assert (last["id"], last["match"]) == (one, None)
        assert "has changed" in run_cli(*by_id, check=2, COLUMNS="400").stderr
    finally:
        page.write_bytes(data)


def test_what_cannot_be_reranked_is_refused(album: Path, part: Path) -> None:
    index = ("--index", album, "--rerank")
    for asked in (("search", part), ("search", part, "--turns", "--space", "regions")):
        assert "`rerank` takes one image, or one id" in run_cli(*asked, *index, check=2, COLUMNS="400").stderr
    mixed = run_cli("search", f"{part} + 2:{part}", *index, "--space", "regions", check=2, COLUMNS="400")
    assert "--rerank" in mixed.stderr
    assert "--rerank" in run_cli("search", "a red bicycle", *index, check=2, COLUMNS="400").stderr


@pytest.mark.slow
def test_a_server_reranks_alike(album: Path, part: Path) -> None:
    asked = ("search", part, "--space", "regions", "--json", "--rerank")
    local = json.loads(run_cli(*asked, "--index", album).stdout)["hits"]
    process, url = start_server(album, "--api-key", "write:key")
    try:
        remote = json.loads(run_cli(*asked, "--server", url, "--api-key", "key").stdout)["hits"]
        for one, other in zip(local, remote, strict=True):
            assert (one["id"], one["box"]) == (other["id"], other["box"])
            assert one["match"] == pytest.approx(other["match"], abs=1e-3)
        with Client(url, api_key="key") as client:
            hits = client.search(part, space="regions", rerank=True)
            assert [hit.match for hit in hits] == pytest.approx([hit["match"] for hit in remote], abs=1e-6)
            pages_of = [client.search(part, space="regions", rerank=True, k=2, offset=n) for n in (0, 2, 4)]
            assert [hit.id for page in pages_of for hit in page] == [hit.id for hit in hits]
            (many,) = client.search_many([part], space="regions", rerank=True)
            assert [hit.id for hit in many.result()] == [hit.id for hit in hits]
            assert client.search(id=hits[0].id, space="regions", rerank=True)[0].match is not None
        headers = {"Authorization": "Bearer key"}
        image = base64.b64encode(part.read_bytes()).decode()
        parts = [{"image": image}]
        for body in (
            {"parts": parts},
            {"parts": parts, "space": "regions", "turns": True},
            {"parts": [*parts, *parts], "space": "regions"},
            {"parts": [{"vector": [1.0] * 432}], "space": "regions"},
            {"parts": [{"text": "a bird"}], "space": "regions"},
            {"prompt": "p.png + 2:p.png", "images": {"p.png": image}, "space": "regions"},
            {"aspects": [{"parts": parts, "space": "regions"}]},
        ):
            answer = httpx.post(f"{url}/v1/search", json=body | {"rerank": True}, headers=headers)
            assert answer.status_code == 422, answer.text
            assert answer.json()["code"] == "invalid", answer.text
        question = {"parts": [{"id": hits[0].id}], "space": "regions", "rerank": True}
        board = httpx.post(f"{url}/v1/boards", json={"name": "b"}, headers=headers).json()["id"]
        items = f"{url}/v1/boards/{board}/items"
        kept = httpx.post(items, json={"name": "q", "question": question}, headers=headers)
        assert kept.status_code == 422, kept.text
        assert "without `rerank`" in kept.json()["detail"]
    finally:
        assert stop_server(process) == 0
