"""Promises of `tune`: recipes compete on the index's own images, and none becomes the default before it is whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from checkpoints import save
from conftest import recipe, run_cli, write_photos
from PIL import Image

from analysis.errors import NotApplied, NothingToUndo, TooFewImages
from analysis.tuning.candidates import candidates
from analysis.tuning.change import begin, complete, pending, undo
from analysis.tuning.features import Features, layers_of, readings
from analysis.tuning.sweep import Sweep, sweep
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.models import PACKAGED, locate
from indexer.new_space import space_to_add
from indexer.progress import Quiet
from search.catalog.spaces import Spaces
from search.generations.policy import DEFAULT_POLICY
from search.index import Index
from search.recipe import Geometry
from search.types import Encoding, Space
from search.vectors import normalise


def never() -> bool:
    return False


def tune(index: Index, sample: int = 100) -> Sweep:
    found = sweep(index, warn=print, progress=Quiet(), stopped=never, sample=sample)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder of pictures, and an index of the tiny ViT's layer 0, whose CLS token knows nothing of the picture."""
    base = tmp_path_factory.mktemp("poor")
    write_photos(base / "photos")
    run_cli("build", base / "photos", "--index", base / "photos.index", "--model", checkpoint, "--layer", "0")
    return base


@pytest.fixture
def path(tmp_path: Path, poor: Path) -> Path:
    """That index, with files of its own."""
    shutil.copytree(poor, tmp_path, dirs_exist_ok=True)
    run_cli("move-root", tmp_path / "photos.index", poor / "photos", tmp_path / "photos")
    return tmp_path / "photos.index"


def space_of(checkpoint: Path, geometry: Geometry | None) -> Space:
    (space,) = spaces_for(locate(str(checkpoint)), [SpaceRequest(layers=(1,))], Encoding(), geometry)
    return space


def default_of(path: Path) -> str:
    with Index.open(path) as index:
        return index.catalog.spaces().default


# ---- the recipes


def test_the_packaged_model_is_tried_by_the_list_that_was_fixed_before() -> None:
    (default,) = spaces_for(locate(PACKAGED.name), [SpaceRequest()], Encoding())
    found = candidates(Spaces((default,), default.name))
    assert found[0].name == default.name == "layer11"
    names = [space.name for space in found]
    assert len(set(names)) == len(names)
    for layers in (*map(str, range(6, 13)), "7-11"):
        for beside in ("", "+efficientnet-lite0"):
            for end in ("", "-whitened", "-square", "-square-whitened"):
                assert f"layer{layers}{beside}{end}" in names
    assert {"layer7-11+efficientnet-lite0-square-whitened-weight2.5", "layer11-mean-square"} <= {*names}
    assert {"layer7-gem-square-whitened", "layer7-11-cls+gem+efficientnet-lite0-square-whitened"} <= {*names}
    assert not any(space.same_as(other) for space in found for other in found if space is not other)
    held = replace(next(space for space in found if space.name == "layer7"), name="mine")
    assert "mine" in [space.name for space in candidates(Spaces((default, held), default.name))]


def test_a_padded_index_is_tried_with_padding_and_no_two_recipes_share_a_name(checkpoint: Path) -> None:
    padded = space_of(checkpoint, "pad")
    assert padded.name == "layer1"
    held = replace(space_of(checkpoint, None), name="layer1-whitened")
    found = candidates(Spaces((padded, held), padded.name))
    assert found[0].same_as(padded)
    by_name = {space.name: space for space in found}
    assert len(by_name) == len(found)
    assert by_name["layer2"].recipe.preprocessing.geometry == "pad"
    assert by_name["layer2-square"].recipe.preprocessing.geometry == "square"
    assert by_name["layer1-whitened-2"].transform.kind == "whitening", "another space has its name"
    assert by_name["layer1-whitened"].same_as(held)


def test_recipes_of_a_second_model_are_named_after_it(checkpoint: Path, tmp_path: Path) -> None:
    first = space_of(checkpoint, None)
    other = save("vit", tmp_path / "other", seed=1)
    second = space_to_add(Spaces((first,), first.name), SpaceRequest(layers=(0,)), str(other))
    assert second.name == "other-layer0"
    there = Spaces((first, second), second.name)
    assert space_to_add(there, SpaceRequest(layers=(1,))).name == "other-layer1"
    assert all(space.name.startswith("other-layer") for space in candidates(there))


def test_recipes_are_composed_of_single_layers_as_an_encoder_makes_them(path: Path) -> None:
    generator = np.random.default_rng(0)
    whole = replace(recipe(dim=3 * 8 + 4), layers=(1, 2, 3), final_norm=(False, False, True))
    companion = replace(recipe(dim=4, weights="b"), pooling="mean")
    beside = replace(whole, companion=companion)
    spaces = [
        Space(name="a", recipe=replace(whole, dim=24), encoding=Encoding()),
        Space(name="b", recipe=beside, encoding=Encoding()),
    ]
    wanted = readings(spaces)
    assert [(layer.number, layer.final_norm) for layer in wanted] == [(1, False), (2, False), (3, True), (None, False)]
    assert [space.recipe.dim for space in wanted.values()] == [8, 8, 8, 12]
    layers = {layer: normalise(generator.normal(size=(5, 8 if layer.number else 4))) for layer in wanted}
    features = Features(shown=[], layers={layer: each.astype(np.float16) for layer, each in layers.items()})
    made = features.vectors(beside)
    assert made.shape == (5, 28)
    own, rest = made[:, :24], made[:, 24:]
    assert np.linalg.norm(own, axis=1) == pytest.approx(2**-0.5 * np.ones(5), abs=1e-3)
    assert normalise(rest) == pytest.approx(layers[layers_of(beside)[-1]], abs=1e-3)
    assert normalise(own[:, 8:16]) == pytest.approx(layers[layers_of(beside)[1]], abs=1e-3)


@pytest.mark.slow(measured=True)
def test_a_sweep_tries_layers_pixels_and_transforms_on_the_indexs_images(path: Path) -> None:
    with Index.open(path) as index:
        found = tune(index)
        names = [one.space.name for one in found.tried]
        assert names[0] == "layer0"
        assert {"layer1", "layer2", "layer3", "layer1-3", "layer1-whitened", "layer1-3-whitened-floor0.1"} <= {*names}
        assert "layer1-3-whitened-floor0.01" not in names, "of 36 images, that is the usual floor"
        assert (found.images, found.perturbed, found.skipped) == (36, 36, 0)
        for one in found.tried:
            assert one.proxy.value == pytest.approx(np.mean([*one.kinds.values()]))
            assert one.proxy.low <= one.proxy.value <= one.proxy.high
        assert found.default.proxy.value == pytest.approx(1 / 36), "all images are equally near"
        assert found.differs
        costs = {one.space.name: one for one in found.tried}
        assert costs["layer0"].bytes_per_image == 24 * 4 + 24 * 4
        assert costs["layer1-3-whitened"].bytes_per_image == 72 * 2 + 72 * 4
    with Index.open(path, policy=replace(DEFAULT_POLICY, exact_search_bytes=36 * 24 * 4)) as index:
        again = tune(index)
        times = {one.space.name: one.search_ms for one in again.tried}
        assert times["layer0"] is not None
        assert times["layer1-3"] is None, "a graph would be searched"
        assert [one.proxy for one in again.tried] == [one.proxy for one in found.tried]
        assert again.chosen.space == found.chosen.space


@pytest.mark.slow(measured=True)
def test_files_that_are_gone_or_changed_are_skipped_and_too_few_say_so(path: Path) -> None:
    photos = sorted(path.with_name("photos").rglob("*.png"))
    photos[0].unlink()
    photos[1].write_bytes(b"no picture")
    with Index.open(path) as index:
        found = tune(index)
        assert (found.images, found.skipped) == (34, 2)
        with pytest.raises(TooFewImages, match=r"10 images of .* compared on 20 at least"):
            tune(index, sample=10)
    for photo in photos:
        photo.unlink(missing_ok=True)
    assert "are readable, and recipes" in run_cli("tune", path, check=2).stderr


def test_too_few_images_are_told_before_any_model_is_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = sorted(path.with_name("photos").rglob("*.png"))
    for photo in photos[9:]:
        photo.unlink()
    run_cli("build", path.with_name("photos"), "--index", path)
    monkeypatch.setattr("analysis.tuning.sweep.load_index_encoder", None)
    assert "9 images of" in run_cli("tune", path, check=2).stderr


@pytest.mark.slow(measured=True)
def test_copies_of_a_picture_in_other_files_count_as_it(path: Path) -> None:
    photos = path.with_name("photos")
    for photo in sorted(photos.rglob("*.png")):
        with Image.open(photo) as picture:
            picture.save(photo.with_name(f"copy-{photo.name}"), compress_level=1)
    run_cli("build", photos, "--index", path)
    with Index.open(path) as index:
        assert index.catalog.counts()[0] == 72
        assert tune(index).default.proxy.value == pytest.approx(2 / 72), "all images are equally near"


# ---- applied and undone


@pytest.mark.slow(measured=True)
def test_apply_adds_the_recommended_space_and_undo_goes_back(path: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    answer = json.loads(run_cli("tune", path, "--apply", "--json", "--report", report).stdout)
    assert answer.keys() >= {"recipes", "chosen", "space", "applied"}
    assert answer["recipes"][0].keys() >= {"name", "proxy", "images_per_second", "bytes_per_image", "search_ms"}
    assert answer["recipes"][0]["name"] == "layer0"
    assert answer["chosen"] == answer["space"] == default_of(path) != "layer0"
    assert answer["applied"]
    text = report.read_text(encoding="utf-8")
    assert text.count("<circle") == len(answer["recipes"])
    assert f"<b>{answer['chosen']}</b> finds more" in text
    assert f"No recipe finds more than {answer['chosen']} beyond noise" in run_cli("tune", path).stdout
    assert run_cli("search", path.with_name("photos") / "red" / "circle-0.png", "--index", path).stdout
    assert "layer0 is the default space again" in run_cli("tune", path, "--undo").stdout
    assert default_of(path) == "layer0"
    assert "was not made so" in run_cli("tune", path, "--undo", check=2).stderr


@pytest.mark.slow(measured=True)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(path: Path) -> None:
    for photo in path.with_name("photos").rglob("*.png"):
        photo.unlink()
    ended = run_cli("tune", path, "--report", path / "catalog.sqlite" / "new" / "out.html", check=74)
    assert "cannot be written" in ended.stderr


@pytest.mark.slow(measured=True)
def test_without_apply_nothing_changes_and_a_table_says_what_is_best(path: Path) -> None:
    told = run_cli("tune", path).stdout
    assert told.startswith("36 images, perturbed, looked for their originals among 36\nrecipe ")
    assert "the default" in told
    assert "To take it: --apply" in told
    with Index.open(path) as index:
        assert [space.name for space in index.spaces] == ["layer0"]


@pytest.mark.slow(measured=True)
def test_an_apply_that_was_stopped_goes_on_where_it_was(path: Path) -> None:
    chosen = "layer1-whitened"
    with Index.open(path, writable=True) as index:
        space = next(space for space in candidates(index.catalog.spaces()) if space.name == chosen)
        tuned = begin(index, space)
        report = complete(index, tuned, warn=print, progress=Quiet(), stopped=lambda: True)
        assert report.interrupted
        assert pending(index) == tuned
        assert index.catalog.spaces().default == "layer0"
    answer = run_cli("tune", path, "--apply", "--json")
    assert f"Going on to fill {chosen}" in answer.stderr
    assert json.loads(answer.stdout) == {"recipes": [], "chosen": chosen, "space": chosen, "applied": True}
    with Index.open(path) as index:
        assert pending(index) is None


@pytest.mark.slow(measured=True)
@pytest.mark.parametrize("dropped", [False, True])
def test_what_others_do_to_spaces_during_the_fill_stays(path: Path, dropped: bool) -> None:
    with Index.open(path, writable=True) as index:
        by_name = {space.name: space for space in candidates(index.catalog.spaces())}
        with index.writer() as writer:
            writer.add_space(by_name["layer2"])
        tuned = begin(index, by_name["layer1"])

        class Others(Quiet):
            def start(self, files: int, *, what: str = "") -> None:
                super().start(files, what=what)
                with index.writer() as writer:
                    if dropped:
                        writer.drop_space("layer1")
                    else:
                        writer.set_default("layer2", force=True)

        with pytest.raises(NotApplied, match="dropped while it was filled" if dropped else "spaces .* default layer1"):
            complete(index, tuned, warn=print, progress=Others(), stopped=never)
        assert index.catalog.spaces().default == ("layer0" if dropped else "layer2")
        assert index.space("layer2").complete is False, "only the chosen space is filled"
        assert pending(index) is None


@pytest.mark.slow(measured=True)
def test_an_apply_that_was_stopped_before_the_change_goes_on_with_its_choice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Index.open(path, writable=True) as index:
        space = next(space for space in candidates(index.catalog.spaces()) if space.name == "layer1")
        tuned = begin(index, space)
        with monkeypatch.context() as patched:
            patched.setattr(Index, "publish", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                complete(index, tuned, warn=print, progress=Quiet(), stopped=never)
        assert index.space("layer1").complete
        assert pending(index) == tuned
    told = run_cli("tune", path, "--apply", "--sample", "30").stderr
    assert "Nothing is measured again, so --sample and --report have no effect" in told
    assert default_of(path) == "layer1"


@pytest.mark.slow(measured=True)
def test_a_space_in_which_images_are_missing_does_not_become_the_default(path: Path) -> None:
    gone = path.with_name("photos") / "red" / "circle-0.png"
    kept = gone.read_bytes()
    gone.unlink()
    ended = run_cli("tune", path, "--apply", check=3)
    assert "so layer0 stays the default" in ended.stderr
    assert str(gone) in ended.stderr
    assert default_of(path) == "layer0"
    gone.write_bytes(kept)
    assert json.loads(run_cli("tune", path, "--apply", "--json").stdout)["applied"]


@pytest.mark.slow(measured=True)
def test_undo_says_where_there_is_no_way_back(path: Path) -> None:
    with Index.open(path, writable=True) as index:
        with pytest.raises(NothingToUndo, match="was not made so by lookalike tune"):
            undo(index)
        space = next(space for space in candidates(index.catalog.spaces()) if space.name == "layer1")
        complete(index, begin(index, space), warn=print, progress=Quiet(), stopped=never)
        with index.writer() as writer:
            writer.drop_space("layer0")
        with pytest.raises(NothingToUndo, match=r"layer0, .* was dropped"):
            undo(index)
    assert "give it alone" in run_cli("tune", path, "--undo", "--apply", check=2).stderr
