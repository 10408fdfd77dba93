"""How well words find images, by nothing but the names of their files.

    python benchmarks/words.py SETS

SETS is the folder in which Debian's packages tuxpaint-stamps-default and qabcs-data were unpacked
(`dpkg -x PACKAGE.deb SETS`). Each set becomes a catalog without labels, metadata or pictures: it knows the paths below
the set's folder. Stamps are asked for by their descriptions, the first line of NAME.txt, pictures of qabcs by their
names. Images with the same description, or name, are one answer. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from machine import machine

from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Space

TOP = (1, 5, 10)
PREPROCESSING = Preprocessing(geometry="crop", resize=1, size=1, resample=3, mean=(0, 0, 0), std=(1, 1, 1))
RECIPE = Recipe(
    model="none",
    weights_sha256="0" * 64,
    layers=(0,),
    pooling="cls",
    final_norm=(False,),
    preprocessing=PREPROCESSING,
    dim=1,
)
"""Of a model that nobody has: words need none."""


def stamps(sets: Path) -> tuple[Path, dict[str, str]]:
    """Each stamp's path below their folder, and its description."""
    root = sets / "usr/share/tuxpaint/stamps"
    found = {}
    for path in sorted(root.rglob("*.png")):
        text = path.with_suffix(".txt")
        if not path.name.endswith("_mirror.png") and text.exists():
            found[path.relative_to(root).as_posix()] = text.read_text(encoding="utf-8").partition("\n")[0]
    return root, found


def pictures(sets: Path) -> tuple[Path, dict[str, str]]:
    """Each picture of qabcs, and its name with spaces."""
    root = sets / "usr/share/qabcs/abcs/all/pics"
    paths = sorted(root.rglob("*.png"))
    return root, {path.relative_to(root).as_posix(): path.stem.replace("_", " ") for path in paths}


SETS: Mapping[str, Callable[[Path], tuple[Path, dict[str, str]]]] = {
    "stamps, by description": stamps,
    "qabcs, by name": pictures,
}


def index_of(root: Path, paths: Sequence[str], folder: Path) -> Index:
    """An index in a folder, that knows nothing of images but their paths below a root."""
    index = Index.create(folder, [Space(name="none", recipe=RECIPE, encoding=Encoding())])
    with index.writer() as writer, writer.transaction() as transaction:
        for path in paths:
            image = NewImage(
                id=identity(path),
                facts=ImageFacts(width=1, height=1, format="png", bytes=1),
                location=Location(root=str(root), path=path, mtime_ns=0, size=1),
                vectors={"none": np.ones(1, dtype=np.float32)},
                labels=(),
                metadata={},
            )
            transaction.add(image)
    return index


def identity(path: str) -> str:
    """The id of the image of a path."""
    return hashlib.sha256(path.encode()).hexdigest()


def measure(index: Index, texts: Mapping[str, str]) -> tuple[list[float], float]:
    """The share of texts that find an image of theirs among the first of TOP, and milliseconds of one."""
    said = {identity(path): text for path, text in texts.items()}
    asked = sorted(set(texts.values()))
    found = np.zeros(len(TOP))
    began = time.perf_counter()
    answers = [index.catalog.find_words(text, max(TOP)) for text in asked]
    spent = 1e3 * (time.perf_counter() - began) / len(asked)
    for text, answer in zip(asked, answers, strict=True):
        ids = index.catalog.ids([rowid for rowid, _ in answer])
        right = [said[ids[rowid]] == text for rowid, _ in answer]
        found += [any(right[:top]) for top in TOP]
    return [float(share) for share in found / len(asked)], spent


def main() -> None:
    """Measure each set, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    asked = parser.parse_args()
    print(f"{machine()}\n")
    print(f"| set | images | texts | {' | '.join(f'R@{top}' for top in TOP)} | ms a text |")
    print(f"|---|---|---|{'---|' * len(TOP)}---|")
    for name, find in SETS.items():
        root, texts = find(asked.folder)
        with tempfile.TemporaryDirectory() as work, index_of(root, list(texts), Path(work, "words.index")) as index:
            shares, spent = measure(index, texts)
        row = [name, f"{len(texts):,}", f"{len(set(texts.values())):,}", *(f"{share:.3f}" for share in shares)]
        print(f"| {' | '.join(row)} | {spent:.2f} |")


if __name__ == "__main__":
    main()
