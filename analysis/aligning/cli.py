"""The command `align`: an index learns from its own captions which words fit its images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, plural, print_json, say, warn

if TYPE_CHECKING:
    from analysis.aligning.learn import Alignment
    from indexer.fill import FillReport
    from indexer.report import Progress
    from search.index import Index

ALIGNED = "words-aligned"
"""The name of the space that is learned. Searches by words prefer it to `words`, not to a space of a text tower."""


def align(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A table of path, or id, and caption.  [the index's metadata and labels]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Learn from an index's own captions which words fit its images, if that finds more than before.

    Some captions are kept back to find out. Searches by words then use the new space, `words-aligned`. Beside a text
    tower, they use it with `--space words-aligned`.
    """
    from analysis.aligning.learn import align as learn
    from analysis.aligning.learn import captions_of
    from indexer.encoders.words import load_sentences, spaces_of_words
    from indexer.progress import progress_bar
    from indexer.terminal import EXIT_INTERRUPTED, graceful_interrupt
    from search.index import Index

    with ExitStack() as stack:
        index = stack.enter_context(Index.open(directory, writable=True))
        said = captions_of(index, captions)
        found = learn(index, said, load_sentences().encode, tell=warn)
        progress = stack.enter_context(progress_bar())
        stopped = stack.enter_context(graceful_interrupt())
        report = keep(index, found, progress=progress, stopped=stopped)
        used = spaces_of_words(index.spaces)[0].name
    if as_json:
        print_json(
            {
                "index": str(directory),
                "space": ALIGNED,
                "used": used,
                "learned_from": found.space.name,
                "captions": found.captions,
                "strength": found.strength,
                "share": found.share,
                "r_at_10": round(found.found, 4),
                "r_at_10_before": round(found.found_before, 4),
                "filled": report.filled,
                "interrupted": report.interrupted,
            }
        )
    else:
        say(
            f"Of {plural(found.captions, 'caption')}, {found.found:.0%} find their image among the first ten when they "
            f"are kept back; before, {found.found_before:.0%} did."
        )
        if used == ALIGNED:
            say(f"Searches by words use {ALIGNED} now. To undo it: lookalike spaces {directory} drop {ALIGNED}")
        else:
            say(f"Searches by words use {used} still, of a text tower. To use what was learned: --space {ALIGNED}")
    if report.interrupted:
        warn(f"Interrupted: lookalike spaces {directory} add {ALIGNED} goes on.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if report.skipped:
        warn(f"{plural(len(report.skipped), 'image')} without a vector: their files cannot be read.")
        raise typer.Exit(EXIT_REJECTED)


def keep(index: Index, found: Alignment, *, progress: Progress, stopped: Callable[[], bool]) -> FillReport:
    """Store what was learned as a space of its own, in the place of an earlier one, and fill it from what the index
    holds. Raises SearchError, IndexerError."""
    from indexer.encoders.words import keep_head
    from indexer.fill import Fill
    from indexer.index_encoder import load_index_encoder
    from indexer.machine import cores
    from search.lock import PATIENCE
    from search.recipe import IDENTITY
    from search.types import Space

    recipe = keep_head(found.head, found.space.recipe, index.models)
    space = Space(name=ALIGNED, recipe=recipe, encoding=found.space.encoding, storage="float16", transform=IDENTITY)
    with index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
        there = {one.name: one for one in index.spaces}
        same = ALIGNED in there and there[ALIGNED].same_as(space)
        if ALIGNED in there and not same:
            transaction.drop_space(ALIGNED)
        added = there[ALIGNED].added_seq if same else transaction.add_space(space)
    report = Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=warn, throughput=True),
        workers=max(2, cores()),
        progress=progress,
        stopped=stopped,
        only=(ALIGNED, added),
    ).run()
    index.publish()
    index.sweep_dropped()
    kept = {one.recipe.words.kept_as for one in index.spaces if one.recipe.words is not None}
    for file in index.models.glob("words-*.safetensors"):  # of spaces that are no more
        if file.name not in kept:
            file.unlink(missing_ok=True)
    return report
