"""How surely `lookalike dups` finds copies of photos: beside perceptual hashes and cosines, and how long it takes.

    python benchmarks/duplicates.py SETS [--originals N] [--distractors N] [--photos FOLDER] [--also PACKAGES]
    python benchmarks/duplicates.py --speed N

SETS is the folder in which Debian's packages openclipart-png, tuxpaint-stamps-default and scratch were unpacked
(`dpkg -x PACKAGE.deb SETS`), FOLDER has photos (those of mate-backgrounds; else those of scratch). Each original, a
drawing of openclipart, is edited in every way and strength of benchmarks/copies.py. Edits ask for their originals among
these and other drawings: none of the others is of the same folder and has the same first word in its name as an
original, as variants of one drawing have. Hard negatives are frames of bursts, the same place another day, windows of
one program and drawings of one series: the first of each is among the references, the next one asks.

Prints Markdown: for each kind of edit the share that a method finds at the score at which 99.9% of what it finds, of
all edits and hard negatives, is right; and the micro average precision. imagehash and pdqhash are measured where they
can be imported, from PACKAGES too (imagededup's hashes are those of imagehash). `--speed` compares the time of
candidates and groups with all-pairs cosines and connected components, on vectors with planted groups.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from copies import COPIES, another_day, burst, copy, screenshot, series
from edits import opened
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from planted import speed
from relevance import build
from scores import records

from analysis.duplicates.candidates import MAX_BITS, NEIGHBOURS, turned_hashes
from analysis.duplicates.photo import compare
from analysis.duplicates.small import Small
from search.index import Index
from search.vectors import normalise

Scores = NDArray[np.float32]
"""(queries, references)."""

PRECISION = 0.999
LAYER = 11
HASHES: dict[str, Callable[[Any, Image.Image], NDArray[np.bool_]]] = {
    "imagehash.phash": lambda module, image: module.phash(image).hash.ravel(),
    "imagehash.dhash": lambda module, image: module.dhash(image).hash.ravel(),
    "imagehash.whash": lambda module, image: module.whash(image).hash.ravel(),
    "imagehash.average_hash": lambda module, image: module.average_hash(image).hash.ravel(),
    "pdqhash.compute": lambda module, image: module.compute(np.asarray(image))[0].astype(np.bool_),
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A picture that asks. answer: the file of its original, None of a hard negative; kind, strength: of its edit."""

    file: Path
    kind: str
    strength: int
    answer: Path | None


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the packages were unpacked")
    parser.add_argument("--originals", type=int, default=1_000)
    parser.add_argument("--distractors", type=int, default=20_000)
    parser.add_argument("--hard", type=int, default=200, help="hard negatives of each sort")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--also", type=Path, help="a site-packages folder with imagehash and pdqhash")
    parser.add_argument("--speed", type=int, help="only this: vectors with planted groups")
    asked = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    if asked.speed:
        speed(asked.speed)
        return
    if asked.also:
        sys.path.append(str(asked.also))
    with tempfile.TemporaryDirectory() as folder:
        work, sets = Path(folder), asked.folder.resolve()
        originals, others = drawings(sets, asked.originals, asked.distractors)
        references, questions = [*others], list[Question]()
        for reference, edits in edited(originals, work / "edits"):
            references.append(reference)
            questions += edits
        for reference, question in hard(sets, asked.photos, asked.hard, work / "hard"):
            references.append(reference)
            questions.append(question)
        started = time.perf_counter()
        build([*references, *(one.file for one in questions)], work / "copies.index")
        print(f"{len(references):,} references, {len(questions):,} questions, embedded in "
              f"{time.perf_counter() - started:.0f} s\n", flush=True)  # fmt: skip
        with Index.open(work / "copies.index") as index:
            measure(index, references, questions)


def drawings(sets: Path, originals: int, distractors: int) -> tuple[list[Path], list[Path]]:
    """Originals to be edited, no two of one folder and first word, and others that share that with none of them."""
    files = sorted((sets / "usr/share/openclipart/png").rglob("*.png"))
    order = np.random.default_rng(2).permutation(len(files)).tolist()
    series_of = {path: (path.parent, path.stem.split("_")[0].rstrip("0123456789")) for path in files}
    chosen: dict[tuple[Path, str], Path] = {}
    for number in order:
        if len(chosen) < originals:
            chosen.setdefault(series_of[files[number]], files[number])
    others = [files[number] for number in order if series_of[files[number]] not in chosen]
    return [*chosen.values()], others[:distractors]


def edited(originals: Sequence[Path], folder: Path) -> Iterator[tuple[Path, list[Question]]]:
    """Write each original as it is edited, and its edits."""
    folder.mkdir()
    for number, path in enumerate(originals):
        picture, reference = opened(path), folder / f"{number:04}.png"
        picture.save(reference)
        questions: list[Question] = []
        for kind in COPIES:
            for strength in range(3):
                file = folder / f"{number:04}-{len(questions):02}.png"
                copy(picture, kind, strength).save(file)
                questions.append(Question(file=file, kind=kind, strength=strength, answer=reference))
        yield reference, questions


def hard(sets: Path, photos: Path | None, count: int, folder: Path) -> Iterator[tuple[Path, Question]]:
    """Write pairs of pictures that are alike and not copies: one for the references, one that asks."""
    folder.mkdir()
    found = sorted((photos or sets / "usr/share/scratch/Media/Backgrounds").rglob("*.jpg"))
    stamps = [
        path for path in sorted((sets / "usr/share/tuxpaint/stamps").rglob("*.png")) if "_mirror" not in path.name
    ]
    generator = np.random.default_rng(3)
    for number in range(count):
        file = Image.open(found[number % len(found)])
        file.draft("RGB", (1_600, 1_600))
        photo = file.convert("RGB").resize((1_200, round(1_200 * file.height / file.width)))
        figures = [Image.open(stamps[place]).convert("RGBA") for place in generator.integers(0, len(stamps), 2)]
        one, other = generator.choice(np.arange(10, 99), 2, replace=False).tolist()
        pairs = {
            "burst": burst(photo, figures[0], 2, number),
            "another day": another_day(photo, (figures[0], figures[1]), number),
            "window": [screenshot(4 + number % 13, 2 * number + place) for place in range(2)],
            "series": [series(one, number), series(other, number)],
        }
        for kind, (first, second) in pairs.items():
            files = [folder / f"{kind}-{number:03}-{place}.png" for place in range(2)]
            first.save(files[0])
            second.save(files[1])
            yield files[0], Question(file=files[1], kind=kind, strength=0, answer=None)


def measure(index: Index, references: Sequence[Path], questions: Sequence[Question]) -> None:
    """Print what each method finds."""
    known = {Path(path): record for record in records(index) for path in record.paths}
    questions = [one for one in questions if one.file in known]
    references = [path for path in references if path in known]
    right = np.array([[question.answer == path for path in references] for question in questions])
    # An edit that leaves nothing to change is its original: equal bytes are another tier.
    right |= np.array([[known[one.file].id == known[path].id for path in references] for one in questions])
    cosines = {name: vectors[0] @ vectors[1].T for name, vectors in embeddings(index, known, questions, references)}
    methods: dict[str, Scores] = {**cosines, **dict(hashed(questions, references))}
    started = time.perf_counter()
    methods["photo"], candidates, compared = photo(known, questions, references, cosines["default space"])
    seconds = time.perf_counter() - started
    tables(methods, right, questions)
    ours = np.array([one.answer is not None for one in questions])
    print(f"\nAmong the candidates: {(candidates & right)[ours].any(axis=1).mean():.1%} of the originals. "
          f"{compared:,} pairs compared in {seconds:.0f} s.")  # fmt: skip


def embeddings(
    index: Index, known: Mapping[Path, Any], questions: Sequence[Question], references: Sequence[Path]
) -> Iterator[tuple[str, tuple[Scores, Scores]]]:
    """Unit vectors of questions and references, by space: the default, and layer 11 alone."""
    space = index.space()
    rowids, vectors = index.searched(space)
    place = {rowid: number for number, rowid in enumerate(rowids.tolist())}
    row = index.catalog.rowids({record.id for record in known.values()})

    def searched(paths: Sequence[Path]) -> Scores:
        return vectors[[place[row[known[path].id]] for path in paths]]

    files = [one.file for one in questions]
    yield "default space", (searched(files), searched(references))
    width = 384
    start = space.recipe.layers.index(LAYER) * width

    def plain(paths: Sequence[Path]) -> Scores:
        whole = np.stack([index.vector(known[path].id, space) for path in paths])
        return normalise(whole[:, start : start + width])

    yield "layer 11", (plain(files), plain(references))


def hashed(questions: Sequence[Question], references: Sequence[Path]) -> Iterator[tuple[str, Scores]]:
    """Share of equal bits, by hash, of the packages that are there."""
    pictures = [one.file for one in questions] + [*references]
    for name, compute in HASHES.items():
        package = name.split(".")[0]
        try:
            module = importlib.import_module(package)
        except ImportError:
            print(f"{package} is not installed", file=sys.stderr)
            continue
        bits = np.stack([compute(module, opened(path)) for path in pictures]).astype(np.float32) * 2 - 1
        yield name, bits[: len(questions)] @ bits[len(questions) :].T / bits.shape[1]


def photo(
    known: Mapping[Path, Any], questions: Sequence[Question], references: Sequence[Path], cosines: Scores
) -> tuple[Scores, NDArray[np.bool_], int]:
    """What the tier says of each pair, and which pairs were candidates: those near by cosine or by hash."""
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    candidates = np.zeros(cosines.shape, dtype=np.bool_)
    np.put_along_axis(candidates, nearest, True, axis=1)
    asking = np.array([known[one.file].facts.phash for one in questions], dtype=np.int64).view(np.uint64)
    held = np.array([known[path].facts.phash for path in references], dtype=np.int64).view(np.uint64)
    for turned in turned_hashes(held):
        candidates |= np.bitwise_count(asking[:, None] ^ turned[None, :]) <= MAX_BITS
    small = {path: Small.of(opened(path)) for path in references}
    found = np.zeros(cosines.shape, dtype=np.float32)
    for number, question in enumerate(questions):
        one = Small.of(opened(question.file))
        for place in np.flatnonzero(candidates[number]).tolist():
            found[number, place] = compare(one, small[references[place]])
    return found, candidates, int(candidates.sum())


def tables(methods: Mapping[str, Scores], right: NDArray[np.bool_], questions: Sequence[Question]) -> None:
    """Print the share of edits found by kind at PRECISION, and the micro average precision."""
    cuts = {name: cut(scores, right) for name, scores in methods.items()}
    found: dict[str, NDArray[np.bool_]] = {
        name: ((scores >= cuts[name]) * right).max(axis=1) for name, scores in methods.items()
    }
    of_kind: defaultdict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        if question.answer is not None:
            of_kind[question.kind].append(number)
    print("| edit | copies | " + " | ".join(methods) + " |\n|---" + "|---" * (1 + len(methods)) + "|")
    for kind, numbers in of_kind.items():
        shares = [f"{np.mean(found[name][numbers]):.3f}" for name in methods]
        print(f"| {kind} | {len(numbers)} | " + " | ".join(shares) + " |")
    everything = [number for numbers in of_kind.values() for number in numbers]
    print(f"| **all** | {len(everything)} | "
          + " | ".join(f"{np.mean(found[name][everything]):.3f}" for name in methods) + " |")  # fmt: skip
    precise = [average_precision(scores, right) for scores in methods.values()]
    print("| micro AP | | " + " | ".join(f"{value:.3f}" for value in precise) + " |")
    for name, scores in methods.items():
        wrong = (scores >= cuts[name]) * ~right
        kinds: Counter[str] = Counter()
        for number in np.flatnonzero(wrong.any(axis=1)).tolist():
            kinds[questions[number].kind if questions[number].answer is None else "another drawing"] += 1
        print(f"\n{name}: from {cuts[name]:.4f}, wrong: {dict(kinds) or 'none'}", end="")
    print()


def cut(scores: Scores, right: NDArray[np.bool_]) -> float:
    """The least score at which at least PRECISION of the pairs with it or more are right; of 0 or less none is."""
    flat, correct = scores.ravel(), right.ravel()
    order = np.argsort(-flat, kind="stable")
    ordered = flat[order]
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are told apart by no cut
    good = np.flatnonzero((precision >= PRECISION) & last & (ordered > 0))
    return float(ordered[good[-1]]) if len(good) else float("inf")


def average_precision(scores: Scores, right: NDArray[np.bool_]) -> float:
    """Of all pairs in one ranking; those with no score at all are not found."""
    flat, correct = scores.ravel(), right.ravel()
    order = np.argsort(-flat, kind="stable")
    order = order[flat[order] != 0]
    hits = correct[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / correct.sum())


if __name__ == "__main__":
    main()
