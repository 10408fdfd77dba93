"""Promises of an explanation: patches match where the same thing is, and lie where they are in the picture."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import FakeEncoder, draw_picture, image_id, recipe, run_cli, vectors
from fastapi.testclient import TestClient
from lookalike_client import Client
from numpy.typing import NDArray
from PIL import Image

from api.http import problems
from api.http.access import Keys, read_keys
from api.http.app import create_app
from api.serving import explaining
from api.serving.service import Service
from api.settings import Settings
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.patches import PatchEncoder
from indexer.encoders.recipes import spaces_for
from indexer.errors import NoPatches
from indexer.explain import MATCHES, compare, explain
from indexer.models import PACKAGED, locate
from indexer.pictures.decode import Box, DecodeLimits, decode
from indexer.pictures.grid import Grid, grid_of
from search.index import Index
from search.recipe import Geometry, Preprocessing, Words
from search.types import Encoding, Space
from search.vectors import normalise

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
PATCH = 8


def kind(geometry: Geometry, size: int = 64, resize: int = 64) -> Preprocessing:
    return Preprocessing(geometry=geometry, resize=resize, size=size, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture whose every patch is like no other."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


class PixelPatches(PatchEncoder):
    """A patch's vector is its pixels: a model that sees what is there, and nothing else."""

    def __init__(self, space: Space, models: Path) -> None:
        del models
        self.preprocessing, self.patch, self.layers = space.recipe.preprocessing, PATCH, space.recipe.layers

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        cells = self.preprocessing.size // PATCH
        blocks = pixels.reshape(len(pixels), cells, PATCH, cells, PATCH, 3).swapaxes(2, 3)
        flat = blocks.reshape(len(pixels) * cells**2, -1).astype(np.float32) - 127.5
        return normalise(flat).reshape(len(pixels), cells**2, -1)


def pixel_patches(preprocessing: Preprocessing) -> PatchEncoder:
    made_of = replace(recipe(), preprocessing=preprocessing)
    return PixelPatches(Space(name="layer2", recipe=made_of, encoding=Encoding()), Path())


# ---- grids


@pytest.mark.parametrize("preprocessing", [kind("crop"), kind("crop", resize=80), kind("square"), kind("pad")])
@pytest.mark.parametrize("size", [(200, 100), (90, 180), (64, 64)])
@pytest.mark.parametrize("box", [None, (20.0, 10.0, 40.0, 50.0)])
def test_a_cell_lies_where_its_pixels_were(
    preprocessing: Preprocessing, size: tuple[int, int], box: Box | None
) -> None:
    width, height = size
    left, top, across, down = box or (0, 0, width, height)
    spot = left + across * 0.45, top + down * 0.55
    picture = Image.new("RGB", size, "black")
    picture.paste(
        (255, 255, 255), tuple(round(value) for value in (spot[0] - 2, spot[1] - 2, spot[0] + 3, spot[1] + 3))
    )
    grid = grid_of(size, preprocessing, PATCH, box)
    data = decode(png(picture), (preprocessing,), limits=DecodeLimits(), box=box)
    seen = data.pixels.astype(int).sum(axis=2)
    row, column = (int(axis[0]) // PATCH for axis in np.nonzero(seen == seen.max()))
    from_left, from_top, wide, high = grid.cell(row * grid.columns + column)
    assert from_left - 0.03 <= spot[0] / width <= from_left + wide + 0.03
    assert from_top - 0.03 <= spot[1] / height <= from_top + high + 0.03


def test_margins_of_a_padded_picture_are_not_the_picture() -> None:
    narrow = grid_of((2240, 120), kind("pad"), PATCH)  # between the centres of two rows
    assert narrow.inside.any()
    grid = grid_of((200, 100), kind("pad"), PATCH)
    shown = grid.inside.reshape(8, 8)
    assert shown[2:6].all()
    assert not shown[:2].any()
    assert not shown[6:].any()
    assert grid.cell(0) == (0, 0, 0.125, 0)


# ---- matches


def test_patches_of_a_moved_picture_match_where_they_went() -> None:
    big = noise(96, 96)
    encoder = pixel_patches(kind("square"))
    here, there = (
        decode(png(big.crop((left, top, left + 64, top + 64))), (encoder.preprocessing,), limits=DecodeLimits())
        for left, top in ((16, 8), (0, 0))
    )
    found = explain(encoder, here, there)
    assert len(found.matches) == MATCHES
    for match in found.matches:
        row, column = divmod(match.query_patch, 8)
        assert divmod(match.hit_patch, 8) == (row + 1, column + 2)
        assert match.cosine == pytest.approx(1, abs=1e-5)
        assert match.hit_box[0] - match.query_box[0] == pytest.approx(16 / 64)
    places = [divmod(match.query_patch, 8) for match in found.matches]
    for number, (row, column) in enumerate(places):
        assert all(max(abs(row - r), abs(column - c)) > 1 for r, c in places[:number]), "they are spread"
    assert found.query.mutual.sum() >= 7 * 6
    back = found.hit.nearest[found.query.nearest[found.query.mutual]]
    assert (back == np.flatnonzero(found.query.mutual)).all()


def test_a_plain_background_matches_everywhere_and_so_tells_nothing() -> None:
    encoder = pixel_patches(kind("square"))
    plain = decode(png(Image.new("RGB", (64, 64), "teal")), (encoder.preprocessing,), limits=DecodeLimits())
    found = explain(encoder, plain, plain)
    assert found.matches == ()
    assert (found.query.cosines > 0.999).all()
    assert (found.query.margins < 1e-5).all()


def test_what_padding_added_matches_nothing() -> None:
    encoder = pixel_patches(kind("pad"))
    wide, tall = (
        decode(png(noise(*size)), (encoder.preprocessing,), limits=DecodeLimits()) for size in ((128, 64), (64, 128))
    )
    found = explain(encoder, wide, tall, most=64)
    outside = ~found.query.grid.inside
    assert outside.sum() == 32
    assert (found.query.nearest[outside] == -1).all()
    assert not found.query.mutual[outside].any()
    assert found.hit.grid.inside[found.query.nearest[~outside]].all()


def test_most_bounds_the_list_and_each_side_sees_the_other() -> None:
    patches = normalise(np.random.default_rng(0).normal(size=(16, 24)))
    grid = Grid(rows=4, columns=4, box=(0, 0, 1, 1))
    found = compare(patches, patches[::-1].copy(), grid, grid, most=1)
    assert len(found.matches) == 1
    assert (found.query.nearest == np.arange(16)[::-1]).all()
    assert (found.hit.nearest == np.arange(16)[::-1]).all()


@pytest.mark.slow
def test_the_packaged_model_finds_a_thing_that_was_moved_by_four_patches() -> None:
    request = SpaceRequest(layers=(7,), geometry="square")
    (space,) = spaces_for(locate(PACKAGED.name), [request], Encoding(backend="torch", precision="fp32"))
    encoder = PatchEncoder(space, Path())
    with Image.open(SAMPLE / "insects" / "ladybug-02.png") as opened:
        thing = opened.convert("RGBA").resize((112, 112))
    pictures = []
    for left in (28, 28 + 4 * encoder.patch):
        canvas = Image.new("RGBA", (224, 224), "white")
        canvas.alpha_composite(thing, (left, 56))
        pictures.append(decode(png(canvas.convert("RGB")), (encoder.preprocessing,), limits=DecodeLimits()))
    found = explain(encoder, *pictures)
    assert len(found.matches) >= 3
    moved = [
        (match.hit_box[0] - match.query_box[0], match.hit_box[1] - match.query_box[1]) for match in found.matches[:3]
    ]
    patch = encoder.patch / 224
    for across, down in moved:
        assert across == pytest.approx(4 * patch, abs=1.1 * patch)
        assert down == pytest.approx(0, abs=1.1 * patch)


def test_a_space_without_patches_is_refused_in_a_sentence() -> None:
    (space,) = spaces_for(locate(PACKAGED.name), [SpaceRequest()], Encoding())
    words = Words(encoder="e5", encoder_sha256="a", head_sha256="b", features=4)
    with pytest.raises(NoPatches, match="The space words has no patches") as raised:
        PatchEncoder(replace(space, name="words", recipe=replace(space.recipe, words=words)), Path())
    problem = problems.from_error(raised.value)
    assert (problem.status, problem.code) == (409, "no-patches")


# ---- served


@pytest.fixture
def index(make_index: Callable[..., Index]) -> Index:
    """Images whose files are gone; of two, thumbnails are kept."""
    one = make_index(vectors(5))
    for number in (1, 2):
        keep(one, image_id(number), noise(64, 48, seed=number), 64)
    keep(one, image_id(3), noise(24, 16), 24)  # smaller than the model's input
    return one


def keep(index: Index, named: str, picture: Image.Image, size: int) -> None:
    folder = index.thumbnails / named[:2]
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{named}-{size}.jpg", quality=98, subsampling=0)


@pytest.fixture
def service(index: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(explaining, "PatchEncoder", PixelPatches)
    one = Service("test", index, FakeEncoder(), Settings())
    yield one
    one.close()


@pytest.fixture
def app(service: Service) -> TestClient:
    keys = Keys(read_keys(["writer-key", "read:reader-key"]))
    client = TestClient(create_app({"test": service}, Settings(), keys), base_url="http://localhost")
    client.headers["Authorization"] = "Bearer reader-key"  # to ask changes nothing
    return client


def address(number: int) -> str:
    return f"/v1/images/{image_id(number)}/explain"


def test_a_hit_is_explained_to_a_picture_that_is_sent(app: TestClient) -> None:
    picture = noise(64, 48, seed=1)
    body = {"image": base64.b64encode(png(picture)).decode(), "matches": 3}
    told = app.post(address(1), json=body).json()
    assert set(told) == {"space", "layers", "query", "hit", "matches", "took_ms"}
    assert (told["space"], told["layers"]) == ("layer2", [2])
    assert (told["query"]["source"], told["hit"]["source"]) == ("image", "thumbnail")
    for side in (told["query"], told["hit"]):
        assert (side["grid"]["rows"], side["grid"]["columns"]) == (4, 4)
        assert side["grid"]["box"] == [0.119, 0, 0.7619, 1]  # a crop's middle, of the whole picture
        assert side["nearest"] == list(range(16))
        assert min(side["cosines"]) > 0.9
        assert all(side["mutual"])
        assert len(side["margins"]) == 16
    assert len(told["matches"]) == 3
    assert all(match["query_box"] == match["hit_box"] for match in told["matches"])
    assert set(told["took_ms"]) == {"decode", "encode", "total"}


def test_a_box_of_the_picture_is_told_as_part_of_the_whole(app: TestClient) -> None:
    body = {"image": base64.b64encode(png(noise(64, 48))).decode(), "box": [32, 0, 32, 48]}
    grid = app.post(address(1), json=body).json()["query"]["grid"]
    assert grid["box"] == pytest.approx([0.5, 0.1667, 0.5, 0.6667], abs=1e-3)


def test_a_hit_is_explained_to_another_indexed_image(app: TestClient) -> None:
    told = app.get(address(1), params={"with": image_id(2)}).json()
    assert {told["query"]["source"], told["hit"]["source"]} == {"thumbnail"}
    posted = app.post(address(1), json={"id": image_id(2)}).json()
    assert {**posted, "took_ms": None} == {**told, "took_ms": None}


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("none of both", {}, 422, "invalid"),
    ("both", {"image": "", "id": image_id(1)}, 422, "invalid"),
    ("a box of no picture", {"id": image_id(1), "box": [0, 0, 1, 1]}, 422, "invalid"),
    ("too many matches", {"id": image_id(1), "matches": 65}, 422, "invalid"),
    ("words", {"id": image_id(1), "text": "a"}, 422, "invalid"),
    ("no picture", {"image": base64.b64encode(b"words").decode()}, 415, "unsupported-image"),
    ("a damaged picture", {"image": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()}, 422, "unreadable-image"),
    ("no such image", {"id": "0" * 64}, 404, "unknown-image"),
    ("no such space", {"id": image_id(1), "space": "layer9"}, 404, "unknown-space"),
    ("no file", {"id": image_id(4)}, 404, "file-gone"),
    ("a thumbnail that is too small", {"id": image_id(3)}, 404, "file-gone"),
]


@pytest.mark.parametrize(("body", "status", "code"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_cannot_be_explained_is_refused(app: TestClient, body: dict[str, Any], status: int, code: str) -> None:
    answer = app.post(address(1), json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_more_explanations_than_may_wait_are_refused(app: TestClient, service: Service) -> None:
    with service.explaining._gate.entered(explaining.MAX_WAITING):
        answer = app.get(address(1), params={"with": image_id(2)})
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert app.get(address(1), params={"with": image_id(2)}).status_code == 200


def test_the_client_explains(app: TestClient, index: Index) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        told = app.request(request.method, str(request.url), content=request.read(), headers=dict(request.headers))
        return httpx.Response(told.status_code, headers=dict(told.headers), content=told.content)

    with Client("http://localhost", api_key="reader-key", transport=httpx.MockTransport(answer)) as client:
        sent = client.explain(image_id(1), png(noise(64, 48, seed=1)), box=(0, 0, 64, 48), matches=2)
        known = client.explain(image_id(1), id=image_id(2), space="layer2")
        with pytest.raises(TypeError, match="exactly one of image and id; found none"):
            client.explain(image_id(1))
        with pytest.raises(TypeError, match="`box` belongs to `image`"):
            client.explain(image_id(1), id=image_id(2), box=(0, 0, 1, 1))
    assert len(sent.matches) == 2
    assert sent.query.nearest == tuple(range(16))
    assert sent.hit.grid.rows == 4
    assert known.query.source == "thumbnail"


# ---- the command line


@pytest.mark.slow(measured=True)
def test_the_command_lists_and_draws_matches(built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    photos, index, _ = built
    one, other = photos / "red" / "circle-0.png", photos / "red" / "circle-1.png"
    hit = hashlib.sha256(other.read_bytes()).hexdigest()
    out = tmp_path / "why.png"
    told = json.loads(run_cli("explain", index, one, hit, "--json", "--out", out, "--matches", "4").stdout)
    assert (told["query"]["source"], told["hit"]["source"], told["out"]) == ("image", "file", str(out))
    with Image.open(out) as drawn:
        assert drawn.width > drawn.height > 300
    by_id = run_cli("explain", index, hashlib.sha256(one.read_bytes()).hexdigest(), hit).stdout
    assert len(by_id.splitlines()) >= 1
    assert "QUERY" in run_cli("explain", index, "a cat", hit, check=2).stderr
    assert "box" in run_cli("explain", index, hit, hit, "--box", "0,0,1,1", check=2).stderr
    assert "cannot be read" in run_cli("explain", index, tmp_path / "none.png", hit, check=2).stderr
    assert "--out" in run_cli("explain", index, one, hit, "--out", tmp_path / "no" / "x.png", check=2).stderr


def test_matches_are_drawn_in_equal_colours(tmp_path: Path) -> None:
    from indexer.pictures.matched import COLOURS, Pane, draw_matches
    from indexer.pictures.sheet import Picture

    grid = Grid(rows=2, columns=2, box=(0, 0, 1, 1))
    pane = Pane(
        picture=Picture(data=png(draw_picture("red", "circle", 0)), heading="query", caption="a"),
        grid=grid,
        clearness=(1, 0, 0, 0),
    )
    out = tmp_path / "drawn.png"
    draw_matches(pane, pane, [(grid.cell(0), grid.cell(3)), (grid.cell(1), grid.cell(2))], out)
    with Image.open(out) as drawn:
        colours = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in drawn.convert("RGB").getcolors(1 << 20) or ()}
    assert set(COLOURS[:2]) <= colours
    assert not set(COLOURS[2:]) & colours
