"""Runs: what `dups --apply` does to files, step by step, with a log by which it goes on after a crash and is undone.

Invariants, which tests/test_dups.py checks by killing runs at every step:

1. Before a file goes, the file that stays is read, and so is the one that goes: both hold what the index says.
2. At every moment each content that was there is on the disk in full, under its name or in the run's folder.
3. A step is noted as done after it is on the disk. What was done and not noted is found out, and noted, the next time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.duplicates.find import sha256_of
from analysis.duplicates.plan import Action, Step
from analysis.errors import RunInvalid, StepFailed
from search.files import sync
from search.index import Index
from search.types import ImageRecord, JsonObject
from search.writer import Writer

FOLDER = "duplicates"
"""In the index: a log of each run, `NAME.jsonl`."""
FICLONE = 0x40049409
"""Linux's request that makes a file share the blocks of another (ioctl_ficlone(2))."""
PATHS = 500
"""Paths in one statement."""
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""Errors of file systems that cannot link here: files are copied instead."""


@dataclass(kw_only=True)
class Run:
    """A run as its log tells it. skipped: steps that were not taken, and why. merged: by id, labels and metadata that
    an image had before it got those of images that went."""

    path: Path
    action: Action
    steps: list[Step]
    done: set[int] = field(default_factory=set)
    skipped: dict[int, str] = field(default_factory=dict)
    undone: set[int] = field(default_factory=set)
    merged: dict[str, JsonObject] = field(default_factory=dict)
    finished: bool = False

    @property
    def name(self) -> str:
        """The name that `--undo` takes."""
        return self.path.stem

    @property
    def freed(self) -> int:
        """Bytes of the files that went."""
        return sum(self.steps[number].size for number in self.done)


def new_run(index: Index, action: Action, steps: Sequence[Step]) -> Run:
    """Write down what will be done, before anything is. Raises StepFailed."""
    folder = index.path / FOLDER
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 1
    with _named(folder):
        folder.mkdir(exist_ok=True)
        while (path := folder / f"{name}{'' if number == 1 else f'-{number}'}.jsonl").exists():
            number += 1
        lines = [{"action": action, "steps": len(steps)}, *(step.to_json() for step in steps)]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        sync(draft)
        draft.rename(path)
        sync(folder)
    return Run(path=path, action=action, steps=list(steps))


def unfinished(index: Index) -> Run | None:
    """The run that was interrupted, if one was."""
    for path in sorted((index.path / FOLDER).glob("*.jsonl")):
        run = read_run(path)
        if not run.finished and not run.undone:
            return run
    return None


def named_run(index: Index, name: str) -> Run:
    """A run by its name. Raises RunInvalid."""
    path = index.path / FOLDER / f"{name}.jsonl"
    if Path(name).name != name or not path.is_file():
        known = sorted(one.stem for one in (index.path / FOLDER).glob("*.jsonl"))
        raise RunInvalid(f"There is no run {name!r}. Runs of this index: {', '.join(known) or 'none'}.")
    return read_run(path)


def read_run(path: Path) -> Run:
    """A run from its log; a last line that a crash cut off is left out. Raises RunInvalid."""
    entries: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        with suppress(ValueError):
            entries.append(json.loads(line))
    try:
        head = entries[0]
        steps = [Step(**entry) for entry in entries[1 : 1 + head["steps"]]]
        run = Run(path=path, action=head["action"], steps=steps)
        for entry in entries[1 + head["steps"] :]:
            run.finished |= entry.get("finished", False)
            if "merged" in entry:
                run.merged.setdefault(entry["merged"], entry["before"])
            for name, noted in (("done", run.done), ("undone", run.undone)):
                if name in entry:
                    noted.add(entry[name])
            if "skipped" in entry:
                run.skipped[entry["skipped"]] = entry["why"]
    except (IndexError, KeyError, TypeError) as error:
        raise RunInvalid(f"{path} is not a log of a run, or was changed.") from error
    return run


class Applying:
    """Takes the steps of a run, or takes them back. The index's lock is held."""

    def __init__(self, writer: Writer, run: Run, *, progress: Callable[[int], None] = lambda _: None) -> None:
        """progress: told how many steps have been looked at."""
        self._writer, self._run, self._progress = writer, run, progress

    def apply(self) -> None:
        """Take every step that is not done yet, then tell the index. Raises StepFailed."""
        run = self._run
        with _noting(run.path) as note:
            for number, step in enumerate(run.steps):
                self._progress(number)
                if number in run.done or number in run.skipped:
                    continue
                with _named(step.file):
                    why = self._take(step)
                if why is None:
                    run.done.add(number)
                    note({"done": number})
                else:
                    run.skipped[number] = why
                    note({"skipped": number, "why": why})
            self._merge(note)
            self._tell(gone=True)
            note({"finished": True})
            run.finished = True

    def undo(self) -> None:
        """Take back what was done, the last step first. Raises RunInvalid, StepFailed."""
        run = self._run
        if run.action == "delete" and run.done:
            raise RunInvalid("Deleted files cannot be brought back. Take them from a backup.")
        with _noting(run.path) as note:
            for number in sorted(run.done - run.undone, reverse=True):
                step = run.steps[number]
                with _named(step.file):
                    why = self._take_back(step)
                if why is not None:
                    run.skipped[number] = why
                    continue
                run.undone.add(number)
                note({"undone": number})
            with self._writer.transaction() as transaction:
                for image, before in run.merged.items():
                    transaction.describe(image, labels=before["labels"], metadata=before["metadata"])
            self._tell(gone=False)
            note({"finished": True})

    def _take(self, step: Step) -> str | None:
        """Take a step; None, or why it was not taken."""
        action = self._run.action
        file, kept, to = step.file, Path(step.kept), None if step.to is None else Path(step.to)
        temporary = _temporary(file)
        temporary.unlink(missing_ok=True)  # of a step that was interrupted
        if not _is(kept, step.kept_image):
            return f"{kept}, which would stay, is gone or has changed"
        if not file.exists():
            gone = action == "delete" or (to is not None and _is(to, step.image))
            return None if gone else "it is gone"
        if action in ("hardlink", "reflink") and file.samefile(kept):
            return None
        if not _is(file, step.image):
            return "it has changed"
        if action == "move":
            assert to is not None
            return _move(file, to, step.image)
        if action == "delete":
            file.unlink()
            sync(file.parent)
            return None
        if action == "hardlink":
            os.link(kept, temporary)
        else:
            _reflink(kept, temporary, file)
        temporary.replace(file)
        sync(file.parent)
        return None

    def _take_back(self, step: Step) -> str | None:
        file = step.file
        if self._run.action == "reflink":  # a file of its own already
            return None
        if self._run.action == "move":
            assert step.to is not None
            if not Path(step.to).exists():
                return None if _is(file, step.image) else f"{step.to} is gone"
            return _move(Path(step.to), file, step.image)
        if not _is(file, step.image):
            return "it has changed"
        temporary = _temporary(file)
        temporary.unlink(missing_ok=True)
        shutil.copyfile(file, temporary)
        shutil.copymode(file, temporary)
        os.utime(temporary, ns=(step.mtime_ns, step.mtime_ns))
        sync(temporary)
        temporary.replace(file)
        sync(file.parent)
        return None

    def _merge(self, note: Callable[[JsonObject], None]) -> None:
        """Give images that stay the labels and metadata of those that went. What they say themselves comes first."""
        gone: defaultdict[str, list[str]] = defaultdict(list)
        for number in self._run.done:
            step = self._run.steps[number]
            if step.image != step.kept_image and step.image not in gone[step.kept_image]:
                gone[step.kept_image].append(step.image)
        for kept, images in gone.items():
            if kept in self._run.merged:
                continue
            before, *others = self._records([kept, *images])
            labels = sorted({label for one in (before, *others) for label in one.labels})
            metadata: dict[str, Any] = {}
            for one in reversed((before, *others)):
                metadata |= one.metadata
            if labels == sorted(before.labels) and metadata == before.metadata:
                continue
            was = {"labels": [*before.labels], "metadata": {**before.metadata}}
            note({"merged": kept, "before": was})
            self._run.merged[kept] = was
            with self._writer.transaction() as transaction:
                transaction.describe(kept, labels=labels, metadata=metadata)

    def _records(self, images: Sequence[str]) -> list[ImageRecord]:
        return [self._writer.index.image(image) for image in images]

    def _tell(self, *, gone: bool) -> None:
        """Note in the index which files are not there any more, or again. A link is there as before."""
        if self._run.action in ("hardlink", "reflink"):
            return
        paths: defaultdict[str, list[str]] = defaultdict(list)
        for number in self._run.done if gone else self._run.undone:
            paths[self._run.steps[number].root].append(self._run.steps[number].path)
        with self._writer.transaction() as transaction:
            for root, these in paths.items():
                for start in range(0, len(these), PATHS):
                    transaction.mark_missing(root, these[start : start + PATHS], missing=gone)


@contextmanager
def _noting(path: Path) -> Iterator[Callable[[JsonObject], None]]:
    """Opens a log: each note is on the disk before the next step."""
    with _named(path), path.open("r+b") as file:
        content = file.read()
        if content[-1:] != b"\n":
            file.write(b"\n")  # after a line that a crash cut off

        def note(entry: JsonObject) -> None:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

        yield note


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns the system's refusals into StepFailed."""
    try:
        yield
    except OSError as error:
        raise StepFailed(
            f"{error.filename or path}: {error.strerror or error}. What was done is in the log. Mend this, and run the "
            "same command again: it goes on."
        ) from error


def _is(path: Path, image: str) -> bool:
    """Whether a file holds an image, by its hash."""
    try:
        return sha256_of(path) == image
    except OSError:
        return False


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.lookalike")


def _move(path: Path, to: Path, image: str) -> str | None:
    """Move a file to a name that nothing has; to another file system by a copy that is read again."""
    to.parent.mkdir(parents=True, exist_ok=True)
    _temporary(to).unlink(missing_ok=True)  # of a step that was interrupted
    if to.exists():
        if not _is(to, image):
            return f"{to} is there already"
    else:
        try:
            os.link(path, to)  # unlike a rename, it replaces nothing
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            temporary = _temporary(to)
            shutil.copy2(path, temporary)
            sync(temporary)
            if not _is(temporary, image):
                temporary.unlink()
                return f"its copy in {to.parent} is not what was written"
            temporary.rename(to)
        sync(to.parent)
    path.unlink()
    sync(path.parent)
    return None


def _reflink(kept: Path, temporary: Path, like: Path) -> None:
    """A file that shares its blocks with another, and has mode and time of `like`."""
    import fcntl  # not on Windows

    with kept.open("rb") as source, temporary.open("xb") as target:
        try:
            fcntl.ioctl(target, FICLONE, source.fileno())
        except OSError as error:
            temporary.unlink()
            raise StepFailed(
                f"The file system of {like} cannot share blocks (reflink): use hardlink, or move=FOLDER. Btrfs, XFS "
                "and bcachefs can."
            ) from error
        os.fsync(target.fileno())
    shutil.copystat(like, temporary)
