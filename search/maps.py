"""Where maps of spaces are kept in an index. What is in them is no concern of searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote


def map_file(index: Path, space: str) -> Path:
    """The file of a space's map in an index's folder."""
    return index / "maps" / f"{quote(space, safe='')}.json"


def sweep_maps(index: Path, spaces: Callable[[], Iterable[str]]) -> None:
    """Delete maps of spaces that are gone. spaces: the names of those that are there. Raises OSError."""
    found = [*(index / "maps").glob("*.json")]  # first: a map that is added meanwhile is of a space that is there
    there = {map_file(index, space) for space in spaces()}
    for file in found:
        if file not in there:
            file.unlink(missing_ok=True)
