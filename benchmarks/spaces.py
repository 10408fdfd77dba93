"""Searches while a space is added to a served index, while a build adds as many images, and while nothing else is done.

    python benchmarks/spaces.py [--count 10000] [--built 11] [--layer 7] [--rate 20] [--model NAME] [--pictures]

Makes COUNT small JPEGs of the sample's drawings with noise, builds an index of them (of the layer `--built`; shallow
ones take minutes on a slow machine), serves it, and asks RATE times a second, at random moments: by the ids of indexed
images, or, with --pictures, by a new picture each time, which the encoder has to embed. One after the other: nothing
else for 30 seconds; a space is added over HTTP and filled; a build adds COUNT other images.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from load import Load, open_loop
from lookalike_client import Client
from machine import machine
from PIL import Image

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
COMMAND = [sys.executable, "-c", "from api.cli import main; main()"]
SIDE = 256
IDLE_SECONDS = 30.0
SHOWN_SLOWEST = 8
"""Queries of a phase whose moments are printed: at its beginning, when a model is loaded, or at its end."""
SLICE_SECONDS = 5.0
"""Of one call of the load generator, which is asked again until a phase is over."""


def draw(sources: list[Path], folder: Path, numbers: range) -> None:
    """JPEGs of the sample's drawings, each with a noise of its own."""
    for number in numbers:
        (folder / f"{number:06}.jpg").write_bytes(noisy(sources[number % len(sources)], number))


def noisy(source: Path, seed: int) -> bytes:
    """One of them."""
    with Image.open(source) as opened:
        small = opened.convert("RGBA").resize((SIDE, SIDE))
    ground = Image.new("RGBA", small.size, "white")
    ground.alpha_composite(small)
    noise = np.random.default_rng(seed).normal(0, 12, (SIDE, SIDE, 1))
    pixels = (np.asarray(ground.convert("RGB"), np.float32) + noise).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()


class ById:
    """The nth request for the ten nearest of an indexed image."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def __call__(self, number: int) -> bytes:
        path = f"/v1/images/{self._ids[number * 7919 % len(self._ids)]}/similar"
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class ByPicture:
    """The nth request for the ten nearest of a picture that nobody has seen before."""

    def __init__(self, sources: list[Path]) -> None:
        self._sources = sources

    def __call__(self, number: int) -> bytes:
        data = noisy(self._sources[number % len(self._sources)], 10_000_000 + number)
        body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="i"\r\n\r\n' + data + b"\r\n--x--\r\n"
        head = f"POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + body


class Asking:
    """Asks a server in a process of its own while a phase lasts."""

    def __init__(self, port: int, make: Callable[[int], bytes], rate: float) -> None:
        self._port, self._make, self._rate = port, make, rate
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._asked = 0

    def during(self, work: Callable[[], Any]) -> tuple[Load, Any]:
        """The answers while some work was done, and what it came to."""
        together = Load(0.0)
        with ThreadPoolExecutor(1) as beside:
            doing: Future[Any] = beside.submit(work)
            while not doing.done():
                asked = self._pool.submit(
                    open_loop, self._port, self._make, rate=self._rate, seconds=SLICE_SECONDS, first=self._asked
                )
                load = asked.result()
                together.answers += load.answers
                self._asked += len(load.answers)
            return together, doing.result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def told(name: str, load: Load, seconds: float, images: int) -> dict[str, Any]:
    """What came of a phase, as it is printed."""
    statuses = load.statuses()
    return {
        "while": name,
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1),
        "queries": len(load.answers),
        "errors": sum(count for status, count in statuses.items() if status != 200),
        "p50_ms": round(load.quantile(0.5, 200), 1),
        "p99_ms": round(load.quantile(0.99, 200), 1),
        "slowest": [
            {"ms": round(1e3 * took, 1), "at_s": round(at - load.began, 1)}
            for at, took, _ in sorted(load.answers, key=lambda one: -one[1])[:SHOWN_SLOWEST]
        ],
    }


def serve(index: Path) -> tuple[subprocess.Popen[str], int]:
    """A running server, and its port."""
    process = subprocess.Popen(
        [*COMMAND, "serve", str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+:(\d+) in a browser", line):
            return process, int(found[1])
    raise RuntimeError("the server did not start")


def build(photos: Path, index: Path, *words: str) -> dict[str, Any]:
    """Run a build; returns what it tells."""
    command = [*COMMAND, "build", str(photos), "--index", str(index), "--json", *words]
    answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answer


def add(port: int, layer: int) -> int:
    """Add a space, and wait until it is complete; returns how many images it holds."""
    with Client(f"http://127.0.0.1:{port}", timeout=120) as client:
        name = client.add_space(layer).name
        while True:
            space = next(space for space in client.spaces() if space.name == name)
            if space.complete:
                return space.count
            if not space.filling:
                raise RuntimeError(f"filling stopped at {space.count} of {space.images}")
            time.sleep(0.5)


def main() -> None:
    """Measure and print, one JSON object a phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--built", default="11", metavar="LAYER")
    parser.add_argument("--layer", type=int, default=7)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--model")
    parser.add_argument("--pictures", action="store_true", help="ask by new pictures, which are encoded")
    chosen = parser.parse_args()
    sources = sorted(path for path in SAMPLE.rglob("*") if path.is_file())
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "photos.index")
        for name, first in (("photos", 0), ("more", chosen.count)):
            Path(folder, name).mkdir()
            draw(sources, Path(folder, name), range(first, first + chosen.count))
        began = build(
            Path(folder, "photos"), index, *(("--model", chosen.model) if chosen.model else ("--layer", chosen.built))
        )
        print(f"built {began['added']} images at {began['images_per_second']} a second", flush=True)
        process, port = serve(index)
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                ids = [image.id for image in client.images(page_size=1000)]
            make: Callable[[int], bytes] = ByPicture(sources) if chosen.pictures else ById(ids)
            asking = Asking(port, make, chosen.rate)
            asking.during(lambda: time.sleep(1))  # the first searches load what they need
            phases: tuple[tuple[str, Callable[[], Any]], ...] = (
                ("nothing else", lambda: time.sleep(IDLE_SECONDS)),
                (f"layer {chosen.layer} is added", lambda: add(port, chosen.layer)),
                ("a build adds as many images", lambda: build(Path(folder, "more"), index)["embedded"]),
                ("nothing else, at the end", lambda: time.sleep(IDLE_SECONDS)),
            )
            for name, work in phases:
                start = time.perf_counter()
                load, images = asking.during(work)
                seconds = time.perf_counter() - start
                print(json.dumps(told(name, load, seconds, images or 0)), flush=True)
            asking.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


if __name__ == "__main__":
    main()
