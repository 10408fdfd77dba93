"""Promises of score normalisation: what it takes from a query's scores, and that rates are comparable after it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from conftest import DIM, image_id, vectors

from search.generations.background import Background
from search.index import Index
from search.types import Query, QueryPart
from search.vectors import normalise

MakeIndex = Callable[..., Index]
DATA = vectors(1_500)
BACKGROUND = Background.of(DATA, copy_cosine=0.98)


def test_a_background_shifts_by_half_of_the_mean_of_its_nearest() -> None:
    """Of 100 images two count: those with the highest cosines that are not copies."""
    data, query = DATA[:100], vectors(1, seed=9)
    few = Background.of(data, copy_cosine=0.98)
    cosines = np.sort(data @ query[0])
    assert few.shifts(query) == pytest.approx([(cosines[-1] + cosines[-2]) / 4], abs=1e-6)
    itself = np.sort(data @ data[3])
    assert itself[-1] == pytest.approx(1)
    assert few.shifts(data[3:4]) == pytest.approx([(itself[-2] + itself[-3]) / 4], abs=1e-6)
    assert Background.of(np.repeat(data[:1], 40, axis=0), copy_cosine=0.98).shifts(data[:1]) == [
        0
    ]  # nothing but copies


def test_many_queries_at_once_are_shifted_as_each_by_itself() -> None:
    queries = np.concatenate([DATA[:40], vectors(40, seed=9)])
    assert BACKGROUND.shifts_of_many(queries) == pytest.approx(BACKGROUND.shifts(queries), abs=1e-6)
    copies = Background.of(np.repeat(DATA[:1], 40, axis=0), copy_cosine=0.98)
    assert copies.shifts_of_many(queries[:2]).tolist() == pytest.approx([0, copies.shifts(queries[1:2])[0]], abs=1e-6)


def test_a_background_is_the_same_when_it_is_read_again() -> None:
    assert len(BACKGROUND.vectors) == 512
    grown = np.concatenate([DATA, vectors(300, seed=2)])
    again = Background.from_json(json.loads(json.dumps(BACKGROUND.to_json(len(DATA)))), grown)
    assert np.array_equal(again.vectors, BACKGROUND.vectors)
    assert again.shifts(DATA[:5]) == pytest.approx(BACKGROUND.shifts(DATA[:5]))


@pytest.mark.parametrize("damage", [{"of": 1_501}, {"images": 1_600}, {"nearest": 0}, {"nearest": 513}])
def test_a_background_that_a_space_cannot_have_is_refused(damage: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="background"):
        Background.from_json(BACKGROUND.to_json(len(DATA)) | damage, DATA)


def test_scores_of_a_picture_that_resembles_everything_mean_less(make_index: MakeIndex) -> None:
    """Half of the images share a direction, as drawings on white do: cosines among them say less than among others."""
    data = np.random.default_rng(3).normal(size=(400, DIM)).astype(np.float32)
    data[:200, 0] += 4
    index = make_index(normalise(data))

    def rate_of_a_cosine(number: int, cosine: float) -> float:
        found = index.search(Query(parts=[QueryPart(id=image_id(number))], k=399))
        (nearest,) = sorted(found, key=lambda hit: abs(hit.score - cosine))[:1]
        assert nearest.score == pytest.approx(cosine, abs=0.05)
        assert nearest.fmr is not None
        return nearest.fmr

    common, rare = ([rate_of_a_cosine(number, 0.4) for number in some] for some in (range(5), range(300, 305)))
    assert np.median(common) > 3 * np.median(rare)
