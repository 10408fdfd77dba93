"""Spaces agree with dictionaries after any changes in any order, whichever thread asks, also meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from conftest import image_id, new_image, recipe, vectors
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from search.catalog.catalog import Catalog
from search.errors import SearchError, SpaceIncomplete, SpaceNeeded, UnknownSpace
from search.filters import parse_filter
from search.generations.policy import Policy
from search.index import Index
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.writer import Writer

COUNT = 80
THREADS = 3
NAMES = ("layer2", "layer1", "layer0")
LIVES = 3
"""Different vectors of a name: whoever answers from those before it was dropped is found out."""
DATA = {(name, life): vectors(COUNT, seed=10 * number + life) for number, name in enumerate(NAMES) for life in range(3)}
NUMBERS = st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=50)
ONE = st.integers(0, COUNT - 1)
NAME = st.sampled_from(NAMES)
POLICY = Policy(
    exact_search_bytes=30 * DATA["layer2", 0][0].nbytes,
    exact_filtered_images=10,
    visited_per_candidate=1,
    min_held_out_vectors=4,
)
SETTINGS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
Held = dict[str, set[int]]
"""The numbers of the images that have a vector, by space."""


class Spaces(RuleBasedStateMachine):
    """`images` are the numbers of all; `held` is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.index = Index.create(self.folder / "x.index", [self.space("layer2", 0)], policy=POLICY)
        self.threads = ThreadPoolExecutor(THREADS)
        self.images: set[int] = set()
        self.held: Held = {"layer2": set()}
        self.lives = dict.fromkeys(NAMES, 0)
        self.default = "layer2"

    def teardown(self) -> None:
        """Everything is as it was stored, and what was dropped is gone."""
        self.threads.shutdown()
        self.index.sweep_dropped()
        result = verify(self.index)
        with self.index.catalog.reading() as connection:
            stored = connection.exec_driver_sql("SELECT count(*) FROM embeddings").scalar_one()
        self.index.close()
        shutil.rmtree(self.folder)
        assert [finding.problem for finding in result.findings] == []
        assert result.vectors == stored == sum(map(len, self.held.values()))

    @staticmethod
    def space(name: str, life: int) -> Space:
        weights = "abc"[life]
        return Space(name=name, recipe=recipe(int(name[-1]), weights=weights), encoding=Encoding())

    def brute_force(self, held: Held, name: str, number: int, k: int, label: str | None) -> list[str] | None:
        """What a search in a space must answer; None: that there is no such space."""
        if name not in held:
            return None
        data = DATA[name, self.lives[name] % LIVES]
        scores = {one: float(data[one].astype("f8") @ data[number].astype("f8")) for one in held[name]}
        chosen = [one for one in scores if label is None or label in new_image(one, data[one]).labels]
        return [image_id(one) for one in sorted(chosen, key=lambda one: (-scores[one], image_id(one)))[:k]]

    def ask(self, name: str, life: int, number: int, k: int, label: str | None) -> list[str] | None:
        """What it answers."""
        matching = None if label is None else parse_filter({"label": label})
        part = QueryPart(vector=DATA[name, life % LIVES][number])
        try:
            return [hit.id for hit in self.index.search(Query(parts=[part], k=k, filter=matching, space=name))]
        except UnknownSpace:
            return None

    def beside(self, change: Callable[[Writer], object], images: set[int], after: Held, number: int) -> None:
        """Make a change while every thread searches in a space of its own: each sees the state before it, or after."""
        allowed = {
            name: [self.brute_force(held, name, number, COUNT, None) for held in (self.held, after)] for name in NAMES
        }
        asked = {name: self.threads.submit(self.ask, name, self.lives[name], number, COUNT, None) for name in NAMES}
        with self.index.writer() as writer:
            change(writer)
        for name, one in asked.items():
            assert one.result() in allowed[name], name
        self.images, self.held = images, after

    def vectors_of(self, number: int, names: set[str]) -> dict[str, object]:
        return {name: DATA[name, self.lives[name] % LIVES][number] for name in names}

    @initialize(count=st.sampled_from([0, 30, COUNT]), asked=ONE)
    def begin(self, count: int, asked: int) -> None:
        """Often with a graph."""
        if count:
            self.add(set(range(count)), asked, False)
            self.publish(asked, False)

    @rule(numbers=NUMBERS, asked=ONE, everywhere=st.booleans())
    def add(self, numbers: set[int], asked: int, everywhere: bool) -> None:
        """Add images, with or without vectors in spaces that are not complete."""
        names = {name for name, held in self.held.items() if everywhere or held == self.images}
        new = numbers - self.images

        def change(writer: Writer) -> None:
            with writer.transaction() as transaction:
                for number in sorted(numbers):
                    image = new_image(number, DATA["layer2", 0][number])
                    transaction.add(replace(image, vectors=self.vectors_of(number, names)))  # type: ignore[arg-type]

        after = {name: held | (new if name in names else set()) for name, held in self.held.items()}
        self.beside(change, self.images | numbers, after, asked)

    @rule(numbers=NUMBERS, asked=ONE)
    def remove(self, numbers: set[int], asked: int) -> None:
        """Remove images, there or not."""
        after = {name: held - numbers for name, held in self.held.items()}
        change = lambda writer: writer.remove([image_id(number) for number in numbers])  # noqa: E731
        self.beside(change, self.images - numbers, after, asked)

    @rule(name=NAME, asked=ONE)
    def add_space(self, name: str, asked: int) -> None:
        """Add a space, in its next life."""
        if name not in self.held:
            self.lives[name] += 1
            made = self.space(name, self.lives[name] % LIVES)
            self.beside(lambda writer: writer.add_space(made), self.images, self.held | {name: set()}, asked)

    @rule(name=NAME, numbers=NUMBERS, asked=ONE, rest=st.booleans())
    def fill(self, name: str, numbers: set[int], asked: int, rest: bool) -> None:
        """Fill a space with some images, there or not, filled already or not, or with all that are missing."""
        if name not in self.held:
            return
        chosen = self.images if rest else numbers

        def change(writer: Writer) -> None:
            with writer.transaction() as transaction:
                new = {image_id(number): DATA[name, self.lives[name] % LIVES][number] for number in chosen}
                transaction.fill(self.index.space(name), new)

        after = self.held | {name: self.held[name] | (chosen & self.images)}
        self.beside(change, self.images, after, asked)

    @rule(name=NAME, asked=ONE)
    def drop(self, name: str, asked: int) -> None:
        """Drop a space, unless it is the default."""
        if name not in self.held:
            return
        if name == self.default:
            with self.index.writer() as writer, pytest.raises(SpaceNeeded):
                writer.drop_space(name)
            return
        after = {other: held for other, held in self.held.items() if other != name}
        self.beside(lambda writer: writer.drop_space(name), self.images, after, asked)

    @rule(name=NAME)
    def make_default(self, name: str) -> None:
        """Make a space the default, if it is complete."""
        if name in self.held:
            with self.index.writer() as writer:
                if self.held[name] == self.images:
                    writer.set_default(name)
                    self.default = name
                else:
                    with pytest.raises(SpaceIncomplete):
                        writer.set_default(name)

    @rule(asked=ONE, anew=st.booleans())
    def publish(self, asked: int, anew: bool) -> None:
        """Write a generation."""
        self.beside(lambda _: self.index.publish(anew=anew), self.images, self.held, asked)

    @rule()
    def compact(self) -> None:
        """Write everything from scratch."""
        with self.index.writer():
            self.index.compact()

    @rule()
    def reopen(self) -> None:
        """Close it, and open it again."""
        self.index.close()
        self.index = Index.open(self.index.path, writable=True, policy=POLICY)

    @rule(numbers=st.lists(ONE, min_size=1, max_size=6), label=st.sampled_from([None, "even"]))
    def search_all(self, numbers: list[int], label: str | None) -> None:
        """Ask in every space for as many as there may be."""
        asked = [(name, number) for name in NAMES for number in numbers]
        found = self.threads.map(lambda one: self.ask(one[0], self.lives[one[0]], one[1], COUNT, label), asked)
        assert list(found) == [self.brute_force(self.held, name, number, COUNT, label) for name, number in asked]

    @rule(name=NAME, number=ONE, k=st.integers(1, 12), label=st.sampled_from([None, "even"]))
    def search(self, name: str, number: int, k: int, label: str | None) -> None:
        """A graph may miss a neighbour, but neither the nearest nor the number of hits."""
        hits, everything = (
            self.ask(name, self.lives[name], number, k, label),
            self.brute_force(self.held, name, number, COUNT, label),
        )
        if everything is None or hits is None:
            assert hits == everything
            return
        assert hits == sorted(hits, key=everything.index), "invented, doubled, or in another order"
        assert len(hits) == min(k, len(everything))
        assert hits[:1] == everything[:1]

    @rule(number=ONE)
    def search_by_default(self, number: int) -> None:
        """A query that names no space is answered from the default one, whatever was loaded since."""
        data = DATA[self.default, self.lives[self.default] % LIVES]
        hits = self.index.search(Query(parts=[QueryPart(vector=data[number])], k=COUNT))
        assert [hit.id for hit in hits] == self.brute_force(self.held, self.default, number, COUNT, None)

    @rule(name=NAME, number=ONE)
    def look_up(self, name: str, number: int) -> None:
        """A query by id is answered where the image has a vector, and refused elsewhere."""
        query = Query(parts=[QueryPart(id=image_id(number))], k=COUNT, space=name)
        try:
            found = [hit.id for hit in self.index.search(query)]
        except SearchError:
            assert number not in self.held.get(name, set())
        else:
            everything = self.brute_force(self.held, name, number, COUNT, None)
            assert everything is not None
            assert found == [one for one in everything if one != image_id(number)]

    @rule()
    def says_how_far(self) -> None:
        """What is said of spaces is what is so."""
        told = {
            info.space.name: (info.count, info.images, info.space.complete, info.default)
            for info in self.index.info().spaces
        }
        assert told == {
            name: (len(held), len(self.images), held == self.images, name == self.default)
            for name, held in self.held.items()
        }


@pytest.mark.slow
def test_any_changes_of_spaces_in_any_order_agree_with_dictionaries() -> None:
    run_state_machine_as_test(Spaces, settings=SETTINGS)


def test_searches_that_do_not_look_for_changes_of_spaces_disagree() -> None:
    once = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False)
    with mock.patch.object(Catalog, "version", return_value=0), pytest.raises(AssertionError):
        run_state_machine_as_test(Spaces, settings=once)
