"""The progress of a long command, as a bar in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Progress as a bar with rate and time left."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("Opening", total=None)
        self._total = 0

    def found(self, files: int) -> None:
        """Show the number of files looked at so far."""
        self._bars.update(self._task, description=f"Scanning: {files:,} files")

    def start(self, files: int, *, what: str = "Embedding") -> None:
        """Add files that need work. what: is done with them."""
        self._total += files
        self._bars.update(self._task, description=what, total=self._total)

    def done(self, files: int) -> None:
        """Advance by files that are done."""
        self._bars.update(self._task, advance=files)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar on standard error, which goes away at the end; nothing where that is not a terminal.

    What is printed meanwhile comes above it on a terminal; a pipe or a file gets it as it is.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # rich would send a pipe's lines to stderr
    ) as bars:
        yield Bar(bars)
