"""Relevance on real images: leave-one-out over the Tux Paint stamps, asked over HTTP by id.

    python benchmarks/stamps.py STAMPS

STAMPS is usr/share/tuxpaint/stamps of Debian's package tuxpaint-stamps-default (unpack it with `dpkg -x`). Builds an
index in fp32 with the spaces layer 7 and layer 12 (its final norm included), serves it, and asks for the nearest of
every image whose class has five or more; a class is the first two folder levels, and files with only one are passed
over. Mirrored variants are left out. The baseline, in the same run on the same files, is a plain transformers loop:
AutoImageProcessor, AutoModel, `output_hidden_states`, batches of 8, brute-force cosine.
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
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from lookalike_client import Client, Image
from transformers import AutoImageProcessor, AutoModel

from indexer.models import PACKAGED, locate

COMMAND = Path(sys.executable).with_name("lookalike")
SPACES = ("layer7", "layer12")
BATCH = 8
CLASS_LEVELS = 2
MIN_CLASS = 5


def build(stamps: Path, index: Path, *flags: str) -> dict[str, Any]:
    """The report of a build without the mirrored stamps."""
    command: list[str | Path] = [
        COMMAND,
        "build",
        stamps,
        "--index",
        index,
        "--exclude",
        "*_mirror.png",
        "--json",
        *flags,
    ]
    report: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return report


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


def class_of(image: Image, root: Path) -> str | None:
    """The first two folder levels of an image's path; None where it has only one."""
    folders = Path(image.path or "").relative_to(root).parts[:-1]
    return "/".join(folders[:CLASS_LEVELS]) if len(folders) >= CLASS_LEVELS else None


def relevance(client: Client, classes: dict[str, str], space: str) -> tuple[float, float]:
    """R@1 and P@5 over all images of a class, each asked for by its id among all the others of these classes."""
    first = hits_of_class = 0
    for image_id, name in classes.items():
        found = [hit for hit in client.search(id=image_id, k=200, space=space) if hit.id in classes][:5]
        first += classes[found[0].id] == name
        hits_of_class += sum(classes[hit.id] == name for hit in found)
    return first / len(classes), hits_of_class / (5 * len(classes))


def plain_relevance(classes: dict[str, str], files: dict[str, Path]) -> tuple[dict[str, tuple[float, float]], float]:
    """R@1 and P@5 a space from plain transformers in fp32, and its images a second, decoding included."""
    ids = list(classes)
    processor, model = (
        AutoImageProcessor.from_pretrained(locate(PACKAGED.name).folder),
        AutoModel.from_pretrained(locate(PACKAGED.name).folder),
    )
    found: dict[str, list[torch.Tensor]] = {space: [] for space in SPACES}
    began = time.perf_counter()
    for start in range(0, len(ids), BATCH):
        pixels = processor([on_white(files[image_id]) for image_id in ids[start : start + BATCH]], return_tensors="pt")
        with torch.inference_mode():
            answer = model(**pixels, output_hidden_states=True)
        found["layer7"].append(answer.hidden_states[7][:, 0])
        found["layer12"].append(answer.last_hidden_state[:, 0])
    rate = len(ids) / (time.perf_counter() - began)
    names = np.array([classes[image_id] for image_id in ids])
    results = {}
    for space, parts in found.items():
        vectors = torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        same = names[np.argsort(-scores, axis=1)[:, :5]] == names[:, None]
        results[space] = (float(same[:, 0].mean()), float(same.mean()))
    return results, rate


def on_white(file: Path) -> PIL.Image.Image:
    """A picture in RGB, transparency on white."""
    with PIL.Image.open(file) as opened:
        picture = opened.convert("RGBA")
    flat = PIL.Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))
    return flat


def main() -> None:
    """Build, serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="the folder usr/share/tuxpaint/stamps")
    stamps: Path = parser.parse_args().stamps.resolve()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "stamps.index")
        spaces = ("--layer", "7", "--layer", "12", "--precision", "fp32", "--label-from-folder")
        built, rebuilt = build(stamps, index, *spaces), build(stamps, index)
        with serve(index) as url, Client(url) as client:
            images = list(client.images(page_size=1000))
            named = {image.id: name for image in images if (name := class_of(image, stamps))}
            counts = Counter(named.values())
            classes = {image_id: name for image_id, name in named.items() if counts[name] >= MIN_CLASS}
            print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
            print(
                f"{built['added']} files, {built['embedded']} images embedded in fp32 at "
                f"{built['images_per_second']:.1f}/s, {built['seconds']:.1f} s in all; again: "
                f"{rebuilt['embedded']} embedded, {rebuilt['seconds']:.2f} s"
            )
            print(f"{len(classes)} queries in {len(set(classes.values()))} classes")
            ours = {}
            for space in SPACES:
                began = time.perf_counter()
                ours[space] = relevance(client, classes, space)
                rate = len(classes) / (time.perf_counter() - began)
                print(f"{space}: {rate:.0f} queries/s over HTTP, one client, k=200")
        plain, plain_rate = plain_relevance(classes, {image.id: Path(image.path or "") for image in images})
        print(f"plain transformers loop: {plain_rate:.1f} images/s, decoding included")
        print("space     R@1 ours  plain   P@5 ours  plain")
        for space in SPACES:
            figures = (ours[space][0], plain[space][0], ours[space][1], plain[space][1])
            print("{:8}     {:.3f}   {:.3f}      {:.3f}   {:.3f}".format(space, *figures))


if __name__ == "__main__":
    main()
