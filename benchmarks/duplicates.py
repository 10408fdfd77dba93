"""How surely `lookalike dups` finds copies of photos: beside perceptual hashes and cosines, and how long it takes.

    python benchmarks/duplicates.py SETS [--originals N] [--distractors N] [--hard N] [--photos FOLDER]
        [--also PACKAGES] [--index FOLDER] [--sample N]
    python benchmarks/duplicates.py --speed N [--dim NUMBERS] [--rank DIRECTIONS]

SETS is the folder in which Debian's packages openclipart-png, tuxpaint-stamps-default and scratch were unpacked
(`dpkg -x PACKAGE.deb SETS`), FOLDER has photos (those of mate-backgrounds; else those of scratch). Each original, a
drawing of openclipart, is edited in every way and strength of benchmarks/copies.py. Edits ask for their originals among
these and other drawings, none of which is a variant of an original by its name; one that is an original turned or
mirrored is neither right nor wrong. Hard negatives are pairs of pictures of
benchmarks/alike_pictures.py: the first of each is among the references, the other one asks.

Questions are asked in albums of all references and ALBUM edits of each original, so that a copy has not 80 others
beside it that are nearer than its original. In each, pairs are compared that the product's own `candidate_pairs` names.

Prints Markdown: for each kind of edit the share that a method finds at the score at which 99.9% of what it finds, of
all edits and hard negatives, is right; the micro average precision; and the questions for which a wrong picture is
found, by their kind. imagehash and pdqhash are measured where they can be imported, from PACKAGES too (imagededup's
hashes are those of imagehash). Embedding takes most of the time: with `--index` pictures and their index are kept, and
taken the next time. `--speed` compares the time of candidates and groups with all-pairs cosines and connected
components, on vectors with planted groups.

The thresholds of the comparison were chosen on stamps of tuxpaint-stamps-default and backgrounds of scratch, and on
pairs of alike_pictures.py from seed 9,000 on, those of the certainty on icons of oxygen and flags of iso-flags, and on
drawings of openclipart that are neither originals nor distractors. What is measured here are other drawings of
openclipart and, with --photos of mate-backgrounds, other photos, from seed 0 on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from alike_pictures import pairs_of
from copies import COPIES, copy
from edits import opened
from found import Found, Question, by_product, tables
from hashes import hashed
from machine import machine
from numpy.typing import NDArray
from PIL import Image, ImageChops
from planted import speed
from relevance import build
from scores import records, renewed

from analysis.duplicates.candidates import candidate_pairs
from analysis.duplicates.photo import compare
from analysis.duplicates.small import Small
from search.index import Index
from search.types import ImageRecord
from search.vectors import normalise

Vectors = NDArray[np.float32]

LAYER, WIDTH = 11, 384
ORIGINALS_SEED = 7
"""Another one than while the comparison was written."""
SAME_DRAWING = 1.0
"""Mean difference of levels, at 16 x 16 pixels, up to which another file is the same drawing as an original."""
SAME_TURNED, TRIMMED = 8.0, 24
"""Mean difference of levels, at so many pixels a side and without a white border, up to which another drawing is an
original turned or mirrored: it is a copy by what the tier promises, and counts neither as right nor as wrong."""
ALBUM = 3
"""Edits of each original in an album: with their original, fewer than the neighbours that are looked at."""


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the packages were unpacked")
    parser.add_argument("--originals", type=int, default=1_000)
    parser.add_argument("--distractors", type=int, default=20_000)
    parser.add_argument("--hard", type=int, default=200, help="hard negatives of each sort")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--also", type=Path, help="a site-packages folder with imagehash and pdqhash")
    parser.add_argument("--index", type=Path, help="where pictures and their index are kept, for the next time")
    parser.add_argument("--sample", type=int, help="ask only so many of the questions, chosen at random")
    parser.add_argument("--speed", type=int, help="only this: vectors with planted groups")
    parser.add_argument("--dim", type=int, default=512, help="numbers of each of these vectors")
    parser.add_argument("--rank", type=int, help="directions in which they vary")
    asked = parser.parse_args()
    if asked.rank is not None and not 0 < asked.rank <= asked.dim:
        parser.error(f"--rank is 1 to {asked.dim}, the numbers of a vector (--dim)")
    print(f"{machine()}\n", flush=True)
    if asked.speed:
        speed(asked.speed, asked.dim, asked.rank or asked.dim)
        return
    if asked.also:
        sys.path.append(str(asked.also))
    with ExitStack() as stack:
        work = (asked.index or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        work.mkdir(parents=True, exist_ok=True)
        check_made(work, [asked.originals, asked.distractors, asked.hard, str(asked.photos)])
        sets = asked.folder.resolve()
        originals, references = drawings(sets, asked.originals, asked.distractors)
        questions: list[Question] = []
        for reference, edits in edited(originals, work / "edits"):
            references.append(reference)
            questions += edits
        for reference, question in hard(sets, asked.photos, asked.hard, work / "hard"):
            references.append(reference)
            questions.append(question)
        started = time.perf_counter()
        if not (work / "embedded").exists():
            build([*references, *(one.file for one in questions)], work / "copies.index")
            (work / "embedded").touch()
        print(f"{len(references):,} references, {len(questions):,} questions, embedded in "
              f"{time.perf_counter() - started:.0f} s\n", flush=True)  # fmt: skip
        if asked.sample:
            chosen = np.random.default_rng(4).permutation(len(questions))[: asked.sample]
            questions = [questions[number] for number in sorted(chosen.tolist())]
        with Index.open(work / "copies.index") as index, tempfile.TemporaryDirectory() as albums:
            measure(index, references, questions, Path(albums))


def check_made(work: Path, asked: Sequence[int | str]) -> None:
    """Exit where a folder holds the pictures of another run."""
    note = work / "asked.json"
    if not note.exists():
        note.write_text(json.dumps(asked))
    elif json.loads(note.read_text()) != asked:
        raise SystemExit(f"{work} was made for other pictures: {note.read_text()}. Name another folder.")


def drawings(sets: Path, originals: int, distractors: int) -> tuple[list[Path], list[Path]]:
    """Originals to be edited, and other drawings; no two originals are variants of one drawing, nor is any of the
    others of an original: in one folder with the same first word, or in folders side by side with the same other words,
    as `white/white_s_8` and `bordered/bordered_s_8`."""
    files = sorted((sets / "usr/share/openclipart/png").rglob("*.png"))
    order = np.random.default_rng(ORIGINALS_SEED).permutation(len(files)).tolist()
    chosen: list[Path] = []
    taken = set[tuple[Path, str]]()
    for number in order:
        names = _series(files[number])
        if len(chosen) < originals and taken.isdisjoint(names):
            chosen.append(files[number])
            taken |= names
    others = [files[number] for number in order if taken.isdisjoint(_series(files[number]))]
    seen = np.stack([_tiny(path) for path in chosen])
    different = (path for path in others if np.abs(seen - _tiny(path)).mean(axis=1).min() > SAME_DRAWING)
    return chosen, [*islice(different, distractors)]


def _series(path: Path) -> set[tuple[Path, str]]:
    first, _, rest = path.stem.partition("_")
    return {(path.parent, first.rstrip("0123456789")), *([(path.parent.parent, f"_{rest}")] if rest else [])}


def _tiny(path: Path) -> Vectors:
    return np.asarray(opened(path).resize((16, 16)), dtype=np.float32).ravel()


def edited(originals: Sequence[Path], folder: Path) -> Iterator[tuple[Path, list[Question]]]:
    """Write each original as it is edited, and its edits."""
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(originals):
        picture, reference = opened(path), folder / f"{number:04}.png"
        if not reference.exists():
            picture.save(reference)
        questions: list[Question] = []
        for kind in COPIES:
            for strength in range(3):
                file = folder / f"{number:04}-{len(questions):02}.png"
                if not file.exists():
                    copy(picture, kind, strength).save(file)
                questions.append(Question(file=file, kind=kind, strength=strength, answer=reference))
        yield reference, questions


def hard(sets: Path, photos: Path | None, count: int, folder: Path) -> Iterator[tuple[Path, Question]]:
    """Write pairs of pictures that are alike and not copies: one for the references, one that asks."""
    folder.mkdir(exist_ok=True)
    found = sorted((photos or sets / "usr/share/scratch/Media/Backgrounds").rglob("*.jpg"))
    stamps = [
        path for path in sorted((sets / "usr/share/tuxpaint/stamps").rglob("*.png")) if "_mirror" not in path.name
    ]
    generator = np.random.default_rng(3)
    for number in range(count):
        chosen = [stamps[place] for place in generator.integers(0, len(stamps), 2)]
        for kind, make in pairs_of(found[number % len(found)], chosen, number).items():
            files = [folder / f"{kind}-{number:03}-{place}.png" for place in range(2)]
            if not all(file.exists() for file in files):
                for file, picture in zip(files, make(), strict=True):
                    picture.save(file)
            yield files[0], Question(file=files[1], kind=kind, strength=0, answer=None, beside=files[0])


def measure(index: Index, references: Sequence[Path], questions: Sequence[Question], folder: Path) -> None:
    """Print what each method finds."""
    known = {Path(path): record for record in records(index) for path in record.paths}
    # An edit that leaves nothing to change is its original, or another edit: equal bytes are another tier.
    seen = {known[path].id for path in references if path in known}
    asking: list[Question] = []
    for one in questions:
        if one.file in known and known[one.file].id not in seen:
            seen.add(known[one.file].id)
            asking.append(one)
    questions = asking
    references = [path for path in references if path in known]
    numbers: dict[str, set[int]] = {}
    for number, path in enumerate(references):
        numbers.setdefault(known[path].id, set()).add(number)
    right = [set() if one.answer is None else numbers[known[one.answer].id] for one in questions]
    alike = {path: number for number, path in enumerate(references) if path.parent.name == "hard"}
    turned = turned_variants(references, {one.answer for one in questions if one.answer is not None})
    left_out = [
        turned[one.answer] - right[number]
        if one.answer is not None
        else {place for path, place in alike.items() if path != one.beside}
        for number, one in enumerate(questions)
    ]
    methods: dict[str, Found] = {}
    for name, (asked, held) in (*embeddings(index, known, questions, references), *hashed(questions, references)):
        methods[name] = by_product(asked, held, right, left_out)
    started = time.perf_counter()
    found, candidates = photo(index, known, questions, references, folder)
    seconds = time.perf_counter() - started
    methods["photo"] = Found.of(found, right, left_out)
    for number, place, _ in found:
        if place not in right[number] | left_out[number]:
            print(
                f"wrong: {questions[number].kind}, {questions[number].file.name}: {references[place].name}",
                file=sys.stderr,
            )
    tables(methods, "photo", right, questions)
    told: dict[str, list[bool]] = {}
    for question, answers, near in zip(questions, right, candidates, strict=True):
        if question.answer is not None:
            told.setdefault(question.kind, []).append(bool(answers & near))
    everything = [one for each in told.values() for one in each]
    fewest = sorted((float(np.mean(each)), kind) for kind, each in told.items())[:6]
    print(f"\nAmong the candidates: {np.mean(everything):.1%} of the originals; fewest of: "
          + ", ".join(f"{kind} {share:.1%}" for share, kind in fewest)
          + f". {sum(map(len, candidates)):,} pairs compared, candidates and all, in {seconds:.0f} s.")  # fmt: skip


def turned_variants(references: Sequence[Path], originals: set[Path]) -> dict[Path, set[int]]:
    """For each original the places of the references that show it, or show it turned or mirrored."""
    with ProcessPoolExecutor() as pool:
        held = np.stack([*pool.map(_trimmed, references, chunksize=50)])
    found: dict[Path, set[int]] = {}
    for path in originals:
        picture = held[references.index(path)].reshape(TRIMMED, TRIMMED, 3)
        poses = [np.rot90(one, turn).ravel() for one in (picture, picture[:, ::-1]) for turn in range(4)]
        apart = np.min([np.abs(held - pose).mean(axis=1) for pose in poses], axis=0)
        found[path] = {*np.flatnonzero(apart <= SAME_TURNED).tolist()}
    return found


def _trimmed(path: Path) -> Vectors:
    picture = opened(path)
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    return np.asarray(picture.crop(box).resize((TRIMMED, TRIMMED)), dtype=np.float32).ravel()


def embeddings(
    index: Index, known: Mapping[Path, ImageRecord], questions: Sequence[Question], references: Sequence[Path]
) -> Iterator[tuple[str, tuple[Vectors, Vectors]]]:
    """Unit vectors of questions and references, by space: the default, and layer 11 alone."""
    space = index.space()
    rowids, vectors = index.searched(space)
    place = {rowid: number for number, rowid in enumerate(rowids.tolist())}
    row = index.catalog.rowids({record.id for record in known.values()})

    def searched(paths: Sequence[Path]) -> Vectors:
        return vectors[[place[row[known[path].id]] for path in paths]]

    files = [one.file for one in questions]
    yield "default space", (searched(files), searched(references))
    start = space.recipe.layers.index(LAYER) * WIDTH

    def plain(paths: Sequence[Path]) -> Vectors:
        whole = [index.vector(known[path].id, space)[start : start + WIDTH] for path in paths]
        return normalise(np.stack(whole))

    yield "layer 11", (plain(files), plain(references))


def photo(
    index: Index,
    known: Mapping[Path, ImageRecord],
    questions: Sequence[Question],
    references: Sequence[Path],
    folder: Path,
) -> tuple[list[tuple[int, int, float]], list[set[int]]]:
    """What the tier says of (question, reference), and the references that are candidates of each question."""
    numbers = {known[path].id: number for number, path in enumerate(references)}
    found: list[tuple[int, int, float]] = []
    candidates: list[set[int]] = [set() for _ in questions]
    earlier: Counter[Path | None] = Counter()
    turns = []
    for question in questions:
        turns.append(earlier[question.answer] // ALBUM if question.answer else earlier[None])
        earlier[question.answer] += 1
    last = max((turn for turn, one in zip(turns, questions, strict=True) if one.answer), default=0) + 1
    albums: dict[int, list[int]] = {}
    for number, turn in enumerate(turns):
        albums.setdefault(turn % last, []).append(number)
    with ProcessPoolExecutor() as pool:
        shown = [*references, *(one.file for one in questions)]
        bare = dict(zip(shown, pool.map(bare_hash, shown, chunksize=50), strict=True))
        for turn, some in sorted(albums.items()):
            asking = {known[questions[one].file].id: one for one in some}
            paths = [*references, *(questions[one].file for one in asking.values())]
            pairs = pairs_in_album(index, known, paths, bare, folder / f"{turn}.index")
            near: dict[int, set[int]] = {}
            for pair in pairs:
                for one, other in (pair, pair[::-1]):
                    if one in asking and other in numbers and one != other:
                        near.setdefault(asking[one], set()).add(numbers[other])
            for number, places in near.items():
                candidates[number] |= places
            jobs = [(questions[number].file, [references[place] for place in sorted(near[number])]) for number in near]
            for number, scores in zip(near, pool.map(compared, jobs, chunksize=4), strict=True):
                found += [
                    (number, place, sure) for place, sure in zip(sorted(near[number]), scores, strict=True) if sure
                ]
            print(f"album {turn}: {len(asking)} questions, {len(pairs):,} candidates", file=sys.stderr, flush=True)
    return found, candidates


def bare_hash(path: Path) -> int | None:
    """The perceptual hash of a picture without plain borders."""
    return Small.of(opened(path)).bare_hash


def compared(job: tuple[Path, Sequence[Path]]) -> list[float]:
    """How surely a picture is the same photo as each of others."""
    one = Small.of(opened(job[0]))
    return [compare(one, Small.of(opened(path))) for path in job[1]]


def pairs_in_album(
    index: Index,
    known: Mapping[Path, ImageRecord],
    paths: Sequence[Path],
    bare: Mapping[Path, int | None],
    folder: Path,
) -> list[tuple[str, str]]:
    """Candidates among some pictures of an index, by their ids."""
    space = index.space()
    held = {known[path].id: path for path in paths}
    album = Index.create(folder, [replace(space, added_seq=None, complete_seq=0)])
    with album, album.writer() as writer:
        with writer.transaction() as transaction:
            for name, path in held.items():
                transaction.add(renewed(known[path], path, {space.name: index.vector(name, space)}))
        album.publish()
        album.refresh()
        rowids = album.catalog.rowids(held)
        hashes = [(rowids[name], known[path].facts.phash or 0) for name, path in held.items()]
        hashes += [(rowids[name], bits) for name, path in held.items() if (bits := bare[path]) is not None]
        names = {rowid: name for name, rowid in rowids.items()}
        return [(names[one], names[other]) for one, other in candidate_pairs(album, hashes).tolist()]


if __name__ == "__main__":
    main()
