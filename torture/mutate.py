"""Damaged files: every file of an index, changed in one place, must be found out or do no harm.

A mutated index may refuse to open or to answer, with an error of ours; or answer as before. What no search notices,
`verify` must, unless everything that is stored still reads as it was stored.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from functools import partial
from pathlib import Path
from unittest import mock

from search.errors import SearchError
from search.filters import parse_filter
from search.generations import generation
from search.index import Index
from search.types import JsonObject, Query, QueryPart
from search.upkeep.verify import verify
from torture.world import POLICY, Figures, create, in_child, take, vector

BATCH = 100
"""Mutations that one process looks at."""
ASKED: list[tuple[int, int, JsonObject | None]] = [
    (1000, 5, None),
    (1001, 30, None),
    (1002, 10, {"label": "label 3"}),
    (1003, 400, {"label": "some"}),
    (1004, 10, {"width": {"gte": 100}, "path": {"glob": "*1*.png"}}),
]
"""Vectors asked for, how many neighbours, and filters."""


def make(path: Path) -> None:
    """An index with two generations, changes newer than both, and a full log: its writer was killed."""
    create(path)
    index = Index.open(path, writable=True, policy=POLICY)
    take(index, "add", list(range(300)))
    take(index, "publish", [])
    take(index, "add", list(range(300, 340)))
    take(index, "remove", [7, 8, 9])
    take(index, "publish", [])
    index.catalog.checkpoint(wait=1)
    take(index, "add", [400, 401])
    take(index, "remove", [10, 401])
    take(index, "describe", [11])
    os._exit(0)


def answers(index: Index) -> list[object]:
    """What searches find: ids, scores to the bit, and everything told of an image."""
    found: list[object] = []
    for number, k, matching in ASKED:
        query = Query(
            parts=[QueryPart(vector=vector(number))], k=k, filter=None if matching is None else parse_filter(matching)
        )
        found += [(hit.id, hit.score.hex(), hit.paths, hit.labels, hit.metadata) for hit in index.search(query)]
    return found


def content(index: Index) -> list[object]:
    """Everything that the catalog holds of its images."""
    held: list[object] = []
    for rowids, block in index.catalog.all_vectors(index.space(), upto=2**62):
        records = index.catalog.records(rowids.tolist())
        held += [(records.get(row), one.tobytes()) for row, one in zip(rowids.tolist(), block, strict=True)]
    return held


def mutated(data: bytes, chance: random.Random) -> tuple[str, bytes | None]:
    """One change of a file's bytes, by name; None: the file is gone."""
    kind = chance.choice(("bit", "bit", "byte", "zeros", "noise", "swap", "repeat", "cut", "cut", "grow", "gone"))
    at, size = chance.randrange(len(data)), chance.choice((1, 8, 64, 512, 4096))
    block, other = at // size * size, chance.randrange(len(data)) // size * size
    if kind == "bit":
        return kind, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == "byte":
        return kind, data[:at] + chance.randbytes(1) + data[at + 1 :]
    if kind == "zeros":
        return kind, data[:block] + bytes(len(data[block : block + size])) + data[block + size :]
    if kind == "noise":
        return kind, data[:block] + chance.randbytes(len(data[block : block + size])) + data[block + size :]
    if kind == "repeat":
        return kind, data[:block] + data[other : other + size] + data[block + size :]
    if kind == "swap":
        changed = bytearray(data)
        changed[block : block + size], changed[other : other + size] = (
            data[other : other + size][: len(data[block : block + size])],
            data[block : block + size][: len(data[other : other + size])],
        )
        return kind, bytes(changed)
    if kind == "cut":
        return kind, data[: at if chance.random() < 0.5 else block]
    if kind == "grow":
        return kind, data + chance.randbytes(size)
    return kind, None


def judged(path: Path, whole: list[object], held: list[object]) -> str:
    """How an index with a mutated file behaves: refused, named, harmless; or wrong, and how."""
    try:
        with Index.open(path, policy=POLICY) as index:
            if answers(index) != whole:
                return "wrong: an answer is different"
    except SearchError:
        return "refused"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"
    try:
        with Index.open(path, policy=POLICY) as index:
            if verify(index).findings:
                return "named by verify"
            if content(index) != held:
                return "wrong: verify finds nothing, and something stored is different"
    except SearchError:
        return "refused by verify"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}, from verify"
    return "harmless"


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Mutate one file so often. broken: generations are read without comparing their hashes, as a control."""
    figures, until = Figures(), time.monotonic() + 60 * minutes
    whole = folder / "whole"
    in_child(partial(make, whole))
    while figures.runs < runs and time.monotonic() < until and not figures.wrong:
        first = seed * 1_000_003 + figures.runs
        here = folder / f"{first}"
        here.mkdir()
        found = in_child(partial(_batch, whole, here, range(first, first + min(BATCH, runs - figures.runs)), broken))
        if not isinstance(found, list):
            figures.wrong.append(f"mutation {(here / 'now').read_text()}: the process died")
            break
        for name, kind, outcome in found:
            if outcome.startswith("wrong"):
                figures.wrong.append(f"mutation {first} and on ({kind} of {name}): {outcome}")
            figures.runs += 1
            figures.count(f"{name.rpartition('/')[2]} {outcome.partition(':')[0]}")
        shutil.rmtree(here)
    return figures


def _batch(whole: Path, here: Path, numbers: range, broken: bool) -> list[tuple[str, str, str]]:
    if broken:
        mock.patch.object(generation, "hash_start", return_value=_Anything()).start()
    names = sorted(
        str(file.relative_to(whole))
        for file in whole.rglob("*")
        if file.is_file() and not file.name.endswith(("-shm", "lock"))
    )
    with Index.open(whole, policy=POLICY) as index:
        expected, held = answers(index), content(index)
    bare = _copy(whole, here / "bare", [name for name in names if "generations" not in name])
    with Index.open(bare, policy=POLICY) as index:
        assert answers(index) == expected, "what is asked must not depend on what a graph happens to find"
    return [_one(whole, here, names, number, expected, held) for number in numbers]


def _one(
    whole: Path, here: Path, names: list[str], number: int, expected: list[object], held: list[object]
) -> tuple[str, str, str]:
    chance = random.Random(number)
    (name,) = chance.choices(names, [6 if name.startswith("catalog") else 1 for name in names])
    kind, data = mutated((whole / name).read_bytes(), chance)
    (here / "now").write_text(f"{number} ({kind} of {name})")
    copy = _copy(whole, here / str(number), names)
    same = [other for other in names if (whole / other).samefile(whole / name)]  # generations share their vectors
    for other in same:
        (copy / other).unlink()
        if data is not None:
            (copy / other).write_bytes(data)
    outcome = judged(copy, expected, held)
    shutil.rmtree(copy)
    return name, kind, outcome


def _copy(whole: Path, copy: Path, names: list[str]) -> Path:
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("catalog"):  # SQLite knows a database by its inode, whatever it is called
            shutil.copyfile(whole / name, copy / name)
        else:
            (copy / name).hardlink_to(whole / name)
    return copy


class _Anything(str):
    """Equal to every text."""

    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False

    def hexdigest(self) -> _Anything:
        """Like a hash object's."""
        return self
