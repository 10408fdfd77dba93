"""Promises about an index on a machine that lacks what it was built with: torch stands in, or it says what to do."""

from __future__ import annotations

import platform
import shutil
import sys
import tomllib
from pathlib import Path

import checkpoints
import pytest
from conftest import Ended, draw_picture, run_cli
from packaging.requirements import Requirement

from indexer.machine import OPENVINO_SYSTEMS, openvino_advice
from search.index import Index
from search.types import Encoding

HERE = ("linux", "aarch64")
"""The system that tests pretend to be on."""


@pytest.fixture(autouse=True)
def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no OpenVINO."""
    monkeypatch.setattr("indexer.machine.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "platform", HERE[0])
    monkeypatch.setattr(platform, "machine", lambda: HERE[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with photos, a model, and an index of four pictures for each precision, computed by torch."""
    base = tmp_path_factory.mktemp("built")
    shutil.copytree(checkpoint, base / "model")
    (base / "photos").mkdir()
    for colour in ("red", "green", "blue", "teal"):
        draw_picture(colour, "circle", 0).save(base / "photos" / f"{colour}.png")
    for precision in ("fp32", "bf16"):
        words = ("--model", base / "model", "--backend", "torch", "--precision", precision)
        run_cli("build", base / "photos", "--index", base / f"{precision}.index", *words)
    return base


def moved_index(built: Path, here: Path, encoding: Encoding, *, without_config: bool = False) -> Path:
    """Photos, model and an index copied to `here`, as one that was encoded elsewhere. Returns the index."""
    for name in ("photos", "model"):
        shutil.copytree(built / name, here / name)
    held = "bf16" if encoding.precision == "bf16" else "fp32"
    index = Path(shutil.copytree(built / f"{held}.index", here / "i.index"))
    with Index.open(index, writable=True) as opened, opened.writer() as writer, writer.transaction() as transaction:
        transaction.change_root(str(built / "photos"), str(here / "photos"), "")
        transaction.rename_model(opened.space().recipe.weights_sha256, str(here / "model"))
        transaction.set_encoding("layer3", encoding)
        if without_config:
            transaction.set_config_sha256(opened.space().recipe.weights_sha256, None)
    return index


def search(index: Path, check: int = 0) -> Ended:
    return run_cli("search", index.parent / "photos" / "red.png", "--index", index, "--paths", check=check)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_stands_in_where_openvino_is_missing_and_says_how_well(
    precision: str, tmp_path: Path, built: Path
) -> None:
    encoding = Encoding(backend="openvino", precision=precision)
    index = moved_index(built, tmp_path, encoding)
    found = search(index)
    assert found.stdout.splitlines()[0].endswith("red.png")
    assert f"openvino in {precision}, which is not available here: torch in {precision} stands in" in found.stderr
    assert "cosine 1.0000 with 4 of its embeddings" in found.stderr
    assert openvino_advice() in found.stderr
    draw_picture("orange", "square", 0).save(tmp_path / "photos" / "orange.png")
    for arguments in ((), ("--backend", "torch"), ("--precision", precision), ("--device", "cpu")):
        said = run_cli("build", tmp_path / "photos", "--index", index, *arguments)
        assert ("stands in" in said.stderr) == (not arguments)  # only the first has anything to embed
    with Index.open(index) as opened:
        assert opened.spaces[0].encoding == encoding
        assert opened.catalog.counts()[0] == 5


def test_a_space_without_vectors_is_judged_by_those_of_its_model(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"))
    assert "cosine 1.0000 with 4 of its embeddings" in run_cli("spaces", index, "add", "--layer", "0").stderr
    other = moved_index(built, tmp_path / "other", Encoding(backend="openvino", precision="fp32"), without_config=True)
    checkpoints.edit_json(tmp_path / "other" / "model" / "config.json", layer_norm_eps=5.0)
    assert "gives other embeddings" in run_cli("spaces", other, "add", "--layer", "0", check=2).stderr


def test_a_server_opens_an_index_of_openvino_without_it(
    tmp_path: Path, built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from api.http.server import open_services
    from api.settings import Settings

    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"))
    with open_services([index], Settings()) as services:
        assert list(services) == ["i"]
    assert "torch in fp32 stands in" in caplog.text


def test_what_stands_in_and_gives_other_embeddings_is_refused(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"), without_config=True)
    checkpoints.edit_json(tmp_path / "model" / "config.json", layer_norm_eps=5.0)
    said = search(index, check=2).stderr
    assert "torch in fp32 gives other embeddings: a median cosine of 0." in said
    assert f"{openvino_advice()} Or build another index here." in said


def test_an_index_without_its_files_is_served_with_a_warning(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"))
    query = draw_picture("red", "circle", 0)
    shutil.rmtree(tmp_path / "photos")
    query.save(tmp_path / "query.png")
    assert "none of its files is here to compare" in run_cli("search", tmp_path / "query.png", "--index", index).stderr


def test_files_that_changed_since_are_not_compared(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"))
    draw_picture("purple", "stripes", 5).save(tmp_path / "photos" / "teal.png")
    assert "with 3 of its embeddings" in search(index).stderr


def test_a_model_that_lies_elsewhere_now_is_asked_for_by_the_command_that_notes_it(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="torch", precision="fp32"))
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    said = search(index, check=2).stderr
    assert f"is not at {tmp_path / 'model'} any more" in said
    assert f"lookalike build PHOTOS --index {index} --model FOLDER" in said
    run_cli("build", tmp_path / "photos", "--index", index, "--model", tmp_path / "elsewhere")
    assert search(index).stdout.splitlines()[0].endswith("red.png")


def test_int8_without_openvino_says_what_to_install(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="int8", model="0" * 64))
    said = search(index, check=2).stderr
    assert "int8, which OpenVINO alone computes" in said
    assert openvino_advice() in said


def test_fp16_of_a_gpu_is_computed_in_fp32_by_a_cpu(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    index = moved_index(built, tmp_path, Encoding(backend="torch", precision="fp16"))
    assert "torch in fp16, which is not available here: torch in fp32 stands in" in search(index).stderr


def test_openvino_asked_for_by_name_is_said_to_be_missing(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="openvino", precision="fp32"))
    said = run_cli("build", tmp_path / "photos", "--index", index, "--backend", "openvino", check=2).stderr
    assert f"OpenVINO is not installed here. {openvino_advice()}" in said


def test_an_old_index_learns_no_config_that_gives_other_embeddings(tmp_path: Path, built: Path) -> None:
    index = moved_index(built, tmp_path, Encoding(backend="torch", precision="fp32"), without_config=True)
    checkpoints.edit_json(tmp_path / "model" / "config.json", layer_norm_eps=5.0)
    draw_picture("orange", "square", 0).save(tmp_path / "photos" / "orange.png")
    said = run_cli("build", tmp_path / "photos", "--index", index, check=2).stderr
    assert "Its config.json may have changed" in said
    with Index.open(index) as opened:
        assert opened.spaces[0].recipe.config_sha256 is None


def test_advice_is_given_where_the_extra_installs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    (line,) = pyproject["project"]["optional-dependencies"]["openvino"]
    marker = Requirement(line).marker
    assert marker is not None
    for system in ("linux", "darwin", "win32"):
        for machine in ("x86_64", "AMD64", "aarch64", "arm64", "ARM64", "riscv64"):
            installs = marker.evaluate({"sys_platform": system, "platform_machine": machine})
            assert installs == ((system, machine) in OPENVINO_SYSTEMS)
            monkeypatch.setattr(sys, "platform", system)
            monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
            assert ("pip install" in openvino_advice()) == installs
