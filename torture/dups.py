"""kill -9 while duplicates go and come back: no content is lost, and every step is done or not.

Files with copies lie in folders, known to an index. A process lets the copies go: moved, linked, or deleted. It is
killed at random, and the next one goes on, killed too, until one ends; so do those that take the run back. After each
kill every content is on the disk in full, and nothing lies under a picture's name but what was there.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from analysis.duplicates import runs as dups
from analysis.duplicates.find import find
from analysis.duplicates.keep import parse_rules
from analysis.duplicates.plan import Action, decide, plan
from search.index import Index
from search.types import Location
from torture.world import Figures, create, image, in_child

ACTIONS: tuple[Action, ...] = ("move", "hardlink", "delete")
CONTENTS, COPIES = 12, 3
"""Different files, and how many copies each has at most."""
SLOWEST = 0.25
"""Seconds after which the last processes are killed: a whole run takes about as long."""
SPOILED = 4
"""One run in so many meets files that have changed since the build."""
MOST_KILLS = 6
"""Kills of one run; then it may end."""

Found = dict[str, str]
"""Hashes of files by their paths under the folder."""


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Kill so many processes, or for so long. broken: copies go without a look at what stays, as a control."""
    chance, figures, until = random.Random(seed), Figures(), time.monotonic() + 60 * minutes
    number = 0
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        number += 1
        base, action = folder / f"{seed}-{number}", ACTIONS[number % len(ACTIONS)]
        before = make(base, chance)
        in_child(partial(note, base))
        apply = partial(applied, base, action, broken=broken)
        if broken or number % SPOILED == 0:
            before = spoiled(base, before)
        figures.add(_until_done(base, before, action, apply, chance, f"{seed}-{number} {action}"))
        if action != "delete" and not figures.wrong:
            figures.add(_until_done(base, before, action, partial(undone, base), chance, f"{seed}-{number} undo"))
            now = contents(base)
            if not broken and now != before:
                figures.wrong.append(f"{seed}-{number}: {action} was taken back, and is not what was")
        shutil.rmtree(base)
    return figures


def make(base: Path, chance: random.Random) -> Found:
    """Files, some of them copies. Returns what is there."""
    for number in range(CONTENTS):
        data = chance.randbytes(chance.choice((10, 5_000, 300_000)))
        for copy in range(chance.randint(1, COPIES)):
            path = base / "photos" / "abc"[copy] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return contents(base)


def contents(base: Path) -> Found:
    """Every file but those of the index, and but temporary ones."""
    return {
        path.relative_to(base).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(base.rglob("*"))
        if path.is_file() and "photos.index" not in path.parts and not path.name.startswith(".")
    }


def note(base: Path) -> None:
    """Make the index that knows the files."""
    create(base / "photos.index")
    with (
        Index.open(base / "photos.index", writable=True) as index,
        index.writer() as writer,
        writer.transaction() as transaction,
    ):
        for number, (name, digest) in enumerate(contents(base).items()):
            facts = (base / name).stat()
            here = Location(
                root=str(base / "photos"),
                path=name.removeprefix("photos/"),
                mtime_ns=facts.st_mtime_ns,
                size=facts.st_size,
            )
            one = image(number)
            transaction.add(replace(one, id=digest, facts=replace(one.facts, bytes=facts.st_size), location=here))


def applied(base: Path, action: Action, *, broken: bool) -> None:
    """Begin a run, or go on with the one that was interrupted."""
    if broken:
        dups._is = lambda *_: True
    with Index.open(base / "photos.index", writable=True) as index, index.writer() as writer:
        run = dups.unfinished(index)
        if run is None:
            if any((index.path / dups.FOLDER).glob("*.jsonl")):
                return
            decisions = decide(find(index, ["bytes"], skipped=lambda *_: None), parse_rules("oldest"))
            run = dups.new_run(index, action, plan(decisions, action, base / "trash" if action == "move" else None))
        dups.Applying(writer, run).apply()


def undone(base: Path) -> None:
    """Take back what the run did."""
    with Index.open(base / "photos.index", writable=True) as index, index.writer() as writer:
        (path,) = (index.path / dups.FOLDER).glob("*.jsonl")
        dups.Applying(writer, dups.read_run(path)).undo()


def _until_done(
    base: Path, before: Found, action: Action, work: Callable[[], None], chance: random.Random, name: str
) -> Figures:
    figures = Figures()
    for kill in range(MOST_KILLS + 1):
        seconds = None if kill == MOST_KILLS else chance.random() * SLOWEST
        ended = _killed(work, seconds)
        figures.runs += 1
        figures.count("ended" if ended else f"killed in {name.rpartition(' ')[2]}")
        figures.wrong += [f"{name}: {problem}" for problem in wrong(before, contents(base), action)]
        if ended or figures.wrong:
            return figures
    figures.wrong.append(f"{name}: it failed by itself")
    return figures


def wrong(before: Found, now: Found, action: Action) -> list[str]:
    """What is lost, or other than it was."""
    found = [f"{digest[:12]} is lost" for digest in set(before.values()) - set(now.values())]
    if action != "delete":
        there = set(before.values())
        kept = sum(digest in there for digest in now.values())
        found += [] if kept >= len(before) else [f"{len(before) - kept} files are gone"]
    return found + [f"{path} is another file" for path, digest in now.items() if before.get(path, digest) != digest]


def _killed(work: Callable[[], None], seconds: float | None) -> bool:
    """Do some work in a process of its own, killed after so long. Returns whether it ended by itself, and well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    until = time.monotonic() + (60 if seconds is None else seconds)
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def spoiled(base: Path, before: Found) -> Found:
    """Change the first file of each content with copies, as somebody may after a build, and keep its size.

    What would stay is another picture now, and what would go the last of its own. Returns what is there.
    """
    for digest in set(before.values()):
        names = [name for name, held in before.items() if held == digest]
        if len(names) > 1:
            data = (base / names[0]).read_bytes()
            (base / names[0]).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    return contents(base)
