"""Promises of the space of regions: a part of a picture finds the picture, and says where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from client_kit import add_patiently
from conftest import run_cli, start_server, stop_server
from lookalike_client import Client, Conflict
from numpy.typing import NDArray
from PIL import Image

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for, passes
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.models import COMPANION, PACKAGED, locate
from indexer.pictures.preprocess import to_input
from search.index import Index
from search.recipe import Recipe
from search.types import Encoding, Query, QueryPart, Space

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
SIDE = 160


def regions(backend: str = "torch") -> Space:
    (space,) = spaces_for(
        locate(PACKAGED.name), [SpaceRequest(regions=True)], Encoding(backend=backend, precision="fp32")
    )
    return space


def drawings() -> list[Image.Image]:
    """Twenty-four drawings on white."""
    found = []
    for path in sorted(SAMPLE.rglob("*.png"))[::4][:24]:
        with Image.open(path) as picture:
            flat = Image.new("RGB", picture.size, "white")
            flat.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
        found.append(flat.resize((SIDE, SIDE)))
    return found


def pages() -> list[Image.Image]:
    """Six pages of four drawings each."""
    found, shown = [], drawings()
    for number in range(6):
        page = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
        for place in range(4):
            page.paste(shown[4 * number + place], (place % 2 * SIDE, place // 2 * SIDE))
        found.append(page)
    return found


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The pages in an index of a tiny model, with a space of regions from its first build."""
    folder = tmp_path_factory.mktemp("regions")
    (folder / "pages").mkdir()
    for number, page in enumerate(pages()):
        page.save(folder / "pages" / f"{number}.png")
    arguments = ("build", folder / "pages", "--index", folder / "i", "--model", checkpoint, "--backend", "torch")
    report = json.loads(run_cli(*arguments, "--regions", "--json").stdout)
    assert [(space["name"], space["count"]) for space in report["spaces"]] == [("layer3", 6), ("regions", 6)]
    return folder / "i"


def test_a_part_finds_its_page_and_its_place(album: Path, tmp_path: Path) -> None:
    found = []
    for number in (0, 9, 14, 19):
        drawings()[number].save(tmp_path / "part.png")
        asked = ("search", tmp_path / "part.png", "--index", album, "--space", "regions", "-k", "1")
        (hit,) = json.loads(run_cli(*asked, "--json").stdout)["hits"]
        x, y, width, height = hit["box"]
        there = [SIDE * (number % 4 % 2), SIDE * (number % 4 // 2)]
        found.append((Path(hit["path"]).stem, [x, y], width, height) == (str(number // 4), there, SIDE, SIDE))
    assert sum(found) >= 3, found
    told = run_cli(*asked).stdout
    assert f" at {x},{y},{width},{height}" in told


def test_a_box_of_a_hit_can_be_asked_for(album: Path) -> None:
    page, name = album.parent / "pages" / "2.png", "regions"
    asked = ("search", page, "--box", f"{SIDE},0,{SIDE},{SIDE}", "--index", album, "--space", name, "--json")
    assert json.loads(run_cli(*asked).stdout)["hits"][0]["box"] == [SIDE, 0, SIDE, SIDE]


def test_other_spaces_have_no_boxes_and_an_indexed_page_asks_as_a_whole(album: Path) -> None:
    with Index.open(album) as index:
        name = index.catalog.page(0, 1)[0][0].id
    for space, boxed in (("layer3", False), ("regions", True)):
        hits = json.loads(run_cli("search", "--id", name, "--index", album, "--space", space, "--json").stdout)["hits"]
        assert len(hits) == 5
        assert all((hit["box"] is not None) is boxed for hit in hits)


def test_it_is_there_once_and_dropped_and_added_again(album: Path, tmp_path: Path) -> None:
    assert "0 images embedded" in run_cli("spaces", album, "add", "--regions").stdout
    run_cli("spaces", album, "drop", "regions")
    ended = run_cli("build", album.parent / "pages", "--index", album, "--regions", check=2, COLUMNS="400")
    assert f"has no space of regions. Add it: lookalike spaces {album} add --regions" in ended.stderr
    assert "6 images embedded" in run_cli("spaces", album, "add", "--regions").stdout
    pages()[0].rotate(90).save(tmp_path / "new.png")
    report = json.loads(run_cli("build", tmp_path / "new.png", "--index", album, "--json").stdout)
    assert {space["count"] for space in report["spaces"]} == {7}
    run_cli("remove", album, tmp_path / "new.png")
    assert "everything is as it was stored" in run_cli("verify", album).stdout


def test_commands_that_compare_whole_images_say_so(album: Path) -> None:
    for command in (("eval", album, "--labels", "none"), ("map", album)):
        ended = run_cli(*command, "--space", "regions", check=2, COLUMNS="400")
        assert "In regions it has several, of its parts" in ended.stderr, ended.stderr
    ended = run_cli("spaces", album, "default", "regions", check=2, COLUMNS="400")
    assert "In regions it has several, of its parts" in ended.stderr


def test_flags_that_do_not_go_with_it_are_refused(album: Path) -> None:
    for flags in (("--layer", "1"), ("--words",), ("--style",), ("--transform", "whiten"), ("--recommended",)):
        run_cli("spaces", album, "add", "--regions", *flags, check=2)
    run_cli("spaces", album, "--regions", check=2)


def test_vectors_are_means_of_two_blocks_in_windows() -> None:
    import torch

    from indexer.encoders.efficientnet import WINDOWS_BLOCKS, EfficientNet
    from indexer.encoders.families import WINDOWS, open_checkpoint
    from indexer.encoders.taps import all_taps
    from indexer.encoders.tower import open_tower

    recipe = regions().recipe
    network = open_tower(open_checkpoint(locate(COMPANION.name)), all_taps([recipe]), recipe.preprocessing)
    assert isinstance(network, EfficientNet)
    seen: list[NDArray[np.float32]] = []
    for number in WINDOWS_BLOCKS:
        network.blocks[number - 1].register_forward_hook(lambda *arguments: seen.append(arguments[2].numpy()))
    pixels = to_input(pages()[0], recipe.preprocessing)[None]
    found = encoder_for([regions()], Path()).encode(pixels)[0][0]
    with torch.inference_mode():
        network(torch.from_numpy(pixels.copy()))
    assert [one.shape[2] for one in seen] == [14, 7, 28, 14]
    for number in range(recipe.count):
        parts = []
        for small, large in zip(seen[:2], seen[2:], strict=True):
            cells = WINDOWS.windows[number - 1]
            x, y, width, height = (side * large.shape[2] // WINDOWS.cells for side in cells)
            part = small[0] if number == 0 else large[0, :, y : y + height, x : x + width]
            parts.append(part.mean(axis=(1, 2)) / np.linalg.norm(part.mean(axis=(1, 2))))
        expected = np.concatenate(parts)
        np.testing.assert_allclose(found[number], expected / np.linalg.norm(expected), atol=1e-5)


def test_openvino_embeds_alike() -> None:
    pixels = np.stack([to_input(page, regions().recipe.preprocessing) for page in pages()[:2]])
    one, other = (encoder_for([regions(name)], Path()).encode(pixels)[0] for name in ("torch", "openvino"))
    assert one.shape == other.shape == (2, 12, 432)
    assert (one * other).sum(axis=2).min() > 0.9999


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_builds_compute_no_views_of_queries(backend: str) -> None:
    pixels = np.stack([to_input(page, regions().recipe.preprocessing) for page in pages()[:2]])
    stored = encoder_for([regions(backend)], Path(), throughput=True).encode(pixels)[0]
    assert stored.shape == (2, 10, 432)
    np.testing.assert_allclose(stored, encoder_for([regions(backend)], Path()).encode(pixels)[0][:, :10], atol=1e-5)


def test_views_of_queries_are_the_picture_in_other_proportions() -> None:
    import torch

    from indexer.encoders.efficientnet import WINDOWS_BLOCKS, EfficientNet
    from indexer.encoders.families import open_checkpoint
    from indexer.encoders.taps import all_taps
    from indexer.encoders.tower import open_tower

    recipe = regions().recipe
    taps = all_taps([recipe], views=True)
    network = open_tower(open_checkpoint(locate(COMPANION.name)), taps, recipe.preprocessing)
    assert isinstance(network, EfficientNet)
    seen: list[NDArray[np.float32]] = []
    for number in WINDOWS_BLOCKS:
        network.blocks[number - 1].register_forward_hook(lambda *arguments: seen.append(arguments[2].numpy()))
    pixels = to_input(pages()[0], recipe.preprocessing)[None]
    with torch.inference_mode():
        network(torch.from_numpy(pixels.copy()))
    views = encoder_for([regions()], Path()).encode(pixels)[0][0, 10:]
    first = next(number for number, tap in enumerate(taps) if tap.pooling == "stretches")
    maps = seen[:4] if first == 0 else seen[-4:]
    assert [one.shape[2:] for one in maps] == [(18, 10), (9, 5), (10, 18), (5, 9)]
    for view, parts in zip(views, (maps[:2], maps[2:]), strict=True):
        means = [part[0].mean(axis=(1, 2)) for part in parts]
        expected = np.concatenate([mean / np.linalg.norm(mean) for mean in means]) / np.sqrt(2)
        np.testing.assert_allclose(view, expected, atol=1e-5)


def test_a_part_is_looked_for_in_other_proportions_too(album: Path, tmp_path: Path) -> None:
    with Image.open(album.parent / "pages" / "3.png") as page:
        page.crop((0, 40, 2 * SIDE, 200)).save(tmp_path / "wide.png")
    asked = ("search", tmp_path / "wide.png", "--index", album, "--space", "regions", "--json", "-k", "6")
    hits = json.loads(run_cli(*asked).stdout)["hits"]
    with Index.open(album) as index:
        space = index.space("regions")
        encoder = encoder_for([space], index.models)
        with Image.open(tmp_path / "wide.png") as part:
            vectors = encoder.encode(to_input(part, space.recipe.preprocessing)[None])[0][0]
        each = [
            {hit.id: hit.score for hit in index.search(Query(parts=[QueryPart(vector=vector)], space=space, k=6))}
            for vector in vectors[[0, 10, 11]]
        ]
    assert Path(hits[0]["path"]).stem == "3"
    for hit in hits:
        assert hit["score"] == pytest.approx(max(one[hit["id"]] for one in each), abs=1e-3)
    assert any(each[0][hit["id"]] < hit["score"] - 0.01 for hit in hits)


def test_it_has_a_pass_of_its_own_beside_the_default_recipe() -> None:
    made = spaces_for(
        locate(PACKAGED.name),
        [*default_requests(locate(PACKAGED.name)), SpaceRequest(style=True), SpaceRequest(regions=True)],
        Encoding(),
    )
    assert [[space.name for space in group] for group in passes(made)][1:] == [["regions"]]
    recipe = made[-1].recipe
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert recipe.parts == (112, 320)


@pytest.mark.slow
def test_a_server_knows_it_and_says_where_parts_lie(album: Path, tmp_path: Path) -> None:
    process, url = start_server(album, "--api-key", "write:key")
    try:
        with Client(url, api_key="key") as client:
            headers = {"Authorization": "Bearer key"}
            for wrong in ({"regions": True, "style": True}, {"regions": True, "layers": [1]}):
                answer = httpx.post(f"{url}/v1/indexes/i/spaces", json=wrong, headers=headers)
                assert answer.status_code == 422, answer.text
            assert add_patiently(client, [], regions=True).complete, "it is there"
            drawings()[5].save(tmp_path / "part.png")
            (hit,) = client.search(tmp_path / "part.png", space="regions", k=1)
            assert (hit.path is not None and Path(hit.path).stem, hit.box) == ("1", (SIDE, 0, SIDE, SIDE))
            assert client.search(tmp_path / "part.png", k=1)[0].box is None
            assert len(client.embed([tmp_path / "part.png"], space="regions")[0]) == 432
            added = client.add(tmp_path / "part.png")  # its embeddings are known, with the views of a query
            assert client.search(tmp_path / "part.png", space="regions", k=1)[0].id == added.id
            assert {space.count for space in client.spaces()} == {7}
            client.delete(added.id)
            for refused in (
                lambda: client.set_default_space("regions"),
                lambda: client.feedback.ask(more=[hit.id], space="regions"),
            ):
                with pytest.raises(Conflict) as caught:
                    refused()
                assert caught.value.code == "space-of-regions"
    finally:
        assert stop_server(process) == 0
