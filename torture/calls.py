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
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torture.shim import KILL, TEAR, Fate, Shim, write
from torture.world import Figures, Model, checked, in_child

FATES = {
    "no room from it on": Fate(errno.ENOSPC, forever=True),
    "killed before it": Fate(KILL),
    "killed in it": Fate(TEAR),
    "no room for it": Fate(errno.ENOSPC),
}
FAILED = {"failed once": Fate(errno.EIO)}
"""Of these calls, those that only open or read included."""


def count(folder: Path, seed: int, shim: Shim, *, reads: bool) -> int:
    """How many calls the steps make."""
    folder.mkdir()

    def work() -> int:
        shim.start(folder, reads=reads)
        write(folder, seed, lambda *_: None)
        return shim.count

    counted = in_child(work)
    assert isinstance(counted, int)
    return counted


def torture(
    folder: Path, seed: int, *, every: int = 1, skip: int = 0, minutes: float = 1e9, broken: bool = False
) -> Figures:
    """Let each call (or one in so many) meet each fate, then go on with the next seed.

    skip: so many were done before. broken: errors are taken for success, as a control.
    """
    shim, figures, until = Shim(), Figures(), time.monotonic() + 60 * minutes
    while True:
        runs = _runs(folder / f"counting {seed}", seed, shim)
        if broken:
            runs = [run for run in runs if run[2].forever]
        random.Random(seed).shuffle(runs)  # so that short slices do not all meet the first calls
        chosen = runs[: -(-len(runs) // every)]
        for at, name, fate, reads in chosen[skip:]:
            if time.monotonic() > until or figures.wrong:
                return figures
            run = f"call {at} of seed {seed}, {name}"
            _run(folder, run, figures, partial(_faulted, seed, shim, at, fate, reads, broken), dies=fate.code < 0)
            figures.count(name)
            figures.count(f"of all {len(runs)} with seed {seed}")
        if every > 1:
            return figures
        skip, seed = max(0, skip - len(chosen)), seed + 1


def _runs(folder: Path, seed: int, shim: Shim) -> list[tuple[int, str, Fate, bool]]:
    """Every call with every fate, and whether reads are counted."""
    folder.mkdir()
    runs = []
    for fates, reads in ((FATES, False), (FAILED, True)):
        total = count(folder / f"{reads}", seed, shim, reads=reads)
        runs += [(at, name, fate, reads) for at in range(1, total + 1) for name, fate in fates.items()]
    return runs


def _run(folder: Path, run: str, figures: Figures, faulted: Callable[[Path, Path], list[str]], *, dies: bool) -> None:
    """One writer that meets a fault, and what is left behind."""
    here, log = folder / "here", folder / "told"
    here.mkdir()
    log.write_bytes(b"")
    wrong = in_child(lambda: faulted(here, log))
    model = Model()
    for line in log.read_text().splitlines():
        model.tell(*json.loads(line))
    if isinstance(wrong, list):
        figures.wrong += [f"{run}: {problem}" for problem in wrong]
    elif not dies:
        figures.wrong.append(f"{run}: the writer died")
    figures.judged(run, in_child(partial(checked, here / "index", model)))
    shutil.rmtree(here)


def _faulted(seed: int, shim: Shim, at: int, fate: Fate, reads: bool, broken: bool, here: Path, log: Path) -> list[str]:
    out = os.open(log, os.O_WRONLY | os.O_APPEND)

    def tell(word: str, step: str, numbers: list[int]) -> None:
        if broken and word == "held":
            return
        word = "done" if broken and word == "failed" else word
        os.write(out, (json.dumps((word, step, numbers)) + "\n").encode())

    shim.start(here, at=at, fate=fate, reads=reads)
    return write(here, seed, tell)
