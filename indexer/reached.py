"""What a scan has come to: what it did not reach is not in its source any more, but for what it could not look at."""

from __future__ import annotations

import stat
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from indexer.folders import Entry, LinkedFolder, Unsupported
from indexer.sources import folders_above
from search.types import Failure, Location


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The paths that a scan of one source has met, relative to its root; some 100 bytes each.

    files: what may be an image, or is one of a kind not read here. failed: files that cannot be read, or are gone.
    unread: folders that could not be listed and links that lead nowhere, links: folders behind links that were not
    entered, each ending in `/`.
    """

    files: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    def note(self, entry: Entry) -> None:
        """Note what the scan has found."""
        match entry:
            case Location() | Unsupported():
                self.files.add(entry.path)
            case Failure() if entry.path[-1:] in ("", "/"):
                self.unread.add(entry.path)
            case Failure():
                self.failed.add(entry.path)
                if _may_hide_files(Path(entry.root, entry.path)):
                    self.unread.add(f"{entry.path}/")
            case LinkedFolder():
                self.links.add(f"{entry.path}/")


def _may_hide_files(path: Path) -> bool:
    """Whether there may be files below what could not be read: a link, or what not even tells its kind."""
    try:
        return stat.S_ISLNK(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def is_below(path: str, folders: Set[str]) -> bool:
    """Whether a path is in one of these folders, each ending in `/`; `""` is the root."""
    return bool(folders) and any(folder in folders for folder in folders_above(path))
