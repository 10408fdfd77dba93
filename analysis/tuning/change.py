"""Changing an index over to the recipe that was chosen: its space is added, filled, and made the default; and back."""

from __future__ import annotations

from collections.abc import Callable

from analysis.errors import NotApplied, NothingToUndo
from indexer.fill import Fill, FillReport, SpaceIdentity
from indexer.index_encoder import load_index_encoder
from indexer.machine import cores
from indexer.report import Progress
from search.catalog.space_changes import Tuned
from search.index import Index
from search.lock import PATIENCE
from search.types import Space


def pending(index: Index) -> Tuned | None:
    """A change that was begun, and not ended; None where another default was chosen since, or the space dropped."""
    there, default = index.catalog.spaces()
    tuned = index.catalog.tuned()
    if tuned is None or not tuned.under_way or tuned.former != default:
        return None
    return tuned if any(space.identity == _chosen(tuned) for space in there) else None


def begin(index: Index, space: Space) -> Tuned:
    """Add a space, if it is not there yet, and note that it is to be the default. Raises SpaceExists, IndexLocked."""
    with index.writer(timeout=PATIENCE) as writer:
        there, default = index.catalog.spaces()
        held = next((one for one in there if one.same_as(space)), None)
        with writer.transaction() as transaction:
            added = transaction.add_space(space) if held is None else held.added_seq
            tuned = Tuned(default, space.name if held is None else held.name, added, under_way=True)
            transaction.set_tuned(tuned)
    return tuned


def complete(
    index: Index, tuned: Tuned, *, warn: Callable[[str], None], progress: Progress, stopped: Callable[[], bool]
) -> FillReport:
    """Fill the chosen space from the files, and make it the default once no image is missing in it.

    Where it is stopped, or files are gone, all that was embedded stays, and the default as it was: it can be called
    again. Raises NotApplied where the default was changed meanwhile, or the space dropped, IndexerError, SearchError.
    """
    report = Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=warn, throughput=True),
        workers=max(2, cores()),
        progress=progress,
        stopped=stopped,
        only=_chosen(tuned),
    ).run()
    index.publish()
    with index.writer(timeout=PATIENCE) as writer:  # whoever changes spaces has it: they stay as they are read
        there, default = index.catalog.spaces()
        chosen = next((space for space in there if space.identity == _chosen(tuned)), None)
        if chosen is None:
            raise NotApplied(
                f"{tuned.chosen} was dropped while it was filled, so {default} stays the default space. Run lookalike "
                f"tune {index.path} --apply again."
            )
        if default != tuned.former:
            raise NotApplied(
                f"{default} was made the default space while {tuned.chosen} was filled, and stays it. To take "
                f"{tuned.chosen} all the same: lookalike spaces {index.path} default {tuned.chosen}"
            )
        if chosen.complete:
            with writer.transaction() as transaction:
                transaction.set_default(tuned.chosen)
                transaction.set_tuned(tuned._replace(under_way=False))
    return report


def _chosen(tuned: Tuned) -> SpaceIdentity:
    return tuned.chosen, tuned.added_seq


def undo(index: Index) -> Tuned:
    """Make the space the default again that was it before. The other one stays. Raises NothingToUndo."""
    there, default = index.catalog.spaces()
    tuned = index.catalog.tuned()
    if tuned is None or default not in (tuned.former, tuned.chosen):
        raise NothingToUndo(
            f"The default space of {index.path}, {default}, was not made so by lookalike tune. To change it: lookalike "
            f"spaces {index.path} default NAME"
        )
    if tuned.former not in {space.name for space in there}:
        raise NothingToUndo(f"{tuned.former}, which was the default space before {default}, was dropped.")
    with index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
        transaction.set_default(tuned.former, force=True)  # it was the default, whatever it lacks
        transaction.set_tuned(None)
    return tuned
