"""Promises of duplicates over HTTP: as the command lists them, of what is there now, and without what was decided."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from albums import Album
from conftest import FakeEncoder, run_cli
from fastapi import FastAPI
from filelock import FileLock
from PIL import Image

from analysis.duplicates import kept
from analysis.duplicates.find import Files
from analysis.duplicates.groups import File, Group, Tier
from analysis.duplicates.kept import keep_groups, kept_groups
from analysis.labels import records
from api.http import problems
from api.http.routes.duplicates import router
from api.http.schemas import DuplicatesAnswer
from api.serving import duplicates
from api.serving.service import Service
from api.settings import Settings
from indexer.pictures.worker import Workers
from search.index import Index

Ask = Callable[..., httpx.Response]
UNKNOWN = "0" * 64
KEPT: tuple[Tier, ...] = ("pixels", "photo")


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """Five pictures, each with a copy, and one of them as BMP and TIFF too."""
    made = Album(tmp_path)
    made.draw(*(f"{number}.png" for number in range(5)))
    for number in range(5):
        shutil.copyfile(made.photos / f"{number}.png", made.photos / f"{number} copy.png")
    for kind in ("bmp", "tif"):
        Image.open(made.photos / "0.png").save(made.photos / f"0.{kind}")
    made.build()
    return made


@pytest.fixture
def service(album: Album, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The album's index, served without decoding anything."""
    monkeypatch.setattr(Workers, "start", lambda *_: None)
    one = Service("test", album.index, FakeEncoder(), Settings())
    yield one
    one.close()


@pytest.fixture
def app(service: Service) -> FastAPI:
    """Serves duplicates only."""
    made = FastAPI()
    made.include_router(router)
    problems.install(made)
    made.state.services = {"test": service}
    return made


@pytest.fixture
def ask(app: FastAPI) -> Ask:
    """Sends a request."""

    async def send(method: str, path: str, **sent: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            return await http.request(method, f"/v1/duplicates{path}", **sent)

    return lambda method, path="", **sent: asyncio.run(send(method, path, **sent))


def names(answer: httpx.Response) -> list[dict[str, bool]]:
    """Of each group, the files and which of them stays."""
    page = DuplicatesAnswer.model_validate_json(answer.content)
    return [{Path(one.paths[0]).name: one.keep for one in group.images} for group in page.groups]


def test_equal_files_are_listed_page_by_page_without_any_command(ask: Ask, album: Album) -> None:
    seen, cursor = [], dict[str, str]()
    for number in range(3):
        answer = ask("GET", params={"limit": 2, **cursor})
        seen += names(answer)
        assert answer.json()["found_at"] is None
        cursor = {"cursor": answer.json()["next_cursor"]}
        assert (cursor["cursor"] is None) is (number == 2)
    assert sorted(sorted(group) for group in seen) == [[f"{n} copy.png", f"{n}.png"] for n in range(5)]
    assert all(sorted(group.values()) == [False, True] for group in seen)
    (album.photos / "3 copy.png").unlink()
    assert len(names(ask("GET"))) == 4, "a file that is gone is nobody's copy"


def test_other_kinds_are_what_the_command_found_last(ask: Ask, album: Album) -> None:
    refused = ask("GET", params={"tier": "pixels"})
    assert (refused.status_code, refused.json()["code"]) == (404, "no-groups")
    assert "lookalike dups INDEX --tier pixels" in refused.json()["detail"]
    run_cli("dups", album.index.path)
    answer = ask("GET", params={"tier": "pixels"})
    assert [sorted(group) for group in names(answer)] == [["0 copy.png", "0.bmp", "0.png", "0.tif"]]
    assert answer.json()["found_at"].endswith("+00:00")
    with album.index.writer() as writer:
        writer.remove([album.hit("0.bmp").id])
    assert [sorted(group) for group in names(ask("GET", params={"tier": "pixels"}))] == [
        ["0 copy.png", "0.png", "0.tif"]
    ]


def test_erased_images_are_in_no_kept_group(ask: Ask, album: Album) -> None:
    there = held(album.index)
    groups = [
        Group(tier=tier, files=tuple(there[name] for name in names))
        for tier in KEPT
        for names in (("0.bmp", "0 copy.png", "0.tif"), ("1 copy.png", "2 copy.png"), ("3 copy.png", "0.tif", "0.bmp"))
    ]
    keep_groups(album.index, KEPT, groups)
    folder = album.index.path / "groups"
    (folder / ".photo.json.0.tmp").write_bytes((folder / "photo.json").read_bytes())
    erased = [there[name].image.id for name in ("0.bmp", "2 copy.png")]
    run_cli("remove", album.index.path, album.photos / "0.bmp")
    run_cli("remove", album.index.path, "--erase", album.photos / "0.bmp", there["2 copy.png"].image.id)
    assert [path.name for path in sorted(folder.iterdir())] == ["photo.json", "pixels.json"]
    assert not any(name in path.read_text() for name in erased for path in folder.iterdir())
    left = kept_groups(album.index, "photo")
    assert left is not None
    assert [len(group) for group in left.groups] == [3, 2, 3], "numbers and places are as they were"
    assert [sorted(group) for group in names(ask("GET", params={"tier": "photo"}))] == [
        ["0.tif", "3 copy.png", "3.png"]
    ], "none without the image that the others were proved against"
    assert len(names(ask("GET", params={"tier": "pixels"}))) == 2


def test_images_erased_while_duplicates_are_looked_for_are_not_kept(album: Album) -> None:
    there = held(album.index)
    found = Group(tier="photo", files=tuple(there[name] for name in ("0 copy.png", "0.bmp")))
    erased = there["0.bmp"].image.id
    run_cli("remove", album.index.path, "--erase", erased)
    keep_groups(album.index, ["photo"], [found])
    assert erased not in (album.index.path / "groups" / "photo.json").read_text()
    with FileLock(album.index.path / "lock"):
        ended = run_cli("dups", album.index.path, "--tier", "pixels")
    assert "not kept for servers: Another process is writing" in ended.stderr
    assert "Same pixels" in ended.stdout
    assert not (album.index.path / "groups" / "pixels.json").exists()


def test_pages_go_on_where_they_were_or_begin_again(ask: Ask, album: Album) -> None:
    there = held(album.index)
    some = [there[name] for name in ("0 copy.png", "1 copy.png", "2 copy.png", "3 copy.png")]
    groups = [Group(tier="photo", files=pair) for pair in combinations(some, 2)]

    def page(**words: Any) -> httpx.Response:
        return ask("GET", params={"tier": "photo", "limit": 2, **words})

    keep_groups(album.index, ["photo"], groups)
    first = page()
    cursor = first.json()["next_cursor"]
    run_cli("remove", album.index.path, "--erase", some[2].image.id)
    second = page(cursor=cursor)
    assert [sorted(group) for group in names(second)] == [["0 copy.png", "0.png", "3 copy.png", "3.png"]]
    third = page(cursor=second.json()["next_cursor"])
    assert [sorted(group) for group in names(third)] == [["1 copy.png", "1.png", "3 copy.png", "3.png"]]
    for words in ({"tier": "bytes"}, {"cursor": ask("GET", params={"limit": 1}).json()["next_cursor"]}):
        refused = page(**{"cursor": cursor, **words})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
        assert "Begin again without a cursor" in refused.json()["detail"]
    keep_groups(album.index, ["photo"], groups[1:])
    assert page(cursor=cursor).status_code == 422


def test_groups_and_pages_have_a_bound(ask: Ask, album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    there = held(album.index)
    files = tuple(there[f"{number} copy.png"] for number in range(5))
    keep_groups(album.index, ["photo"], [Group(tier="photo", files=files)] * 3)
    monkeypatch.setattr(kept, "MAX_FILES", 3)
    monkeypatch.setattr(kept, "PAGE_FILES", 5)
    page = ask("GET", params={"tier": "photo"}).json()
    assert [(len(group["images"]), group["file_count"]) for group in page["groups"]] == [(3, 8), (3, 8)]
    last = ask("GET", params={"tier": "photo", "cursor": page["next_cursor"]}).json()
    assert ([len(group["images"]) for group in last["groups"]], last["next_cursor"]) == ([3], None)
    for number in range(6):
        shutil.copyfile(album.photos / "0.bmp", album.photos / f"more{number}.bmp")
    album.build()
    listed = ask("GET").json()["groups"]
    assert {(len(group["images"]), group["file_count"]) for group in listed} == {(2, 2), (3, 7)}
    keep_groups(album.index, ["photo"], [Group(tier="photo", files=(*files[:2], there["0.bmp"]))])
    (group,) = ask("GET", params={"tier": "photo"}).json()["groups"]
    assert (len(group["images"]), group["file_count"]) == (3, 11), "two files twice, and one with six copies"


def test_a_photo_whose_medoid_is_gone_is_not_listed(ask: Ask, album: Album) -> None:
    there = held(album.index)
    files = tuple(there[name] for name in ("0.bmp", "0 copy.png", "0.tif"))
    keep_groups(album.index, ["photo"], [Group(tier="photo", files=files)])
    assert len(names(ask("GET", params={"tier": "photo"}))) == 1
    (album.photos / "0.bmp").unlink()
    assert names(ask("GET", params={"tier": "photo"})) == []


def test_a_listing_does_not_need_a_place_to_keep_it(album: Album) -> None:
    (album.index.path / "groups").write_text("in the way")
    ended = run_cli("dups", album.index.path)
    assert "groups: 7 extra files" in ended.stdout
    assert "not kept for servers" in ended.stderr


def held(index: Index) -> dict[str, File]:
    """The first file of each image, by its name."""
    files = Files(index, lambda *_: None)
    return {files.of(one)[0].path.name: files.of(one)[0] for one in records(index)}


def test_photos_are_split_by_decisions_that_came_later(ask: Ask, album: Album) -> None:
    there = held(album.index)
    first, *others = (there[name] for name in sorted(there))
    scores = {file.image.id: 0.9 - number / 10 for number, file in enumerate(others)}
    keep_groups(album.index, ["photo"], [Group(tier="photo", files=(first, *others), scores=scores)])
    whole = ask("GET", params={"tier": "photo"}).json()["groups"][0]["images"]
    assert all(one["keep"] for one in whole)
    decided = {"images": [first.image.id, others[0].image.id]}
    assert ask("POST", "/decisions", json=decided).json() == {"pairs": 1}
    (left,) = names(ask("GET", params={"tier": "photo"}))
    assert first.path.name in left
    assert others[0].path.name not in left
    assert others[1].path.name in left
    assert ask("POST", "/decisions", json={**decided, "decision": "undecided"}).json() == {"pairs": 1}
    assert ask("GET", params={"tier": "photo"}).json()["groups"][0]["images"] == whole


def test_wanted_copies_are_listed_no_more(ask: Ask, album: Album) -> None:
    name = album.hit("4.png").id
    assert ask("POST", "/decisions", json={"images": [name, name]}).json() == {"pairs": 1}
    assert ask("POST", "/decisions", json={"images": [name.upper(), name]}).json() == {"pairs": 0}
    assert len(names(ask("GET"))) == 4
    assert [(one.one, one.other) for one in album.index.catalog.decisions()] == [(name, name)]


def test_decisions_that_cannot_be_meant_are_refused(ask: Ask, album: Album) -> None:
    name = album.hit("4.png").id
    for body, status, code in (
        ({"images": [name, UNKNOWN]}, 404, "unknown-image"),
        ({"images": [name]}, 422, "invalid"),
        ({"images": [name, "short"]}, 422, "invalid"),
        ({"images": [name] * 101}, 422, "invalid"),
        ({"images": [name, name], "decision": "keep"}, 422, "invalid"),
        ({"images": [name, name], "surprise": 1}, 422, "invalid"),
    ):
        answer = ask("POST", "/decisions", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    assert ask("GET", params={"tier": "copies"}).status_code == 422
    assert ask("GET", params={"cursor": "x"}).status_code == 422
    assert album.index.catalog.decisions() == []


def test_groups_that_cannot_be_read_count_as_none(ask: Ask, album: Album) -> None:
    keep_groups(album.index, ["photo"], [])
    assert ask("GET", params={"tier": "photo"}).json()["groups"] == []
    for data in (b"", b"{", b'{"format": 2, "found_at": ""}', b'{"format": 1, "found_at": ""}\n[1]', b"\xff"):
        (album.index.path / "groups" / "photo.json").write_bytes(data)
        assert ask("GET", params={"tier": "photo"}).status_code == 404, data


def test_whoever_waits_for_a_slow_disk_is_in_nobodys_way(
    service: Service, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, free, page = threading.Event(), threading.Event(), duplicates.live_page

    def slow(*words: Any) -> Any:
        reached.set()
        assert free.wait(20)
        return page(*words)

    async def both() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            waiting = asyncio.create_task(http.get("/v1/duplicates"))
            assert await asyncio.to_thread(reached.wait, 20)
            try:
                assert await asyncio.wait_for(service.read(lambda index: index.info().images), 5) == 7
            finally:
                free.set()
            return (await waiting).status_code

    monkeypatch.setattr(duplicates, "live_page", slow)
    assert asyncio.run(both()) == 200
