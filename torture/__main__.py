"""`python -m torture`: the fault tests, for so many minutes; figures add up over runs.

    python -m torture [--minutes 10] [--figures torture.json]
    python -m torture --kills 25 --seed 1 [--broken]

The second form is one short run with a fixed seed, for the tests: it prints its figures as JSON and adds nothing up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from torture import kill


def main() -> int:
    """Run, print, and return 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--figures", type=Path, default=Path("torture.json"))
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--broken", action="store_true", help="a control: the writer acknowledges too early")
    chosen = parser.parse_args()
    seed = int(time.time()) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory() as folder:
        if chosen.kills:
            figures = kill.torture(Path(folder), seed, kills=chosen.kills, broken=chosen.broken)
            print(json.dumps(asdict(figures)))
            return bool(figures.wrong)
        figures = kill.torture(Path(folder), seed, kills=10**9, minutes=chosen.minutes)
    total = json.loads(chosen.figures.read_text()) if chosen.figures.exists() else asdict(kill.Figures())
    total["kills"] += figures.kills
    total["steps"] += figures.steps
    total["wrong"] += figures.wrong
    for step, count in figures.by_step.items():
        total["by_step"][step] = total["by_step"].get(step, 0) + count
    chosen.figures.write_text(json.dumps(total, indent=2) + "\n")
    print(f"this time: {figures.kills:,} kills after {figures.steps:,} steps, {len(figures.wrong)} wrong (seed {seed})")
    print(f"in all: {total['kills']:,} kills, during {total['by_step']}; {len(total['wrong'])} wrong")
    for problem in total["wrong"]:
        print(problem)
    return bool(total["wrong"])


if __name__ == "__main__":
    raise SystemExit(main())
