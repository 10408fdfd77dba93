"""Errors of an index.

SearchError
├── IndexMissing        there is no index at this path
├── IndexExists         there is one already, where a new one was to be made
├── IndexLocked         another process is writing to it
├── IndexDamaged        its catalog, or the journal of a run, cannot be trusted
├── GenerationDamaged   its generation cannot be trusted
├── IndexTooNew         a newer Lookalike made it
├── PathInvalid         a path that an index cannot have
├── StorageFailed       the disk is full, or reading or writing failed
├── IndexMoved          it was moved, replaced or deleted while it was open
├── PublicationStopped  a publication was asked to end before it was done
├── RunUnfinished       a run over duplicates is under way
├── RecipeMismatch      embeddings of one recipe were offered to a space of another
├── UnknownImage        no image has this id or path
├── UnknownRoot         the index has seen no folder of this name
├── RootMismatch        a folder does not hold what a root's pictures are
├── UnknownSpace        the index has no space of this name
├── SpaceExists         the index has a space of this name, where a new one was to be added
├── SpaceNeeded         a space that must stay: the default, or the last
├── SpaceIncomplete     a space in which images are missing cannot be what it was asked to be
├── SpaceUnfit          a space of words cannot be the default
├── SpaceOfRegions      a space of regions cannot be what it was asked to be, as an image has several vectors there
├── NotInSpace          an image has no vector in this space yet
├── VectorsMissing      an image was to be added without its vector in a complete space
├── FilterInvalid       a filter that does not say what it should match
├── QueryInvalid        a query that cannot be answered as it stands
├── UnknownBoard        the index has no board of this number
├── NotOnBoard          a board has no such item, comment or link
├── UnknownWatch        the index has no watch of this number
├── TooMany             there are as many boards, items or watches as there may be
├── PromptInvalid       a prompt that cannot be read, with the position of what is wrong
├── PolicyInvalid       figures of a policy that no index can be published or searched by
├── FeedbackInvalid     marks or a rule of feedback that cannot be meant
├── UnknownSession      the index keeps no such feedback session, or the session no such round
├── SessionExists       another feedback session has this name
└── AnnotationInvalid   labels or metadata that the catalog cannot hold
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import ClassVar


class SearchError(Exception):
    """Base of everything `search` raises on purpose; its message is made for the user.

    `exit_code` is what the command line ends with: 2 usage, 65 damaged data, 74 input or output, 75 locked,
    130 interrupted.
    """

    exit_code: ClassVar[int] = 2


class IndexMissing(SearchError):
    """No index at the given path."""

    @classmethod
    def at(cls, path: Path) -> IndexMissing:
        """The error that fits what is at a path instead."""
        if (path / "generations").is_dir():
            return cls(f"{path} has lost its catalog.sqlite. Bring it back from a backup, or build the index again.")
        if path.is_dir():
            return cls(f"{path} is a folder of files, not an index. To index it: lookalike build {quote(str(path))}")
        if path.exists():
            return cls(f"{path} is a file. An index is a folder: lookalike build PHOTOS makes one.")
        return cls(f"There is no index at {path}. Make one with: lookalike build PHOTOS --index {quote(str(path))}")


class PathInvalid(SearchError):
    """A path that the catalog and its checksums cannot hold."""


class IndexExists(SearchError):
    """An index stands where a new one was to be created."""


class IndexLocked(SearchError):
    """Another process holds the write lock."""

    exit_code = 75


class IndexDamaged(SearchError):
    """The catalog, or the journal of a run over duplicates, is unreadable or contradicts itself."""

    exit_code = 65


class GenerationDamaged(SearchError):
    """A generation's files are not what its manifest says. Never answered from."""

    exit_code = 65


class IndexTooNew(SearchError):
    """The catalog's schema version is newer than this code."""


class StorageFailed(SearchError):
    """The operating system refused a read or a write; `disk_full` says whether for want of space."""

    exit_code = 74

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(message)
        self.disk_full = disk_full


class IndexMoved(StorageFailed):
    """Another file, or none, is where the open catalog was: changes would be lost, or spoil what is there now."""


class PublicationStopped(SearchError):
    """A publication was asked to end before it was done."""

    exit_code = 130


class RunUnfinished(SearchError):
    """A run over duplicates was interrupted, and what it holds was to be erased."""


class RecipeMismatch(SearchError):
    """Two recipes that had to be equal are not."""


class UnknownImage(SearchError):
    """No image with this id or path."""


class UnknownRoot(SearchError):
    """No root at this path, or in it."""


class RootMismatch(SearchError):
    """A root is not where it is said to be: none of its pictures is there, or others are known there by their names."""


class UnknownSpace(SearchError):
    """No space of this name."""


class SpaceExists(SearchError):
    """A space of this name, or one of the same recipe, is there already."""


class SpaceNeeded(SearchError):
    """The default space, or the last one, was to be dropped."""


class SpaceIncomplete(SearchError):
    """A space in which images are missing was to become the default."""


class SpaceUnfit(SearchError):
    """A space of words was to become the default: it says what pictures show, not how they look."""


class SpaceOfRegions(SearchError):
    """A space of regions was to be used where an image has one vector."""

    @classmethod
    def refused(cls, name: str, what: str) -> SpaceOfRegions:
        """what: the use, which begins the sentence."""
        return cls(
            f"{what} needs a space in which an image has one vector. In {name} it has several, of its parts, for "
            "searches alone. Choose another space."
        )


class NotInSpace(SearchError):
    """The image is in the index, and has no vector in the space yet."""


class VectorsMissing(SearchError):
    """An image came without its vector in a space that is complete."""


class FilterInvalid(SearchError):
    """A malformed filter; the message names the part and what is allowed there."""


class QueryInvalid(SearchError):
    """A query without parts, of the wrong dimension, or whose parts cancel out."""


class UnknownBoard(SearchError):
    """No board of this number."""


class NotOnBoard(SearchError):
    """No item, comment or link of this number on a board."""


class UnknownWatch(SearchError):
    """No watch of this number."""


class TooMany(SearchError):
    """As many are there as there may be; the message says how many, and what to delete."""


class PromptInvalid(SearchError):
    """A prompt that cannot be read. `position`: the character, from 0, at which what is wrong stands."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message, position)
        self.message = message
        self.position = position

    def __str__(self) -> str:
        return f"{self.message} (at character {self.position + 1} of the prompt)"


class PolicyInvalid(SearchError):
    """A policy whose figures contradict themselves; the message names the first."""


class FeedbackInvalid(SearchError):
    """Marks, a name or a rule of feedback that cannot be meant; the message says what is allowed."""


class UnknownSession(SearchError):
    """No feedback session of this id or name, or no such round in it."""


class SessionExists(SearchError):
    """Another feedback session has this name."""


class AnnotationInvalid(SearchError):
    """Labels or metadata that the catalog cannot hold; the message says which kind and what is allowed."""
