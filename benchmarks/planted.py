"""Planted groups among vectors: whether they are recovered, and how fast, for `duplicates.py --speed`."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.candidates import candidate_pairs
from analysis.duplicates.medoids import around_medoids
from analysis.duplicates.photo import in_order
from search.index import Index
from search.recipe import Preprocessing, Recipe
from search.types import Encoding, ImageFacts, Location, NewImage, Space
from search.vectors import normalise

DIM = 512
SIZES = (2, 2, 2, 3, 3, 4, 5, 8, 13, 21, 50, 120, 500)
"""Of planted groups, over and over, until a fifth of the vectors is in one."""
CHAINS, CHAIN = 20, 50
"""Chains of gradual change, and their links: of each, images more than a few links apart are no copies."""
NEAR = 0.8
"""Cosine of two copies, at least."""
ROWS = 1_024


def speed(count: int, seed: int = 0) -> None:
    """Compare with all-pairs cosines and connected components, and print both."""
    vectors, group = planted(count, seed)
    with tempfile.TemporaryDirectory() as folder:
        index, rowids, hashes = made(vectors, Path(folder), seed)
        with index:
            started = time.perf_counter()
            pairs = candidate_pairs(index, [*zip(rowids, hashes, strict=True)])
            candidates = time.perf_counter() - started
            place = {rowid: number for number, rowid in enumerate(rowids)}

            def certain(one: int, other: int) -> float:
                cosine = float(vectors[place[one]] @ vectors[place[other]])
                return cosine if cosine >= NEAR else 0.0

            proved = ((one, other, certain(one, other)) for one, other in in_order(pairs))
            found = around_medoids((pair for pair in proved if pair[2] > 0), certain)
            ours = time.perf_counter() - started
            structure = index.info().spaces[0].structure.get("structure")
    told = np.full(count, -1)
    for number, (medoid, members) in enumerate(found):
        told[[place[one] for one in (medoid, *members)]] = number
    precision, recall = agreement(told, group)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} vectors of {DIM} numbers ({structure}): {len(pairs):,} candidates in {candidates:.1f} s, "
          f"groups in {ours:.1f} s, peak memory {peak:.0f} MB with the vectors of this benchmark")  # fmt: skip
    print(f"planted groups, pairs of one medoid's group: precision {precision:.4f}, recall {recall:.4f}", flush=True)
    chained = group <= -2
    largest = max((sum(chained[place[one]] for one in (medoid, *members)) for medoid, members in found), default=0)
    started = time.perf_counter()
    label = components(vectors)
    theirs = time.perf_counter() - started
    precision, recall = agreement(label, group)
    print(f"all-pairs cosines, connected components: {theirs:.1f} s; precision {precision:.4f}, recall {recall:.4f}")
    print(f"largest group of a chain of {CHAIN}: {largest}; by components {np.bincount(label[chained]).max()}")


def planted(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors, and the group of each: -1 of those in none, -2 and below of chains."""
    generator = np.random.default_rng(seed)
    vectors = normalise(generator.normal(size=(count, DIM)))
    group = np.full(count, -1)
    free, number = 0, 0
    while free < count // 5:
        size = min(SIZES[number % len(SIZES)], count - free)
        noise = normalise(generator.normal(size=(size, DIM)))
        vectors[free : free + size] = normalise(vectors[free] + 0.4 * noise)
        group[free : free + size] = number
        free, number = free + size, number + 1
    for chain in range(CHAINS):
        at = vectors[free]
        for link in range(CHAIN):
            vectors[free + link], group[free + link] = at, -2 - chain
            at = normalise((at + 0.3 * normalise(generator.normal(size=(1, DIM)))[0])[None])[0]
        free += CHAIN
    order = generator.permutation(count)
    return vectors[order], group[order]


def made(vectors: NDArray[np.float32], folder: Path, seed: int) -> tuple[Index, list[int], list[int]]:
    """A published index of the vectors, their rowids, and hashes drawn at random."""
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
        dim=DIM,
    )
    index = Index.create(folder / "planted.index", [Space(name="planted", recipe=recipe, encoding=Encoding())])
    hashes = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, len(vectors)).tolist()
    names = [f"{number:064x}" for number in range(len(vectors))]
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number, name in enumerate(names):
                location = Location(root="/planted", path=f"{number}.png", mtime_ns=1, size=1)
                facts = ImageFacts(width=8, height=8, format="png", bytes=1, phash=hashes[number])
                vector = {"planted": vectors[number]}
                transaction.add(NewImage(id=name, facts=facts, location=location, vectors=vector))
        index.publish()
    index.refresh()
    known = index.catalog.rowids(names)
    return index, [known[name] for name in names], hashes


def components(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """A label for each vector: those linked by cosines of NEAR or more share one."""
    parent = np.arange(len(vectors))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = int(parent[one])
        return one

    for start in range(0, len(vectors), ROWS):
        row, column = np.nonzero(vectors[start : start + ROWS] @ vectors.T >= NEAR)
        for one, other in zip((row + start).tolist(), column.tolist(), strict=True):
            if one < other:
                parent[root(one)] = root(other)
    return np.array([root(one) for one in range(len(vectors))])


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
