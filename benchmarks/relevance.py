"""How well the default recipe finds, without labels, beside every single layer: leave-one-out on four labelled sets.

    python benchmarks/relevance.py SETS [--sets stamps,clipart,words,scenes] [--beside]

SETS is the folder in which Debian's packages tuxpaint-stamps-default, openclipart-png, qabcs-data and scratch were
unpacked (`dpkg -x PACKAGE.deb SETS`). Each set becomes an index by `lookalike build` without flags. Then spaces of
single layers are added, each of the whole squeezed image, and layer 11 as `--layer 11` makes it, and measured in the
same run by the code of `lookalike eval`. Classes are folders: of the stamps the first two levels, with five images or
more; of openclipart those with ten or more outside computer/icons, the first forty images of each; of the others all.

Prints Markdown. `--beside` also compares build rates (default against `--layer 11`, alternating, twice), bytes in the
catalog, and the time of a search.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from analysis.calibrate import calibrate
from analysis.evaluate import Evaluation, evaluate
from analysis.labels import relevance
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.fill import Fill
from indexer.index_encoder import load_index_encoder
from indexer.models import PACKAGED, locate
from indexer.progress import Quiet
from search.index import Index
from search.types import Query, QueryPart

COMMAND = Path(sys.executable).with_name("lookalike")
SINGLE = range(7, 13)
IMAGES = {".png", ".jpg", ".jpeg", ".gif"}


def stamps(sets: Path) -> dict[Path, str]:
    """Photos and drawings on transparency: about 650 of 30 classes."""
    root = sets / "usr/share/tuxpaint/stamps"
    found = {}
    for path in sorted(root.rglob("*.png")):
        folders = path.relative_to(root).parts[:-1]
        if len(folders) >= 2 and not path.name.endswith("_mirror.png"):
            found[path] = "/".join(folders[:2])
    counts = Counter(found.values())
    return {path: name for path, name in found.items() if counts[name] >= 5}


def clipart(sets: Path) -> dict[Path, str]:
    """Drawings of openclipart."""
    root = sets / "usr/share/openclipart/png"
    by_class = defaultdict(list)
    for path in sorted(root.rglob("*.png")):
        by_class[str(path.relative_to(root).parent)].append(path)
    return {
        path: name
        for name, paths in by_class.items()
        if len(paths) >= 10 and not name.startswith("computer/icons")
        for path in paths[:40]
    }


def words(sets: Path) -> dict[Path, str]:
    """Pictures of qabcs: 328 in five folders."""
    root = sets / "usr/share/qabcs/abcs/all/pics"
    return {path: path.parent.name for path in sorted(root.rglob("*.png")) if path.parent != root}


def scenes(sets: Path) -> dict[Path, str]:
    """Drawings and photos of Scratch, without letters: 342 in nine folders."""
    root = sets / "usr/share/scratch/Media"
    found = {
        path: str(path.relative_to(root).parent) for path in sorted(root.rglob("*")) if path.suffix.lower() in IMAGES
    }
    return {path: name for path, name in found.items() if "Letters" not in name and "/" in name}


SETS = {"stamps": stamps, "clipart": clipart, "words": words, "scenes": scenes}


def main() -> None:
    """Measure each set, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--beside", action="store_true", help="also build rate, bytes and time of a search")
    asked = parser.parse_args()
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as work:
        for name in asked.sets.split(","):
            images = SETS[name](asked.folder.resolve())
            if not images:
                raise SystemExit(f"There is no set {name} in {asked.folder}: unpack its package there with dpkg -x.")
            measured(name, images, Path(work))
        if asked.beside:
            beside(list(SETS["stamps"](asked.folder.resolve())), Path(work))


def measured(name: str, images: dict[Path, str], work: Path) -> None:
    """Index a set, add the spaces to compare with, and print what each finds."""
    index = work / f"{name}.index"
    with (work / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class"])
        writer.writerows(images.items())
    report = build(images, index, "--metadata", work / "classes.csv")
    with Index.open(index, writable=True) as opened:
        add_single_layers(opened)
        alike = relevance(opened, "metadata.class")
        found = evaluate(opened, alike, opened.spaces)
        probable = calibrate(opened, alike, "class", opened.space())
    classes = len(set(images.values()))
    print(f"\n### {name}: {found.images:,} images of {classes} classes ({len(report['failed'])} files rejected)\n")
    table(found)
    low, high = probable.probabilities[0], probable.probabilities[-1]
    print(
        f"\nProbabilities by labels, of the default space: {low:.2f} to {high:.2f}; of queries that they were not "
        f"fitted to, wrong by {probable.error:.3f}."
    )


def build(images: Sequence[Path] | dict[Path, str], index: Path, *flags: str | Path) -> dict[str, Any]:
    """The report of a build of these files."""
    command = [COMMAND, "build", "--files-from", "-", "--index", index, "--max-pixels", "200000000", "--json", *flags]
    listed = "".join(f"{path}\n" for path in images)
    ended = subprocess.run(command, input=listed, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode not in (0, 3):
        raise SystemExit(ended.returncode)
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def add_single_layers(index: Index) -> None:
    """Add and fill the spaces to compare with: all by few forward passes."""
    files, encoding = locate(PACKAGED.name), index.space().encoding
    requests = [SpaceRequest(layers=(layer,), geometry="square") for layer in SINGLE]
    whole = SpaceRequest(layers=PACKAGED.recommended_layers, geometry="square", whiten=True)
    plain = SpaceRequest(layers=PACKAGED.recommended_layers, geometry="square")
    for request in (*requests, plain, whole, SpaceRequest(layers=(11,))):
        with index.writer() as writer:
            writer.add_space(*spaces_for(files, [request], encoding))
    Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=print, throughput=True),
        workers=2,
        progress=Quiet(),
        stopped=lambda: False,
    ).run()
    index.publish()
    index.refresh()


def table(found: Evaluation) -> None:
    """Print a row for each space."""
    print("| space | R@1 | P@5 | mAP |\n|---|---|---|---|")
    for one in found.spaces:
        cells = [one.metrics[name] for name in ("r_at_1", "p_at_5", "map")]
        shown = " | ".join(f"{it.value:.3f} ({it.low:.3f} to {it.high:.3f})" for it in cells)
        print(f"| {one.space} | {shown} |")


def beside(images: Sequence[Path], work: Path) -> None:
    """Compare the default with `--layer 11`: build rate, bytes of the catalog, and the time of a search by id."""
    flags: dict[str, tuple[str, ...]] = {"default": (), "--layer 11": ("--layer", "11")}
    rates: dict[str, list[float]] = {name: [] for name in flags}
    sizes, times = {}, {}
    for turn in range(2):
        for name, extra in flags.items():
            index = work / f"beside{turn}{len(extra)}.index"
            rates[name].append(build(images, index, *extra)["images_per_second"])
            sizes[name] = (index / "catalog.sqlite").stat().st_size
            times[name] = list(timed(index))
    print("\n### Beside `--layer 11`, on the stamps\n")
    print("| | images/s of two builds | catalog, bytes an image | a search by id |")
    print("|---|---|---|---|")
    for name in flags:
        rate = ", ".join(f"{rate:.1f}" for rate in rates[name])
        print(f"| {name} | {rate} | {sizes[name] / len(images):,.0f} | {np.median(times[name]) * 1e6:.0f} us |")


def timed(index: Path) -> Iterator[float]:
    """Seconds of searches by id, after some to warm up."""
    with Index.open(index) as opened:
        records, _ = opened.catalog.page(0, 300)
        for number, record in enumerate([*records, *records]):
            began = time.perf_counter()
            opened.search(Query(parts=[QueryPart(id=record.id)]))
            if number >= 100:
                yield time.perf_counter() - began


if __name__ == "__main__":
    main()
