"""How fast the command line answers: `lookalike --help` beside the bare interpreter, the best and the median of 20.

python benchmarks/cli.py
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 20


def measure(*command: str | Path) -> list[float]:
    """Seconds of wall time of each run, sorted."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return sorted(times)


def main() -> None:
    """Measure and print."""
    lookalike = Path(sys.executable).with_name("lookalike")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    commands: dict[str, tuple[str | Path, ...]] = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "python -c 'import typer'": (sys.executable, "-c", "import typer"),
        "lookalike --version": (lookalike, "--version"),
        "lookalike --help": (lookalike, "--help"),
        "lookalike build --help": (lookalike, "build", "--help"),
    }
    for name, command in commands.items():
        times = measure(*command)
        print(f"{name:26} best {times[0]:.3f} s, median {statistics.median(times):.3f} s")


if __name__ == "__main__":
    main()
