"""Pairs of pictures that are alike and not copies of one another, for `duplicates.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from copies import cropped, gamma
from PIL import Image, ImageChops, ImageDraw, ImageOps

Pair = Sequence[Image.Image]
LETTERS = [*"aeioulmnrstdpkbgf"]


def pairs_of(photo: Path, figures: Sequence[Path], number: int) -> Mapping[str, Callable[[], Pair]]:
    """Makes a pair of each kind, of a photo and of two cut-out figures, by number: the seed."""
    file = Image.open(photo)
    file.draft("RGB", (1_600, 1_600))
    scene = file.convert("RGB").resize((1_200, round(1_200 * file.height / file.width)))
    one, other = (Image.open(path).convert("RGBA") for path in figures)
    signs = np.random.default_rng(number).choice(np.arange(10, 99), 2, replace=False).tolist()
    return {
        "burst": partial(burst, scene, one, 2, number),
        "another day": partial(another_day, scene, (one, other), number),
        "window": lambda: [screenshot(4 + number % 13, 2 * number + place) for place in range(2)],
        "series": lambda: [series(sign, number) for sign in signs],
        "form": lambda: [form(number, filled) for filled in (False, True)],
        "pages": lambda: [page(2 * number + place, 30 + number % 40) for place in range(2)],
        "captions": lambda: [captioned(scene, 2 * number + place, bar=number % 2 == 0) for place in range(2)],
        "one thing added": lambda: added(scene, one, number, moved=False),
        "one thing moved": lambda: added(scene, one, number, moved=True),
    }


def burst(photo: Image.Image, subject: Image.Image, frames: int, seed: int) -> list[Image.Image]:
    """Frames that a camera takes one after the other: 640 pixels wide, of a hand that is not still and a subject that
    moves, each with its own noise. photo: RGB, of 1,000 pixels or more; subject: RGBA."""
    generator = np.random.default_rng(seed)
    side = photo.width / 640
    place = generator.uniform(0.25, 0.55, 2)
    step = generator.uniform(0.02, 0.06, 2) * generator.choice([-1, 1], 2)
    taken = []
    for number in range(frames):
        scene = photo.copy()
        figure = subject.rotate(float(generator.normal(0, 3)), Image.Resampling.BICUBIC)
        size = round(0.3 * scene.height * (1 + 0.02 * number))
        figure = ImageOps.contain(figure, (size, size))
        at = place + step * number
        scene.paste(figure, (round(at[0] * scene.width), round(at[1] * scene.height)), figure)
        shake = generator.normal(0, 3 * side, 2)
        angle = float(generator.normal(0, 0.4))
        held = ImageChops.offset(scene.rotate(angle, Image.Resampling.BICUBIC), round(shake[0]), round(shake[1]))
        seen = cropped(held, 0.04, 0.04, 0.04, 0.04)
        seen = seen.resize((640, round(640 * seen.height / seen.width)))
        taken.append(_noise_of_sensor(gamma(seen, float(generator.uniform(0.97, 1.03))), generator))
    return taken


def another_day(photo: Image.Image, subjects: tuple[Image.Image, Image.Image], seed: int) -> list[Image.Image]:
    """The same place twice, from nearly the same spot: other light, another subject elsewhere, other noise."""
    generator = np.random.default_rng(seed)
    taken = []
    for subject in subjects:
        scene = photo.copy()
        figure = ImageOps.contain(subject, (round(0.4 * scene.height),) * 2)
        at = generator.uniform(0.1, 0.6, 2) * scene.size
        scene.paste(figure, (round(at[0]), round(at[1])), figure)
        cut = generator.uniform(0.0, 0.1, 4)
        seen = cropped(scene, *cut.tolist())
        seen = seen.resize((640, round(640 * photo.height / photo.width)))
        start, end = generator.uniform(0.7, 1.25, 2).tolist()
        light = np.linspace(start, end, seen.width)[None, :, None]
        tint = generator.uniform(0.9, 1.1, 3)
        lit = Image.fromarray((np.asarray(seen) * light * tint).clip(0, 255).astype(np.uint8))
        taken.append(_noise_of_sensor(lit, generator))
    return taken


def _noise_of_sensor(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    noise = generator.normal(0, 4, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def screenshot(lines: int, seed: int) -> Image.Image:
    """A window of one program, with its own text: lines, buttons and bars that are always the same, other words."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 640, 28), fill=(60, 80, 120))
    draw.rectangle((0, 28, 120, 400), fill=(230, 230, 235))
    for number, name in enumerate(("Inbox", "Sent", "Drafts", "Archive", "Spam", "Trash")):
        draw.text((12, 40 + 24 * number), name, fill="black", font_size=13)
    for number in range(lines):
        words = "".join(generator.choice([*"aeiou lmnrst ."], 60).tolist())
        draw.text((132, 40 + 20 * number), words, fill="black", font_size=12)
    return image


def series(subject: int, seed: int) -> Image.Image:
    """A drawing of a series: one frame and style, another sign in it."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    hue = tuple(generator.integers(40, 220, 3).tolist())
    draw.ellipse((10, 10, 390, 390), fill="white", outline=hue, width=30)
    draw.rectangle((80, 300, 320, 330), fill=hue)
    draw.text((200, 190), str(subject), fill="black", anchor="mm", font_size=150)
    return image


def words(generator: np.random.Generator, letters: int) -> str:
    """Words of no language, of so many letters and spaces together."""
    found = ""
    while len(found) < letters:
        found += "".join(generator.choice(LETTERS, int(generator.integers(2, 10))).tolist()) + " "
    return found[:letters].strip()


def form(seed: int, filled: bool) -> Image.Image:
    """A form, empty or filled in: by hand, in blue, or typed."""
    generator, answers = np.random.default_rng(seed), np.random.default_rng(seed + 1_000_000)
    image = Image.new("RGB", (850, 1_100), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 40), words(generator, 24).upper(), fill="black", font_size=34)
    rows, ink = 8 + seed % 10, (20, 30, 140) if seed % 2 else (0, 0, 0)
    for number in range(rows):
        top = 110 + number * 940 // rows
        draw.rectangle((60, top, 790, top + 48), outline="black", width=2)
        draw.text((68, top + 4), words(generator, 22), fill="black", font_size=15)
        if filled and answers.random() < 0.8:
            place = 90 + int(answers.integers(0, 200)), top + 16
            draw.text(place, words(answers, int(answers.integers(6, 30))), fill=ink, font_size=28)
    return image


def page(seed: int, lines: int) -> Image.Image:
    """A page of one layout, with its own words, all lines equally long."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (850, 1_100), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 40), "ANNUAL REPORT", fill="black", font_size=26)
    step = 960 / lines
    for number in range(lines):
        line = Image.new("L", (1_000, 24), 255)
        ImageDraw.Draw(line).text((0, 0), words(generator, 110), fill=0, font_size=17)
        box = line.point(lambda level: 255 - level).getbbox()
        line = line.crop((0, 0, box[2] if box else 1_000, 24)).resize((730, round(min(24, step + 4))))
        image.paste("black", (60, round(90 + step * number)), line.point(lambda level: 255 - level))
    return image


def captioned(photo: Image.Image, seed: int, *, bar: bool) -> Image.Image:
    """A photo with words along its lower edge, on a black bar, or in white with black outlines."""
    image = photo.copy()
    height = round(0.12 * image.height)
    draw, top = ImageDraw.Draw(image), image.height - height
    if bar:
        draw.rectangle((0, top, image.width, image.height), fill="black")
    text = words(np.random.default_rng(seed), 18).upper()
    draw.text((image.width / 2, top + 4), text, fill="white", font_size=round(0.7 * height), anchor="ma",
              stroke_width=0 if bar else 3, stroke_fill="black")  # fmt: skip
    return image


def added(photo: Image.Image, figure: Image.Image, seed: int, *, moved: bool) -> Pair:
    """A scene from one tripod, with and without a figure of 6 to 15% of its width in it, or with it elsewhere."""
    generator = np.random.default_rng(seed)
    one, other = photo.copy(), photo.copy()
    size = round(generator.uniform(0.06, 0.15) * photo.width)
    held = ImageOps.contain(figure, (size, size))
    left, top = (round(share * side) for share, side in zip(generator.uniform(0.2, 0.7, 2), photo.size, strict=True))
    other.paste(held, (left, top), held)
    if moved:
        one.paste(held, (left + size // 2 + 4, top + size // 4), held)
    return [_noise_of_sensor(one, generator), _noise_of_sensor(other, generator)]
