"""Serving: latency, throughput, overload, slow clients and long running, of a real server on 127.0.0.1.

    python benchmarks/serving.py [INDEX] [--only lone latency byid overload slow soak] [--seconds 20] [--soak 200000]

INDEX: an index of the packaged model (`lookalike build`); without one, of the drawings in data/sample. Uploads are
JPEGs of 640 x 480 pixels, each different, so that none is known by content. The ceiling is what cores could answer if
they did nothing but decode, encode full batches, and run this generator; all three are measured in the same run.
(Named `http.py`, this file would be taken for Python's own package.)
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
from load import Load, closed, open_loop
from machine import machine
from PIL import Image

from indexer.encoders.encoder import Encoder
from indexer.encoders.load import encoder_for
from indexer.pictures.decode import DecodeLimits, decode_pixels, keep_memory
from search.index import Index
from search.recipe import Preprocessing

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from api.cli import main; main()"]
SIZE = (640, 480)
CLIENTS = (1, 4, 16, 64)
REPEATED = (1, 4, 16, 16, 16, 64)
"""Clients that upload; what is promised, several times: machines change their speed from minute to minute, by a
quarter."""
BLOCKS, BLOCK_SECONDS = 40, 3.0
STEADY = 1.03
"""How many times as long a call may take before a block of one client's uploads as after it, or the other way round."""
BATCHES = 15
PARTS = ("lone", "latency", "byid", "overload", "slow", "soak")


def pictures() -> list[bytes]:
    """JPEGs of SIZE: drawings of the sample, scaled up, on noise, so that they are as large as photos."""
    random = np.random.default_rng(0)
    found = []
    for path in sorted((ROOT / "data" / "sample").rglob("*.png"))[:64]:
        ground = Image.fromarray(random.integers(150, 250, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8))
        picture = ground.resize(SIZE, Image.Resampling.BICUBIC)
        with Image.open(path) as drawing:
            scaled = drawing.convert("RGBA").resize((420, 420))
            picture.paste(scaled, (110, 30), scaled)
        out = BytesIO()
        picture.save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


class Uploads:
    """The nth request to search by an upload, each of other content: a JPEG may be followed by anything."""

    def __init__(self, known: bool = False) -> None:
        """known: only a few pictures, again and again."""
        self._pictures = pictures()
        self._known = known

    def __call__(self, number: int) -> bytes:
        data = self._pictures[number % len(self._pictures)]
        if not self._known:
            data += number.to_bytes(8, "big") + os.urandom(8)
        body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="q"\r\n\r\n' + data + b"\r\n--b--\r\n"
        head = (
            "POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class ById:
    """The nth request for the ten nearest of an indexed image."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def __call__(self, number: int) -> bytes:
        image_id = self._ids[number * 7919 % len(self._ids)]
        return f"GET /v1/images/{image_id}/similar HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def health(_number: int) -> bytes:
    """A probe."""
    return b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def apart(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


class Costs(NamedTuple):
    """Milliseconds of one encoder call and of one decoding; images a second, and processor milliseconds each, of full
    batches.
    """

    encode_ms: float
    decode_ms: float
    batched_rate: float
    batched_processor_ms: float


@functools.cache
def encoder_of(path: Path) -> tuple[Encoder, Preprocessing]:
    """An index's encoder, loaded once a process."""
    with Index.open(path) as index:
        return encoder_for(index.spaces, index.models), index.spaces[0].recipe.preprocessing


def singly(path: Path) -> tuple[float, float]:
    """Milliseconds of one encoder call, and of one decoding, by themselves."""
    encoder, preprocessing = encoder_of(path)
    keep_memory()  # as decoding processes do
    data = pictures()
    decoded = [decode_pixels(one, (preprocessing,), limits=DecodeLimits()) for one in data]
    one, decoding = [], []
    for number in range(40):
        began = time.perf_counter()
        encoder.encode(decoded[number][None])
        one.append(time.perf_counter() - began)
        began = time.perf_counter()
        decode_pixels(data[number], (preprocessing,), limits=DecodeLimits())
        decoding.append(time.perf_counter() - began)
    return 1e3 * statistics.median(one), 1e3 * statistics.median(decoding)


def costs(path: Path) -> Costs:
    """What decoding and encoding take by themselves."""
    encoder, preprocessing = encoder_of(path)
    some = [decode_pixels(one, (preprocessing,), limits=DecodeLimits()) for one in pictures()]
    full = np.stack([some[number % len(some)] for number in range(encoder.batch_size)])
    for _ in range(5):
        encoder.encode(full)
    encode_ms, decode_ms = singly(path)
    began, before = time.perf_counter(), time.process_time()
    for _ in range(BATCHES):
        encoder.encode(full)
    images = BATCHES * encoder.batch_size
    return Costs(
        encode_ms=encode_ms,
        decode_ms=decode_ms,
        batched_rate=images / (time.perf_counter() - began),
        batched_processor_ms=1e3 * (time.process_time() - before) / images,
    )


@contextmanager
def serving(index: Path, **environment: str) -> Iterator[tuple[int, psutil.Process]]:
    """A running server: its port and process."""
    process = subprocess.Popen(
        [*COMMAND, "serve", str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://\S+:(\d+) in a browser", line):
                yield int(found[1]), psutil.Process(process.pid)
                return
        raise SystemExit("the server did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def row(*cells: Any) -> None:
    """One line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def lone(index: Path) -> None:
    """One client's uploads in short blocks, each between two measurements of an encoder call: those beside which the
    machine kept its speed, by what a call takes, to four milliseconds.
    """
    blocks: dict[int, list[tuple[float, float]]] = {}
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as aside,
        serving(index) as (port, _),
    ):
        closed(port, Uploads(), clients=8, seconds=3)
        before, _ = aside.submit(singly, index).result()
        for number in range(BLOCKS):
            load: Load = apart(closed, port, Uploads(), clients=1, seconds=BLOCK_SECONDS, first=number * 10**6)
            after, _ = aside.submit(singly, index).result()
            if max(before, after) <= STEADY * min(before, after):
                call = (before + after) / 2
                blocks.setdefault(round(call / 4), []).append((call, load.quantile(0.5, 200)))
            before = after
    print("\n| blocks of one client | one encoder call, ms | p50, ms | p50 in calls (range) |\n" + 4 * "|---" + "|")
    for _, these in sorted(blocks.items()):
        calls, p50s = zip(*these, strict=True)
        ratios = [p50 / call for call, p50 in these]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
        row(f"{len(these)} of {BLOCKS}", f"{statistics.median(calls):.1f}", f"{statistics.median(p50s):.1f}", spread)


def latency(index: Path, seconds: float) -> None:
    """Uploads by 1 to 64 clients, each beside what the encoder alone does just before and after."""
    shares = []
    print(
        "\n| clients | answers/s | p50, ms | p99, ms | one encoder call, ms | p50 in calls | batched, images/s "
        "| processor each, ms | decoding, ms | of the ceiling |\n" + 10 * "|---" + "|"
    )
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as aside,
        serving(index, LOOKALIKE_MAX_WAITING=str(max(CLIENTS))) as (port, _),
    ):
        closed(port, Uploads(), clients=8, seconds=3)
        before = aside.submit(costs, index).result()
        for number, clients in enumerate(REPEATED):
            load: Load = apart(closed, port, Uploads(), clients=clients, seconds=seconds, first=number * 10**6)
            after = aside.submit(costs, index).result()
            alone = Costs(*(statistics.mean(both) for both in zip(before, after, strict=True)))
            before = after
            own = 1e3 * load.processor / max(1, len(load.answers))
            ceiling = 1e3 * (os.cpu_count() or 1) / (alone.decode_ms + alone.batched_processor_ms + own)
            rate, p50 = load.rate(200), load.quantile(0.5, 200)
            shares += [rate / ceiling] if clients == 16 else []
            row(
                clients,
                f"{rate:.1f}",
                f"{p50:.1f}",
                f"{load.quantile(0.99, 200):.1f}",
                f"{alone.encode_ms:.1f}",
                f"{p50 / alone.encode_ms:.2f}",
                f"{alone.batched_rate:.1f}",
                f"{alone.batched_processor_ms:.1f}",
                f"{alone.decode_ms:.1f}",
                f"{rate / ceiling:.2f} of {ceiling:.1f}/s",
            )
            if set(load.statuses()) - {200}:
                print("answers:", load.statuses())
        known: Load = apart(closed, port, Uploads(known=True), clients=16, seconds=seconds)
        row(
            "16, known by content",
            f"{known.rate(200):.0f}",
            f"{known.quantile(0.5, 200):.1f}",
            f"{known.quantile(0.99, 200):.1f}",
            *6 * ("",),
        )
    print(f"of the ceiling, 16 clients, mean: {statistics.mean(shares):.3f}")


def by_id(index: Path, seconds: float) -> None:
    """The ten nearest of indexed images, by 1 to 64 clients."""
    with Index.open(index) as opened:
        ids = [record.id for record in opened.catalog.page(0, 5000)[0]]
    print("\n| clients, by id | answers/s | p50, ms | p99, ms | generator's processor |\n|---|---|---|---|---|")
    with serving(index) as (port, _):
        closed(port, ById(ids), clients=8, seconds=2)
        for clients in CLIENTS:
            load: Load = apart(closed, port, ById(ids), clients=clients, seconds=seconds)
            share = f"{load.processor / seconds:.2f} of a core"
            row(
                clients,
                f"{load.rate(200):.0f}",
                f"{load.quantile(0.5, 200):.1f}",
                f"{load.quantile(0.99, 200):.1f}",
                share,
            )
    with serving(index) as (one, _), serving(index) as (other, _):
        for port in (one, other):
            closed(port, ById(ids), clients=8, seconds=2)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            asked = [pool.submit(closed, port, ById(ids), clients=32, seconds=seconds) for port in (one, other)]
            loads: list[Load] = [answered.result() for answered in asked]
        row(
            "64, two servers",
            f"{sum(load.rate(200) for load in loads):.0f}",
            f"{max(load.quantile(0.5, 200) for load in loads):.1f}",
            f"{max(load.quantile(0.99, 200) for load in loads):.1f}",
            f"{sum(load.processor for load in loads) / seconds:.2f} of a core",
        )


def overload(index: Path, seconds: float) -> None:
    """More than the encoder can do, at twice and ten times its rate; then as before."""
    with serving(index) as (port, _):
        closed(port, Uploads(), clients=8, seconds=3)
        print(
            "\n| asked for | peak before and after, by 32 clients | accepted/s | of the peak "
            "| of what the generator leaves of it | p99, ms | refused/s | p50, p99, ms | /healthz p99, ms "
            "| one client in the 5 s after, p50, ms | other |\n" + 11 * "|---" + "|"
        )

        def peak_of(number: int) -> tuple[float, float]:
            load = apart(closed, port, Uploads(), clients=32, seconds=seconds / 6, first=(number + 1) * 10**6)
            return load.rate(200), 1 - load.processor / load.seconds / (os.cpu_count() or 1)

        before = peak_of(0)
        for number, times in enumerate((0.9, 1.0, 2.0, 10.0), start=1):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as beside:
                probes = beside.submit(open_loop, port, health, rate=20, seconds=seconds)
                load: Load = apart(
                    open_loop, port, Uploads(), rate=times * before[0], seconds=seconds, first=int(times * 10**8)
                )
                probed: Load = probes.result()
            normal: Load = apart(closed, port, Uploads(), clients=1, seconds=5, first=int((times + 20) * 10**8))
            after = peak_of(number)
            peak, peak_left = (statistics.mean(both) for both in zip(before, after, strict=True))
            left = 1 - load.processor / load.seconds / (os.cpu_count() or 1)
            share = load.rate(200) / peak
            other = {status: count for status, count in load.statuses().items() if status not in (200, 429)}
            row(
                f"{times:g}x",
                f"{before[0]:.1f}, {after[0]:.1f}",
                f"{load.rate(200):.1f}",
                f"{share:.2f}",
                f"{share * peak_left / left:.2f}",
                f"{load.quantile(0.99, 200):.0f}",
                f"{load.rate(429):.0f}",
                f"{load.quantile(0.5, 429):.1f}, {load.quantile(0.99, 429):.1f}",
                f"{probed.quantile(0.99, 200):.1f}",
                f"{normal.quantile(0.5, 200):.1f}",
                other or "",
            )
            before = after


def slow(index: Path, seconds: float) -> None:
    """A thousand sockets that are idle, or send or read next to nothing, beside one client."""
    with serving(index) as (port, process):
        closed(port, Uploads(), clients=8, seconds=3)
        before: Load = apart(closed, port, Uploads(), clients=1, seconds=seconds, first=10**6)
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
        head = b"POST /v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        for number, one in enumerate(sockets):
            one.setblocking(False)
            one.send((b"", b"GET / HT", head, head + b"Content-Length: 100000\r\n\r\n--b")[number % 4])
        began, ended = time.monotonic(), [0.0]

        def drip() -> None:
            left = set(range(1000))
            while left and time.monotonic() - began < 60:
                time.sleep(0.5)
                for number in list(left):
                    try:
                        if number % 4 > 1:
                            sockets[number].send(b"x")
                        if not sockets[number].recv(65536):
                            left.discard(number)
                    except BlockingIOError:
                        pass
                    except OSError:
                        left.discard(number)
            ended[0] = time.monotonic() - began if not left else float("inf")

        dripping = threading.Thread(target=drip)
        dripping.start()
        during: Load = apart(closed, port, Uploads(), clients=1, seconds=8, first=2 * 10**6)
        dripping.join()
        for one in sockets:
            one.close()
        print(
            f"\n1,000 slow or idle sockets: all closed after {ended[0]:.1f} s; one client meanwhile p99 "
            f"{during.quantile(0.99, 200):.1f} ms (before {before.quantile(0.99, 200):.1f}), {during.statuses()}; "
            f"{process.num_fds()} files open after"
        )


def soak(index: Path, count: int) -> None:
    """Many requests of all kinds; what the server's process holds before and after.

    With so few embeddings remembered by content that they are as many as there may be from the first row on.
    """
    with (
        serving(index, LOOKALIKE_CACHED_EMBEDDINGS="100") as (port, process),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        ids = [image["id"] for image in http.get("/v1/images", params={"limit": 1000}).json()["images"]]
        upload, similar = Uploads(), ById(ids)
        added: list[str] = []
        data = pictures()

        def facts() -> tuple[float, int, int, int]:
            return (
                process.memory_info().rss / 1e6,
                process.num_fds(),
                process.num_threads(),
                len(process.net_connections()),
            )

        def mixed(number: int) -> bytes:
            return upload(number) if number % 20 == 0 else similar(number)

        def change(number: int) -> None:
            file = data[number % len(data)] + os.urandom(16)
            added.append(http.post("/v1/images", files={"image": ("a", file)}).raise_for_status().json()["id"])
            if len(added) > 20:
                http.delete(f"/v1/images/{added.pop(0)}").raise_for_status()

        done, told, warm, number = 0, 0, None, 0
        print("\n| requests | RSS, MB | files | threads | sockets |\n|---|---|---|---|---|")
        while done < count:
            load = closed(port, mixed, clients=8, seconds=5, first=done)
            done += len(load.answers)
            if set(load.statuses()) - {200}:
                print("answers:", load.statuses())
            for _ in range(10):
                change(number)
                number += 1
                done += 2
            if done >= told:
                time.sleep(0.5)
                now = facts()
                row(f"{done:,}", f"{now[0]:.0f}", *now[1:])
                told += count // 10
                if warm is None and done >= count // 10:
                    warm = now
        time.sleep(15)  # kept connections are closed
        now = facts()
        assert warm is not None
        row("at the end, idle", f"{now[0]:.0f} ({now[0] - warm[0]:+.0f} since warm)", *now[1:])


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--soak", type=int, default=200_000)
    chosen = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        index = chosen.index
        if index is None:
            index = Path(folder) / "sample.index"
            build = [*COMMAND, "build", str(ROOT / "data" / "sample"), "--index", str(index), "--layer", "11"]
            subprocess.run(build, check=True)
        if "lone" in chosen.only:
            lone(index)
        if "latency" in chosen.only:
            latency(index, chosen.seconds)
        if "byid" in chosen.only:
            by_id(index, chosen.seconds)
        if "overload" in chosen.only:
            overload(index, 3 * chosen.seconds)
        if "slow" in chosen.only:
            slow(index, chosen.seconds)
        if "soak" in chosen.only:
            soak(index, chosen.soak)


if __name__ == "__main__":
    main()
