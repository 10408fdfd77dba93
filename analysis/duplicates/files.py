"""Single files of the user's: looked at, set aside, put where nothing is. No file is replaced, or lost half-way.

A file that is to go is first renamed to a hidden name in its own folder. Only then is it looked whether its content is
safe elsewhere: where one file is seen through two mounts, or two runs let two equal files go, it is not there any more.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ConfigDict, with_config

from search.files import sync

FICLONE = 0x40049409
"""Linux's request that makes a file share the blocks of another (ioctl_ficlone(2))."""
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""Errors of file systems that cannot give a file this second name: it is copied."""

NO_REFLINKS = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
"""Errors of file systems that cannot share blocks."""


class FileLeft(Exception):
    """A file is left where it is; the message says why."""


class Halfway(Exception):
    """A file has gone, or is set aside, and the system refuses what comes next: it is found out later how far it is."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file's entry says: size in bytes, times in nanoseconds, permissions, and the numbers of its owner."""

    size: int
    mtime_ns: int
    atime_ns: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Names:
    """Hidden names beside a file, of one step of one run: nothing else has them, and builds do not read them."""

    stem: str

    def aside(self, file: Path) -> Path:
        """For a file that is to go."""
        return file.with_name(f"{self.stem}.aside{file.suffix}")

    def draft(self, file: Path) -> Path:
        """For a file that is made, until it is whole."""
        return file.with_name(f"{self.stem}.new")


def facts_of(path: Path) -> Facts:
    """The facts of a file, not of what a link leads to. Raises OSError."""
    found = path.lstat()
    return Facts(
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        atime_ns=found.st_atime_ns,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks found one file, unchanged."""
    keys = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def read(file: Path, root: Path, image: str) -> os.stat_result:
    """Read a file that must hold an image, by its SHA-256. Returns its lstat, the same before and after.

    Raises FileLeft where it is a link, lies below one under its root, or holds something else; OSError.
    """
    before = file.lstat()
    if not stat.S_ISREG(before.st_mode) or file.parent.resolve() != root.resolve() / file.parent.relative_to(root):
        raise FileLeft(f"{file} is a link, or lies in a linked folder")
    with file.open("rb") as opened:
        opened_as = os.fstat(opened.fileno())
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != image or not (same(before, opened_as) and same(before, file.lstat())):
        raise FileLeft(f"{file} has changed")
    return before


def holds(file: Path, image: str) -> bool:
    """Whether a file, no link, holds an image."""
    with suppress(FileLeft, OSError):
        return bool(read(file, file.parent, image))
    return False


def there(path: Path) -> bool:
    """Whether a name is taken, if only by a link that leads nowhere. Raises OSError where that cannot be told."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def put(source: Path, to: Path) -> None:
    """Move a file that is ours to a name that nothing has, in its folder. Raises FileExistsError, OSError."""
    move_there: Callable[[], object] = source.unlink
    try:
        os.link(source, to)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        to.touch(exist_ok=False)  # where there are no links, an empty file keeps the name for us
        move_there = partial(source.replace, to)
    try:
        move_there()
    except BaseException:
        if there(source):
            to.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system lets us."""
    try:
        sync(folder)
    except OSError as error:
        # One that we may write to and not read, or on a network drive that flushes no folders.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL):
            raise


def restore(file: Path, facts: Facts) -> None:
    """Give a file the owner, permissions and times that it had, as far as the system lets us."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(file, facts.uid, facts.gid)
    with suppress(OSError):
        file.chmod(facts.mode)
    with suppress(OSError):
        os.utime(file, ns=(facts.atime_ns, facts.mtime_ns))


def _forget_cached(file: Path) -> None:
    """Let the system read a file from its disk the next time, where it knows how."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_attributes(file: Path, other: Path) -> None:
    """Raise FileLeft where a file has attributes or access lists that another, which takes its place, has not; OSError.

    Not those of `security`, which each file system gives by itself.
    """
    has = _attributes(other)
    lost = [name for name, value in _attributes(file).items() if has.get(name) != value]
    if lost:
        raise FileLeft(f"its extended attributes would be lost: {', '.join(sorted(lost))}")


def _attributes(file: Path) -> dict[str, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    try:
        names = [name for name in os.listxattr(file) if not name.startswith("security.")]
        return {name: os.getxattr(file, name) for name in names}
    except OSError as error:
        if error.errno in NO_LINKS:  # nor are there attributes
            return {}
        raise


def copy(source: Path, draft: Path, image: str, facts: Facts) -> None:
    """Copy a file, wait until it is on the disk, and read it again. No draft is left where this raises.

    Raises FileLeft, OSError.
    """
    try:
        shutil.copyfile(source, draft)
        with suppress(OSError):
            shutil.copystat(source, draft)
        restore(draft, facts)
        sync(draft)
        _forget_cached(draft)
        if not holds(draft, image):
            raise FileLeft(f"its copy in {draft.parent} is not what was written")
        check_attributes(source, draft)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def reflink(source: Path, draft: Path, file: Path, facts: Facts) -> None:
    """Make a file that shares its blocks with another, and is like `file` otherwise.

    No draft is left where this raises: FileLeft where the file system cannot, OSError.
    """
    try:
        import fcntl  # not on Windows
    except ImportError as error:
        raise FileLeft("this system cannot share blocks (reflink)") from error
    try:
        with source.open("rb") as opened, draft.open("xb") as target:
            fcntl.ioctl(target, FICLONE, opened.fileno())
            os.fsync(target.fileno())
        with suppress(OSError):
            shutil.copystat(file, draft)
        restore(draft, facts)
        check_attributes(file, draft)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_REFLINKS:
            raise FileLeft("its file system cannot share blocks (reflink) with the file that stays") from error
        raise


def let_go(
    file: Path, seen: os.stat_result, names: Names, check: Callable[[], None], draft: Path | None = None
) -> None:
    """Unlink a file, once it is set aside and `check` has not raised; a draft takes its name. It comes back otherwise.

    seen: of `read`. Raises FileLeft, Halfway, OSError, and what `check` raises.
    """
    aside, placed = names.aside(file), None
    file.rename(aside)
    try:
        if not same(aside.lstat(), seen):
            raise FileLeft(f"{file} has changed")
        check()
        if draft is not None:
            placed = draft.lstat()
            put(draft, file)
            sync_folder(file.parent)
        aside.unlink()
    except BaseException:
        put_back(aside, file, placed)
        raise
    try:
        sync_folder(file.parent)
    except OSError as error:
        raise Halfway(f"{file.parent}: {error.strerror}") from error


def put_back(aside: Path, file: Path, placed: os.stat_result | None = None) -> None:
    """Give a file that was set aside its name again, which a draft, `placed`, may have by now.

    Raises FileLeft where another file has it, Halfway where the system refuses.
    """
    try:
        if placed is not None and there(aside) and there(file) and os.path.samestat(file.lstat(), placed):
            file.unlink()
        put(aside, file)
        sync_folder(file.parent)
    except FileExistsError as error:
        raise FileLeft(f"another file has its name now; it is {aside}") from error
    except OSError as error:
        raise Halfway(f"{file} is set aside, as {aside}, and did not get its name back: {error.strerror}") from error


def _put_also(file: Path, to: Path, draft: Path, facts: Facts, image: str) -> None:
    """Give a file a second name that nothing has, or put a copy there. Raises FileExistsError, FileLeft, OSError."""
    try:
        os.link(file, to)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        copy(file, draft, image, facts)
        try:
            put(draft, to)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def move(
    file: Path,
    to: Path,
    seen: os.stat_result,
    names: Names,
    facts: Facts,
    image: str,
    check: Callable[[], None],
) -> None:
    """Move a file to a name that nothing has, on another file system too. Nothing has changed where this raises.

    seen: of `read`; check: as `let_go` has it. Raises FileLeft, Halfway, OSError.
    """
    try:
        _put_also(file, to, names.draft(to), facts, image)
    except FileExistsError as error:
        raise FileLeft(f"{to} is there already: move it away, and give the same command again") from error
    placed = to.lstat()

    def safe() -> None:
        if not same(to.lstat(), placed):
            raise FileLeft(f"{to} has changed")
        check()

    try:
        sync_folder(to.parent)
        let_go(file, seen, names, safe)
    except BaseException:
        with suppress(OSError):
            back, there = file.lstat(), to.lstat()
            if same(there, placed) or os.path.samestat(there, back):
                to.unlink()
        raise


def settle(file: Path, names: Names, image: str, to: Path | None = None) -> None:
    """Take back half a step that a kill left: afterwards a file is set aside no more, or in no two places.

    to: where it was to be moved. Raises FileLeft where another file has its name, Halfway, OSError.
    """
    aside = names.aside(file)
    for draft in (names.draft(file), *(() if to is None else (names.draft(to),))):
        draft.unlink(missing_ok=True)
    if there(aside):
        if there(file):
            if os.path.samestat(file.lstat(), aside.lstat()):
                aside.unlink()
            elif not file.lstat().st_size or (holds(file, image) and holds(aside, image)):
                file.unlink()  # it holds a name, or is what was to replace the one that is set aside
        if there(aside):
            put_back(aside, file)
        sync_folder(file.parent)
    if to is None or not (there(to) and there(file)):
        return
    one, other = to.lstat(), file.lstat()
    if not one.st_size or os.path.samestat(one, other) or (holds(to, image) and holds(file, image)):
        to.unlink()
        sync_folder(to.parent)
