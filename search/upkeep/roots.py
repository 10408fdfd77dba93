"""Source folders that lie elsewhere now, or are gone for good."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from search.catalog.catalog import Catalog
from search.errors import RootMismatch, UnknownRoot
from search.names import composed
from search.writer import Writer

CHECKED_IMAGES = 1_000
"""Images of a root, of which one must be where the root is said to have moved to."""


def move_root(writer: Writer, old: Path, new: Path) -> list[str]:
    """Note that a root, or all roots in a folder, lie elsewhere now. Returns what they are called now.

    Raises UnknownRoot where there is none at `old`, RootMismatch where none of its images is at `new`, or others are
    known there by their names.
    """
    index = writer.index
    roots = [Path(root) for root in index.catalog.roots(failed=True) if root != str(index.uploads)]
    seen = [Path(root) for root in index.catalog.roots()]  # where nothing but a failure was is no root of pictures
    for place in _places(old):
        if moving := [root for root in roots if _composed(root).is_relative_to(place)]:
            break
    else:
        raise _unknown(old, map(str, roots))
    moved = []
    there = new.resolve()
    # A root may move to where another of them was: that one first.
    moving.sort(key=lambda root: len(root.parts), reverse=there.is_relative_to(place))
    with writer.transaction() as transaction:
        for root in moving:
            target = there.joinpath(*root.parts[len(place.parts) :])
            around = [other for other in seen if other not in moving and target.is_relative_to(other)]
            into = around[0] if around else target  # a folder inside a root belongs to that root
            prefix = "" if target == into else f"{target.relative_to(into).as_posix()}/"
            _must_be_there(index.catalog, root, target)
            if taken := transaction.taken(str(root), str(into), prefix):
                raise RootMismatch(
                    f"{taken[0]:,} pictures of {root} have the names of others that are known in {target}, such as "
                    f"{taken[1]}. Nothing was changed: remove the others first, or give these their own folder."
                )
            transaction.change_root(str(root), str(into), prefix)
            moved.append(str(target))
    return moved


def forget_root(writer: Writer, folder: Path) -> int:
    """Forget what was seen in a folder: a root, one inside a root, or one around roots. Returns how many files.

    Images that were nowhere else are removed, and come back where a build meets their content again. Files that could
    not be indexed count too. Raises UnknownRoot.
    """
    catalog = writer.index.catalog
    roots = [root for root in catalog.roots(failed=True) if root != str(writer.index.uploads)]
    with writer.transaction() as transaction:
        for place in _places(folder):
            forgotten = 0
            for root, here in ((root, _composed(Path(root))) for root in roots):
                if here.is_relative_to(place):
                    forgotten += transaction.forget_root(root, "")
                elif place.is_relative_to(here):
                    forgotten += transaction.forget_root(root, f"{place.relative_to(here).as_posix()}/")
            if forgotten:
                transaction.remove_unlocated()
                return forgotten
    raise _unknown(folder, roots)


def _places(folder: Path) -> Iterator[Path]:
    """A folder by its name, and where its links lead: a build resolves them, but not on a drive that is gone."""
    yield _composed(Path(os.path.abspath(folder)))  # noqa: PTH100 - a drive that is gone cannot be resolved
    with suppress(OSError, RuntimeError):  # links in a circle
        yield _composed(folder.resolve())


def _composed(path: Path) -> Path:
    return Path(composed(str(path)))


def _unknown(folder: Path, roots: Iterable[str]) -> UnknownRoot:
    return UnknownRoot(f"The index has no pictures of {folder.absolute()}. Its folders are: {', '.join(roots)}.")


def _must_be_there(catalog: Catalog, root: Path, target: Path) -> None:
    """Raises RootMismatch where a root's images are somewhere else."""
    paths = list(islice(catalog.paths_under(str(root), ""), CHECKED_IMAGES))
    if paths and not any((target / path).is_file() for path in paths):
        raise RootMismatch(
            f"None of the pictures of {root}, such as {paths[0]}, is in {target}. Name the folder that has them."
        )
