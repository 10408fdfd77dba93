"""Our encoder on every backend and precision beside plain transformers.

    python benchmarks/embedding.py [FOLDER] [--class-levels N] [--layer 12 7] [--plot FILE.png]
    python benchmarks/embedding.py [FOLDER] --vit-large

FOLDER is data/sample if not named; the figures in docs/benchmarks.md are of usr/share/tuxpaint/stamps (Debian's
tuxpaint-stamps-default) with --class-levels 2. Every variant runs in a process of its own over the same pictures,
already decoded, one after the other and twice round; the better rate counts, and every ratio is against the plain loop
of the same run: AutoModel in fp32, batches of 8, all cores, pixels normalised by its processor. Overlap is the share
of the ten nearest neighbours that fp32 finds too; R@1 is leave-one-out over folders of five images and more.
--vit-large runs the shape of google/vit-large-patch16-384 with random weights: only its speed means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from numpy.typing import NDArray

from indexer.encoders.checked import overlap
from indexer.encoders.encoder import SpaceRequest
from indexer.folders import Choice, scan
from indexer.machine import has_openvino
from indexer.models import PACKAGED, locate
from indexer.pictures.decode import DecodeLimits, decode
from indexer.sources import Source
from search.recipe import Recipe
from search.types import Location

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
ROUNDS = 2
SECONDS = 8
"""How long a variant is timed in a round."""
ONE_IMAGE = 25
"""How often a single image is timed; the median of all but the first five counts."""
MIN_CLASS = 5
FITTED_TO = 64
"""Pictures that int8 is fitted to, as in a build."""
VARIANTS = ("plain", "loader", "torch-fp32", "torch-bf16", "torch-bf16-compiled")
OPENVINO_VARIANTS = ("openvino-fp32", "openvino-bf16", "openvino-int8")
GPU_VARIANTS = ("cuda-fp32", "cuda-bf16", "cuda-fp16", "cuda-bf16-compiled")
LARGE_VARIANTS = ("plain", "torch-bf16", "openvino-bf16")
"""Without int8: fitting 304 million weights takes ten minutes on two cores."""
LARGE_IMAGES, LARGE_ROUNDS = 16, 1

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], NDArray[np.float32]]


def pictures(root: Path, recipe: Recipe, levels: int) -> tuple[Pixels, list[str]]:
    """Every distinct picture of a folder (without mirrored stamps), decoded as a build does it, and its class.

    A picture's class is its folder, cut after so many levels; with fewer it has none ("").
    """
    files = [
        entry for entry in scan(Source(root=root), Choice(exclude=("*_mirror.png",))) if isinstance(entry, Location)
    ]
    distinct = {data: entry.path for entry in reversed(files) if (data := Path(entry.absolute).read_bytes())}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda data: decode(data, (recipe.preprocessing,), limits=DecodeLimits()).pixels, distinct)
        pixels = np.stack(list(found))
    folders = [path.split("/")[:-1][:levels] for path in distinct.values()]
    return pixels, ["/".join(folder) if len(folder) == levels else "" for folder in folders]


def recall_at_1(vectors: NDArray[np.float32], classes: list[str]) -> float:
    """How often the nearest other image is of the same class; small classes are left out."""
    counts = Counter(classes)
    kept = [row for row, name in enumerate(classes) if name and counts[name] >= MIN_CLASS]
    names = np.array(classes)[kept]
    scores = vectors[kept] @ vectors[kept].T
    np.fill_diagonal(scores, -1)
    return float((names[scores.argmax(axis=1)] == names).mean()) if kept else float("nan")


def random_vit_large(folder: Path) -> None:
    """A checkpoint of the shape of google/vit-large-patch16-384."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    ViTModel(ViTConfig(image_size=384, patch_size=16, **shape), add_pooling_layer=False).save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder)


def plain(model: str, layer: int | None, *, loader: bool) -> Run:
    """transformers as its documentation uses it. loader: fed by torch's DataLoader, which normalises meanwhile."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    files = locate(model)
    depth = {} if layer is None else {"num_hidden_layers": layer}
    whole = AutoModel.from_pretrained(files.folder, **depth).eval()
    processor = AutoImageProcessor.from_pretrained(files.folder)
    normed = layer is None or layer == PACKAGED.layers  # an earlier one is wanted as it is

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
                answer = whole(batch if loader else normalised(batch), output_hidden_states=True)
                last = answer.last_hidden_state if normed else answer.hidden_states[-1]
                found.append(last[:, 0])
        return torch.nn.functional.normalize(torch.cat(found)).numpy()

    return run


def ours(name: str, model: str, layer: int | None, pixels: Pixels, *, throughput: bool) -> Run:
    """One of our encoders; int8 is fitted to some of the pictures, as a build does."""
    from indexer.encoders.recipes import recipes_for

    backend, precision, *compiled = name.split("-")
    chosen: Any = precision
    files = locate(model)
    spaces = recipes_for(files, [SpaceRequest(layers=None if layer is None else (layer,))])
    encoder: Any
    if backend == "openvino":
        from indexer.encoders import openvino_backend

        if precision == "int8":
            from indexer.encoders import int8

            models = Path(tempfile.mkdtemp())
            _, store = int8.fit(files, spaces, pixels[:: max(1, len(pixels) // FITTED_TO)], models)
            encoder = openvino_backend.load_stored(models / store(), spaces, throughput=throughput)
        else:
            encoder = openvino_backend.load_recipes(files, spaces, precision=chosen, throughput=throughput)
    else:
        from indexer.encoders import torch_backend

        device = "cpu" if backend == "torch" else backend
        encoder = torch_backend.load_recipes(files, spaces, device=device, precision=chosen, throughput=throughput)
        if compiled:
            encoder.prepare(pixels, 10**9)
            assert encoder._compiled, "torch.compile did not work here"
    return lambda batch: np.asarray(encoder.encode(batch)[0])


def variant(name: str, model: str, layer: int | None, store: Path) -> None:
    """Measure one variant in this process: prints JSON, leaves its embeddings beside the pictures."""
    pixels = np.load(store / "pixels.npy")
    if name in ("plain", "loader"):
        run = plain(model, layer, loader=name == "loader")
    else:
        run = ours(name, model, layer, pixels, throughput=True)
    target = store / f"{name}-{layer}.npy"
    if not target.exists():
        np.save(target, run(pixels))
    chunk = pixels[: 512 if name.startswith("cuda") else 64]
    run(chunk[:32])
    done, began, cpu = 0, time.perf_counter(), processor_seconds()
    with ThreadPoolExecutor(1) as beside:
        busy = beside.submit(utilisation) if name.startswith("cuda") else None
        while time.perf_counter() - began < SECONDS:
            run(chunk)
            done += len(chunk)
    wall, cpu = time.perf_counter() - began, processor_seconds() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    apart = name.startswith(("openvino", "cuda")) and answers_single(name)
    single = ours(name, model, layer, pixels, throughput=False) if apart else run
    times = []
    for number in range(ONE_IMAGE if answers_single(name) else 0):
        start = time.perf_counter()
        single(pixels[number % len(pixels)][None])
        times.append(time.perf_counter() - start)
    figures = {
        "rate": done / wall,
        "cpu": cpu / done,
        "single": float(np.median(times[5:] or 0)),
        "rss": peak,
        "busy": busy.result() if busy else "",
    }
    print(json.dumps(figures))


def answers_single(name: str) -> bool:
    """Whether a variant is meant for single images too."""
    return name != "loader" and not name.endswith("compiled")


def processor_seconds() -> float:
    """Of this process and of those it started that have ended."""
    return sum(os.times()[:4])


def utilisation() -> str:
    """What the driver says of the GPU's last second, once it has been at work for a while."""
    time.sleep(SECONDS * 0.75)
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def measured(
    variants: tuple[str, ...], model: str, layer: int | None, store: Path, rounds: int
) -> dict[str, dict[str, Any]]:
    """All variants, each in its own process, the better of some rounds."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name in variants:
            command = [sys.executable, __file__, "--variant", name, "--model", model, "--store", str(store)]
            command += [] if layer is None else ["--layer", str(layer)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            answer = json.loads(output.stdout.splitlines()[-1])
            before = best.setdefault(name, answer)
            for key in ("cpu", "single", "rss"):
                answer[key] = min(before[key], answer[key])
            best[name] = {**answer, "rate": max(before["rate"], answer["rate"])}
    return best


def table(best: dict[str, dict[str, Any]], layer: int | None, classes: list[str], store: Path) -> None:
    """The figures of one layer, in Markdown."""
    exact, base = np.load(store / f"plain-{layer}.npy"), best["plain"]
    print(f"\n| layer {layer or 'last'}, {len(classes)} images | images/s | | ms of processor | one image | ", end="")
    print("| cosine, mean / least | overlap | R@1 | MB |\n" + "|---" * 10 + "|")
    for name, figures in best.items():
        vectors = np.load(store / f"{name}-{layer}.npy")
        cosines = (vectors * exact).sum(axis=1)
        one = (
            f"{figures['single'] * 1e3:.1f} ms | {base['single'] / figures['single']:.2f}x"
            if figures["single"]
            else "|"
        )
        quality = f"{overlap(exact, vectors):.3f} | {recall_at_1(vectors, classes):.3f}" if any(classes) else "|"
        print(
            f"| {name}{figures['busy'] and ', busy ' + figures['busy']} | {figures['rate']:.3g} "
            f"| {figures['rate'] / base['rate']:.2f}x | {figures['cpu'] * 1e3:.1f} | {one} "
            f"| {cosines.mean():.5f} / {cosines.min():.4f} | {quality} "
            f"| {figures['rss'] / 1e6:.0f} |",
            flush=True,
        )


def plot(best: dict[int | None, dict[str, dict[str, Any]]], target: Path) -> None:
    """Images a second of every variant, a group of bars a layer."""
    from matplotlib import pyplot

    names = list(next(iter(best.values())))
    height = 0.8 / len(best)
    figure, axes = pyplot.subplots(figsize=(7, 0.55 * len(names) + 0.6))
    for number, (layer, figures) in enumerate(best.items()):
        rates = [figures[name]["rate"] for name in names]
        places = [place + number * height for place in range(len(names))]
        bars = axes.barh(places, rates, height, label=f"layer {layer}", color=("#1f4e79", "#9ec3e6")[number % 2])
        ratios = [f"{rate:.0f}/s, {rate / rates[0]:.1f}x" for rate in rates]
        axes.bar_label(bars, ratios, padding=3, fontsize=8)
    known = {"plain": "transformers, fp32", "loader": "the same, DataLoader", "openvino-bf16": "openvino bf16 (auto)"}
    labels = [known.get(name, name.replace("-", " ")) for name in names]
    axes.set_yticks([place + height * (len(best) - 1) / 2 for place in range(len(names))], labels)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("images a second")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(target, bbox_inches="tight", dpi=110)


def main() -> None:
    """Measure all variants at every layer asked for; print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--class-levels", type=int, default=1, help="folders that make a class")
    parser.add_argument("--layer", type=int, nargs="+")
    parser.add_argument("--vit-large", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--model", default=PACKAGED.name, help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.variant:
        variant(chosen.variant, chosen.model, chosen.layer[0] if chosen.layer else None, chosen.store)
        return
    import torch

    from indexer.encoders.recipes import recipes_for

    print(machine())
    variants = VARIANTS + (OPENVINO_VARIANTS if has_openvino() else ())
    variants += GPU_VARIANTS if torch.cuda.is_available() else ()
    layers: list[int | None] = chosen.layer or [PACKAGED.layers, 7]
    rounds = LARGE_ROUNDS if chosen.vit_large else ROUNDS
    with tempfile.TemporaryDirectory() as temporary:
        store, model = Path(temporary), PACKAGED.name
        if chosen.vit_large:
            model, layers = str(store / "vit-large"), [None]
            variants = tuple(name for name in LARGE_VARIANTS if name in variants)
            random_vit_large(Path(model))
            os.environ["LOOKALIKE_CACHE"] = str(store / "cache")  # an export of 1.2 GB, for nobody else
        (recipe,) = recipes_for(locate(model), [SpaceRequest(layers=(1,))]).values()
        pixels, classes = pictures(chosen.folder.resolve(), recipe, chosen.class_levels)
        if chosen.vit_large:
            pixels, classes = pixels[:LARGE_IMAGES], [""] * LARGE_IMAGES
        np.save(store / "pixels.npy", pixels)
        best = {}
        for layer in layers:
            best[layer] = measured(variants, model, layer, store, rounds)
            table(best[layer], layer, classes, store)
    if chosen.plot:
        plot(best, chosen.plot)


if __name__ == "__main__":
    main()
