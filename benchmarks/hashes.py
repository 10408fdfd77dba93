"""Perceptual hashes of packages that are installed, for `duplicates.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from edits import opened
from found import Question
from numpy.typing import NDArray
from PIL import Image

Vectors = NDArray[np.float32]

HASHES: dict[str, Callable[[Any, Image.Image], NDArray[np.bool_]]] = {
    "imagehash.phash": lambda module, image: module.phash(image).hash.ravel(),
    "imagehash.dhash": lambda module, image: module.dhash(image).hash.ravel(),
    "imagehash.whash": lambda module, image: module.whash(image).hash.ravel(),
    "imagehash.average_hash": lambda module, image: module.average_hash(image).hash.ravel(),
    "pdqhash.compute": lambda module, image: module.compute(np.asarray(image))[0].astype(np.bool_),
}


def hashed(questions: Sequence[Question], references: Sequence[Path]) -> Iterator[tuple[str, tuple[Vectors, Vectors]]]:
    """Bits as -1 and 1, divided so that a product is 1 where all are equal, of the packages that are there."""
    pictures = [one.file for one in questions] + [*references]
    names = []
    for name in HASHES:
        try:
            importlib.import_module(name.split(".")[0])
            names.append(name)
        except ImportError:
            print(f"{name.split('.')[0]} is not installed", file=sys.stderr)
    with ProcessPoolExecutor() as pool:
        made = [*pool.map(partial(_bits, names), pictures, chunksize=50)]
    for number, name in enumerate(names):
        bits = np.stack([one[number] for one in made]).astype(np.float32) * 2 - 1
        bits /= np.sqrt(bits.shape[1])
        yield name, (bits[: len(questions)], bits[len(questions) :])


def _bits(names: Sequence[str], path: Path) -> list[NDArray[np.bool_]]:
    image = opened(path)
    return [HASHES[name](importlib.import_module(name.split(".")[0]), image) for name in names]
