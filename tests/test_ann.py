"""Promises of large indexes: a graph finds what was promised, grows, forgets, and fills k under any filter."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import FakeEncoder, another_writer, image_id, new_image, recipe
from numpy.typing import NDArray

from api.serving.service import Service
from api.settings import Settings
from search import index as index_module
from search.catalog.catalog import Catalog
from search.errors import IndexLocked, PolicyInvalid, PublicationStopped, QueryInvalid, StorageFailed
from search.filters import parse_filter
from search.generations import publish, space_draft
from search.generations import recall as recall_module
from search.generations.ann import Graph, exact, scores
from search.generations.draft import Draft
from search.generations.generation import load
from search.generations.hashed_file import HashedFile
from search.generations.policy import Policy
from search.generations.space_draft import SpaceDraft
from search.index import Index
from search.query import follow, searcher
from search.query.snapshot import Snapshot
from search.sqlite import checksums
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.vectors import normalise
from search.writer import Writer

MakeIndex = Callable[..., Index]
DIM = 16


SMALL = Policy(exact_search_bytes=1000 * DIM * 4, exact_filtered_images=100, visited_per_candidate=2)
"""Graphs from a thousand images on."""


@pytest.fixture
def make_index(make_index: MakeIndex) -> MakeIndex:
    return partial(make_index, policy=SMALL)


def reopen(index: Index, *, writable: bool = False) -> Index:
    return Index.open(index.path, writable=writable, policy=index.policy)


def clusters(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, DIM) unit vectors around 40 centres, as pictures lie; the last ones are of all kinds too."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, DIM))
    return normalise(centres[random.integers(0, 40, count)] + 0.4 * random.normal(size=(count, DIM)))


def add(index: Index, data: NDArray[np.float32], numbers: range) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        for number in numbers:
            transaction.add(new_image(number, data[number]))


def found(index: Index, queries: NDArray[np.float32], k: int = 10, matching: object = None) -> list[set[int]]:
    """The numbers (rowid - 1) of what is found for each query."""
    rowids, _ = index.nearest(queries, k, matching=matching)  # type: ignore[arg-type]
    return [set((row[row > 0] - 1).tolist()) for row in rowids]


def true(data: NDArray[np.float32], queries: NDArray[np.float32], numbers: list[int], k: int = 10) -> list[set[int]]:
    products = queries.astype(np.float64) @ data[numbers].T.astype(np.float64)
    return [set(np.array(numbers)[np.argsort(-row)[:k]].tolist()) for row in products]


def recall(answers: list[set[int]], truth: list[set[int]]) -> float:
    return sum(len(a & b) for a, b in zip(answers, truth, strict=True)) / sum(map(len, truth))


def structure(index: Index) -> dict[str, Any]:
    index.refresh()
    return dict(index.info().spaces[0].structure)


@pytest.mark.slow
def test_a_large_index_is_searched_by_a_graph_that_keeps_its_promise(make_index: MakeIndex) -> None:
    data, queries = clusters(3000), clusters(100, seed=1)
    index = make_index(data)
    facts = structure(index)
    assert facts["structure"] == "hnsw"
    assert facts["search"]["recall"] >= 0.95  # type: ignore[index]
    assert recall(found(index, queries), true(data, queries, list(range(3000)))) >= 0.95
    rowids, cosines = index.nearest(queries[:5], 10)
    for query, row, best in zip(queries, rowids, cosines, strict=False):
        assert best == pytest.approx(data[row - 1] @ query, abs=1e-6)
        assert (np.diff(best) <= 0).all()
    hits = index.search(Query(parts=[QueryPart(vector=queries[0])], k=10))
    assert [hit.id for hit in hits] == [image_id(int(rowid) - 1) for rowid in rowids[0]]


def test_a_small_index_is_searched_exactly(make_index: MakeIndex) -> None:
    data = clusters(900)
    index = make_index(data)
    assert structure(index)["structure"] == "exact"
    assert found(index, data[:50]) == true(data, data[:50], list(range(900)))


@pytest.mark.slow
def test_a_graph_grows_by_what_is_new_and_shares_the_vectors(make_index: MakeIndex) -> None:
    data, queries = clusters(3000), clusters(100, seed=1)
    index = make_index(data[:2500])
    first = index.path / "generations" / "000001"
    before = load(first)
    add(index, data, range(2500, 3000))
    with index.writer():
        assert index.publish() == "000002"
    second = index.path / "generations" / "000002"
    assert (first / "layer2.vectors").samefile(second / "layer2.vectors")
    assert load(second).spaces["layer2"].rowids.tolist()[:2500] == before.spaces["layer2"].rowids.tolist()
    assert sorted(load(second).spaces["layer2"].rowids.tolist()) == list(range(1, 3001))
    assert np.array_equal(load(first).spaces["layer2"].vectors, before.spaces["layer2"].vectors)
    with reopen(index) as reopened:
        assert reopened.info().delta == 0
        assert recall(found(reopened, queries), true(data, queries, list(range(3000)))) >= 0.95


@pytest.mark.slow
def test_a_filter_too_narrow_for_walks_is_searched_exactly(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, queries = clusters(3000), clusters(20, seed=1)
    candidates = recall_module.graph_candidates

    def lost(graph: Graph, alive: NDArray[np.bool_], *rest: Any) -> Any:
        met, missing = candidates(graph, alive, *rest)
        return (np.full_like(met, -1) if alive.mean() < 0.2 else met), missing

    monkeypatch.setattr(recall_module, "graph_candidates", lost)  # what is measured before it is published
    index = make_index(data, fresh=True)
    assert structure(index)["search"]["one_in"] == 4
    with mock.patch.object(Graph, "search", side_effect=AssertionError("it walks")):
        answers = found(index, queries, matching=parse_filter({"width": {"lt": 700}}))
    assert answers == true(data, queries, list(range(700)))
    with mock.patch.object(Graph, "search", autospec=True, side_effect=Graph.search) as walks:
        answers = found(index, queries, matching=parse_filter({"width": {"lt": 800}}))
    assert walks.called
    assert recall(answers, true(data, queries, list(range(800)))) > 0.9


@pytest.mark.slow
def test_recall_is_measured_again_when_the_index_has_grown(make_index: MakeIndex) -> None:
    data = clusters(4000)
    index = make_index(data[:2500])
    measured = structure(index)["search"]
    add(index, data, range(2500, 2600))
    with index.writer():
        index.publish()
    assert structure(index)["search"] == measured
    add(index, data, range(2600, 4000))
    with index.writer():
        index.publish()
    assert structure(index)["search"]["count"] > 3000  # type: ignore[index]


@pytest.mark.slow
def test_what_no_graph_finds_is_searched_exactly(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data[:2990], policy=replace(SMALL, ef_choices=(1,)))
    facts = structure(index)
    assert facts["structure"] == "exact"
    assert facts["search"]["recall"] < 0.95  # type: ignore[index]
    assert found(index, data[:50]) == true(data, data[:50], list(range(2990)))
    add(index, data, range(2990, 3000))
    with index.writer():
        index.publish()
    assert structure(index)["search"] == facts["search"], "it was tried again for ten images"


@pytest.mark.slow
def test_a_higher_promise_is_measured_at_the_next_publication(make_index: MakeIndex) -> None:
    data, queries = clusters(3000), clusters(100, seed=1)
    index = make_index(data)
    with index.writer() as writer:
        with writer.transaction() as transaction:
            transaction.set_min_recall(0.995)
        index.publish(anew=True)
    assert structure(index)["search"]["recall"] >= 0.995  # type: ignore[index]
    with index.writer() as writer:
        with writer.transaction() as transaction:
            transaction.set_min_recall(1)
        index.publish(anew=True)
    assert structure(index)["structure"] == "exact"
    assert found(index, queries) == true(data, queries, list(range(3000)))


@pytest.mark.slow
def test_removed_images_are_never_found_and_k_is_filled_from_the_rest(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data)
    near = np.argsort(-(data @ data[7]))[:500].tolist()  # all that a walk near this query meets
    with index.writer() as writer:
        writer.remove(image_id(number) for number in near)
    left = sorted(set(range(3000)) - set(near))
    assert recall(found(index, data[7:8]), true(data, data[7:8], left)) == 1
    assert len(found(index, clusters(20, seed=3), k=2500)[0]) == 2500
    with index.writer() as writer:
        index.publish()
    with reopen(index) as reopened:
        assert recall(found(reopened, data[7:8]), true(data, data[7:8], left)) == 1
        assert not found(reopened, data[near[:50]], k=50)[0] & set(near)


@pytest.mark.slow
def test_an_index_of_which_much_was_removed_is_written_anew(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data)
    with index.writer() as writer:
        writer.remove(image_id(number) for number in range(900))
        index.publish()
    assert len(load(index.path / "generations" / "000002").spaces["layer2"].rowids) == 2100


@pytest.mark.parametrize(
    "largest", [0, 60, *(pytest.param(largest, marks=pytest.mark.slow) for largest in (1, 9, 400, 1500, 2999))]
)
def test_k_is_filled_at_any_selectivity(make_index: MakeIndex, largest: int) -> None:
    data, queries = clusters(3000), clusters(30, seed=1)
    index = make_index(data)
    matching = parse_filter({"metadata.number": {"lte": largest}})
    truth = true(data, queries, list(range(largest + 1)))
    answers = found(index, queries, matching=matching)
    assert [len(answer) for answer in answers] == [min(10, largest + 1)] * 30
    assert recall(answers, truth) == (1 if largest < 100 else pytest.approx(1, abs=0.05))


@pytest.mark.slow
def test_a_filter_far_from_the_query_is_answered_in_full(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data)
    query = data[:1]
    far = np.argsort(data @ query[0])[:700]  # the 700 that are farthest from what is asked
    for number in far.tolist():
        with index.writer() as writer:
            writer.describe(image_id(number), labels=["far"])
    answers = found(index, query, matching=parse_filter({"label": "far"}))
    assert recall(answers, true(data, query, far.tolist())) == 1


def test_equal_vectors_have_equal_scores_wherever_they_stand() -> None:
    random = np.random.default_rng(0)
    for dim in (3, 16, 37, 384):
        vector = normalise(random.normal(size=(1, dim)))
        queries = normalise(random.normal(size=(3, dim)))
        many = np.repeat(vector, 101, axis=0)
        here = scores(many, queries, np.tile(np.arange(101), (3, 1)))
        assert (here == scores(vector, queries, np.zeros((3, 1), np.int64))).all()


def test_exact_search_equals_a_sort(tmp_path: Path) -> None:
    data, queries = clusters(300), clusters(30, seed=1)
    for chosen in (None, np.arange(7), np.arange(0, 300, 3), np.empty(0, np.int64)):
        numbers = list(range(300)) if chosen is None else chosen.tolist()
        for asked in (queries, queries[:1], queries[:2], queries[:3]):
            answers = exact(data, asked, 10, chosen)
            assert [set(row.tolist()) for row in answers] == true(data, asked, numbers)


def test_an_older_snapshot_sees_nothing_of_what_came_later() -> None:
    data = clusters(300)
    none: NDArray[np.int64] = np.empty(0, np.int64)
    space = Space(name="layer2", recipe=recipe(dim=DIM), encoding=Encoding())
    first = Snapshot.start(None, None, [space])
    snapshots, step = [first], 10
    for start in range(0, 300, step):
        rows = np.arange(start, start + step)
        snapshots.append(snapshots[-1].advance(start + 1, {"layer2": (rows, data[start : start + step])}, none))
    without = snapshots[-1].advance(400, {"layer2": (none, data[:0])}, np.array([299]))
    for count, view in enumerate(snapshots):
        rowids, _ = view.nearest("layer2", data[299:300], 300)
        assert sorted(rowids[0].tolist()) == list(range(count * step))
    assert 299 not in without.nearest("layer2", data[299:300], 300)[0]


@pytest.mark.slow
def test_a_publication_that_fails_leaves_the_last_generation_and_its_files_alone(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(3000)
    index = make_index(data[:2500])
    vectors = index.path / "generations" / "000001" / "layer2.vectors"
    size = vectors.stat().st_size
    add(index, data, range(2500, 3000))
    write = HashedFile.write

    def full(self: HashedFile, block: bytes) -> int:
        if self._file.name.endswith(".faiss"):
            raise OSError(28, "No space left on device")
        return write(self, block)

    monkeypatch.setattr(HashedFile, "write", full)
    with index.writer(), pytest.raises(StorageFailed):
        index.publish()
    monkeypatch.undo()
    assert vectors.stat().st_size == size
    assert [path.name for path in (index.path / "generations").iterdir()] == ["000001"]
    assert recall(found(index, data[2600:2650]), true(data, data[2600:2650], list(range(3000)))) >= 0.95


@pytest.mark.slow
def test_what_a_killed_publication_left_behind_the_vectors_is_not_gone_on_from(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data[:2500])
    first = index.path / "generations" / "000001"
    with (first / "layer2.vectors").open("ab") as file:
        file.write(b"half a vector")
    add(index, data, range(2500, 3000))
    with reopen(index) as reopened:
        assert reopened.info().generation == "000001"
    with index.writer():
        index.publish()
    second = index.path / "generations" / "000002"
    assert (second / "layer2.vectors").stat().st_size == 3000 * DIM * 4
    assert json.loads((second / "manifest.json").read_text())["spaces"]["layer2"]["count"] == 3000
    assert recall(found(index, data[2600:2650]), true(data, data[2600:2650], list(range(3000)))) >= 0.95


def test_vectors_of_another_size_are_refused(make_index: MakeIndex) -> None:
    with pytest.raises(QueryInvalid, match="shape"):
        make_index(clusters(10)).nearest(np.ones((2, DIM + 1), np.float32))


@pytest.mark.slow
def test_searches_go_on_while_a_new_generation_is_loaded(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(3000)
    index = make_index(data[:2500])
    found(index, data[:1])
    loads, may_load = threading.Event(), threading.Event()
    load_best = follow.load_best

    def slowly(*arguments: object) -> object:
        loads.set()
        assert may_load.wait(20)
        return load_best(*arguments)  # type: ignore[arg-type]

    add(index, data, range(2500, 2900))
    with index.writer() as writer:
        index.publish()
    monkeypatch.setattr(follow, "load_best", slowly)
    assert found(index, data[2700:2701], k=1) == [{2700}]  # from the old generation, and the delta
    assert loads.wait(20)
    add(index, data, range(2900, 3000))
    with index.writer() as writer:
        writer.remove([image_id(2700)])
    assert found(index, data[2950:2951], k=1) == [{2950}]
    assert found(index, data[2700:2701], k=1) != [{2700}]
    assert index.info().generation == "000001"
    may_load.set()
    index.refresh()
    assert index.info().generation == "000002"
    assert index.info().delta == 100
    assert found(index, data[2950:2951], k=1) == [{2950}]
    assert found(index, data[2700:2701], k=1) != [{2700}]


@pytest.mark.slow
def test_a_server_publishes_beside_its_writes_once_much_is_new(make_index: MakeIndex) -> None:
    data = clusters(3000)
    index = make_index(data[:2000], policy=replace(SMALL, min_delta_images=100))
    service = Service("pictures", index, FakeEncoder(), Settings())

    def add_some(numbers: range) -> Callable[[Writer], None]:
        def added(writer: Writer) -> None:
            with writer.transaction() as transaction:
                for number in numbers:
                    transaction.add(new_image(number, data[number]))

        return added

    def delta(opened: Index) -> tuple[str | None, int]:
        opened.refresh()
        return opened.info().generation, opened.info().delta

    async def scenario() -> None:
        found(index, data[:1])
        await service.write(add_some(range(2000, 2050)))
        assert service._publishing is None, "50 are not worth it"
        found(index, data[:1])
        await service.write(add_some(range(2050, 2150)))
        assert service._publishing is not None
        await service.write(add_some(range(2150, 2170)))  # nobody waits for the publication
        service._publishing.result()
        generation, left = delta(index)
        assert generation == "000002"
        assert left <= 20
        assert recall(found(index, data[2000:2170], k=1), [{number} for number in range(2000, 2170)]) == 1

    asyncio.run(scenario())
    service.close()


@pytest.mark.slow
def test_two_publications_do_not_meet(make_index: MakeIndex) -> None:
    index = make_index(clusters(2000))
    threads = [threading.Thread(target=index.publish, kwargs={"anew": True}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.refresh()
    assert index.info().generation == "000004"
    assert verify(index).findings == []


@pytest.mark.slow
def test_what_changes_while_a_generation_is_written_is_neither_lost_nor_doubled(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(3000)
    index = make_index(data[:2500])
    write_vectors = SpaceDraft._write_vectors

    def and_change(self: SpaceDraft, *arguments: object) -> object:
        result = write_vectors(self, *arguments)  # type: ignore[arg-type]
        add(index, data, range(2600, 2700))
        with index.writer() as writer:
            writer.remove([image_id(number) for number in (3, 2550)])
        return result

    add(index, data, range(2500, 2600))
    monkeypatch.setattr(SpaceDraft, "_write_vectors", and_change)
    index.publish()
    monkeypatch.undo()
    left = sorted(set(range(2700)) - {3, 2550})
    index.refresh()
    assert index.info().generation == "000002"
    assert index.info().delta == 100
    assert found(index, data[:1], k=5000) == [set(left)]
    assert verify(index).findings == []


@pytest.mark.slow
def test_a_generation_that_is_deleted_while_it_is_loaded_is_followed_by_the_newest(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(1500)
    index = make_index(data)
    load_best = follow.load_best

    def too_late(*arguments: object) -> object:
        monkeypatch.undo()
        index.publish(anew=True)
        index.publish(anew=True)
        return load_best(*arguments)  # type: ignore[arg-type]

    with reopen(index) as reader:
        monkeypatch.setattr(follow, "load_best", too_late)
        assert reader.info().generation == "000003"
        assert reader.info().delta == 0


@pytest.mark.slow
def test_searches_do_not_wait_while_what_is_newer_than_a_new_generation_is_read(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(3000)
    index = make_index(data[:2500])
    found(index, data[:1])
    add(index, data, range(2500, 2900))
    index.publish()
    add(index, data, range(2900, 3000))
    reads, may_read = threading.Event(), threading.Event()
    vectors_of, searcher = Catalog.vectors, threading.current_thread()

    def slowly(catalog: Catalog, *arguments: Any) -> Any:
        if threading.current_thread() is not searcher:
            reads.set()
            assert may_read.wait(20)
        return vectors_of(catalog, *arguments)

    monkeypatch.setattr(Catalog, "vectors", slowly)
    timer = threading.Timer(10, may_read.set)  # so that a search that waits fails, and hangs for ever no test
    timer.start()
    assert found(index, data[2950:2951], k=1) == [{2950}]
    assert reads.wait(20)
    assert found(index, data[2960:2961], k=1) == [{2960}]
    assert not may_read.is_set(), "the search waited"
    timer.cancel()
    may_read.set()
    index.refresh()
    assert (index.info().generation, index.info().delta) == ("000002", 100)


@pytest.mark.slow
def test_an_interrupt_after_the_commit_leaves_the_new_generation(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clusters(1500)
    index = make_index(data[:1200])
    add(index, data, range(1200, 1500))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checksums, "acknowledge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.publish()
    monkeypatch.undo()
    with reopen(index) as reader:
        assert reader.info().generation == "000002"
        assert found(reader, data[1400:1401], k=1) == [{1400}]
    add(index, data, range(1200, 1201))
    assert verify(index).findings == []


def test_a_publication_can_be_stopped(make_index: MakeIndex) -> None:
    data = clusters(1500)
    index = make_index(data[:1200])
    add(index, data, range(1200, 1500))
    stop = threading.Event()
    stop.set()
    with pytest.raises(PublicationStopped):
        index.publish(stop=stop)
    assert [path.name for path in index.generations.iterdir()] == ["000001"]
    assert found(index, data[1400:1401], k=1) == [{1400}]
    assert index.publish() == "000002"


def test_generations_that_cannot_be_listed_are_told(make_index: MakeIndex) -> None:
    index = make_index(clusters(20))
    shutil.rmtree(index.generations)
    index.generations.write_text("not a folder")
    with reopen(index) as reader, pytest.raises(StorageFailed, match="cannot be read"):
        reader.info()


def test_a_generation_that_cannot_be_read_is_worth_a_new_one(make_index: MakeIndex) -> None:
    index = make_index(clusters(20))
    assert not index.unpublished()
    (index.generations / "000001" / "manifest.json").write_text("{}")
    with reopen(index, writable=True) as opened:
        assert opened.unpublished()
        opened.publish()
        assert not opened.unpublished()


@pytest.mark.slow
def test_what_is_written_anew_takes_the_place_of_all_before(make_index: MakeIndex) -> None:
    """Two sets of vectors would take more room than an index may."""
    data = normalise(np.random.default_rng(0).normal(size=(2000, 384)))
    index = make_index(data)
    index.publish(anew=True)
    assert [path.name for path in index.generations.iterdir()] == ["000002"]
    index.catalog.checkpoint(wait=5)
    assert index.bytes_on_disk() < 3.5 * data.nbytes


def test_compacting_does_not_lock_the_index_while_it_waits_for_a_publication(make_index: MakeIndex) -> None:
    index = make_index(clusters(20))
    with ThreadPoolExecutor(1) as pool, publish._one_at_a_time(index.generations):
        compacting = pool.submit(index.compact)
        with pytest.raises(TimeoutError):
            compacting.result(0.3)
        with index.writer() as writer:
            writer.remove([image_id(3)])
    assert compacting.result() == "000002"
    assert verify(index).findings == []


def test_compacting_is_refused_before_anything_is_written_where_another_process_writes(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(clusters(20))
    writes: list[Path] = []
    monkeypatch.setattr(index_module, "PATIENCE", 0)
    monkeypatch.setattr(Draft, "write", lambda self: writes.append(self._path))
    with another_writer(index.path), pytest.raises(IndexLocked, match="Another process is writing"):
        index.compact()
    assert [path.name for path in index.generations.iterdir()] == ["000001"]
    assert writes == []


def test_a_publication_that_waits_for_another_can_be_given_up(make_index: MakeIndex) -> None:
    index, stop = make_index(clusters(20), publish=False), threading.Event()
    with ThreadPoolExecutor(1) as pool, publish._one_at_a_time(index.generations):
        waiting = pool.submit(index.publish, stop=stop)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        stop.set()
        with pytest.raises(PublicationStopped):
            waiting.result(5)


def test_a_generation_that_could_not_be_read_is_tried_again(make_index: MakeIndex) -> None:
    """A passing fault of the disk, or a file that is put back."""
    index = make_index(clusters(20))
    (file,) = (index.generations / "000001").glob("*.vectors")
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"?")
    with reopen(index) as other:
        other.refresh()
        assert other.info().generation is None
        file.write_bytes(good)
        other.refresh()
        assert other.info().generation == "000001"
        assert other.info().delta == 0


@pytest.mark.slow
def test_k_are_found_where_fewer_candidates_are_asked_for(make_index: MakeIndex) -> None:
    index = make_index(clusters(2000))
    for k, ef in ((5, 1), (8, 7), (10, 10), (20, 1)):
        rowids, _ = index.nearest(clusters(3, seed=1), k, ef=ef)
        assert (rowids >= 0).sum() == 3 * k


@pytest.mark.slow
def test_what_was_measured_of_another_walk_is_measured_again(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(space_draft, "SEARCH_METHOD", {})
        index = make_index(clusters(2000), fresh=True)
        assert index.publish() == "000001"
    assert index.publish() == "000002"
    assert index.publish() == "000002"


@pytest.mark.parametrize("dim", [16, 64, 100, 384])
def test_a_walk_by_rounded_numbers_finds_what_one_by_exact_numbers_does(tmp_path: Path, dim: int) -> None:
    """FAISS multiplies codes in another way where the dimension is a multiple of 64."""
    random = np.random.default_rng(0)
    spread, middle = (
        np.linspace(2, 0.1, dim),
        30 * np.eye(1, dim, dim - 1),
    )  # a narrow cone: one number is large for all
    data = normalise(random.normal(size=(2200, dim)) * spread + middle)
    graph = Graph.train(data[:2000])
    graph.add(data[:1000])
    graph.search(data[:1], 10)  # between two additions, which want the codes as they were
    graph.add(data[1000:2000])
    with (tmp_path / "graph").open("wb") as file:
        graph.write(file.write)
    answers = [set(row.tolist()) for row in exact(data[:2000], data[2000:], 10)]
    for walked in (graph, Graph.read(tmp_path / "graph"), Graph.read(tmp_path / "graph", writable=True)):
        ranked = scores(data[:2000], data[2000:], positions := walked.search(data[2000:], 300))
        best = np.take_along_axis(positions, np.argsort(-ranked, axis=1)[:, :10], axis=1)
        assert recall([set(row.tolist()) for row in best], answers) > 0.97


def test_a_graph_of_equal_vectors_answers() -> None:
    data = normalise(np.ones((500, 64)))
    graph = Graph.train(data)
    graph.add(data)
    assert (graph.search(data[:3], 20) >= 0).all()


def test_a_generation_that_could_not_be_loaded_is_tried_again_by_the_next_search(make_index: MakeIndex) -> None:
    """Also where the loading fails just while a search is catching up."""
    data = clusters(30)
    index = make_index(data[:20])
    with reopen(index) as other:
        assert other.info().generation == "000001"
        add(index, data, range(20, 30))
        index.publish()
        follower = other._follower
        caught_up = follower._caught_up

        def once_it_failed(snapshot: Snapshot) -> Snapshot:
            for _ in range(500):
                if follower._failure is not None:
                    break
                threading.Event().wait(0.01)
            threading.Event().wait(0.05)
            return caught_up(snapshot)

        with (
            mock.patch.object(follow, "load_best", side_effect=StorageFailed("not now")),
            mock.patch.object(follower, "_caught_up", side_effect=once_it_failed),
        ):
            assert len(other.search(Query(parts=[QueryPart(vector=data[0])], k=50))) == 30
            follower.wait()
        assert len(other.search(Query(parts=[QueryPart(vector=data[0])], k=50))) == 30
        follower.wait()
        assert other.info().generation == "000002"


@pytest.mark.parametrize(
    "figures",
    [
        {"exact_search_bytes": -1},
        {"exact_filtered_images": -1},
        {"visited_per_candidate": 0},
        {"links": 1},
        {"ef_construction": 0},
        {"ef_choices": ()},
        {"ef_choices": (32, 16)},
        {"ef_choices": (0, 16)},
        {"held_out_vectors": 0},
        {"min_held_out_vectors": 0},
        {"held_out_vectors": 10, "min_held_out_vectors": 11},
        {"remeasure_growth": 1},
        {"remeasure_growth": float("nan")},
        {"min_delta_images": -1},
        {"max_delta_share": -0.1},
        {"max_dead_share": float("nan")},
        {"max_dead_share": 1.1},
        {"probe_vectors": 0},
    ],
    ids=str,
)
def test_a_policy_that_would_never_end_or_never_hold_is_refused(figures: dict[str, Any]) -> None:
    """A search with `visited_per_candidate=0` did not end; FAISS divides by the logarithm of `links`."""
    with pytest.raises(PolicyInvalid, match=next(reversed(figures))):
        Policy(**figures)


def without_nearest(index: Index, data: NDArray[np.float32], count: int) -> tuple[list[int], list[str]]:
    """All numbers by their score with the first vector, and the paths of the nearest, whose files are gone now."""
    by_score = np.argsort(-(data @ data[0].astype(np.float64)), kind="stable").tolist()
    gone = [new_image(number, data[number]).location.path for number in by_score[:count]]
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.mark_missing("/photos", gone, missing=True)
    return by_score, gone


@pytest.mark.slow
@pytest.mark.parametrize("label", [None, "even"])
def test_a_search_among_images_whose_files_are_gone_is_bounded(make_index: MakeIndex, label: str | None) -> None:
    """Left out one by one, they were all candidates in the end."""
    data = clusters(3000)
    index = make_index(data)
    by_score, gone = without_nearest(index, data, 2900)
    asked: list[int] = []
    nearest = Snapshot.nearest

    def counted(self: Snapshot, space: str, queries: Any, k: int, *args: Any, **options: Any) -> Any:
        asked.append(k)
        return nearest(self, space, queries, k, *args, **options)

    matching = None if label is None else parse_filter({"label": label})
    query = Query(parts=[QueryPart(vector=data[0])], k=10, filter=matching)
    with mock.patch.object(Snapshot, "nearest", counted), mock.patch.object(searcher, "MAX_EXTRA_FOR_GONE", 100):
        hits = index.search(query)
    left = [number for number in by_score[2900:] if label is None or number % 2 == 0]
    assert [hit.id for hit in hits] == [image_id(number) for number in left[:10]]
    assert max(asked) < 300
    asked.clear()
    with mock.patch.object(Snapshot, "nearest", counted):
        assert index.search(query) == hits
    assert len(asked) == 2, "those that are there are known by now"
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.mark_missing("/photos", gone, missing=False)
    found = index.search(Query(parts=[QueryPart(vector=data[0])], k=1, filter=matching))
    assert found[0].id == image_id(0), "they are hits again"


def test_a_search_beside_a_deleted_folder_does_not_look_at_every_location(make_index: MakeIndex) -> None:
    """It did so after every change, in the thread that all searches wait for."""
    data = clusters(1000)
    index = make_index(data)
    by_score, _ = without_nearest(index, data, 400)
    with mock.patch.object(Catalog, "matching", side_effect=AssertionError("every location is read")):
        hits = index.search(Query(parts=[QueryPart(vector=data[0])], k=10))
    assert [hit.id for hit in hits] == [image_id(number) for number in by_score[400:410]]


def test_no_more_is_allocated_than_there_are_images(make_index: MakeIndex) -> None:
    data = clusters(1500)
    index = make_index(np.concatenate([data, data[:10]]))  # a graph, and groups
    rowids, _ = index.nearest(data[:2], 10**12)
    assert [len(set(row.tolist())) for row in rowids] == [1510, 1510]


def test_filters_are_kept_within_a_bound_of_bytes(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images have equal vectors, each kept filter has a mask over all images, however few it lets through."""
    monkeypatch.setattr("search.query.selections.MAX_KEPT_BYTES", 20_000)
    data = clusters(900)
    index = make_index(np.concatenate([data, data]))
    for number in range(60):
        hits = index.search(Query(parts=[QueryPart(vector=data[0])], filter=parse_filter({"width": number})))
        assert [hit.id for hit in hits] == [image_id(number)]
    kept = index._searcher._selections._kept.values()
    masks = [selection._standing[1].positions for selection in kept if selection._standing is not None]
    assert len(masks) > 5
    assert sum(mask.nbytes for mask in masks if mask is not None) <= 22_000
