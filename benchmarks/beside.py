"""One client's uploads to servers of this checkout and of another one, in turn, in one run.

    git worktree add --detach ../before COMMIT
    python benchmarks/beside.py ../before [--rounds 400] [--layer 11]

Two servers of each checkout run at the same time, and get the same picture in random order: how far two servers of one
checkout are apart is what this machine's noise makes. A shallow layer (`--layer 2`) shows what is not the model's.
Each server has an index of data/sample that its own checkout has built. Differences are paired: of each round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from machine import machine
from serving import COMMAND, ROOT, Uploads, row

WARM_UP = 30
"""Rounds that do not count."""
STAGES = ("decode", "encode", "search")
PAUSE_SECONDS = 0.002
"""Before each upload, so that the server before has nothing left to do."""


def environment(checkout: Path) -> dict[str, str]:
    """Variables with which a command runs a checkout's code."""
    return {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'client'}", "PYTHONUNBUFFERED": "1"}


@contextmanager
def served(checkout: Path, index: Path) -> Iterator[HTTPConnection]:
    """A connection to a running server of a checkout."""
    command = [*COMMAND, "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(checkout), cwd=checkout)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+:(\d+) in a browser", line):
                yield HTTPConnection("127.0.0.1", int(found[1]))  # connects with its first request
                return
        raise SystemExit(f"the server of {checkout} did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(connection: HTTPConnection, body: bytes) -> tuple[float, Mapping[str, float]]:
    """Milliseconds until the answer is here, and what the server says that its stages took."""
    began = time.perf_counter()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("POST", "/v1/search/image", body, headers)
    answer = connection.getresponse()
    data = answer.read()
    milliseconds = 1e3 * (time.perf_counter() - began)
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {data.decode()}")
    return milliseconds, json.loads(data)["took_ms"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="One client's uploads to servers of two checkouts, in turn.")
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=400, help="uploads to each server")
    parser.add_argument("--layer", default="11", help="the layer that is searched")
    options = parser.parse_args()
    checkouts = {"other": options.other.resolve(), "this": ROOT}
    print(f"{machine()}; layer {options.layer}, {options.rounds} rounds\n")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: dict[str, HTTPConnection] = {}
        for name, checkout in checkouts.items():
            index = folder / f"{name}.index"
            build = [*COMMAND, "build", ROOT / "data" / "sample", "--index", index, "--layer", options.layer]
            subprocess.run(build, check=True, env=environment(checkout), cwd=checkout, stdout=sys.stderr)
            for number in (1, 2):
                servers[f"{name} {number}"] = stack.enter_context(served(checkout, index))
        times: dict[str, list[float]] = {name: [] for name in servers}
        stages: dict[str, list[Mapping[str, float]]] = {name: [] for name in servers}
        requests = Uploads()
        for number in range(WARM_UP + options.rounds):
            body = requests(number).partition(b"\r\n\r\n")[2]
            for name in random.sample(list(servers), len(servers)):
                time.sleep(PAUSE_SECONDS)
                milliseconds, of_stages = ask(servers[name], body)
                if number >= WARM_UP:
                    times[name].append(milliseconds)
                    stages[name].append(of_stages)
    print("| server | p50, ms | beside the first of the other, ms | decode, encode, search, ms |\n" + 4 * "|---" + "|")
    first = times["other 1"]
    for name, here in times.items():
        apart = [one - two for one, two in zip(here, first, strict=True)]
        medians = [statistics.median(one[stage] for one in stages[name]) for stage in STAGES]
        took = ", ".join(f"{median:.2f}" for median in medians)
        row(name, f"{statistics.median(here):.2f}", f"{statistics.median(apart):+.2f}", took)


if __name__ == "__main__":
    main()
