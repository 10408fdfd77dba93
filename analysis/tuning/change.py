"""Changing an index over to the recipe that was chosen: its space is added, filled, and made the default; and back."""

from __future__ import annotations

from collections.abc import Callable

from analysis.errors import NothingToUndo
from indexer.fill import Fill, FillReport
from indexer.index_encoder import load_index_encoder
from indexer.machine import cores
from indexer.report import Progress
from search.catalog.space_changes import Tuned
from search.index import Index
from search.types import Space


def pending(index: Index) -> Tuned | None:
    """A change that was begun, and whose space is not complete; None where another default was chosen since."""
    there, default = index.catalog.spaces()
    tuned = index.catalog.tuned()
    if tuned is None or tuned.former != default:
        return None
    return tuned if any(space.name == tuned.chosen and not space.complete for space in there) else None


def begin(index: Index, space: Space) -> Tuned:
    """Add a space, if it is not there yet, and note that it is to be the default. Raises SpaceExists, IndexLocked."""
    there, default = index.catalog.spaces()
    with index.writer() as writer, writer.transaction() as transaction:
        if not any(one.same_as(space) for one in there):
            transaction.add_space(space)
        tuned = Tuned(former=default, chosen=space.name)
        transaction.set_tuned(tuned)
    return tuned


def complete(
    index: Index, tuned: Tuned, *, warn: Callable[[str], None], progress: Progress, stopped: Callable[[], bool]
) -> FillReport:
    """Fill the chosen space from the files, and make it the default once no image is missing in it.

    Where it is stopped, or files are gone, all that was embedded stays, and the default as it was: it can be called
    again. Raises IndexerError, SearchError.
    """
    report = Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=warn, throughput=True),
        workers=max(2, cores()),
        progress=progress,
        stopped=stopped,
    ).run()
    index.publish()
    if index.space(tuned.chosen).complete:
        with index.writer() as writer:
            writer.set_default(tuned.chosen)
    return report


def undo(index: Index) -> Tuned:
    """Make the space the default again that was it before. The other one stays. Raises NothingToUndo."""
    there, default = index.catalog.spaces()
    tuned = index.catalog.tuned()
    if tuned is None or default not in tuned:
        raise NothingToUndo(
            f"The default space of {index.path}, {default}, was not made so by lookalike tune. To change it: lookalike "
            f"spaces {index.path} default NAME"
        )
    if tuned.former not in {space.name for space in there}:
        raise NothingToUndo(f"{tuned.former}, which was the default space before {default}, was dropped.")
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.set_default(tuned.former, force=True)  # it was the default, whatever it lacks
        transaction.set_tuned(None)
    return tuned
