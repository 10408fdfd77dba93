"""Parts of images: where each of them lies, and what a recipe says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import new_image
from numpy.typing import NDArray

from search.filters import parse_filter
from search.generations.policy import Policy
from search.index import Index
from search.recipe import Preprocessing, Recipe, squares
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.vectors import normalise

PARTS = squares(4, 2, (0, 1, 2), (4,))
PREPROCESSING = Preprocessing(geometry="square", resize=448, size=448, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)
PLAIN = Recipe(
    model="m", weights_sha256="0", layers=(1,), pooling="mean", final_norm=(True,), preprocessing=PREPROCESSING, dim=4
)


def test_boxes_are_pixels_of_the_upright_image() -> None:
    assert PARTS.count == 10
    assert PARTS.box(0, 640, 480) == (0, 0, 640, 480)
    assert PARTS.box(1, 640, 480) == (0, 0, 320, 240)
    assert PARTS.box(5, 640, 480) == (160, 120, 320, 240)
    assert PARTS.box(9, 640, 480) == (320, 240, 320, 240)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (641, 479)])
def test_boxes_lie_inside_images_of_any_size(size: tuple[int, int]) -> None:
    for number in range(PARTS.count):
        x, y, width, height = PARTS.box(number, *size)
        assert width >= 1
        assert height >= 1
        assert 0 <= x <= x + width <= size[0]
        assert 0 <= y <= y + height <= size[1]


def test_a_vector_that_there_is_not_has_no_box() -> None:
    for number in (-1, PARTS.count):
        with pytest.raises(IndexError):
            PARTS.box(number, 10, 10)


def test_a_recipe_with_parts_is_another_one_and_is_read_back() -> None:
    parted = replace(PLAIN, regions=PARTS)
    assert parted != PLAIN
    assert Recipe.from_json(json.loads(json.dumps(parted.to_json()))) == parted


def test_recipes_without_parts_are_written_as_before() -> None:
    with_companion = replace(PLAIN, companion=PLAIN, dim=8)
    assert "regions" not in json.dumps([PLAIN.to_json(), with_companion.to_json()])
    assert Recipe.from_json(with_companion.to_json()) == with_companion


COUNT, DIM = 300, 16
FOUR = replace(PLAIN, dim=DIM, regions=squares(4, 2, (0, 2), (DIM,)))


def parts_of_images() -> NDArray[np.float32]:
    """Five vectors an image, (COUNT, 5, DIM)."""
    drawn = np.random.default_rng(3).standard_normal((COUNT * FOUR.count, DIM))
    return normalise(drawn).reshape(COUNT, FOUR.count, DIM)


def found(index: Index, vector: NDArray[np.float32], k: int = 3) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 4)) for hit in index.search(Query(parts=[QueryPart(vector=vector)], k=k))]


def expected(parts: NDArray[np.float32], vector: NDArray[np.float32], gone: int | None = None) -> list[float]:
    best = (parts @ vector).max(axis=1)
    if gone is not None:
        best[gone] = -1
    return [round(float(score), 4) for score in np.sort(best)[::-1][:3]]


@pytest.mark.parametrize(
    ("published", "policy"),
    [(0, Policy()), (COUNT // 2, Policy()), (COUNT, Policy()), (COUNT, Policy(exact_search_bytes=0))],
    ids=["delta", "both", "exact", "graph"],
)
def test_an_image_is_found_once_by_its_best_part(tmp_path: Path, published: int, policy: Policy) -> None:
    parts = parts_of_images()
    space = Space(name="regions", recipe=FOUR, encoding=Encoding(), storage="float16")
    with Index.create(tmp_path / "i", [space], policy=policy) as index:
        with index.writer() as writer:
            for numbers in (range(published), range(published, COUNT)):
                with writer.transaction() as transaction:
                    for number in numbers:
                        image = new_image(number, parts[number, 0])
                        transaction.add(replace(image, vectors={"regions": parts[number]}))
                if published and numbers.start == 0:
                    index.publish()
        for number, part in ((7, 0), (200, 3), (299, 4)):
            hits = found(index, parts[number, part])
            assert hits[0] == (new_image(number, parts[0, 0]).id, pytest.approx(1, abs=2e-3))
            assert [score for _, score in hits] == pytest.approx(expected(parts, parts[number, part]), abs=2e-3)
            assert len({name for name, _ in hits}) == 3
        for below in (20, 290):  # few matches, and most
            query = Query(parts=[QueryPart(vector=parts[250, 2])], k=3, filter=parse_filter({"width": {"lt": below}}))
            scores = [hit.score for hit in index.search(query)]
            assert scores == pytest.approx(expected(parts[:below], parts[250, 2]), abs=2e-3)
        with index.writer() as writer:
            writer.remove([new_image(200, parts[0, 0]).id])
        hits = found(index, parts[200, 3])
        assert [score for _, score in hits] == pytest.approx(expected(parts, parts[200, 3], 200), abs=2e-3)
        index.publish()
        assert found(index, parts[200, 3]) == hits
        assert len(found(index, parts[7, 0], COUNT)) == COUNT - 1
        assert verify(index).findings == []
