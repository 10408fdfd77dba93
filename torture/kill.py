"""kill -9 at random moments: nothing that was acknowledged is lost or changed, and nothing is doubled or invented.

A writer adds, removes, describes, publishes and compacts, and tells each step before and after over a pipe. It is
killed, and a fresh process opens the index, compares every id and every vector's bytes with what was told, and runs
`verify`. Processes are forked from one that has not used FAISS: its threads would be missing in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from search import publish, snapshot
from search.errors import SearchError
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Query, QueryPart, Space, Vector
from search.vectors import normalise
from search.verify import verify

DIM = 16
NUMBERS = 600
"""Images that come and go."""
SPACE = "layer1"
ROUNDS = 40
"""Kills of one index; then a new one."""
SLOWEST = 0.4
"""Seconds after which the last writers are killed."""


@dataclass
class Figures:
    """What was done and found."""

    kills: int = 0
    steps: int = 0
    by_step: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Model:
    """What the writer has told. `maybe`: the step under way, which may have happened or not."""

    present: set[int] = field(default_factory=set)
    maybe: tuple[str, tuple[int, ...]] | None = None

    def tell(self, line: str) -> None:
        """Take one line of the writer's."""
        word, step, numbers = json.loads(line)
        self.maybe = (step, tuple(numbers)) if word == "try" else None
        if word == "done" and step == "add":
            self.present |= set(numbers)
        elif word == "done" and step == "remove":
            self.present -= set(numbers)

    def allowed(self) -> list[set[int]]:
        """The states that the index may be in: a step is one transaction, and happens or does not."""
        states = [self.present]
        if self.maybe is not None and self.maybe[0] == "add":
            states.append(self.present | set(self.maybe[1]))
        if self.maybe is not None and self.maybe[0] == "remove":
            states.append(self.present - set(self.maybe[1]))
        return states


def image_id(number: int) -> str:
    """The id of the numbered image."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def vector(number: int) -> Vector:
    """Its embedding ((DIM,) float32)."""
    one: Vector = normalise(np.random.default_rng(number).normal(size=(1, DIM)))[0]
    return one


def image(number: int) -> NewImage:
    """The numbered image."""
    return NewImage(
        id=image_id(number),
        facts=ImageFacts(width=number + 1, height=7, format="png", bytes=100),
        location=Location(root="/pictures", path=f"{number}.png", mtime_ns=1, size=100),
        vectors={SPACE: vector(number)},
        labels=("some", f"label {number % 7}"),
    )


def create(path: Path) -> None:
    """A new, empty index. For a process of its own."""
    pixels = Preprocessing(geometry="crop", resize=8, size=8, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    recipe = Recipe(
        model="torture",
        weights_sha256="0" * 64,
        layers=(1,),
        pooling="cls",
        final_norm=(False,),
        preprocessing=pixels,
        dim=DIM,
    )
    Index.create(path, [Space(name=SPACE, recipe=recipe, encoding=Encoding())]).close()


def write(path: Path, seed: int, tell: Callable[[str, str, list[int]], None], *, broken: bool) -> None:
    """Change the index until killed. broken: tell that it is done before it is, as a control."""
    publish.EXACT_BYTES, snapshot.FEW, snapshot.VISITED = 200 * DIM * 4, 30, 1  # graphs, for a few hundred images
    chance = random.Random(seed)
    with Index.open(path, writable=True) as index:
        while True:
            step = chance.choices(("add", "remove", "describe", "publish", "anew", "compact"), (8, 4, 2, 4, 1, 1))[0]
            numbers = chance.sample(range(NUMBERS), chance.choice((1, 3, 40)))
            tell("try", step, numbers)
            if broken:
                tell("done", step, numbers)
            with index.lock():
                if step == "add":
                    with index.writing() as transaction:
                        for number in numbers:
                            transaction.add(image(number))
                elif step == "remove":
                    index.remove(image_id(number) for number in numbers)
                elif step == "describe":
                    with index.writing() as transaction:
                        for number in numbers:
                            transaction.describe(image_id(number), labels=["changed"])
                elif step == "compact":
                    index.compact()
                else:
                    index.publish(anew=step == "anew")
            tell("done", step, numbers)


def check(path: Path, allowed: list[set[int]]) -> list[str]:
    """What is wrong with an index that may hold one of these sets of images. For a process of its own."""
    publish.EXACT_BYTES, snapshot.FEW, snapshot.VISITED = 200 * DIM * 4, 30, 1
    wrong = []
    try:
        with Index.open(path, writable=True) as index:
            held: list[str] = []
            for rowids, block in index.catalog.all_vectors(index.space(), upto=2**62):
                records = index.catalog.records(rowids.tolist())
                for rowid, row in zip(rowids.tolist(), block, strict=True):
                    number = records[rowid].facts.width - 1
                    held.append(records[rowid].id)
                    if records[rowid].id != image_id(number) or row.tobytes() != vector(number).tobytes():
                        wrong.append(f"image {number} is not what was stored")
            if len(held) != len(set(held)):
                wrong.append("an image is held twice")
            if set(held) not in [{image_id(number) for number in state} for state in allowed]:
                least = min(
                    (state for state in allowed), key=lambda state: len({image_id(n) for n in state} ^ set(held))
                )
                expected = {image_id(number) for number in least}
                wrong.append(f"{len(expected - set(held))} images are lost, {len(set(held) - expected)} are invented")
            hits = index.search(Query(parts=[QueryPart(vector=vector(0))], k=2 * NUMBERS))
            if {hit.id for hit in hits} != set(held) or len(hits) != len(held):
                wrong.append("a search does not find exactly what the catalog holds")
            generation = index.info().generation
            findings = [finding.problem for finding in verify(index).findings]
            wrong += [problem for problem in findings if generation or "no generation" not in problem]
            with index.lock():
                pass
    except SearchError as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def in_child(work: Callable[[], object]) -> tuple[int, int]:
    """Fork; the child does `work`, and its answer goes down a pipe as JSON. Returns its process id and the pipe."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        try:
            os.write(there, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(there)
    return child, here


def answer(child: int, pipe: int) -> object:
    """What a child of `in_child` came to, or None where it died."""
    with os.fdopen(pipe, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return json.loads(data) if data else None


def killed_writer(path: Path, seed: int, seconds: float, model: Model, *, broken: bool) -> int:
    """Let a writer work for so long, then kill it; the model takes what it told. Returns the number of steps."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        try:
            write(path, seed, lambda *told: _tell(there, told), broken=broken)
        except BaseException as error:
            _tell(there, ("failed", f"{type(error).__name__}: {error}", []))
        finally:
            os._exit(1)
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
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while block := os.read(here, 1 << 16):
        told += block
    os.close(here)
    lines = told.decode().splitlines()
    for line in lines:
        if json.loads(line)[0] == "failed":
            raise RuntimeError(json.loads(line)[1])
        model.tell(line)
    return len(lines) // 2


def _tell(pipe: int, told: tuple[str, str, list[int]]) -> None:
    os.write(pipe, (json.dumps(told) + "\n").encode())


def torture(folder: Path, seed: int, *, kills: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Kill so many writers, or for so long, in indexes below `folder`."""
    chance, figures, until = random.Random(seed), Figures(), time.monotonic() + 60 * minutes
    model, path = Model(), folder / "none"
    while figures.kills < kills and time.monotonic() < until and not figures.wrong:
        if figures.kills % ROUNDS == 0:
            shutil.rmtree(path, ignore_errors=True)
            model, path = Model(), folder / f"{seed}-{figures.kills}.index"
            answer(*in_child(lambda: create(path)))  # noqa: B023
        number = seed * 1_000_003 + figures.kills
        figures.steps += killed_writer(path, number, chance.random() ** 2 * SLOWEST, model, broken=broken)
        figures.kills += 1
        step = "between" if model.maybe is None else model.maybe[0]
        figures.by_step[step] = figures.by_step.get(step, 0) + 1
        states = model.allowed()
        found = answer(*in_child(lambda: {"wrong": check(path, states), "held": sorted(_held(path))}))  # noqa: B023
        if not isinstance(found, dict):
            figures.wrong.append(f"kill {number}: opening the index ended the process")
            break
        figures.wrong += [f"kill {number} (during {step}): {problem}" for problem in found["wrong"]]
        model.present, model.maybe = set(found["held"]), None
    return figures


def _held(path: Path) -> list[int]:
    with Index.open(path) as index:
        return [record.facts.width - 1 for record in index.catalog.page(after=-1, limit=10 * NUMBERS)[0]]
