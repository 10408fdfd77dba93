"""Short versions, with fixed seeds, of what `make torture` does at length; and proofs that each can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def torture(*arguments: str) -> dict[str, Any]:
    """Run in a process of its own: it forks, and this one has threads."""
    command = [sys.executable, "-m", "torture", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == bool(figures["wrong"])
    return figures


def test_killed_writers_lose_nothing() -> None:
    figures = torture("--kills", "25", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["kills"] == 25
    assert figures["steps"] > 25


def test_a_writer_that_acknowledges_too_early_is_caught() -> None:
    figures = torture("--kills", "60", "--seed", "1", "--broken")
    assert any("are lost" in problem for problem in figures["wrong"])
