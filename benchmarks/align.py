"""How well an index's own captions teach words: images that were not learned from, found by their captions.

    python benchmarks/align.py SETS

SETS is the folder in which Debian's package tuxpaint-stamps-default was unpacked (`dpkg -x PACKAGE.deb SETS`). The
stamps are built without flags, labels or metadata, and given their space of words. Then `lookalike align` learns from
the English descriptions of some 600, and each of the others looks for its own among those others. Split at random; so
that no description is on both sides; and by the first folder, so that the others are of kinds nobody described. Mean of
five splits each, seeds 0 to 4. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from relevance import build
from scores import records
from words import WORDS, stamps

from analysis.aligning.learn import align
from analysis.errors import AlignmentUseless
from indexer.encoders.words import load_sentences, packaged_centre
from search.index import Index
from search.vectors import normalise

Floats = NDArray[np.float32]

LEARNED, SEEDS = 600, range(5)
FIRST = 10
SPLITS = ("at random", "by description", "by folder")


def splits(kind: str, texts: Sequence[str], folders: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    """Of each split, which images are learned from, (n,)."""
    keys = {"at random": [*map(str, range(len(texts)))], "by description": texts, "by folder": folders}[kind]
    _, groups = np.unique(keys, return_inverse=True)
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(groups.max() + 1)
        sizes = np.bincount(groups)[order]
        kept = order[np.cumsum(sizes) - sizes < len(texts) - LEARNED]  # so many at least are not learned from
        yield ~np.isin(groups, kept)


def found(images: Floats, wanted: Floats, texts: Sequence[str]) -> float:
    """R@10 of texts, (n, dim), among images, (n, dim); images of the same text are one answer."""
    nearest = np.argsort(-(wanted @ images.T), axis=1, kind="stable")[:, :FIRST]
    return float(np.mean([any(texts[one] == text for one in row) for text, row in zip(texts, nearest, strict=True)]))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the package was unpacked")
    sets = parser.parse_args().folder.resolve()
    described = stamps(sets, "en")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "stamps.index")
        build([*described], path)
        with Index.open(path) as index:
            print(f"{machine()}\n")
            measure(index, sets, described)


def measure(index: Index, sets: Path, described: dict[Path, str]) -> None:
    """Print a row a kind of split."""
    said = {one.id: next(Path(path) for path in one.paths if Path(path) in described) for one in records(index)}
    ids, texts = [*said], [described[path] for path in said.values()]
    root = sets / "usr/share/tuxpaint/stamps"
    folders = [path.relative_to(root).parts[0] for path in said.values()]
    vectors: Floats = load_sentences().encode(texts)
    known = dict(zip(texts, vectors, strict=True))
    wanted = normalise(vectors - packaged_centre())
    features = {space.name: index.catalog.stored(space, ids) for space in index.spaces}
    print("| split | not learned from | before | aligned | strength, share |")
    print("|---|---|---|---|---|")
    for kind in SPLITS:
        rows, chosen = [], []
        for learned in splits(kind, texts, folders):
            captions = {ids[number]: texts[number] for number in np.flatnonzero(learned)}
            others = np.flatnonzero(~learned)
            asked, their = [texts[number] for number in others], wanted[others]
            before = found(np.stack([features[WORDS][ids[number]] for number in others]), their, asked)
            try:
                made = align(
                    index, captions, lambda some: np.stack([known[text] for text in some]), tell=lambda _: None
                )
            except AlignmentUseless:
                rows.append((len(others), before, before))
                chosen.append("refused")
                continue
            held = np.stack([features[made.space.name][ids[number]] for number in others])
            rows.append((len(others), before, found(made.head(held), their, asked)))
            chosen.append(f"{made.strength:g} {made.share:g}")
        count, before, after = np.mean(rows, axis=0)
        print(f"| {kind} | {count:.0f} | {before:.3f} | {after:.3f} | {', '.join(chosen)} |", flush=True)


if __name__ == "__main__":
    main()
