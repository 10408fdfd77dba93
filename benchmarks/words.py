"""How well words find images: by the letters of their names, by what pictures show, and by these and what names mean.

    python benchmarks/words.py SETS

SETS is the folder in which Debian's packages tuxpaint-stamps-default and qabcs-data were unpacked
(`dpkg -x PACKAGE.deb SETS`). Each set is built without flags, without labels or metadata, and given its space of words.
Stamps are asked for by their descriptions (NAME.txt), in three languages, pictures of qabcs by their names. Images with
the same description, or name, are one answer; in brackets, only the image whose description it is. Prints Markdown. The
space of words learned from names of qabcs, and none of stamps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from relevance import build
from scores import records

from indexer.encoders.words import load_text_encoder
from indexer.names import learn_words
from search.index import Index
from search.types import Query, QueryPart

TOP = (1, 5, 10)
WORDS = "words"
LANGUAGES = ("en", "de", "fr")
METHODS = ("letters", "pictures", "all")


def stamps(sets: Path, language: str) -> dict[Path, str]:
    """Each stamp, and its description in a language."""
    found = {}
    for path in sorted((sets / "usr/share/tuxpaint/stamps").rglob("*.png")):
        text = path.with_suffix(".txt")
        if not path.name.endswith("_mirror.png") and text.exists():
            first, *lines = text.read_text(encoding="utf-8").splitlines()
            said = (
                first
                if language == "en"
                else next((line.partition("=")[2] for line in lines if line.startswith(f"{language}.utf8=")), "")
            )
            if said.strip():
                found[path] = said.strip()
    return found


def pictures(sets: Path) -> dict[Path, str]:
    """Each picture of qabcs, and its name with spaces."""
    paths = sorted((sets / "usr/share/qabcs/abcs/all/pics").rglob("*.png"))
    return {path: path.stem.replace("_", " ") for path in paths}


def measure(index: Index, texts: Mapping[Path, str]) -> None:
    """Print a row a method: the share of texts that find an image of theirs among the first of TOP, and its time."""
    said = {record.id: texts[Path(path)] for record in records(index) for path in record.paths if Path(path) in texts}
    space = index.space(WORDS)
    asked = [*said.items()]
    vectors: NDArray[np.float32] = load_text_encoder(space.recipe, index.models).encode([text for _, text in asked])
    for method in METHODS:
        found, own = np.zeros(len(TOP)), np.zeros(len(TOP))
        began = time.perf_counter()
        for (image, text), vector in zip(asked, vectors, strict=True):
            parts = [] if method == "letters" else [QueryPart(vector=vector, of_words=True)]
            words = None if method == "pictures" else text
            hits = [hit.id for hit in index.search(Query(parts=parts, words=words, space=space, k=max(TOP)))]
            found += [any(said.get(one) == text for one in hits[:top]) for top in TOP]
            own += [image in hits[:top] for top in TOP]
        spent = 1e3 * (time.perf_counter() - began) / len(asked)
        shares = [f"{all_ / len(asked):.3f} ({one / len(asked):.3f})" for all_, one in zip(found, own, strict=True)]
        print(f"| {method} | {len(asked):,} | {' | '.join(shares)} | {spent:.1f} |", flush=True)


def learn(index: Index) -> None:
    """Learn what all words of names mean, and print how long it takes."""
    space = index.space(WORDS)
    encoder = load_text_encoder(space.recipe, index.models)
    began = time.perf_counter()
    learn_words(index, space, encoder)
    assert space.recipe.words is not None
    words = index.catalog.learned(space.recipe.words.head_sha256).words
    spent = time.perf_counter() - began
    print(f"\n{len(words):,} words learned in {spent:.1f} s", flush=True)


def main() -> None:
    """Measure each set, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    sets = parser.parse_args().folder.resolve()
    print(f"{machine()}")
    described = {f"stamps, {language}": stamps(sets, language) for language in LANGUAGES}
    for names, paths in ((described, [*described["stamps, en"]]), ({"qabcs": pictures(sets)}, [*pictures(sets)])):
        with tempfile.TemporaryDirectory() as work:
            build(paths, Path(work, "set.index"))
            with Index.open(Path(work, "set.index"), writable=True) as index:
                learn(index)
                for name, texts in names.items():
                    print(f"\n### {name}\n\n| by | texts | {' | '.join(f'R@{top}' for top in TOP)} | ms |")
                    print(f"|---|---|{'---|' * len(TOP)}---|")
                    measure(index, texts)


if __name__ == "__main__":
    main()
