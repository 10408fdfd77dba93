"""Write `_client.py`, the synchronous client, from `_async_client.py`: run after every change there.

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
    "AsyncBaseTransport": "BaseTransport",
    "aclose": "close",
    "apart_async": "apart",
    "run_many_async": "run_many",
    "sleep_async": "sleep",
}


def generated() -> str:
    """The text that `_client.py` has to hold."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "_async_client.py"), Path(folder, "_client.py")
        source.write_bytes((PACKAGE / "_async_client.py").read_bytes())
        unasync.unasync_files([str(source)], [unasync.Rule("/_async_client.py", "/_client.py", NAMES)])
        text = made.read_text(encoding="utf-8")
    for words in (["check", "--select", "I", "--fix"], ["format"]):
        command = [sys.executable, "-m", "ruff", *words, "--quiet", "--stdin-filename", PACKAGE / "_client.py", "-"]
        text = subprocess.run(command, input=text, capture_output=True, check=True, encoding="utf-8").stdout
    return text


if __name__ == "__main__":
    (PACKAGE / "_client.py").write_text(generated(), encoding="utf-8")
