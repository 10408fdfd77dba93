"""Promises of how `tune` measures and chooses: equal pictures count as one, and chance recommends nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import recipe
from numpy.typing import NDArray

from analysis.metrics import Estimate
from analysis.perturbations import PERTURBATIONS
from analysis.tuning.costs import Rates
from analysis.tuning.features import Features, Shown, readings
from analysis.tuning.sweep import Tried, choose, pareto, self_retrieval
from search.types import Encoding, Space


def test_pictures_of_equal_pixels_are_one_and_others_of_equal_vectors_share() -> None:
    space = Space(name="a", recipe=recipe(dim=2), encoding=Encoding())
    (layer,) = readings([space])
    one, other = [1.0, 0.0], [0.0, 1.0]
    kinds = [*PERTURBATIONS]

    def found(names: str) -> NDArray[np.float64]:
        shown, vectors = list[Shown](), list[list[float]]()
        for name, vector in zip(names, (one, one, other), strict=True):
            shown += [Shown(name, None), *(Shown(name, kind) for kind in kinds)]
            vectors += [vector] * (1 + len(kinds))
        layers = {layer: np.array(vectors, dtype=np.float16)}
        return np.asarray(self_retrieval(space, Features(shown=shown, layers=layers))[0].mean(axis=1))

    assert found("abc").tolist() == [0.5, 0.5, 1]
    assert found("aac").tolist() == [1, 1, 1]


def tried(name: str, found: NDArray[np.float64], *, rate: float = 1.0, size: int = 1) -> Tried:
    space = Space(name=name, recipe=recipe(), encoding=Encoding())
    return Tried(
        space=space,
        found=found,
        proxy=Estimate.certain(float(found.mean())),
        kinds={},
        images_per_second=rate,
        bytes_per_image=size,
        search_ms=1.0,
    )


def test_where_no_recipe_differs_beyond_noise_the_default_stays() -> None:
    generator = np.random.default_rng(1)
    chosen = []
    for _ in range(100):
        easy = generator.beta(2.4, 1.6, 20)
        same = [tried(str(number), generator.binomial(10, easy) / 10) for number in range(120)]
        chosen.append(choose(same).space.name)
    assert chosen.count("0") >= 90, "one of twenty is mistaken, of recipes that are all alike"
    better = [*same[:5], tried("better", np.minimum(1, same[0].found + 0.2)), *same[5:]]
    assert choose(better).space.name == "better"


def test_recipes_that_are_beaten_in_every_respect_are_left_out() -> None:
    good, cheap = tried("good", np.ones(4), rate=1.0, size=9), tried("cheap", np.zeros(4), rate=2.0, size=3)
    worse, twin = tried("worse", np.zeros(4), rate=1.0, size=9), tried("twin", np.ones(4), rate=1.0, size=9)
    assert pareto([good, cheap, worse, twin]) == [good, cheap, twin]


def test_rates_lie_between_those_that_were_measured() -> None:
    made = Rates(shallow=6, shallow_seconds=0.1, deep=12, deep_seconds=0.2, companion_seconds=0.05)
    middle = replace(recipe(9), companion=recipe(weights="b"))
    space = Space(name="middle", recipe=middle, encoding=Encoding())
    assert made.images_per_second(space) == pytest.approx(1 / 0.2)
    assert made.images_per_second(replace(space, recipe=recipe(12))) == pytest.approx(1 / 0.2)
