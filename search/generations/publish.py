"""Publishing: the catalog's vectors become the next generation. Killed anywhere, the index opens as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from search.catalog.catalog import NEWEST, Catalog, Changes
from search.errors import GenerationDamaged, IndexLocked, SearchError, StorageFailed
from search.files import make_folder, storage_errors
from search.generations.draft import Draft, go_on, stopped
from search.generations.false_matches import must_measure
from search.generations.generation import Generation, SpaceSnapshot, load_best, numbers
from search.generations.policy import Policy
from search.generations.space_draft import needs_graph, recall_is_known

MAX_WAIT_SECONDS = 900
"""Seconds that one publication waits for another: as long as a large one takes."""


def publish(
    folder: Path,
    catalog: Catalog,
    *,
    anew: bool = False,
    lock: Callable[[], AbstractContextManager[object]],
    policy: Policy,
    stop: Event | None = None,
) -> str:
    """Make the catalog's vectors the current generation, going on from the last one. Returns its name (`000017`).

    Files are written aside, flushed, read back and checked before a rename makes them visible; the catalog then
    points at them. A generation that says all this already is left as it is, unless `anew`: then everything is
    written again, without what was removed. The one that it goes on from is kept, to fall back on: they share most of
    their files. lock: the index's lock, needed for the last step only, and not to be held before by who could wait:
    others may change the index meanwhile. stop: set to give up. Raises StorageFailed, IndexDamaged, IndexLocked,
    PublicationStopped.
    """
    with storage_errors(folder):
        make_folder(folder)
        with _one_at_a_time(folder, stop):
            state = catalog.changes(since=NEWEST)
            _discard(folder, lambda name: name.endswith(".tmp") or (name.isdigit() and name > (state.generation or "")))
            last = load_best(folder, state)
            if last is not None and not anew and _says_all(last, state, catalog.min_recall(), policy):
                return last.name
            name = f"{max(numbers(folder), default=0) + 1:06d}"
            draft = Draft(folder / f"{name}.tmp", catalog, last=None if anew else last, policy=policy, stop=stop)
            try:
                digest = draft.write()
                with lock():
                    draft.rename(folder / name)
                    with catalog.writing() as transaction:
                        transaction.set_generation(name, {name: digest, **draft.kept})
            except BaseException as error:
                with suppress(SearchError):  # where that cannot be told, the next publication clears up
                    if catalog.changes(since=NEWEST).generation != name:
                        draft.withdraw()
                if isinstance(error, GenerationDamaged):
                    raise StorageFailed(f"{error} Check the disk's free space, and its health.") from error
                raise
            _discard(folder, lambda other: other.isdigit() and other not in {name, *draft.kept})
    return name


def _discard(folder: Path, unwanted: Callable[[str], bool]) -> None:
    """Delete generations, or drafts of killed writers, or what a catalog that was here before has left."""
    for path in folder.iterdir():
        if unwanted(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _says_all(last: Generation, state: Changes, min_recall: float, policy: Policy) -> bool:
    """Whether a generation holds everything, and is searched as it would be if it were written now."""
    if (last.name, last.applied_seq) != (state.generation, state.seq):
        return False
    held = [last.of(space) for space in state.spaces]
    return all(space is not None and _as_written_now(space, min_recall, policy) for space in held)


def _as_written_now(space: SpaceSnapshot, min_recall: float, policy: Policy) -> bool:
    if must_measure(space.facts, len(space.rowids)):  # an older version wrote it, without false-match rates
        return False
    count, dim = space.vectors.shape
    if needs_graph(count, dim, min_recall, policy):
        return recall_is_known(space, count, min_recall, policy)
    return space.graph is None


@contextmanager
def _one_at_a_time(folder: Path, stop: Event | None = None) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"), timeout=MAX_WAIT_SECONDS)
    try:
        lock.acquire(cancel_check=lambda: stopped(stop))
    except Timeout as error:
        go_on(stop)
        raise IndexLocked(
            f"Another process has been publishing in {folder} for {MAX_WAIT_SECONDS} seconds. Try again later."
        ) from error
    try:
        yield
    finally:
        lock.release()
