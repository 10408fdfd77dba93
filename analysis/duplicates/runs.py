"""Runs of `dups --apply`: what was asked, the steps, and how far each is, as the run's journal tells it."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from analysis.duplicates.files import Names
from analysis.duplicates.plan import Action, Request, Step
from analysis.errors import RunInvalid
from search import journal
from search.index import Index
from search.types import JsonObject

FORMAT = 1
"""Of journals; another one is refused."""
State = Literal["", "finished", "undoing", "undone"]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Labels and metadata that an image got from those that went. other: values for which it had its own."""

    labels: tuple[str, ...]
    metadata: JsonObject
    other: JsonObject


@dataclass(kw_only=True)
class Run:
    """A run as its journal tells it.

    devices: of FOLDER, the roots and drives in them at first. steps: None for one whose image was erased. begun,
    undo_begun: steps that may be half done, or half taken back. skipped: steps that were not taken, or not taken back,
    and why. merged: by the id of the image that stays. state: empty while steps are taken, and `finished`, `undoing`
    or `undone` later.
    """

    path: Path
    request: Request
    devices: Mapping[str, int]
    steps: Sequence[Step | None]
    begun: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    skipped: dict[int, str] = field(default_factory=dict)
    undo_begun: set[int] = field(default_factory=set)
    undone: set[int] = field(default_factory=set)
    merged: dict[str, Merge] = field(default_factory=dict)
    state: State = ""

    @property
    def name(self) -> str:
        """The name that `--undo` takes."""
        return self.path.stem

    @property
    def over(self) -> bool:
        """Whether nothing of it is under way."""
        return self.state in journal.OVER

    @property
    def gone(self) -> set[int]:
        """Steps that are done, and not taken back."""
        return self.done - self.undone

    @property
    def bytes(self) -> int:
        """Bytes of the files that went and have not come back."""
        return sum(step.facts.size for step in self.taken(self.gone))

    def taken(self, numbers: set[int]) -> Iterator[Step]:
        """Steps by their numbers, but for those whose image was erased."""
        return (step for step in map(self.steps.__getitem__, sorted(numbers)) if step is not None)

    def names(self, number: int) -> Names:
        """The hidden names of a step."""
        return Names(f".lookalike-dups-{self.name}-{number}")


def new_run(index: Index, request: Request, devices: Mapping[str, int], steps: Sequence[Step]) -> Run:
    """Write down what is to be done, before anything is. Raises StorageFailed."""
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"  # no two runs set aside by the same name
    path = index.path / journal.FOLDER / f"{name}.jsonl"
    head = {"format": FORMAT, **asdict(request), "devices": dict(devices), "steps": len(steps)}
    journal.write(path, [head, *(asdict(step) for step in steps)])
    return Run(path=path, request=request, devices=devices, steps=steps)


def unfinished(index: Index) -> Run | None:
    """The run that was interrupted, if one was. Raises IndexDamaged, StorageFailed."""
    paths = sorted((index.path / journal.FOLDER).glob("*.jsonl"))
    runs = (_read(path) for path in paths if not journal.ended(path))
    return next((run for run in runs if not run.over), None)


def named(index: Index, name: str) -> Run:
    """A run by its name. Raises RunInvalid, IndexDamaged, StorageFailed."""
    path = index.path / journal.FOLDER / f"{name}.jsonl"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.jsonl"))) if path.parent.is_dir() else ""
        raise RunInvalid(f"There is no run {name!r}. Runs of this index: {known or 'none'}.")
    return _read(path)


def continued(index: Index, request: Request) -> Run | None:
    """The interrupted run, if there is one, which the same request continues.

    Raises RunInvalid where another one was interrupted, IndexDamaged, StorageFailed.
    """
    run = unfinished(index)
    if run is None or (run.request == request and run.state == ""):
        return run
    place = shlex.quote(str(index.path))
    back = f"lookalike dups {place} --undo {run.name}"
    if run.state == "undoing":
        raise RunInvalid(f"The run {run.name} was being taken back, and was interrupted. First let that end: {back}")
    raise RunInvalid(
        f"The run {run.name} was interrupted, and asked for something else. First let it go on: lookalike dups "
        f"{place} {run.request.words}. Or take back what it did: {back}"
    )


def _read(path: Path) -> Run:
    entries = journal.read(path)
    if "format" in entries[0] and entries[0]["format"] != FORMAT:
        raise RunInvalid(f"{path} is of another format than this Lookalike knows. Use the one that wrote it.")
    line = 1
    try:
        head = _Head.model_validate_json(json.dumps(entries[0]), strict=True)
        request = {name: getattr(head, name) for name in ("action", "folder", "tiers", "rules", "protect")}
        steps: list[Step | None] = []
        run = Run(path=path, request=Request(**request), devices=head.devices, steps=steps)
        for entry in entries[1:]:
            line += 1
            if len(steps) < head.steps:
                struck = entry == {"struck": True}
                steps.append(None if struck else _STEP.validate_json(json.dumps(entry), strict=True))
            else:
                _take(run, _Note.model_validate_json(json.dumps(entry), strict=True))
        if len(steps) < head.steps:
            raise ValueError("steps are missing")
    except ValueError as error:  # pydantic's is one
        raise journal.damaged(path, line) from error
    return run


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Head(_Line):
    format: int
    action: Action
    folder: str | None
    tiers: tuple[str, ...]
    rules: str
    protect: tuple[str, ...]
    devices: dict[str, int]
    steps: int


_STEP = TypeAdapter(Step)
_Number = Annotated[int, Field(ge=0)]
_FORMS = (
    {"begin"},
    {"done"},
    {"skip", "why"},
    {"undone"},
    {"merge", "labels", "metadata", "other"},
    {"unmerge"},
    {"state"},
)
"""The keys of lines after the steps."""


class _Note(_Line):
    begin: _Number = 0
    done: _Number = 0
    skip: _Number = 0
    why: str = ""
    undone: _Number = 0
    merge: str = ""
    labels: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    other: dict[str, Any] = {}
    unmerge: str = ""
    state: Literal["finished", "undoing", "undone"] = "finished"


def _take(run: Run, note: _Note) -> None:
    """Take a note. Raises ValueError."""
    keys = note.model_fields_set
    if keys not in _FORMS or max(note.begin, note.done, note.skip, note.undone) >= max(1, len(run.steps)):
        raise ValueError("not a note")
    if "begin" in keys:
        (run.undo_begun if run.state == "undoing" else run.begun).add(note.begin)
    elif "done" in keys:
        run.done.add(note.done)
    elif "skip" in keys:
        run.skipped[note.skip] = note.why
    elif "undone" in keys:
        run.undone.add(note.undone)
    elif "merge" in keys:
        run.merged[note.merge] = Merge(labels=note.labels, metadata=note.metadata, other=note.other)
    elif "unmerge" in keys:
        run.merged.pop(note.unmerge, None)
    else:
        run.state = note.state
