"""Promises of `dups`: what came, went, or was written into one of two pictures makes them two photos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_photo import figure, noisy, scene, small

from analysis.duplicates.agreement import compared, typical
from analysis.duplicates.alignment import places
from analysis.duplicates.photo import compare

Pair = tuple[Image.Image, Image.Image]


def words(seed: int, letters: int) -> str:
    return "".join(np.random.default_rng(seed).choice([*"aeiou lmnrst"], letters).tolist())


def form(*answers: tuple[int, str]) -> Image.Image:
    """A form of twelve rows, filled in where there are answers."""
    image = Image.new("RGB", (600, 780), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 20), "APPLICATION FOR A PERMIT", fill="black", font_size=26)
    for row in range(12):
        draw.rectangle((40, 80 + 56 * row, 560, 124 + 56 * row), outline="black", width=2)
        draw.text((46, 83 + 56 * row), words(row, 22), fill="black", font_size=13)
    for row, answer in answers:
        draw.text((80, 96 + 56 * row), answer, fill=(20, 30, 140), font_size=24)
    return image


def page(seed: int, rows: int = 75, grey: int = 0) -> Image.Image:
    """A page of so many lines, all equally long."""
    image = Image.new("RGB", (850, 1_100), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 30), "ANNUAL REPORT", fill="black", font_size=26)
    step = 980 / rows
    for row in range(rows):
        text = words(1000 * seed + row, round(1_500 / step))
        line = Image.new("L", (1_200, 24))
        ImageDraw.Draw(line).text((0, 0), text, fill=255, font_size=20)
        left, _, right, _ = line.getbbox() or (0, 0, 1_200, 24)
        line = line.crop((left, 0, right, 24)).resize((730, round(1.2 * step)), Image.Resampling.BOX)
        image.paste((grey,) * 3, (60, round(80 + step * row)), line)
    return image


def captioned(image: Image.Image, text: str, *, bar: bool) -> Image.Image:
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    if bar:
        draw.rectangle((0, 250, 400, 300), fill="black")
    draw.text((200, 254), text, "white", font_size=36, anchor="ma", stroke_width=0 if bar else 3, stroke_fill="black")
    return drawn


def with_somebody(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    """A picture with a figure in it, so many pixels wide."""
    layer = image.copy()
    figure(ImageDraw.Draw(layer), left, top, "green")
    drawn = image.copy()
    cut = layer.crop((left + 5, top, left + 66, top + 111))
    drawn.paste(cut.resize((side, round(side * 1.8))), (left, top))
    return drawn


def frames(one: Image.Image, other: Image.Image) -> Pair:
    return noisy(one, 3), noisy(other, 3, seed=1)


TWO_PHOTOS: dict[str, Callable[[int], Pair]] = {
    "a form, empty and filled in": lambda seed: (
        form(),
        form(*((row, words(50 + row + seed, 20)) for row in range(12))),
    ),
    "one answer in a form": lambda seed: (form(), form((6 + seed, "Lucy van Pelt"))),
    "a form that is signed": lambda seed: (form(), form((11, "Lucy van Pelt"))),
    "two pages of small text": lambda seed: (page(seed), page(seed + 2)),
    "two pages of pale small text": lambda seed: (page(seed, 140, 160), page(seed + 2, 140, 160)),
    "two captions": lambda seed: (
        captioned(scene(seed), "holidays 2026", bar=True),
        captioned(scene(seed), "my cousin's dog", bar=True),
    ),
    "two inscriptions": lambda seed: (
        captioned(scene(seed), "WHEN IT RAINS", bar=False),
        captioned(scene(seed), "NOBODY KNOWS", bar=False),
    ),
    "somebody who came": lambda seed: frames(scene(seed), with_somebody(scene(seed), 90, 90, 50)),
    "a small thing that came": lambda seed: frames(scene(seed), with_somebody(scene(seed), 120, 120, 22)),
    "a small thing that moved": lambda seed: frames(
        with_somebody(scene(seed), 90, 120, 22), with_somebody(scene(seed), 130, 140, 22)
    ),
}


@pytest.mark.parametrize("kind", TWO_PHOTOS)
def test_what_came_or_was_written_makes_another_photo(kind: str) -> None:
    for seed in range(2):
        one, other = TWO_PHOTOS[kind](seed)
        assert compare(small(one), small(other)) == 0, seed
        assert compare(small(other), small(one)) == 0, seed


@pytest.mark.parametrize("bar", [True, False])
def test_a_caption_that_only_one_has_leaves_the_photo_the_same(bar: bool) -> None:
    for seed in range(2):
        one, other = small(scene(seed)), small(captioned(scene(seed), "HOLIDAYS 2026", bar=bar))
        assert compare(one, other) > 0, seed
        assert compare(other, one) > 0, seed


@pytest.mark.parametrize("image", [form((3, "Lucy van Pelt"), (5, "Third Street 7")), page(3)])
def test_a_page_made_smaller_is_the_same_one(image: Image.Image) -> None:
    smaller = image.resize((image.width // 2, image.height // 2))
    assert compare(small(image), small(smaller)) > 0
    assert compare(small(smaller), small(image)) > 0


def with_logo(image: Image.Image) -> Image.Image:
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((320, 220, 390, 290), fill="orange", outline="black", width=4)
    draw.text((355, 255), "TV", fill="black", anchor="mm", font_size=34)
    return drawn


def lettered(image: Image.Image, text: str) -> Image.Image:
    drawn = image.copy()
    ImageDraw.Draw(drawn).text(
        (200, 4), text, fill="white", anchor="ma", font_size=38, stroke_width=3, stroke_fill="black"
    )
    return drawn


def watermarked(image: Image.Image, opacity: float) -> Image.Image:
    layer = Image.new("L", image.size)
    for row in range(5):
        ImageDraw.Draw(layer).text((30 + 90 * (row % 2), 60 * row), "SAMPLE", fill=round(255 * opacity), font_size=50)
    return Image.composite(Image.new("RGB", image.size, (128, 128, 128)), image, layer)


def textured(seed: int) -> Image.Image:
    """Leaves and gravel: fine detail all over, and nothing else."""
    grain = np.random.default_rng(seed).uniform(0, 255, (48, 64)).astype(np.uint8)
    return Image.fromarray(grain).resize((480, 360), Image.Resampling.BICUBIC).convert("RGB")


def with_shapes(image: Image.Image, *shapes: tuple[str, str, tuple[int, int, int, int]]) -> Image.Image:
    drawn = image.copy()
    for kind, colour, box in shapes:
        getattr(ImageDraw.Draw(drawn), kind)(box, fill=colour)
    return drawn


def board(seed: int, *fields: int) -> Image.Image:
    """A picture with nine plain fields, and a red dot in some of them."""
    drawn = scene(seed)
    draw = ImageDraw.Draw(drawn)
    for number in range(9):
        x, y = 40 + 140 * (number % 3), 45 + 105 * (number // 3)
        draw.rectangle((x - 26, y - 26, x + 26, y + 26), fill=(210, 210, 210))
        if number in fields:
            draw.ellipse((x - 20, y - 20, x + 20, y + 20), fill="red")
    return drawn


PAINTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "a logo over a part of it": with_logo,
    "a pale watermark all over": lambda image: watermarked(image, 0.6),
    "a strong watermark all over": lambda image: watermarked(image, 0.8),
}


@pytest.mark.parametrize("what", PAINTED)
def test_what_was_painted_on_an_equal_picture_leaves_it_the_same(what: str) -> None:
    for seed in (2, 3, 7):
        one, other = small(scene(seed)), small(PAINTED[what](scene(seed)))
        assert compare(one, other) > 0, seed
        assert compare(other, one) > 0, seed


def test_words_on_both_of_two_equal_pictures_make_them_two() -> None:
    for seed in (1, 3, 7):
        one, other = lettered(scene(seed), "WHEN IT RAINS"), lettered(scene(seed), "NOBODY EXPECTS")
        assert compare(small(one), small(other)) == 0, seed


SHAPES: dict[str, tuple[list[tuple[str, str, tuple[int, int, int, int]]], ...]] = {
    "a ball that came nearer": ([("ellipse", "black", (20, 10, 50, 40))], [("ellipse", "black", (300, 8, 370, 70))]),
    "a circle and a square": (
        [("ellipse", "red", (300, 210, 392, 292))],
        [("rectangle", "blue", (300, 210, 392, 292))],
    ),
    "one sun and two": (
        [("ellipse", "yellow", (20, 10, 60, 50))],
        [("ellipse", "yellow", (120, 10, 160, 50)), ("ellipse", "yellow", (300, 8, 350, 58))],
    ),
}


@pytest.mark.parametrize("what", SHAPES)
def test_what_stands_on_both_of_two_equal_pictures_makes_them_two(what: str) -> None:
    for seed in (1, 3, 7):
        one, other = (small(with_shapes(scene(seed), *shapes)) for shapes in SHAPES[what])
        assert compare(one, other) == 0, seed
        assert compare(other, one) == 0, seed


def test_what_stands_on_plain_fields_is_no_watermark() -> None:
    for seed in (1, 3, 7):
        empty, played = small(board(seed)), small(board(seed, 0, 2, 4, 6, 8))
        assert compare(empty, played) == 0, seed
        assert compare(played, empty) == 0, seed


def test_fine_detail_all_over_is_found_again() -> None:
    for seed in range(2):
        other = small(noisy(textured(seed), 8))
        assert compare(small(textured(seed)), other) > 0.5, seed
        assert compare(small(textured(seed + 7)), other) == 0, seed


def test_a_thumbnail_agrees_with_its_photo_made_as_small() -> None:
    for seed in range(3):
        place = next(places(small(scene(seed)), small(scene(seed).resize((40, 30)))))
        found = compared(place)
        assert found is not None
        assert typical(found) > 0.98, seed
