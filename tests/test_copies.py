"""Promises where many images have equal or nearly equal vectors: recall is that of new images, hits come by id."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import image_id, new_image
from numpy.typing import NDArray

from search.filters import Filter, parse_filter
from search.generations.ann import exact, scores
from search.generations.generation import load, manifest_digest
from search.generations.groups import Digester, first_equals
from search.generations.held_out import HeldOut
from search.generations.policy import Policy
from search.index import Index
from search.query.snapshot import Snapshot
from search.types import Query, QueryPart
from search.upkeep.verify import verify
from search.vectors import normalise

MakeIndex = Callable[..., Index]
Vectors = NDArray[np.float32]
DIM = 32
SMALL = Policy(exact_search_bytes=500 * DIM * 4, exact_filtered_images=50, visited_per_candidate=2)
"""Graphs from 500 different vectors on."""


@pytest.fixture
def make_index(make_index: MakeIndex) -> MakeIndex:
    return partial(make_index, policy=SMALL)


def pictures(count: int, seed: int = 0) -> Vectors:
    """(count, DIM) unit vectors around 300 centres, all different."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(300, DIM))
    return normalise(centres[random.integers(0, 300, count)] + 1.5 * random.normal(size=(count, DIM)))


def with_near_copies(count: int) -> Vectors:
    """Four in five are one of 20 near copies."""
    random, different = np.random.default_rng(1), pictures(count)
    groups = count // 25
    copies = np.repeat(different[-groups:], 20, axis=0)
    copies = normalise(copies + 3e-3 / np.sqrt(DIM) * random.normal(size=copies.shape))
    return random.permutation(np.concatenate([different[: count - len(copies)], copies]))


def with_bursts(count: int) -> Vectors:
    """Four in five are one of 20 frames, whose squared distances are .04 of those of random pictures."""
    random, different = np.random.default_rng(1), pictures(count)
    groups = count // 25
    frames = np.repeat(different[-groups:], 20, axis=0)
    frames = normalise(frames + 0.2 / np.sqrt(DIM) * random.normal(size=frames.shape))
    return random.permutation(np.concatenate([different[: count - len(frames)], frames]))


def all_twice(count: int) -> Vectors:
    """Every image has a near copy: raw files beside developed ones."""
    data = np.repeat(pictures(count // 2), 2, axis=0)
    return normalise(data + 3e-3 / np.sqrt(DIM) * np.random.default_rng(2).normal(size=data.shape))


def with_equals(count: int) -> Vectors:
    """Nine in ten are one of ten equal ones."""
    random, different = np.random.default_rng(1), pictures(count)
    groups = count * 9 // 100
    copies = np.repeat(different[-groups:], 10, axis=0)
    return random.permutation(np.concatenate([different[: count - len(copies)], copies]))


def half_equal(count: int) -> Vectors:
    """Every second one is the same."""
    data = pictures(count)
    data[::2] = data[0]
    return data


def published(index: Index) -> dict[str, float]:
    index.refresh()
    return dict(index.info().spaces[0].structure["search"])


def recall_of_new_images(index: Index, data: Vectors, queries: Vectors) -> NDArray[np.float64]:
    """The share of each query's ten nearest that is found, (q,); equal vectors are one."""
    different = np.unique(data, axis=0)
    least = scores(different, queries, exact(different, queries, 10))[:, -1:]
    snapshot, _ = index._follower.newest()
    assert snapshot.generation is not None
    space = snapshot.generation.spaces["layer2"]
    assert space.graph is not None
    found = scores(space.vectors, queries, space.graph.search(queries, space.ef, 30))
    return (np.sort(found, axis=1)[:, -10:] >= least - 1e-6).mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("collection", [pictures, with_near_copies, with_bursts, all_twice, with_equals, half_equal])
def test_the_recall_of_a_manifest_is_that_of_images_it_has_not_seen(
    make_index: MakeIndex, collection: Callable[[int], Vectors]
) -> None:
    data, queries = collection(5000), pictures(1500, seed=7)
    index = make_index(data)
    facts = published(index)
    new = np.sort(recall_of_new_images(index, data, queries))
    assert facts["recall"] >= 0.95
    assert facts["recall"] == pytest.approx(new.mean(), abs=0.02)
    assert facts["recall_worst_tenth"] >= 0.7
    # Forty queries or so, of a graph of a few thousand: known to a tenth.
    assert facts["recall_worst_tenth"] == pytest.approx(new[:150].mean(), abs=0.12)


@pytest.mark.slow
def test_equal_vectors_enter_the_graph_once(make_index: MakeIndex) -> None:
    data = half_equal(3000)
    index = make_index(data)
    structure = dict(index.info().spaces[0].structure)
    assert structure["structure"] == "hnsw"
    assert structure["distinct"] == 1501
    space = load(index.path / "generations" / "000001").spaces["layer2"]
    assert space.graph is not None
    assert (space.graph.count, len(space.vectors), len(space.rowids)) == (1501, 1501, 3000)
    assert verify(index).findings == []


def test_few_different_vectors_are_compared_however_many_images_have_them(make_index: MakeIndex) -> None:
    data = np.repeat(pictures(20), 100, axis=0)
    index = make_index(data)
    assert index.info().spaces[0].structure["structure"] == "exact"
    rowids, cosines = index.nearest(data[:1], 250)
    assert (cosines[0, :100] > 0.9999).all()
    assert len(set(rowids[0].tolist())) == 250


def brute_force(data: Vectors, numbers: list[int], query: Vectors, k: int) -> list[str]:
    """The ids of the k nearest, ties by id."""
    found = scores(data, query[None], np.array([numbers]))[0]
    return [name for _, name in sorted(zip((-found).tolist(), map(image_id, numbers), strict=True))[:k]]


def hits(index: Index, query: Vectors, k: int, matching: Filter | None = None) -> list[str]:
    asked = Query(parts=[QueryPart(vector=query)], k=k, filter=matching)
    return [hit.id for hit in index.search(asked)]


@pytest.mark.slow
@pytest.mark.parametrize("graph", [True, False])
def test_hits_among_equal_vectors_are_the_first_by_id_whatever_is_removed_added_or_filtered(
    make_index: MakeIndex, graph: bool
) -> None:
    different = pictures(700)
    data = np.concatenate([different, np.repeat(different[:5], 60, axis=0), np.repeat(different[5:7], 40, axis=0)])
    policy = (
        replace(SMALL, ef_choices=(512,), visited_per_candidate=1)
        if graph
        else replace(SMALL, exact_search_bytes=1 << 30)
    )
    index = make_index(data[:1040], policy=policy)
    assert (index.info().spaces[0].structure["structure"] == "hnsw") == graph
    with index.writer() as writer:
        writer.remove(image_id(number) for number in [1, 2, *range(700, 715), *range(820, 1000, 3)])
        with writer.transaction() as transaction:
            for number in range(1040, 1080):
                transaction.add(new_image(number, data[number]))
    left = sorted(set(range(1080)) - {1, 2, *range(700, 715), *range(820, 1000, 3)})
    for publish in (False, True):
        if publish:
            index.publish()
            index.refresh()
            assert index.info().delta == 0
        for number in range(8):
            for k in (1, 10, 55, 130, 700):
                assert hits(index, data[number], k) == brute_force(data, left, data[number], k)
                even = [one for one in left if one % 2 == 0]
                assert hits(index, data[number], k, parse_filter({"label": "even"})) == brute_force(
                    data, even, data[number], k
                )
                narrow = [one for one in left if one < 30 or one > 1030]
                wanted = parse_filter({"or": [{"width": {"lt": 30}}, {"width": {"gt": 1030}}]})
                assert hits(index, data[number], k, wanted) == brute_force(data, narrow, data[number], k)
    assert verify(index).findings == []


def test_equal_vectors_that_come_later_join_those_before(make_index: MakeIndex) -> None:
    different = pictures(1200)
    data = np.concatenate([different[:1000], different[:50], different[1000:], different[:100], different[1100:1150]])
    index = make_index(data[:1050])
    with index.writer() as writer, writer.transaction() as transaction:
        for number in range(1050, len(data)):
            transaction.add(new_image(number, data[number]))
    assert index.publish() == "000002"
    first, second = (load(index.path / "generations" / name).spaces["layer2"] for name in ("000001", "000002"))
    assert (len(first.vectors), len(second.vectors), len(second.rowids)) == (1000, 1200, len(data))
    assert second.graph is not None
    assert second.graph.count == 1200
    shared = [index.path / "generations" / name / "layer2.vectors" for name in ("000001", "000002")]
    assert shared[0].samefile(shared[1])
    index.refresh()
    for number in (0, 60, 1010, 1120):
        assert hits(index, data[number], 5) == brute_force(data, list(range(len(data))), data[number], 5)
    assert verify(index).findings == []


def test_a_copy_added_to_different_vectors_makes_a_group(make_index: MakeIndex) -> None:
    data = np.concatenate([pictures(1000), pictures(1000)[:3]])
    index = make_index(data[:1000])
    assert not (index.path / "generations" / "000001" / "layer2.groups").exists()
    with index.writer() as writer, writer.transaction() as transaction:
        for number in range(1000, 1003):
            transaction.add(new_image(number, data[number]))
    index.publish()
    index.refresh()
    assert index.info().spaces[0].structure["distinct"] == 1000
    assert hits(index, data[1], 2) == sorted([image_id(1), image_id(1001)])


@pytest.mark.slow
def test_thousands_of_equal_vectors_cost_no_more_than_one(make_index: MakeIndex) -> None:
    data = half_equal(3000)
    index = make_index(data)
    index.refresh()
    with mock.patch.object(Snapshot, "nearest", autospec=True, side_effect=Snapshot.nearest) as asked:
        found = hits(index, data[0], 10)
    assert asked.call_count == 1
    assert found == sorted(image_id(number) for number in range(0, 3000, 2))[:10]


def test_queries_are_held_out_where_everything_is_a_near_copy_of_two_pictures() -> None:
    two = np.repeat(pictures(2), 500, axis=0)
    data = normalise(two + 3e-3 * np.random.default_rng(4).normal(size=two.shape))
    held_out = HeldOut(data[::4], Policy(), len(data))
    held_out.see_new(data)
    (queries,), numbers = held_out.choose(np.arange(1000))
    assert len(queries) == len(numbers) == 125


def test_queries_are_held_out_with_all_their_near_copies() -> None:
    data = all_twice(2000)
    held_out = HeldOut(data[:400], Policy(), len(data))
    held_out.see_new(data)
    sets, numbers = held_out.choose(np.arange(2000))
    assert [len(queries) for queries in sets] == [125, 125]
    assert len(numbers) == 250
    left = np.setdiff1d(np.arange(2000), numbers)
    assert (data[left] @ sets[0].T).max() < 0.98


def test_queries_of_one_set_are_held_out_with_what_is_barely_not_a_near_copy() -> None:
    data = with_bursts(5000)
    held_out = HeldOut(np.random.default_rng(6).permutation(data)[:1000], Policy(held_out_vectors=128), len(data))
    for block in np.array_split(data, 7):
        held_out.see_new(block)
    sets, numbers = held_out.choose(np.arange(len(data)))
    assert [len(queries) for queries in sets] == [128, 128]
    left = np.setdiff1d(np.arange(len(data)), numbers)
    tight, loose = [(data[left] @ queries.T).max(axis=0) for queries in sets]
    assert loose.max() < 0.91
    assert np.median(tight) > 0.94, "frames of their bursts"


@pytest.mark.parametrize(("data", "kept"), [(pictures(3000), 80), (all_twice(3000), 256)], ids=["none", "all twice"])
def test_few_candidates_are_compared_where_few_images_have_copies(data: Vectors, kept: int) -> None:
    """A comparison of each with a million vectors takes seconds."""
    policy = Policy(held_out_vectors=64)
    held_out = HeldOut(data[::2][np.random.default_rng(5).permutation(1500)[:256]], policy, len(data))
    for block in np.array_split(data, 30):
        held_out.see_new(block)
    assert len(held_out.candidates) == kept
    sets, numbers = held_out.choose(np.arange(len(data)))
    assert [len(queries) for queries in sets] == [64, 64]
    assert len(numbers) == 64 * (1 if kept == 80 else 2)
    left = np.setdiff1d(np.arange(len(data)), numbers)
    assert max((data[left] @ queries.T).max() for queries in sets) < 0.98


def test_vectors_are_equal_only_bit_by_bit() -> None:
    for dim in (1, 3, 32):
        data = normalise(np.random.default_rng(0).normal(size=(50, dim)) if dim > 1 else np.array([[1.0], [-1.0]]))
        nearly = np.nextafter(data, np.float32(2))
        digester = Digester(dim)
        equals = first_equals(digester.digests(data), digester.digests(np.concatenate([data[::-1], nearly, nearly])))
        count = len(data)
        assert equals[:count].tolist() == list(range(count))[::-1]
        assert equals[count : 2 * count].tolist() == list(range(2 * count, 3 * count))
        assert equals[2 * count :].tolist() == list(range(2 * count, 3 * count))


def as_written_before(folder: Path, index: Index) -> None:
    """Give a generation without equal vectors the manifest that format 2 had."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["format"] = 2
    for space in manifest["spaces"].values():
        del space["distinct"]
        for new in ("recall_worst_tenth", "measured_by"):
            space["search"].pop(new, None)
    manifest["sha256"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.set_generation(folder.name, {folder.name: manifest["sha256"]})


@pytest.mark.slow
def test_a_generation_of_the_format_before_answers_and_the_next_one_has_groups(make_index: MakeIndex) -> None:
    data = np.concatenate([pictures(1000), pictures(1000)[:30]])
    index = make_index(data[:1000])
    as_written_before(index.path / "generations" / "000001", index)
    with Index.open(index.path, policy=SMALL, writable=True) as opened:
        assert opened.info().generation == "000001"
        assert opened.info().delta == 0
        assert hits(opened, data[3], 3) == brute_force(data, list(range(1000)), data[3], 3)
        with opened.writer() as writer, writer.transaction() as transaction:
            for number in range(1000, 1030):
                transaction.add(new_image(number, data[number]))
        opened.publish()
        opened.refresh()
        assert opened.info().spaces[0].structure["distinct"] == 1000
        assert verify(opened).findings == []
