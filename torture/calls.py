"""Every call that changes a file: killed before it, killed in the midst of it, failed there for want of room or health.

What was acknowledged must be there afterwards; what failed must have said so; and searches go on meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path

from torture.shim import KILL, TEAR, Shim, write
from torture.world import Figures, Model, checked, in_child


def count(folder: Path, seed: int, shim: Shim) -> int:
    """How many calls the steps make."""

    def work() -> int:
        shim.start(folder)
        write(folder, seed, lambda *_: None)
        return shim.count

    counted = in_child(work)
    assert isinstance(counted, int)
    return counted


def torture(folder: Path, seed: int, *, every: int = 1, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Let each call (or one in so many) meet each fate. broken: errors are taken for success, as a control."""
    shim, figures, until = Shim(), Figures(), time.monotonic() + 60 * minutes
    (folder / "counting").mkdir()
    total = count(folder / "counting", seed, shim)
    figures.count("calls", total)
    fates = {
        "no room from it on": (errno.ENOSPC, True),
        "killed before it": (KILL, False),
        "killed in it": (TEAR, False),
        "no room for it": (errno.ENOSPC, False),
        "failed once": (errno.EIO, False),
    }
    if broken:
        fates = {name: fate for name, fate in fates.items() if fate[1]}
    numbers = list(range(1, total + 1))
    random.Random(seed).shuffle(numbers)  # so that short slices do not all meet the first calls
    for at in numbers[: -(-total // every)]:
        for name, (fate, forever) in fates.items():
            if time.monotonic() > until or figures.wrong:
                return figures
            here = folder / f"{at}"
            here.mkdir()
            run = f"call {at} of seed {seed}, {name}"
            log = folder / "told"
            log.write_bytes(b"")
            work = partial(_faulted, here, seed, log, shim, at, fate, forever, broken)
            wrong = in_child(work)
            model = Model()
            for line in log.read_text().splitlines():
                model.tell(*json.loads(line))
            if isinstance(wrong, list):
                figures.wrong += [f"{run}: {problem}" for problem in wrong]
            elif fate > 0:
                figures.wrong.append(f"{run}: the writer died")
            figures.judged(run, in_child(partial(checked, here / "index", model)))
            figures.count(name)
            shutil.rmtree(here)
    return figures


def _faulted(
    here: Path, seed: int, log: Path, shim: Shim, at: int, fate: int, forever: bool, broken: bool
) -> list[str]:
    out = os.open(log, os.O_WRONLY | os.O_APPEND)

    def tell(word: str, step: str, numbers: list[int]) -> None:
        if broken and word == "held":
            return
        word = "done" if broken and word == "failed" else word
        os.write(out, (json.dumps((word, step, numbers)) + "\n").encode())

    shim.start(here, at=at, fate=fate, forever=forever)
    return write(here, seed, tell)
