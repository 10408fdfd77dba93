"""The first build of the packaged model makes words beside its images, in the same pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import run_cli

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import passes
from indexer.encoders.recipes import default_requests, spaces_for
from indexer.models import PACKAGED, locate
from indexer.packaged.e5 import E5
from indexer.packaged.package import Package
from search.index import Index
from search.types import Encoding

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


@pytest.mark.slow(measured=True)
def test_a_build_without_flags_finds_by_words_at_once(tmp_path: Path) -> None:
    shutil.copytree(SAMPLE / "fruit", tmp_path / "photos" / "one")
    shutil.copytree(SAMPLE / "birds", tmp_path / "photos" / "two")
    index = tmp_path / "photos.index"
    run_cli("build", tmp_path / "photos", "--index", index)
    with Index.open(index) as opened:
        assert [space.name for space in opened.spaces] == [opened.space().name, "words"]
        assert all(space.complete for space in opened.spaces)
        assert len(passes(opened.spaces)) == 1
    found = json.loads(run_cli("search", "a bird", "--index", index, "--json", "--space", "words").stdout)["hits"]
    assert Path(found[0]["path"]).parent.name == "two"


def test_words_are_made_only_where_they_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = locate(PACKAGED.name)
    assert [request.words for request in default_requests(files)] == [False, True]
    assert [request.words for request in default_requests(files, padded=True)] == [False]
    installed = Package.is_installed
    monkeypatch.setattr(Package, "is_installed", lambda package: package != E5 and installed(package))
    assert [request.words for request in default_requests(files)] == [False]


def test_a_build_that_names_a_layer_has_no_other_space(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(SAMPLE / "birds", tmp_path / "photos")
    flags = ("--model", checkpoint, "--layer", "2", "--backend", "torch")
    run_cli("build", tmp_path / "photos", "--index", tmp_path / "photos.index", *flags)
    with Index.open(tmp_path / "photos.index") as index:
        assert [space.name for space in index.spaces] == ["layer2"]


def test_words_are_stored_in_two_bytes_a_number() -> None:
    files = locate(PACKAGED.name)
    spaces = spaces_for(files, default_requests(files), Encoding())
    (single,) = spaces_for(files, [SpaceRequest(layers=(11,))], Encoding())
    numbers = {"float16": 2, "float32": 4}
    size = {space.name: space.recipe.dim * numbers[space.storage] for space in (*spaces, single)}
    assert sum(size[space.name] for space in spaces) <= 4.8 * size[single.name]
