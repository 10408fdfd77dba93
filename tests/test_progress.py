"""Promises of the progress of long commands."""

from __future__ import annotations

import pytest

from indexer.progress import progress_bar
from search.console import say


def test_an_answer_goes_into_a_pipe_while_a_terminal_shows_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr counts as a terminal, stdout does not
    with progress_bar() as progress:
        progress.start(2)
        say("the answer")
    told = capsys.readouterr()
    assert told.out == "the answer\n"
    assert "Embedding" in told.err


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        progress.start(2)
        progress.done(1)
    assert capsys.readouterr() == ("", ""), "a minute has not passed"
    monkeypatch.setattr("indexer.progress.LINE_SECONDS", 0)
    with progress_bar() as progress:
        progress.found(1_200)
        progress.start(2_000)
        progress.done(1)
        progress.start(1)
        progress.done(1_000)
        progress.start(8, what="Comparing")
        progress.done(3)
    lines = ["Scanning: 1,200 files", "Embedding: 1 of 2,000", "Embedding: 1,001 of 2,001", "Comparing: 3 of 8"]
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in lines))
