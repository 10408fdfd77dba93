"""Promises of the decoding processes: a file that crashes, stalls or swells its decoder costs itself alone."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, draw_picture, recipe
from numpy.typing import NDArray
from PIL import Image
from rigged import rigged

from indexer.build import Build
from indexer.embedder import Embedder
from indexer.errors import ImageRejected, IndexerError, PrecisionTooLow
from indexer.pictures.decode import DecodeLimits, decode, thumbnail
from indexer.pictures.worker import WorkerFailed, Workers
from indexer.pipeline import Decoded
from indexer.progress import Quiet
from indexer.report import BuildOptions, BuildReport
from indexer.sources import resolve_sources
from search.index import Index
from search.types import Encoding, ImageFacts, Location, Space

PREPROCESSING = recipe().preprocessing
LARGEST_NICE = 19  # of Linux; the tests themselves may run at it
LIMITS = DecodeLimits(seconds=2, max_memory=600 * 1024**2)
FACTS = ImageFacts(width=32, height=32, format="png", bytes=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        draw_picture("red", "circle", number).save(tmp_path / f"picture-{number:02}.png")
    return tmp_path


def test_what_a_worker_decodes_is_what_decode_gives(folder: Path) -> None:
    file = folder / "picture-00.png"
    with Workers((PREPROCESSING,), LIMITS) as workers:
        image_id, decoded = workers.load(str(file), lambda _: True)
        asked: list[str] = []
        known = workers.load(str(file), lambda found: bool(asked.append(found)))
    expected = decode(file.read_bytes(), (PREPROCESSING,), limits=LIMITS)
    assert decoded is not None
    assert decoded.facts == expected.facts
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert image_id == hashlib.sha256(file.read_bytes()).hexdigest()
    assert known == (image_id, None), "what is known is not decoded"
    assert asked == [image_id]


def test_workers_import_neither_torch_nor_faiss(folder: Path) -> None:
    (folder / "modules").write_bytes(b"modules")
    with Workers((PREPROCESSING,), LIMITS, rigged) as workers:
        _, decoded = workers.load(str(folder / "modules"), lambda _: True)
    assert decoded is not None
    assert decoded.facts.format == "PIL"


def test_workers_keep_a_picture_s_memory_for_the_next_one(folder: Path) -> None:
    picture = BytesIO()
    Image.effect_noise((640, 480), 50).convert("RGB").save(picture, "JPEG")
    (folder / "memory").write_bytes(b"memory" + picture.getvalue())
    with Workers((PREPROCESSING,), LIMITS, rigged) as workers:
        _, decoded = workers.load(str(folder / "memory"), lambda _: True)
    assert decoded is not None
    assert decoded.facts.width > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("abort", "crashed the decoder (SIGABRT)"),
        ("exit", "crashed the decoder (exit code 3)"),
        ("hang", "longer than 2 seconds"),
        ("spin", "longer than 2 seconds"),
        ("swell", "more memory than there is"),
    ],
)
def test_a_file_that_ends_its_worker_is_rejected_and_the_next_one_is_read(folder: Path, what: str, reason: str) -> None:
    (folder / what).write_bytes(what.encode())
    with Workers((PREPROCESSING,), LIMITS, rigged) as workers:
        for _ in range(2):
            with pytest.raises(ImageRejected) as caught:
                workers.load(str(folder / what), lambda _: True)
            assert reason in str(caught.value)
            assert workers.load(str(folder / "picture-00.png"), lambda _: True)[1] is not None


def test_workers_let_others_on_their_cores_come_first_where_that_is_asked(folder: Path) -> None:
    for nice in (0, 7):
        with Workers((PREPROCESSING,), LIMITS, nice=nice) as workers:
            workers.load(str(folder / "picture-00.png"), lambda _: True)
            (child,) = multiprocessing.active_children()
            assert child.pid is not None
            expected = min(os.getpriority(os.PRIO_PROCESS, 0) + nice, LARGEST_NICE)
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == expected


def test_missing_files_keep_their_errors_and_the_worker(folder: Path) -> None:
    with Workers((PREPROCESSING,), LIMITS) as workers:
        with pytest.raises(FileNotFoundError):
            workers.load(str(folder / "gone.png"), lambda _: True)
        (folder / "text.png").write_text("no picture")
        with pytest.raises(ImageRejected, match="not one of the supported formats"):
            workers.load(str(folder / "text.png"), lambda _: True)
        assert workers.load(str(folder / "picture-00.png"), lambda _: True)[1] is not None


def test_a_worker_that_was_killed_while_idle_costs_no_file(folder: Path) -> None:
    with Workers((PREPROCESSING,), LIMITS) as workers:
        workers.load(str(folder / "picture-00.png"), lambda _: True)
        (child,) = multiprocessing.active_children()
        child.kill()
        child.join()
        assert workers.load(str(folder / "picture-01.png"), lambda _: True)[1] is not None


def test_workers_that_were_all_killed_while_idle_cost_no_file(folder: Path) -> None:
    with Workers((PREPROCESSING,), LIMITS) as workers:
        workers.start(3)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        assert workers.load(str(folder / "picture-01.png"), lambda _: True)[1] is not None
        assert workers.run(thumbnail, (folder / "picture-01.png").read_bytes(), size=16)


@pytest.mark.slow
def test_a_worker_that_ends_with_a_picture_is_given_a_second_try_and_then_the_picture_is_to_blame(folder: Path) -> None:
    with Workers((PREPROCESSING,), LIMITS) as workers:
        with pytest.raises(ImageRejected, match=r"exit code 3"):
            workers.run(rigged, b"exit", inputs=(PREPROCESSING,))
        assert workers.replaced == 2
        workers.start(1)
        (child,) = multiprocessing.active_children()
        killed = threading.Timer(0.3, child.kill)
        killed.start()
        picture = b"sleep" + (folder / "picture-01.png").read_bytes()
        assert workers.run(rigged, picture, inputs=(PREPROCESSING,)).facts.format == "png"
        killed.join()
        assert workers.replaced == 3


def test_no_process_to_be_had_is_no_file_s_fault(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_process: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    place = tmp_path_factory.mktemp("index")
    with pytest.raises(WorkerFailed, match="Resource temporarily unavailable"):
        build(place, folder, FakeEncoder())
    with Index.open(place / "test.index") as index:
        assert index.info().failures == 0


def test_a_fork_server_that_ends_is_no_file_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_process: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with Workers((PREPROCESSING,), LIMITS) as workers, pytest.raises(WorkerFailed, match="fork server ended"):
        workers.start(1)


@pytest.mark.slow
def test_an_owner_that_forgets_its_workers_still_ends(folder: Path) -> None:
    program = (
        "from indexer.pictures.decode import DecodeLimits; from indexer.pictures.worker import Workers\n"
        "from conftest import recipe\n"
        "workers = Workers((recipe().preprocessing,), DecodeLimits())\n"
        f"print(workers.load({str(folder / 'picture-00.png')!r}, lambda _: True)[0])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == hashlib.sha256((folder / "picture-00.png").read_bytes()).hexdigest()


@pytest.mark.slow
def test_workers_end_with_their_owner(folder: Path) -> None:
    with Workers((PREPROCESSING,), LIMITS) as workers:
        threads = [
            threading.Thread(target=workers.load, args=(str(file), lambda _: True)) for file in folder.glob("*.png")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        children = multiprocessing.active_children()
        assert children
    assert not [child for child in children if child.is_alive()]


def build(tmp_path: Path, folder: Path, encoder: FakeEncoder) -> BuildReport:
    path = tmp_path / "test.index"
    if (path / "catalog.sqlite").exists():
        index = Index.open(path, writable=True)
    else:
        index = Index.create(path, [Space(name="layer2", recipe=recipe(), encoding=Encoding())])
    with index, index.writer() as writer:
        options = BuildOptions(workers=2)
        return Build(index, writer, lambda: encoder, options, Quiet(), lambda: False, time.perf_counter()).run(
            resolve_sources([folder], [], [])
        )


@pytest.mark.slow
def test_a_build_goes_on_without_the_files_that_end_workers(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.build.DecodeLimits", lambda: LIMITS)
    monkeypatch.setattr("indexer.build.Workers", lambda *arguments: Workers(*arguments, rigged))
    for name in ("abort", "hang", "swell"):
        (folder / f"{name}.png").write_bytes(name.encode())
    report = build(tmp_path_factory.mktemp("index"), folder, FakeEncoder())
    assert report.embedded == 12
    assert [Path(failed.path).stem for failed in report.failed] == ["abort", "hang", "swell"]


def test_an_image_that_the_encoder_cannot_bear_costs_itself_alone(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    white = Image.new("RGB", (32, 32), "white")  # FakeEncoder's poison
    white.save(folder / "picture-05b.png")
    white.save(folder / "picture-09b.png")  # the same image again, in a later batch
    place = tmp_path_factory.mktemp("index")
    report = build(place, folder, FakeEncoder())
    assert report.embedded == 12
    assert [failed.path for failed in report.failed] == ["picture-05b.png", "picture-09b.png"]
    assert all("cannot be embedded" in failed.reason for failed in report.failed)
    assert build(place, folder, FakeEncoder()).embedded == 0


def test_the_last_image_of_a_build_may_be_the_bad_one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    Image.new("RGB", (32, 32), "white").save(folder / "zz.png")  # after three full batches: alone in the fourth
    report = build(tmp_path_factory.mktemp("index"), folder, FakeEncoder())
    assert report.embedded == 12
    assert [failed.path for failed in report.failed] == ["zz.png"]


def test_an_encoder_that_bears_no_image_blames_no_file(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32), "white").save(tmp_path / "pictures" / "white.png")
    with pytest.raises(IndexerError, match="fails with every image"):
        build(tmp_path, tmp_path / "pictures", FakeEncoder())
    with Index.open(tmp_path / "test.index") as index:
        assert index.info().failures == 0


class Dying(FakeEncoder):
    """Works for two batches."""

    def encode(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        if len(self.batches) >= 2:
            self.batches.append(len(pixels))
            raise RuntimeError("device lost")
        return super().encode(pixels)


def test_an_encoder_that_breaks_on_the_way_blames_no_file(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("index")
    with pytest.raises(IndexerError, match=r"fails with every image \(it cannot be embedded: RuntimeError\)"):
        build(place, folder, Dying())
    with Index.open(place / "test.index") as index:
        assert index.info().failures == 0
        kept = index.info().images
    report = build(place, folder, FakeEncoder())
    assert report.embedded == 12 - kept
    assert not report.failed


def test_what_was_refused_once_is_refused_for_images_handed_in_meanwhile() -> None:
    class Refusing(FakeEncoder):
        def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
            self.batches.append(len(pixels))
            raise PrecisionTooLow(f"too low for {remaining}")

    encoder = Refusing()
    embedder = Embedder(lambda: encoder, lambda _: None)
    picture = np.zeros((32, 32, 3), np.uint8)
    for name in ("a", "b"):
        image = Decoded(
            location=Location(root="/", path=name, mtime_ns=0, size=0), id=name, facts=FACTS, pixels=picture
        )
        with pytest.raises(PrecisionTooLow):
            embedder.embed({name: image}, 2)
    assert encoder.batches == [1], "judged once"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_the_owners_affair(folder: Path, number: signal.Signals) -> None:
    with Workers((PREPROCESSING,), replace(LIMITS, seconds=10)) as workers:
        workers.load(str(folder / "picture-00.png"), lambda _: True)
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, number)
        time.sleep(0.1)
        workers.load(str(folder / "picture-01.png"), lambda _: True)
        assert child.is_alive()
