"""Write the synchronous client from `_async_*.py`, and the client's copy of `search/query/prompt.py`, FILES: run after
every change there.

python client/generate.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).parent / "lookalike_client"
NAMES = {
    "AsyncClient": "Client",
    "AsyncConnection": "Connection",
    "_async_connection": "_connection",
    "_async_feedback": "_feedback",
    "AsyncFeedback": "Feedback",
    "_async_explain": "_explain",
    "AsyncExplaining": "Explaining",
    "AsyncNouns": "Nouns",
    "_async_nouns": "_nouns",
    "AsyncBoards": "Boards",
    "AsyncWatches": "Watches",
    "_async_boards": "_boards",
    "_async_watches": "_watches",
    "AsyncBaseTransport": "BaseTransport",
    "aclose": "close",
    "apart_async": "apart",
    "run_many_async": "run_many",
    "sleep_async": "sleep",
}

FILES = (
    "_client.py",
    "_connection.py",
    "_boards.py",
    "_watches.py",
    "_feedback.py",
    "_explain.py",
    "_nouns.py",
    "_prompt.py",
)
PROMPT = PACKAGE.parent.parent / "search" / "query" / "prompt.py"
"""Read in the client too: only there are the files that a prompt names."""


def generated(name: str) -> str:
    """The text that one of FILES has to hold."""
    if name == "_prompt.py":
        return PROMPT.read_text(encoding="utf-8").replace("search.errors", "lookalike_client._errors")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, f"_async{name}"), Path(folder, name)
        source.write_bytes((PACKAGE / source.name).read_bytes())
        unasync.unasync_files([str(source)], [unasync.Rule(f"/{source.name}", f"/{name}", NAMES)])
        text = made.read_text(encoding="utf-8")
    for words in (["check", "--select", "I", "--fix"], ["format"]):
        command = [sys.executable, "-m", "ruff", *words, "--quiet", "--stdin-filename", PACKAGE / name, "-"]
        text = subprocess.run(command, input=text, capture_output=True, check=True, encoding="utf-8").stdout
    return text


if __name__ == "__main__":
    for name in FILES:
        (PACKAGE / name).write_text(generated(name), encoding="utf-8")
