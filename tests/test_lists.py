"""Promises of `--files-from`: a list adds what it names, and a wrong line of it harms nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from albums import Album

from indexer import folders
from indexer.folders import Choice
from search.filters import parse_filter
from search.upkeep.roots import move_root


@pytest.fixture
def album(tmp_path: Path) -> Iterator[Album]:
    one = Album(tmp_path)
    one.draw("2024/africa/a.png", "2024/b.png")
    one.build(label_from_folder=True)
    yield one
    one.index.close()


def state(album: Album) -> object:
    """Roots, what hits are called and labelled, and how many a glob finds."""
    found = album.hits(filter=parse_filter({"path": {"glob": "2024/*"}}))
    return album.index.catalog.roots(), sorted((hit.paths, hit.labels) for hit in album.hits()), len(found)


def test_a_wrong_line_moves_no_root(album: Album, tmp_path: Path) -> None:
    before = state(album)
    for wrong in (Path("/nothing-here.png"), tmp_path / "nothing.png", Path("/"), tmp_path, album.photos):
        album.build(listed=[wrong, album.photos / "2024" / "b.png"], label_from_folder=True)
        assert state(album) == before
    everything = [album.photos, *album.photos.rglob("*")]
    assert len(album.build(listed=everything).failed) == 3, "folders are no files"
    album.build(label_from_folder=True)
    assert state(album) == before


def test_a_listed_file_that_is_gone_is_missing(album: Album) -> None:
    (gone := album.photos / "2024" / "b.png").unlink()
    report = album.build(album.photos, listed=[gone])
    assert (report.missing, [failed.path for failed in report.failed]) == (1, ["2024/b.png"])
    assert album.names() == {"a.png"}
    assert album.build(album.photos, listed=[gone], prune=True).removed == 1


def test_a_listed_folder_of_a_source_is_read_and_pruned_as_ever(album: Album) -> None:
    album.draw("2024/c.png")
    (album.photos / "2024" / "b.png").unlink()
    report = album.build(album.photos, listed=[album.photos / "2024", album.photos / "2024" / "c.png"], prune=True)
    assert (report.added, report.removed, report.failed) == (1, 1, [])
    (album.photos / "2024" / "CACHEDIR.TAG").touch()
    assert album.build(album.photos, listed=[album.photos / "2024"]).excluded == 2


def test_a_list_beside_a_folder_is_judged_as_the_folder_is(album: Album) -> None:
    album.draw(".hidden/d.png", "out/e.png", ".hidden/out/f.png")
    (album.photos / "0.xmp").write_text("no picture")
    (album.photos / "empty").mkdir()
    report = album.build(
        album.photos,
        album.photos / "out",
        listed=[album.photos / name for name in ("0.xmp", ".hidden/d.png", "out/e.png", ".hidden/out/f.png")],
        choice=Choice(exclude=("out",)),
    )
    assert (report.added, report.failed) == (1, [])
    assert album.names() == {"a.png", "b.png", "d.png"}


def test_a_listed_file_behind_a_link_within_a_source_is_there_once(album: Album) -> None:
    (album.photos / "link").symlink_to(album.photos / "2024", target_is_directory=True)
    before = state(album)
    for sources in ((), (album.photos,)):
        album.build(*sources, listed=[album.photos / "link" / "b.png"])
        assert state(album) == before


def test_roots_that_differ_only_in_case_are_two(album: Album, tmp_path: Path) -> None:
    if os.path.lexists(tmp_path / "Photos"):
        pytest.skip("this disk takes them for one")
    album.draw("../Photos/2024/c.png")
    album.build(tmp_path / "Photos")
    before = state(album)
    for folder in (tmp_path / "Photos" / "2024", tmp_path / "photos" / "2024"):
        report = album.build(folder)
        assert (report.added, state(album)) == (0, before)
        assert report.unchanged


def test_what_a_scan_could_not_read_is_tried_again(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    album.draw("d.png")
    (album.photos / "d.png").rename(album.photos / "d")

    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(folders, "_kind", refused)
        assert {failed.reason for failed in album.build().failed} == {"Permission denied"}
    report = album.build()
    assert (report.added, report.failed) == (1, [])
    assert album.index.catalog.failures() == []


def test_what_failed_in_a_folder_belongs_to_the_folder_around_it(album: Album, tmp_path: Path) -> None:
    (tmp_path / "more" / "new").mkdir(parents=True)
    (broken := tmp_path / "more" / "new" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    album.build(tmp_path / "more" / "new")
    (tmp_path / "more").rename(tmp_path / "moved")
    with album.index.writer() as writer:
        assert move_root(writer, tmp_path / "more", tmp_path / "moved") == [str(tmp_path / "moved" / "new")]
    album.build(tmp_path / "moved")
    (failed,) = album.index.catalog.failures()
    assert (failed.root, failed.path) == (str(tmp_path / "moved"), f"new/{broken.name}")
