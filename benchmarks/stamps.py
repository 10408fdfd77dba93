"""Relevance on real images: leave-one-out over the Tux Paint stamps, asked over HTTP by id.

    python benchmarks/stamps.py STAMPS

STAMPS is usr/share/tuxpaint/stamps of Debian's package tuxpaint-stamps-default (unpack it with `dpkg -x`). Builds an
index in fp32 with the spaces layer 7 and layer 12, serves it, and asks for the ten nearest of every image whose class
(its first two folder levels) has five or more. Mirrored variants are left out, as in the baseline of the design's
facts: R@1 .720 at layer 7 and .617 at layer 12 with its final norm, from a plain transformers loop.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lookalike_client import Client, Image

COMMAND = Path(sys.executable).with_name("lookalike")
BASELINE = {"layer7": (0.720, 0.588), "layer12": (0.617, 0.497)}
"""R@1 and P@5 of plain transformers in fp32 on the same images."""
CLASS_LEVELS = 2
MIN_CLASS = 5


@contextmanager
def serve(index: Path) -> Iterator[str]:
    """A running server over an index: its address."""
    process = subprocess.Popen([COMMAND, "serve", index, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield next(found[0] for line in process.stdout if (found := re.search(r"http://\S+:\d+", line)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def class_of(image: Image, root: Path) -> str:
    """The first two folder levels of an image's path."""
    relative = PurePosixPath(Path(image.path or "").relative_to(root).as_posix())
    return "/".join(relative.parts[:-1][:CLASS_LEVELS])


def relevance(client: Client, classes: dict[str, str], space: str) -> tuple[float, float]:
    """R@1 and P@5 over all images of a class, each asked for by its id among all the others of these classes."""
    first = hits_of_class = 0
    for image_id, name in classes.items():
        found = [hit for hit in client.search(id=image_id, k=200, space=space) if hit.id in classes][:5]
        first += classes[found[0].id] == name
        hits_of_class += sum(classes[hit.id] == name for hit in found)
    return first / len(classes), hits_of_class / (5 * len(classes))


def main() -> None:
    """Build, serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="the folder usr/share/tuxpaint/stamps")
    stamps: Path = parser.parse_args().stamps.resolve()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "stamps.index")
        flags = ["--layer", "7", "--layer", "12", "--precision", "fp32", "--label-from-folder", "--json"]
        build = [COMMAND, "build", stamps, "--index", index, "--exclude", "*_mirror.png", *flags]
        built = json.loads(subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout)
        again = [COMMAND, "build", stamps, "--index", index, "--exclude", "*_mirror.png", "--json"]
        rebuilt = json.loads(subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True).stdout)
        with serve(index) as url, Client(url) as client:
            images = list(client.images(page_size=1000))
            named = {image.id: class_of(image, stamps) for image in images}
            counts = Counter(named.values())
            classes = {image_id: name for image_id, name in named.items() if counts[name] >= MIN_CLASS and name}
            print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
            print(
                f"{built['added']} files, {built['embedded']} images embedded in fp32 at "
                f"{built['images_per_second']:.1f}/s, {built['seconds']:.1f} s in all; again: "
                f"{rebuilt['embedded']} embedded, {rebuilt['seconds']:.2f} s"
            )
            print(f"{len(classes)} queries in {len(set(classes.values()))} classes")
            print("space    R@1   baseline   P@5   baseline   queries/s")
            for space, (recall, precision) in BASELINE.items():
                began = time.perf_counter()
                ours = relevance(client, classes, space)
                rate = len(classes) / (time.perf_counter() - began)
                print(f"{space:8} {ours[0]:.3f}    {recall:.3f}   {ours[1]:.3f}    {precision:.3f}   {rate:.0f}")


if __name__ == "__main__":
    main()
