"""Groups of duplicates: the vocabulary of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from search.types import ImageRecord, Location

Tier = Literal["bytes", "pixels", "photo", "moment", "alike"]
PROMISES: dict[Tier, str] = {
    "bytes": "the files are equal, byte for byte",
    "pixels": "upright, the pictures have the same pixels, whatever the files are",
    "photo": "one photo, smaller, saved again, recoloured, cut, framed, written on, mirrored or turned",
    "moment": "taken by one camera within ten seconds, and alike",
    "alike": "so alike as hardly any two pictures are by chance",
}
"""The tiers, the surest first, and what each promises: of any two of a group; from `photo` on, of one and any other."""
SURE: tuple[Tier, ...] = ("bytes", "pixels")
"""The tiers that are proved: listed if no others are asked for. Of the others no file is extra."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of an image, as it was found on the disk."""

    image: ImageRecord
    location: Location

    @property
    def path(self) -> Path:
        """Its absolute path."""
        return Path(self.location.absolute)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files that are duplicates of one another, two or more, no two of them one file by another name.

    scores: by image id, how surely it belongs to the group, 0..1; 1 where it is not there. centre: the image that all
    others were compared with, None where any two were. shown: by image id, how much of a photo it shows, from 0; of
    other tiers nothing is known. wanted: ids of images that a decision of the user names: equal as they are, all stay.
    settled: decisions part each two of its images, or name its only one, so that it is not listed.
    unlisted: how many more files a large group has on a server, which has not looked at them.
    """

    tier: Tier
    files: tuple[File, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    centre: str | None = None
    shown: Mapping[str, int] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    settled: bool = False
    unlisted: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A group, the file of it to keep, and why; `goes`: the files that need not stay; `protected`: those that must;
    `wanted`: those of images that a decision names."""

    group: Group
    keep: File
    why: str
    goes: tuple[File, ...]
    protected: tuple[File, ...]
    wanted: tuple[File, ...] = ()

    def reason(self, file: File) -> str | None:
        """Why a file is kept; None for one that is not, or that is a copy of the image that is."""
        if file in self.protected:
            return "protected"
        if file in self.wanted:
            return "named in a decision"
        return self.why if file is self.keep else None
