"""Promises of a build to whoever has labelled images: nothing is lost by a drive, an editor, an option or a copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from albums import Album, noise
from conftest import draw_picture, image_id, new_image, run_cli, vectors
from PIL import Image

from indexer import build as build_module
from indexer.folders import Choice
from indexer.metadata import Annotation
from indexer.sources import renamed_away, resolve_sources
from search.filters import parse_filter
from search.index import Index
from search.types import Location, Query, QueryPart
from search.upkeep.roots import forget_root

MakeIndex = Callable[..., Index]


@pytest.fixture
def album(tmp_path: Path) -> Iterator[Album]:
    one = Album(tmp_path)
    yield one
    one.index.close()


def test_a_drive_that_is_not_mounted_loses_nothing(album: Album, tmp_path: Path) -> None:
    album.draw(*(f"disk{disk}/{number}.png" for disk in (1, 2) for number in range(4)))
    album.build()
    for number in range(4):
        hit = next(hit for hit in album.hits() if f"disk2/{number}.png" in str(hit.path))
        with album.index.writer() as writer:
            writer.describe(hit.id, labels=["holiday"])
    shutil.move(album.photos / "disk2", tmp_path / "away")
    (album.photos / "disk2").mkdir()  # an empty mount point
    report = album.build(prune=True)
    assert (report.removed, report.missing, report.unchanged) == (0, 4, 4)
    (told,) = report.failed
    assert told.path == "disk2/"
    assert "--prune-all" in told.reason
    assert len(album.hits()) == 4, "what is not there is not a hit"
    (album.photos / "disk2").rmdir()
    shutil.move(tmp_path / "away", album.photos / "disk2")
    report = album.build(prune=True)
    assert (report.unchanged, report.embedded, report.failed) == (8, 0, [])
    assert len(album.hits(filter=parse_filter({"label": "holiday"}))) == 4


def test_most_of_a_source_is_not_dropped_unasked(album: Album) -> None:
    album.draw(*(f"{number}.png" for number in range(40)))
    album.build()
    for number in range(30):
        (album.photos / f"{number}.png").unlink()
    report = album.build(prune=True)
    assert (report.removed, report.missing) == (0, 30)
    assert "30 of its 40 files are gone" in report.failed[0].reason
    assert album.build(prune=True, prune_all=True).removed == 30
    assert album.index.info().images == 10


def test_a_folder_that_was_deleted_is_pruned(album: Album) -> None:
    album.draw(*(f"2024/{folder}/{number}.png" for folder in "abc" for number in range(4)))
    album.build()
    shutil.rmtree(album.photos / "2024" / "b")
    report = album.build(prune=True)
    assert (report.removed, report.failed) == (4, [])


def test_a_drive_whose_mount_point_went_with_it_loses_nothing(album: Album) -> None:
    album.draw("disk1/0.png", "disk1/1.png", "disk2/2.png", "loose.png")
    album.build()
    shutil.rmtree(album.photos / "disk2")
    (album.photos / "loose.png").unlink()
    report = album.build(prune=True)
    assert (report.removed, report.missing) == (1, 1), "only the loose file is surely gone"
    assert [failed.path for failed in report.failed] == ["disk2/"]
    assert album.build(prune=True, prune_all=True).removed == 1


def test_hidden_files_of_a_mount_point_do_not_make_it_a_folder_of_pictures(album: Album) -> None:
    album.draw("year/disk/0.png", "year/1.png")
    album.build()
    (album.photos / "year" / "disk" / "0.png").unlink()
    (album.photos / "year" / "disk" / ".keep").touch()
    report = album.build(prune=True)
    assert (report.removed, [failed.path for failed in report.failed]) == (0, ["year/disk/"])


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("vanished", [False, True])
def test_what_was_removed_stays_away_when_its_drive_comes_back_with_an_edit(
    album: Album, tmp_path: Path, prune: bool, vanished: bool
) -> None:
    album.draw("disk1/0.jpg", "disk2/1.jpg", "disk2/removed.jpg")
    album.build()
    with album.index.writer() as writer:
        writer.remove([album.hit("removed.jpg").id])
    shutil.move(album.photos / "disk2", tmp_path / "away")
    if not vanished:
        (album.photos / "disk2").mkdir()
    album.build(prune=prune)
    if not vanished:
        (album.photos / "disk2").rmdir()
    shutil.move(tmp_path / "away", album.photos / "disk2")
    rate(album.photos / "disk2" / "removed.jpg")
    album.build(prune=prune)
    assert album.names() == {"0.jpg", "1.jpg"}


def rate(path: Path) -> None:
    """Write a rating into a JPEG, as photo managers do: its pixels stay."""
    data = path.read_bytes()
    packet = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><xmp:Rating>5</xmp:Rating></x:xmpmeta>"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + data[2:])


def test_an_edit_of_a_files_metadata_keeps_labels_and_what_was_removed(album: Album) -> None:
    album.draw("kept.jpg", "removed.jpg", "other.jpg")
    album.build()
    album.label("kept.jpg", "ann", "beach", album=7)
    with album.index.writer() as writer:
        assert writer.remove([album.hit("removed.jpg").id]) == 1
    for name in ("kept.jpg", "removed.jpg"):
        rate(album.photos / name)
    report = album.build()
    assert (report.updated, report.ignored, report.added) == (1, 1, 0)
    hit = album.hit("kept.jpg")
    assert (hit.labels, hit.metadata) == (("ann", "beach"), {"album": 7})
    assert album.names() == {"kept.jpg", "other.jpg"}
    assert album.build().ignored == 1, "it stays away"
    assert album.build(readd=True).added == 1


def test_an_edit_keeps_labels_also_where_a_copy_of_it_was_met_before(album: Album) -> None:
    album.draw("b.jpg", "other.jpg")
    album.build()
    album.label("b.jpg", "ann", album=7)
    rate(album.photos / "b.jpg")
    shutil.copy(album.photos / "b.jpg", album.photos / "a-copy.jpg")  # read before b.jpg
    album.build()
    hit = album.hit("b.jpg")
    assert (hit.labels, hit.metadata) == (("ann",), {"album": 7})


def test_a_copy_of_another_known_picture_under_an_old_name_gets_no_labels(album: Album) -> None:
    album.draw("a.png", "b.png")
    album.build()
    album.label("b.png", "ann", album=7)
    shutil.copy(album.photos / "a.png", album.photos / "b.png")
    album.build()
    assert (album.hit("a.png").labels, album.hit("a.png").metadata) == ((), {})


def test_reading_again_reads_rejected_files_too(album: Album) -> None:
    album.draw("a.bmp", "b.bmp")
    path = album.photos / "a.bmp"
    good, times = path.read_bytes(), path.stat()
    path.write_bytes(b"BM" + bytes(len(good) - 2))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(album.build().failed) == 1
    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = album.build(reread=True)
    assert (report.added, report.failed) == (1, [])


def test_a_file_that_could_not_be_read_is_tried_again(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    album.draw("0.png")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("indexer.pictures.worker.Workers.load", refused)
        assert [failed.reason for failed in album.build().failed] == ["Permission denied"]
    report = album.build()  # neither size nor time of the file has changed
    assert (report.added, report.failed) == (1, [])
    assert album.index.catalog.counts()[2] == 0


def test_a_line_of_metadata_with_a_path_that_is_not_known_goes_by_its_id(album: Album) -> None:
    album.draw("0.png", "1.png")
    album.build()
    line = Annotation(id=album.hit("1.png").id, path="as/it/was/1.png", labels=("ann",))
    assert album.build(annotations=(line,)).failed == []
    assert album.hit("1.png").labels == ("ann",)


def test_another_picture_under_an_old_name_gets_no_labels_of_the_old_one(album: Album) -> None:
    album.draw("cover.png", "other.png")
    album.build()
    album.label("cover.png", "ann")
    Image.effect_noise((96, 96), 90).convert("RGB").save(album.photos / "cover.png")
    assert album.build().updated == 1
    assert album.hit("cover.png").labels == ()


def test_another_picture_at_the_path_of_a_removed_one_is_taken(album: Album) -> None:
    album.draw("removed.png", "elsewhere.png")
    album.build()
    with album.index.writer() as writer:
        assert writer.remove([album.hit(name).id for name in ("removed.png", "elsewhere.png")]) == 2
    noise("another").save(album.photos / "removed.png")
    assert album.build().added == 1
    assert album.names() == {"removed.png"}


def test_erasing_an_image_keeps_no_hash_of_its_pixels(album: Album) -> None:
    album.draw("a.jpg", "b.jpg")
    album.build()
    with album.index.writer() as writer:
        writer.remove([album.hit("a.jpg").id], erase=True)
        writer.remove([album.hit("b.jpg").id])
    with album.index.catalog.reading() as connection:
        kept = connection.exec_driver_sql("SELECT path, removed_phash IS NULL FROM locations").all()
    assert kept == [("b.jpg", 0)]


def test_an_exclusion_added_later_hides_what_it_names_and_prune_drops_it(album: Album) -> None:
    album.draw("0.png", "private/1.png", "private/deep/2.png")
    album.build()
    report = album.build(choice=Choice(exclude=("private",)))
    assert (report.missing, report.excluded) == (2, 2)
    assert album.names() == {"0.png"}
    assert album.build().unchanged == 3
    assert len(album.names()) == 3, "they are back without the exclusion"
    report = album.build(choice=Choice(exclude=("private",)), prune=True)
    assert (report.removed, report.failed) == (2, [])
    assert album.index.info().images == 1


def test_a_change_that_keeps_size_and_time_is_seen_by_reading_again(album: Album) -> None:
    album.draw("a.bmp", "b.bmp")
    path = album.photos / "a.bmp"
    album.build()
    times = path.stat()
    old = album.hit("a.bmp").id
    noise("another").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert album.build().unchanged == 2
    report = album.build(reread=True)
    assert (report.updated, report.unchanged) == (1, 1)
    assert album.hit("a.bmp").id != old


def test_deleted_files_are_no_hits_and_k_of_the_others_are(album: Album) -> None:
    album.draw(*(f"{number}.png" for number in range(40)))
    album.build()
    order = [Path(str(hit.path)).name for hit in album.hits()]
    for name in order[:25]:  # a whole neighbourhood
        (album.photos / name).unlink()
    assert album.build().missing == 25
    assert [Path(str(hit.path)).name for hit in album.hits(k=10)] == order[25:35]
    assert [Path(str(hit.path)).name for hit in album.hits(k=10, offset=5)] == order[30:40]
    assert len(album.hits(k=1000)) == 15
    record = album.index.image(album.index.catalog.page(0, 1)[0][0].id)
    assert record.missing == (Path(record.paths[0]).name in order[:25])
    album.draw(*order[:25])  # the drive is back
    assert album.build().embedded == 0
    assert [Path(str(hit.path)).name for hit in album.hits()] == order


def test_a_copy_that_is_there_is_named_before_one_that_is_gone(album: Album) -> None:
    album.draw("a/1.png")
    (album.photos / "b").mkdir()
    shutil.copy(album.photos / "a/1.png", album.photos / "b/1.png")
    album.build()
    shutil.rmtree(album.photos / "a")
    album.build()
    (hit,) = album.hits()
    assert str(hit.path).endswith("b/1.png")
    assert hit.path_count == 2


def test_a_hit_with_thousands_of_paths_names_a_few_and_says_how_many(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    with index.writer() as writer, writer.transaction() as transaction:
        for number in range(3000):
            transaction.locate(image_id(1), Location(root="/photos", path=f"copies/{number}.png", mtime_ns=1, size=1))
    (hit,) = index.search(Query(parts=[QueryPart(vector=vectors(3)[1])], k=1))
    assert (len(hit.paths), hit.path_count) == (20, 3001)
    assert hit.path == "/photos/1/1.png"
    record = index.image(image_id(1))
    assert (len(record.paths), record.path_count) == (1000, 3001)


def test_a_root_that_is_gone_for_good_is_forgotten_and_its_content_may_come_back(album: Album, tmp_path: Path) -> None:
    album.draw("0.png")
    usb = tmp_path / "usb"
    (usb / "deep").mkdir(parents=True)
    for number in range(4):
        draw_picture("green", "square", number).save(usb / "deep" / f"{number}.png")
    album.build(album.photos, usb)
    shutil.copytree(usb, album.photos / "copy")
    shutil.rmtree(usb)
    answer = run_cli("forget-root", album.index.path, usb, "--json").stdout
    assert '"files": 4, "removed": 4' in answer
    assert album.names() == {"0.png"}
    assert album.build().added == 4
    with album.index.writer() as writer:
        assert forget_root(writer, album.photos / "copy" / "deep") == 4
    assert "no pictures of" in run_cli("forget-root", album.index.path, usb, check=2).stderr


def test_thousands_of_copies_are_looked_for_on_the_disk_once(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(build_module, "renamed_away", lambda old, new: looks.append(old.path) or renamed_away(old, new))
    album.draw("first.png")
    album.build()
    for number in range(200):
        shutil.copy(album.photos / "first.png", album.photos / f"copy-{number}.png")
    report = album.build()
    assert (report.added, report.unchanged, report.embedded) == (200, 1, 0)
    assert len(looks) == 1


def test_of_many_copies_each_renamed_one_is_recognised(album: Album) -> None:
    album.draw("0.png", "other.png")
    for number in range(1, 6):
        shutil.copy(album.photos / "0.png", album.photos / f"{number}.png")
    album.build()
    for number in range(3):
        (album.photos / f"{number}.png").rename(album.photos / f"new-{number}.png")
    report = album.build()
    assert (report.moved, report.added, report.missing) == (3, 0, 0)


def test_a_rename_of_case_alone_is_a_rename_where_case_does_not_count(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    from indexer import sources

    album.draw("img_0.png", "other.png")
    album.build()
    (album.photos / "img_0.png").rename(album.photos / "IMG_0.PNG")
    here = sources.gone
    # as on exFAT, where a file is found under its name in any case
    monkeypatch.setattr(sources, "gone", lambda root, path: here(root, path) and path.lower() != "img_0.png")
    report = album.build()
    assert (report.moved, report.added) == (1, 0)
    assert album.hit("IMG_0.PNG").path_count == 1


def test_a_folder_named_in_other_case_is_the_same_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Photos").mkdir()
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(Path, "samefile", lambda one, other: str(one).lower() == str(other).lower())
    (source,) = resolve_sources([tmp_path / "photos"], [], [str(tmp_path / "Photos")])
    assert source.root == tmp_path / "Photos"


def test_an_image_of_a_moved_root_is_a_hit_again(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(new_image(7, vectors(8)[7]))
        transaction.mark_missing("/photos", ["7/7.png"], missing=True)
    query = Query(parts=[QueryPart(vector=vectors(8)[7])], k=10)
    assert len(index.search(query)) == 3
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.change_root("/photos", "/moved", "")
    assert len(index.search(query)) == 4
