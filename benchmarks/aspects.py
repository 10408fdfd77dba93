"""Queries of two aspects: which way to make cosines of two spaces comparable finds best, and what a second space costs.

    python benchmarks/aspects.py SETS --work FOLDER [--sets stamps,clipart,scenes]
    python benchmarks/aspects.py --speed 20000

SETS is the folder of `benchmarks/relevance.py`. Each set is built into FOLDER without flags, and given its space of
words and one of the third layer, not whitened, whose cosines are high and close together; what is there already is
used. Every image asks, with its name in words (stamps: with their description), for the others of its class. Prints
Markdown. `--speed` compares searches by id of one space with those of two, over drawn vectors that both tell something
of the same things, in processor time, one thread.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
from machine import machine
from numpy.typing import NDArray
from relevance import SETS, build
from scores import records
from words import WORDS

from indexer.encoders.encoder import Encoder, SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.encoders.words import load_text_encoder
from indexer.fill import Fill
from indexer.index_encoder import load_index_encoder
from indexer.models import PACKAGED, locate
from indexer.progress import Quiet
from search.generations.generation import SpaceSnapshot
from search.index import Index
from search.query.aspects import LEFT_OUT
from search.recipe import Preprocessing, Recipe
from search.types import Aspect, Encoding, Hit, ImageFacts, Location, NewImage, Query, QueryPart, Space
from search.vectors import normalise

LAYER = 3
WEIGHTS = (0.5, 1.0, 2.0)
DIMS = {"one": 512, "two": 384}
ASKED = 200

Matrix = NDArray[np.float64]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the packages were unpacked")
    parser.add_argument("--work", type=Path, help="where indexes are kept")
    parser.add_argument("--sets", default="stamps,clipart,scenes")
    parser.add_argument("--speed", type=int, metavar="IMAGES")
    asked = parser.parse_args()
    print(f"{machine()}\n")
    if asked.speed:
        speed(asked.speed)
        return
    for name in asked.sets.split(","):
        with Index.open(indexed(name, asked.folder.resolve(), asked.work)) as index:
            relevance(name, index)


def indexed(name: str, sets: Path, work: Path) -> Path:
    """The index of a set, with its spaces."""
    path = work / f"{name}.index"
    if not path.exists():
        images = SETS[name](sets)
        with (work / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class"])
            writer.writerows(images.items())
        build(images, path, "--metadata", work / f"{name}.csv")
    with Index.open(path, writable=True) as index:
        if len(index.spaces) < 3:
            request = SpaceRequest(layers=(LAYER,), geometry="square")
            with index.writer() as changing:
                changing.add_space(*spaces_for(locate(PACKAGED.name), [request], index.space().encoding))

            def load(spaces: Sequence[Space]) -> Encoder:
                return load_index_encoder(index, spaces, warn=print)

            Fill(index, load, workers=2, progress=Quiet(), stopped=lambda: False).run()
            index.publish()
    return path


def said(path: Path) -> str:
    """What an image shows: its description, or its file's name."""
    text = path.with_suffix(".txt")
    first = text.read_text(encoding="utf-8").splitlines()[0] if text.exists() else ""
    return first or path.stem.replace("_", " ").replace("-", " ")


class Side:
    """The cosines of all queries with all images in a space, (n, n), and what makes them comparable."""

    def __init__(self, base: SpaceSnapshot, queries: NDArray[np.float32], images: NDArray[np.float32]) -> None:
        assert base.background is not None
        assert base.false_matches is not None
        self.cosines: Matrix = (queries @ images.T).astype(np.float64)
        pairs = (images @ images.T)[np.triu_indices(len(images), k=1)]
        self.of_space = float(pairs.std())
        sample = np.sort(queries @ base.background.vectors.T, axis=1)
        self.of_queries = sample[:, : sample.shape[1] - sample.shape[1] // LEFT_OUT].std(axis=1)
        scores = self.cosines - base.background.shifts(queries)[:, None]
        self.log_rates: Matrix = np.interp(scores, base.false_matches.scores, -np.log(base.false_matches.rates))


WAYS: dict[str, Callable[[Side], Matrix]] = {
    "cosines as they are": lambda side: side.cosines,
    "divided by the spread of the space's random pairs": lambda side: side.cosines / side.of_space,
    "**divided by the spread of the query's with a sample**": lambda side: side.cosines / side.of_queries[:, None],
    "logarithms of false-match rates": lambda side: side.log_rates,
}


def relevance(name: str, index: Index) -> None:
    """Print what each way finds, by an image and words, and by an image in two spaces."""
    found = list(records(index))
    snapshot, _ = index._searcher._follower.newest()
    rowids = index.catalog.rowids({record.id for record in found})
    rows = np.array([rowids[record.id] for record in found])
    classes = np.array([record.metadata["class"] for record in found])
    held = {space.name: snapshot.vectors(space.name, rows) for space in index.spaces}
    bases = {space: view.base for space, view in snapshot.spaces.items() if view.base is not None}
    low = next(space.name for space in index.spaces if space.recipe.layers == (LAYER,))
    default = snapshot.default
    encoder = load_text_encoder(index.space(WORDS).recipe, index.models)
    texts = bases[WORDS].transform.apply(encoder.encode([said(Path(record.paths[0])) for record in found]))
    image = Side(bases[default], held[default], held[default])
    words = Side(bases[WORDS], texts, held[WORDS])
    early = Side(bases[low], held[low], held[low])
    print(f"\n### {name}: {len(found):,} images of {len(set(classes))} classes\n")
    print(f"Spread of random pairs: {image.of_space:.3f} ({default}), {words.of_space:.3f} ({WORDS}), ", end="")
    print(f"{early.of_space:.3f} ({low}); of words with images {words.of_queries.mean():.3f}.\n")
    weights = " | ".join(f"weight {weight:g}: R@1, mAP" for weight in WEIGHTS)
    print(f"| | {weights} |\n|---|{'---|' * len(WEIGHTS)}")
    both = held[WORDS] @ held[WORDS].T + words.cosines
    singles = {"image": image.cosines, "words": words.cosines, "both in the space of words": both, low: early.cosines}
    for title, cosines in singles.items():
        print(f"| {title} | | {found_of(cosines, classes)} | |")
    for kind, other in {"words": words, low: early}.items():
        for title, way in WAYS.items():
            cells = [found_of(way(image) + weight * way(other), classes) for weight in WEIGHTS]
            print(f"| image and {kind}: {title} | {' | '.join(cells)} |", flush=True)


def found_of(scores: Matrix, classes: NDArray[np.str_]) -> str:
    """The share of queries whose first is of their class, and the mean average precision, leaving each itself out."""
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
    alike = classes[ranked] == classes[:, None]
    counts = alike.sum(axis=1)
    alike, counts = alike[counts > 0], counts[counts > 0]
    precision = alike.cumsum(axis=1) / np.arange(1, alike.shape[1] + 1)
    mean = ((precision * alike).sum(axis=1) / counts).mean()
    return f"{alike[:, 0].mean():.3f}, {mean:.3f}"


def speed(count: int) -> None:
    """Print what searches of one space and of two take."""
    generator = np.random.default_rng(0)
    things = generator.normal(size=(count, 64))
    data = {
        name: normalise(things @ generator.normal(size=(64, dim)) + 4 * generator.normal(size=(count, dim)))
        for name, dim in DIMS.items()
    }
    look = Preprocessing(geometry="crop", resize=32, size=32, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    spaces = [
        Space(
            name=name,
            recipe=Recipe(
                model="drawn",
                weights_sha256=name[0] * 64,
                layers=(1,),
                pooling="cls",
                final_norm=(False,),
                preprocessing=look,
                dim=dim,
            ),
            encoding=Encoding(),
        )
        for name, dim in DIMS.items()
    ]
    ids = [f"{number:064x}" for number in range(count)]
    with tempfile.TemporaryDirectory() as work, Index.create(Path(work, "speed.index"), spaces) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number, image_id in enumerate(ids):
                transaction.add(
                    NewImage(
                        id=image_id,
                        facts=ImageFacts(width=9, height=9, format="png", bytes=9),
                        location=Location(root="/drawn", path=f"{number}.png", mtime_ns=1, size=9),
                        vectors={name: one[number] for name, one in data.items()},
                    )
                )
        index.publish()
        index.refresh()
        faiss.omp_set_num_threads(1)
        asked = generator.choice(ids, size=ASKED, replace=False).tolist()
        one, two = DIMS
        ways: dict[str, Callable[[list[QueryPart]], Query]] = {
            one: lambda parts: Query(parts=parts, space=one),
            two: lambda parts: Query(parts=parts, space=two),
            "both, sum": lambda parts: Query(aspects=[Aspect(parts=parts, space=name) for name in DIMS]),
            "both, best": lambda parts: Query(
                aspects=[Aspect(parts=parts, space=name) for name in DIMS], combine="best"
            ),
        }
        timed(index, ways, asked[:20])
        took = timed(index, ways, asked)
    base = (took[one] + took[two]) / 2
    print(f"| {count:,} images | ms, median of {ASKED} | of one space's |\n|---|---|---|")
    for name, median in took.items():
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")


def timed(
    index: Index, ways: Mapping[str, Callable[[list[QueryPart]], Query]], asked: Sequence[str]
) -> dict[str, float]:
    """The medians of searches, in milliseconds of processor time.

    The ways take turns: one space that is asked again and again stays in the processor's cache, and two do not.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for image_id in asked:
        for name, way in ways.items():
            began = time.process_time()
            hits: list[Hit] = index.search(way([QueryPart(id=image_id)]))
            spent[name].append(time.process_time() - began)
            assert len(hits) == 10
    return {name: 1e3 * float(np.median(times)) for name, times in spent.items()}


if __name__ == "__main__":
    main()
