"""What `dups` does with decisions: it remembers, lists and forgets that images are not duplicates."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from search.console import default_index, plural, print_json, say

if TYPE_CHECKING:
    from search.index import Index

NOTED = "--not-duplicates"
FORGOTTEN = "--forget"
SHOWN = 50
"""Decisions printed; `--json` has all."""


def remember_decision(directory: Path, names: Sequence[str], as_json: bool) -> None:
    """Remember that images are not duplicates of each other; of a single one, or of one that is named twice, that its
    copies are wanted."""
    from search.catalog.decisions import MAX_IMAGES
    from search.index import Index

    _check_named(directory, names, NOTED)
    if len(names) > MAX_IMAGES:
        raise typer.BadParameter(f"Name up to {MAX_IMAGES} images at once.", param_hint=NOTED)
    with Index.open(directory, writable=True) as index, index.writer() as writer:
        ids = [_image(index, name) for name in names]
        pairs = writer.set_not_duplicates(ids if len(ids) > 1 else ids * 2)
    if as_json:
        print_json({"images": ids, "pairs": pairs})
        return
    if len({*ids}) == 1:
        say("All files of this image are wanted: from now on none is extra.")
        return
    say(f"These {len({*ids})} images are not duplicates of each other. From now on no file of theirs is extra.")
    if twice := len({name for name in ids if ids.count(name) > 1}):
        say(f"Of {plural(twice, 'image')} you named equal files: that copies are wanted is a decision of its own.")


def forget_decisions(directory: Path, names: Sequence[str], as_json: bool) -> None:
    """Forget that images are not duplicates of each other; of a single one, of any other."""
    from search.index import Index

    _check_named(directory, names, FORGOTTEN)
    with Index.open(directory, writable=True) as index, index.writer() as writer:
        ids = [_image(index, name, removed=True) for name in names]
        pairs = writer.clear_not_duplicates(ids)
        left = len(index.catalog.decisions(ids))
    if as_json:
        print_json({"images": ids, "pairs": pairs})
    else:
        say(f"{plural(pairs, 'decision')} forgotten.")
        if left:
            stay = "stays" if left == 1 else "stay"
            say(f"{plural(left, 'decision')} about these images {stay}. To forget all of one image's, name it alone.")


def list_decisions(directory: Path, as_json: bool) -> None:
    """Print which images are not duplicates of each other, and of which all copies are wanted."""
    from search.index import Index

    with Index.open(directory) as index:
        decisions = index.catalog.decisions()
        rowids = index.catalog.rowids({name for held in decisions for name in (held.one, held.other)})
        paths = {record.id: [*record.paths] for record in index.catalog.records(rowids.values()).values()}
    if as_json:
        shown = [
            {
                "kind": "copies-wanted" if held.one == held.other else "not-duplicates",
                "images": [{"id": name, "paths": paths.get(name, [])} for name in dict.fromkeys(held[:2])],
                "decided_at": held.decided_at,
            }
            for held in decisions
        ]
        print_json({"decisions": shown})
        return
    for held in decisions[:SHOWN]:
        first, second = (paths.get(name) or [f"{name} (not in the index now)"] for name in held[:2])
        if held.one == held.other:
            say(f"{held.decided_at[:10]}  {first[0]}  (all copies are wanted)")
        else:
            say(f"{held.decided_at[:10]}  {first[0]}")
            say(f"            {second[0]}")
    if len(decisions) > SHOWN:
        say(f"... and {plural(len(decisions) - SHOWN, 'more decision')}; --json lists all")
    wanted = sum(held.one == held.other for held in decisions)
    if pairs := len(decisions) - wanted:
        say(f"{plural(pairs, 'pair')} of images that are not duplicates.")
    if wanted:
        say(f"{plural(wanted, 'image')} of which all copies are wanted.")
    if not decisions:
        say("No decisions.")


def _check_named(directory: Path, names: Sequence[str], option: str) -> None:
    if directory.is_file() or (not names and not (directory / "catalog.sqlite").exists()):
        words = shlex.join([default_index().as_posix(), directory.as_posix(), *names])
        raise typer.BadParameter(f"Name the index first: lookalike dups {words} {option}")
    if not names:
        raise typer.BadParameter(f"Name images by their path or id: lookalike dups {directory} {option} ID|PATH ...")


def _image(index: Index, name: str, *, removed: bool = False) -> str:
    """The id of an image by its id or path. removed: also an id of none that is there. Raises BadParameter."""
    from search.catalog.typed import is_id, named_image

    with index.catalog.lookup() as lookup:
        found = named_image(lookup, index.catalog.roots(), name)
    if found is None and removed and is_id(name):
        return name.lower()
    if found is None:
        raise typer.BadParameter(f"The index has no image {name}. Name it by a path that a build read, or by its id.")
    return found
