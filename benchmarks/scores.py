"""What scores mean: whether false-match rates hold, what cuts at them keep, and whether dull pictures crowd the hits.

    python benchmarks/scores.py SETS [--pool INDEX] [--only-edits]

SETS is the folder in which Debian's packages tuxpaint-stamps-default, openclipart-png, qabcs-data, scratch and
dataset-fashion-mnist were unpacked (`dpkg -x PACKAGE.deb SETS`). All pictures are embedded once, by `lookalike build`
without flags: the four sets of benchmarks/relevance.py and the rest of openclipart, 12,000 pieces of clothing, one edit
each of 1,000 drawings of openclipart, and 200 blank, dark and dull pictures. That takes most of an hour on two cores;
with `--pool` the index is kept, and taken the next time. Each part then gets an index of some of them, with the vectors
that were computed, in the default space and in layer 11 alone (of whole pictures).

Prints Markdown: rates that were measured on one half of a set, and what share of the pairs of the other half reaches
these scores; what cuts keep of each picture's hundred nearest; what the cut `auto` keeps of 1,000 edits among 20,000
others; how many searches have a dull picture among their first ten.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from edits import EDITS, write_dull, write_edits
from machine import machine
from numpy.typing import NDArray
from PIL import Image
from relevance import SETS, build

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.models import PACKAGED, locate
from search.generations.background import Background
from search.generations.false_matches import AGAINST, measure
from search.generations.generation import load
from search.generations.transform import Transform, are_near
from search.index import Index
from search.types import AUTO, ImageRecord, Location, NewImage, Query, QueryPart, Space
from search.vectors import normalise

Vectors = NDArray[np.float32]

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
ENOUGH = 50
"""Pairs that a rate must expect for it to be looked at."""
NEAREST = 100
EDITED, DISTRACTORS, DULL, CLOTHES = 1_000, 20_000, 200, 12_000
BY_CHANCE = (10, 15, 20, 30, 40, 50, 75, 100)
"""Images that cuts by scores alone let through by chance."""
PLAIN_LAYER = 11
"""Measured beside the default."""


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("--pool", type=Path, help="the index of all pictures: made where it is not there")
    parser.add_argument("--only-edits", action="store_true", help="only what the cut `auto` keeps of edits")
    asked = parser.parse_args()
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with Pool(asked.folder.resolve(), (asked.pool or work / "pool.index").absolute()) as pool:
            for name, (paths, classes) in ({} if asked.only_edits else pool.sets).items():
                print(f"\n### {name}: {len(paths):,} pictures\n", flush=True)
                with pool.part(paths, work / f"{name}.index") as index:
                    halves(index)
                if classes:
                    with pool.part([*classes], work / f"{name}-labelled.index") as index:
                        cuts(index, classes)
            edits(pool, work / "edits.index")
            if not asked.only_edits:
                dull(pool, work / "dull.index")


class Pool:
    """All pictures and their embeddings."""

    def __init__(self, sets: Path, path: Path) -> None:
        """Builds what is not there yet."""
        # Some are links, which builds of listed files follow only within a folder.
        drawings = [one.resolve() for one in sorted((sets / "usr/share/openclipart/png").rglob("*.png"))]
        stamps = [
            one for one in sorted((sets / "usr/share/tuxpaint/stamps").rglob("*.png")) if "_mirror" not in one.name
        ]
        made = path.with_suffix(".made")
        clothes = clothing(sets, made / "clothes")
        order = np.random.default_rng(0).permutation(len(drawings)).tolist()
        self.originals = [drawings[number] for number in order[:EDITED]]
        self.edited = write_edits(self.originals, made / "edited")
        self.dull = write_dull(made / "dull", DULL)
        labelled = {name: images(sets) for name, images in SETS.items()}
        self.sets: dict[str, tuple[Sequence[Path], Mapping[Path, str]]] = {
            "stamps": (stamps, labelled["stamps"]),
            "clipart": (drawings, labelled["clipart"]),
            "words": ([*labelled["words"]], labelled["words"]),
            "scenes": ([*labelled["scenes"]], labelled["scenes"]),
            "clothes": ([*clothes][:5_000], dict([*clothes.items()][:5_000])),
        }
        known = {one for paths, _ in self.sets.values() for one in paths} | clothes.keys()
        build(sorted(known | {file for file, _ in self.edited.values()} | {*self.dull}), path)
        self._index = Index.open(path)
        self._records = {Path(one): record for record in records(self._index) for one in record.paths}
        (self._layer,) = spaces_for(
            locate(PACKAGED.name), [SpaceRequest(layers=(PLAIN_LAYER,), geometry="square")], self.space.encoding
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    @property
    def space(self) -> Space:
        """The default space."""
        return self._index.space()

    def vector(self, path: Path) -> Vectors:
        """The stored embedding of a picture in the default space, (dim,)."""
        return self._index.vector(self._records[path].id, self.space)

    def phash(self, path: Path) -> int | None:
        """The perceptual hash of a picture."""
        return self._records[path].facts.phash

    def others(self, count: int) -> list[Path]:
        """Pictures that are neither edited, nor originals of edits, nor dull."""
        left = {*self.originals, *self.dull, *(file for file, _ in self.edited.values())}
        found = sorted({record.paths[0] for path, record in self._records.items() if path not in left})
        chosen = np.random.default_rng(1).permutation(len(found))[:count]
        return [Path(found[number]) for number in sorted(chosen.tolist())]

    def part(self, paths: Sequence[Path], folder: Path) -> Index:
        """A published index of some pictures; those that could not be read are left out."""
        layers = self.space.recipe.layers
        width = self._layer.recipe.dim
        start = layers.index(PLAIN_LAYER) * width
        index = Index.create(folder, [replace(self.space, added_seq=None, complete_seq=0), self._layer])
        with index.writer() as writer:
            with writer.transaction() as transaction:
                for path in {self._records[one].id: one for one in paths if one in self._records}.values():
                    whole = self.vector(path)
                    alone = normalise(whole[None, start : start + width])[0]
                    vectors = {self.space.name: whole, self._layer.name: alone}
                    transaction.add(renewed(self._records[path], path, vectors))
            index.publish()
        index.refresh()
        return index


def renewed(record: ImageRecord, path: Path, vectors: Mapping[str, Vectors]) -> NewImage:
    """A picture of the pool, to be added to another index."""
    location = Location(root=str(path.parent), path=path.name, mtime_ns=1, size=record.facts.bytes)
    return NewImage(id=record.id, facts=record.facts, location=location, vectors=vectors)


def records(index: Index) -> list[ImageRecord]:
    """Every image of an index."""
    found: list[ImageRecord] = []
    after: int | None = 0
    while after is not None:
        page, after = index.catalog.page(after, 1_000)
        found += page
    return found


def halves(index: Index, seed: int = 0) -> None:
    """Print how often the pairs of one half reach the scores that have a rate on the other."""
    generation = load(index.generations / str(index.info().generation))
    print("| rate on one half | " + " | ".join(f"`{name}`, other half" for name in generation.spaces) + " |")
    print("|---" * (1 + len(generation.spaces)) + "|")
    rows: dict[float, list[str]] = {rate: [] for rate in RATES}
    for held in generation.spaces.values():
        first = held.rowids if held.groups is None else held.rowids[np.unique(held.groups.nodes, return_index=True)[1]]
        known = index.catalog.hashes(first.tolist())
        hashes = [known[rowid][2] for rowid in first.tolist()]
        one, other = np.array_split(np.random.default_rng(seed).permutation(len(hashes)), 2)
        known_hashes = [hashes[number] for number in one.tolist()]
        background = Background.of(held.vectors[np.sort(one)], copy_cosine=held.transform.copy_cosine)
        found = measure(
            held.vectors[one[:AGAINST]],
            known_hashes[:AGAINST],
            background=background,
            min_cosine=held.transform.copy_cosine,
            pause=lambda: None,
        )
        assert found is not None
        scores = [found.score(rate) for rate in RATES]
        other_hashes = [hashes[number] for number in other.tolist()]
        shares = reached(held.vectors[other], other_hashes, background, held.transform, scores)
        for rate, share in zip(RATES, shares, strict=True):
            enough = rate * len(other) * (len(other) - 1) / 2 >= ENOUGH
            rows[rate].append(f"{share:.1e} ({share / rate:.2f} times)" if enough else "too few pairs")
    for rate, cells in rows.items():
        print(f"| {rate:.0e} | " + " | ".join(cells) + " |")


def reached(
    vectors: Vectors,
    hashes: Sequence[int | None],
    background: Background,
    transform: Transform,
    scores: Sequence[float],
) -> list[float]:
    """Which share of all pairs of different images has at least each normalised score, counted plainly."""
    pairs, counts = 0, np.zeros(len(scores), dtype=np.int64)
    bits = np.array([one or 0 for one in hashes], dtype=np.int64).view(np.uint64)
    for place, (vector, shift) in enumerate(zip(vectors, background.shifts(vectors), strict=True)):
        cosines = vectors[place + 1 :] @ vector
        different = (cosines < transform.copy_cosine) | ~are_near(bits[place + 1 :], bits[place])
        pairs += int(different.sum())
        counts += [int((cosines[different] - shift >= score).sum()) for score in scores]
    return [float(count / pairs) for count in counts]


def cuts(index: Index, classes: Mapping[Path, str]) -> None:
    """Print what cuts keep of each picture's hundred nearest in the default space."""
    named = {str(path): name for path, name in classes.items()}
    rates: dict[bool, list[float]] = {True: [], False: []}
    empty: Counter[float] = Counter()
    everything = records(index)
    class_of = {record.id: named[record.paths[0]] for record in everything}
    for record in everything:
        found = index.search(Query(parts=[QueryPart(id=record.id)], k=NEAREST))
        for hit in found:
            rates[class_of[hit.id] == class_of[record.id]].append(hit.fmr or 0)
        for rate in RATES:
            empty[rate] += all((hit.fmr or 0) > rate for hit in found)
    print(f"\nOf {len(everything):,} searches in {len({*class_of.values()})} classes, of the first {NEAREST} hits:\n")
    print(f"| `max_fmr` | of the class, kept | others, removed | searches without any hit |\n{'|---' * 4}|")
    for rate in RATES:
        kept = np.mean(np.array(rates[True]) <= rate)
        removed = np.mean(np.array(rates[False]) > rate)
        print(f"| {rate:.0e} | {kept:.1%} | {removed:.1%} | {empty[rate] / len(everything):.1%} |")


def edits(pool: Pool, folder: Path) -> None:
    """Ask with originals for their edits among distractors, and print what the cut `auto` keeps."""
    others = pool.others(DISTRACTORS)
    kept: defaultdict[str, list[bool]] = defaultdict(list)
    removed = list[bool]()
    at: dict[int, tuple[list[bool], list[bool]]] = {count: ([], []) for count in BY_CHANCE}
    with pool.part([*others, *(file for file, _ in pool.edited.values())], folder) as index:
        images = len(records(index))
        for path, (file, name) in pool.edited.items():
            part = QueryPart(vector=pool.vector(path), phash=pool.phash(path))
            query = Query(parts=[part], k=NEAREST)
            first = [hit for hit in index.search(query) if hit.path != str(file)]
            left = {hit.path for hit in index.search(replace(query, k=10_000, max_fmr=AUTO))}
            kept[name].append(str(file) in left)
            removed += [hit.path not in left for hit in first]
            more = index.search(replace(query, k=10_000, max_fmr=max(BY_CHANCE) / images))
            fmr = {hit.path: hit.fmr or 0 for hit in more}
            for count, (edit, other) in at.items():
                edit.append(fmr.get(str(file), 1) <= count / images)
                other += [(hit.fmr or 0) > count / images for hit in first]
    print(f"\n### {EDITED:,} edited pictures among {len(others):,} others\n")
    print("| | share |\n|---|---|")
    print(f"| edits that the cut `auto` keeps | {np.mean([one for each in kept.values() for one in each]):.1%} |")
    for name in EDITS:
        print(f"| - {name} ({len(kept[name])}) | {np.mean(kept[name]):.1%} |")
    print(f"| others that it removes among the first {NEAREST} hits | {np.mean(removed):.1%} |")
    print(f"\n| images by chance | edits kept | others removed among the first {NEAREST} |\n{'|---' * 3}|")
    for count, (edit, other) in at.items():
        print(f"| {count} | {np.mean(edit):.1%} | {np.mean(other):.1%} |")


def dull(pool: Pool, folder: Path) -> None:
    """Print how many searches of other pictures have a dull one among their first ten hits."""
    others = pool.others(5_000)
    print(f"\n### {len(pool.dull)} dull pictures among {len(others):,} others\n")
    print("| space | searches with the commonest dull picture in the first ten | with any of them |\n|---|---|---|")
    with pool.part([*others, *pool.dull], folder) as index:
        everything = records(index)
        ours = {record.id for record in everything if Path(record.paths[0]) in {*pool.dull}}
        for space in index.spaces:
            counts: Counter[str] = Counter()
            some = asked = 0
            for record in everything:
                if record.id in ours:
                    continue
                hits = index.search(Query(parts=[QueryPart(id=record.id)], k=10, space=space.name))
                found = [hit.id for hit in hits if hit.id in ours]
                counts.update(found)
                some, asked = some + bool(found), asked + 1
            most = counts.most_common(1)[0][1] if counts else 0
            print(f"| `{space.name}` | {most / asked:.2%} | {some / asked:.2%} |")


def clothing(sets: Path, folder: Path) -> dict[Path, str]:
    """Pictures of Fashion-MNIST as files, and their classes."""
    packed = sets / "usr/share/datasets/fashion-mnist"
    pixels = gzip.decompress((packed / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((packed / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for number, image in enumerate(np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)[:CLOTHES]):
        path = folder / f"{number:05}.png"
        Image.fromarray(image).save(path)
        written[path] = str(labels[number])
    return written


if __name__ == "__main__":
    main()
