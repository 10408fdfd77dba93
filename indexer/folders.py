"""Folders: which files of a source may be images, in a stable order, reading no more than their first bytes."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

from indexer.omissions import DOWNLOADING, Rule, file_rule, folder_rule
from indexer.pictures.formats import EXTENSIONS, HEADER_BYTES, is_read, kind_named, kind_of
from indexer.sources import Source, folders_above, real_path
from search.names import composed
from search.types import Failure, Location


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """A file that neither by its name nor by its first bytes claims to be an image, or that was excluded."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """A picture of a kind that is known, but not read here: `kind` is its name for a report."""

    path: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A folder, or a file that begins as a picture does, that a rule of `omissions` leaves out."""

    root: Path
    path: str
    rule: Rule


@dataclass(frozen=True, kw_only=True)
class LinkedFolder:
    """A link to a folder that was not entered."""

    root: Path
    path: str


Entry = Location | Failure | Ignored | Unsupported | LeftOut | LinkedFolder


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which files of a folder are taken.

    exclude: globs on a file's or folder's name, or its path relative to the root; a bracket also stands for itself.
    skip: folders never entered (the index itself). all_folders: also enter folders that `omissions` leaves out.
    follow_links: enter links to folders.
    """

    exclude: tuple[str, ...] = ()
    skip: frozenset[Path] = frozenset()
    all_folders: bool = False
    follow_links: bool = False

    def excludes(self, path: str) -> bool:
        """Whether a glob names this file or folder. Accents count as the same, composed or decomposed."""
        if not self.exclude:
            return False
        path = composed(path)
        name = path.rpartition("/")[2]
        for glob in (composed(glob).rstrip("/") for glob in self.exclude):
            literal = glob.replace("[", "[[]")
            if any(fnmatchcase(name, one) or fnmatchcase(path, one) for one in (glob, literal)):
                return True
        return False

    def skips(self, path: Path) -> bool:
        """Whether a file or folder lies in one that is never entered, by its name or by where links lead."""
        return bool(self.skip) and any(
            above in self.skip for named in (path, _real(path.parent)) for above in (named, *named.parents)
        )

    def excludes_within(self, prefix: str, path: str) -> bool:
        """Whether a glob names this file or folder, or one around it below the folder `prefix`."""
        above = (folder.rstrip("/") for folder in folders_above(path) if len(folder) > len(prefix))
        return self.excludes(path.rstrip("/")) or any(self.excludes(folder) for folder in above)


_real = lru_cache(10_000)(real_path)
EVERYTHING = Choice()
NOT_A_FILE, NO_SUCH_FILE = "not a file", "no such file, or a link that leads nowhere"
"""Reasons of failures that are the faults of a list, and not of a picture."""


def scan(source: Source, choice: Choice = EVERYTHING) -> Iterator[Entry]:
    """Every file of a source, by name: a Location if it may be an image, a Failure if it cannot be read, Unsupported
    if it is a picture of a kind that is not read here, else Ignored. And folders not entered: LeftOut, LinkedFolder.

    Names beginning with `.` are ignored, and such folders not entered, but for those that were named. Links to files
    are followed inside the root and are a Failure if they leave it. Links to folders are entered last, where the choice
    follows them: no folder is entered twice, and each at its own path if it has one in the source.
    """
    for path in source.paths or ():
        if choice.skips(source.root / path):
            yield Ignored(path=path)
        else:
            yield from _file(source.root, path, listed=True, any_kind=True)
    if source.paths is not None:
        return
    named = frozenset(
        path
        for path in source.named
        if not (choice.excludes_within(source.prefix, path) or choice.skips(source.root / path))
    )
    for path in sorted(path for path in named if not path.endswith("/")):
        yield from _file(source.root, path, listed=True)
    entered = {_identity(folder) for folder in choice.skip if choice.follow_links and folder.is_dir()}
    folders = deque([source.prefix, *sorted(path for path in named if path.endswith("/"))])
    while folders:
        prefix = folders.popleft()
        # Not by recursion: a runaway copy of a folder into itself is a thousand folders deep.
        judged = prefix != source.prefix and prefix not in named
        stack = [_folder(source.root, prefix, choice, entered, named, judged=judged)]
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, _Subfolder):
                stack.append(_folder(source.root, found.prefix, choice, entered, named))
            elif isinstance(found, LinkedFolder) and choice.follow_links:
                folders.append(f"{found.path}/")
            else:
                yield found


@dataclass(frozen=True)
class _Subfolder:
    """A folder to enter next."""

    prefix: str


def _folder(
    root: Path,
    prefix: str,
    choice: Choice,
    entered: set[tuple[int, int]],
    named: Set[str],
    *,
    judged: bool = True,
) -> Iterator[Entry | _Subfolder]:
    """List one folder, by name, without what was named. entered: folders never to enter again. judged: by rules."""
    folder = root / prefix
    if folder in choice.skip:
        return
    judged = judged and not choice.all_folders
    rule = folder_rule(folder.name, folder.parent.name) if judged else None
    try:
        if rule is None:
            if choice.follow_links:
                identity = _identity(folder)
                if identity in entered:
                    return
                entered.add(identity)
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            names = frozenset(entry.name for entry in found)
            rule = folder_rule(folder.name, folder.parent.name, names) if judged else None
    except OSError as error:
        yield Failure(root=str(root), path=_shown(prefix), mtime_ns=0, size=0, reason=f"folder: {_reason(error)}")
        return
    if rule is not None:
        yield LeftOut(root=root, path=_shown(prefix), rule=rule)
        return
    for entry in found:
        path = prefix + entry.name
        try:
            linked = entry.is_symlink() or getattr(entry, "is_junction", bool)()  # of Windows, from Python 3.12 on
            is_folder = entry.is_dir()
        except OSError:  # what it is cannot be told: `_file` says why
            linked = is_folder = False
        if named and (f"{path}/" if is_folder else path) in named:
            continue
        if entry.name.startswith(".") or choice.excludes(path):
            if linked or not is_folder:
                yield Ignored(path=path)
        elif linked and is_folder:
            yield LinkedFolder(root=root, path=path)
        elif is_folder:
            yield _Subfolder(f"{path}/")
        else:
            yield from _file(root, path, linked=linked, beside=names)


def _identity(folder: Path) -> tuple[int, int]:
    """The identity of a folder on this machine, by whatever path."""
    facts = folder.stat()
    return facts.st_dev, facts.st_ino


def _file(
    root: Path,
    path: str,
    *,
    linked: bool = False,
    listed: bool = False,
    any_kind: bool = False,
    beside: Set[str] = frozenset(),
) -> Iterator[Entry]:
    """One file. linked: it is a link. listed: by its user, so no rule leaves it out. any_kind: taken whatever its first
    bytes say. beside: its folder's names.
    """
    absolute = root / path
    try:
        facts = absolute.stat()
        if (linked or (listed and absolute.is_symlink())) and not absolute.resolve().is_relative_to(root.resolve()):
            yield _failure(root, path, "a link that leads out of its folder")
            return
        is_file = stat.S_ISREG(facts.st_mode)
        kind = _kind(absolute) if is_file and not any_kind else None
        if is_file and (any_kind or is_read(kind)):
            name = path.rpartition("/")[2]
            rule = None if listed else DOWNLOADING if f"{name}.aria2" in beside else file_rule(name)
            if rule is not None:
                yield LeftOut(root=root, path=_shown(path), rule=rule)
            elif _shown(path) != path:
                yield _failure(root, path, "its name is not valid UTF-8; rename it")
            else:
                yield Location(root=str(root), path=path, mtime_ns=facts.st_mtime_ns, size=facts.st_size)
        elif listed and not is_file:
            yield _failure(root, path, NOT_A_FILE)
        elif kind is not None:
            yield Unsupported(path=path, kind=kind)
        else:
            yield Ignored(path=path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle, on older Pythons
        yield _failure(root, path, _reason(error))


def _kind(path: Path) -> str | None:
    """The kind of picture that a file claims to be: by its name alone where that is one that is always read."""
    suffix = PurePosixPath(path.name.lower()).suffix
    if suffix in EXTENSIONS:
        return kind_named(suffix)
    with path.open("rb") as file:
        return kind_of(file.read(HEADER_BYTES)) or kind_named(suffix)


def _failure(root: Path, path: str, reason: str) -> Failure:
    """A file that cannot be taken now. No time and size: what a scan says is never a reason not to try again."""
    return Failure(root=str(root), path=_shown(path), mtime_ns=0, size=0, reason=reason)


def _shown(path: str) -> str:
    """The path itself, or, where its bytes are not UTF-8, one that shows them as `\\xff`: SQLite and JSON hold text."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return NO_SUCH_FILE
    return getattr(error, "strerror", None) or str(error)
