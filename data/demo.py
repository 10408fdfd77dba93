"""The whole of Lookalike in a minute: build, serve, ask through the client, draw the answer. Run by `make demo`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike_client import Client

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"
QUERIES = ROOT / "data" / "queries"
DEMO = ROOT / "demo"
QUERY = QUERIES / "strawberry.png"
WORDS = "something to drink from"
COMMAND = Path(sys.executable).with_name("lookalike")


def run(*arguments: str | Path) -> None:
    """Show a command, run it, and end the demo with its exit code if it fails."""
    print(f"\n$ lookalike {' '.join(_shown(argument) for argument in arguments)}", flush=True)
    code = subprocess.run([COMMAND, *arguments], check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def server(index: Path) -> Iterator[str]:
    """A running `lookalike serve` on a free port: its address."""
    print(f"\n$ lookalike serve {_shown(index)}", flush=True)
    process = subprocess.Popen([COMMAND, "serve", index, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        yield _address(process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"http://\S+:\d+", line):
            return found[0]
    sys.exit(process.wait())


def _shown(argument: str | Path) -> str:
    return os.path.relpath(argument, ROOT) if isinstance(argument, Path) else argument


def main() -> None:
    """Build, serve, ask, draw, and say what to type next."""
    began = time.perf_counter()
    index = DEMO / "sample.index"
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    run("build", SAMPLE, "--index", index, "--label-from-folder")
    with server(index) as url, Client(url) as client:
        print(f'\n>>> client = Client("{url}")\n>>> client.search("{_shown(QUERY)}", k=5)')
        answer = client.search(QUERY, k=5)
        for hit in answer:
            print(f"{hit.score:.4f}  {_shown(Path(hit.path or hit.id))}  {', '.join(hit.labels)}")
        print(f"{answer.took_ms['total']:.0f} ms on the server")
        print(f'\n>>> client.search(text="{WORDS}", k=3)')
        for hit in client.search(text=WORDS, k=3):
            print(f"{hit.score:.4f}  {_shown(Path(hit.path or hit.id))}  {', '.join(hit.labels)}")
    sheet = DEMO / "contact-sheet.png"
    run("search", QUERY, "--index", index, "-k", "10", "--sheet", sheet)
    here, drawn, made, asked = (
        os.path.relpath(path, Path.cwd()) for path in (COMMAND, sheet, index, QUERIES / "teddy-bear.webp")
    )
    print(
        f"""
Done in {time.perf_counter() - began:.0f} s. Look at {drawn}, then try:

    {here} serve {made}          # a web page: drop a picture on it
    {here} search {asked} --index {made}
    {here} search "a bird" --index {made}
    {here} build PHOTOS          # your own pictures, into ./lookalike.index
"""
    )


if __name__ == "__main__":
    main()
