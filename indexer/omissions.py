"""Folders and files that hold no picture of the user's own: thumbnails, trash, snapshots, halves of downloads."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule for what is left out by default, with the reason. Globs are matched without regard to case.

    `name`: of a folder, or of a file. `inside`: only in a folder of such a name. `holds`: only a folder that holds an
    entry of this name. `but`: names that are taken all the same.
    """

    name: str
    why: str
    inside: str | None = None
    holds: str | None = None
    but: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The rule as a report names it: `@eaDir`, `*.photoslibrary/*`."""
        return self.name if self.inside is None else f"{self.inside}/{self.name}"


def _rules(why: str, *names: str, inside: str | None = None, but: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    return tuple(Rule(name=name, why=why, inside=inside, but=but) for name in names)


_TRASH, _FOUND, _SNAPSHOTS = "deleted files", "pieces that a disk check found", "snapshots of the same files"
_APPLE = "previews and faces of a photo library; its originals are taken"
_ORIGINALS = ("originals", "masters", "modified")

FOLDERS = (
    *_rules("thumbnails of a Synology NAS", "@eaDir"),
    *_rules("thumbnails of a QNAP NAS", "@__thumb"),
    *_rules(_TRASH, "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "RECYCLED", "trashbox", "Network Trash Folder"),
    *_rules(_TRASH, "files_trashbin"),  # Nextcloud's and ownCloud's, on the server's disk
    *_rules(_SNAPSHOTS, "#snapshot", "~snapshot", "@Recently-Snapshot", "Backups.backupdb"),
    *_rules("older versions of the same files", "files_versions"),  # Nextcloud, ownCloud
    *_rules(_FOUND, "lost+found", "LOST.DIR", "FOUND.[0-9][0-9][0-9]"),
    *_rules("the system's own", "System Volume Information", "@tmp", "Temporary Items"),
    *_rules("resource forks of a Mac", "__MACOSX"),
    *_rules("previews of Nextcloud or ownCloud", "preview", inside="appdata_*"),
    *_rules(_APPLE, "*", inside="*.photoslibrary", but=_ORIGINALS),
    *_rules(_APPLE, "*", inside="*.photolibrary", but=_ORIGINALS),
    *_rules(_APPLE, "*", inside="*.migratedphotolibrary", but=_ORIGINALS),
    *_rules(_APPLE, "*", inside="*.aplibrary", but=_ORIGINALS),
    *_rules(_APPLE, "*", inside="iPhoto Library", but=_ORIGINALS),
    *_rules("previews of Lightroom", "*.lrdata"),
    *_rules("previews of Capture One", "Cache", inside="CaptureOne"),
    *_rules("previews for an iPod", "iPod Photo Cache"),
    *_rules("previews of Piwigo", "i", inside="_data"),
    *_rules("data of Plex", "Plex Media Server"),
    *_rules("thumbnails of videos, by the camera", "THMBNL"),
    *_rules("a download that has not ended", "*.download"),
    Rule(name="thumbs", holds=".immich", why="thumbnails of Immich"),
    Rule(name="*", holds=".ppstorage", why="thumbnails of PhotoPrism"),
    Rule(name="*", holds="CACHEDIR.TAG", why="a cache, by its CACHEDIR.TAG"),
    Rule(name="*", holds="catalog.sqlite.sums", why="an index of Lookalike"),
)
"""Folders that are not entered. Those whose name begins with `.` never are, and need no rule."""

_UNFINISHED = "a download or copy that has not ended"
FILES = (
    *_rules(_UNFINISHED, "*.part", "*.partial", "*.filepart", "*.crdownload", "*.opdownload", "*.download", "*.!ut"),
    *_rules(_UNFINISHED, "*.!qB", "*.!sync", "*.bc!", "*_exiftool_tmp", "~syncthing~*"),
    *_rules("a program's temporary file", "*.tmp", "*.temp", "~$*", "*.sb-????????-??????"),
    *_rules("a camera's thumbnail of a video", "*.thm"),
)
"""Files that begin as pictures do, and are none."""
DOWNLOADING = Rule(name="files beside *.aria2", why=_UNFINISHED)
EMPTY = "the file is empty"
APPLE_DOUBLE, APPLE_DOUBLE_MAGIC = "a resource fork of a Mac (AppleDouble), not the picture", b"\x00\x05\x16\x07"
REASONS = {
    EMPTY: Rule(name="empty files", why="of no bytes: copies that failed, or downloads to come"),
    APPLE_DOUBLE: Rule(name="AppleDouble files", why="resource forks of a Mac"),
}
"""Rules for files that are known by their content only, when they are read: by the reason why they are no pictures."""

_LITERAL = [rule for rule in FOLDERS if not set("*?[") & set(rule.name) and not (rule.inside or rule.holds)]
_BY_NAME = {rule.name.lower(): rule for rule in _LITERAL}
_OTHERS = tuple(rule for rule in FOLDERS if rule not in _LITERAL)

_ANY_FILE = re.compile("|".join(translate(rule.name.lower()) for rule in FILES))
"""Says at once that no rule is about a file, as is so for nearly all."""


def folder_rule(name: str, inside: str, holds: Set[str] = frozenset()) -> Rule | None:
    """The rule that leaves a folder out. inside: the name of the folder it is in. holds: names of its own entries."""
    name, inside = name.lower(), inside.lower()
    found = (
        rule
        for rule in _OTHERS
        if fnmatchcase(name, rule.name.lower())
        and (rule.inside is None or fnmatchcase(inside, rule.inside.lower()))
        and (rule.holds is None or rule.holds in holds)
        and name not in rule.but
    )
    return _BY_NAME.get(name) or next(found, None)


def file_rule(name: str) -> Rule | None:
    """The rule that leaves a file out which begins as a picture does."""
    name = name.lower()
    if _ANY_FILE.match(name) is None:
        return None
    return next(rule for rule in FILES if fnmatchcase(name, rule.name.lower()))
