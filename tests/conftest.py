"""Shared parts: a small real index, tiny checkpoints, and a real server on a socket."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from coverage import Coverage
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from api.cli import main
from indexer.encoders.encoder import Precision
from indexer.packaged.package import cache_folder
from search.generations.policy import DEFAULT_POLICY, Policy
from search.index import Index
from search.recipe import IDENTITY, Preprocessing, Recipe, TransformSpec
from search.types import Encoding, ImageFacts, Location, NewImage, Space
from search.vectors import normalise

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may ask a model hub
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its core to the other tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are busy: each runs tests of its own

MEASURE = "COVERAGE_PROCESS_CONFIG"
"""The variable by which a process of Python is told to measure coverage."""
MEASURED = os.environ.pop(MEASURE, None) if "PYTEST_XDIST_WORKER" in os.environ else None
"""Its value, for servers alone: decoding processes, for one, are killed in the end, and would report nothing."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Slow tests run without coverage, which takes half their time again: most reach what fast ones reach."""
    slow, measuring = item.get_closest_marker("slow"), Coverage.current()
    if slow is None or slow.kwargs.get("measured") or measuring is None:
        return (yield)
    with mock.patch.dict(os.environ):
        os.environ.pop(MEASURE, None)
        measuring.stop()
        try:
            return (yield)
        finally:
            measuring.start()


DIM = 32


def recipe(layer: int = 2, dim: int = DIM, weights: str = "a") -> Recipe:
    """A recipe of a model that does not exist, for tests that bring their own vectors."""
    return Recipe(
        model="test",
        weights_sha256=weights * 64,
        layers=(layer,),
        pooling="cls",
        final_norm=(False,),
        preprocessing=Preprocessing(
            geometry="crop", resize=32, size=32, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        dim=dim,
    )


def image_id(number: int) -> str:
    """The id of the numbered image."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def vectors(count: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """(count, dim) random unit vectors."""
    return normalise(np.random.default_rng(seed).normal(size=(count, dim)))


def new_image(number: int, vector: NDArray[np.float32], *, spaces: Sequence[str] = ("layer2",)) -> NewImage:
    """The numbered image: its number is its width, and decides its labels, metadata and path."""
    return NewImage(
        id=image_id(number),
        facts=ImageFacts(width=number, height=7, format="png" if number % 3 else "jpeg", bytes=100 + number),
        location=Location(root="/photos", path=f"{number % 10}/{number}.png", mtime_ns=1, size=2),
        vectors=dict.fromkeys(spaces, vector),
        labels=("even",) if number % 2 == 0 else ("odd", "strange"),
        metadata={
            "number": number,
            "tags": ["all", f"t{number % 4}"],
            "name": f"image {number}",
            "even": number % 2 == 0,
            "thing": {"n": "n"},
            "lists": [[number]],
        },
    )


class FakeEncoder:
    """A deterministic encoder without a model: an image's vector is seeded by its pixels' hash."""

    names = ("layer2",)
    recipes = (recipe(),)
    inputs = (recipe().preprocessing,)
    backend = "torch"
    batch_size = 4

    def __init__(self, precision: Precision = "fp32", noise: float = 0.0) -> None:
        self.precision: Precision = precision
        self.noise = noise
        self.batches: list[int] = []

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """As `Encoder`: nothing."""

    def encode(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """As `Encoder`; an image of nothing but 255 is poison, and fails its batch."""
        self.batches.append(len(pixels))
        if any((image == 255).all() for image in pixels):
            raise RuntimeError("poisoned")
        return [normalise(np.stack([self._vector(image) for image in pixels]))]

    def per_core(self) -> tuple[FakeEncoder, ...]:
        """As `Encoder`: none."""
        return ()

    def _vector(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=DIM)
        return vector + self.noise * np.random.default_rng(seed + 1).normal(size=DIM)


class HeldEncoder(FakeEncoder):
    """Works while it is free, as it is at first; where it is not, `encode` has been `entered` and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()

    def encode(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """As FakeEncoder."""
        self.entered.set()
        assert self.free.wait(30)
        return super().encode(pixels)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports of tiny models do not push the user's own out of the cache; the packaged model is shared with it."""
    folder = tmp_path_factory.mktemp("cache")
    (cache_folder() / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(cache_folder() / "models")
    with mock.patch.dict(os.environ, {"LOOKALIKE_CACHE": str(folder)}):
        yield


@pytest.fixture(scope="session")
def made_indexes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[object, Callable[[Path], None]], Path]:
    """The index that was made for a key, to be copied; where there is none yet, it is made."""
    folder, made = tmp_path_factory.mktemp("made"), dict[object, Path]()

    def find(key: object, make: Callable[[Path], None]) -> Path:
        if key not in made:
            path = folder / f"{len(made)}.index"
            make(path)
            made[key] = path
        return made[key]

    return find


@pytest.fixture
def make_index(
    tmp_path: Path, made_indexes: Callable[[object, Callable[[Path], None]], Path]
) -> Iterator[Callable[..., Index]]:
    """Makes an index of the first `count` numbered images with these vectors: a copy of one that was made so before,
    which takes a third of the time, or less. fresh: not so, because the test has patched what makes it, or
    left files in its place."""
    opened: list[Index] = []

    def make(
        data: NDArray[np.float32],
        *,
        publish: bool = True,
        name: str = "test.index",
        policy: Policy = DEFAULT_POLICY,
        transform: TransformSpec = IDENTITY,
        fresh: bool = False,
    ) -> Index:
        made_of = recipe(dim=data.shape[1])
        space = Space(name="layer2", recipe=made_of, encoding=Encoding(), transform=transform)

        def create(path: Path) -> Index:
            index = Index.create(path, [space], policy=policy)
            opened.append(index)
            with index.writer() as writer:
                with writer.transaction() as transaction:
                    for number, vector in enumerate(data):
                        transaction.add(new_image(number, vector))
                if publish:
                    index.publish()
            return index

        if fresh:
            return create(tmp_path / name)
        key = (data.shape, hashlib.sha256(data.tobytes()).digest(), publish, policy, transform)
        shutil.copytree(made_indexes(key, lambda path: create(path).close()), tmp_path / name)
        opened.append(Index.open(tmp_path / name, writable=True, policy=policy))
        return opened[-1]

    yield make
    for index in opened:
        index.close()


@contextlib.contextmanager
def another_writer(path: Path) -> Iterator[None]:
    """Another process holds an index's lock, for which it waits while this one writes."""
    code = (
        "import sys; from pathlib import Path; from search.lock import write_lock\n"
        f"with write_lock(Path({str(path)!r}), timeout=30): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.communicate("")


COLOURS = ("red", "green", "blue", "orange", "purple", "teal")
SHAPES = ("circle", "square", "stripes")


def draw_picture(colour: str, shape: str, variant: int, size: int = 96) -> Image.Image:
    """A small distinct picture: a coloured shape on a light ground, both moved a little by `variant`."""
    picture = Image.new("RGB", (size, size - 16), (245, 240, 230 - variant))
    draw = ImageDraw.Draw(picture)
    left = 10 + 3 * (variant % 8)
    if shape == "circle":
        draw.ellipse((left, 12, left + 50, 62), fill=colour)
    elif shape == "square":
        draw.rectangle((left, 12, left + 44, 56), fill=colour)
    else:
        for line in range(4):
            draw.rectangle((left, 8 + 16 * line, left + 60, 16 + 16 * line), fill=colour)
    return picture


def write_photos(folder: Path, variants: Sequence[int] = (0, 1)) -> list[Path]:
    """Folders by colour with a picture of each shape and variant."""
    written = []
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for shape in SHAPES:
            for variant in variants:
                path = folder / colour / f"{shape}-{variant}.png"
                draw_picture(colour, shape, variant).save(path)
                written.append(path)
    return written


COMMAND = [sys.executable, "-c", "from api.cli import main; main()"]
"""The command line as a process of its own."""


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_cli(*arguments: str | Path, check: int | None = 0, **environment: str) -> Ended:
    """Run the command line inside this process, which has torch loaded already; fails unless it ends with `check`."""
    out, err = io.StringIO(), io.StringIO()
    words = ["lookalike", *map(str, arguments)]
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    result = Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())
    assert "Traceback" not in result.stderr, result.stderr
    assert check is None or result.returncode == check, result
    return result


@dataclass(frozen=True)
class Server:
    """A running `lookalike serve`."""

    url: str
    photos: Path
    queries: Path
    index: Path
    api_key: str | None = None


def start_server(index: Path, *flags: str) -> tuple[subprocess.Popen[str], str]:
    """Start `lookalike serve` on a free port; returns the process and its address once it answers."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if MEASURED is not None and Coverage.current() is not None:
        environment[MEASURE] = MEASURED
    process = subprocess.Popen(
        [*COMMAND, "serve", str(index), "--port", "0", *flags], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"(http://\S+:\d+) in a browser", line)
        if found:
            return process, found[1]
    raise AssertionError(f"the server ended with {process.wait()} before it announced its address")


def stop_server(process: subprocess.Popen[str]) -> int:
    """Stop a server by its process id, as an operator would; returns its exit code."""
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=30)
    if process.stdout is not None:
        process.stdout.close()
    return code


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny randomly initialised ViT: real model, real files, milliseconds an image."""
    from checkpoints import save  # imports torch: not for tests that need none

    return save("vit", tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[Path, Path, Path]:
    """A folder of photos, an index built of it with the tiny ViT, and a folder of other photos to query with."""
    base = tmp_path_factory.mktemp("built")
    write_photos(base / "photos")
    write_photos(base / "queries", variants=(2,))
    run_cli("build", base / "photos", "--index", base / "photos.index", "--model", checkpoint, "--label-from-folder")
    return base / "photos", base / "photos.index", base / "queries"


@pytest.fixture(scope="session")
def server(built: tuple[Path, Path, Path]) -> Iterator[Server]:
    """A real server on a socket, over the tiny ViT's index."""
    photos, index, queries = built
    process, url = start_server(index)
    yield Server(url=url, photos=photos, queries=queries, index=index)
    assert stop_server(process) == 0


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both clients of Python, by the same name in the module that uses this."""
    import client_kit
    from lookalike_client import Client

    chosen: Any = Client if request.param == "sync" else client_kit.Blocking
    client_kit.run_as(chosen, request.module, monkeypatch)
    return chosen


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def dropping_server() -> Iterator[Callable[..., tuple[str, list[bytes]]]]:
    """Starts a server that gives each connection the next of some raw answers, and hangs up."""
    listeners, threads = [], []

    def start(*answers: bytes) -> tuple[str, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        received: list[bytes] = []

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    heard = connection.recv(65536)
                    head, _, body = heard.partition(b"\r\n\r\n")  # all of it: unread, it would be a reset
                    size = int((re.search(rb"(?i)content-length: (\d+)", head) or [b"", b"0"])[1])
                    while len(body) < size:
                        body += connection.recv(65536)
                    received.append(heard)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        listeners.append(listener)
        return f"http://127.0.0.1:{listener.getsockname()[1]}", received

    yield start
    for thread in threads:
        thread.join(timeout=10)
    for listener in listeners:
        listener.close()
    assert not any(thread.is_alive() for thread in threads)
