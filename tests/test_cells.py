"""Promises of neighbours that are looked for by cells: nearly all are found, and the same each time."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.duplicates.candidates import ascending, candidate_pairs
from search.generations import cells
from search.generations.ann import exact
from search.generations.cells import CELL_VECTORS, nearest_by_cells
from search.index import Index
from search.query import neighbours
from search.vectors import normalise

Vectors = NDArray[np.float32]
COUNT, K = 6_000, 9


def clustered(count: int = COUNT, seed: int = 0) -> Vectors:
    """Unit vectors of 384 numbers in 60 loose clusters; the first 400 have a near copy each behind them."""
    generator = np.random.default_rng(seed)
    middles = generator.normal(size=(60, 384))
    made = normalise(middles[generator.integers(0, 60, count)] + generator.normal(size=(count, 384)) * 1.2)
    made[400:800] = normalise(made[:400] + 0.03 * generator.normal(size=(400, 384)))
    return made


def test_few_neighbours_are_missed_and_hardly_any_near_copy() -> None:
    vectors = clustered()
    found, cosines = nearest_by_cells(vectors, K)
    true = exact(vectors, vectors, K)
    assert (found[:, :1] == np.arange(COUNT)[:, None]).mean() > 0.999
    assert np.mean([len({*one} & {*other}) / K for one, other in zip(found.tolist(), true.tolist(), strict=True)]) > 0.9
    copies = [400 + one in found[one] and one in found[400 + one] for one in range(400)]
    assert np.mean(copies) > 0.99
    places = np.arange(COUNT)[:, None]
    assert np.allclose(cosines, np.einsum("ijk,ik->ij", vectors[found], vectors[places[:, 0]]), atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_the_same_vectors_have_the_same_neighbours_on_any_number_of_cores() -> None:
    vectors = clustered(3_000)
    first = nearest_by_cells(vectors, K)
    threads = faiss.omp_get_max_threads()
    try:
        for cores in (1, 2, 3):
            faiss.omp_set_num_threads(cores)
            again = nearest_by_cells(vectors, K)
            assert np.array_equal(again[0], first[0])
            assert np.array_equal(again[1], first[1])
    finally:
        faiss.omp_set_num_threads(threads)


def test_batches_change_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(3_000)
    whole = nearest_by_cells(vectors, K)
    monkeypatch.setattr(cells, "BATCH", 500)
    found, cosines = nearest_by_cells(vectors, K)
    assert np.array_equal(found, whole[0])
    assert np.allclose(cosines, whole[1], atol=1e-6)


@pytest.mark.parametrize("equal", [500, COUNT // 2, COUNT])
def test_equal_vectors_find_one_another_and_hide_no_others(equal: int) -> None:
    vectors = clustered()
    vectors[-equal:] = vectors[-1]
    found, cosines = nearest_by_cells(vectors, K)
    assert (found >= 0).all()
    assert (found[-equal:] >= COUNT - equal).all()
    assert np.allclose(cosines[-equal:], 1, atol=1e-5)
    copies = [400 + one in found[one] for one in range(min(400, COUNT - equal))]
    assert not copies or np.mean(copies) > 0.99


def test_fewer_vectors_than_a_cell_holds_are_all_compared() -> None:
    vectors = clustered()[: CELL_VECTORS // 2]
    assert np.array_equal(nearest_by_cells(vectors, 5)[0], exact(vectors, vectors, 5))
    assert (nearest_by_cells(vectors[:3], 5)[0][:, 3:] == -1).all()


@pytest.mark.parametrize("publish", [True, False])
def test_candidates_by_cells_are_those_of_comparing_all_but_for_few(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch, publish: bool
) -> None:
    index = make_index(clustered(2_400), publish=publish)
    rowids = index.searched(index.space())[0].tolist()
    hashes = [*zip(rowids, np.random.default_rng(1).integers(-(2**63), 2**63 - 1, len(rowids)).tolist(), strict=True)]
    all_compared = {(one, other) for one, other in candidate_pairs(index, hashes).tolist()}
    monkeypatch.setattr(neighbours, "MAX_COMPARED", len(rowids))
    assert {(one, other) for one, other in candidate_pairs(index, hashes).tolist()} == all_compared
    monkeypatch.setattr(neighbours, "MAX_COMPARED", len(rowids) - 1)
    by_cells = {(one, other) for one, other in candidate_pairs(index, hashes).tolist()}
    assert by_cells != all_compared  # it was not compared
    assert len(by_cells & all_compared) > 0.9 * len(all_compared)
    copies = {(rowids[one], rowids[400 + one]) for one in range(400)}
    assert len(copies & by_cells) >= 0.99 * len(copies & all_compared) > 300


@pytest.mark.parametrize("publish", [True, False])
def test_cosines_of_pairs_are_those_of_their_vectors(make_index: Callable[..., Index], publish: bool) -> None:
    vectors = clustered(900)
    index = make_index(vectors, publish=publish)
    rowids, stored = index.searched(index.space())
    ones, others = np.random.default_rng(0).integers(0, len(rowids), (2, 3_000))
    cosines = index.neighbours(K).cosines(rowids[ones], rowids[others])
    assert np.allclose(cosines, np.einsum("ij,ij->i", stored[ones], stored[others]), atol=1e-5)


def test_equal_hashes_stay_in_their_order() -> None:
    hashes = np.random.default_rng(0).integers(0, 50, 2_000).astype(np.uint64)
    hashes[100:] += np.arange(1_900, dtype=np.uint64) % np.uint64(700)
    assert np.array_equal(ascending(hashes), np.argsort(hashes, kind="stable"))
