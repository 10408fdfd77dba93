"""Places of a run: its roots, drives in them, and FOLDER. A drive may be missing, or go away."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from analysis.duplicates.plan import Step
from analysis.duplicates.runs import Run
from analysis.errors import RunInvalid
from search.catalog.catalog import Catalog

CHECKED_FILES = 1_000
"""Files of a root of which one must be there, where the root's device has another number than before."""

BROKEN_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ETIMEDOUT),
)
"""Errors that concern the disk, or the way to it, and not one file: the run stops."""


def check_places(run: Run, catalog: Catalog) -> dict[Path, int]:
    """The places, and their devices now. Raises RunInvalid where one is missing, or an empty mount point."""
    devices = {}
    for place, device in run.devices.items():
        path = Path(place)
        held = _held(run) if place == run.request.folder else _known(run, catalog, path)
        with suppress(OSError):
            now = path.stat().st_dev
            if path.is_dir() and (now == device or any(os.path.lexists(one) for one in islice(held, CHECKED_FILES))):
                devices[path] = now
                continue
        raise RunInvalid(
            f"{place} is not there, or not as it was. If it lies on a drive, connect that, and give the same command "
            f"again. If it has moved, put a link to it where it was. If it is gone for good, move {run.path} out of "
            "the index, and keep it: it names every file of this run."
        )
    return devices


def missing(devices: Mapping[Path, int]) -> Path | None:
    """A place that is there no more, or on another device than before."""
    for place, device in devices.items():
        with suppress(OSError):
            if place.is_dir() and place.stat().st_dev == device:
                continue
        return place
    return None


def _held(run: Run) -> Iterator[Path]:
    """What must be in FOLDER: files that went there, if any did, or else FOLDER itself."""
    moved = [Path(step.to) for step in run.taken((run.begun | run.done) - run.undone) if step.to is not None]
    return iter(moved or [Path(run.request.folder or "")])


def mounted(step: Step) -> list[str]:
    """Drives that are mounted below the root of a step, and hold its file."""
    below = [folder for folder in step.file.parents if folder.is_relative_to(step.root) and folder != Path(step.root)]
    return [str(folder) for folder in below if os.path.ismount(folder)]


def _known(run: Run, catalog: Catalog, place: Path) -> Iterator[Path]:
    """What may be below a root, or a drive in it: folders of the run, and files that the index does not miss."""
    steps = [*run.taken(set(range(len(run.steps))))]
    yield from dict.fromkeys(step.file.parent for step in steps if place in step.file.parent.parents)
    roots = {step.root for step in steps if place.is_relative_to(step.root)}
    with catalog.lookup() as lookup:
        for root in sorted(roots):
            inside = place.relative_to(root).as_posix()
            for name in catalog.paths_under(root, "" if inside == "." else f"{inside}/"):
                known = lookup.known(root, name)
                if known is not None and not known.missing:
                    yield Path(root, name)
