"""Promises to those who upgrade: an index of every released format opens, and answers the same."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from search.catalog.schema import SCHEMA_VERSION
from search.index import Index
from search.recipe import IDENTITY
from search.upkeep.verify import verify

FORMATS = Path(__file__).parent / "formats"
sys.path.append(str(FORMATS))

from make import ask  # noqa: E402

RELEASED = sorted(FORMATS.glob("schema-*.zip"))


@pytest.mark.parametrize("writable", [False, True], ids=["reader", "writer"])
@pytest.mark.parametrize("archive", RELEASED, ids=[path.stem for path in RELEASED])
def test_an_index_of_a_released_format_answers_the_same(tmp_path: Path, archive: Path, writable: bool) -> None:
    shutil.unpack_archive(archive, tmp_path)
    expected = json.loads(archive.with_suffix(".json").read_text(encoding="utf-8"))
    with Index.open(tmp_path / "i.index", writable=writable) as index:
        check(ask(index), expected)
        assert verify(index).findings == []
        assert (index.info().images, index.info().failures) == (297, 1)
    with Index.open(tmp_path / "i.index", writable=True) as index:
        index.publish(anew=True)
        index.refresh()
        untransformed = [space for space in index.spaces if space.transform == IDENTITY]
        count = len(expected) * len(untransformed) // len(index.spaces)
        check(ask(index)[:count], expected[:count])  # a transform is fitted again


def check(answers: list[Any], expected: list[Any]) -> None:
    assert [[hit[0] for hit in hits] for hits in answers] == [[hit[0] for hit in hits] for hits in expected]
    for hit, wanted in zip(chain(*answers), chain(*expected), strict=True):
        assert hit[1] == pytest.approx(wanted[1], abs=2e-6), "processors round differently"
        assert hit[2:] == wanted[2:]


def test_a_released_format_is_kept() -> None:
    assert {int(path.stem.removeprefix("schema-")) for path in RELEASED} >= {2, SCHEMA_VERSION}
