"""kill -9 at random moments: nothing that was acknowledged is lost or changed, and nothing is doubled or invented.

Writers add, remove, describe, publish and compact, two at once, and tell each step before and after over a pipe. They
are killed, and a fresh process opens the index and compares every id and every vector's bytes with what was told.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from search.errors import IndexLocked
from search.index import Index
from torture.world import NUMBERS, POLICY, Figures, Model, checked, create, in_child, take

ROUNDS = 40
"""Kills of one index; then a new one."""
SLOWEST = 0.4
"""Seconds after which the last writers are killed."""
STEPS = {"add": 8, "remove": 4, "describe": 2, "publish": 4, "anew": 1, "compact": 1}
"""How often each is taken."""


def write(path: Path, seed: int, pipe: int, *, broken: bool) -> None:
    """Change the index until killed. broken: tell that it is done before it is, as a control."""
    chance = random.Random(seed)
    with Index.open(path, writable=True, policy=POLICY) as index:
        while True:
            step = chance.choices(list(STEPS), list(STEPS.values()))[0]
            numbers = chance.sample(range(NUMBERS), chance.choice((1, 3, 40)))
            _tell(pipe, "try", step, numbers)
            if broken:
                _tell(pipe, "done", step, numbers)
            while True:
                try:
                    take(index, step, numbers)
                    break
                except IndexLocked:  # the one beside publishes
                    time.sleep(0.001)
            _tell(pipe, "done", step, numbers)


def publish_beside(path: Path) -> None:
    """Publish, beside the writer, until killed."""
    with Index.open(path, writable=True, policy=POLICY) as index:
        while True:
            try:
                index.publish()
            except IndexLocked:
                time.sleep(0.001)


def killed(path: Path, seed: int, seconds: float, model: Model, *, broken: bool) -> int:
    """Let writers work for so long, then kill them; the model takes what was told. Returns the number of steps."""
    here, there = os.pipe()
    writer = _forked(lambda: write(path, seed, there, broken=broken), there)
    children = [writer]
    if seed % 2:
        children.append(_forked(lambda: publish_beside(path), there))
    os.close(there)
    told, until, first = b"", time.monotonic() + 60, True
    while (left := until - time.monotonic()) > 0:
        if select.select([here], [], [], left)[0]:
            block = os.read(here, 1 << 16)
            if not block:
                break
            told += block
            if first:
                until, first = time.monotonic() + seconds, False  # from its first step on
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    while block := os.read(here, 1 << 16):
        told += block
    os.close(here)
    lines = told.decode().splitlines()
    for line in lines:
        word, step, numbers = json.loads(line)
        if word == "failed":
            raise RuntimeError(step)
        model.tell(word, step, numbers)
    return len(lines) // 2


def _forked(work: Callable[[], None], pipe: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            _tell(pipe, "failed", f"{type(error).__name__}: {error}", [])
        finally:
            os._exit(1)
    return child


def _tell(pipe: int, *told: object) -> None:
    os.write(pipe, (json.dumps(told) + "\n").encode())


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Kill so many writers, or for so long, in indexes below `folder`."""
    chance, figures, until = random.Random(seed), Figures(), time.monotonic() + 60 * minutes
    model, path = Model(), folder / "none"
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        if figures.runs % ROUNDS == 0:
            shutil.rmtree(path, ignore_errors=True)
            model, path = Model(created=True), folder / f"{seed}-{figures.runs}.index"
            in_child(partial(create, path))
        number = seed * 1_000_003 + figures.runs
        figures.count("steps", killed(path, number, chance.random() ** 2 * SLOWEST, model, broken=broken))
        figures.count(f"killed during {model.during}")
        found = figures.judged(f"kill {number} (during {model.during})", in_child(partial(checked, path, model)))
        model.present, model.maybe = found, []
    return figures
