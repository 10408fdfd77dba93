"""The HTTP contract, by schemathesis: calls generated from `/openapi.json`, valid and not, all checks, with a key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from torture.served import KEY, TOKEN, served
from torture.world import Figures, in_rounds

CONFIG = """
request-timeout = 60.0

[checks]
max_response_time = 60.0

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "431", "5xx"]

[checks.positive_data_acceptance]
# What a schema cannot say: that bytes are a picture, that a text is a filter; and what else may be in a server's way.
expected-statuses = ["2xx", "303", "400", "401", "403", "404", "409", "413", "415", "422", "429", "431", "503"]
"""

THERE = f"""
[parameters]
"path.board" = 1
"path.item" = [1, 2, 3]
"path.share" = [1, 2]
"path.comment" = [1, 2]
"path.watch" = 1
"path.session" = 1
"path.token" = "{TOKEN}"
"""
"""For every other seed: numbers that are there, so that calls get beyond the first look."""


EXAMPLES = 50
"""Of each call, in each of schemathesis's phases, and with one seed."""


def torture(
    folder: Path, seed: int, *, runs: int, minutes: float = 1e9, broken: bool = False, routes: str | None = None
) -> Figures:
    """So many generated calls at least, a server and a seed after the other. broken: a server that
    fails on some of them, as a control. routes: of paths that this pattern finds, and no others.
    """
    examples = min(EXAMPLES, runs)
    return in_rounds(folder, seed, runs, minutes, lambda here, seed: _round(here, seed, examples, broken, routes))


def _round(folder: Path, seed: int, examples: int, broken: bool, routes: str | None) -> Figures:
    figures = Figures()
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(CONFIG + (THERE if seed % 2 else ""))
    with served(folder, key=KEY, broken=broken) as (url, process):
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", f"{config}", "run", f"{url}/openapi.json"),
            *("--checks", "all", "--max-examples", f"{examples}", "--seed", f"{seed}", "--continue-on-failure"),
            *("--generation-database", "none", "--header", f"Authorization: Bearer {KEY}", "--no-color"),
            *("--report", "json", "--report-json-path", f"{report}", "--warnings", "off"),
            *([] if routes is None else ["--include-path-regex", routes]),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if process.poll() is not None:
            figures.wrong.append(f"the server ended with {process.returncode}")
    if ended.returncode:
        figures.wrong.append(f"seed {seed}: {ended.stdout[-6000:]}")
    if report.exists():
        figures.runs = json.loads(report.read_text())["test_cases"]["generated"]
    return figures
