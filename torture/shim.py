"""shim.c in this process, and the fixed series of steps that runs under it."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from search.errors import SearchError
from search.index import Index
from torture.world import NUMBERS, POLICY, Model, check, create, take

KILL, TEAR = -1, -2
"""What shim.c does at a call, beside failing it with an errno."""


class Fate(NamedTuple):
    """What happens at a call: KILL, TEAR or an errno. forever: and at all that follow."""

    code: int
    forever: bool = False


def preloaded(folder: Path) -> dict[str, str]:
    """The environment of a process with the shim in place. Raises OSError without a C compiler."""
    shim = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(
        [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", shim, source, "-lpthread", "-ldl"], check=True
    )
    return {**os.environ, "LD_PRELOAD": str(shim)}


class Shim:
    """The shim in this process, which was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)

    def start(self, folder: Path, *, log: int = -1, at: int = 0, fate: Fate | None = None, reads: bool = False) -> None:
        """Watch the calls that change files below a folder; the `at`-th of them meets its fate. reads: all calls."""
        prefix = os.fsencode(folder.resolve())
        code, forever = (0, False) if fate is None else (fate.code, fate.forever)
        self._library.shim_start(prefix, log, ctypes.c_long(at), code, forever, reads)

    @property
    def count(self) -> int:
        """Calls so far."""
        self._library.shim_count.restype = ctypes.c_long
        return int(self._library.shim_count())

    def stop(self) -> None:
        """Let everything pass."""
        self._library.shim_stop()

    def mark(self, *told: object) -> None:
        """Note in the log what the writer tells."""
        self._library.shim_mark(json.dumps(told).encode())


def steps(seed: int) -> list[tuple[str, list[int]]]:
    """A series in which every kind of step happens: exact generations, graphs, growing and written anew, erasing."""
    chance = random.Random(seed)

    def some(count: int) -> list[int]:
        return sorted(chance.sample(range(NUMBERS), count))

    return [
        ("add", some(3)),
        ("publish", []),
        ("add", some(40)),
        ("publish", []),
        ("add", some(400)),
        ("publish", []),
        ("describe", some(3)),
        ("remove", some(5)),
        ("add", some(20)),
        ("publish", []),
        ("add", some(1)),
        ("remove", some(300)),
        ("publish", []),
        ("compact", []),
        ("add", some(2)),
    ]


def write(folder: Path, seed: int, tell: Callable[[str, str, list[int]], None]) -> list[str]:
    """Make an index in `folder` and take the steps. Returns what is wrong with it after a step that failed."""
    path, model, wrong, failures = folder / "index", Model(), list[str](), 0

    def told(word: str, step: str, numbers: list[int]) -> None:
        model.tell(word, step, numbers)
        tell(word, step, numbers)

    told("try", "create", [])
    try:
        create(path)
        told("done", "create", [])
        with Index.open(path, writable=True, policy=POLICY) as index:
            for step, numbers in steps(seed):
                told("try", step, numbers)
                try:
                    take(index, step, numbers)
                    told("done", step, numbers)
                except SearchError as error:
                    told("failed", step, numbers)
                    held, problems = check(index, model.allowed(), thoroughly=False)
                    told("held", step, sorted(held))
                    wrong += [f"after {step} failed ({error}): {problem}" for problem in problems]
                    failures += 1
                    if failures == 3:
                        break
    except SearchError:
        pass
    except Exception as error:  # it should say what to do
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong
