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
