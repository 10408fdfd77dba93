"""A plan: which files go, what stays in their place, and how they go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from analysis.duplicates.groups import File, Group
from analysis.duplicates.keep import Rule, choose, matches
from search.types import JsonObject

Action = Literal["move", "hardlink", "reflink", "delete"]
LINKS = ("hardlink", "reflink")
"""Actions that put the kept file's content in the place of another: only of equal files."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A group, the file of it to keep, and why; `goes`: the files that go; `protected`: those that may not."""

    group: Group
    keep: File
    why: str
    goes: tuple[File, ...]
    protected: tuple[File, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One file that goes. root, path: its location in the index. sha256, kept_sha256: of it and of the file `kept` that
    stays. to: where it is moved, None for other actions. size, mtime_ns: as it was."""

    root: str
    path: str
    image: str
    kept: str
    kept_image: str
    size: int
    mtime_ns: int
    to: str | None = None

    @property
    def file(self) -> Path:
        """The file that goes."""
        return Path(self.root, self.path)

    def to_json(self) -> JsonObject:
        """As a log has it."""
        return asdict(self)


def decide(groups: Iterable[Group], rules: Sequence[Rule], protect: Sequence[str] = ()) -> list[Decision]:
    """What to keep of each group. protect: patterns of files that never go, and are kept rather than others.

    Of equal pixels an image is kept with all its files: equal files are a group of their own.
    """

    def safe(file: File) -> bool:
        return any(matches(file, pattern) for pattern in protect)

    decisions = []
    for group in groups:
        keep, why = choose(group.files, [Rule("protected", safe), *rules])
        others = [
            file
            for file in group.files
            if file is not keep and (group.tier == "bytes" or file.image.id != keep.image.id)
        ]
        decisions.append(
            Decision(
                group=group,
                keep=keep,
                why=why,
                goes=tuple(file for file in others if not safe(file)),
                protected=tuple(file for file in others if safe(file)),
            )
        )
    return decisions


def plan(decisions: Iterable[Decision], action: Action, folder: Path | None = None) -> list[Step]:
    """The steps, each file once. folder: where `move` puts files: `folder`/root's name/path under the root.

    A file that one group keeps and another lets go goes: what stays in the place of both is the last one's.
    """
    stays: dict[Path, File] = {}
    goes: dict[Path, File] = {}
    for decision in decisions:
        if action in LINKS and decision.group.tier != "bytes":
            continue
        for file in decision.goes:
            goes[file.path], stays[file.path] = file, decision.keep
    taken: set[Path] = set()
    return [_step(file, _last(stays, path), folder, taken) for path, file in goes.items()]


def _last(stays: Mapping[Path, File], path: Path) -> File:
    """What stays in the place of a file: surer tiers come first, and no tier lets go what stays for good."""
    file = stays[path]
    while file.path in stays:
        file = stays[file.path]
    return file


def _step(file: File, kept: File, folder: Path | None, taken: set[Path]) -> Step:
    to = None if folder is None else _free(folder / Path(file.location.root).name / file.location.path, taken)
    return Step(
        root=file.location.root,
        path=file.location.path,
        image=file.image.id,
        kept=str(kept.path),
        kept_image=kept.image.id,
        size=file.location.size,
        mtime_ns=file.location.mtime_ns,
        to=None if to is None else str(to),
    )


def _free(wanted: Path, taken: set[Path]) -> Path:
    """A name that nothing has yet: `a.jpg`, or `a (2).jpg` and so on."""
    path, number = wanted, 1
    while path in taken or path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    taken.add(path)
    return path
