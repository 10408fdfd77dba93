"""Make `indexer/packaged/words.safetensors`, the head of the space of words, from drawings with names.

    python benchmarks/words_head.py SETS EMOJI [--without NAMES] [--keep FILE.npz] [--out FILE]

SETS is the folder in which Debian's packages openclipart-png, openclipart-svg, qabcs-data and scratch were unpacked
(`dpkg -x`). EMOJI holds what npm's emoji-datasource-google and emoji-datasource-twitter (16.0.0) and emojibase-data
(17.0.0) were unpacked to, in folders google, twitter and emojibase. Takes ten minutes on two cores. --without: sets
that are left out (openclipart, qabcs, scratch), to choose figures on them. --keep: where the network's features are
kept, for the next time.

The head is a ridge regression from EfficientNet-Lite0's features, of unit length, to the sentence embeddings of names,
and the embeddings of ImageNet's classes, whose names are in `benchmarks/imagenet_classes.txt`. In all these embeddings,
directions in which translations of one name differ are made shorter.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from edits import opened
from numpy.typing import NDArray
from PIL import Image

from indexer.encoders.load import encoder_for
from indexer.encoders.recipes import recipes_for
from indexer.encoders.sentences import SentenceEncoder
from indexer.encoders.words import HEAD
from indexer.models import COMPANION, locate
from indexer.packaged.e5 import E5
from indexer.packaged.package import checkpoint_folder, write_safetensors
from indexer.pictures.preprocess import to_input
from search.types import Encoding, Space
from search.vectors import normalise

Floats = NDArray[np.float32]

CLASSES = Path(__file__).parent / "imagenet_classes.txt"
LENGTH, TEMPERATURE, LIKELIEST, SHARE = 16.1, 2.0, 50, 0.65
"""Of features before they had unit length, in the mean; of a softmax; classes that count; the map's share."""
RIDGE = 1.0
"""Added to the diagonal, as a share of its mean."""
WITHIN = 1.0
"""Added to the variances of translations, as a share of their mean, before directions are made shorter by them."""
MOST_TITLED, MOST_TAGGED, MOST_ALIKE = 3, 400, 20
"""Pictures of openclipart that may have a title, or a tag: `Lemon SVG theme` says nothing of one. And of any set, with
the same words: there are 800 stars."""
TAGS = 6
"""Of a picture of openclipart, that are read."""
LARGEST = 6_000_000
"""Bytes of a file: six drawings have 168 megapixels."""
BATCH = 32
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "ru")
"""Whose names of emoji say, with those of the classes, what all sentences have in common."""


def named(sets: Path, emoji: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Each set's pictures, and what is said of them."""
    share = sets / "usr/share"
    said = titled(share / "openclipart")
    for name, folder in (("openclipart", "openclipart/png"), ("qabcs", "qabcs"), ("scratch", "scratch/Media")):
        for path in sorted((share / folder).rglob("*")):
            picture = path.suffix.lower() in (".png", ".jpg", ".gif") and path.stat().st_size < LARGEST
            if picture and len(words := said.get(path) or spoken(path.stem)) >= 3:
                yield name, path, (words,)
    known = {one["hexcode"]: one for one in json.loads((emoji / "emojibase/en/data.json").read_text())}
    for one in json.loads((emoji / "google/emoji.json").read_text()):
        facts = known.get(one["unified"]) or known.get(one["unified"].replace("-FE0F", ""))
        for style in ("google", "twitter"):
            path = emoji / style / "img" / style / "64" / one["image"]
            if facts is not None and path.exists():
                tags = ", ".join([facts["label"], *(facts.get("tags") or [])[:4]])
                yield "emoji", path, (facts["label"], tags)


def spoken(stem: str) -> str:
    """The words of a file's name."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", re.sub(r"[\W\d_]+", " ", stem))
    return " ".join(word for word in apart.lower().split() if len(word) > 1)


def titled(folder: Path) -> dict[Path, str]:
    """The title of each picture of openclipart, or else its name, and its tags, as its drawing says them."""
    found = {}
    for drawing in sorted((folder / "svg").rglob("*.svg")):
        text = drawing.read_bytes().decode("utf-8", "replace")
        title, tags, creator = (
            re.search(rf"<dc:{key}[^>]*>(.*?)</dc:{key}>", text, re.S) for key in ("title", "subject", "creator")
        )
        whose = _plain(creator[1]) if creator else ""
        picture = (folder / "png" / drawing.relative_to(folder / "svg")).with_suffix(".png")
        said = [_plain(tag) for tag in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", tags[1], re.S)] if tags else []
        found[picture] = _plain(title[1]) if title else "", [tag for tag in said if tag not in whose]
    titles = Counter(title for title, _ in found.values())
    common = Counter(tag for _, tags in found.values() for tag in tags)

    def words(path: Path, title: str, tags: Sequence[str]) -> str:
        own = title if title and titles[title] <= MOST_TITLED else spoken(path.stem)
        return ", ".join([own, *[tag for tag in tags if common[tag] <= MOST_TAGGED][:TAGS]])

    return {path: words(path, title, tags) for path, (title, tags) in found.items()}


def _plain(text: str) -> str:
    return " ".join(html.unescape(text).replace("_", " ").lower().split())


def labels(emoji: Path, language: str) -> list[str]:
    """The names of all emoji in a language."""
    return [one["label"] for one in json.loads((emoji / f"emojibase/{language}/data.json").read_text())]


def translations(emoji: Path) -> list[list[str]]:
    """For each language, the names of those emoji that have one in all."""
    held = [
        {one["hexcode"]: one["label"] for one in json.loads((emoji / f"emojibase/{language}/data.json").read_text())}
        for language in LANGUAGES
    ]
    common = sorted(set.intersection(*map(set, held)))
    return [[of[code] for code in common] for of in held]


def within(languages: Sequence[Floats]) -> Floats:
    """The symmetric matrix (dim, dim) that makes directions shorter in which translations differ, from each language's
    embeddings (n, dim) of the same names.

    Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006); a class is a name.
    """
    views = np.stack(languages).astype(np.float64)
    apart = (views - views.mean(axis=0)).reshape(-1, views.shape[-1])
    variances, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    scales = ((1 + WITHIN) * variances.mean() / (variances + WITHIN * variances.mean())) ** 0.5
    found: Floats = (directions * scales @ directions.T).astype(np.float32)
    return found


def features(paths: Sequence[Path]) -> Floats:
    """Lite0's features of pictures, (n, 1280), of unit length; zeros where one cannot be read."""
    (recipe,) = recipes_for(locate(COMPANION.name), ()).values()
    encoder = encoder_for([Space(name="own", recipe=recipe, encoding=Encoding())], Path(), throughput=True)

    def pixels(path: Path) -> NDArray[np.uint8]:
        try:
            return to_input(opened(path), recipe.preprocessing)
        except (OSError, Image.DecompressionBombError):
            return np.zeros((recipe.preprocessing.size, recipe.preprocessing.size, 3), np.uint8)

    found = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            made = np.stack([*pool.map(pixels, paths[start : start + BATCH])])
            vectors = encoder.encode(made)[0].copy()
            vectors[~made.any(axis=(1, 2, 3))] = 0
            found.append(vectors)
    return np.concatenate(found)


def kept_features(paths: Sequence[Path], keep: Path | None) -> Floats:
    """`features`, of which a file holds those that were made before."""
    known: dict[str, Floats] = {}
    if keep is not None and keep.exists():
        with np.load(keep) as held:
            known = dict(zip(held["paths"].tolist(), held["features"], strict=True))
    if missing := [path for path in paths if str(path) not in known]:
        known |= dict(zip(map(str, missing), features(missing), strict=True))
        if keep is not None:
            np.savez(keep, paths=np.array([*known]), features=np.stack([*known.values()]))
    return np.stack([known[str(path)] for path in paths])


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("emoji", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path, default=HEAD)
    asked = parser.parse_args()
    left_out = {*asked.without.split(",")}
    alike: Counter[tuple[str, ...]] = Counter()
    pictures = []
    for one in named(asked.sets, asked.emoji):
        alike[one[2]] += 1
        if one[0] not in left_out and alike[one[2]] <= MOST_ALIKE:
            pictures.append(one)
    encoder = SentenceEncoder(checkpoint_folder(E5))
    turn = within([encoder.encode(texts) for texts in translations(asked.emoji)])
    sets = np.array([name for name, *_ in pictures])
    shown = kept_features([path for _, path, _ in pictures], asked.keep)
    there = shown.any(axis=1)
    said = encoder.encode([text for *_, texts in pictures for text in texts])
    ends = np.cumsum([0, *(len(texts) for *_, texts in pictures)])
    told = normalise(np.add.reduceat(said, ends[:-1], axis=0))
    for name in {*sets}:
        chosen = sets == name
        told[chosen] = normalise(normalise(told[chosen] - told[chosen & there].mean(axis=0)) @ turn)
    shown, told = shown[there], told[there]
    mean = shown.mean(axis=0)
    known = shown - mean
    products = known.T @ known
    products[np.diag_indices_from(products)] += RIDGE * np.trace(products) / len(products)
    names = CLASSES.read_text().splitlines()
    classes = encoder.encode([f"a picture of a {name}" for name in names])
    centres = [encoder.encode(labels(asked.emoji, language)).mean(axis=0) for language in LANGUAGES]
    write_safetensors(
        asked.out,
        {
            "centre": (np.mean(centres, axis=0) + encoder.encode(names).mean(axis=0)) / 2,
            "classes": ((classes - classes.mean(axis=0)) @ turn).astype(np.float16),
            "figures": np.array([LENGTH, TEMPERATURE, LIKELIEST, SHARE], np.float32),
            "map": np.linalg.solve(products, known.T @ told).astype(np.float16),
            "mean": mean,
            "turn": turn.astype(np.float16),
        },
    )
    for name in sorted({*sets}):
        print(f"{name}: {int((sets[there] == name).sum()):,} pictures")


if __name__ == "__main__":
    main()
