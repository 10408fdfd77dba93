"""Write what the documents take from the code: `python docs/reference.py`. A test compares both files with it.

`cli.md` holds the help of every command; `openapi.json` describes the HTTP API.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer

HERE = Path(__file__).parent
COLUMNS = 100


def cli_reference() -> str:
    """The help of every command, as Markdown."""
    from api.cli import app

    root = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        context = command.make_context(
            f"lookalike {name}", [], resilient_parsing=True, terminal_width=COLUMNS, max_content_width=COLUMNS
        )
        parts.append(f"## lookalike {name}\n\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


HEAD = """# Commands

Written by `python docs/reference.py` from `--help`. Every command but `serve` takes `--json`. Results go to stdout,
progress and warnings to stderr.

| exit code | meaning |
|---|---|
| 0 | done |
| 2 | the command line, or a file named there, cannot be used |
| 3 | done, but some inputs were rejected; they are listed |
| 65 | the index is damaged |
| 74 | reading or writing failed, or the disk is full |
| 75 | another process is writing to the index |
| 130 | interrupted; what was committed is kept |
"""


def openapi() -> str:
    """The description of the HTTP API, as a server gives it under `/openapi.json`."""
    from api.http.access import Keys
    from api.http.app import create_app
    from api.settings import Settings

    described = create_app({}, Settings(), Keys()).openapi()
    return json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


GENERATED = {"cli.md": cli_reference, "openapi.json": openapi}


def main() -> None:
    """Write each file."""
    for name, make in GENERATED.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
