"""Promises of `dups` on pictures that are not equal: what is the same photo, and what is only alike."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import run_cli, vectors
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from analysis.duplicates.candidates import MAX_BITS, turned_hashes
from analysis.duplicates.medoids import around_medoids
from analysis.duplicates.photo import compare
from analysis.duplicates.small import Small, turned
from indexer.pictures.facts import perceptual_hash
from search.index import Index

Edit = Callable[[Image.Image], Image.Image]


def scene(seed: int, shirt: str = "red") -> Image.Image:
    """A picture with much in it: 60 shapes on shaded ground, a figure with a shirt before them."""
    generator = np.random.default_rng(seed)
    shade = np.linspace(120, 220, 400)[None, :, None] * np.linspace(0.8, 1.1, 300)[:, None, None]
    picture = Image.fromarray((shade * generator.uniform(0.7, 1, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        left, top = generator.integers(0, 380), generator.integers(0, 280)
        right, bottom = left + generator.integers(8, 60), top + generator.integers(8, 60)
        colour = tuple(generator.integers(0, 256, 3).tolist())
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((left, top, right, bottom), fill=colour)
    figure(draw, 180, 110, shirt)
    return picture


def figure(draw: ImageDraw.ImageDraw, left: int, top: int, shirt: str) -> None:
    """Somebody in a shirt."""
    draw.ellipse((left + 20, top, left + 50, top + 30), fill="bisque", outline="black", width=2)
    draw.rectangle((left + 5, top + 30, left + 65, top + 110), fill=shirt, outline="black", width=2)
    draw.line((left + 35, top + 35, left + 35, top + 105), fill="black", width=3)


def saved(image: Image.Image, kind: str, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, kind, quality=quality)
    return Image.open(data).convert("RGB")


def captioned(image: Image.Image) -> Image.Image:
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((0, image.height - 40, image.width, image.height), fill="black")
    draw.text((10, image.height - 38), "holidays 2026", fill="white", font_size=30)
    return drawn


def watermarked(image: Image.Image) -> Image.Image:
    layer = Image.new("L", image.size)
    for row in range(5):
        ImageDraw.Draw(layer).text((20 + 40 * (row % 2), 60 * row), "SAMPLE", fill=70, font_size=40)
    return Image.composite(Image.new("RGB", image.size, "white"), image, layer)


def framed(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, 20, "navy")


def on_a_page(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (600, 500), "white")
    page.paste(image, (60, 40))
    return page


def noisy(image: Image.Image, deviation: float = 12, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


EDITS: dict[str, Edit] = {
    "smaller": lambda image: image.resize((160, 120)),
    "squeezed": lambda image: image.resize((300, 300)),
    "poor JPEG": lambda image: saved(image, "JPEG", 20),
    "WebP": lambda image: saved(image, "WEBP", 40),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "noisy": noisy,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "paler": lambda image: ImageEnhance.Color(image).enhance(0.4),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "captioned": captioned,
    "watermarked": watermarked,
    "framed": framed,
    "on a page": on_a_page,
    "cut": lambda image: image.crop((60, 30, 380, 280)),
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored, turned and smaller": lambda image: ImageOps.flip(image.rotate(90, expand=True)).resize((120, 160)),
    "turned by 3 degrees": lambda image: image.rotate(3, Image.Resampling.BICUBIC, fillcolor="white"),
}


def small(image: Image.Image) -> Small:
    return Small.of(image)


@pytest.mark.parametrize("kind", EDITS)
def test_each_edit_is_the_same_photo(kind: str) -> None:
    for seed in range(2):
        one, other = small(scene(seed)), small(EDITS[kind](scene(seed)))
        assert compare(one, other) > 0, seed
        assert compare(other, one) > 0, seed


def moved(seed: int) -> tuple[Image.Image, Image.Image]:
    """Two frames of a burst: a hand that shakes, somebody who moves, and a sensor's noise."""
    frames = []
    for number in range(2):
        picture = scene(seed)
        draw = ImageDraw.Draw(picture)
        figure(draw, 60 + 14 * number, 60, "green")
        shaken = picture.rotate(0.3 * number, Image.Resampling.BICUBIC).crop((4 + number, 4, 390 + number, 290))
        frames.append(noisy(shaken, 4, seed=number))
    return frames[0], frames[1]


def another_day(seed: int) -> tuple[Image.Image, Image.Image]:
    one, other = scene(seed), ImageEnhance.Brightness(scene(seed)).enhance(0.85)
    figure(ImageDraw.Draw(one), 20, 150, "green")
    figure(ImageDraw.Draw(other), 310, 40, "orange")
    return noisy(one, 4), noisy(other, 4, seed=1)


def signs(number: int) -> Image.Image:
    """A drawing of a series."""
    image = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 290, 290), outline="red", width=30)
    draw.rectangle((90, 230, 210, 250), fill="black")
    draw.text((150, 140), str(number), fill="black", anchor="mm", font_size=110)
    return image


def window(words: str) -> Image.Image:
    """A screenshot of a program."""
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 400, 24), fill="navy")
    draw.rectangle((0, 24, 90, 300), fill="lightgrey")
    for row, name in enumerate(("Inbox", "Sent", "Drafts", "Spam", "Trash")):
        draw.text((8, 34 + 22 * row), name, fill="black", font_size=14)
    for row in range(10):
        draw.text((100, 34 + 24 * row), words[row:] + words[:row], fill="black", font_size=15)
    return image


def shaded(degrees: int) -> Image.Image:
    return Image.linear_gradient("L").resize((300, 300)).rotate(degrees).convert("RGB")


ONLY_ALIKE: dict[str, Callable[[int], tuple[Image.Image, Image.Image]]] = {
    "a burst": moved,
    "the same place another day": another_day,
    "a series": lambda seed: (signs(24 + 11 * seed), signs(87 - 13 * seed)),
    "screenshots": lambda seed: (window("some words of a letter to you"), window("quite another mail from a bank")),
    "a shirt in another colour": lambda seed: (scene(seed, "red"), scene(seed, "blue")),
    "flags": lambda seed: (flag("blue", "white", "red"), flag("green", "white", "red")),
    "signs of like colours": lambda seed: (arrow(ground="teal"), arrow(ground="steelblue")),
    "arrows of a series": lambda seed: (arrow(), arrow((230, 140), (230, 20), (190, 20))),
    "blank pictures": lambda seed: (Image.new("RGB", (300, 200), "grey"), Image.new("RGB", (300, 200), "white")),
    "dark pictures": lambda seed: (noisy(Image.new("RGB", (90, 60)), 5), noisy(Image.new("RGB", (90, 60)), 5, seed=1)),
    "soft shades": lambda seed: (shaded(0), shaded(90)),
    "others": lambda seed: (scene(seed), scene(seed + 10)),
}


def flag(*colours: str) -> Image.Image:
    image = Image.new("RGB", (300, 200))
    for number, colour in enumerate(colours):
        image.paste(colour, (100 * number, 0, 100 * number + 100, 200))
    return image


def arrow(*further: tuple[int, int], ground: str = "white") -> Image.Image:
    """A line from an arrow's head, which may go on."""
    image = Image.new("RGB", (280 if further else 240, 200), ground)
    draw, ink = ImageDraw.Draw(image), "black" if ground == "white" else "white"
    draw.line([(60, 20), (60, 140), (230, 140), *further], fill=ink, width=24)
    draw.polygon([(20, 60), (100, 60), (60, 5)], fill=ink)
    return image


def test_the_plainer_a_picture_is_the_less_certain_is_its_copy() -> None:
    plain, rich = ([image, ImageOps.mirror(image)] for image in (arrow(), scene(3).resize((384, 288))))
    certain = [compare(*map(small, pair)) for pair in (plain, rich)]
    assert 0 < certain[0] < certain[1] < 1


@pytest.mark.parametrize("seed", [3, 4])
def test_a_series_of_icons_is_less_certain_than_a_copy_of_a_plain_drawing(seed: int) -> None:
    icon = scene(seed)
    signed = icon.copy()
    draw = ImageDraw.Draw(signed)
    draw.ellipse((330, 230, 390, 290), fill="orange", outline="black", width=4)
    draw.line((345, 260, 375, 260), fill="black", width=6)
    series = compare(small(icon), small(signed))
    copies = [saved(arrow(), "JPEG", 60), arrow().resize((480, 400))]
    assert 0 < series < min(compare(small(arrow()), small(image)) for image in copies)


@pytest.mark.parametrize("plain", [arrow(), arrow(ground="teal")])
def test_copies_of_a_plain_drawing_are_the_same_photo(plain: Image.Image) -> None:
    for image in (plain, plain.resize((2 * plain.width, 2 * plain.height)), plain.resize((960, 800))):
        edits = {
            "JPEG": saved(image, "JPEG", 30),
            "mirrored": ImageOps.mirror(image),
            "smaller": image.resize((150, 110)),
            "framed": ImageOps.expand(image, 20, "navy"),
            "a little darker": ImageEnhance.Brightness(image).enhance(0.95),
        }
        assert [kind for kind, edit in edits.items() if compare(small(image), small(edit)) == 0] == []


@pytest.mark.parametrize("kind", ONLY_ALIKE)
def test_what_is_only_alike_is_not_the_same_photo(kind: str) -> None:
    for seed in range(2):
        one, other = ONLY_ALIKE[kind](seed)
        assert compare(small(one), small(other)) == 0, seed
        assert compare(small(other), small(one)) == 0, seed


def test_hashes_of_turned_pictures_are_known_from_the_upright_ones() -> None:
    picture = scene(4)
    made = {int(one[0]) for one in turned_hashes(np.array([perceptual_hash(picture)], dtype=np.int64).view(np.uint64))}
    for turn in range(8):
        other = perceptual_hash(Image.fromarray(np.ascontiguousarray(turned(np.asarray(picture), turn))))
        assert min(((other & (2**64 - 1)) ^ one).bit_count() for one in made) <= MAX_BITS / 2


def test_a_chain_of_small_changes_is_not_one_group() -> None:
    chain = [(number, number + 1, 0.9) for number in range(40)]
    asked = []

    def certain(one: int, others: Sequence[int]) -> list[float]:
        asked.extend((one, other) for other in others)
        return [0.9 if abs(one - other) <= 2 else 0.0 for other in others]

    groups = around_medoids(chain, certain)
    assert max(len(members) for _, members in groups) <= 4
    assert all(abs(medoid - one) <= 2 for medoid, members in groups for one in members)
    held = [one for medoid, members in groups for one in (medoid, *members)]
    assert len(held) == len(set(held)) > 30
    assert len(asked) < 200


def test_planted_groups_are_found_whole() -> None:
    generator = np.random.default_rng(0)
    sizes = [2, 3, 5, 8, 13, 34, 120, 500]
    group = np.repeat(np.arange(len(sizes)), sizes)
    pairs = []
    for one in range(len(group)):
        near = np.flatnonzero(group == group[one])
        picked = generator.choice(near, min(8, len(near)), replace=False).tolist()
        pairs += [(one, other, 1.0) for other in picked if other != one]
    asked = 0

    def certain(one: int, others: Sequence[int]) -> list[float]:
        nonlocal asked
        asked += len(others)
        return [float(group[one] == group[other]) for other in others]

    found = around_medoids(pairs, certain)
    assert sorted(1 + len(members) for _, members in found) == sizes
    assert asked < len(group)


def test_neighbours_are_the_nearest_others(make_index: Callable[..., Index]) -> None:
    index = make_index(vectors(1_100))  # more than a batch
    rowids, held = index.searched(index.space())
    products = held @ held.T
    np.fill_diagonal(products, -1)
    nearest = rowids[np.argsort(-products, axis=1)[:, :3]]
    found = [(ones, others) for ones, others, _ in index.neighbours(3).pairs()]
    ones, others = (np.concatenate(each) for each in zip(*found, strict=True))
    assert np.array_equal(ones, np.repeat(rowids, 3))
    assert np.array_equal(others.reshape(-1, 3), nearest)


COPIES = ("smaller", "mirrored", "cut", "captioned", "turned", "framed", "on a page")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Photos, copies of two of them, frames of a burst, and an index."""
    base = tmp_path_factory.mktemp("album")
    photos = base / "photos"
    photos.mkdir()
    for seed in range(6):
        scene(seed).save(photos / f"scene-{seed}.png")
    for kind in COPIES:
        EDITS[kind](scene(0)).save(photos / f"copy-{kind}.jpg", quality=85)
    for number, (frame, second) in enumerate(zip(moved(7), ("10", "12"), strict=True)):
        frame.save(photos / f"burst-{number}.jpg", exif=taken(f"2026:05:01 10:00:{second}"))
    scene(8).save(photos / "first.jpg", exif=taken("2026:05:01 10:00:00"))
    scene(8).resize((200, 150)).save(photos / "later.jpg", exif=taken("2026:05:01 10:00:03"))
    scene(1).save(photos / "moving.gif", save_all=True, append_images=[scene(2)])
    run_cli("build", photos, "--index", base / "photos.index", "--model", checkpoint)
    return base


def taken(time: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model"
    exif.get_ifd(0x8769)[0x9003] = time
    return exif


def groups(album: Path, *arguments: str) -> list[tuple[str, set[str], set[str]]]:
    """Tier, names, and names of extra files."""
    answer = json.loads(run_cli("dups", album / "photos.index", "--json", *arguments).stdout)
    return [
        (
            group["tier"],
            {Path(one["paths"][0]).name for one in group["images"]},
            {Path(one["paths"][0]).name for one in group["images"] if not one["keep"]},
        )
        for group in answer["groups"]
    ]


def test_copies_are_listed_with_their_photo_and_none_is_extra(album: Path) -> None:
    copies = {f"copy-{kind}.jpg" for kind in COPIES}
    assert groups(album, "--tier", "photo") == [("photo", {"scene-0.png", *copies}, set())]
    assert groups(album) == []  # of equal bytes or pixels there is none
    told = run_cli("dups", album / "photos.index", "--tier", "photo").stdout
    assert "Same photo: one photo, smaller, saved again" in told
    assert "1 group to look at" in told
    assert [told.count(f"  {word}  ") for word in ("best ", "look ", "keep ", "extra")] == [1, len(copies), 0, 0]
    assert "--apply" not in told


def test_what_is_only_alike_is_listed_when_asked_for_and_never_extra(album: Path) -> None:
    (burst,) = (found for found in groups(album, "--tier", "moment") if "burst-0.jpg" in found[1])
    assert burst[1] >= {"burst-0.jpg", "burst-1.jpg"}
    assert not burst[1] & {f"scene-{seed}.png" for seed in range(6)}
    for tier, _, extra in groups(album, "--tier", "moment", "--tier", "alike"):
        assert tier in ("moment", "alike")
        assert extra == set()


def test_a_log_says_how_many_pictures_were_compared(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.progress.LINE_SECONDS", 0)
    told = run_cli("dups", album / "photos.index", "--tier", "photo", "--json")
    assert json.loads(told.stdout)["groups"]
    read = [line for line in told.stderr.splitlines() if line.startswith("Reading: ")]
    compared = [line for line in told.stderr.splitlines() if line.startswith("Comparing: ")]
    assert len(read) == int(read[-1].split()[-1])
    assert len(compared) == int(compared[-1].split()[-1])


def test_copies_of_one_picture_are_alike(album: Path) -> None:
    (found,) = (names for _, names, _ in groups(album, "--tier", "alike") if "scene-0.png" in names)
    assert found & {f"copy-{kind}.jpg" for kind in ("smaller", "captioned")}
    assert not found & {f"scene-{seed}.png" for seed in range(1, 6)}


def test_a_file_that_changed_is_left_out(album: Path) -> None:
    path = album / "photos" / "copy-cut.jpg"
    before = path.read_bytes()
    facts = path.stat()
    try:
        path.write_bytes(before + b"!")
        (found,) = groups(album, "--tier", "photo")
        assert "copy-cut.jpg" not in found[1]
        told = run_cli("dups", album / "photos.index", "--tier", "photo").stderr
        assert "has changed since the last build" in told
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
