"""What the faults happen to: an index of numbered images, the steps that change it, and what it may hold afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from search.generations.policy import Policy
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Query, QueryPart, Space, Vector
from search.upkeep.verify import verify
from search.vectors import normalise

DIM = 16
NUMBERS = 600
"""Images that come and go."""
SPACE = "layer1"
POLICY = Policy(exact_search_bytes=200 * DIM * 4, exact_filtered_images=30, visited_per_candidate=1)
"""Graphs from 200 images on."""

Told = tuple[str, str, list[int]]
"""`try` or `done` or `failed`, a step, and its numbers."""


@dataclass
class Figures:
    """What was done and found."""

    runs: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, what: str, by: int = 1) -> None:
        """Add to a figure."""
        self.counts[what] = self.counts.get(what, 0) + by

    def add(self, more: Figures) -> None:
        """Add another run's figures."""
        self.runs += more.runs
        self.wrong += more.wrong
        for what, by in more.counts.items():
            self.count(what, by)

    def judged(self, run: str, answer: object) -> set[int]:
        """Take the answer of `checked` in a child as one run's. Returns what the index holds."""
        self.runs += 1
        if not isinstance(answer, dict):
            self.wrong.append(f"{run}: opening the index ended the process")
            return set()
        self.wrong += [f"{run}: {problem}" for problem in answer["wrong"]]
        return set(answer["held"])


def in_rounds(folder: Path, seed: int, runs: int, minutes: float, work: Callable[[Path, int], Figures]) -> Figures:
    """Call `work` with a folder and a seed of its own, until there were so many runs or anything is wrong."""
    figures, until = Figures(), time.monotonic() + 60 * minutes
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        here = folder / str(seed)
        here.mkdir()
        figures.add(work(here, seed))
        seed += 1
    return figures


@dataclass
class Model:
    """What the writer has told. `maybe`: steps since the last acknowledged one; the disk may hold one of them."""

    present: set[int] = field(default_factory=set)
    maybe: list[tuple[str, list[int]]] = field(default_factory=list)
    created: bool = False

    def tell(self, word: str, step: str, numbers: list[int]) -> None:
        """Take what a writer tells: that it tries, has done, or has failed to do a step; or what it then sees held."""
        if word == "try":
            self.maybe.append((step, numbers))
        elif word == "done":
            self.present, self.maybe, self.created = after(self.present, step, numbers), [], True
        elif word == "held":
            self.present = set(numbers)

    def allowed(self) -> list[set[int]]:
        """The states that the index may be in: a step is one transaction, and happens or does not."""
        return [self.present, *(after(self.present, *step) for step in self.maybe)]

    @property
    def during(self) -> str:
        """The step under way."""
        return self.maybe[-1][0] if self.maybe else "between"


def after(present: set[int], step: str, numbers: list[int]) -> set[int]:
    """What an index holds after a step."""
    if step == "add":
        return present | set(numbers)
    if step == "remove":
        return present - set(numbers)
    return present


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
    """A new, empty index."""
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
    Index.create(path, [Space(name=SPACE, recipe=recipe, encoding=Encoding())], policy=POLICY).close()


def take(index: Index, step: str, numbers: list[int]) -> None:
    """Change an index. Raises SearchError."""
    if step == "compact":
        index.compact()
    elif step in ("publish", "anew"):
        index.publish(anew=step == "anew")
    else:
        with index.writer() as writer, writer.transaction() as transaction:
            if step == "add":
                for number in numbers:
                    transaction.add(image(number))
            elif step == "remove":
                transaction.remove(image_id(number) for number in numbers)
            else:
                for number in numbers:
                    transaction.describe(image_id(number), labels=["changed"])


def check(index: Index, allowed: list[set[int]], *, thoroughly: bool = True) -> tuple[set[int], list[str]]:
    """What an open index holds, and what is wrong where it may hold one of these sets of images."""
    held: list[int] = []
    wrong = []
    for rowids, block in index.catalog.all_vectors(index.space(), upto=2**62):
        records = index.catalog.records(rowids.tolist())
        for rowid, row in zip(rowids.tolist(), block, strict=True):
            number = records[rowid].facts.width - 1
            held.append(number)
            if records[rowid].id != image_id(number) or row.tobytes() != vector(number).tobytes():
                wrong.append(f"image {number} is not what was stored")
            if not any(path.endswith(f"/{number}.png") for path in records[rowid].paths):
                wrong.append(f"image {number} has lost its path")
    if len(held) != len(set(held)):
        wrong.append("an image is held twice")
    if set(held) not in allowed:
        least = min(allowed, key=lambda state: len(state ^ set(held)))
        wrong.append(f"{len(least - set(held))} images are lost, {len(set(held) - least)} are invented")
    hits = index.search(Query(parts=[QueryPart(vector=vector(0))], k=2 * NUMBERS))
    if {hit.id for hit in hits} != {image_id(number) for number in held} or len(hits) != len(held):
        wrong.append("a search does not find exactly what the catalog holds")
    if thoroughly:
        result = verify(index)
        wrong += [finding.problem for finding in result.findings]
        wrong += [remark.problem for remark in result.remarks if "is gone" in remark.problem]
    return set(held), wrong


def checked(path: Path, model: Model) -> dict[str, object]:
    """`check` of a closed index, and again after one small change, which moves what is left in its log.

    For `in_child`: the answer can be JSON.
    """
    allowed = model.allowed()
    try:
        if not model.created and not (path / "catalog.sqlite").exists():
            return {"held": [], "wrong": []}
        with Index.open(path, policy=POLICY) as index:
            check(index, allowed, thoroughly=False)
        with Index.open(path, writable=True, policy=POLICY) as index:
            held, wrong = check(index, allowed)
            take(index, "add", [NUMBERS])
            take(index, "remove", [NUMBERS])
        with Index.open(path, policy=POLICY) as index:
            wrong += check(index, [held])[1]
        return {"held": sorted(held), "wrong": list(wrong)}
    except Exception as error:  # whatever it is, it is wrong
        return {"held": [], "wrong": [f"{type(error).__name__}: {error}"]}


def in_child(work: Callable[[], object]) -> object:
    """The answer of some work done in a process of its own, as JSON; None where that died.

    Forked from one that has not used FAISS: its threads would be missing there.
    """
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        try:
            os.write(there, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return json.loads(data) if data else None
