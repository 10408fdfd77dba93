"""An index agrees with a plain dictionary after any changes in any order, whichever thread asks, also meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from conftest import image_id, new_image, recipe, vectors
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from search.catalog.catalog import Catalog
from search.filters import parse_filter
from search.generations.ann import Graph
from search.generations.policy import Policy
from search.index import Index
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.writer import Writer

COUNT = 120
DATA = vectors(COUNT)
DATA[80:100] = DATA[:20]
DATA[100:] = DATA[0]
"""Some images have equal vectors, and some of these many."""
THREADS = 3
NUMBERS = st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=70)
ONE = st.integers(0, COUNT - 1)
SETTINGS = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


POLICY = Policy(
    exact_search_bytes=30 * DATA[0].nbytes, exact_filtered_images=10, visited_per_candidate=1, min_held_out_vectors=4
)
"""A graph from 30 images on, which decides which of them are compared."""


class Pictures(RuleBasedStateMachine):
    """`model` is the dictionary: numbers of images, and their labels."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        space = Space(name="layer2", recipe=recipe(), encoding=Encoding())
        self.index = Index.create(self.folder / "x.index", [space], policy=POLICY)
        self.threads = ThreadPoolExecutor(THREADS)
        self.model: dict[int, list[str]] = {}

    def teardown(self) -> None:
        """Everything is as it was stored."""
        self.threads.shutdown()
        problems = [finding.problem for finding in verify(self.index).findings]
        self.index.close()
        shutil.rmtree(self.folder)
        assert problems == []

    def brute_force(self, model: dict[int, list[str]], number: int, k: int, label: str | None) -> list[str]:
        """What a search for an image's vector must answer."""
        scores = {one: float(DATA[one].astype("f8") @ DATA[number].astype("f8")) for one in model}
        chosen = [one for one in model if label is None or label in model[one]]
        return [image_id(one) for one in sorted(chosen, key=lambda one: (-scores[one], image_id(one)))[:k]]

    def ask(self, number: int, k: int, label: str | None) -> list[str]:
        """What it answers."""
        matching = None if label is None else parse_filter({"label": label})
        hits = self.index.search(Query(parts=[QueryPart(vector=DATA[number])], k=k, filter=matching))
        return [hit.id for hit in hits]

    def beside(self, change: Callable[[Writer], object], after: dict[int, list[str]], number: int) -> None:
        """Make a change while every thread searches: each sees what was there before it, or after it."""
        allowed = [self.brute_force(model, number, COUNT, None) for model in (self.model, after)]
        asked = [self.threads.submit(self.ask, number, COUNT, None) for _ in range(THREADS)]
        with self.index.writer() as writer:
            change(writer)
        assert all(one.result() in allowed for one in asked)
        self.model = after

    @initialize(count=st.sampled_from([0, COUNT // 2, COUNT]), asked=ONE)
    def begin(self, count: int, asked: int) -> None:
        """Often with a graph."""
        if count:
            self.add(set(range(count)), asked)
            self.publish(asked, False)

    @rule(numbers=NUMBERS, asked=ONE)
    def add(self, numbers: set[int], asked: int) -> None:
        """Add images; those that are there already get back the labels that they were added with."""

        def change(writer: Writer) -> None:
            with writer.transaction() as transaction:
                for number in sorted(numbers):
                    transaction.add(new_image(number, DATA[number]))

        new = {
            number: sorted({*self.model.get(number, ()), *new_image(number, DATA[number]).labels}) for number in numbers
        }
        self.beside(change, self.model | new, asked)

    @rule(numbers=NUMBERS, asked=ONE, erase=st.booleans())
    def remove(self, numbers: set[int], asked: int, erase: bool) -> None:
        """Remove images, there or not."""
        left = {number: labels for number, labels in self.model.items() if number not in numbers}
        self.beside(lambda writer: writer.remove([image_id(number) for number in numbers], erase=erase), left, asked)

    @rule(number=ONE, asked=ONE)
    def describe(self, number: int, asked: int) -> None:
        """Give an image another label."""
        if number in self.model:
            change = lambda writer: writer.describe(image_id(number), labels=["new"])  # noqa: E731
            self.beside(change, self.model | {number: ["new"]}, asked)

    @rule(asked=ONE, anew=st.booleans())
    def publish(self, asked: int, anew: bool) -> None:
        """Write a generation."""
        self.beside(lambda _: self.index.publish(anew=anew), self.model, asked)

    @rule()
    def compact(self) -> None:
        """Write everything anew."""
        with self.index.writer():
            self.index.compact()

    @rule()
    def reopen(self) -> None:
        """Close it, and open it again."""
        self.index.close()
        self.index = Index.open(self.index.path, writable=True, policy=POLICY)

    @rule(numbers=st.lists(ONE, min_size=1, max_size=8), k=st.integers(1, 12), label=st.sampled_from([None, "even"]))
    def search(self, numbers: list[int], k: int, label: str | None) -> None:
        """Ask from several threads. A graph may miss a neighbour, but neither the nearest nor the number of hits."""
        found = self.threads.map(lambda number: self.ask(number, k, label), numbers)
        for number, hits in zip(numbers, found, strict=True):
            everything = self.brute_force(self.model, number, COUNT, label)
            assert hits == sorted(hits, key=everything.index), "invented, doubled, or in another order"
            assert len(hits) == min(k, len(everything))
            assert hits[:1] == everything[:1]

    @rule(numbers=st.lists(ONE, min_size=1, max_size=8), label=st.sampled_from([None, "even"]))
    def search_all(self, numbers: list[int], label: str | None) -> None:
        """Ask for as many as there may be."""
        found = self.threads.map(lambda number: self.ask(number, COUNT, label), numbers)
        assert list(found) == [self.brute_force(self.model, number, COUNT, label) for number in numbers]

    @rule(number=ONE)
    def look_up(self, number: int) -> None:
        """The catalog knows what the dictionary does."""
        assert list(self.index.catalog.rowids([image_id(number)])) == [image_id(number)] * (number in self.model)


@pytest.mark.slow
def test_any_changes_in_any_order_agree_with_a_dictionary() -> None:
    with mock.patch.object(Graph, "search", autospec=True, side_effect=Graph.search) as walks:
        run_state_machine_as_test(Pictures, settings=SETTINGS)
    assert walks.call_count > 100


def test_searches_that_do_not_look_for_changes_disagree() -> None:
    once = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False)
    with mock.patch.object(Catalog, "version", return_value=0), pytest.raises(AssertionError):
        run_state_machine_as_test(Pictures, settings=once)
