"""Sources: which files of a folder may be images, in a stable order, reading no more than their first bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from indexer.errors import SourceMissing
from indexer.pictures.formats import EXTENSIONS, HEADER_BYTES, is_read, kind_named, kind_of
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


Entry = Location | Failure | Ignored | Unsupported


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to scan under a root: a folder with all below it (`paths` None), or just these files.

    `prefix` is the folder's path relative to the root, `""` for the root itself, else ending in `/`.
    """

    root: Path
    prefix: str = ""
    paths: tuple[str, ...] | None = None


def resolve_sources(sources: Iterable[Path], listed: Iterable[Path], known_roots: Iterable[str]) -> list[Source]:
    """Give each source its root: a root the index knows already, where the source lies in one, else the folder itself.

    sources: folders or files as the user named them. listed: files from `--files-from`. Raises SourceMissing.
    """
    roots = [Path(root) for root in known_roots]
    named = [_existing(source) for source in sources]
    folders = [path for path in named if path.is_dir()]
    # abspath, not resolve: `..` must go, but a link stays a link and is judged by the scan.
    files = [path for path in named if not path.is_dir()] + [Path(os.path.abspath(path)) for path in listed]  # noqa: PTH100
    roots += sorted(folders + [path.parent for path in files], key=lambda path: len(path.parts))  # parents first
    prefixes: dict[Path, list[str]] = {}
    for folder in sorted(folders, key=lambda path: len(path.parts)):
        root, prefix = _home(folder, roots)
        if not _covered(prefix, prefixes.setdefault(root, [])):
            prefixes[root].append(prefix)
    single: dict[Path, set[str]] = {}
    for path in files:
        root, prefix = _home(path.parent, roots)
        if not _covered(prefix, prefixes.get(root, [])):
            single.setdefault(root, set()).add(path.relative_to(root).as_posix())
    return [
        *(Source(root=root, prefix=prefix) for root, inside in prefixes.items() for prefix in inside),
        *(Source(root=root, paths=tuple(sorted(paths))) for root, paths in single.items()),
    ]


def _covered(prefix: str, prefixes: Iterable[str]) -> bool:
    return any(prefix.startswith(outer) for outer in prefixes)


def _home(folder: Path, roots: Iterable[Path]) -> tuple[Path, str]:
    """The outermost root around a folder (there is one), and the folder's path in it, empty or ending in `/`."""
    root = min((root for root in roots if folder.is_relative_to(root)), key=lambda path: len(path.parts))
    relative = folder.relative_to(root).as_posix()
    return root, "" if relative == "." else f"{relative}/"


def _existing(source: Path) -> Path:
    try:
        path = source.expanduser().resolve(strict=True)
        if path.is_dir():
            next(os.scandir(path), None)
    except FileNotFoundError as error:
        raise SourceMissing(
            f"There is no {source}. Check the path, or whether its drive is connected. "
            "If its pictures are in an index and lie elsewhere now, use: lookalike move-root."
        ) from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceMissing(f"{source} cannot be read: {reason}. Check its permissions.") from error
    return path


def scan(source: Source, *, exclude: tuple[str, ...] = (), skip: frozenset[Path] = frozenset()) -> Iterator[Entry]:
    """Every file of a source, by name: a Location if it may be an image, a Failure if it cannot be read,
    Unsupported if it is a picture of a kind that is not read here, else Ignored.

    exclude: globs on a file's or folder's name, or its path relative to the root. skip: folders never entered (the
    index itself). Names beginning with `.` are ignored, and such folders not entered. Links to files are followed
    inside the root and are a Failure if they leave it; links to folders are not entered.
    """
    if source.paths is not None:
        for path in source.paths:
            yield from _file(source.root, path, listed=True)
    else:
        yield from _folder(source.root, source.prefix, exclude, skip)


def _folder(root: Path, prefix: str, exclude: tuple[str, ...], skip: frozenset[Path]) -> Iterator[Entry]:
    folder = root / prefix
    if folder in skip:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield Failure(root=str(root), path=_shown(prefix), mtime_ns=0, size=0, reason=f"folder: {_reason(error)}")
        return
    for entry in found:
        path = prefix + entry.name
        if entry.name.startswith(".") or _excluded(path, exclude):
            if not entry.is_dir(follow_symlinks=False):
                yield Ignored(path=path)
        elif entry.is_dir(follow_symlinks=False):
            yield from _folder(root, f"{path}/", exclude, skip)
        else:
            yield from _file(root, path)


def _file(root: Path, path: str, *, listed: bool = False) -> Iterator[Entry]:
    absolute = root / path
    facts: os.stat_result | None = None
    try:
        facts = absolute.stat()
        if absolute.is_symlink():
            if stat.S_ISDIR(facts.st_mode):
                yield Ignored(path=path)
                return
            if not absolute.resolve().is_relative_to(root.resolve()):
                yield _failure(root, path, facts, "a link that leads out of its folder")
                return
        kind = None if listed or not stat.S_ISREG(facts.st_mode) else _kind(absolute)
        if stat.S_ISREG(facts.st_mode) and (listed or is_read(kind)):
            if _shown(path) != path:
                yield _failure(root, path, facts, "its name is not valid UTF-8; rename it")
            else:
                yield Location(root=str(root), path=path, mtime_ns=facts.st_mtime_ns, size=facts.st_size)
        elif listed:
            yield _failure(root, path, facts, "not a file")
        elif kind is not None:
            yield Unsupported(path=path, kind=kind)
        else:
            yield Ignored(path=path)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle, on older Pythons
        yield _failure(root, path, facts, _reason(error))


def _kind(path: Path) -> str | None:
    """The kind of picture that a file claims to be: by its name alone where that is one that is always read."""
    suffix = PurePosixPath(path.name.lower()).suffix
    if suffix in EXTENSIONS:
        return kind_named(suffix)
    with path.open("rb") as file:
        return kind_of(file.read(HEADER_BYTES)) or kind_named(suffix)


def _excluded(path: str, exclude: tuple[str, ...]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, glob) or fnmatchcase(path, glob.rstrip("/")) for glob in exclude)


def _failure(root: Path, path: str, facts: os.stat_result | None, reason: str) -> Failure:
    mtime_ns, size = (facts.st_mtime_ns, facts.st_size) if facts else (0, 0)
    return Failure(root=str(root), path=_shown(path), mtime_ns=mtime_ns, size=size, reason=reason)


def _shown(path: str) -> str:
    """The path itself, or, where its bytes are not UTF-8, one that shows them as `\\xff`: SQLite and JSON hold text."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file, or a link that leads nowhere"
    return getattr(error, "strerror", None) or str(error)


def renamed_away(location: Location) -> bool:
    """Whether a file is gone while its root still holds others: on an unplugged drive nothing was renamed."""
    try:
        return gone(location.root, location.path) and any(os.scandir(location.root))
    except OSError:
        return False


def gone(root: str, path: str) -> bool:
    """Whether a file is certainly not there any more: a folder that cannot be read proves nothing."""
    try:
        Path(root, path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
