"""Promises of `--files-from`: a list adds what it names, and a wrong line of it harms nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from albums import Album

from indexer import folders
from indexer.folders import Choice
from indexer.reached import Reached
from indexer.sources import Source
from search.filters import parse_filter
from search.types import Failure, Location
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


def test_what_a_wrong_line_leaves_behind_is_no_root_to_move_into(album: Album, tmp_path: Path) -> None:
    for wrong in (tmp_path / "nothing.png", tmp_path):
        album.build(listed=[wrong, album.photos / "2024" / "b.png"])
    assert album.index.catalog.failures() == []
    with album.index.writer() as writer, writer.transaction() as transaction:
        transaction.fail(Failure(root=str(tmp_path), path="old.png", mtime_ns=1, size=1, reason="as it was recorded"))
    album.photos.rename(tmp_path / "pictures")
    with album.index.writer() as writer:
        move_root(writer, album.photos, tmp_path / "pictures")
    assert album.index.catalog.roots() == [str(tmp_path / "pictures")]


def test_a_line_that_the_system_refuses_is_one_failure(album: Album, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300 + ".png")
    report = album.build(listed=[long, album.photos / "2024" / "b.png"])
    assert (report.unchanged, [failed.path for failed in report.failed]) == (1, [long.name])
    report = album.build(album.photos, listed=[album.photos / long.name])
    assert (report.unchanged, [failed.path for failed in report.failed]) == (2, [long.name])


def test_a_listed_source_is_read_as_ever(album: Album) -> None:
    everything = [album.photos, *album.photos.rglob("*")]
    report = album.build(album.photos, listed=everything)
    assert (report.unchanged, report.failed) == (2, [])


def test_a_file_of_a_list_alone_that_is_gone_is_missing(album: Album) -> None:
    (gone := album.photos / "2024" / "b.png").unlink()
    report = album.build(listed=[gone, album.photos / "2024" / "africa" / "a.png"])
    assert (report.missing, report.unchanged, len(report.failed)) == (1, 1, 1)
    assert album.names() == {"a.png"}
    (broken := album.photos / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    album.build(listed=[broken, album.photos / "2024" / "africa" / "a.png"])
    assert [failed.path for failed in album.index.catalog.failures()] == ["broken.jpg"]
    broken.unlink()
    album.build(listed=[broken, album.photos / "2024" / "africa" / "a.png"])
    assert album.index.catalog.failures() == []


def test_an_index_is_no_source_whoever_lists_its_files(album: Album) -> None:
    inside = album.photos / "an.index" / "thumbnails"
    album.draw("an.index/thumbnails/c.png")
    (album.photos / "link").symlink_to(album.photos / "an.index", target_is_directory=True)
    skip = frozenset({album.photos / "an.index"})
    for source in (
        Source(root=album.photos, paths=("an.index/thumbnails/c.png",)),
        Source(root=inside, paths=("c.png",)),
        Source(root=album.photos, paths=("link/thumbnails/c.png",)),
        Source(root=album.photos, named=("an.index/", "an.index/thumbnails/", "an.index/thumbnails/c.png")),
    ):
        found = [entry for entry in folders.scan(source, Choice(skip=skip)) if isinstance(entry, Location)]
        assert not any(Path(entry.root, entry.path).is_relative_to(inside) for entry in found)


def test_what_lies_below_a_folder_that_tells_nothing_is_not_excluded(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.lstat

    def refused(path: Path) -> os.stat_result:
        if path.name == "2024":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path)

    monkeypatch.setattr(Path, "lstat", refused)
    reached = Reached()
    reached.note(Failure(root=str(album.photos), path="2024", mtime_ns=0, size=0, reason="Permission denied"))
    reached.note(Failure(root=str(album.photos), path="c.png", mtime_ns=0, size=0, reason="Permission denied"))
    assert (reached.unread, reached.failed) == ({"2024/"}, {"2024", "c.png"})


def test_a_failure_that_was_read_since_does_not_move_onto_its_image(album: Album) -> None:
    known = album.photos / "2024" / "b.png"
    facts = known.stat()
    with album.index.writer() as writer, writer.transaction() as transaction:
        transaction.fail(
            Failure(
                root=str(known.parent), path="b.png", mtime_ns=facts.st_mtime_ns, size=facts.st_size, reason="no plugin"
            )
        )
    report = album.build(label_from_folder=True)
    assert (report.unchanged, report.failed) == (2, [])
    assert album.index.catalog.failures() == []


def test_a_failure_of_the_folder_around_gives_way_to_an_image_that_was_read(album: Album, tmp_path: Path) -> None:
    facts = (album.photos / "2024" / "b.png").stat()
    failed = Failure(
        root=str(tmp_path), path="photos/2024/b.png", mtime_ns=facts.st_mtime_ns, size=facts.st_size, reason="no plugin"
    )
    with album.index.writer() as writer, writer.transaction() as transaction:
        transaction.fail(failed)
    report = album.build(tmp_path)
    assert (report.unchanged, report.failed) == (2, [])


def test_a_dry_run_of_a_list_counts_a_renamed_file_once(album: Album) -> None:
    old, new = album.photos / "2024" / "b.png", album.photos / "2024" / "c.png"
    old.rename(new)
    for dry in (True, False):
        report = album.build(listed=[old, new], dry=dry)
        assert (report.moved, report.missing) == (1, 0)
