"""Parts of images: where each of them lies, and what a recipe says of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from search.recipe import Preprocessing, Recipe, squares

PARTS = squares(4, 2, (0, 1, 2))
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
