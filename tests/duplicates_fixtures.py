"""A library of pictures with duplicates, and what may come between the steps of a run: fixtures for `dups --apply`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from albums import Album
from conftest import run_cli
from PIL import Image

from analysis.duplicates import apply


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures and their duplicates, and an index of it, to be copied."""
    album = Album(tmp_path_factory.mktemp("library"))
    album.draw("2024/a.png", "2024/b.png", "2024/alone.png")
    photos = album.photos
    for folder in ("backup", "raw"):
        (photos / folder).mkdir()
    for name in ("a", "b"):
        shutil.copyfile(photos / "2024" / f"{name}.png", photos / "backup" / f"{name}.png")
    shutil.copyfile(photos / "2024" / "a.png", photos / "backup" / "a (1).png")
    Image.open(photos / "2024" / "a.png").save(photos / "raw" / "a.bmp")
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        path.chmod(0o640 if "backup" in path.parts else 0o644)
        os.utime(path, ns=(10**18, 10**18 + number * 10**9 + 7))
    album.build()
    album.index.close()
    return photos.parent


@pytest.fixture
def base(library: Path, tmp_path: Path) -> Path:
    """The library as its own, at the path that its index knows."""
    kept = tmp_path / "kept"
    shutil.copytree(library, kept)
    run_cli("move-root", kept / "i.index", library / "photos", kept / "photos")
    return kept


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets a Ctrl-C come after so many steps; -1: never."""

    def after(steps: int) -> None:
        @contextmanager
        def interrupted() -> Iterator[Callable[[], bool]]:
            left = steps + 1

            def asked() -> bool:
                nonlocal left
                left -= 1
                return left == 0

            yield asked

        monkeypatch.setattr("indexer.terminal.graceful_interrupt", interrupted)

    return after


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets something happen after a run was planned and noted, and before its first step."""

    def happens(what: Callable[[], object]) -> None:
        begin = apply.begin

        def then(*words: Any) -> Any:
            run = begin(*words)
            what()
            return run

        monkeypatch.setattr(apply, "begin", then)

    return happens
