"""The command `spaces`: which an index has and how far they are, and others added, dropped and made the default."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from indexer.terminal import EXIT_INTERRUPTED, graceful_interrupt, layer_numbers
from search.console import DEFAULT_INDEX, EXIT_REJECTED, Json, default_index, plural, print_json, say, warn
from search.recipe import IDENTITY, Pooling

if TYPE_CHECKING:
    from indexer.encoders.encoder import SpaceRequest
    from indexer.fill import FillReport
    from search.index import Index

SHOWN_SKIPPED = 20
"""Images without a readable file named in the report; `--json` lists all of them."""


def spaces(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", default_factory=default_index, show_default=DEFAULT_INDEX)
    ],
    change: Annotated[
        Literal["add", "drop", "default"] | None, typer.Argument(metavar="[add|drop|default]", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The space's name.", show_default=False)] = None,
    layer: Annotated[str | None, typer.Option(metavar="N[,N...]", help="Layers of the space to add.")] = None,
    pooling: Annotated[Pooling | None, typer.Option(help="How a layer becomes one vector.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME|HF-ID|PATH", help="Another model for it.")] = None,
    transform: Annotated[
        Literal["none", "whiten"], typer.Option(help="What its vectors go through before they are searched.")
    ] = "none",
    recommended: Annotated[
        bool, typer.Option("--recommended", help="The space that a new index of the model gets.")
    ] = False,
    words: Annotated[bool, typer.Option("--words", help="The space in which `search` looks words up.")] = False,
    style: Annotated[bool, typer.Option("--style", help="The space in which styles are compared.")] = False,
    regions: Annotated[bool, typer.Option("--regions", help="The space of parts of images.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make a space the default although images are missing in it.")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where the model runs.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, max=4096, metavar="N")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, metavar="N", help="Decoding processes.")] = None,
    as_json: Json = False,
) -> None:
    """List an index's spaces; add one and fill it from the files, drop one, or make one the default.

    `add` without a layer goes on filling what is not complete. The index is searched, and changed, meanwhile.
    """
    figures = layer is not None or pooling is not None or transform != "none"
    asked = figures or model is not None or recommended or words or style or regions
    _check_words(change, name, asked=asked, force=force)
    if change == "add":
        wanted = None
        if recommended and (figures or words or style or regions):
            raise typer.BadParameter("It says layers, pooling and transform itself.", param_hint="--recommended")
        if words and (figures or style or regions):
            raise typer.BadParameter("It says layers and pooling itself. Leave the others out.", param_hint="--words")
        if (style or regions) and (figures or model is not None or (style and regions)):
            hint = "--style" if style else "--regions"
            raise typer.BadParameter("It has a network of its own. Leave the others out.", param_hint=hint)
        if asked and not recommended:
            from indexer.encoders.encoder import SpaceRequest

            layers = None if layer is None else layer_numbers(layer)
            whiten = transform == "whiten"
            wanted = SpaceRequest(
                layers=layers, pooling=pooling, whiten=whiten, words=words, style=style, regions=regions
            )
        _add(directory, name, asked, wanted, model, device, batch_size, workers, as_json)
        return
    from search.index import Index  # imports faiss and sqlalchemy: not for --help

    with Index.open(directory, writable=change is not None) as index:
        if change is not None:
            assert name is not None
            with index.writer() as writer:
                if change == "drop":
                    writer.drop_space(name)
                else:
                    writer.set_default(name, force=force)
            index.sweep_dropped()  # without the lock in between: others can write; also what a killed drop has left
        _tell(index, None, as_json)


def _check_words(change: str | None, name: str | None, *, asked: bool, force: bool) -> None:
    """Raises BadParameter."""
    if change in ("drop", "default") and name is None:
        raise typer.BadParameter(f"Name the space: lookalike spaces DIR {change} NAME", param_hint="NAME")
    if change is None and asked:
        raise typer.BadParameter(
            "To add a space, name the index first: lookalike spaces DIR add --layer N", param_hint="DIR"
        )
    if change != "add" and asked:
        raise typer.BadParameter(
            "--layer, --pooling, --model, --transform, --recommended, --words, --style and --regions are of a space "
            "to add.",
            param_hint="add",
        )
    if name is not None and asked:
        raise typer.BadParameter("A space to add is named by its layers. Leave the name out.", param_hint="NAME")
    if change != "default" and force:
        raise typer.BadParameter("Only `default` can be forced.", param_hint="--force")


def _add(
    directory: Path,
    name: str | None,
    asked: bool,
    wanted: SpaceRequest | None,
    model: str | None,
    device: str,
    batch_size: int | None,
    workers: int | None,
    as_json: bool,
) -> None:
    from indexer.fill import Fill
    from indexer.index_encoder import load_index_encoder
    from indexer.machine import cores
    from indexer.models import COMPANION, how_to_install
    from indexer.new_space import space_to_add
    from indexer.progress import progress_bar
    from indexer.renewal import is_renewable, renew_words
    from search.index import Index

    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        stopped = stack.enter_context(graceful_interrupt())  # before anything native is loaded
        index = stack.enter_context(Index.open(directory, writable=True))
        if is_renewable(index):
            with index.writer() as writer:
                renew_words(index, writer, warn=warn)
        if asked:
            new = space_to_add(index.catalog.spaces(), wanted, model)
            if wanted is None and new.recipe.companion is None and new.transform != IDENTITY:
                how = f"{how_to_install(COMPANION)} Then run this command again."
                warn(f"{COMPANION.name} is not installed: with it, searches find more. {how}")
            if not any(space.same_as(new) for space in index.spaces):  # else it goes on
                with index.writer() as writer:
                    writer.add_space(new)
        elif name is not None:
            index.space(name)
        elif all(space.complete for space in index.spaces):
            raise typer.BadParameter("Every space is complete. Name a layer: --layer 7", param_hint="--layer")
        fill = Fill(
            index,
            lambda lacking: load_index_encoder(
                index, lacking, warn=warn, device=device, batch_size=batch_size, throughput=True
            ),
            workers=workers or max(2, cores()),
            progress=progress,
            stopped=stopped,
        )
        report = fill.run()
        index.publish()
        _tell(index, report, as_json)
    if report.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if report.skipped:
        raise typer.Exit(EXIT_REJECTED)


def _tell(index: Index, report: FillReport | None, as_json: bool) -> None:
    infos, calibrations = index.catalog.space_infos(), index.catalog.calibrations()
    if as_json:
        told = [
            {
                "name": info.space.name,
                "dim": info.space.recipe.dim,
                "count": info.count,
                "images": info.images,
                "complete": info.space.complete,
                "default": info.default,
                "encoding": asdict(info.space.encoding),
                "recipe": info.space.recipe.to_json(),
                "transform": info.space.transform.to_json(),
                "calibration": None if (known := calibrations.get(info.space.identity)) is None else known.to_json(),
            }
            for info in infos
        ]
        filled = {} if report is None else {**asdict(report), "seconds": round(report.seconds, 3)}
        print_json({"index": str(index.path), "spaces": told, **filled})
        return
    if report is not None:
        say(f"{plural(report.filled, 'image')} embedded in {report.seconds:.1f} s")
    for info in infos:
        recipe = info.space.recipe
        far = "complete" if info.space.complete else f"{info.count / max(1, info.images):.1%} filled"
        default = ", the default" if info.default else ""
        say(f"{info.space.name}: {info.count:,} of {plural(info.images, 'image')}, {far}{default} ({recipe.model})")
        if known := calibrations.get(info.space.identity):
            say(f"  hits have probabilities, by {known.labels} of {plural(known.images, 'image')}")
    if report is None:
        return
    for skipped in report.skipped[:SHOWN_SKIPPED]:
        warn(f"skipped: {skipped.path or skipped.id}: {skipped.reason}")
    if len(report.skipped) > SHOWN_SKIPPED:
        warn(f"... and {len(report.skipped) - SHOWN_SKIPPED:,} more; --json lists all")
    if report.interrupted:
        warn("Interrupted: everything so far is kept. Run the same command again to continue.")


def register(add: Callable[..., Any]) -> None:
    """Add the command to the application."""
    add("spaces")(spaces)
