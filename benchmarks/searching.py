"""Searching an index: recall against speed beside other libraries, filters, changes, memory, opening.

    python benchmarks/searching.py --fashion FOLDER [--plot F.png]
    python benchmarks/searching.py --sphere clipart|hard [--count 1000000] [--dim 384] [--work FOLDER] [--plot F.png]
    python benchmarks/searching.py --real INDEX

FOLDER holds Fashion-MNIST's four files (Debian's dataset-fashion-mnist). Everything is scaled to unit length, so that
inner products are cosines; recall is of the true ten nearest. `lookalike` is `search.index.Index`, with its catalog,
asked by `nearest`; each library runs in a process of its own. --sphere draws unit vectors: `clipart` are as hard as the
packaged model's embeddings of openclipart (--real measures that), `hard` is the set of random centres, a 64-dimensional
subspace and noise. --work keeps the index for the next time. (Named `search.py`, this file would be taken for our
package by every benchmark beside it.)
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from machine import machine
from numpy.typing import NDArray

from search.catalog.catalog import NEWEST
from search.filters import Filter, parse_filter
from search.generations.ann import scores
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Space
from search.vectors import normalise

K = 10
SINGLES = 2000
"""Queries asked one by one."""
EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LISTS, SCORED = 4096, 200
"""Inverted lists, and how many of the candidates found by their codes are scored again."""
PARTS, CLASSES = (1.0, 0.1, 0.01, 0.001), 5000
"""What filters let through of all images, and labels, of which each image has one."""
SPACE = "layer11"
FAISS: Any = faiss
"""Without its types: they describe the C++ constructors."""
Vectors = NDArray[np.float32]
Search = Callable[[Vectors, int], NDArray[np.int64]]
"""Queries and ef, to positions."""


class Point(NamedTuple):
    """One setting of one library."""

    library: str
    threads: int
    ef: int
    recall: float
    per_second: float
    p50: float
    p99: float


class Built(NamedTuple):
    """A library that is ready to be asked."""

    search: Search
    threads: Callable[[int], None]
    seconds: float


# ---------------------------------------------------------------------------------------------------------- vectors


def fashion(folder: Path) -> tuple[Vectors, Vectors]:
    """The 60,000 training images and the 10,000 test images, (n, 784), as unit vectors."""

    def images(name: str) -> Vectors:
        (path,) = [path for path in folder.rglob(f"{name}-images*") if path.is_file()]
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        return normalise(np.frombuffer(data, np.uint8, offset=16).reshape(-1, 784).astype(np.float32))

    return images("train"), images("t10k")


def sphere(kind: str, count: int, queries: int, dim: int = 384) -> tuple[Vectors, Vectors]:
    """Unit vectors and queries of the same kind; the same ones each time."""
    draw = {"hard": _hard, "clipart": _clipart}[kind](np.random.default_rng(0), dim)
    sizes = [min(50_000, count + queries - start) for start in range(0, count + queries, 50_000)]
    everything = np.concatenate([normalise(draw(size)) for size in sizes])
    return everything[:count], everything[count:]


def _hard(random: np.random.Generator, dim: int) -> Callable[[int], Vectors]:
    """20,000 random centres, .77 of a 64-dimensional Gaussian in one random basis, .6 of noise in all directions."""
    centres = normalise(random.standard_normal((20_000, dim)))
    basis = random.standard_normal((64, dim), np.float32) / np.float32(np.sqrt(dim))

    def draw(size: int) -> Vectors:
        inner = random.standard_normal((size, 64), np.float32) @ basis / np.float32(8)
        noise = random.standard_normal((size, dim), np.float32) / np.float32(np.sqrt(dim))
        drawn: Vectors = centres[random.integers(0, 20_000, size)] + np.float32(0.77) * inner + np.float32(0.6) * noise
        return drawn

    return draw


def _clipart(random: np.random.Generator, dim: int) -> Callable[[int], Vectors]:
    """A tree of clusters in a narrow cone, its variances falling by a power: fitted to what --real says of openclipart.

    Of the variance .4 lies between 300 clusters, .2 and .2 between 10,000 and 100,000 smaller ones, the rest within.
    """
    falling = np.arange(2, dim + 2) ** -0.75
    scales = (falling / np.linalg.norm(falling)).astype(np.float32)
    rotation = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32)
    centres = np.zeros((1, dim), np.float32)
    for number, share in ((300, 0.4), (10_000, 0.2), (100_000, 0.2)):
        step = random.standard_normal((number, dim), np.float32) * scales
        centres = centres[random.integers(0, len(centres), number)] + np.float32(np.sqrt(share)) * step

    def draw(size: int) -> Vectors:
        spread = np.float32(np.sqrt(0.2)) * np.exp(np.float32(0.6) * random.standard_normal((size, 1), np.float32))
        leaves = centres[random.integers(0, len(centres), size)]
        drawn = np.float32(0.306) * (leaves + spread * random.standard_normal((size, dim), np.float32) * scales)
        drawn[:, -1] += 1
        turned: Vectors = drawn @ rotation
        return turned

    return draw


def hardness(vectors: Vectors, queries: Vectors) -> str:
    """Cosines to the nearest and the tenth, and the local intrinsic dimension (maximum likelihood, 100 neighbours)."""
    cosines = np.sort(faiss.knn(queries, vectors, 100, metric=faiss.METRIC_INNER_PRODUCT)[0].astype(np.float64), axis=1)
    cosines = cosines[:, ::-1]
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 1e-12))
    inner = np.log(distances[:, :-1] / distances[:, -1:]).mean(axis=1)
    lid = -1 / inner[np.isfinite(inner) & (inner < 0)]
    quartiles = np.percentile(cosines[:, 0], [25, 50, 75])
    return (
        f"cosine to the nearest {cosines[:, 0].mean():.3f} (quartiles {quartiles[0]:.3f} {quartiles[1]:.3f} "
        f"{quartiles[2]:.3f}), to the tenth {cosines[:, 9].mean():.3f}; "
        f"local intrinsic dimension {lid.mean():.1f} (median {np.median(lid):.1f})"
    )


# -------------------------------------------------------------------------------------------------------- libraries


def make_index(folder: Path) -> float:
    """An index of numbered images with these vectors, label and metadata among them. Returns publishing's seconds."""
    path, data = folder / "lookalike.index", np.load(folder / "data.npy", mmap_mode="r")
    recipe = Recipe(
        model="benchmark",
        weights_sha256="0" * 64,
        layers=(11,),
        pooling="cls",
        final_norm=(False,),
        preprocessing=Preprocessing(
            geometry="crop", resize=256, size=224, resample=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        dim=data.shape[1],
    )
    began = time.perf_counter()
    with (
        Peak() as peak,
        Index.create(path, [Space(name=SPACE, recipe=recipe, encoding=Encoding())]) as index,
        index.writer() as writer,
    ):
        for start in range(0, len(data), 10_000):
            with writer.transaction() as transaction:
                for number in range(start, min(start + 10_000, len(data))):
                    transaction.add(numbered(number, data[number]))
        added = time.perf_counter() - began
        began = time.perf_counter()
        index.publish()
        published = time.perf_counter() - began
    print(
        f"catalog: {len(data) / added:,.0f} images a second; published in {published:.1f} s; anonymous memory at most "
        f"{peak.megabytes:.0f} MB",
        flush=True,
    )
    return published


def numbered(number: int, vector: Vectors) -> NewImage:
    """An image whose width is the remainder by 1,000: a filter on it has any selectivity."""
    return NewImage(
        id=f"{number:064x}",
        facts=ImageFacts(width=1 + number % 1000, height=480, format="jpeg", bytes=100_000),
        location=Location(root="/pictures", path=f"{number // 1000}/{number}.jpg", mtime_ns=1, size=100_000),
        vectors={SPACE: vector},
        labels=(f"class {number % CLASSES}",),
        metadata={"number": number},
    )


def lookalike(folder: Path, _data: Vectors) -> Built:
    """Our index, opened as a server opens it."""
    index = Index.open(folder / "lookalike.index")
    index.refresh()

    def search(queries: Vectors, ef: int) -> NDArray[np.int64]:
        return index.nearest(queries, K, ef=ef)[0] - 1

    return Built(search, faiss.omp_set_num_threads, float(index.info().spaces[0].structure["build_seconds"]))


def _faiss(index: Any, data: Vectors) -> Built:
    index.hnsw.efConstruction = 100
    began = time.perf_counter()
    index.train(data)
    index.add(data)
    seconds = time.perf_counter() - began

    def search(queries: Vectors, ef: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(
            queries,
            K,
            params=FAISS.SearchParametersHNSW(efSearch=ef),
        )[1]
        return found

    return Built(search, faiss.omp_set_num_threads, seconds)


def faiss_hnsw(_folder: Path, data: Vectors) -> Built:
    """Bare FAISS, float32."""
    return _faiss(faiss.IndexHNSWFlat(data.shape[1], 32, faiss.METRIC_INNER_PRODUCT), data)


def faiss_sq8(_folder: Path, data: Vectors) -> Built:
    """Bare FAISS, eight bits, not scored again."""
    kind = faiss.ScalarQuantizer.QT_8bit
    return _faiss(FAISS.IndexHNSWSQ(data.shape[1], kind, 32, faiss.METRIC_INNER_PRODUCT), data)


def hnswlib(_folder: Path, data: Vectors) -> Built:
    """hnswlib, float32."""
    import hnswlib as library

    index = library.Index("ip", data.shape[1])
    index.init_index(len(data), M=32, ef_construction=100)
    began = time.perf_counter()
    index.add_items(data)
    seconds = time.perf_counter() - began

    def search(queries: Vectors, ef: int) -> NDArray[np.int64]:
        index.set_ef(ef)
        return np.asarray(index.knn_query(queries, K)[0], dtype=np.int64)

    return Built(search, index.set_num_threads, seconds)


def usearch(_folder: Path, data: Vectors) -> Built:
    """usearch, bfloat16."""
    from usearch.index import Index as Library

    index = Library(ndim=data.shape[1], metric="ip", dtype="bf16", connectivity=32, expansion_add=100)
    began = time.perf_counter()
    index.add(np.arange(len(data)), data, threads=os.cpu_count() or 1)
    seconds = time.perf_counter() - began
    threads = [1]

    def search(queries: Vectors, ef: int) -> NDArray[np.int64]:
        index.expansion_search = ef
        keys = np.asarray(index.search(queries, K, threads=threads[0]).keys, dtype=np.int64)
        return keys.reshape(len(queries), -1)

    return Built(search, lambda count: threads.__setitem__(0, count), seconds)


def _ivf(index: Any, data: Vectors) -> Built:
    """Bare FAISS, inverted lists of codes; the best candidates are scored again, as we do. `ef` is the lists read."""
    began = time.perf_counter()
    index.train(np.ascontiguousarray(data[:: max(1, len(data) // 250_000)]))
    for start in range(0, len(data), 100_000):
        index.add(np.ascontiguousarray(data[start : start + 100_000]))
    seconds = time.perf_counter() - began
    parameters = FAISS.IVFRaBitQSearchParameters if "RaBitQ" in type(index).__name__ else FAISS.SearchParametersIVF

    def search(queries: Vectors, ef: int) -> NDArray[np.int64]:
        found = index.search(queries, SCORED, params=parameters(nprobe=ef))[1]
        best = np.argsort(-scores(data, queries, found), axis=1)[:, :K]
        return np.take_along_axis(found, best, axis=1)

    return Built(search, faiss.omp_set_num_threads, seconds)


def ivf_pq(_folder: Path, data: Vectors) -> Built:
    """Four bits for every two numbers, scanned by shuffles."""
    dim = data.shape[1]
    return _ivf(
        FAISS.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, LISTS, dim // 2, 4, faiss.METRIC_INNER_PRODUCT), data
    )


def ivf_rabitq(_folder: Path, data: Vectors) -> Built:
    """One bit for every number. (Its fast scan, IndexIVFRaBitQFastScan, ends in a segmentation fault at a million.)"""
    dim = data.shape[1]
    return _ivf(FAISS.IndexIVFRaBitQ(faiss.IndexFlatIP(dim), dim, LISTS, faiss.METRIC_INNER_PRODUCT), data)


LIBRARIES = {
    "lookalike": lookalike,
    "faiss HNSW32": faiss_hnsw,
    "faiss HNSW32 SQ8": faiss_sq8,
    "hnswlib": hnswlib,
    "usearch bf16": usearch,
}
LISTED = {"faiss IVF PQ": ivf_pq, "faiss IVF RaBitQ": ivf_rabitq}
"""Measured where they are named."""


# -------------------------------------------------------------------------------------------------------- measuring


def anonymous() -> float:
    """Megabytes of this process's memory that no file backs."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1e3
    return 0.0


class Peak:
    """The most memory that no file backs, of this process, while it is open: looked at ten times a second."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self.megabytes = max(self.megabytes, anonymous())

    def __enter__(self) -> Peak:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()


def curve(library: str, folder: Path, threads: tuple[int, ...]) -> tuple[list[Point], float, float]:
    """One library's points, its seconds of building, and its megabytes. For a process of its own."""
    data, queries = np.load(folder / "data.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    truth, least = np.load(folder / "truth.npy"), np.load(folder / "least.npy")
    before = anonymous()
    built = (LIBRARIES | LISTED)[library](folder, data)
    size = anonymous() - before
    points = []
    for count in threads:
        built.threads(count)
        for ef in EFS:
            built.search(queries[:100], ef)
            rates = []
            for _ in range(2):
                began = time.perf_counter()
                found = built.search(queries, ef)
                rates.append(len(queries) / (time.perf_counter() - began))
            recall = float(
                np.mean(
                    [
                        hits(row, true, low, data, query)
                        for row, true, low, query in zip(found, truth, least, queries, strict=True)
                    ]
                )
            )
            seconds = []
            for query in queries[:SINGLES]:
                began = time.perf_counter()
                built.search(query[None, :], ef)
                seconds.append(time.perf_counter() - began)
            p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
            points.append(Point(library, count, ef, recall, max(rates), float(p50), float(p99)))
            if recall > 0.999:
                break
    return points, built.seconds, size


def hits(found: NDArray[np.int64], true: NDArray[np.int64], least: float, data: Vectors, query: Vectors) -> float:
    """The share of the true nearest that was found; another vector at the last one's score is as good."""
    known = np.isin(found, true)
    others = found[~known & (found >= 0)]
    return float(known.sum() + (data[others] @ query >= least - 1e-6).sum()) / len(true)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """A call in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def filters(folder: Path) -> None:
    """Our index under filters that let through a part: how long a query takes, and what it finds."""
    faiss.omp_set_num_threads(1)
    data, queries = np.load(folder / "data.npy", mmap_mode="r"), np.load(folder / "queries.npy")[:1000]
    print("\n| filter | images | recall@10 | p50, ms | first time, ms |\n|---|---|---|---|---|")
    number = np.arange(len(data))
    asked: list[tuple[str, Filter, NDArray[np.bool_]]] = [
        (f"{share:g} of all", parse_filter({"width": {"lte": round(1000 * share)}}), number % 1000 < 1000 * share)
        for share in PARTS
    ]
    even = parse_filter({"label": {"in": [f"class {one}" for one in range(0, CLASSES, 2)]}})
    asked.append((f"{CLASSES // 2:,} labels", even, number % CLASSES % 2 == 0))
    with Index.open(folder / "lookalike.index") as index:
        index.refresh()
        for name, matching, mask in asked:
            chosen = np.flatnonzero(mask)
            truth = chosen[
                faiss.knn(queries, np.ascontiguousarray(data[chosen]), K, metric=faiss.METRIC_INNER_PRODUCT)[1]
            ]
            found, seconds = [], []
            for query in queries:
                began = time.perf_counter()
                found.append(index.nearest(query[None, :], K, matching=matching)[0][0] - 1)
                seconds.append(time.perf_counter() - began)
            recall = np.mean([np.isin(row, true).mean() for row, true in zip(found, truth, strict=True)])
            first, p50 = seconds[0] * 1e3, np.median(seconds) * 1e3
            print(f"| {name} | {len(chosen):,} | {recall:.3f} | {p50:.2f} | {first:.1f} |", flush=True)


def changes(folder: Path) -> None:
    """Our index while images are added and removed: how fast, and what the next search pays."""
    queries = np.load(folder / "queries.npy")
    path = folder / "lookalike.index"
    with Index.open(path, writable=True) as index, index.writer() as writer:
        index.refresh()
        first = index.catalog.counts()[0] + 1_000_000_000
        for batch in (1, 100):
            count = 200 * min(batch, 10)
            began, searching = time.perf_counter(), 0.0
            for start in range(0, count, batch):
                with writer.transaction() as transaction:
                    for number in range(first + start, first + start + batch):
                        transaction.add(numbered(number, queries[number % len(queries)]))
                asked = time.perf_counter()
                found = index.nearest(queries[(first + start) % len(queries)][None, :], 1)
                searching += time.perf_counter() - asked
                assert found[1][0, 0] > 0.999, "an added image is not found"
            seconds = time.perf_counter() - began - searching
            print(
                f"add, {batch} a transaction: {count / seconds:,.0f} images a second; the next search "
                f"{searching / (count // batch) * 1e3:.2f} ms"
            )
            began = time.perf_counter()
            removed = writer.remove([f"{number:064x}" for number in range(first, first + count)])
            print(f"remove, all in one transaction: {removed / (time.perf_counter() - began):,.0f} images a second")
            first += count
        began = time.perf_counter()
        index.nearest(queries[:1], 1)
        print(f"the search after that: {(time.perf_counter() - began) * 1e3:.1f} ms", flush=True)


def removal(folder: Path) -> None:
    """One image in ten removed from a copy of our index at once; and the search, and the publication, after that."""
    queries = np.load(folder / "queries.npy")
    path = folder / "copy.index"
    shutil.copytree(folder / "lookalike.index", path)
    with Index.open(path, writable=True) as index:
        index.refresh()
        with Peak() as peak, index.writer() as writer:
            began = time.perf_counter()
            removed = writer.remove(f"{number:064x}" for number in range(0, index.catalog.counts()[0], 10))
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            index.nearest(queries[:1], K)
            searched = time.perf_counter() - began
            began = time.perf_counter()
            index.publish()
            published = time.perf_counter() - began
    print(
        f"remove {removed:,} at once: {seconds:.1f} s ({removed / seconds:,.0f} a second); the search after that "
        f"{searched * 1e3:.0f} ms; published in {published:.1f} s; anonymous memory at most {peak.megabytes:.0f} MB"
    )
    shutil.rmtree(path)


def hits_too(folder: Path) -> None:
    """What a single `Index.search` takes, that also looks up what is known of its ten hits; and opening."""
    from search.types import Query, QueryPart

    faiss.omp_set_num_threads(1)
    queries = np.load(folder / "queries.npy")[:SINGLES]
    began, before = time.perf_counter(), anonymous()
    with Index.open(folder / "lookalike.index") as index:
        index.refresh()
        opened, size = time.perf_counter() - began, anonymous() - before
        info = index.info().spaces[0]
        for name, ask in (
            ("nearest", lambda query: index.nearest(query[None, :], K)),
            ("search", lambda query: index.search(Query(parts=[QueryPart(vector=query)], k=K))),
        ):
            for query in queries[:50]:
                ask(query)
            seconds = []
            for query in queries:
                began = time.perf_counter()
                ask(query)
                seconds.append(time.perf_counter() - began)
            p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
            print(f"Index.{name}, one thread: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"opened in {opened:.2f} s, {size:.0f} MB anonymous; {json.dumps(dict(info.structure))}")


def table(points: list[Point], built: dict[str, tuple[float, float]]) -> None:
    """Print what each library does, and its best rate at equal recall."""
    print("\n| | threads | ef | recall@10 | queries/s | one, p50 ms | p99 ms |\n|---|---|---|---|---|---|---|")
    for point in points:
        print(
            f"| {point.library} | {point.threads} | {point.ef} | {point.recall:.4f} | {point.per_second:,.0f} "
            f"| {point.p50:.3f} | {point.p99:.3f} |"
        )
    print("\n| | build, s | MB | queries/s at recall .95 | at .99 |\n|---|---|---|---|---|")
    for library, (seconds, size) in built.items():
        rates = [
            rate_at([point for point in points if point.library == library and point.threads == 1], recall)
            for recall in (0.95, 0.99)
        ]
        print(
            f"| {library} | {seconds:.1f} | {size:.0f} | "
            + " | ".join(f"{rate:,.0f}" if rate else "never" for rate in rates)
            + " |"
        )


def rate_at(points: list[Point], recall: float) -> float | None:
    """Queries a second at just that recall, between the two settings around it (on a logarithmic scale)."""
    points = sorted(points, key=lambda point: point.recall)
    above = [point for point in points if point.recall >= recall]
    below = [point for point in points if point.recall < recall]
    if not above:
        return None
    if not below:
        return max(point.per_second for point in above)
    low, high = below[-1], above[0]
    share = (recall - low.recall) / (high.recall - low.recall)
    return float(np.exp((1 - share) * np.log(low.per_second) + share * np.log(high.per_second)))


def plot(points: list[Point], path: Path) -> None:
    """Recall against rate, one thread."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for library in dict.fromkeys(point.library for point in points):
        line = [point for point in points if point.library == library and point.threads == 1]
        axes.plot([point.recall for point in line], [point.per_second for point in line], "o-", label=library)
    axes.set(xlabel="recall@10", ylabel="queries a second, one thread", yscale="log", xlim=(0.8, 1.002))
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Prepare vectors and truth once, then ask each library in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fashion", type=Path)
    what.add_argument("--sphere", choices=("clipart", "hard"))
    what.add_argument("--real", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--only", nargs="*", choices=list(LIBRARIES | LISTED), default=list(LIBRARIES))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    print(machine())
    if chosen.real:
        with Index.open(chosen.real) as index:
            vectors = np.concatenate([block for _, block in index.catalog.all_vectors(index.space(), upto=NEWEST)])
        order = np.random.default_rng(0).permutation(len(vectors))
        print(f"{len(vectors):,} real vectors: {hardness(vectors[order[500:]], vectors[order[:500]])}")
        return
    work = chosen.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "least.npy").exists():
        drawn = chosen.sphere, chosen.count, 10_000, chosen.dim
        data, queries = fashion(chosen.fashion) if chosen.fashion else sphere(*drawn)
        products, truth = faiss.knn(queries, data, K, metric=faiss.METRIC_INNER_PRODUCT)
        for name, array in (("data", data), ("queries", queries), ("truth", truth), ("least", products[:, -1])):
            np.save(work / f"{name}.npy", array)
    data, queries = np.load(work / "data.npy", mmap_mode="r"), np.load(work / "queries.npy")
    print(f"{len(data):,} vectors of {data.shape[1]} numbers: {hardness(data, queries[:500])}", flush=True)
    if not (work / "lookalike.index").exists():
        alone(make_index, work)
    alone(hits_too, work)
    points, built = [], {}
    for library in chosen.only:
        try:
            one, seconds, size = alone(curve, library, work, (1, 2))
        except BrokenProcessPool:
            print(f"ended by itself: {library}", flush=True)
            continue
        points += one
        built[library] = (seconds, size)
        print(f"measured: {library}", flush=True)
    table(points, built)
    if chosen.plot:
        plot(points, chosen.plot)
    alone(filters, work)
    alone(changes, work)
    alone(removal, work)
    if not chosen.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
