"""Promises of `alike`: each member is nearer to the medoid than by chance, whichever of the two is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.alike import ALIKE_BY_CHANCE, lookalikes
from analysis.labels import records
from search.index import Index
from search.vectors import normalise

COUNT = 1_200


def crowded() -> NDArray[np.float32]:
    """Unit vectors: half of them in a crowd, and near copies of some of these farther out."""
    generator = np.random.default_rng(5)
    found = normalise(generator.normal(size=(COUNT, 384)))
    found[: COUNT // 2] = normalise(found[: COUNT // 2] + 1.2 * found[0])
    for place in range(COUNT // 2):
        noise = normalise(generator.normal(size=(1, 384)))[0]
        found[-1 - place] = normalise((found[place] + generator.uniform(0.6, 1.4) * noise)[None])[0]
    return found


def test_both_images_of_a_pair_are_nearer_than_by_chance(make_index: Callable[..., Index]) -> None:
    index = make_index(crowded())
    rowids = index.catalog.rowids(record.id for record in records(index))
    groups = lookalikes(index, {rowids[record.id]: record for record in records(index)}, {})
    neighbours = index.neighbours(1)
    least = neighbours.least(ALIKE_BY_CHANCE / COUNT)
    assert least is not None
    pairs = [(medoid, member) for medoid, members in groups for member in members]
    assert len(pairs) > 10
    for pair, cosine in zip(pairs, neighbours.cosines(*np.array(pairs).T), strict=True):
        shifts = neighbours.shifts(np.array(pair))
        assert cosine - shifts.max() >= least - 1e-6, pair
        assert shifts.min() < shifts.max()
