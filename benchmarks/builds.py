"""Whole builds, from files on the disk to a published index, against what their processor seconds allow.

    python benchmarks/builds.py FOLDER... [--mixed] [--layer 12] [--precision bf16]
    python benchmarks/builds.py --memory

The bound is cores / (processor seconds of decoding + of encoding an image), both measured in this run with nothing
beside them: decoding on files of the same folder, encoding on full batches. What a build does besides (hashing, pipes,
commits) is in its rate, and not in the bound. While the model is loaded, which is start-up, files are decoded already:
what the workers had done by then, beyond their own start, is added to the time of the build as if all cores had done it
after. --mixed builds once more from some files of every folder in one.
--memory compares small with large. Memory is the PSS of the whole process tree.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import psutil
from machine import machine

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.load import encoder_for
from indexer.errors import ImageRejected
from indexer.folders import Choice, scan
from indexer.models import PACKAGED, locate
from indexer.pictures.decode import Decoded, DecodeLimits, decode
from indexer.pictures.worker import Workers
from indexer.sources import Source
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, Location, NewImage, Space

MIRRORED = "*_mirror.png"
"""Half of the stamps are the other half's mirror images."""
SAMPLE = 100
"""Files of a folder whose decoding is timed."""
SECONDS = 10
"""How long encoding is timed."""
COMMITS = 10
ROUNDS = 3
"""Encoding and the build are measured in turn; the best of each counts."""
MIXED = 150
"""Files of every folder in the mixed one."""


def files(folder: Path) -> list[Location]:
    """What a build would read there, in order."""
    return [entry for entry in scan(Source(root=folder), Choice(exclude=(MIRRORED,))) if isinstance(entry, Location)]


def spread(found: list[Location], count: int) -> list[Location]:
    """So many of them, from everywhere."""
    return found[:: max(1, len(found) // count)][:count]


def decoded_sample(folder: Path, recipe: Recipe) -> tuple[list[Decoded], float]:
    """Some of a folder's images, and the processor seconds of reading and decoding one."""
    chosen = spread(files(folder), SAMPLE)
    for _ in range(2):  # the first time loads codecs
        sample, began = [], time.process_time()
        for entry in chosen:
            with suppress(ImageRejected):
                sample.append(decode(Path(entry.absolute).read_bytes(), (recipe.preprocessing,), limits=DecodeLimits()))
        seconds = (time.process_time() - began) / len(chosen)
    return sample, seconds


def encode_seconds(spaces: list[Space], sample: list[Decoded]) -> float:
    """Processor seconds of encoding one image, in full batches. For a process of its own."""
    encoder = encoder_for(spaces, Path(), throughput=True)
    pixels = np.stack([sample[number % len(sample)].pixels for number in range(encoder.batch_size)])
    encoder.encode(pixels)
    done, began, until = 0, time.process_time(), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        encoder.encode(pixels)
        done += len(pixels)
    return (time.process_time() - began) / done


def commit_seconds(spaces: list[Space], sample: list[Decoded]) -> float:
    """Processor seconds of committing one image, 64 at a time, as a build does."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "i")
        with Index.create(path, spaces) as index, index.writer() as writer:
            began = time.process_time()
            for batch in range(COMMITS):
                with writer.transaction() as transaction:
                    for number in range(batch * 64, batch * 64 + 64):
                        vector = random.standard_normal(spaces[0].recipe.dim, np.float32)
                        transaction.add(
                            NewImage(
                                id=f"{number:064x}",
                                facts=sample[0].facts,
                                location=Location(root="/", path=f"{number}.jpg", mtime_ns=0, size=0),
                                vectors={space.name: vector / np.linalg.norm(vector) for space in spaces},
                            )
                        )
            return (time.process_time() - began) / (COMMITS * 64)


def tree(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process and all below it."""
    yield process
    yield from process.children(recursive=True)


def worker_start_seconds(preprocessing: Preprocessing) -> float:
    """Processor seconds of starting a decoding process."""
    before = os.times()
    with Workers((preprocessing,), DecodeLimits()) as workers, suppress(OSError):
        workers.load("/nowhere", lambda _: True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


class Watched(NamedTuple):
    """A build that was watched while it ran."""

    report: dict[str, Any]
    peak: int
    """The most memory (PSS, bytes) that all its processes took together."""
    early: float
    """Processor seconds that its workers had spent when start-up was over."""

    def rate(self, cores: int, worker_start: float) -> float:
        """Images a second, had the files read during start-up been read after it."""
        embedded, reported = int(self.report["embedded"]), float(self.report["images_per_second"])
        return embedded / (embedded / reported + self.early / cores - worker_start)


def watched_build(folder: Path, *flags: str) -> Watched:
    """Build an index of a folder, with an eye on its processes."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [str(Path(sys.executable).with_name("lookalike")), "build", str(folder), "--index", f"{temporary}/i"]
        command += [*flags, "--exclude", MIRRORED, "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        peak, worked, began = 0, [(0.0, 0.0)], time.perf_counter()

        def watch() -> None:
            nonlocal peak
            for tick in itertools.count():
                if process.poll() is not None:
                    return
                with suppress(psutil.Error):  # of processes that ended meanwhile
                    parent, *workers = tree(psutil.Process(process.pid))
                    spent = sum(sum(one.cpu_times()[:2]) for one in workers)
                    worked.append((time.perf_counter() - began, spent))
                    if tick % 10 == 0:
                        peak = max(peak, sum(one.memory_full_info().pss for one in (parent, *workers)))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        output = process.communicate()[0]
        watcher.join()
        if process.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        report: dict[str, Any] = json.loads(output)
    early = max(spent for moment, spent in worked if moment <= report["startup_seconds"])
    return Watched(report, peak, early)


def build(folder: Path, recipe: Recipe, encoding: Encoding) -> None:
    """One whole build beside its bound; prints a line of the table."""
    spaces = [Space(name=f"layer{recipe.layers[0]}", recipe=recipe, encoding=encoding)]
    sample, decoding = decoded_sample(folder, recipe)
    commit = commit_seconds(spaces, sample)
    encodings, builds = [], []
    for _ in range(ROUNDS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            encodings.append(alone.submit(encode_seconds, spaces, sample).result())
        flags = ("--layer", str(recipe.layers[0]), "--backend", "openvino", "--precision", encoding.precision)
        builds.append(watched_build(folder, *flags))
    cores, encode = os.cpu_count() or 1, min(encodings)
    bound = cores / (decoding + encode)
    start = worker_start_seconds(recipe.preprocessing)
    rate, best = max(((one.rate(cores, start), one) for one in builds), key=lambda pair: pair[0])
    report = best.report
    print(
        f"| {folder.name} | {report['embedded']:,} | {decoding * 1e3:.1f} | {encode * 1e3:.1f} | {commit * 1e3:.1f} "
        f"| {bound:.1f} | {rate:.1f} | {rate / bound:.0%} | {report['images_per_second']:.1f} | {best.early:.1f} "
        f"| {report['startup_seconds']:.1f} | {report['publish_seconds']:.2f} | {best.peak / 1e6:.0f} |",
        flush=True,
    )


def memory() -> None:
    """How much more memory ten times as many images take: noise pictures, at layer 0, which costs next to nothing."""
    random = np.random.default_rng(0)
    for count in (2_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                rough = PIL.Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                rough.resize((320, 240)).save(Path(folder, f"{number}.jpg"), quality=80)
            report, peak, _ = watched_build(Path(folder), "--layer", "0")
        print(f"{report['embedded']:,} images: peak {peak / 1e6:.0f} MB, {report['images_per_second']:.0f} images/s")


def main() -> None:
    """Build from every folder, then from the mixed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[Path(__file__).parents[1] / "data" / "sample"])
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--layer", type=int, default=PACKAGED.layers)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--memory", action="store_true", help="only compare the memory of a small and a large build")
    chosen = parser.parse_args()
    print(machine())
    if chosen.memory:
        memory()
        return
    from indexer.encoders.recipes import recipes_for

    (recipe,) = recipes_for(locate(PACKAGED.name), [SpaceRequest(layers=(chosen.layer,))]).values()
    encoding = Encoding(backend="openvino", precision=chosen.precision)
    print("Of an image: milliseconds of processor. Rates: images a second.")
    columns = "images|decode|encode|commit|bound|built||reported|early s|start-up s|publish s|peak MB"
    print(f"| | {columns.replace('|', ' | ')} |", "|---" * 13 + "|", sep="\n")
    folders = [folder.resolve() for folder in chosen.folders]
    for folder in folders:
        build(folder, recipe, encoding)
    if chosen.mixed:
        with tempfile.TemporaryDirectory() as temporary:
            together = Path(temporary, "mixed")
            for number, folder in enumerate(folders):
                for entry in spread(files(folder), MIXED):
                    target = together / str(number) / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(entry.absolute, target)
            build(together, recipe, encoding)


if __name__ == "__main__":
    main()
