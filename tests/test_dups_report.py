"""Promises of `dups --report`: one file with the pictures of each group, what may go, and why the others stay."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest
from albums import Album
from conftest import run_cli
from PIL import Image

from analysis.duplicates.groups import PROMISES
from analysis.duplicates.report import Shown, _write


@pytest.fixture
def album(tmp_path: Path) -> Album:
    """Four pictures, two of them twice; one name is no HTML."""
    made = Album(tmp_path)
    made.draw("a.png", "b.png", "c.png", "d.png")
    shutil.copyfile(made.photos / "a.png", made.photos / "<b>a & a.png")
    Image.open(made.photos / "b.png").save(made.photos / "b.bmp")
    made.build()
    return made


def figures(report: Path) -> list[tuple[str, str, bool]]:
    """The name and the verdict of each file, and whether its picture is there."""
    text = report.read_text()
    assert not re.search(r"(src|href)=.(?!data:|#)", text), "nothing from elsewhere"
    found = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    return [
        (
            html.unescape(re.findall(r"<figcaption>(.*?)<br>", one)[0]),
            re.findall(r"<b>(.*?)</b>", one)[-1],
            "data:image/jpeg;base64," in one,
        )
        for one in found
    ]


def test_each_group_is_shown_with_its_pictures_and_what_may_go(album: Album, tmp_path: Path) -> None:
    out = tmp_path / "new" / "dups.html"
    ended = run_cli("dups", album.index.path, "--report", out)
    assert f"Report: {out}" in ended.stderr
    names = {name: (said, drawn) for name, said, drawn in figures(out)}
    assert names.keys() == {"a.png", "<b>a & a.png", "b.png", "b.bmp"}
    assert all(drawn for _, drawn in names.values())
    assert sorted(said for said, _ in names.values()) == ["may go", "may go", "stays: older", "stays: older"]
    assert names["a.png"][0] == names["b.png"][0] == "stays: older"
    assert re.search(r"2 files may go, [\d.]+ [kM]?B\.", out.read_text())


def test_what_two_indexes_share_is_shown_with_its_share(album: Album, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    test = Album(tmp_path / "test")
    test.draw("alone.png")
    shutil.copyfile(album.photos / "c.png", test.photos / "again.png")
    test.build()
    out = tmp_path / "leak.html"
    run_cli("dups", album.index.path, "--against", test.index.path, "--report", out)
    assert [(name, said) for name, said, _ in figures(out)] == [
        ("c.png", f"in {album.index.path}"),
        ("again.png", f"in {test.index.path}"),
    ]
    assert "1 of 2 images" in out.read_text()
    assert "(50.0%)" in out.read_text()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(album: Album, tmp_path: Path) -> None:
    ended = run_cli("dups", album.index.path, "--report", tmp_path, check=None)
    assert ended.returncode
    assert "Name another file" in ended.stderr
    assert not (album.index.path / "groups").exists()
    assert "--apply" in run_cli("dups", album.index.path, "--report", "x", "--apply", "delete", "--yes", check=2).stderr


def test_a_report_says_that_there_are_none(tmp_path: Path) -> None:
    album = Album(tmp_path)
    album.draw("a.png", "b.png")
    album.build()
    run_cli("dups", album.index.path, "--report", tmp_path / "none.html")
    assert figures(tmp_path / "none.html") == []
    assert "No duplicates." in (tmp_path / "none.html").read_text()


def test_the_surest_kind_comes_first(tmp_path: Path) -> None:
    groups = [Shown(tier=tier, pictures=()) for tier in PROMISES]
    _write(groups, "Duplicates", "", tmp_path / "all.html")
    assert re.findall(r'<h2 id="(\w+)">', (tmp_path / "all.html").read_text()) == [*PROMISES]
