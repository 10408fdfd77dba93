"""Sources: folders and files that a user names, each with its root; and whether a file of one is there still."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from indexer.errors import SourceMissing
from search.names import composed, folded, is_text
from search.types import Location


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source, scanned under a root: a folder with all below it (`paths` None), or just these files.

    `prefix` is the folder's path relative to the root, `""` for the root itself, else ending in `/`. `named`: files and
    folders (ending in `/`) inside it that were named too, so they are taken though hidden, or left out by a rule.
    """

    root: Path
    prefix: str = ""
    paths: tuple[str, ...] | None = None
    named: tuple[str, ...] = ()

    def holds_files(self) -> bool:
        """Whether it is a folder, or one of its files is there: a wrong line of a list is no reason for a root."""
        return self.paths is None or any(is_file(self.root / path) for path in self.paths)


def resolve_sources(sources: Iterable[Path], listed: Iterable[Path], known_roots: Iterable[str]) -> list[Source]:
    """Give each source its root: a root the index knows already, where the source lies in one, else the folder itself.

    sources: folders or files as the user named them. listed: files from `--files-from`. Raises SourceMissing.
    """
    known: dict[str, list[Path]] = {}
    for name in known_roots:
        known.setdefault(folded(name), []).append(Path(name))
    named = [_as_known(_existing(source), known) for source in sources]
    folders = [path for path in named if path.is_dir()]
    roots = {root for spellings in known.values() for root in spellings} | {*folders}
    resolved = cache(real_path)
    files = [path for path in named if not path.is_dir()] + [_listed_path(path, roots, resolved) for path in listed]
    for folder in (*folders, *(path.parent for path in files)):
        if not is_text(str(folder)):
            raise SourceMissing(f"{folder} cannot be indexed: its path is not valid UTF-8; rename it.")
    # A folder, or nothing, in a list: named in the report, and no reason to take what lies beside it for a source.
    roots |= {path.parent for path in files if is_file(path)}
    inside: dict[Path, dict[str, set[str]]] = {}
    for folder in sorted(dict.fromkeys(folders), key=lambda path: len(path.parts)):
        root, prefix = _home(folder, roots)
        within = _around(prefix, inside.setdefault(root, {}))
        if within is None:
            inside[root][prefix] = set()
        else:
            within.add(prefix)
    single: dict[Path, set[str]] = {}
    for path in files:
        is_folder = _is_folder(path)
        folder = path if is_folder else path.parent
        root, prefix = _home(folder, roots) if _outermost(folder, roots) is not None else (path.parent, "")
        within = _around(prefix, inside.get(root, {}))
        if within is None:
            root = root if path != root else path.parent
            single.setdefault(root, set()).add(path.relative_to(root).as_posix())
        elif not is_folder:  # a folder in a list is read anyway where it is, or lies in, a source
            within.add(path.relative_to(root).as_posix())
    return [
        *(
            Source(root=root, prefix=prefix, named=tuple(sorted(named)))
            for root, prefixes in inside.items()
            for prefix, named in prefixes.items()
        ),
        *(Source(root=root, paths=tuple(sorted(paths))) for root, paths in single.items()),
    ]


def _as_known(path: Path, known: Mapping[str, Sequence[Path]]) -> Path:
    """A path below a root as the index has it, where the file system takes names in several ways (other case).

    known: roots by their folded names.
    """
    for above in (path, *path.parents):
        for root in sorted(known.get(folded(str(above)), ()), key=lambda root: root != above):
            with suppress(OSError):
                if root == above or root.samefile(above):
                    below = path.parts[len(root.parts) :]
                    return _as_spelled(root, below) if path.is_dir() else root.joinpath(*below)
    return path


def _as_spelled(folder: Path, below: Iterable[str]) -> Path:
    """A folder as the folders above it list it."""
    for part in below:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
        if part not in names:
            part = next((name for name in names if folded(name) == folded(part)), part)
        folder /= part
    return folder


def _listed_path(path: Path, roots: Set[Path], resolved: Callable[[Path], Path]) -> Path:
    """A path of a list, absolute. A link stays a link, and is judged by the scan. Links to folders above it stay where
    the path so named lies in a root, and not elsewhere in this root without them, where a scan would find it.

    resolved: `real_path`, which need not be asked twice for a folder.
    """
    path = as_on_disk(path)
    named = Path(os.path.abspath(path))  # noqa: PTH100 - a link in a list stays a link
    root = _outermost(named, roots)
    if ".." not in path.parts and root is not None:
        real = resolved(named.parent) / named.name
        return real if _outermost(real, roots) == root else named
    return resolved(path) if path.name == ".." else resolved(path.parent) / path.name


def is_file(path: Path) -> bool:
    """Whether there is a file, as far as it can be told."""
    with suppress(OSError):  # a name that is too long, a folder that may not be entered
        return path.is_file()
    return False


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def real_path(path: Path) -> Path:
    """Where a path leads; the path itself, absolute, where its links lead in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _around(prefix: str, prefixes: Mapping[str, set[str]]) -> set[str] | None:
    """What was named inside the folder that lies around this one, or is it; None: there is no such folder."""
    return next((prefixes[above] for above in folders_above(prefix) if above in prefixes), None)


def _outermost(path: Path, roots: Set[Path]) -> Path | None:
    """The outermost root around a path, or the path itself if it is one; by its parents, since roots may be many."""
    return next((above for above in (*reversed(path.parents), path) if above in roots), None)


def _home(folder: Path, roots: Set[Path]) -> tuple[Path, str]:
    """The outermost root around a folder (there is one), and the folder's path in it, empty or ending in `/`."""
    root = _outermost(folder, roots)
    assert root is not None, "each source is its own root where no other is"
    relative = folder.relative_to(root).as_posix()
    return root, "" if relative == "." else f"{relative}/"


def as_on_disk(path: Path) -> Path:
    """The path with its accents composed or decomposed as the disk has them; as it is where there is no such name."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if not os.path.lexists(found / part):
            try:
                names = [entry.name for entry in found.iterdir()]
            except OSError:
                return path
            part = next((name for name in names if composed(name) == composed(part)), part)
        found /= part
    return found


def _existing(source: Path) -> Path:
    try:
        path = as_on_disk(source.expanduser()).resolve(strict=True)
        if path.is_dir():
            next(os.scandir(path), None)
    except FileNotFoundError as error:
        raise SourceMissing(
            f"There is no {source}. Check the path, or whether its drive is connected. "
            "If its pictures are in an index and lie elsewhere now, use lookalike move-root. If they are gone for "
            "good, use lookalike forget-root."
        ) from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceMissing(f"{source} cannot be read: {reason}. Check its permissions.") from error
    return path


def renamed_away(old: Location, new: Location) -> bool:
    """Whether a file is gone while its root still holds others: on an unplugged drive nothing was renamed.

    Where case or composition does not count, a file that was only renamed so is found under both names.
    """
    try:
        if not gone(old.root, old.path):
            return folded(old.path) == folded(new.path) and not _listed(old.root, old.path)
        return any(os.scandir(old.root))
    except OSError:
        return False


def _listed(root: str, path: str) -> bool:
    """Whether a path is spelled as its folders list it."""
    folder = root
    for part in path.split("/"):
        if part not in os.listdir(folder):  # noqa: PTH208 - names alone
            return False
        folder = os.path.join(folder, part)  # noqa: PTH118
    return True


def gone(root: str, path: str) -> bool:
    """Whether a file is certainly not there any more: a folder that cannot be read proves nothing."""
    try:
        Path(root, path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def unplugged_folders(source: Source, paths: Iterable[str]) -> set[str]:
    """The topmost folders above these files of which a drive may have been disconnected, each ending in `/`.

    They hold no file any more, or went themselves and were at the top of the source, where drives are mounted. `""` is
    the root itself.
    """
    found: set[str] = set()
    checked: dict[str, bool] = {}
    top = source.prefix.count("/") + 1
    for path in paths:
        for depth, folder in enumerate(folders_above(path)):
            if folder not in checked:
                vanished = depth == top and gone(str(source.root), folder)
                checked[folder] = vanished or _holds_no_file(source.root / folder)
            if checked[folder]:
                found.add(folder)
                break
    return found


def folders_above(path: str) -> Iterator[str]:
    """The folders that a relative path lies in, the outermost first: `""`, `2024/`, `2024/africa/`."""
    yield ""
    end = path.find("/")
    while end >= 0:
        yield path[: end + 1]
        end = path.find("/", end + 1)


def _holds_no_file(folder: Path) -> bool:
    """Whether a folder is there and has no file in it, nor in any folder below; hidden ones aside."""
    if not folder.is_dir():
        return False
    return not any(not name.startswith(".") for _, _, files in os.walk(folder) for name in files)
