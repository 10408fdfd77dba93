"""Applying: takes the steps of a run, one file after the other, or takes them back; and tells the index.

1. Each content that was there is on the disk in full at every moment: under its name, set aside, or in FOLDER.
2. A file goes only once it is set aside, and the file that stays was read after that.
3. A step is noted as begun before it, and as done once it is on the disk. What was begun and not noted as done is found
   out first when a run goes on, or is taken back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from analysis.duplicates.decided import Apart
from analysis.duplicates.files import (
    FileLeft,
    Halfway,
    check_attributes,
    copy,
    facts_of,
    holds,
    let_go,
    move,
    read,
    reflink,
    restore,
    same,
    settle,
    sync_folder,
    there,
)
from analysis.duplicates.places import BROKEN_DISK, check_places, missing, mounted
from analysis.duplicates.plan import Request, Step
from analysis.duplicates.runs import Run, new_run
from analysis.duplicates.told import merge, tell, unmerge
from analysis.errors import RunInvalid, RunStopped
from search.errors import StorageFailed
from search.files import make_folder, storage_errors, sync
from search.journal import Journal
from search.writer import Writer


def begin(writer: Writer, request: Request, steps: Sequence[Step]) -> Run:
    """Note a run, before anything of it is done. Raises StorageFailed."""
    places = {place for step in steps for place in (step.root, *mounted(step))}
    if request.folder is not None:
        folder = Path(request.folder)
        with storage_errors(folder):
            new = not folder.exists()
            make_folder(folder)
            if new:
                folder.chmod(0o700)  # private pictures may come to lie there
        places.add(request.folder)
    return new_run(writer.index, request, {place: Path(place).stat().st_dev for place in sorted(places)}, steps)


class Applying:
    """Takes the steps of a run, or takes them back. The index's lock is held meanwhile."""

    def __init__(
        self,
        writer: Writer,
        run: Run,
        *,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """stopped: asked before each step; what is left then waits for the next time. progress: told of each step."""
        self._writer, self._run, self._stopped, self._progress = writer, run, stopped, progress
        self._devices: dict[Path, int] = {}
        self._made: set[Path] = set()

    def apply(self) -> None:
        """Take every step that is not taken yet. Raises RunInvalid (a drive is missing), RunStopped, StorageFailed."""
        run = self._run
        self._devices = check_places(run, self._writer.index.catalog)
        apart = Apart.of(self._writer.index, {step.image for step in run.steps if step is not None})
        with Journal(run.path) as journal:
            merge(self._writer, journal, run)
            for number, step in enumerate(run.steps):
                self._progress(1)
                if step is None or number in run.done or number in run.skipped:
                    continue
                if self._stopped():
                    tell(self._writer, run)
                    return
                with self._each(journal, number, step):
                    if not (number in run.begun and self._was_done(number, step)):
                        if apart.named([step.image]):  # after the run was planned: no plan lets such an image go
                            raise FileLeft("it was called no duplicate since")
                        journal.note({"begin": number})
                        self._take(number, step)
                    run.done.add(number)
                    journal.note({"done": number}, now=False)  # with the next, or it is found out again
            self._end(journal)

    def undo(self) -> None:
        """Take back what was done, the last step first; what was deleted stays so, and the rest is given up.

        Raises RunInvalid (nothing can be taken back, or a drive is missing), RunStopped, StorageFailed.
        """
        run = self._run
        deleting = run.request.action == "delete"
        self._devices = check_places(run, self._writer.index.catalog)
        with Journal(run.path) as journal:
            self._find_out(journal)
            if deleting and run.over:
                raise RunInvalid("Deleted files cannot be brought back. Take them from a backup.")
            if run.state == "undone" and not run.gone:
                raise RunInvalid(f"The run {run.name} was taken back already.")
            if deleting:
                for number in set(range(len(run.steps))) - run.done - set(run.skipped):
                    self._skip(journal, number, "the run was given up")
                self._end(journal)
                return
            journal.note({"state": "undoing"})
            run.state = "undoing"
            for number in sorted(run.gone, reverse=True):
                self._progress(1)
                step = run.steps[number]
                if step is None:
                    continue
                if self._stopped():
                    tell(self._writer, run)
                    return
                with self._each(journal, number, step):
                    if not (number in run.undo_begun and self._was_taken_back(number, step)):
                        journal.note({"begin": number})
                        self._take_back(number, step)
                    restore(step.file, step.facts)
                    with suppress(PermissionError):  # its owner may read it, and we not
                        sync(step.file)
                    run.undone.add(number)
                    run.skipped.pop(number, None)
                    journal.note({"undone": number}, now=False)
            unmerge(self._writer, journal, run)
            tell(self._writer, run)
            self._clear_folder()
            journal.note({"state": "undone"})
            run.state = "undone"

    def _end(self, journal: Journal) -> None:
        unmerge(self._writer, journal, self._run)
        tell(self._writer, self._run)
        journal.note({"state": "finished"})
        self._run.state = "finished"

    @contextmanager
    def _each(self, journal: Journal, number: int, step: Step) -> Iterator[None]:
        """What is wrong with one file leaves this file; a drive that is full, broken or gone ends the run."""
        try:
            yield
        except FileLeft as left:
            self._look_again()
            self._skip(journal, number, str(left))
        except Halfway as half:
            self._stop(str(half))
        except OSError as error:
            if error.errno in BROKEN_DISK:
                self._stop(f"{error.filename or step.file}: {error.strerror}")
            self._look_again()
            self._skip(journal, number, error.strerror or str(error))

    def _look_again(self) -> None:
        """Stop where a root or FOLDER went away: no file there has gone by itself. Raises RunStopped."""
        gone = missing(self._devices)
        if gone is not None:
            self._stop(f"{gone} is not there any more")

    def _stop(self, why: str) -> NoReturn:
        with suppress(StorageFailed):
            tell(self._writer, self._run)
        raise RunStopped(
            f"{why}. The run {self._run.name} has stopped, and no file is lost. Make room, mend the disk or connect "
            "the drive, and give the same command again: it goes on."
        )

    def _skip(self, journal: Journal, number: int, why: str) -> None:
        self._run.skipped[number] = why
        journal.note({"skip": number, "why": why})

    def _find_out(self, journal: Journal) -> None:
        """Note steps that were done and not noted; one whose file cannot get its name back stays as it is."""
        run = self._run
        for number in sorted(run.begun - run.done):
            step = run.steps[number]
            if step is None:
                continue
            with suppress(FileLeft), self._finding_out(step):
                if number in run.skipped:  # what lies in FOLDER is not ours
                    settle(step.file, run.names(number), step.image)
                elif self._was_done(number, step):
                    run.done.add(number)
                    journal.note({"done": number})

    @contextmanager
    def _finding_out(self, step: Step) -> Iterator[None]:
        """Stop where it cannot be told how far a step is: it is not taken for left. Raises RunStopped."""
        try:
            yield
        except (Halfway, OSError) as error:
            self._stop(f"{step.file}: {error}")

    def _was_done(self, number: int, step: Step) -> bool:
        """Whether a step that was begun was done; half of it is taken back. Raises FileLeft, RunStopped."""
        to = None if step.to is None else Path(step.to)
        with self._finding_out(step):
            settle(step.file, self._run.names(number), step.image, to)
            here, moved = there(step.file), to is not None and there(to)
            linked = here and self._run.request.action == "hardlink" and _is_linked(step)
        self._look_again()
        if to is not None:
            return not here and moved
        return linked or (self._run.request.action == "delete" and not here)

    def _take(self, number: int, step: Step) -> None:
        """Take a step. Raises FileLeft, OSError: nothing has changed then."""
        action, names, file = self._run.request.action, self._run.names(number), step.file
        try:
            seen = read(file, Path(step.root), step.image)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileLeft("it is gone") from error
        if (seen.st_size, seen.st_mtime_ns) != (step.facts.size, step.facts.mtime_ns):
            raise FileLeft(f"{file} has changed")
        if action in ("hardlink", "reflink") and step.image != step.kept_image:
            raise FileLeft("only equal files can share their content")

        def stays() -> None:
            kept = _check_stays(step)
            alike = (kept.st_ino, kept.st_size, kept.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns)
            if action == "delete" and alike:  # the names of a network drive may be old
                raise FileLeft(f"it and {step.kept} may be one file that is mounted twice: use move")

        if step.to is not None:
            to = Path(step.to)
            self._make_own(to.parent, Path(self._run.request.folder or ""))
            move(file, to, seen, names, step.facts, step.image, stays)
            return
        if action == "delete":
            let_go(file, seen, names, stays)
            return
        draft = names.draft(file)
        if action == "hardlink":
            if os.path.samestat(seen, step.kept.lstat()):
                raise FileLeft(f"it and {step.kept} are one file already")
            check_attributes(file, step.kept)
            os.link(step.kept, draft)
        else:
            reflink(step.kept, draft, file, step.facts)
        self._swap(step, draft, number, seen, stays)

    def _swap(self, step: Step, draft: Path, number: int, seen: os.stat_result, check: Callable[[], None]) -> None:
        """Put a draft in the place of a file. The draft is gone in any case."""

        def checked() -> None:
            check()
            if not holds(draft, step.image):
                raise FileLeft("what was to take its place is not equal")

        try:
            let_go(step.file, seen, self._run.names(number), checked, draft)
        finally:
            draft.unlink(missing_ok=True)

    def _was_taken_back(self, number: int, step: Step) -> bool:
        """Whether a move that was begun to be taken back was so; half of it is done again. Raises as `_was_done`."""
        names = self._run.names(number)
        with self._finding_out(step):
            if step.to is None:
                settle(step.file, names, step.image)
                return False
            settle(Path(step.to), names, step.image, step.file)
            moved = there(Path(step.to))
        self._look_again()
        return not moved and holds(step.file, step.image)

    def _take_back(self, number: int, step: Step) -> None:
        """Take back a step that is done. Raises FileLeft, OSError: nothing has changed then."""
        action, names, file = self._run.request.action, self._run.names(number), step.file
        if step.to is not None:
            source = Path(step.to)
            try:
                seen = read(source, Path(self._run.request.folder or ""), step.image)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FileLeft(f"{source} is gone") from error
            self._make_own(file.parent, Path(step.root))
            move(source, file, seen, names, step.facts, step.image, lambda: None)
        else:
            seen = read(file, Path(step.root), step.image)
            if action == "hardlink":
                draft = names.draft(file)
                draft.unlink(missing_ok=True)
                copy(file, draft, step.image, step.facts)
                self._swap(step, draft, number, seen, lambda: None)

    def _make_own(self, folder: Path, top: Path) -> None:
        """Make a folder below another one. Raises FileLeft where a link leads out of it, OSError."""
        if not (folder in self._made and folder.is_dir()):
            make_folder(folder)
            self._made.add(folder)
        if folder.resolve() != top.resolve() / folder.relative_to(top):
            raise FileLeft(f"{folder} leads through a link")

    def _clear_folder(self) -> None:
        """Take away the folders in FOLDER that are empty now."""
        for step in self._run.taken(self._run.undone):
            with suppress(OSError):
                for folder in Path(step.to or "").parents:
                    if str(folder) == self._run.request.folder:
                        break
                    folder.rmdir()


def _is_linked(step: Step) -> bool:
    """Whether a file is the one that stays, or was that before somebody replaced that one. Raises OSError."""
    if there(step.kept) and os.path.samestat(step.file.lstat(), step.kept.lstat()):
        return True
    other = replace(facts_of(step.file), atime_ns=step.facts.atime_ns) != step.facts
    return other and holds(step.file, step.image)


def _check_stays(step: Step) -> os.stat_result:
    """Read the file that is to stay, and wait until it is on the disk. Returns its lstat.

    Raises FileLeft where it is not as it was, OSError.
    """
    kept = step.kept
    try:
        seen = read(kept, Path(step.kept_root), step.kept_image)
        if (seen.st_size, seen.st_mtime_ns) != (step.kept_size, step.kept_mtime_ns):
            raise FileLeft("it has changed")
        sync(kept)
        sync_folder(kept.parent)
        if not same(seen, kept.lstat()):
            raise FileLeft("it has changed")
        return seen
    except FileLeft as left:
        raise FileLeft(f"the file that would stay: {left}") from left
    except OSError as error:
        if error.errno in BROKEN_DISK:
            raise
        raise FileLeft(f"{kept}, which would stay, is gone, or cannot be read: {error.strerror}") from error
