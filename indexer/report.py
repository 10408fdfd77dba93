"""A build's options, its progress, and its report at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from indexer.folders import EVERYTHING, Choice, Entry, Ignored, LeftOut, LinkedFolder, Unsupported
from indexer.metadata import Annotation
from indexer.omissions import REASONS, Rule
from indexer.pictures.formats import NOT_SUPPORTED
from search.catalog.annotations import MAX_LABELS
from search.types import Failure, Location


class Progress(Protocol):
    """The progress of a long command while it runs."""

    def found(self, files: int) -> None:
        """Note the number of files looked at so far."""

    def start(self, files: int, *, what: str = "Embedding") -> None:
        """Add files that need work. what: is done with them; to embed them, unless it is said."""

    def done(self, files: int) -> None:
        """Advance by files that are done."""


TOO_MANY_LABELS = f"its labels would be more than {MAX_LABELS:,}"
"""Why a build could not give an image all its labels."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a build, beside the sources and the model."""

    workers: int = 2
    choice: Choice = EVERYTHING
    label_from_folder: bool = False
    annotations: tuple[Annotation, ...] = ()
    replace_labels: bool = False
    """An image that the annotations name keeps no other labels than theirs and its folders'."""
    prune: bool = False
    prune_all: bool = False
    """Also what may be on a drive that is not connected."""
    reread: bool = False
    """Files of known size and time too."""
    retry_failed: bool = False
    readd: bool = False
    min_recall: float | None = None
    max_pixels: int | None = None
    max_seconds: float | None = None

    def folder_labels(self, location: Location) -> tuple[str, ...]:
        """The label that a file's folder is, where that was asked for."""
        folder = location.path.rpartition("/")[0]
        return (folder,) if self.label_from_folder and folder else ()


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """A picture that was taken although its file ends before it does; `missing`: the share of its rows, 0..1."""

    location: Location
    missing: float


@dataclass(kw_only=True)
class BuildReport:
    """The report of a build. All counters count files; `embedded` counts images that went through the encoder."""

    added: int = 0
    copies: int = 0
    """Files, among the added, that are equal to another one: they add no image."""
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    missing: int = 0
    excluded: int = 0
    """Files, among the missing, that are there and left out now."""
    let_go: Counter[str] = field(default_factory=Counter)
    """Files, among the missing, that a run of `dups` moved away, by the run's name."""
    removed: int = 0
    ignored: int = 0
    embedded: int = 0
    filled: int = 0
    """Images known before that got a vector in a space that was not complete."""
    unsupported: Counter[str] = field(default_factory=Counter)
    """Pictures of kinds that are not read here, by the name of the kind."""
    cropped: int = 0
    """New images of which the model sees less than half."""
    left_out: dict[Rule, list[str]] = field(default_factory=dict)
    """Absolute paths of folders and files that are no pictures of the user's, by the rule that says so."""
    linked_folders: list[str] = field(default_factory=list)
    """Absolute paths of links to folders that were not entered."""
    incomplete: list[Incomplete] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    startup_seconds: float = 0.0
    publish_seconds: float = 0.0
    images_per_second: float = 0.0

    def pass_over(self, entry: Entry) -> None:
        """Count what a scan found and a build does not read."""
        match entry:
            case Ignored():
                self.ignored += 1
            case Unsupported():
                self.unsupported[entry.kind] += 1
            case LeftOut():
                self.left_out.setdefault(entry.rule, []).append(str(entry.root / entry.path))
            case LinkedFolder():
                self.linked_folders.append(str(entry.root / entry.path))
            case Failure():
                self.fail(entry)

    def fail(self, failed: Failure) -> None:
        """List a file that could not be indexed. What cannot be a picture is left out; kinds not read are counted."""
        rule = REASONS.get(failed.reason)
        if failed.reason.startswith(NOT_SUPPORTED):
            self.unsupported[failed.reason.removeprefix(NOT_SUPPORTED).partition(";")[0]] += 1
        elif rule is None:
            self.failed.append(failed)
        else:
            self.left_out.setdefault(rule, []).append(str(Path(failed.root, failed.path)))
