"""Collections full of copies: whether the recall that the manifest promises is what new pictures get.

    python benchmarks/repeats.py [--count 100000] [--dim 384]

Vectors are drawn as `searching.py --sphere clipart` draws them. `different`: all of them differ. `equal`: every vector
twice, as of files that were saved twice. `bursts`: 80% in groups of 20 frames that are nearly equal (cosine .998).
Asked are 2,000 pictures that are not in the collection, one by one, with the index's own number of candidates.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from machine import machine
from searching import K, Vectors, alone, make_index, sphere

from search.index import Index
from search.vectors import normalise

QUERIES = 2_000
FRAMES, IN_BURSTS = 20, 0.8
NOISE = 0.045
"""Length of what tells the frames of a burst apart."""
TIE = 1e-6


class Found(NamedTuple):
    """What one collection's index says and does."""

    images: int
    nodes: int
    structure: str
    promised: float
    recall: float
    per_second: float
    published: float


def collections(drawn: Vectors) -> dict[str, Vectors]:
    """Collections of as many vectors as were drawn, by name, in random order."""
    generator, count = np.random.default_rng(1), len(drawn)
    groups = int(count * IN_BURSTS) // FRAMES
    frames = np.repeat(drawn[:groups], FRAMES, axis=0)
    noise = generator.standard_normal(frames.shape, np.float32) * np.float32(NOISE / np.sqrt(frames.shape[1]))
    made = {
        "different": drawn,
        "equal": np.repeat(drawn[: count // 2], 2, axis=0),
        "bursts": np.concatenate([normalise(frames + noise), drawn[groups : groups + count - len(frames)]]),
    }
    return {name: generator.permutation(vectors) for name, vectors in made.items()}


def measure(folder: Path) -> Found:
    """Build and publish an index of `data.npy`, and ask it with `queries.npy`."""
    published = make_index(folder)
    data, queries = np.load(folder / "data.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    distinct = np.unique(data, axis=0)
    least = faiss.knn(queries, distinct, K, metric=faiss.METRIC_INNER_PRODUCT)[0][:, -1]
    with Index.open(folder / "lookalike.index") as index:
        index.refresh()
        facts = index.info().spaces[0].structure
        copies = len(data) // len(distinct)
        began = time.perf_counter()
        cosines = [index.nearest(query[None], K * copies)[1][0] for query in queries]
        seconds = time.perf_counter() - began
    right = [(one >= low - TIE).sum() / (K * copies) for one, low in zip(cosines, least, strict=True)]
    return Found(
        images=len(data),
        nodes=len(distinct),
        structure=str(facts["structure"]),
        promised=float(facts["search"].get("recall", 1)),
        recall=float(np.minimum(right, 1).mean()),
        per_second=len(queries) / seconds,
        published=published,
    )


def main() -> None:
    """Measure each collection in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    asked = parser.parse_args()
    print(f"{machine()}\n")
    drawn, queries = sphere("clipart", asked.count, QUERIES, asked.dim)
    rows = []
    for name, vectors in collections(drawn).items():
        with tempfile.TemporaryDirectory() as work:
            np.save(Path(work, "data.npy"), vectors)
            np.save(Path(work, "queries.npy"), queries)
            rows.append((name, alone(measure, Path(work))))
    print(
        "\n| collection | images | different vectors | structure | recall promised | recall of new pictures | ", end=""
    )
    print(f"queries/s | published in |\n{'|---' * 8}|")
    for name, one in rows:
        print(
            f"| {name} | {one.images:,} | {one.nodes:,} | {one.structure} | {one.promised:.3f} | {one.recall:.3f} | "
            f"{one.per_second:,.0f} | {one.published:.1f} s |"
        )


if __name__ == "__main__":
    main()
