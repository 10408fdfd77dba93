"""The progress of a long command: a bar in the terminal, or a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from search.console import warn

LINE_SECONDS = 60.0
"""Between lines in a log: short commands write none."""


class Quiet:
    """Progress that nobody looks at."""

    def found(self, files: int) -> None: ...
    def start(self, files: int, *, what: str = "") -> None: ...
    def done(self, files: int) -> None: ...


QUIET = Quiet()


class Lines:
    """Progress as lines on standard error."""

    def __init__(self) -> None:
        self._what, self._done, self._total = "", 0, 0
        self._next = time.monotonic() + LINE_SECONDS

    def found(self, files: int) -> None:
        """Say how many files were looked at so far."""
        self._tell(f"Scanning: {files:,} files")

    def start(self, files: int, *, what: str = "Embedding") -> None:
        """Add files that need work. what: is done with them; counts begin again where it is something else."""
        if what != self._what:
            self._what, self._done, self._total = what, 0, 0
        self._total += files

    def done(self, files: int) -> None:
        """Say how many files are done."""
        self._done += files
        self._tell(f"{self._what}: {self._done:,} of {self._total:,}")

    def _tell(self, line: str) -> None:
        if time.monotonic() >= self._next:
            warn(line)
            self._next = time.monotonic() + LINE_SECONDS


class Bar:
    """Progress as a bar with rate and time left."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("Opening", total=None)
        self._what, self._total = "", 0

    def found(self, files: int) -> None:
        """Show the number of files looked at so far."""
        self._bars.update(self._task, description=f"Scanning: {files:,} files")

    def start(self, files: int, *, what: str = "Embedding") -> None:
        """Add files that need work. what: is done with them; counts begin again where it is something else."""
        if what != self._what:
            self._what, self._total = what, 0
            self._bars.reset(self._task)
        self._total += files
        self._bars.update(self._task, description=what, total=self._total)

    def done(self, files: int) -> None:
        """Advance by files that are done."""
        self._bars.update(self._task, advance=files)


@contextmanager
def progress_bar() -> Iterator[Bar | Lines]:
    """A bar on standard error, which goes away at the end; a line now and then where that is not a terminal.

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
    if not console.is_terminal:
        yield Lines()
        return
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # rich would send a pipe's lines to stderr
    ) as bars:
        yield Bar(bars)
