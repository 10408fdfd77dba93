"""Promises about folders that are gone for good, or lie elsewhere now, however they are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import pytest
from albums import Album

from search.errors import UnknownRoot
from search.upkeep.roots import forget_root, move_root


@pytest.fixture
def album(tmp_path: Path) -> Iterator[Album]:
    one = Album(tmp_path)
    one.draw("0.png")
    yield one
    one.index.close()


def forget(album: Album, folder: Path) -> int:
    with album.index.writer() as writer:
        return forget_root(writer, folder)


def break_pictures(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n")


def test_a_folder_that_has_only_failures_is_forgotten(album: Album) -> None:
    break_pictures(album.photos / "broken" / "1.png", album.photos / "broken" / "2.png")
    album.build()
    assert forget(album, album.photos / "broken") == 2
    assert album.index.catalog.counts() == (1, 1, 0)
    with pytest.raises(UnknownRoot):
        forget(album, album.photos / "broken")


def test_a_root_that_has_only_failures_is_forgotten(album: Album, tmp_path: Path) -> None:
    break_pictures(tmp_path / "usb" / "1.png")
    album.build(album.photos, tmp_path / "usb")
    assert forget(album, tmp_path / "usb") == 1
    assert album.index.catalog.counts() == (1, 1, 0)


def test_a_file_that_is_known_and_failed_since_is_one_file(album: Album) -> None:
    album.draw("deep/1.png")
    album.build()
    break_pictures(album.photos / "deep" / "1.png")
    album.build()
    assert album.index.catalog.counts() == (2, 2, 1)
    assert forget(album, album.photos / "deep") == 1
    assert album.index.catalog.counts() == (1, 1, 0)


def test_a_folder_may_be_named_by_a_link_as_for_a_build(album: Album, tmp_path: Path) -> None:
    album.draw("../real/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    album.build(album.photos, tmp_path / "link")
    assert album.index.catalog.roots() == [str(album.photos), str(tmp_path / "real")]
    assert forget(album, tmp_path / "link") == 1


def test_a_folder_may_be_named_in_either_form_of_its_accents(album: Album, tmp_path: Path) -> None:
    album.draw(normalize("NFD", "Café/été/1.png"), normalize("NFD", "../Zoë/2.png"))
    album.build(album.photos, tmp_path / normalize("NFD", "Zoë"))
    assert album.index.catalog.counts()[0] == 3
    assert forget(album, album.photos / normalize("NFC", "Café/été")) == 1
    there = tmp_path / "moved"
    (tmp_path / normalize("NFD", "Zoë")).rename(there)
    with album.index.writer() as writer:
        assert move_root(writer, tmp_path / normalize("NFC", "Zoë"), there) == [str(there)]
    assert forget(album, there) == 1
