"""A plan: which files are to go, what stays in their place, and where they go."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, with_config

from analysis.duplicates.files import Facts, facts_of
from analysis.duplicates.groups import Decision, File
from analysis.errors import RunInvalid
from search.index import Index
from search.names import is_text
from search.types import absolute

Action = Literal["move", "hardlink", "reflink", "delete"]
LINKING = ("hardlink", "reflink")
"""Actions that put the content of the file that stays in the place of another: only of equal files."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run was asked to do. folder: where `move` puts files. tiers, rules, protect: by which it was planned."""

    action: Action
    folder: str | None
    tiers: tuple[str, ...]
    rules: str
    protect: tuple[str, ...]

    @property
    def words(self) -> str:
        """The options that ask for it."""
        action = self.action if self.folder is None else f"{self.action}={self.folder}"
        words = ["--apply", action, "--keep", self.rules]
        for option, values in (("--tier", self.tiers), ("--protect", self.protect)):
            words += [word for value in values for word in (option, value)]
        return shlex.join(words)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Step:
    """One file that is to go, as it was: its location, image and facts. kept_...: the file that stays in its place.

    to: where it is moved, absolute; None for other actions.
    """

    root: str
    path: str
    image: str
    facts: Facts
    kept_root: str
    kept_path: str
    kept_image: str
    kept_size: int
    kept_mtime_ns: int
    to: str | None

    @property
    def file(self) -> Path:
        """The file that is to go."""
        return Path(absolute(self.root, self.path))

    @property
    def kept(self) -> Path:
        """The file that stays."""
        return Path(absolute(self.kept_root, self.kept_path))


def plan(decisions: Iterable[Decision], request: Request, skipped: Callable[[str, str], None]) -> list[Step]:
    """The steps, each file once. skipped: told of a file that is left out, and why.

    A file that one group keeps and another lets go is to go: what stays in the place of both is the last one's.
    """
    stays: dict[Path, File] = {}
    goes: dict[Path, File] = {}
    for decision in decisions:
        if request.action in LINKING and decision.group.tier != "bytes":
            continue
        for file in decision.goes:
            goes[file.path], stays[file.path] = file, decision.keep
    taken: set[Path] = set()
    steps = []
    for path, file in goes.items():
        kept = _last(stays, path)
        if kept is None:
            skipped(str(path), "two groups would each let go what the other keeps")
            continue
        try:
            facts = facts_of(path)
        except OSError as error:
            skipped(str(path), error.strerror or str(error))
            continue
        to = None
        if request.folder is not None:
            wanted = Path(request.folder, Path(file.location.root).name, file.location.path)
            to = str(_free(wanted, taken))
        steps.append(
            Step(
                root=file.location.root,
                path=file.location.path,
                image=file.image.id,
                facts=facts,
                kept_root=kept.location.root,
                kept_path=kept.location.path,
                kept_image=kept.image.id,
                kept_size=kept.location.size,
                kept_mtime_ns=kept.location.mtime_ns,
                to=to,
            )
        )
    return steps


def _last(stays: Mapping[Path, File], path: Path) -> File | None:
    """What stays in the place of a file, where what stays for it may go for another; None where that is a circle."""
    seen, file = {path}, stays[path]
    while file.path in stays:
        if file.path in seen:
            return None
        seen.add(file.path)
        file = stays[file.path]
    return file


def _free(wanted: Path, taken: set[Path]) -> Path:
    """A name that nothing has yet: `a.jpg`, or `a (2).jpg` and so on."""
    path, number = wanted, 1
    while path in taken or os.path.lexists(path):
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    taken.add(path)
    return path


def target_folder(index: Index, named: Path) -> str:
    """The folder that `move` was given, as the system calls it. Raises RunInvalid where files may not go there.

    By names, and by what the names lead to: a folder may be mounted twice, or written in other letters.
    """
    folder = named.expanduser().resolve()
    if not is_text(str(folder)):
        raise RunInvalid(f"{folder!r} is not valid UTF-8, and no journal can hold it. Name another folder.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise RunInvalid(f"{folder} is not a folder. Name one, or one that is to be made.")
    places = dict.fromkeys(index.catalog.roots(failed=True), "is indexed")
    places |= {str(index.path.resolve()): "is the index"}
    made = {Path(folder, Path(root).name) for root in places}
    for place, what in places.items():
        if any(lies_in(one, Path(place)) for one in (folder, *made)):
            raise RunInvalid(f"{folder} lies in {place}, which {what}. Name a folder elsewhere.")
        if lies_in(Path(place), folder):
            raise RunInvalid(f"{place}, which {what}, lies in {folder}. Name a folder elsewhere.")
    return str(folder)


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it."""
    real = path.resolve()
    if real.is_relative_to(folder.resolve()):
        return True
    return folder.exists() and any(one.exists() and one.samefile(folder) for one in (real, *real.parents))
