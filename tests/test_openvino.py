"""Promises of the OpenVINO backend: the same embeddings as torch, exported once, and int8 that is what was judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from conftest import draw_picture, run_cli, write_photos
from numpy.typing import NDArray

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for
from indexer.machine import has_openvino

if not has_openvino():
    pytest.skip("the extra is not installed", allow_module_level=True)

from indexer.encoders import int8, openvino_backend
from indexer.encoders import torch_backend as torch_backend
from indexer.encoders.checked import overlap
from indexer.encoders.recipes import recipes_for
from indexer.errors import ModelUnsupported
from indexer.models import locate
from search.index import Index
from search.recipe import Recipe

WIDE = 128
"""The narrowest tower that int8 works on: scales are shared by 128 channels."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save("dinov2", tmp_path_factory.mktemp("wide") / "dinov2", width=WIDE)


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    shape = (count, checkpoints.SIZE, checkpoints.SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_fp32_equals_torch_in_every_family_at_every_layer(family: str, tmp_path: Path) -> None:
    files = locate(str(checkpoints.save(family, tmp_path / family)))
    pooling = "mean" if family.startswith("siglip") else None
    requests = [SpaceRequest(layers=(layer,), pooling=pooling) for layer in range(checkpoints.LAYERS + 1)]
    requests.append(SpaceRequest(layers=(1, 2), pooling="gem" if pooling else "cls+gem"))
    together = recipes_for(files, requests)
    last = recipes_for(files, [SpaceRequest(layers=(checkpoints.LAYERS,))])  # siglip: its pooling head
    pixels = pictures(5)
    for spaces in (together, last):
        ours = openvino_backend.load_recipes(files, spaces, precision="fp32", batch_size=2).encode(pixels)
        theirs = torch_backend.load_recipes(files, spaces, precision="fp32").encode(pixels)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_many_images_side_by_side_come_back_in_order(wide: Path) -> None:
    files = locate(str(wide))
    spaces, pixels = recipes_for(files, []), pictures(37)
    wide_open = openvino_backend.load_recipes(files, spaces, precision="fp32", batch_size=2, throughput=True)
    single = openvino_backend.load_recipes(files, spaces, precision="fp32", batch_size=1)
    np.testing.assert_allclose(wide_open.encode(pixels)[0], single.encode(pixels)[0], atol=1e-6)


@pytest.mark.slow
def test_encoders_of_a_core_each_may_be_called_at_the_same_time(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, pixels = locate(str(wide)), pictures(40)
    spaces = recipes_for(files, [])
    encoder = openvino_backend.load_recipes(files, spaces, precision="fp32")
    monkeypatch.setattr(openvino_backend, "cores", lambda: 3)
    cores = encoder.per_core()
    assert [(core.names, core.backend, core.precision) for core in cores] == 3 * [(tuple(spaces), "openvino", "fp32")]
    together = threading.Barrier(3, timeout=30)

    def encoded(core: openvino_backend.OpenVinoEncoder, part: NDArray[np.uint8]) -> NDArray[np.float32]:
        for _ in range(20):
            together.wait()
            found = core.encode(part)[0]
        return found

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(encoded, cores, np.array_split(pixels, 3)))
    np.testing.assert_allclose(np.concatenate(parts), encoder.encode(pixels)[0], atol=1e-6)
    monkeypatch.setattr(openvino_backend, "cores", lambda: 1)
    assert not encoder.per_core(), "of one core, that is all cores"


@pytest.mark.slow
def test_an_exported_model_needs_no_torch_and_a_damaged_export_is_made_again(wide: Path, cache: Path) -> None:
    files = locate(str(wide))
    spaces, pixels = recipes_for(files, []), pictures(2)
    first = openvino_backend.load_recipes(files, spaces, precision="fp32").encode(pixels)[0]
    (recipe,) = spaces.values()
    code = (
        "import json, sys; from indexer.encoders import openvino_backend; from indexer.models import locate; "
        "from search.recipe import Recipe; recipe = Recipe.from_json(json.loads(sys.argv[2])); "
        "openvino_backend.load_recipes(locate(sys.argv[1]), {'space': recipe}, precision='fp32'); "
        "print('torch' in sys.modules)"
    )

    def imports_torch() -> bool:
        command = [sys.executable, "-c", code, str(wide), json.dumps(recipe.to_json())]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "True"

    assert not imports_torch()
    (export,) = (path for path in (cache / "exports").iterdir() if path.is_dir())
    weights = bytearray((export / openvino_backend.WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    (export / openvino_backend.WEIGHTS).write_bytes(weights)
    assert imports_torch()
    np.testing.assert_array_equal(
        openvino_backend.load_recipes(files, spaces, precision="fp32").encode(pixels)[0], first
    )


@pytest.mark.slow
def test_openvino_reports_to_nobody(wide: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        sys.addaudithook(lambda event, facts: event in ("socket.connect", "socket.getaddrinfo") and print(event, facts))
        from indexer.encoders import openvino_backend
        from indexer.encoders.recipes import recipes_for
        from indexer.models import locate
        files = locate(sys.argv[1])
        openvino_backend.load_recipes(files, recipes_for(files, []), precision="fp32")
    """
    home = tmp_path / "home"
    home.mkdir()
    fresh = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    ran = subprocess.run([sys.executable, "-c", code, str(wide)], check=True, capture_output=True, text=True, env=fresh)
    assert ran.stdout == ""
    assert not list(home.iterdir())


@pytest.mark.parametrize("place", ["a file", "~nobody-of-this-name/cache"])
def test_without_a_cache_it_works_all_the_same(
    place: str, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_CACHE", place)
    files = locate(str(wide))
    assert openvino_backend.load_recipes(files, recipes_for(files, []), precision="fp32").encode(pictures(1))[0].shape


def test_rounding_makes_up_for_its_errors() -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 256, generator=random)
    few = torch.randn(4000, 64, generator=random) @ torch.randn(64, 256, generator=random)
    inputs = few + 0.1 * torch.randn(4000, 256, generator=random)  # correlated, as activations are
    whole, scales = int8.round_weights(weights, inputs.T @ inputs)
    assert whole.dtype == torch.int8
    ours = (whole.float().reshape(64, -1, int8.GROUP) * scales[:, :, None]).reshape(64, 256)
    groups = weights.reshape(64, -1, int8.GROUP)
    step = groups.abs().amax(dim=2, keepdim=True) / 127
    nearest = ((groups / step).round() * step).reshape(64, 256)
    exact = inputs @ weights.T

    def error(approximate: torch.Tensor) -> float:
        return float((inputs @ approximate.T - exact).square().mean())

    assert error(ours) < 0.5 * error(nearest)


def fitted(folder: Path, models: Path) -> tuple[dict[str, Recipe], Any, str]:
    files = locate(str(folder))
    spaces = recipes_for(files, [SpaceRequest(layers=(1,)), SpaceRequest(layers=(checkpoints.LAYERS,))])
    encoder, store = int8.fit(files, spaces, pictures(40), models)
    return spaces, encoder, store()


def test_int8_is_close_to_fp32_and_stored_as_it_was_judged(wide: Path, tmp_path: Path) -> None:
    spaces, encoder, name = fitted(wide, tmp_path / "models")
    pixels = pictures(60, seed=1)
    exact = openvino_backend.load_recipes(locate(str(wide)), spaces, precision="fp32").encode(pixels)
    ours = encoder.encode(pixels)
    for one, other in zip(ours, exact, strict=True):
        assert np.abs(one - other).max() > 0, "nothing was rounded"
        assert np.mean((one * other).sum(axis=1)) > 0.99
    again = openvino_backend.load_stored(tmp_path / "models" / name, spaces)
    for one, other in zip(again.encode(pixels), ours, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)  # in other batches, bf16 sums in another order
    only = {"layer1": spaces["layer1"]}
    np.testing.assert_allclose(
        openvino_backend.load_stored(tmp_path / "models" / name, only).encode(pixels)[0], ours[0], atol=2e-3
    )


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_int8_encoder_is_refused(wide: Path, tmp_path: Path, damage: str) -> None:
    spaces, _, name = fitted(wide, tmp_path / "models")
    weights = tmp_path / "models" / name / openvino_backend.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 3] ^= 4
    weights.unlink() if damage == "delete" else weights.write_bytes(content)
    with pytest.raises(ModelUnsupported, match="missing or damaged"):
        openvino_backend.load_stored(weights.parent, spaces)


def test_a_tower_too_narrow_for_int8_says_so(tmp_path: Path) -> None:
    folder = checkpoints.save("vit", tmp_path / "vit")
    with pytest.raises(ModelUnsupported, match="cannot be computed in int8"):
        fitted(folder, tmp_path / "models")
    assert not (tmp_path / "models").exists()


Photos = Callable[[int], Path]


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    def write(variants: int) -> Path:
        write_photos(tmp_path / "photos", variants=range(variants))
        return tmp_path / "photos"

    return write


def encoding(index: Path) -> dict[str, Any]:
    answer = json.loads(run_cli("info", index, "--json").stdout)
    found: dict[str, Any] = answer["spaces"][0]["encoding"]
    return found


@pytest.mark.slow
def test_int8_is_judged_on_the_users_images_and_queries_use_it(photos: Photos, wide: Path, tmp_path: Path) -> None:
    index, folder = tmp_path / "test.index", photos(4)
    few = tmp_path / "few"
    few.mkdir()
    draw_picture("pink", "circle", 7).save(few / "one.png")
    flags = (few, "--index", index, "--model", wide, "--precision", "int8")  # few first: judged by all sources
    refused = run_cli("build", folder, *flags, "--min-overlap", "1", check=2).stderr
    assert "of the 10 nearest neighbours that fp32 finds among 73 of your images" in refused
    assert "--precision bf16" in refused
    assert not list((index / "models").glob("*")), "nothing of a refused encoder stays"
    assert json.loads(run_cli("info", index, "--json").stdout)["images"] == 0
    run_cli("build", folder, *flags, "--min-overlap", "0.2")
    used = encoding(index)
    assert (used["backend"], used["precision"]) == ("openvino", "int8")
    assert used["check"]["images"] == 73
    assert 0.2 <= used["check"]["overlap"] <= 1
    picture = next(folder.rglob("*.png"))
    first = json.loads(run_cli("search", picture, "--index", index, "-k", "1", "--json").stdout)["hits"][0]
    assert first["path"] == str(picture)
    assert first["score"] == pytest.approx(1, abs=1e-3)
    with Index.open(index) as opened:
        (space,) = opened.spaces
        assert encoder_for([space], opened.models).precision == "int8"
    (stored,) = (index / "models").iterdir()
    assert stored.stat().st_mode & 0o777 == 0o755, "a server may be another user"
    assert "Leave --device out" in run_cli("build", folder, "--index", index, "--device", "cuda", check=2).stderr
    assert "and stays so" in run_cli("build", folder, "--index", index, "--precision", "bf16", check=2).stderr


def test_int8_cannot_be_judged_by_a_few_images(photos: Photos, wide: Path, tmp_path: Path) -> None:
    folder = photos(1)
    refused = run_cli("build", folder, "--index", tmp_path / "i", "--model", wide, "--precision", "int8", check=2)
    assert "needs 32 of them; there are 18" in refused.stderr


@pytest.mark.slow
def test_the_first_images_settle_the_encoding_however_late_they_come(
    photos: Photos, wide: Path, tmp_path: Path
) -> None:
    index, empty = tmp_path / "test.index", tmp_path / "empty"
    empty.mkdir()
    bf16 = ("--backend", "torch", "--precision", "bf16")  # which torch has on any CPU
    run_cli("build", empty, "--index", index, "--model", wide, *bf16)
    assert encoding(index)["check"] == {}
    run_cli("build", photos(1), "--index", index, *bf16)
    assert encoding(index)["check"]["images"] == 8


def test_a_moved_checkpoint_is_told_once_and_found_again(photos: Photos, wide: Path, tmp_path: Path) -> None:
    index, folder = tmp_path / "test.index", photos(1)
    before = tmp_path / "before"
    before.mkdir()
    for file in wide.iterdir():
        (before / file.name).write_bytes(file.read_bytes())
    run_cli("build", folder, "--index", index, "--model", before, "--layer", "1")
    before.rename(tmp_path / "after")
    picture = next(folder.rglob("*.png"))
    assert "lookalike build PHOTOS" in run_cli("search", picture, "--index", index, check=2).stderr
    run_cli("build", folder, "--index", index, "--model", tmp_path / "after")
    run_cli("search", picture, "--index", index)


def test_overlap_counts_shared_neighbours() -> None:
    vectors = np.eye(40, dtype=np.float32) + np.random.default_rng(0).normal(0, 0.1, (40, 40)).astype(np.float32)
    assert overlap(vectors, vectors) == 1
    assert overlap(vectors, vectors[:, ::-1].copy()) == 1, "angles are the same"
    shuffled = np.random.default_rng(1).permutation(vectors)
    assert overlap(vectors, shuffled) < 0.6
