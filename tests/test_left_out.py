"""Promises about what a build does not come to any more: it is no hit, and nothing that may come back is dropped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from albums import Album

from indexer.folders import Choice

FOLLOWED = Choice(follow_links=True)


@pytest.fixture
def album(tmp_path: Path) -> Iterator[Album]:
    one = Album(tmp_path)
    yield one
    one.index.close()


def test_a_folder_that_became_a_cache_is_no_hit_any_more(album: Album) -> None:
    album.draw("0.png", "small/1.png", "small/deep/2.png")
    album.build()
    (album.photos / "small" / "CACHEDIR.TAG").touch()
    report = album.build()
    assert (report.missing, report.excluded) == (2, 2)
    assert album.names() == {"0.png"}
    assert album.build(choice=Choice(all_folders=True)).unchanged == 3
    assert len(album.names()) == 3
    assert album.build(prune=True).removed == 2


def test_a_link_that_is_not_followed_any_more_hides_its_images_and_prune_keeps_them(
    album: Album, tmp_path: Path
) -> None:
    album.draw("0.png", "../nas/1.png", "../nas/deep/2.png")
    (album.photos / "linked").symlink_to(tmp_path / "nas", target_is_directory=True)
    album.build(choice=FOLLOWED)
    album.label("1.png", "ann")
    report = album.build()
    assert (report.missing, report.excluded, report.failed) == (2, 2, [])
    assert album.names() == {"0.png"}
    report = album.build(prune=True)
    assert (report.removed, report.missing) == (0, 2)
    (told,) = report.failed
    assert told.path == "linked/"
    assert "--follow-links" in told.reason
    assert "2 images" in told.reason
    assert album.build(choice=FOLLOWED, prune=True).unchanged == 3
    assert album.hit("1.png").labels == ("ann",)
    assert album.build(prune=True, prune_all=True).removed == 2


def test_a_followed_link_to_a_drive_that_is_not_connected_loses_nothing(album: Album, tmp_path: Path) -> None:
    album.draw("0.png", "albums/here/1.png", "../drive/2.png", "../drive/3.png")
    (album.photos / "albums" / "linked").symlink_to(tmp_path / "drive", target_is_directory=True)
    assert album.build(choice=FOLLOWED).added == 4
    (tmp_path / "drive").rename(tmp_path / "away")
    report = album.build(choice=FOLLOWED, prune=True)
    assert (report.removed, report.missing) == (0, 2)
    assert [failed.path for failed in report.failed] == ["albums/linked"]
    assert album.names() == {"0.png", "1.png"}
    (tmp_path / "away").rename(tmp_path / "drive")
    assert album.build(choice=FOLLOWED, prune=True).unchanged == 4
    assert len(album.names()) == 4


def test_a_linked_folder_that_moved_into_the_source_is_known_at_its_own_path_alone(
    album: Album, tmp_path: Path
) -> None:
    album.draw("0.png", "../nas/1.png")
    (album.photos / "linked").symlink_to(tmp_path / "nas", target_is_directory=True)
    album.build(choice=FOLLOWED)
    (tmp_path / "nas").rename(album.photos / "moved")
    (album.photos / "linked").unlink()
    (album.photos / "linked").symlink_to("moved", target_is_directory=True)
    album.build(choice=FOLLOWED)
    album.draw("moved/1.png")
    shutil.copy(album.photos / "0.png", album.photos / "moved" / "1.png")
    album.build(choice=FOLLOWED)
    assert album.names() == {"0.png", "1.png"}
    assert len(album.hits()) == 1, "what linked/1.png was is nowhere"


@pytest.mark.parametrize("becomes", ["a text", "a folder"])
def test_a_picture_whose_name_another_thing_has_now_is_no_hit(album: Album, becomes: str) -> None:
    album.draw("0.png", "1.png")
    (album.photos / "1.png").rename(album.photos / "scan")  # known by its first bytes alone
    album.build()
    (album.photos / "scan").unlink()
    if becomes == "a text":
        (album.photos / "scan").write_text("nothing to see")
    else:
        (album.photos / "scan").mkdir()
    report = album.build()
    assert report.missing == 1
    assert album.names() == {"0.png"}
    assert album.build(prune=True).removed == 1


def test_a_picture_that_is_not_read_here_stays_what_it_was(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    from indexer import folders

    album.draw("0.jpg", "1.png")
    (album.photos / "1.png").rename(album.photos / "1.heic")
    album.build()
    monkeypatch.setattr(folders, "is_read", lambda kind: kind is not None and kind != "PNG")  # as without its extra
    report = album.build(prune=True)
    assert (report.unsupported, report.removed, report.missing) == ({"PNG": 1}, 0, 0)
    assert "1.heic" in album.names()


def test_a_folder_that_cannot_be_listed_loses_nothing(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    album.draw("0.png", "closed/1.png")
    album.build()
    scandir = os.scandir

    def closed(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        report = album.build(prune=True)
        assert [failed.path for failed in report.failed] == ["closed/"]
        assert (report.removed, report.missing) == (0, 0)
    assert album.build().unchanged == 2


def test_another_index_in_a_source_is_no_folder_of_pictures(album: Album) -> None:
    album.draw("0.png", "other.index/uploads/ab/1.png", "other.index/thumbnails/cd/2.png")
    (album.photos / "other.index" / "catalog.sqlite.sums").touch()
    report = album.build()
    assert (report.added, report.failed) == (1, [])
    assert [rule.why for rule in report.left_out] == ["an index of Lookalike"]


def test_failures_that_no_build_meets_any_more_are_forgotten(album: Album) -> None:
    album.draw("0.png")
    (album.photos / "broken").mkdir()
    (album.photos / "broken" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (album.photos / "link").symlink_to("nowhere")
    assert len(album.build().failed) == 2
    assert album.index.catalog.counts()[2] == 2
    (album.photos / "nowhere").mkdir()
    assert len(album.build().failed) == 1
    assert album.index.catalog.counts()[2] == 1
    assert album.build(choice=Choice(exclude=("broken",))).failed == []
    assert album.index.catalog.counts()[2] == 0
