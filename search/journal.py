"""Journals of runs over duplicates: JSON lines, each on the disk before what it tells of is begun. Erased images go."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Container, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from search.errors import IndexDamaged, RunUnfinished, StorageFailed
from search.files import reading_errors, storage_errors, write_whole
from search.types import JsonObject, absolute

FOLDER = "duplicates"
"""In an index: the journal of each run of `dups --apply`, `RUN.jsonl`. docs/format.md specifies the lines."""
GROUPS = "groups"
"""In an index: the groups that `dups` found last, `TIER.json`, a line of ids and scores each after the first line."""
OVER = ("finished", "undone")
"""States in which nothing of a run is under way."""
_ID = re.compile(rb"[0-9a-f]{64}")
LAST = 100
"""Bytes at a journal's end that hold its last line, if that is a state."""


class Journal:
    """A journal to which lines are added. Only for who holds the index's lock."""

    def __init__(self, path: Path) -> None:
        """Open it; half a line at its end, which a crash left, is taken away. Raises StorageFailed."""
        self._path = path
        with storage_errors(path):
            self._file = path.open("r+b")
            kept = self._file.read().rpartition(b"\n")
            self._file.seek(len(kept[0]) + len(kept[1]))
            self._file.truncate()

    def note(self, entry: JsonObject, *, now: bool = True) -> None:
        """Add a line. now: wait until it is on the disk, and the lines before it. Raises StorageFailed."""
        with storage_errors(self._path):
            self._file.write(json.dumps(entry).encode() + b"\n")
            if now:
                self._file.flush()
                os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with storage_errors(self._path):
            self._file.close()


def write(path: Path, entries: list[JsonObject]) -> None:
    """Write a journal as a whole, or not at all. Raises StorageFailed."""
    with storage_errors(path):
        write_whole(path, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries), durable=True)


def read(path: Path) -> list[JsonObject]:
    """The lines of a journal, but for half a line at its end that a crash left. Raises IndexDamaged, StorageFailed."""
    with reading_errors(path):
        lines = path.read_bytes().split(b"\n")[:-1]
    entries: list[JsonObject] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise damaged(path, number) from error
        if not isinstance(entry, dict):
            raise damaged(path, number)
        entries.append(entry)
    if not entries:
        raise damaged(path, 1)
    return entries


def damaged(path: Path, number: int) -> IndexDamaged:
    """The error for a line (counted from 1) that is not as a run writes it."""
    return IndexDamaged(
        f"{path} is damaged in line {number}. Take it from a backup of the index. Without it this run cannot go on or "
        "be taken back: move the file away if you need neither."
    )


def ended(path: Path) -> bool:
    """Whether the last line of a journal says that nothing of its run is under way. Raises StorageFailed."""
    with reading_errors(path), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST))
        last = file.read()
    return any(last.endswith(b"\n" + json.dumps({"state": state}).encode() + b"\n") for state in OVER)


def moved(folder: Path) -> dict[tuple[str, str], str]:
    """The files that runs moved away and have not brought back, by root and path: the name of the run.

    Of a journal that cannot be read nothing is known.
    """
    found: dict[tuple[str, str], str] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with suppress(IndexDamaged, StorageFailed, LookupError, TypeError):
            head, *lines = read(path)
            if head["action"] == "move":
                steps, notes = lines[: head["steps"]], lines[head["steps"] :]
                gone = {one["done"] for one in notes if "done" in one} - {one.get("undone") for one in notes}
                places = [(step["root"], step["path"]) for step in map(steps.__getitem__, gone) if "path" in step]
                found |= dict.fromkeys(places, path.stem)
    return found


def _mentions(path: Path, images: Set[str], paths: Set[str]) -> bool:
    """Whether a journal may hold one of these ids, or the name of one of these files."""
    with reading_errors(path):
        data = path.read_bytes()
    names = {json.dumps(Path(one).name)[1:-1] for one in paths}
    return any(word.encode() in data for word in {*images, *names})


def strike(folder: Path, images: Set[str], paths: Set[str] = frozenset()) -> None:
    """Forget images in the journals of a folder: their paths, what was merged into them, and rules that may name them.

    What other images got from them stays theirs. A damaged journal of a run that is over is left where it has no word
    of them.

    images: ids. paths: absolute; of files that went or stayed. What is struck cannot be taken back. Raises
    RunUnfinished where a run that holds one of them is under way: nothing is struck then; IndexDamaged, StorageFailed.
    """
    changed: dict[Path, list[JsonObject]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if ended(path) and not _mentions(path, images, paths):
            continue
        entries = read(path)
        try:
            struck = _struck(entries, images, paths)
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(path, 2) from error
        if struck == entries:
            continue
        if entries[-1].get("state") not in OVER:
            raise RunUnfinished(
                f"The run {path.stem} of lookalike dups was interrupted, and holds what is to be erased. Let it go on, "
                f"or take it back with --undo {path.stem}, and erase then."
            )
        changed[path] = struck
    for path, struck in changed.items():
        write(path, struck)


def strike_groups(folder: Path, images: Set[str], known: Callable[[Set[str]], Container[str]]) -> None:
    """Forget images in the groups of a folder, and those that the index does not have any more.

    An empty id takes their place: groups keep their numbers, and show that their first image is gone. images: ids.
    known: those of some ids that the index has. Only for who holds the index's lock. Raises StorageFailed.
    """
    for draft in folder.glob(".*.tmp"):  # of a process that was killed
        with storage_errors(draft):
            draft.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.json")):
        with reading_errors(path):
            data = path.read_bytes()
        ids = {found.decode() for found in _ID.findall(data)}
        there = known(ids - images)
        struck = _without(data, {name for name in ids if name in images or name not in there})
        if struck != data:
            with storage_errors(path):
                write_whole(path, struck, durable=True)


def _without(data: bytes, images: Set[str]) -> bytes:
    return _ID.sub(lambda found: b"" if found[0].decode() in images else found[0], data)


def _struck(entries: list[JsonObject], images: Set[str], paths: Set[str]) -> list[JsonObject]:
    struck: list[JsonObject] = []
    hidden: set[int] = set()
    for line, entry in enumerate(entries):
        if "image" in entry:
            gone = entry["image"] in images or absolute(entry["root"], entry["path"]) in paths
            kept = entry["kept_image"] in images or absolute(entry["kept_root"], entry["kept_path"]) in paths
            if gone:
                entry = {"struck": True}
            elif kept:
                entry = {**entry, "kept_root": "", "kept_path": ""}
            if gone or kept:
                hidden.add(line - 1)
        elif entry.get("skip") in hidden:
            entry = {**entry, "why": ""}
        if entry.get("other"):
            entry = {**entry, "other": {image: has for image, has in entry["other"].items() if image not in images}}
        if entry.get("merge") not in images and entry.get("unmerge") not in images:
            struck.append(entry)
    if struck != entries:
        struck[0] = {**struck[0], "rules": "", "protect": []}
    return struck
