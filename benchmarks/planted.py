"""Planted groups among vectors: whether they are recovered, how fast, and in how much memory, for
`duplicates.py --speed`."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.duplicates.candidates import NEIGHBOURS, candidate_pairs
from analysis.duplicates.find import find
from analysis.duplicates.medoids import around_medoids
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Space
from search.vectors import normalise

SIZES = (2, 2, 2, 3, 3, 4, 5, 8, 13, 21, 50, 120, 500)
"""Of planted groups, over and over, until a fifth of the vectors is in one."""
CHAINS, CHAIN = 20, 50
"""Chains of gradual change, and their links: of each, images more than a few links apart are no copies."""
NEAR = 0.8
"""Cosine of two copies, at least."""
ROWS = 1_024
AT_ONCE = 50_000
"""Vectors drawn, and written, at once."""
MAX_ALL_PAIRS = 100_000
"""Vectors of which all pairs are compared: ten times as many take hours."""


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """What `dups` made of the vectors: the number of each one's group, -1 for none; how many candidates there were, the
    seconds until these and the groups were known, those of all processors, and the memory that this took, in MB."""

    told: NDArray[np.int64]
    pairs: int
    candidates: float
    groups: float
    processor: float
    structure: str
    before: int
    peak: int
    with_files: int


def speed(count: int, dim: int, rank: int, seed: int = 0) -> None:
    """Compare with all-pairs cosines and connected components, and print both. rank: directions in which vectors vary;
    of fewer than there are numbers, a graph finds the nearest, as it does of real ones."""
    vectors, group = planted(count, dim, rank, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.index"
        made(vectors, path, seed)
        # Their memory is their own: not that of what made the vectors, nor of one another.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            ours = pool.submit(grouped, path, count, seed).result()
        with ProcessPoolExecutor(1, context) as pool:
            seconds, before, peak, with_files = pool.submit(listed, path).result()
    precision, recall = agreement(ours.told, group)
    print(f"{count:,} vectors of {dim} numbers ({ours.structure}): {ours.pairs:,} candidates in "
          f"{ours.candidates:.2f} s, groups in {ours.groups:.2f} s ({ours.processor:.2f} s of processors)")  # fmt: skip
    print(f"memory: {ours.before} MB before, {ours.peak} MB at most, {ours.with_files} MB with pages of mapped files")
    print(f"`dups --tier alike`, records and all, but for the files, which are not there: {seconds:.1f} s; memory: "
          f"{before} MB before, {peak} MB at most, {with_files} MB with pages of mapped files")  # fmt: skip
    print(f"planted groups, pairs of one medoid's group: precision {precision:.4f}, recall {recall:.4f}", flush=True)
    chained = group <= -2
    largest = np.bincount(ours.told[chained & (ours.told >= 0)], minlength=1).max()
    if count > MAX_ALL_PAIRS:
        print(f"largest group of a chain of {CHAIN}: {largest}")
        return
    started, worked = time.perf_counter(), time.process_time()
    label = components(vectors)
    theirs, processor = time.perf_counter() - started, time.process_time() - worked
    precision, recall = agreement(label, group)
    print(f"all-pairs cosines, connected components: {theirs:.2f} s ({processor:.2f} s of processors), "
          f"{theirs / ours.groups:.1f} times as long ({processor / ours.processor:.1f}); "
          f"precision {precision:.4f}, recall {recall:.4f}")  # fmt: skip
    print(f"largest group of a chain of {CHAIN}: {largest}; by components {np.bincount(label[chained]).max()}")


def grouped(path: Path, count: int, seed: int) -> Grouped:
    """Group the images of an index as `dups` does, but that a pair's cosine proves it, not a comparison of pictures."""
    with Index.open(path) as index:
        neighbours = index.neighbours(NEIGHBOURS)  # reads the generation
        known = index.catalog.rowids(f"{number:064x}" for number in range(count))
        rowids = [known[f"{number:064x}"] for number in range(count)]
        hashes = [*zip(rowids, drawn_hashes(count, seed), strict=True)]

        def certain(one: int, others: Sequence[int]) -> list[float]:
            cosines = neighbours.cosines(np.full(len(others), one), np.array(others))
            near: list[float] = np.where(cosines >= NEAR, cosines, 0).tolist()
            return near

        with memory() as peak:
            started, worked = time.perf_counter(), time.process_time()
            pairs = candidate_pairs(index, hashes)
            candidates = time.perf_counter() - started
            cosines = neighbours.cosines(pairs[:, 0], pairs[:, 1])
            near = cosines >= NEAR
            found = around_medoids(zip(*pairs[near].T.tolist(), cosines[near].tolist(), strict=True), certain)
            groups, processor = time.perf_counter() - started, time.process_time() - worked
        structure = str(index.info().spaces[0].structure.get("structure"))
    told = np.full(count, -1)
    place = {rowid: number for number, rowid in enumerate(rowids)}
    for number, (medoid, members) in enumerate(found):
        told[[place[one] for one in (medoid, *members)]] = number
    return Grouped(
        told=told,
        pairs=len(pairs),
        candidates=candidates,
        groups=groups,
        processor=processor,
        structure=structure,
        before=peak[0],
        peak=max(peak),
        with_files=_megabytes("VmHWM"),
    )


def listed(path: Path) -> tuple[float, int, int, int]:
    """The seconds that the tier `alike` takes; the memory before, at most, and with pages of mapped files, in MB."""
    with Index.open(path) as index:
        index.neighbours(NEIGHBOURS)
        with memory() as peak:
            started = time.perf_counter()
            find(index, ["alike"], skipped=lambda *_: None)
            seconds = time.perf_counter() - started
    return seconds, peak[0], max(peak), _megabytes("VmHWM")


@contextmanager
def memory() -> Iterator[list[int]]:
    """This process's memory that is of no file, in MB, every hundredth of a second."""
    seen, done = [_megabytes("RssAnon")], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(_megabytes("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _megabytes(name: str) -> int:
    """A figure of this process's memory, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) // 1024


def planted(count: int, dim: int, rank: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors, and the group of each: -1 of those in none, -2 and below of chains."""
    generator = np.random.default_rng(seed)
    vectors = np.empty((count, dim), dtype=np.float32)
    basis = np.linalg.qr(generator.normal(size=(dim, rank)))[0].T.astype(np.float32)
    for start in range(0, count, AT_ONCE):  # a million at once would take 4 GB
        some = vectors[start : start + AT_ONCE]
        some[:] = normalise(generator.standard_normal((len(some), rank), dtype=np.float32) @ basis)
    group = np.full(count, -1)
    free, number = 0, 0
    while free < count // 5:
        size = min(SIZES[number % len(SIZES)], count - free)
        noise = normalise(generator.normal(size=(size, dim)))
        vectors[free : free + size] = normalise(vectors[free] + 0.4 * noise)
        group[free : free + size] = number
        free, number = free + size, number + 1
    for chain in range(CHAINS):
        at = vectors[free]
        for link in range(CHAIN):
            vectors[free + link], group[free + link] = at, -2 - chain
            at = normalise((at + 0.3 * normalise(generator.normal(size=(1, dim)))[0])[None])[0]
        free += CHAIN
    order = generator.permutation(count)
    return vectors[order], group[order]


def made(vectors: NDArray[np.float32], path: Path, seed: int) -> None:
    """Publish an index of the vectors, with hashes drawn at random."""
    preprocessing = Preprocessing(
        geometry="crop", resize=32, size=32, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3
    )  # fmt: skip
    recipe = Recipe(
        model="none",
        weights_sha256="a" * 64,
        layers=(1,),
        pooling="cls",
        final_norm=(False,),
        preprocessing=preprocessing,
        dim=vectors.shape[1],
    )
    hashes = drawn_hashes(len(vectors), seed)
    index = Index.create(path, [Space(name="planted", recipe=recipe, encoding=Encoding())])
    with index, index.writer() as writer:
        for start in range(0, len(vectors), AT_ONCE):
            with writer.transaction() as transaction:
                for number in range(start, min(start + AT_ONCE, len(vectors))):
                    location = Location(root="/planted", path=f"{number}.png", mtime_ns=1, size=1)
                    facts = ImageFacts(width=8, height=8, format="png", bytes=1, phash=hashes[number])
                    held = {"planted": vectors[number]}
                    transaction.add(NewImage(id=f"{number:064x}", facts=facts, location=location, vectors=held))
        index.publish()


def drawn_hashes(count: int, seed: int) -> list[int]:
    """Perceptual hashes, signed, of pictures that have nothing in common."""
    drawn: list[int] = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, count).tolist()
    return drawn


def components(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """A label for each vector: those linked by cosines of NEAR or more share one."""
    rows, columns = [], []
    for start in range(0, len(vectors), ROWS):
        row, column = np.nonzero(vectors[start : start + ROWS] @ vectors.T >= NEAR)
        rows.append(row + start)
        columns.append(column)
    one, other = np.concatenate(rows), np.concatenate(columns)
    linked = coo_array((np.ones(len(one), dtype=np.bool_), (one, other)), shape=(len(vectors),) * 2)
    label: NDArray[np.int64] = connected_components(linked, directed=False)[1]
    return label


def agreement(told: NDArray[np.int64], group: NDArray[np.int64]) -> tuple[float, float]:
    """Precision and recall of pairs said to be of one group, by the planted ones; chains are left out."""
    kept = group >= -1
    told, group = told[kept], group[kept]
    both = said = true = 0
    for label in np.unique(told[told >= 0]):
        held = group[told == label]
        said += len(held) * (len(held) - 1) // 2
        counts = np.bincount(held[held >= 0]) if (held >= 0).any() else np.zeros(1, dtype=np.int64)
        both += int((counts * (counts - 1) // 2).sum())
    counts = np.bincount(group[group >= 0])
    true = int((counts * (counts - 1) // 2).sum())
    return both / max(1, said), both / max(1, true)
