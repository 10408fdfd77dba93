"""What feedback gains: simulated marks on labelled sets, beside the first query and Rocchio alone; and a round's time.

    python benchmarks/teach.py SETS [--sets stamps,clipart] [--indexes FOLDER] [--queries 60]
    python benchmarks/teach.py SETS --rules [--sets stamps] [--indexes FOLDER] [--queries 60]
    python benchmarks/teach.py --million [--exact] [--work FOLDER] [--images 1000000] [--dim 384]

SETS and the sets are those of `benchmarks/relevance.py`, and `clothes`: 1,200 test images of Fashion-MNIST. FOLDER
keeps their indexes for another run. The images of a set are divided in two halves at random. A query is an image of the
first half; what is alike has its class. In each of five rounds the ten best images of the first half without a mark are
marked by their classes. Average precision is that over the second half, of which no image is ever marked. The settings
were chosen on `words`, `scenes` and `clothes`; `stamps` and `clipart` are judged.

A label rule is then made of the last round's marks, for a precision of .9, and judged on the second half.

`--rules` makes rules of 5, 10 and 20 marks of each kind, for a precision of .9, and judges them on all images without a
mark: by marks alone, and with what all other images score. Marks are made in two ways. `best`: the ten best images
without a mark are marked until there are enough. `any`: both kinds are drawn at random.

`--million` times a round, with 50 marks, of vectors of low rank (64) with noise: the fit, and
the searches. It also counts how many of the ten best a comparison with all gives. `--exact` compares all of them, as
before an index is published. FOLDER keeps the index for another run: first one with `--exact`, then one without.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
from machine import machine
from numpy.typing import NDArray
from relevance import SETS, build
from sqlalchemy import delete

from search.catalog import schema as tables
from search.catalog.transaction import Transaction
from search.errors import FeedbackInvalid
from search.feedback import Marks, TaughtQuestion
from search.index import Index
from search.labelling import measure
from search.query.candidates import COSINE_ROUNDING
from search.query.feedback import LESS_SHARE, Adapted, Background, adapt, background_of
from search.query.snapshot import EXACTLY
from search.recipe import Preprocessing, Recipe
from search.teaching import Taught, Teacher
from search.types import Encoding, QueryPart, Space
from search.vectors import normalise, to_blob

Vectors = NDArray[np.float32]
ROUNDS, MARKS = 5, 10
RANDOM = 2_000
AT_ONCE = 20_000
PRECISION = 0.9
EACH, MAX_ROUNDS = (5, 10, 20), 12
"""Marks of each kind that a rule is made of, and rounds in which they must be found."""
BAD, MIN_ASKED = 0.5, 5
"""Precision below which a rule is of no use, and queries below which nothing is printed."""
Marked = tuple[list[int], list[int]] | None


def clothes(sets: Path, work: Path) -> dict[Path, str]:
    """Fashion-MNIST, enlarged four times."""
    packed = sets / "usr/share/datasets/fashion-mnist"
    pixels = np.frombuffer(gzip.decompress((packed / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    kinds = gzip.decompress((packed / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    folder = work / "clothes"
    folder.mkdir(exist_ok=True)
    found = {}
    for number, image in enumerate(pixels.reshape(-1, 28, 28)[:1_200]):
        path = folder / f"{number:05}.png"
        PIL.Image.fromarray(image).resize((112, 112), PIL.Image.Resampling.BICUBIC).save(path)
        found[path] = str(kinds[number])
    return found


def vectors_of(name: str, sets: Path, work: Path) -> tuple[Vectors, NDArray[np.str_]]:
    """The searched vectors of a set, and their classes."""
    index = work / f"{name}.index"
    if not index.is_dir():
        images = clothes(sets, work) if name == "clothes" else SETS[name](sets)
        with (work / "classes.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class"])
            writer.writerows(images.items())
        build(images, index, "--metadata", work / "classes.csv")
    with Index.open(index) as opened:
        rowids, vectors = opened.searched(opened.space())
        records = opened.catalog.records(rowids.tolist())
    return vectors, np.array([str(records[rowid].metadata["class"]) for rowid in rowids.tolist()])


def average_precision(scores: NDArray[np.float32], alike: NDArray[np.bool_]) -> float:
    """Of a ranking by scores."""
    ranked = alike[np.argsort(-scores, kind="stable")]
    places = np.flatnonzero(ranked)
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def rocchio(question: Vectors, more: Vectors, less: Vectors, _background: Background) -> Vectors:
    """Rocchio alone, however many marks there are."""
    moved = np.concatenate([question[None, :], more]).mean(axis=0)
    if len(less):
        moved = moved - LESS_SHARE * less.mean(axis=0)
    found: Vectors = normalise(moved[None, :])[0]
    return found


def taught(question: Vectors, more: Vectors, less: Vectors, background: Background) -> Vectors:
    """As Lookalike does it."""
    return adapt(question, more, less, background).vector


METHODS: dict[str, Callable[[Vectors, Vectors, Vectors, Background], Vectors]] = {"Rocchio": rocchio, "taught": taught}


def simulated(name: str, vectors: Vectors, classes: NDArray[np.str_], queries: int) -> float:
    """Print a set's row, and the rule's. Returns the gain of the last round."""
    draw = np.random.default_rng(0)
    half = draw.permutation(len(vectors)) % 2
    marked_half, judged = np.flatnonzero(half == 0), np.flatnonzero(half == 1)
    background = background_of(vectors[draw.permutation(len(vectors))[:RANDOM]])
    asked = [one for one in draw.permutation(marked_half) if (classes[judged] == classes[one]).any()][:queries]
    curves: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    rules: list[tuple[float, float, float, float]] = []
    for query in asked:
        alike = classes[judged] == classes[query]
        for method, learn in METHODS.items():
            vector, marks = vectors[query], [query]
            curve = [average_precision(vectors[judged] @ vector, alike)]
            for _ in range(ROUNDS):
                ranked = marked_half[np.argsort(-(vectors[marked_half] @ vector), kind="stable")]
                marks += [one for one in ranked if one not in marks][:MARKS]
                same = classes[marks[1:]] == classes[query]
                more, less = vectors[marks[1:]][same], vectors[marks[1:]][~same]
                vector = learn(vectors[query], more, less, background)
                curve.append(average_precision(vectors[judged] @ vector, alike))
            curves[method].append(curve)
        rest = np.setdiff1d(np.arange(len(vectors)), marks)
        rules += rule(adapt(vectors[query], more, less, background), vectors[rest], vectors[judged], alike)
    means = {method: np.mean(curve, axis=0) for method, curve in curves.items()}
    for method, mean in means.items():
        cells = " | ".join(f"{value:.3f}" for value in mean)
        print(f"| {name}, {len(asked)} queries | {method} | {cells} | {mean[-1] / mean[0]:.2f} |")
    said, true, found, held = np.mean(rules, axis=0) if rules else [np.nan] * 4
    print(
        f"\nRules of {name} for a precision of {PRECISION}, of {len(rules)} of these queries: said {said:.2f}; of "
        f"images never marked {true:.2f}, not below the interval for {held:.0%}; they found "
        f"{found:.2f} of what is alike.\n"
    )
    return float(means["taught"][-1] / means["taught"][0])


def rule(
    adapted: Adapted, unmarked: Vectors, vectors: Vectors, alike: NDArray[np.bool_]
) -> list[tuple[float, float, float, float]]:
    """Of a rule the said precision, the true one of images never marked, what share it finds, and whether the interval
    is not above the true one; nothing where no score is so precise, or it labels none of these images."""
    try:
        measured = measure(adapted, unmarked @ adapted.vector, precision=PRECISION)
    except FeedbackInvalid:
        return []
    labelled = vectors @ adapted.vector >= measured.above
    if not labelled.any():
        return []
    true = float(alike[labelled].mean())
    said = measured.precision
    assert said.value is not None
    return [(said.value, true, float(labelled[alike].mean()), float(said.low <= true))]


def best_marks(vectors: Vectors, alike: NDArray[np.bool_], query: int, each: int, background: Background) -> Marked:
    """Marks of the best images, ten a round, until there are so many of each kind; None where that takes too long."""
    vector, marks = vectors[query], [query]
    for _ in range(MAX_ROUNDS):
        ranked = np.argsort(-(vectors @ vector), kind="stable")
        marks += [one for one in ranked.tolist() if one not in marks][:MARKS]
        more, less = ([one for one in marks[1:] if alike[one] == kind] for kind in (True, False))
        if min(len(more), len(less)) >= each:
            return more[:each], less[:each]
        vector = adapt(vectors[query], vectors[more], vectors[less], background).vector
    return None


def any_marks(vectors: Vectors, alike: NDArray[np.bool_], query: int, each: int, draw: np.random.Generator) -> Marked:
    """Marks of any images."""
    rest = np.arange(len(vectors)) != query
    more, less = (draw.choice(np.flatnonzero(rest & (alike == kind)), each, replace=False) for kind in (True, False))
    return more.tolist(), less.tolist()


def ruled(name: str, vectors: Vectors, classes: NDArray[np.str_], queries: int) -> None:
    """Print a set's rows: rules by marks alone, and with what all other images score."""
    for each in EACH:
        for way in ("best", "any"):
            draw = np.random.default_rng(0)
            background = background_of(vectors[draw.permutation(len(vectors))[:RANDOM]])
            rows: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
            asked = 0
            for query in draw.permutation(len(vectors)).tolist():
                alike = classes == classes[query]
                if asked == queries or alike.sum() < 2 * each + 1:
                    continue
                marks = (
                    best_marks(vectors, alike, query, each, background)
                    if way == "best"
                    else any_marks(vectors, alike, query, each, draw)
                )
                if marks is None:
                    continue
                asked += 1
                adapted = adapt(vectors[query], vectors[marks[0]], vectors[marks[1]], background)
                rest = np.setdiff1d(np.arange(len(vectors)), [query, *marks[0], *marks[1]])
                scores = vectors[rest] @ adapted.vector
                for others, found in rows.items():
                    try:
                        measured = measure(adapted, scores if others else scores[:0], precision=PRECISION)
                    except FeedbackInvalid:
                        continue
                    labelled, right = scores >= measured.above, alike[rest]
                    precision = float(right[labelled].mean()) if labelled.any() else np.nan
                    found.append((float(labelled.sum()), precision, float(labelled[right].mean())))
            if asked >= MIN_ASKED:
                cells = [
                    f"{len(found)} | {np.mean([one[0] for one in found]):.0f} | "
                    f"{np.nanmean([one[1] for one in found]):.2f} | "
                    f"{np.nanmean([one[1] < BAD for one in found if one[0]]):.0%} | "
                    f"{np.mean([one[2] for one in found]):.2f}"
                    if found
                    else "0 | - | - | - | -"
                    for found in rows.values()
                ]
                print(
                    f"| {name}, {len(vectors):,} | {each} + {each}, {way} | {asked} | {' | '.join(cells)} |", flush=True
                )


def written(transaction: Transaction, vectors: Vectors, start: int) -> None:
    """Add images straight to the tables, without words and locations: only their vectors are asked for."""
    last = transaction._next_seq(len(vectors))
    connection, numbers = transaction._connection, range(start, start + len(vectors))
    facts = {"width": 1, "height": 1, "format": "png", "bytes": 1, "labels": [], "metadata": {}}
    rows = [{"id": f"{one:064x}", "rowid": one + 1, "seq": last - len(vectors) + 1 + one - start} for one in numbers]
    connection.execute(tables.images.insert(), [facts | row for row in rows])
    connection.execute(delete(tables.words_due))
    blobs = [to_blob(vector, "float32") for vector in vectors]
    connection.execute(
        tables.embeddings.insert(),
        [
            {"image_rowid": one + 1, "space_id": 1, "vector": blob, "crc32": crc}
            for one, (blob, crc) in zip(numbers, blobs, strict=True)
        ],
    )


def million(images: int, dim: int, work: Path, *, graph: bool) -> None:
    """Time rounds on an index of many images, written where it is not in the folder yet."""
    path = work / f"{images}-{dim}.index"
    if not path.is_dir():
        fresh = work / f"{images}-{dim}.unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        filled(fresh, images, dim)
        fresh.rename(path)
    with Index.open(path, writable=graph) as index:
        began = time.perf_counter()
        if graph and index.snapshot().generation is None:
            index.publish()
        index.refresh()
        has_graph = (base := index.snapshot().spaces["a"].base) is not None and base.graph is not None
        if has_graph != graph:
            raise SystemExit("This index is published: --exact needs another folder." if has_graph else "No graph.")
        print(f"{images:,} x {dim}, {'by a graph' if graph else 'all compared'}")
        print(f"ready in {time.perf_counter() - began:.0f} s", flush=True)
        timed(index)


def filled(path: Path, images: int, dim: int) -> None:
    """Write an index of vectors of low rank, with noise."""
    draw = np.random.default_rng(0)
    base = draw.standard_normal((64, dim), dtype=np.float32)
    recipe = Recipe(
        model="random",
        weights_sha256="0" * 64,
        layers=(1,),
        pooling="cls",
        final_norm=(False,),
        preprocessing=Preprocessing(
            geometry="crop", resize=256, size=224, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        dim=dim,
    )
    with Index.create(path, [Space(name="a", recipe=recipe, encoding=Encoding())]) as index:
        for start in range(0, images, AT_ONCE):
            count = min(AT_ONCE, images - start)
            low = draw.standard_normal((count, 64), dtype=np.float32) @ base
            vectors = normalise(low + draw.standard_normal((count, dim), dtype=np.float32))
            with index.writer() as writer, writer.transaction() as transaction:
                written(transaction, vectors, start)


def timed(index: Index) -> None:
    """Print the time of rounds with 10 to 50 marks, and their recall."""
    teacher = Teacher(index)
    first: list[tuple[float, float]] = []
    rounds: list[tuple[float, float]] = []
    fits: list[tuple[float, float]] = []
    right: list[float] = []
    for query in range(10):
        question = TaughtQuestion(space="a", parts=(QueryPart(id=f"{query:064x}"),))
        marks, before = Marks(), None
        for _ in range(ROUNDS + 1):
            clocks = time.perf_counter(), time.process_time()
            answer = teacher.answer(question, marks, k=MARKS, before=before)
            took = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
            (rounds if len(marks) else first).append(took)
            if len(marks):
                right.append(found_of_best(index, answer))
            ids = [hit.id for hit in answer.hits]
            fitted, before = marks, marks
            marks = marks.then(Marks(more=tuple(ids[::2]), less=tuple(ids[1::2])))
        clocks = time.perf_counter(), time.process_time()
        teacher.learn(question, fitted)
        fits.append((time.perf_counter() - clocks[0], time.process_time() - clocks[1]))
    for name, times in (("first query", first), ("round", rounds), ("its fit alone, with 50 marks", fits)):
        for clock, one in zip(("by the clock", "of processors"), zip(*times, strict=True), strict=True):
            low, middle, high = np.quantile(one, (0, 0.5, 1)) * 1000
            print(f"{name}, {clock}: {middle:.1f} ms (median; {low:.1f} to {high:.1f})")
    print(f"of the ten best of {len(right)} taught vectors, found: {np.mean(right):.3f}")


def found_of_best(index: Index, answer: Taught) -> float:
    """The share of hits that are as good as the ten best by comparison with all."""
    snapshot, query = index.snapshot(), answer.query
    vector = np.asarray(query.parts[0].vector, dtype=np.float32)
    rowids, cosines = snapshot.nearest("a", vector[None, :], MARKS + len(query.without), ef=EXACTLY)
    left = np.isin(rowids[0], [int(one, 16) + 1 for one in query.without], invert=True)
    tenth = cosines[0][left][:MARKS].min()
    return float(np.mean([hit.score >= tenth - COSINE_ROUNDING for hit in answer.hits]))


def main() -> None:
    """Simulate on each set, or time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the packages were unpacked")
    parser.add_argument("--sets", default="stamps,clipart")
    parser.add_argument("--indexes", type=Path, help="where indexes are kept")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rules", action="store_true", help="judge label rules of few marks")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--exact", action="store_true", help="with --million: without a graph")
    parser.add_argument("--work", type=Path, help="with --million: where the index is kept")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    asked = parser.parse_args()
    print(f"{machine()}\n")
    if asked.million:
        with tempfile.TemporaryDirectory() as temporary:
            million(asked.images, asked.dim, asked.work or Path(temporary), graph=not asked.exact)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.indexes or Path(temporary)
        if asked.rules:
            print("| set, images | marks | queries |" + " rules | labelled | precision | below .5 | found |" * 2)
            print("|---|---|---|" + "---|" * 10)
            for name in asked.sets.split(","):
                ruled(name, *vectors_of(name, asked.folder.resolve(), work), asked.queries)
            return
        print("| set | | first query | " + " | ".join(f"round {one + 1}" for one in range(ROUNDS)) + " | gain |")
        print("|---|---|" + "---|" * (ROUNDS + 2))
        gains = [
            simulated(name, *vectors_of(name, asked.folder.resolve(), work), asked.queries)
            for name in asked.sets.split(",")
        ]
    print(f"Mean gain: {np.mean(gains):.2f}")


if __name__ == "__main__":
    main()
