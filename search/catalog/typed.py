"""Paths as people type them, found among those that the catalog has."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from search.catalog.lookup import KnownLocation, Lookup
from search.names import composed, is_text


class TypedPaths:
    """Finds locations by paths with `/` or `\\`, with `./` in front, relative or absolute, accents in either form."""

    def __init__(self, lookup: Lookup, roots: Sequence[str], *, inside: Sequence[tuple[str, str]] = ()) -> None:
        """roots: of the index. inside: a root and a prefix (`2024/`, or empty) where relative paths may begin.

        A relative path may also begin in the current folder.
        """
        self._lookup = lookup
        self._roots = roots
        self._inside = inside
        self._decomposed: dict[str, dict[str, str]] = {}

    def find(self, typed: str) -> Iterator[KnownLocation]:
        """Locations known by this path, likeliest first: as it is typed, then as it may be meant."""
        if "\0" in typed or not is_text(typed):
            return
        told: set[tuple[str, str]] = set()
        for name in dict.fromkeys((typed, typed.replace("\\", "/"))):
            for root, path in self._places(name):
                found = self._known(root, path)
                if found is not None and (root, found.location.path) not in told:
                    told.add((root, found.location.path))
                    yield found

    def _places(self, name: str) -> Iterator[tuple[str, str]]:
        for root, prefix in self._inside:
            yield root, posixpath.normpath(prefix + name)
        here = Path(name)
        for path in dict.fromkeys((here.absolute().as_posix(), _resolved(here), name)):
            for root in self._roots:
                outer = composed(root).replace("\\", "/").rstrip("/") + "/"
                if composed(path).startswith(outer):
                    # By characters of the composed form: what is below the root is looked up in both forms.
                    yield root, posixpath.normpath(composed(path)[len(outer) :])
                if path.startswith(root.rstrip("/") + "/"):
                    yield root, posixpath.normpath(path[len(root.rstrip("/")) + 1 :])

    def _known(self, root: str, path: str) -> KnownLocation | None:
        found = self._lookup.known(root, path)
        if found is not None or path.isascii():
            return found
        if root not in self._decomposed:
            self._decomposed[root] = self._lookup.decomposed(root)
        return self._lookup.known(root, self._decomposed[root].get(composed(path), composed(path)))


def is_id(name: str) -> bool:
    """Whether a name has the form of an image's id."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", name) is not None


def named_image(lookup: Lookup, roots: Sequence[str], name: str) -> str | None:
    """The id of an image named by its id or by the path of one of its files. roots: of the index."""
    if is_id(name):
        return name.lower() if lookup.rowid(name.lower()) is not None else None
    found = TypedPaths(lookup, roots).find(name)
    return next((known.image_id for known in found if known.image_id is not None), None)


def _resolved(path: Path) -> str:
    try:
        return path.resolve().as_posix()
    except (OSError, RuntimeError):  # links in a circle, a path that is too long
        return path.as_posix()
