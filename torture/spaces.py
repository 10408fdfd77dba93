"""kill -9 while spaces come and go: an index that always opens, answers from one space each, and can be completed.

A writer adds, fills, drops spaces, makes one the default, and adds, removes and publishes beside that; it tells each
step before and after over a pipe. Another process searches meanwhile. Both are killed, and a fresh process compares
every space with what was told, and fills what is missing.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import UnknownSpace
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, Query, QueryPart, Space, Vector
from search.upkeep.verify import verify
from search.vectors import normalise
from torture.world import POLICY, Figures, image, image_id, in_child

DIM = 16
NUMBERS = 400
"""Images that come and go."""
NAMES = ("layer1", "layer2", "layer3")
LIVES = 10
"""Weights of a name, one after the other: whoever answers from a space before it was dropped is found out."""
ROUNDS = 25
"""Kills of one index; then a new one."""
SLOWEST = 1.0
"""Seconds after which the last writers are killed."""
STEPS = {"add": 3, "remove": 2, "space": 3, "fill": 8, "drop": 2, "default": 1, "publish": 3, "anew": 1, "compact": 1}
"""How often each is taken."""


@dataclass(frozen=True)
class State:
    """What an index holds: images, and of each space its life and the images that have a vector in it."""

    images: frozenset[int] = frozenset()
    spaces: tuple[tuple[str, int, frozenset[int]], ...] = ((NAMES[0], 0, frozenset()),)
    default: str = NAMES[0]

    @property
    def by_name(self) -> dict[str, tuple[int, frozenset[int]]]:
        """Life and images of each space."""
        return {name: (life, held) for name, life, held in self.spaces}

    def with_spaces(self, spaces: dict[str, tuple[int, frozenset[int]]]) -> State:
        """The same with other spaces."""
        return replace(self, spaces=tuple((name, *spaces[name]) for name in sorted(spaces)))

    def after(self, step: str, name: str, life: int, numbers: Sequence[int]) -> State:
        """What it holds after a step."""
        spaces, chosen = dict(self.by_name), frozenset(numbers)
        if step == "add":
            new = chosen - self.images
            # As `take` does: spaces that are complete get theirs, the others every second one.
            for one, (its_life, held) in spaces.items():
                mine = new if held == self.images else frozenset(number for number in new if number % 2)
                spaces[one] = its_life, held | mine
            return replace(self, images=self.images | chosen).with_spaces(spaces)
        if step == "remove":
            left = {one: (its_life, held - chosen) for one, (its_life, held) in spaces.items()}
            return replace(self, images=self.images - chosen).with_spaces(left)
        if step == "space":
            return self.with_spaces(spaces | {name: (life, frozenset())})
        if step == "fill":
            return self.with_spaces(spaces | {name: (life, spaces[name][1] | (chosen & self.images))})
        if step == "drop":
            return self.with_spaces({one: held for one, held in spaces.items() if one != name})
        return replace(self, default=name) if step == "default" else self


@dataclass
class Model:
    """What the writer has told. `maybe`: the step under way, which happened as a whole or not at all."""

    state: State = field(default_factory=State)
    maybe: list[tuple[str, str, int, list[int]]] = field(default_factory=list)

    def tell(self, word: str, *step: Any) -> None:
        """Take what a writer tells."""
        if word == "try":
            self.maybe = [(step[0], step[1], step[2], step[3])]
        elif word == "done":
            self.state, self.maybe = self.state.after(*self.maybe[0]), []

    def allowed(self) -> list[State]:
        """The states that the index may be in."""
        return [self.state, *(self.state.after(*step) for step in self.maybe)]

    @property
    def during(self) -> str:
        """The step under way."""
        return self.maybe[0][0] if self.maybe else "between"


def vector(name: str, life: int, number: int) -> Vector:
    """The embedding of an image in a space ((DIM,) float32)."""
    random = np.random.default_rng([NAMES.index(name), life, number])
    one: Vector = normalise(random.normal(size=(1, DIM)))[0]
    return one


def space(name: str, life: int) -> Space:
    """A space in one of its lives."""
    pixels = Preprocessing(geometry="crop", resize=8, size=8, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    recipe = Recipe(
        model="torture",
        weights_sha256=f"{life}" * 64,
        layers=(NAMES.index(name),),
        pooling="cls",
        final_norm=(False,),
        preprocessing=pixels,
        dim=DIM,
    )
    return Space(name=name, recipe=recipe, encoding=Encoding())


def create(path: Path) -> None:
    """A new index without images."""
    Index.create(path, [space(NAMES[0], 0)], policy=POLICY).close()


def take(index: Index, state: State, step: str, name: str, life: int, numbers: Sequence[int]) -> None:
    """Change an index as `State.after` says."""
    if step == "compact":
        index.compact()
        return
    if step in ("publish", "anew"):
        index.publish(anew=step == "anew")
        return
    after = state.after(step, name, life, numbers).by_name
    with index.writer() as writer:
        if step == "drop":
            writer.drop_space(name)
            index.sweep_dropped()
            return
        with writer.transaction() as transaction:
            if step == "add":
                for number in numbers:
                    vectors = {
                        one: vector(one, its_life, number) for one, (its_life, held) in after.items() if number in held
                    }
                    transaction.add(replace(image(number), vectors=vectors))
            elif step == "remove":
                transaction.remove(image_id(number) for number in numbers)
            elif step == "space":
                transaction.add_space(space(name, life))
            elif step == "fill":
                transaction.fill(
                    index.space(name), {image_id(number): vector(name, life, number) for number in numbers}
                )
            else:
                transaction.set_default(name, force=True)


def steps(state: State, chance: random.Random) -> Iterator[tuple[str, str, int, list[int]]]:
    """Steps without end that can be taken, one after the other."""
    while True:
        step = chance.choices(list(STEPS), list(STEPS.values()))[0]
        spaces = state.by_name
        name, numbers = chance.choice(NAMES), sorted(chance.sample(range(NUMBERS), chance.choice((2, 30, 120))))
        life = spaces[name][0] if name in spaces else chance.randrange(LIVES)
        if step == "space" and name in spaces:
            continue
        if step in ("fill", "drop", "default") and name not in spaces:
            continue
        if step == "drop" and name == state.default:
            continue
        if step == "fill" and chance.random() < 0.3:
            numbers = list(range(NUMBERS))
        yield step, name, life, numbers
        state = state.after(step, name, life, numbers)


def write(path: Path, seed: int, pipe: int, state: State, *, broken: bool) -> None:
    """Change the index until killed. broken: tell that it is done before it is, as a control."""
    with Index.open(path, writable=True, policy=POLICY) as index:
        for step in steps(state, random.Random(seed)):
            _tell(pipe, "try", *step)
            if broken:
                _tell(pipe, "done")
            take(index, state, *step)
            state = state.after(*step)
            if not broken:
                _tell(pipe, "done")


def read_beside(path: Path, seed: int, pipe: int) -> None:
    """Search in every space until killed: each answer is of that space alone, whatever becomes of it meanwhile."""
    chance = random.Random(seed)
    with Index.open(path, policy=POLICY) as index:
        while True:
            for here in index.spaces:
                life, asked = int(here.recipe.weights_sha256[0]), vector(here.name, 0, chance.randrange(NUMBERS))
                try:
                    hits = index.search(Query(parts=[QueryPart(vector=asked)], k=2 * NUMBERS, space=here))
                except UnknownSpace:
                    continue
                true = [float(vector(here.name, life, hit.width - 1) @ asked) for hit in hits]
                if len({hit.id for hit in hits}) != len(hits):
                    raise RuntimeError(f"an image is twice among the hits in {here.name}")
                if not np.allclose([hit.score for hit in hits], true, atol=1e-5):
                    raise RuntimeError(f"a search in {here.name} answered from other vectors")
                _tell(pipe, "read")


def _forked(work: Callable[[], None], pipe: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            _tell(pipe, "failed", f"{type(error).__name__}: {error}")
        finally:
            os._exit(1)
    return child


def _tell(pipe: int, *told: object) -> None:
    os.write(pipe, (json.dumps(told) + "\n").encode())


def killed(path: Path, seed: int, seconds: float, model: Model, figures: Figures, *, broken: bool) -> list[str]:
    """Let a writer and a reader work for so long, then kill both. Returns what went wrong beside."""
    here, there = os.pipe()
    writer = partial(write, path, seed, there, model.state, broken=broken)
    children = [_forked(writer, there), _forked(partial(read_beside, path, seed, there), there)]
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
    wrong = []
    for line in told.decode().splitlines():
        word, *step = json.loads(line)
        if word == "failed":
            wrong.append(step[0])
        elif word == "read":
            figures.count("searches beside")
        else:
            model.tell(word, *step)
            figures.count("steps", int(word == "done"))
    return wrong


def found(index: Index) -> tuple[State, list[str]]:
    """What an open index holds, and what is wrong by itself: vectors of another space, searches that differ."""
    wrong: list[str] = []
    spaces: dict[str, tuple[int, frozenset[int]]] = {}
    records, cursor = index.catalog.page(0, 2 * NUMBERS)
    assert cursor is None
    numbers = {record.facts.width - 1 for record in records}
    for info in index.info().spaces:
        here, life = info.space, int(info.space.recipe.weights_sha256[0])
        held: list[int] = []
        for rowids, block in index.catalog.all_vectors(here, upto=2**62):
            known = index.catalog.records(rowids.tolist())
            for rowid, row in zip(rowids.tolist(), block, strict=True):
                held.append(known[rowid].facts.width - 1)
                if row.tobytes() != vector(here.name, life, held[-1]).tobytes():
                    wrong.append(f"the vector of image {held[-1]} in {here.name} is not what was stored")
        if len(held) != len(set(held)) or info.count != len(held) or here.complete != (info.count == info.images):
            wrong.append(f"{here.name} holds {len(held)} vectors, and says {info.count}, complete: {here.complete}")
        spaces[here.name] = life, frozenset(held)
        asked = vector(here.name, life, 0)
        hits = index.search(Query(parts=[QueryPart(vector=asked)], k=2 * NUMBERS, space=here.name))
        true = {image_id(number): float(vector(here.name, life, number) @ asked) for number in held}
        if {hit.id for hit in hits} != set(true) or len(hits) != len(true):
            wrong.append(f"a search in {here.name} does not find exactly what it holds")
        elif any(abs(hit.score - true[hit.id]) > 1e-5 for hit in hits):
            wrong.append(f"a search in {here.name} has the scores of other vectors")
    state = State(images=frozenset(numbers), default=index.space().name).with_spaces(spaces)
    return state, wrong + [finding.problem for finding in verify(index).findings]


def checked(path: Path, model: Model, complete: bool) -> dict[str, Any]:
    """The state of a closed index, compared with what may be, and again once every space was filled, if `complete`.

    For `in_child`: the answer can be JSON.
    """
    try:
        with Index.open(path, policy=POLICY) as index:
            state, wrong = found(index)
        if state not in model.allowed():
            wrong.append(f"it holds another state than was told: {_brief(state)}, not {_brief(model.allowed()[-1])}")
        with Index.open(path, writable=True, policy=POLICY) as index:
            index.sweep_dropped()
            if complete:
                for name, (life, _) in state.by_name.items():
                    step = ("fill", name, life, list(range(NUMBERS)))
                    take(index, state, *step)
                    state = state.after(*step)
                index.publish()
            again, more = found(index)
            wrong += more
            if again != state or (complete and not all(one.complete for one in index.spaces)):
                wrong.append(f"going on does not complete it: {_brief(again)}, not {_brief(state)}")
            with index.catalog.reading() as connection:
                stored = connection.exec_driver_sql("SELECT count(*) FROM embeddings").scalar_one()
            if stored != sum(len(held) for _, _, held in state.spaces):
                wrong.append("vectors of dropped spaces are left")
        spaces = [[name, life, sorted(held)] for name, life, held in state.spaces]
        return {"held": sorted(state.images), "wrong": wrong, "spaces": spaces, "default": state.default}
    except Exception as error:  # whatever it is, it is wrong
        return {"held": [], "wrong": [f"{type(error).__name__}: {error}"], "spaces": [], "default": ""}


def _brief(state: State) -> str:
    held = {name: (life, len(held)) for name, life, held in state.spaces}
    return f"{len(state.images)} images, {held}, default {state.default}"


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Kill so many writers, or for so long, in indexes below `folder`."""
    chance, figures, until = random.Random(seed), Figures(), time.monotonic() + 60 * minutes
    model, path = Model(), folder / "none"
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        if figures.runs % ROUNDS == 0:
            shutil.rmtree(path, ignore_errors=True)
            model, path = Model(), folder / f"{seed}-{figures.runs}.index"
            in_child(partial(create, path))
        number = seed * 1_000_003 + figures.runs
        wrong = killed(path, number, chance.random() * SLOWEST, model, figures, broken=broken)
        figures.count(f"killed during {model.during}")
        answer = in_child(partial(checked, path, model, chance.random() < 0.3))
        figures.judged(f"kill {number} (during {model.during})", answer)
        figures.wrong += [f"beside kill {number}: {problem}" for problem in wrong]
        if isinstance(answer, dict) and answer["spaces"]:
            spaces = tuple((name, life, frozenset(held)) for name, life, held in answer["spaces"])
            state = State(images=frozenset(answer["held"]), spaces=spaces, default=answer["default"])
            model = Model(state=state)
    return figures
