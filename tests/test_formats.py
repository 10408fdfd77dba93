"""Promises to those who upgrade: an index of every released format opens, and answers the same."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from search.catalog.schema import SCHEMA_VERSION
from search.index import Index
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
        assert ask(index) == expected
        assert verify(index).findings == []
        assert (index.info().images, index.info().failures) == (297, 1)
    with Index.open(tmp_path / "i.index", writable=True) as index:
        index.publish(anew=True)
        index.refresh()
        assert ask(index) == expected


def test_a_released_format_is_kept() -> None:
    assert {int(path.stem.removeprefix("schema-")) for path in RELEASED} >= {2, SCHEMA_VERSION}
