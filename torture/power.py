"""Power cuts: of what was written and not flushed, a disk keeps what it likes, in any order, and torn at any sector.

A fixed series of steps is recorded call by call; from the record, states are made that the disk may be in had power
gone at some moment of it: what was flushed is there, and of the rest all, none, the first, most, or some.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from torture.shim import Shim, write
from torture.world import Figures, Model, checked, in_child, in_rounds

Change = TypeVar("Change")
STATES = 200
"""Power cuts of one series of steps."""
HABITS = ("all", "none", "first", "most", "some")
"""Which of the changes that are not flushed a disk keeps; most: all but one or two."""
SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


@dataclass
class File:
    """A file: what is surely on the disk, and the changes since, of which any may be."""

    content: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and data; or a new size, and None."""

    def apply(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        """The content with some changes made."""
        content = bytearray(self.content)
        for offset, data in changes:
            if data is None:
                del content[offset:]
                content.extend(bytes(offset - len(content)))
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
        return bytes(content)


@dataclass
class Folder:
    """A folder: its entries as programs see them, those surely on the disk, and the changes since, each atomic."""

    seen: dict[str, File | Folder] = field(default_factory=dict)
    entries: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, change: dict[str, File | Folder | None]) -> None:
        """Make a change that is not flushed yet."""
        self.pending.append(change)
        _enter(self.seen, change)

    def apply(self, changes: list[dict[str, File | Folder | None]]) -> dict[str, File | Folder]:
        """The entries with some changes made."""
        entries = dict(self.entries)
        for change in changes:
            _enter(entries, change)
        return entries


def _enter(entries: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, what in change.items():
        if what is None:
            entries.pop(name, None)
        else:
            entries[name] = what


@dataclass
class Disk:
    """What a log says happened below one folder, as far as it was read."""

    top: Path
    root: Folder = field(default_factory=Folder)
    by_inode: dict[int, File | Folder] = field(default_factory=dict)
    flushes: bool = True
    """False: a disk that flushes nothing, as a control."""

    def happen(self, kind: str, inode: int, offset: int, first: bytes, second: bytes) -> None:
        """Take one entry of the log."""
        what = self.by_inode.get(inode)
        if kind in "cm":
            what = self.by_inode[inode] = File() if kind == "c" else Folder()
        if kind in "cml":
            folder, name = self._place(first)
            folder.change({name: what})
        elif kind == "u":
            folder, name = self._place(first)
            folder.change({name: None})
        elif kind == "r":
            (folder, old), (other, new) = self._place(first), self._place(second)
            assert folder is other, "renamed into another folder: two folders to flush"
            folder.change({old: None, new: folder.seen[old]})
        elif isinstance(what, File) and kind in "wt":
            what.pending.append((offset, first if kind == "w" else None))
        elif what is not None and kind == "s" and self.flushes:
            if isinstance(what, File):
                what.content, what.pending = what.apply(what.pending), []
            else:
                what.entries, what.pending = what.apply(what.pending), []

    def _place(self, path: bytes) -> tuple[Folder, str]:
        *parents, name = Path(os.fsdecode(path)).relative_to(self.top).parts
        folder = self.root
        for parent in parents:
            inner = folder.seen[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def after_power_cut(self, chance: random.Random, to: Path) -> None:
        """Write, as real files, one of the states that the disk may be in once power has gone."""
        self._write(self.root, chance, chance.choice((*HABITS, "any")), to)

    def _write(self, folder: Folder, chance: random.Random, habit: str, to: Path) -> None:
        to.mkdir()
        for name, what in folder.apply(_kept(folder.pending, chance, habit)).items():
            if isinstance(what, Folder):
                self._write(what, chance, habit, to / name)
            else:
                changes = [_torn(change, chance, habit) for change in _kept(what.pending, chance, habit)]
                (to / name).write_bytes(what.apply(changes))


def _kept(pending: list[Change], chance: random.Random, habit: str) -> list[Change]:
    """Which changes reached the disk: disks write in their own order."""
    if habit == "any":
        habit = chance.choice(HABITS)
    if habit in ("all", "none"):
        return pending if habit == "all" else []
    if habit == "first":
        return pending[: chance.randint(0, len(pending))]
    if habit == "most":
        gone = chance.sample(range(len(pending)), min(len(pending), chance.choice((1, 2))))
        return [change for place, change in enumerate(pending) if place not in gone]
    return [change for change in pending if chance.random() < 0.5]


def _torn(change: tuple[int, bytes | None], chance: random.Random, habit: str) -> tuple[int, bytes | None]:
    offset, data = change
    if data is None or habit in ("all", "most") or chance.random() < 0.8:
        return change
    start = chance.choice([0, *range(-offset % SECTOR, len(data), SECTOR)])
    return (offset, data[:start]) if chance.random() < 0.5 else (offset + start, data[start:])


def entries(log: Path) -> Iterator[tuple[str, int, int, bytes, bytes]]:
    """The entries of shim.c's log: kind, inode, offset, and two texts or data."""
    with log.open("rb") as file:
        while head := file.read(40):
            kind, inode, offset, size, second = struct.unpack("<5q", head)
            yield chr(kind), inode, offset, file.read(size), file.read(second)


def torture(folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False) -> Figures:
    """Cut power so often during the steps; what the disk then holds must open, with all that was acknowledged.

    broken: a disk that flushes nothing, as a control.
    """
    return in_rounds(folder, seed, runs, minutes, lambda here, seed: _cuts(here, seed, min(runs, STATES), broken))


def _cuts(folder: Path, seed: int, states: int, broken: bool) -> Figures:
    """So many during one writer's steps."""
    shim, figures = Shim(), Figures()
    chance, log = random.Random(seed), folder / "log"
    here = folder / "here"
    here.mkdir()

    def work() -> list[str]:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        shim.start(here, log=descriptor)
        return write(here, seed, shim.mark)

    wrong = in_child(work)
    figures.wrong += wrong if isinstance(wrong, list) else ["the writer died"]
    happened = list(entries(log))
    figures.count("calls", sum(kind != "A" for kind, *_ in happened))
    flushes = [at for at, (kind, *_) in enumerate(happened) if kind == "s"]  # before one, most is at stake
    cuts = sorted(chance.choice(flushes if chance.random() < 0.5 else range(len(happened))) for _ in range(states))
    disk, model, taken = Disk(here.resolve(), flushes=not broken), Model(), 0
    disk.by_inode[here.stat().st_ino] = disk.root
    for cut in cuts:
        for kind, inode, offset, first, second in happened[taken:cut]:
            if kind == "A":
                model.tell(*json.loads(first))
            else:
                disk.happen(kind, inode, offset, first, second)
        taken = max(taken, cut)
        to = folder / "there"
        disk.after_power_cut(chance, to)
        run = f"power cut {figures.runs} of seed {seed} (at {cut}, {model.during})"
        figures.judged(run, in_child(partial(checked, to / "index", model)))
        figures.count(f"cut during {model.during}")
        shutil.rmtree(to)
        if figures.wrong:
            break
    return figures
