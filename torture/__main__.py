"""`python -m torture`: the fault tests, for so many minutes; figures add up over runs.

    python -m torture [--minutes 10] [--figures torture.json]
    python -m torture ATTACK --seed 1 [--minutes 1] [--runs 25] [--every 40] [--skip 80] [--broken]
    python -m torture contract --routes '^/v1/(boards|watches)'

The second form is one attack with a seed of its own; it prints its figures as JSON, and adds nothing up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from torture import calls, contract, dups, kill, mixed, mutate, pictures, power, shim, spaces
from torture.world import Figures

AIMS = {
    "kill": 2_000,
    "spaces": 500,
    "dups": 1_000,
    "calls": 5_000,
    "power": 1_000,
    "mutate": 20_000,
    "mixed": 1_000_000,
    "pictures": 1_000_000,
    "uploads": 20_000,
    "contract": 50_000,
}
"""Runs after which an attack leaves the time to the others. There are just under 5,000 calls and fates."""
BY_CHANCE: dict[str, Callable[..., Figures]] = {
    "kill": kill.torture,
    "spaces": spaces.torture,
    "dups": dups.torture,
    "power": power.torture,
    "mutate": mutate.torture,
    "mixed": mixed.torture,
    "pictures": pictures.torture,
    "uploads": pictures.over_http,
}
"""All but the calls, which are gone through one after the other, and the contract, which has routes."""
PRELOADED = ("calls", "power")
ENDLESS = 10**9


def main() -> int:
    """Run, print, and return 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", nargs="?", choices=AIMS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--figures", type=Path, default=Path("torture.json"))
    parser.add_argument("--runs", type=int, default=ENDLESS)
    parser.add_argument("--every", type=int, default=1, help="of the calls, one in so many")
    parser.add_argument("--skip", type=int, default=0, help="of the calls, so many were done before")
    parser.add_argument("--routes", help="of the contract, paths that this pattern finds, and no others")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--broken", action="store_true", help="a control, which must be caught")
    chosen = parser.parse_args()
    if chosen.attack is None:
        return _all(chosen)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.attack in PRELOADED and "shim.so" not in os.environ.get("LD_PRELOAD", ""):
            return subprocess.run([sys.executable, "-m", *_words()], env=shim.preloaded(Path(folder))).returncode
        figures = _one(chosen, Path(folder))
    print(json.dumps(asdict(figures)))
    return bool(figures.wrong)


def _words() -> list[str]:
    return ["torture", *sys.argv[1:]]


def _one(chosen: argparse.Namespace, folder: Path) -> Figures:
    if chosen.attack == "calls":
        return calls.torture(
            folder, chosen.seed, every=chosen.every, skip=chosen.skip, minutes=chosen.minutes, broken=chosen.broken
        )
    if chosen.attack == "contract":
        return contract.torture(
            folder,
            chosen.seed,
            runs=chosen.runs,
            minutes=chosen.minutes,
            broken=chosen.broken,
            routes=chosen.routes,
        )
    attack = BY_CHANCE[chosen.attack]
    return attack(folder, chosen.seed, runs=chosen.runs, minutes=chosen.minutes, broken=chosen.broken)


def _all(chosen: argparse.Namespace) -> int:
    """The attacks that are short of their AIMS, side by side on all cores; figures are kept as each ends."""
    total = {attack: Figures() for attack in AIMS}
    if chosen.figures.exists():
        total |= {attack: Figures(**figures) for attack, figures in json.loads(chosen.figures.read_text()).items()}
    attacks = [attack for attack in AIMS if total[attack].runs < AIMS[attack]] or list(AIMS)
    cores = os.cpu_count() or 1
    minutes = chosen.minutes * min(1, cores / len(attacks))
    with ThreadPoolExecutor(cores) as pool:
        slices = {pool.submit(_slice, attack, minutes, chosen.seed, total[attack].runs): attack for attack in attacks}
        for ended in as_completed(slices):
            attack, here = slices[ended], ended.result()
            total[attack].add(here)
            print(f"{attack}: {here}; in all {total[attack]} (seed {chosen.seed})", flush=True)
            chosen.figures.write_text(json.dumps({name: asdict(figures) for name, figures in total.items()}, indent=2))
    return any(figures.wrong for figures in total.values())


def _slice(attack: str, minutes: float, seed: int, runs: int) -> Figures:
    """So many minutes of one attack, in a process of its own. runs: done before."""
    # Calls are gone through one after the other, over many slices; all else is by chance.
    words = ["--seed", "1", "--skip", f"{runs}"] if attack == "calls" else ["--seed", f"{seed}"]
    command = [sys.executable, "-m", "torture", attack, "--minutes", f"{minutes}", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return Figures(**json.loads(ended.stdout)) if ended.stdout else Figures(wrong=[f"{attack}: ended by itself"])


if __name__ == "__main__":
    raise SystemExit(main())
