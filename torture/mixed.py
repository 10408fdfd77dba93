"""Several threads at once: two search while one adds, removes, describes, publishes and compacts; reopened at times.

What a search must find: the images that were there all the time, as far as k allows, by exact score, and nothing that
was never there meanwhile. Where a graph answers, it may miss a neighbour, as often as it was measured to.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from search.catalog.catalog import Catalog
from search.errors import IndexLocked, UnknownImage
from search.filters import Compare, Condition
from search.index import Index
from search.types import Query, QueryPart
from torture.world import NUMBERS, POLICY, Figures, check, create, image_id, in_child, take, vector

SEARCHERS = 2
ROUND = 3_000
"""Operations after which the index is checked, closed and opened again."""
VECTORS = np.stack([vector(number) for number in range(2 * NUMBERS)])
"""Of the images, and of as many pictures that are never in the index."""
NUMBER_OF = {image_id(number): number for number in range(NUMBERS)}
STEPS = {"add": 12, "remove": 10, "describe": 6, "publish": 4, "anew": 1, "compact": 0.2}
"""How often each is taken."""


@dataclass
class Truth:
    """What is in the index, and what is just changing. `touched`: every number ever changed, in this order."""

    present: set[int] = field(default_factory=set)
    changing: set[int] = field(default_factory=set)
    touched: list[int] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)
    figures: Figures = field(default_factory=Figures)
    ended: bool = False

    def seen(self, thing: str, by: int = 1) -> None:
        """Count operations."""
        with self.guard:
            self.figures.count(thing, by)
            self.figures.runs += by

    def wrong(self, problem: str) -> None:
        """Note a problem, and end."""
        with self.guard:
            self.figures.wrong.append(problem)
        self.ended = True


def change(index: Index, truth: Truth, chance: random.Random) -> None:
    """One change, by the only thread that makes any."""
    step = chance.choices(list(STEPS), list(STEPS.values()))[0]
    numbers = chance.sample(range(NUMBERS), chance.choice((1, 10, 60)))
    if step == "describe":
        numbers = [number for number in numbers if number in truth.present]
    changes = step in ("add", "remove")
    with truth.guard:
        truth.changing = set(numbers) if changes else set()
        truth.touched += numbers if changes else []
    try:
        take(index, step, numbers)
    except IndexLocked:
        if step != "compact":  # which somebody who reads the catalog may keep from emptying the log: all else is done
            raise
    with truth.guard:
        if step == "add":
            truth.present |= set(numbers)
        elif step == "remove":
            truth.present -= set(numbers)
        truth.changing = set()
    truth.seen(step, len(numbers) if step in ("add", "remove", "describe") else 1)


def search(index: Index, truth: Truth, chance: random.Random) -> None:
    """One search, and what is wrong with its answer."""
    asked, k = chance.randrange(2 * NUMBERS), chance.choice((1, 10, 10, 10, 50, NUMBERS))
    low = chance.randrange(NUMBERS)
    high = low + chance.choice((1, 10, 100, NUMBERS))
    within = Condition("width", (Compare("gt", low), Compare("lte", high)))
    matching = within if chance.random() < 0.4 else None
    with truth.guard:
        before, changing, begins = set(truth.present), set(truth.changing), len(truth.touched)
    hits = index.search(Query(parts=[QueryPart(vector=VECTORS[asked])], k=k, filter=matching))
    with truth.guard:
        touched = changing | set(truth.touched[begins:])
    inside = range(low, high) if matching else range(NUMBERS)
    stable = {number for number in before - touched if number in inside}
    possible = {number for number in before | touched if number in inside}
    found = [NUMBER_OF[hit.id] for hit in hits]
    cosines = VECTORS[:NUMBERS] @ VECTORS[asked]
    case = f"asked for {asked}, k {k}, filter {matching}, of {len(stable)} to {len(possible)} images"
    if len(set(found)) != len(found) or not set(found) <= possible:
        truth.wrong(f"{case}: doubled or invented hits")
    elif not min(k, len(stable)) <= len(found) <= min(k, len(possible)):
        truth.wrong(f"{case}: {len(found)} hits")
    elif any(abs(hit.score - cosines[number]) > 1e-5 for hit, number in zip(hits, found, strict=True)):
        truth.wrong(f"{case}: wrong scores")
    elif [hit.score for hit in hits] != sorted((hit.score for hit in hits), reverse=True):
        truth.wrong(f"{case}: wrong order")
    else:
        least = hits[-1].score + 1e-5 if len(hits) == k else -2.0
        missed = {number for number in stable if cosines[number] > least} - set(found)
        truth.seen("search")
        with truth.guard:
            truth.figures.count("neighbours missed", len(missed))
            truth.figures.count("neighbours", len(found))


def look_up(index: Index, truth: Truth, chance: random.Random) -> None:
    """One image read by its id."""
    number = chance.randrange(NUMBERS)
    with truth.guard:
        before, changing, begins = number in truth.present, set(truth.changing), len(truth.touched)
    try:
        held = index.image(image_id(number)).facts.width == number + 1
    except UnknownImage:
        held = False
    with truth.guard:
        touched = changing | set(truth.touched[begins:])
    if held != before and number not in touched:
        truth.wrong(f"image {number} is {'there' if held else 'missing'}")
    truth.seen("look-up")


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """So many operations, or for so long. broken: searches do not look whether anything has changed, as a control."""
    path = folder / "index"
    answer = in_child(partial(_work, path, seed, runs, minutes, broken))
    assert isinstance(answer, dict), "the process died"
    return Figures(**answer)


def _work(path: Path, seed: int, runs: int, minutes: float, broken: bool) -> dict[str, object]:
    truth, until = Truth(), time.monotonic() + 60 * minutes
    create(path)
    if broken:
        mock.patch.object(Catalog, "version", return_value=0).start()
    chances = [random.Random(seed + number) for number in range(1 + SEARCHERS)]
    while truth.figures.runs < runs and time.monotonic() < until and not truth.figures.wrong:
        with Index.open(path, writable=True, policy=POLICY) as index:
            _round(index, truth, chances, min(runs, truth.figures.runs + ROUND), until)
            truth.seen("reopen")
            if not broken and not truth.figures.wrong:
                truth.figures.wrong += check(index, [truth.present])[1]
    if truth.figures.counts.get("neighbours missed", 0) > 0.05 * truth.figures.counts.get("neighbours", 1):
        truth.figures.wrong.append("more neighbours are missed than was promised")
    return vars(truth.figures)


def _round(index: Index, truth: Truth, chances: list[random.Random], runs: int, until: float) -> None:
    """All threads at an open index, until so many operations were done."""
    truth.ended = False

    def writer() -> None:
        while not truth.ended:
            change(index, truth, chances[0])
            if truth.figures.runs >= runs or time.monotonic() > until:
                truth.ended = True

    def searcher(chance: random.Random) -> None:
        while not truth.ended:
            (look_up if chance.random() < 0.5 else search)(index, truth, chance)

    work = [writer, *(partial(searcher, chance) for chance in chances[1:])]
    threads = [threading.Thread(target=_guarded, args=(one, truth)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _guarded(work: Callable[[], None], truth: Truth) -> None:
    try:
        work()
    except BaseException as error:
        truth.wrong(f"{type(error).__name__}: {error}")
