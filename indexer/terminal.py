"""Parts that long commands share: Ctrl-C, and layers as they are typed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from search.console import warn
from search.recipe import Pooling

if TYPE_CHECKING:
    from indexer.encoders.encoder import SpaceRequest

EXIT_INTERRUPTED = 130


@contextmanager
def graceful_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) asks the command to stop after the batch in flight; the second ends the process."""
    interrupted = False

    def handle(_signal: int, _frame: object) -> None:
        nonlocal interrupted
        if interrupted:
            os._exit(EXIT_INTERRUPTED)  # not sys.exit: threads under way must not delay it, and the catalog is safe
        interrupted = True
        warn("")  # below the bar, or the ^C
        warn("Stopping: committing what is in flight. Ctrl-C again to stop at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def requests(layers: Sequence[str], pooling: Pooling | None, final_norm: bool | None) -> tuple[SpaceRequest, ...]:
    """The spaces that `--layer`, `--pooling` and `--final-norm` ask for. Raises BadParameter."""
    from indexer.encoders.encoder import SpaceRequest

    if not layers and (pooling is not None or final_norm is not None):
        return (SpaceRequest(pooling=pooling, final_norm=final_norm),)
    return tuple(SpaceRequest(layers=layer_numbers(text), pooling=pooling, final_norm=final_norm) for text in layers)


def layer_numbers(text: str) -> tuple[int, ...]:
    """The layers of one space as `--layer` names them. Raises BadParameter."""
    try:
        return tuple(-1 if part.strip() == "last" else int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a layer. Give numbers such as 7 or 7,11, or last.", param_hint="--layer"
        ) from error
