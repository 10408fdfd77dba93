"""Make `indexer/packaged/words.safetensors`, the head of the space of words, from drawings with names.

    python benchmarks/words_head.py SETS EMOJI [--without NAMES] [--keep FILE.npz] [--out FILE]

SETS is the folder in which Debian's packages openclipart-png, qabcs-data and scratch were unpacked (`dpkg -x`). EMOJI
holds what npm's emoji-datasource-google and emoji-datasource-twitter (16.0.0) and emojibase-data (17.0.0) were unpacked
to, in folders google, twitter and emojibase. Takes ten minutes on two cores. --without: sets that are left out
(openclipart, qabcs, scratch), to choose figures on them. --keep: where the network's features are kept, for the next
time.

The head is a ridge regression from EfficientNet-Lite0's features, of unit length, to the sentence embeddings of names,
and the embeddings of ImageNet's classes, whose names are in `benchmarks/imagenet_classes.txt`.
"""

from __future__ import annotations

import argparse
import json
import re
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
LENGTH, TEMPERATURE, LIKELIEST, SHARE = 16.1, 2.0, 50, 0.5
"""Of features before they had unit length, in the mean; of a softmax; classes that count; the map's share."""
RIDGE = 0.3
"""Added to the diagonal, as a share of its mean."""
WEIGHTS = {"openclipart": 0.3}
"""Of a set's pictures, 1 where none is said: names of openclipart are often an author's."""
LARGEST = 6_000_000
"""Bytes of a file: six drawings have 168 megapixels."""
BATCH = 32
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "ru")
"""Whose names of emoji say, with those of the classes, what all sentences have in common."""


def named(sets: Path, emoji: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Each set's pictures, and what is said of them."""
    share = sets / "usr/share"
    for name, folder in (("openclipart", "openclipart/png"), ("qabcs", "qabcs"), ("scratch", "scratch/Media")):
        for path in sorted((share / folder).rglob("*")):
            picture = path.suffix.lower() in (".png", ".jpg", ".gif") and path.stat().st_size < LARGEST
            if picture and len(words := spoken(path.stem)) >= 3:
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


def labels(emoji: Path, language: str) -> list[str]:
    """The names of all emoji in a language."""
    return [one["label"] for one in json.loads((emoji / f"emojibase/{language}/data.json").read_text())]


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
    pictures = [one for one in named(asked.sets, asked.emoji) if one[0] not in left_out]
    encoder = SentenceEncoder(checkpoint_folder(E5))
    sets = np.array([name for name, *_ in pictures])
    shown = kept_features([path for _, path, _ in pictures], asked.keep)
    there = shown.any(axis=1)
    said = encoder.encode([text for *_, texts in pictures for text in texts])
    ends = np.cumsum([0, *(len(texts) for *_, texts in pictures)])
    told = normalise(np.add.reduceat(said, ends[:-1], axis=0))
    for name in {*sets}:
        chosen = sets == name
        told[chosen] = normalise(told[chosen] - told[chosen & there].mean(axis=0))
    weights = np.array([WEIGHTS.get(name, 1.0) for name in sets])[there, None] ** 0.5
    shown, told = shown[there], told[there]
    mean = shown.mean(axis=0)
    known, wanted = (shown - mean) * weights, told * weights
    products = known.T @ known
    products[np.diag_indices_from(products)] += RIDGE * np.trace(products) / len(products)
    names = CLASSES.read_text().splitlines()
    classes = encoder.encode([f"a picture of a {name}" for name in names])
    centres = [encoder.encode(labels(asked.emoji, language)).mean(axis=0) for language in LANGUAGES]
    write_safetensors(
        asked.out,
        {
            "centre": (np.mean(centres, axis=0) + encoder.encode(names).mean(axis=0)) / 2,
            "classes": (classes - classes.mean(axis=0)).astype(np.float16),
            "figures": np.array([LENGTH, TEMPERATURE, LIKELIEST, SHARE], np.float32),
            "map": np.linalg.solve(products, known.T @ wanted).astype(np.float16),
            "mean": mean,
        },
    )
    for name in sorted({*sets}):
        print(f"{name}: {int((sets[there] == name).sum()):,} pictures")


if __name__ == "__main__":
    main()
