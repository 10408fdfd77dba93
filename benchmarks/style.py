"""How well the space of style finds: images in one style, whatever they show, and what A shows in the style of B.

    python benchmarks/style.py SETS [--sets letters,icons,filters]

SETS is a folder in which Debian packages were unpacked (`dpkg -x PACKAGE.deb SETS`). In each set, styles and contents
are crossed. Judged: letters (scratch: ten alphabets), icons (oxygen-icon-theme, faenza-icon-theme, yaru-theme-icon,
elementary-xfce-icon-theme: names that all four draw), filters (openclipart-png: drawings through nine filters).
Settings were chosen on others: fonts (fonts-* packages), themes (gnome-icon-theme, lxde-icon-theme, moka-icon-theme)
and effects (tuxpaint-stamps-default, through twelve other filters).

Each set is built by `lookalike build --style`; spaces to compare with are added. P@10 is the share of the ten nearest
that have the style. A pair of images A and B asks for the one that shows what A shows in the style of B: R@1 is how
often it is first, without A and B, of as many pairs as QUERIES. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps
from relevance import build

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.fill import Fill
from indexer.index_encoder import load_index_encoder
from indexer.models import PACKAGED, locate
from indexer.progress import Quiet
from search.index import Index
from search.types import Aspect, Query, QueryPart, Space

QUERIES, THROUGH_INDEX = 4_000, 300
"""Pairs that are asked for by scores of all images, and by a query of two aspects."""
CHARACTERS = "abdeghkmqrstwz2589"
SIDE = 224
Scores = NDArray[np.float64]
Pictures = Iterator[tuple[str, str, Path | Image.Image]]
"""Style, content, and the file or picture."""
Filter = Callable[[Image.Image], Image.Image]


def letters(sets: Path) -> Pictures:
    """Ten alphabets of Scratch, nine with digits."""
    for path in sorted((sets / "usr/share/scratch/Media/Costumes/Letters").rglob("*.gif")):
        yield path.parent.name, path.stem, path


def icons(sets: Path) -> Pictures:
    """Four themes of 48 pixels."""
    yield from _themes(sets, ("oxygen", "Faenza", "elementary-xfce", "Yaru"), step=2)


def themes(sets: Path) -> Pictures:
    """Three other themes of 48 pixels."""
    yield from _themes(sets, ("gnome", "nuoveXT2", "Moka"), step=1)


def _themes(sets: Path, names: Sequence[str], step: int) -> Pictures:
    """Names that all themes draw, each theme differently, and none like an earlier name."""
    files: dict[str, dict[str, Path]] = {theme: {} for theme in names}
    for theme, found in files.items():
        for path in sorted((sets / "usr/share/icons" / theme).rglob("*.png")):
            if {"48", "48x48"} & set(path.parts) and "symbolic" not in path.name and path.exists():
                found.setdefault(path.stem, path.resolve())
    seen: set[str] = set()
    kept = []
    for name in sorted(set.intersection(*(set(found) for found in files.values()))):
        digests = {hashlib.sha256(found[name].read_bytes()).hexdigest() for found in files.values()}
        if len(digests) == len(files) and not digests & seen:
            seen |= digests
            kept.append(name)
    for theme, found in files.items():
        for name in kept[::step]:
            yield theme, name, found[name]


def fonts(sets: Path) -> Pictures:
    """Some characters in one font of each package."""
    chosen = {path.parent: path for path in sorted((sets / "usr/share/fonts").rglob("*.[to]tf"), reverse=True)}
    for path in chosen.values():
        font = ImageFont.truetype(str(path), 110)
        for character in CHARACTERS:
            picture = Image.new("RGB", (160, 160), "white")
            draw = ImageDraw.Draw(picture)
            left, top, right, bottom = draw.textbbox((0, 0), character, font=font)
            draw.text((80 - (left + right) / 2, 80 - (top + bottom) / 2), character, font=font, fill="black")
            yield path.stem, character, picture


def effects(sets: Path) -> Pictures:
    """Stamps through the filters that settings were chosen by."""
    paths = sorted((sets / "usr/share/tuxpaint/stamps").rglob("*.png"))
    yield from _filtered([path for path in paths if not path.name.endswith("_mirror.png")][::18][:36], CHOSEN_BY)


def filters(sets: Path) -> Pictures:
    """Drawings of openclipart through other filters."""
    yield from _filtered(sorted((sets / "usr/share/openclipart/png").rglob("*.png"))[::97][:40], JUDGED_BY)


def _filtered(paths: Sequence[Path], by: Mapping[str, Filter]) -> Pictures:
    for path in paths:
        with Image.open(path) as opened:
            drawn = opened.convert("RGBA")
        flat = Image.new("RGBA", drawn.size, "white")
        flat.alpha_composite(drawn)
        picture = flat.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for name, change in by.items():
            yield name, path.stem, change(picture)


def _noisy(picture: Image.Image, strength: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, strength, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _halftone(picture: Image.Image) -> Image.Image:
    """Dots on a grid of eight pixels, the larger the darker."""
    grey = np.asarray(
        picture.convert("L").resize((SIDE // 8, SIDE // 8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    )
    rows, columns = np.indices((SIDE, SIDE)) % 8 - 3.5
    return Image.fromarray(np.where(np.hypot(rows, columns) < 5.5 * (1 - grey / 255), 0, 255).astype(np.uint8))


def _edges(picture: Image.Image) -> Image.Image:
    return ImageOps.invert(picture.convert("L").filter(ImageFilter.FIND_EDGES))


CHOSEN_BY: dict[str, Filter] = {
    "plain": lambda picture: picture,
    "grey": ImageOps.grayscale,
    "contour": lambda picture: picture.filter(ImageFilter.CONTOUR),
    "emboss": lambda picture: picture.filter(ImageFilter.EMBOSS),
    "poster": lambda picture: ImageOps.posterize(picture.filter(ImageFilter.MedianFilter(7)), 2),
    "dither": lambda picture: picture.convert("L").resize((112, 112)).convert("1").resize((SIDE, SIDE)),
    "blur": lambda picture: picture.filter(ImageFilter.GaussianBlur(4)),
    "noise": lambda picture: _noisy(picture, 45),
    "sepia": lambda picture: ImageOps.colorize(picture.convert("L"), "#2b1a05", "#f7e4c0"),
    "pixels": lambda picture: picture.resize((24, 24)).resize((SIDE, SIDE), Image.Resampling.NEAREST),
    "line": lambda picture: _edges(picture).point(lambda value: 255 if value > 190 else 0),
    "oil": lambda picture: picture.filter(ImageFilter.ModeFilter(9)),
}
JUDGED_BY: dict[str, Filter] = {
    "flat": lambda picture: picture.quantize(6).convert("RGB"),
    "woodcut": lambda picture: (
        picture.convert("L").filter(ImageFilter.MedianFilter(3)).point(lambda v: 255 * (v > 150))
    ),
    "halftone": _halftone,
    "charcoal": lambda picture: _edges(picture.filter(ImageFilter.GaussianBlur(1))).filter(ImageFilter.GaussianBlur(2)),
    "watercolour": lambda picture: _noisy(
        picture.filter(ImageFilter.ModeFilter(13)).point(lambda v: 90 + v * 165 // 255), 6
    ),
    "negative": ImageOps.invert,
    "duotone": lambda picture: ImageOps.colorize(picture.convert("L"), "#10206a", "#ffb060"),
    "outline": lambda picture: ImageChops.multiply(picture, _edges(picture).convert("RGB")),
    "night": lambda picture: picture.point(lambda value: value // 4 + 10),
}
SETS = {one.__name__: one for one in (letters, icons, filters, fonts, themes, effects)}


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """Images of a set in an index: ids, and the style and content of each, (n,)."""

    ids: list[str]
    styles: NDArray[np.str_]
    contents: NDArray[np.str_]

    def pairs(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Images looked for, and A and B of each, at random, (count,) each."""
        random = np.random.default_rng(0)
        alike, same = self.contents[:, None] == self.contents, self.styles[:, None] == self.styles
        found: list[tuple[int, int, int]] = []
        while len(found) < count:
            wanted = int(random.integers(len(self.ids)))
            shows, looks = np.flatnonzero(alike[wanted] & ~same[wanted]), np.flatnonzero(same[wanted] & ~alike[wanted])
            if len(shows) and len(looks):
                found.append((wanted, int(random.choice(shows)), int(random.choice(looks))))
        wanted_, a, b = np.array(found).T
        return wanted_, a, b


def main() -> None:
    """Measure each set, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("--sets", default="letters,icons,filters")
    asked = parser.parse_args()
    print(f"{machine()}")
    for name in asked.sets.split(","):
        with tempfile.TemporaryDirectory() as work:
            measured(name, asked.folder.resolve(), Path(work))


def measured(name: str, sets: Path, work: Path) -> None:
    """Build an index of a set, with the spaces to compare with, and print what each finds."""
    known: dict[str, tuple[str, str]] = {}
    files = []
    for number, (style, content, picture) in enumerate(SETS[name](sets)):
        path = picture if isinstance(picture, Path) else work / f"{number}.png"
        if not isinstance(picture, Path):
            picture.convert("RGB").save(path)
        files.append(path)
        known[hashlib.sha256(path.read_bytes()).hexdigest()] = style, content
    if not files:
        raise SystemExit(f"There is no set {name} in {sets}: unpack its packages there with dpkg -x.")
    build(files, work / "index", "--style")
    with Index.open(work / "index", writable=True) as index:
        add_others(index)
        ids = [record.id for record in index.catalog.page(0, len(files))[0]]
        styles, contents = (np.array([known[one][part] for one in ids]) for part in (0, 1))
        table(name, index, Crossed(ids=ids, styles=styles, contents=contents))


def add_others(index: Index) -> None:
    """Add layer 11 and the ViT's own statistics, of the same pixels."""
    requests = [
        SpaceRequest(layers=(11,), geometry="square"),
        SpaceRequest(layers=(3, 5), pooling="mean+std", geometry="square", whiten=True),
    ]
    for space in spaces_for(locate(PACKAGED.name), requests, index.space().encoding):
        with index.writer() as writer:
            writer.add_space(space)
    Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=print, throughput=True),
        workers=2,
        progress=Quiet(),
        stopped=lambda: False,
    ).run()
    index.publish()
    index.refresh()


def table(name: str, index: Index, crossed: Crossed) -> None:
    """Print a row a space."""
    scores = {space.name: scores_of(index, space, crossed.ids) for space in index.spaces}
    pairs, shows = crossed.pairs(QUERIES), scores[index.space().name]
    alone = first(shows[pairs[1]], pairs)
    print(f"\n### {name}: {len(crossed.ids)} images, {len(set(crossed.styles))} styles\n")
    print("| style by | P@10 | content (default space) | style alone | both, standardised | both, by ranks |")
    print("|---|---|---|---|---|---|", flush=True)
    for space, found in scores.items():
        nearest = np.argsort(-(found - 9 * np.eye(len(found))), axis=1)[:, :10]
        share = np.mean(crossed.styles[nearest] == crossed.styles[:, None])
        cells = [share, alone, first(found[pairs[2]], pairs)]
        cells += [first(scale(shows)[pairs[1]] + scale(found)[pairs[2]], pairs) for scale in (standardised, ranked)]
        print(f"| {space} | {' | '.join(f'{cell:.3f}' for cell in cells)} |", flush=True)
    print(f"\nBy a query of two aspects, {THROUGH_INDEX} pairs: {by_aspects(index, crossed):.3f}", flush=True)


def scores_of(index: Index, space: Space, ids: Sequence[str]) -> Scores:
    """Every image's score for every other, (n, n); its own is 1."""
    places, found = {one: place for place, one in enumerate(ids)}, np.eye(len(ids))
    for row, one in enumerate(ids):
        for hit in index.search(Query(parts=[QueryPart(id=one)], space=space, k=len(ids))):
            found[row, places[hit.id]] = hit.score
    return found


def first(scores: Scores, pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]) -> float:
    """How often the image looked for has the highest score, (pairs, n), apart from A and B."""
    wanted, a, b = pairs
    left, rows = scores.copy(), np.arange(len(wanted))
    left[rows, a] = left[rows, b] = -np.inf
    return float(np.mean(left.argmax(axis=1) == wanted))


def standardised(scores: Scores) -> Scores:
    """Each query's scores with mean 0 and deviation 1."""
    scaled: Scores = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    return scaled


def ranked(scores: Scores) -> Scores:
    """Minus the logarithm of each score's rank."""
    ranks: Scores = -np.log1p(np.argsort(np.argsort(-scores, axis=1), axis=1))
    return ranks


def by_aspects(index: Index, crossed: Crossed) -> float:
    """R@1 of the index's own mixture of two spaces."""
    style = index.space("style")
    right = 0
    for wanted, a, b in zip(*crossed.pairs(THROUGH_INDEX), strict=True):
        aspects = (
            Aspect(parts=[QueryPart(id=crossed.ids[a])], space=index.space()),
            Aspect(parts=[QueryPart(id=crossed.ids[b])], space=style),
        )
        right += [hit.id for hit in index.search(Query(aspects=aspects, k=1))] == [crossed.ids[wanted]]
    return right / THROUGH_INDEX


if __name__ == "__main__":
    main()
