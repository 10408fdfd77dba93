"""A space that is added is filled from the files that are still what was indexed, and can be left off anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, FakeEncoder, draw_picture, recipe, run_cli, vectors, write_photos
from PIL import Image

from api.serving.filling import fill
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import recipes_for
from indexer.errors import ModelUnsupported
from indexer.fill import Fill, FillReport
from indexer.models import locate
from indexer.new_space import space_to_add
from indexer.pictures.decode import DecodeLimits
from indexer.pictures.preprocess import Inputs
from indexer.pictures.worker import Workers
from indexer.progress import Quiet
from indexer.report import Progress
from search.catalog.spaces import Spaces
from search.index import Index
from search.types import Encoding, ImageFacts, Location, NewImage, Query, QueryPart, Space
from search.upkeep.verify import verify


class Counting(Quiet):
    """Progress that knows how far it is."""

    def __init__(self) -> None:
        self.expected = self.finished = 0

    def start(self, files: int, *, what: str = "") -> None:
        super().start(files, what=what)
        self.expected += files

    def done(self, files: int) -> None:
        self.finished += files


QUIET: Progress = Quiet()


def spaces(index: Path, *words: str | Path, check: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run_cli("spaces", index, *words, "--json", check=check).stdout)
    told["by_name"] = {space["name"]: space for space in told["spaces"]}
    return told


@pytest.fixture
def here(tmp_path: Path, built: tuple[Path, Path, Path]) -> Path:
    """The session's index and photos, copied: `photos` and `photos.index`."""
    shutil.copytree(built[0], tmp_path / "photos")
    shutil.copytree(built[1], tmp_path / "photos.index")
    run_cli("move-root", tmp_path / "photos.index", built[0], tmp_path / "photos")
    return tmp_path


def all_vectors(index: Path, name: str) -> dict[str, bytes]:
    with Index.open(index) as opened:
        found: dict[str, bytes] = {}
        for rowids, block in opened.catalog.all_vectors(opened.space(name), upto=2**62):
            ids = opened.catalog.ids(rowids.tolist())
            found |= {ids[rowid]: row.tobytes() for rowid, row in zip(rowids.tolist(), block, strict=True)}
        return found


@pytest.mark.slow
def test_an_added_space_is_what_a_build_would_have_made(here: Path, checkpoint: Path) -> None:
    index = here / "photos.index"
    (before,) = spaces(index)["spaces"]
    assert before["complete"]
    assert before["default"]
    told = spaces(index, "add", "--layer", "1", "--pooling", "mean")
    assert (told["filled"], told["skipped"]) == (before["images"], [])
    added = told["by_name"]["layer1-mean"]
    assert (added["count"], added["complete"], added["default"]) == (before["images"], True, False)
    run_cli(
        "build",
        here / "photos",
        "--index",
        here / "again.index",
        "--model",
        checkpoint,
        "--layer",
        "1",
        "--pooling",
        "mean",
    )
    assert all_vectors(index, "layer1-mean") == all_vectors(here / "again.index", "layer1-mean")
    picture = here / "photos" / "red" / "circle-0.png"
    answers = [
        json.loads(run_cli("search", picture, "--index", one, "--space", "layer1-mean", "--json").stdout)["hits"]
        for one in (index, here / "again.index")
    ]
    assert [(hit["id"], round(hit["score"], 5)) for hit in answers[0]] == [
        (hit["id"], round(hit["score"], 5)) for hit in answers[1]
    ]
    with Index.open(index) as opened:
        assert opened.info().delta == 0, "it was published"
        assert verify(opened).findings == []


@pytest.mark.slow
def test_a_space_becomes_the_default_and_the_one_before_is_dropped(here: Path) -> None:
    index = here / "photos.index"
    name = spaces(index)["spaces"][0]["name"]
    spaces(index, "add", "--layer", "1")
    assert "default space" in run_cli("spaces", index, "drop", name, check=2).stderr
    assert spaces(index, "default", "layer1")["by_name"]["layer1"]["default"]
    assert [space["name"] for space in spaces(index, "drop", name)["spaces"]] == ["layer1"]
    assert "only space" in run_cli("spaces", index, "drop", "layer1", check=2).stderr
    found = json.loads(run_cli("search", here / "photos" / "red" / "circle-0.png", "--index", index, "--json").stdout)
    assert found["space"] == "layer1"
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    draw_picture("red", "square", 5).save(here / "photos" / "new.png")
    built = json.loads(run_cli("build", here / "photos", "--index", index, "--json").stdout)
    assert built["added"] == 1
    assert [space["name"] for space in built["spaces"]] == ["layer1"]


@pytest.mark.slow
def test_files_that_are_gone_or_changed_are_skipped_and_listed(here: Path) -> None:
    index, photos = here / "photos.index", here / "photos"
    count = spaces(index)["spaces"][0]["images"]
    (photos / "red" / "circle-0.png").unlink()
    draw_picture("purple", "square", 7).save(photos / "red" / "circle-1.png")
    shutil.copy(photos / "blue" / "circle-1.png", photos / "blue" / "copy.png")
    told = spaces(index, "add", "--layer", "1", check=3)
    assert told["filled"] == count - 2
    assert sorted(Path(skipped["path"]).name for skipped in told["skipped"]) == ["circle-0.png", "circle-1.png"]
    assert {skipped["reason"] for skipped in told["skipped"]} == {"No such file or directory", "the file has changed"}
    assert not told["by_name"]["layer1"]["complete"]
    assert "not complete" in run_cli("spaces", index, "default", "layer1", check=2).stderr
    assert spaces(index, "default", "layer1", "--force")["by_name"]["layer1"]["default"]
    # What is gone is gone with --prune, and what has changed is another image: nothing lacks a vector any more.
    run_cli("build", photos, "--index", index, "--prune")
    assert spaces(index)["by_name"]["layer1"]["complete"]
    with Index.open(index) as opened:
        assert verify(opened).findings == []


def test_another_copy_of_a_lost_file_does_as_well(here: Path) -> None:
    index, photos = here / "photos.index", here / "photos"
    shutil.copy(photos / "red" / "circle-0.png", photos / "zz.png")
    run_cli("build", photos, "--index", index)
    (photos / "red" / "circle-0.png").unlink()
    told = spaces(index, "add", "--layer", "1")
    assert told["skipped"] == []
    assert told["by_name"]["layer1"]["complete"]


@pytest.mark.slow
def test_adding_goes_on_where_it_was_left(here: Path) -> None:
    index = here / "photos.index"
    away = here / "away"
    (here / "photos").rename(away)
    told = spaces(index, "add", "--layer", "1", check=3)
    assert told["filled"] == 0
    away.rename(here / "photos")
    assert spaces(index, "add")["by_name"]["layer1"]["complete"]
    assert "Every space is complete" in run_cli("spaces", index, "add", check=2).stderr
    assert spaces(index, "add", "--layer", "1")["filled"] == 0


@pytest.mark.slow
def test_a_build_fills_what_is_missing_of_its_own_files(here: Path, tmp_path: Path) -> None:
    index = here / "photos.index"
    write_photos(tmp_path / "other", variants=(4,))
    run_cli("build", tmp_path / "other", "--index", index)
    total = spaces(index)["spaces"][0]["images"]
    with Index.open(index, writable=True) as opened, opened.writer() as writer:
        writer.add_space(space_to_add(opened.catalog.spaces(), SpaceRequest(layers=(1,))))
    draw_picture("red", "square", 6).save(tmp_path / "other" / "new.png")
    report = json.loads(run_cli("build", tmp_path / "other", "--index", index, "--json").stdout)
    assert report["added"] == 1
    assert 0 < report["filled"] < total
    told = spaces(index)["by_name"]["layer1"]
    assert (told["count"], told["complete"]) == (report["filled"] + 1, False)
    run_cli("build", here / "photos", "--index", index)
    assert spaces(index)["by_name"]["layer1"]["complete"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["drop"], "Name the space"),
        (["default"], "Name the space"),
        (["drop", "layer9"], "no such space"),
        (["default", "layer9"], "no such space"),
        (["add", "layer9"], "no such space"),
        (["add", "layer9", "--layer", "1"], "named by its layers"),
        (["drop", "layer2", "--layer", "1"], "of a space to add"),
        (["--force"], "can be forced"),
        (["add", "--layer", "77"], "no layer 77"),
        (["nonsense"], "nonsense"),
        (["--layer", "1"], "lookalike spaces DIR add --layer N"),
    ],
)
def test_every_mistake_about_spaces_is_one_clear_line(
    built: tuple[Path, Path, Path], words: list[str], says: str
) -> None:
    ended = run_cli("spaces", built[1], *words, check=2, COLUMNS="300")
    assert says in ended.stderr


class TwoSpaces(FakeEncoder):
    """A vector in each of two spaces, from one pass."""

    names = ("layer1", "layer0")
    recipes = (recipe(1), recipe(0))

    def encode(self, pixels: Any) -> list[Any]:
        (vectors,) = super().encode(pixels)
        return [vectors, -vectors]


def filled(index: Index, encoder: FakeEncoder, *, stop_after: int = 10**9, progress: Progress = QUIET) -> FillReport:
    asked = [0]

    def stopped() -> bool:
        asked[0] += 1
        return asked[0] > stop_after

    return Fill(index, lambda _: encoder, workers=2, progress=progress, stopped=stopped).run()


def in_layer2(path: Path, root: Path, vector: Any) -> NewImage:
    """A photo with a vector in one space only."""
    data = path.read_bytes()
    return NewImage(
        id=hashlib.sha256(data).hexdigest(),
        facts=ImageFacts(width=96, height=80, format="png", bytes=len(data)),
        location=Location(root=str(root), path=path.relative_to(root).as_posix(), mtime_ns=1, size=len(data)),
        vectors={"layer2": vector},
    )


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """An index by a fake encoder of 36 photos, with two empty spaces."""
    photos = write_photos(tmp_path / "photos")
    space = Space(name="layer2", recipe=recipe(), encoding=Encoding())
    with Index.create(tmp_path / "x.index", [space]) as index:
        with index.writer() as writer:
            with writer.transaction() as transaction:
                for path, vector in zip(photos, vectors(len(photos)), strict=True):
                    transaction.add(in_layer2(path, tmp_path / "photos", vector))
            for name in ("layer1", "layer0"):
                writer.add_space(Space(name=name, recipe=recipe(int(name[-1])), encoding=Encoding()))
        yield index


def test_spaces_of_one_model_are_filled_in_one_pass(small: Index) -> None:
    encoder = TwoSpaces()
    assert filled(small, encoder).filled == 36
    assert sum(encoder.batches) == 36
    assert all(space.complete for space in small.spaces)
    one, other = (small.catalog.stored(small.space(name), ids(small)) for name in ("layer1", "layer0"))
    assert len(one) == 36
    assert all(np.array_equal(one[image_id], -other[image_id]) for image_id in one)


def ids(index: Index) -> list[str]:
    return [record.id for record in index.catalog.page(0, 100)[0]]


def test_an_image_that_is_added_while_the_last_ones_are_embedded_is_filled_too(small: Index, tmp_path: Path) -> None:
    """Nothing else would fill it: a server's upload is embedded for the spaces of the encoder that it has loaded."""

    class Uploading(TwoSpaces):
        def encode(self, pixels: Any) -> list[Any]:
            seen = sum(self.batches) + len(pixels)
            if seen in (36, 37):
                path = tmp_path / f"{seen}.png"
                draw_picture("black", "square", seen).save(path)
                with small.writer() as writer, writer.transaction() as transaction:
                    transaction.add(in_layer2(path, tmp_path, vectors(1)[0]))
            return super().encode(pixels)

    progress = Counting()
    assert filled(small, Uploading(), progress=progress).filled == 38
    assert all(space.complete for space in small.spaces)
    assert progress.expected == progress.finished == 38


@pytest.mark.parametrize("when", ["it encodes", "it publishes"])
def test_a_space_that_is_added_while_another_is_filled_is_filled_too(
    small: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """As far as the files are there, once, and with an image that comes with it."""
    next((tmp_path / "photos").rglob("*.png")).unlink()
    with small.writer() as writer:
        writer.drop_space("layer0")

    def add() -> None:
        if len(small.spaces) == 2:
            draw_picture("black", "square", 1).save(tmp_path / "new.png")
            with small.writer() as writer:
                writer.add_space(Space(name="layer0", recipe=recipe(0), encoding=Encoding()))
                with writer.transaction() as transaction:
                    transaction.add(in_layer2(tmp_path / "new.png", tmp_path, vectors(1)[0]))

    class Adding(TwoSpaces):
        def encode(self, pixels: Any) -> list[Any]:
            if when == "it encodes":
                add()
            return super().encode(pixels)

    publish = small.publish
    monkeypatch.setattr(small, "publish", lambda: (add(), publish()))
    monkeypatch.setattr("api.serving.filling.load_index_encoder", lambda *_, **__: Adding())
    assert len(fill(small, lambda: False).skipped) == 1
    assert [(info.space.name, info.count) for info in small.catalog.space_infos()] == [
        ("layer2", 37),
        ("layer1", 36),
        ("layer0", 36),
    ]


def test_an_image_that_is_removed_meanwhile_is_not_said_to_lack_a_vector(
    small: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    load = Workers.load

    def removing(self: Workers, path: str, *others: Any) -> Any:
        if not removed:
            removed.append(Path(path))
            with small.writer() as writer:
                writer.remove([hashlib.sha256(Path(path).read_bytes()).hexdigest()])
            Path(path).unlink()
        return load(self, path, *others)

    monkeypatch.setattr(Workers, "load", removing)
    report = filled(small, TwoSpaces())
    assert (len(removed), report.filled, report.skipped) == (1, 35, [])
    assert all(space.complete for space in small.spaces)


def test_a_stopped_filling_keeps_what_it_has_and_goes_on(small: Index) -> None:
    report = filled(small, TwoSpaces(), stop_after=9)
    assert report.interrupted
    assert 0 < report.filled < 36
    assert small.catalog.space_infos()[1].count == report.filled
    rest = filled(small, TwoSpaces())
    assert report.filled + rest.filled == 36
    assert all(space.complete for space in small.spaces)


def test_a_space_dropped_while_it_is_filled_is_left_alone(small: Index) -> None:
    class Dropping(TwoSpaces):
        def encode(self, pixels: Any) -> list[Any]:
            if "layer1" in [space.name for space in small.spaces]:
                with small.writer() as writer:
                    writer.drop_space("layer1")
                    writer.add_space(Space(name="layer1", recipe=recipe(1, weights="b"), encoding=Encoding()))
                    writer.drop_space("layer1")
            return super().encode(pixels)

    assert filled(small, Dropping()).filled == 36
    assert [(info.space.name, info.count) for info in small.catalog.space_infos()] == [("layer2", 36), ("layer0", 36)]
    assert verify(small).findings == []


def test_what_a_build_with_other_limits_took_is_filled(small: Index, tmp_path: Path) -> None:
    path = tmp_path / "photos" / "wide.png"
    Image.new("RGB", (70_000, 2), "teal").save(path)
    data = path.read_bytes()
    wide = NewImage(
        id=hashlib.sha256(data).hexdigest(),
        facts=ImageFacts(width=70_000, height=2, format="png", bytes=len(data)),
        location=Location(root=str(path.parent), path=path.name, mtime_ns=1, size=len(data)),
        vectors={"layer2": vectors(1, seed=9)[0]},
    )
    with small.writer() as writer, writer.transaction() as transaction:
        transaction.add(wide)
    report = filled(small, TwoSpaces())
    assert (report.filled, report.skipped) == (37, [])


def test_facts_that_cannot_be_do_not_keep_others_from_being_filled(small: Index) -> None:
    with small.writer(), small.catalog.writing() as transaction:  # as older versions took them from raw files
        transaction._connection.exec_driver_sql("UPDATE images SET width = 4294967295, height = 4294967295")
    assert filled(small, TwoSpaces()).filled == 36


def test_pictures_are_given_the_time_that_a_build_gives_them(small: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def workers(inputs: Inputs, limits: DecodeLimits, **options: int) -> Workers:
        given.append(limits.seconds)
        return Workers(inputs, limits, **options)

    monkeypatch.setattr("indexer.fill.Workers", workers)
    for seconds in (None, 600):
        Fill(
            small,
            lambda _: TwoSpaces(),
            workers=1,
            progress=QUIET,
            stopped=lambda: True,
            max_seconds=seconds,
        ).run()
    assert given == [60, 600]


def test_a_space_of_the_same_weights_with_another_configuration_is_refused(small: Index, checkpoint: Path) -> None:
    recipes = recipes_for(locate(str(checkpoint)), [SpaceRequest(layers=(2,))])
    (known,) = (replace(recipe, config_sha256="0" * 64) for recipe in recipes.values())
    there = Spaces((Space(name="layer2", recipe=known, encoding=Encoding()),), "layer2")
    with pytest.raises(ModelUnsupported, match=r"another config\.json"):
        space_to_add(there, SpaceRequest(layers=(1,)))


def test_an_image_that_the_encoder_cannot_bear_is_skipped(small: Index) -> None:
    class Poisoned(TwoSpaces):
        def encode(self, pixels: Any) -> list[Any]:
            if any(pixel[20, 20, 0] > 200 and pixel[20, 20, 1] < 50 for pixel in pixels):
                raise RuntimeError("poisoned")
            return super().encode(pixels)

    report = filled(small, Poisoned())
    assert report.filled + len(report.skipped) == 36
    assert all("cannot be embedded" in skipped.reason for skipped in report.skipped)
    query = Query(parts=[QueryPart(vector=np.ones(32, np.float32))], k=100, space="layer1")
    assert len(small.search(query)) == report.filled


@pytest.mark.slow
def test_ctrl_c_ends_an_addition_with_130(here: Path) -> None:
    """As a process of its own: the signal reaches it while it loads or embeds."""
    for number in range(40):
        draw_picture("teal", "stripes", number, size=2000).save(here / "photos" / f"more-{number}.png")
    run_cli("build", here / "photos", "--index", here / "photos.index")
    command = [*COMMAND, "spaces", str(here / "photos.index"), "add", "--layer", "1", "--workers", "1", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Index.open(here / "photos.index") as index:
        while process.poll() is None and not any(info.count for info in index.catalog.space_infos()[1:]):
            time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 130), err
    told = json.loads(out)
    assert told["interrupted"] == (process.returncode == 130)
    assert spaces(here / "photos.index", "add", "--layer", "1")["by_name"]["layer1"]["complete"]


@pytest.mark.slow
def test_a_killed_addition_goes_on_and_loses_nothing(here: Path) -> None:
    """Killed three times, each a little later: once while the model is loaded, then with some images filled."""
    index = here / "photos.index"
    for number in range(24):
        draw_picture("teal", "stripes", number, size=1200).save(here / "photos" / f"more-{number}.png")
    run_cli("build", here / "photos", "--index", index)
    command = [*COMMAND, "spaces", str(index), "add", "--layer", "1", "--workers", "1", "--batch-size", "4"]
    for least in (0, 4, 12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Index.open(index) as reader:
            while process.poll() is None:
                counts = [info.count for info in reader.catalog.space_infos()[1:]]
                if counts and counts[0] >= least:
                    break
                time.sleep(0.01)
        process.kill()
        process.wait()
        with Index.open(index) as opened:
            far = opened.catalog.space_infos()[1]
            assert far.count >= least
            vector = np.ones(far.space.recipe.dim, np.float32)
            assert len(opened.search(Query(parts=[QueryPart(vector=vector)], k=1000, space="layer1"))) == far.count
            assert verify(opened).findings == []
    told = spaces(index, "add", "--layer", "1")
    assert told["by_name"]["layer1"]["complete"]
    with Index.open(index) as opened:
        assert verify(opened).findings == []
