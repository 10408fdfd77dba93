"""Embedding: our encoder on every backend and precision against plain transformers; whole builds against their bound.

    python benchmarks/embedding.py STAMPS [--layer 12] [--builds FOLDER...] [--memory]

STAMPS is usr/share/tuxpaint/stamps of Debian's package tuxpaint-stamps-default. Every variant runs in a process of its
own over the same pictures, already decoded, one after the other and twice round; the better rate counts, and every
ratio is against the plain loop of the same run (AutoModel in fp32, batches of 8, all cores, pixels ready). Overlap is
the share of the ten nearest neighbours that fp32 finds too, R@1 leave-one-out over classes of five and more.

For a build, the bound is cores / (processor seconds of decoding + of encoding an image), both measured in this run on
the same files with nothing beside them; PSS is that of the whole process tree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil
from numpy.typing import NDArray

from indexer.decode import DecodeLimits, decode
from indexer.encoder import SpaceRequest
from indexer.errors import ImageRejected
from indexer.models import PACKAGED, locate
from indexer.precision import overlap
from indexer.sources import Source, scan
from search.recipe import Recipe
from search.types import Location

ROUNDS = 2
SECONDS = 8
"""How long a variant is timed in a round."""
CLASS_LEVELS, MIN_CLASS = 2, 5
VARIANTS = ("plain", "loader", "torch-fp32", "torch-bf16", "openvino-fp32", "openvino-bf16", "openvino-int8")
FITTED_TO = 64

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], NDArray[np.float32]]


def pictures(root: Path, recipe: Recipe) -> tuple[Pixels, list[str]]:
    """Every distinct stamp but the mirrored ones, decoded as a build does it, and its class."""
    files = [entry for entry in scan(Source(root=root), exclude=("*_mirror.png",)) if isinstance(entry, Location)]
    distinct = {data: entry.path for entry in reversed(files) if (data := Path(entry.absolute).read_bytes())}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda data: decode(data, recipe.preprocessing, limits=DecodeLimits()).pixels, distinct)
        pixels = np.stack(list(found))
    return pixels, ["/".join(path.split("/")[:-1][:CLASS_LEVELS]) for path in distinct.values()]


def recall_at_1(vectors: NDArray[np.float32], classes: list[str]) -> float:
    """How often the nearest other image is of the same class; classes with one folder level or few images are out."""
    counts = Counter(classes)
    kept = [row for row, name in enumerate(classes) if "/" in name and counts[name] >= MIN_CLASS]
    names = np.array(classes)[kept]
    scores = vectors[kept] @ vectors[kept].T
    np.fill_diagonal(scores, -1)
    return float((names[scores.argmax(axis=1)] == names).mean())


def plain(layer: int, *, loader: bool) -> Run:
    """transformers as its documentation uses it. loader: fed by torch's DataLoader, which normalises meanwhile."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    files = locate(PACKAGED.name)
    depth = {} if layer == PACKAGED.layers else {"num_hidden_layers": layer}
    model = AutoModel.from_pretrained(files.folder, **depth).eval()
    processor = AutoImageProcessor.from_pretrained(files.folder)

    def normalised(batch: Any) -> Any:
        pixels = processor(list(batch), do_resize=False, do_center_crop=False, return_tensors="pt")
        return pixels["pixel_values"]

    def run(pixels: Pixels) -> NDArray[np.float32]:
        found = []
        with torch.inference_mode():
            batches: Any = (pixels[at : at + 8] for at in range(0, len(pixels), 8))
            if loader:
                fed: Any = torch.utils.data.DataLoader
                batches = fed(pixels, 8, collate_fn=normalised, num_workers=1)
            for batch in batches:
                answer = model(batch if loader else normalised(batch), output_hidden_states=True)
                last = answer.last_hidden_state if layer == PACKAGED.layers else answer.hidden_states[-1]
                found.append(last[:, 0])
        return torch.nn.functional.normalize(torch.cat(found)).numpy()

    return run


def ours(backend: str, precision: Any, layer: int, pixels: Pixels, *, throughput: bool) -> Run:
    """One of our encoders; int8 is fitted to some of the pictures, as a build does."""
    from indexer.encoders.recipes import recipes_for

    files = locate(PACKAGED.name)
    spaces = recipes_for(files, [SpaceRequest(layers=(layer,))])
    if backend == "torch":
        from indexer.encoders import torch

        encoder: Any = torch.load_recipes(files, spaces, precision=precision)
    else:
        from indexer.encoders import openvino

        if precision == "int8":
            from indexer.encoders import int8

            models = Path(tempfile.mkdtemp())
            _, store = int8.fit(files, spaces, pixels[:: len(pixels) // FITTED_TO], models)
            encoder = openvino.load_stored(models / store(), spaces, throughput=throughput)
        else:
            encoder = openvino.load_recipes(files, spaces, precision=precision, throughput=throughput)
    return lambda batch: np.asarray(encoder.encode(batch)[0])


def variant(name: str, layer: int, store: Path) -> None:
    """Measure one variant in this process: prints JSON, leaves its embeddings beside the pictures."""
    pixels = np.load(store / "pixels.npy")
    backend, _, precision = name.partition("-")
    run = (
        plain(layer, loader=name == "loader")
        if not precision
        else ours(backend, precision, layer, pixels, throughput=True)
    )
    target = store / f"{name}-{layer}.npy"
    if not target.exists():
        np.save(target, run(pixels))
    run(pixels[:32])
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < SECONDS:
        run(pixels[:64])
        done += 64
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    single = ours(backend, precision, layer, pixels, throughput=False) if backend == "openvino" else run
    times = []
    for number in range(25):
        start = time.perf_counter()
        single(pixels[number : number + 1])
        times.append(time.perf_counter() - start)
    peak = psutil.Process().memory_info().rss
    print(json.dumps({"rate": done / wall, "cpu": cpu / done, "single": float(np.median(times[5:])), "rss": peak}))


def encoders(stamps: Path, layer: int, store: Path) -> dict[str, dict[str, float]]:
    """All variants, each in its own process, the better of some rounds; prints a table."""
    from indexer.encoders.recipes import recipes_for

    (recipe,) = recipes_for(locate(PACKAGED.name), [SpaceRequest(layers=(layer,))]).values()
    if not (store / "pixels.npy").exists():
        pixels, classes = pictures(stamps, recipe)
        np.save(store / "pixels.npy", pixels)
        (store / "classes.json").write_text(json.dumps(classes))
    classes = json.loads((store / "classes.json").read_text())
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for name in VARIANTS:
            command = [
                sys.executable,
                __file__,
                str(stamps),
                "--variant",
                name,
                "--layer",
                str(layer),
                "--store",
                str(store),
            ]
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            before = best.setdefault(name, answer)
            best[name] = {
                "rate": max(before["rate"], answer["rate"]),
                **{key: min(before[key], answer[key]) for key in ("cpu", "single", "rss")},
            }
    exact = np.load(store / f"plain-{layer}.npy")
    print(f"\nlayer {layer}, {len(classes)} stamps")
    print(f"{'':15} images/s  ratio   one image  ratio   cosine mean    min  overlap    R@1   RSS")
    for name in VARIANTS:
        vectors, figures, base = np.load(store / f"{name}-{layer}.npy"), best[name], best["plain"]
        cosines = (vectors * exact).sum(axis=1)
        print(
            f"{name:15} {figures['rate']:8.1f} {figures['rate'] / base['rate']:6.2f}x  "
            f"{figures['single'] * 1e3:6.1f} ms {base['single'] / figures['single']:5.2f}x     "
            f"{cosines.mean():.5f} {cosines.min():.4f}    "
            f"{overlap(exact, vectors):.3f}   {recall_at_1(vectors, classes):.3f}  {figures['rss'] / 1e6:4.0f} MB"
        )
    return best


def decode_seconds(folder: Path, recipe: Recipe, count: int = 100) -> float:
    """Processor seconds of reading and decoding one file of a folder, on an otherwise idle machine."""
    files = [entry for entry in scan(Source(root=folder), exclude=("*_mirror.png",)) if isinstance(entry, Location)]
    chosen = files[:: max(1, len(files) // count)]
    began, done = time.process_time(), 0
    for entry in chosen:
        try:
            decode(Path(entry.absolute).read_bytes(), recipe.preprocessing, limits=DecodeLimits())
            done += 1
        except ImageRejected:
            continue
    return (time.process_time() - began) / max(1, done)


def tree(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process and all below it."""
    yield process
    yield from process.children(recursive=True)


def watched_build(folder: Path, *flags: str) -> tuple[dict[str, Any], int]:
    """Build an index of a folder: the report, and the most memory (PSS, bytes) that all its processes took together."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [str(Path(sys.executable).with_name("lookalike")), "build", str(folder), "--index", f"{temporary}/i"]
        command += [*flags, "--exclude", "*_mirror.png", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        peak = 0

        def watch() -> None:
            nonlocal peak
            while process.poll() is None:
                with suppress(psutil.Error):  # of processes that ended meanwhile
                    peak = max(peak, sum(one.memory_full_info().pss for one in tree(psutil.Process(process.pid))))
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        report: dict[str, Any] = json.loads(process.communicate()[0])
        watcher.join()
    return report, peak


def memory() -> None:
    """How much more memory ten times as many images take: noise pictures, at layer 0, which costs next to nothing."""
    random = np.random.default_rng(0)
    for count in (2_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                rough = PIL.Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                rough.resize((320, 240)).save(Path(folder, f"{number}.jpg"), quality=80)
            report, peak = watched_build(Path(folder), "--layer", "0")
        print(f"{report['embedded']:,} images: peak {peak / 1e6:.0f} MB, {report['images_per_second']:.0f} images/s")


def build(folder: Path, layer: int, encode_cpu: float, precision: str) -> None:
    """One whole build, from files to a published index, beside what its processor seconds allow."""
    from indexer.encoders.recipes import recipes_for

    (recipe,) = recipes_for(locate(PACKAGED.name), [SpaceRequest(layers=(layer,))]).values()
    decode_cpu = decode_seconds(folder, recipe)
    report, peak = watched_build(folder, "--layer", str(layer), "--precision", precision)
    bound = (os.cpu_count() or 1) / (decode_cpu + encode_cpu)
    rate = report["images_per_second"]
    print(
        f"{folder.name}: {report['embedded']} images, {precision}: {rate:.1f}/s of at most {bound:.1f} "
        f"({rate / bound:.0%}); a picture: decode {decode_cpu * 1e3:.1f} ms, encode {encode_cpu * 1e3:.1f} ms of "
        f"processor; {report['seconds']:.1f} s in all, start-up {report['startup_seconds']:.1f} s, publishing "
        f"{report['publish_seconds']:.2f} s; peak {peak / 1e6:.0f} MB"
    )


def main() -> None:
    """Encoders at a layer, then whole builds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="the folder usr/share/tuxpaint/stamps")
    parser.add_argument("--layer", type=int, nargs="+", default=[PACKAGED.layers, 7])
    parser.add_argument("--builds", type=Path, nargs="*", default=[], help="folders to build from, beside the stamps")
    parser.add_argument("--memory", action="store_true", help="only compare the memory of a small and a large build")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.variant:
        variant(chosen.variant, chosen.layer[0], chosen.store)
        return
    if chosen.memory:
        memory()
        return
    processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    kind = f"{platform.machine()},{processor.partition(':')[2]}"
    print(f"{kind}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as store:
        best = {layer: encoders(chosen.stamps.resolve(), layer, Path(store)) for layer in chosen.layer}
    layer = chosen.layer[0]
    for folder in (chosen.stamps.resolve(), *(path.resolve() for path in chosen.builds)):
        build(folder, layer, best[layer]["openvino-bf16"]["cpu"], "bf16")


if __name__ == "__main__":
    main()
