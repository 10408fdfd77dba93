"""The command `dups` on a library of pictures, and what is there afterwards."""

from __future__ import annotations

import json
import stat
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from conftest import FakeEncoder, run_cli, vectors

from indexer.build import Build
from indexer.progress import Quiet
from indexer.report import BuildOptions, BuildReport
from indexer.sources import resolve_sources
from search.index import Index
from search.types import Query, QueryPart

EXTRA = ("backup/a (1).png", "backup/a.png", "backup/b.png", "raw/a.bmp")
"""What goes by default: copies of 2024/a.png and 2024/b.png, and a.png's pixels in another file."""
Found = dict[str, tuple[str, int, int]]


def dups(base: Path, *words: str | Path, check: int = 0) -> dict[str, Any]:
    """The answer of the command, as JSON."""
    answer: dict[str, Any] = json.loads(run_cli("dups", base / "i.index", *words, "--json", check=check).stdout)
    return answer


def move(base: Path) -> str:
    return f"move={base / 'trash'}"


def found(base: Path) -> Found:
    """Hash, permissions and time of every file, hidden ones too, but those of indexes."""
    return {
        path.relative_to(base).as_posix(): (
            sha256(path.read_bytes()).hexdigest(),
            stat.S_IMODE(path.lstat().st_mode),
            path.lstat().st_mtime_ns,
        )
        for path in sorted(base.rglob("*"))
        if path.is_file() and not any(part.endswith(".index") for part in path.parts)
    }


def digests(base: Path) -> list[str]:
    return sorted(digest for digest, _, _ in found(base).values())


def journal(base: Path) -> Path:
    return max((base / "i.index" / "duplicates").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def shown(base: Path) -> set[str]:
    """The paths of all hits of a search for everything."""
    with Index.open(base / "i.index") as index:
        hits = index.search(Query(parts=[QueryPart(vector=vectors(1)[0])], k=100))
        return {Path(path).relative_to(base / "photos").as_posix() for hit in hits for path in hit.paths}


def build(base: Path, **options: Any) -> BuildReport:
    with Index.open(base / "i.index", writable=True) as index, index.writer() as writer:
        chosen = BuildOptions(workers=1, **options)
        builder = Build(index, writer, FakeEncoder, chosen, Quiet(), lambda: False, time.perf_counter())
        return builder.run(resolve_sources([base / "photos"], [], index.catalog.roots()))
