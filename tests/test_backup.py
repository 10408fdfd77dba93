"""Promises to who looks after an index: copies that are indexes, and folders that may lie elsewhere tomorrow."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import another_writer, image_id, new_image, run_cli, vectors

from search.errors import IndexExists, IndexLocked, IndexMoved, RootMismatch, StorageFailed, UnknownRoot
from search.index import Index
from search.types import ImageFacts, Location, NewImage, Query, QueryPart
from search.upkeep.backup import backup
from search.upkeep.roots import move_root
from search.upkeep.verify import verify
from search.writer import Writer

MakeIndex = Callable[..., Index]


def upload(index: Index, data: bytes) -> str:
    """As the server does: the file first, then the image."""
    name = hashlib.sha256(data).hexdigest()
    path = index.uploads / name[:2] / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    location = Location(root=str(index.uploads), path=f"{name[:2]}/{name}.png", mtime_ns=1, size=len(data))
    facts = ImageFacts(width=1, height=1, format="png", bytes=len(data))
    vector = vectors(1, seed=int(name[:8], 16))[0]
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.add(NewImage(id=name, facts=facts, location=location, vectors={"layer2": vector}))
    return name


def answers(index: Index, query: np.ndarray) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in index.search(Query(parts=[QueryPart(vector=query)], k=20))]


def test_a_copy_is_an_index_with_everything_in_it(make_index: MakeIndex, tmp_path: Path) -> None:
    data = vectors(50)
    index = make_index(data)
    name = upload(index, b"picture")
    before = answers(index, data[3])
    to = tmp_path / "copies" / "monday.index"
    with backup(index, to) as copy:
        assert answers(copy, data[3]) == before
        assert copy.image(name).paths == (str(to / "uploads" / name[:2] / f"{name}.png"),)
        assert Path(copy.image(name).paths[0]).read_bytes() == b"picture"
        assert verify(copy).findings == []
        assert copy.info().generation == index.info().generation
    shutil.rmtree(index.path)
    with Index.open(to, writable=True) as alone, alone.writer() as writer:
        assert writer.remove([image_id(3)]) == 1
        assert [path.name for path in to.parent.iterdir()] == ["monday.index"]


def test_a_copy_is_made_while_the_index_changes(make_index: MakeIndex, tmp_path: Path) -> None:
    data = vectors(400)
    index = make_index(data[:100])
    stop, added = threading.Event(), [0]

    def change() -> None:
        with Index.open(index.path, writable=True) as other:
            number = 100
            while not stop.is_set() and number < 400:
                with other.writer() as writer, writer.transaction() as transaction:
                    transaction.add(new_image(number, data[number]))
                number += 1
                added[0] = number
                uploaded = upload(other, b"picture %d" % number)
                if number % 3 == 0:
                    with other.writer() as writer:
                        writer.remove([uploaded])

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for turn in range(4):
            least = added[0]
            with backup(index, tmp_path / f"{turn}.index") as copy:
                assert verify(copy).findings == []
                assert copy.info().images >= least
                assert answers(copy, data[7])[0][0] == image_id(7)
    finally:
        stop.set()
        writer.join()


def test_a_copy_is_made_as_a_whole_or_not_at_all(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(5))
    name = upload(index, b"picture")
    to = tmp_path / "copy.index"
    to.mkdir()
    (to / "something").touch()
    with pytest.raises(IndexExists, match="new folder"):
        backup(index, to)
    (to / "something").unlink()
    (index.uploads / name[:2] / f"{name}.png").write_bytes(b"damaged")
    with pytest.raises(StorageFailed, match="lookalike verify"):
        backup(index, to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.index", "test.index"]
    assert list(to.iterdir()) == []


def test_a_copy_that_was_killed_is_begun_again_and_one_under_way_is_left_alone(
    make_index: MakeIndex, tmp_path: Path
) -> None:
    index = make_index(vectors(5))
    to, left = tmp_path / "copy.index", tmp_path / ".copy.index.tmp"
    (left / "generations" / "000001").mkdir(parents=True)
    (left / "catalog.sqlite").write_bytes(b"half")
    with another_writer(left), pytest.raises(IndexLocked):
        backup(index, to)
    with backup(index, to) as copy:
        assert verify(copy).findings == []
    assert not left.exists()


def test_a_copy_does_without_a_damaged_generation(make_index: MakeIndex, tmp_path: Path) -> None:
    data = vectors(50)
    index = make_index(data)
    with (index.generations / "000001" / "layer2.vectors").open("r+b") as file:
        file.write(b"?")
    with backup(index, tmp_path / "copy.index") as copy:
        assert verify(copy).findings == []
        assert answers(copy, data[3]) == answers(index, data[3])


def test_an_index_that_is_moved_takes_its_uploads_along(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(5))
    name = upload(index, b"picture")
    index.close()
    moved = tmp_path / "elsewhere.index"
    index.path.rename(moved)
    with Index.open(moved, writable=True) as opened:
        assert Path(opened.image(name).paths[0]).read_bytes() == b"picture"
        with opened.writer() as writer:
            writer.remove([name])
    assert not list((moved / "uploads").rglob("*.png"))


def test_pictures_on_a_drive_mounted_elsewhere_are_found_again(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index(vectors(20))
    index.close()
    new = tmp_path / "mnt" / "photos"
    (new / "7").mkdir(parents=True)
    refused = run_cli("move-root", index.path, "/photos", new, check=2)
    assert "None of the pictures of /photos" in refused.stderr
    (new / "7" / "7.png").write_bytes(b"there")
    answer = json.loads(run_cli("move-root", index.path, "/photos", new, "--json").stdout)
    assert answer["roots"] == [str(new)]
    with Index.open(index.path, writable=True) as opened:
        assert opened.image(image_id(7)).paths == (str(new / "7" / "7.png"),)
        with pytest.raises(UnknownRoot, match=str(new)), opened.writer() as writer:
            move_root(writer, Path("/photos"), new)
    run_cli("move-root", index.path, new, tmp_path / "nowhere", check=2)


def test_pictures_are_not_moved_over_others(make_index: MakeIndex, tmp_path: Path) -> None:
    """The image whose place is taken would be known by no file, and gone with the next build."""
    index = make_index(vectors(3))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_bytes(b"of the second image")
    with index.writer() as writer, writer.transaction() as transaction:
        for number, root in ((1, "/a"), (2, str(tmp_path / "b"))):
            transaction.locate(image_id(number), Location(root=root, path="x.png", mtime_ns=1, size=2))
    before = [index.image(image_id(number)).paths for number in range(3)]
    with index.writer() as writer, pytest.raises(RootMismatch, match=r"1 pictures of /a .* such as x\.png"):
        move_root(writer, Path("/a"), tmp_path / "b")
    assert [index.image(image_id(number)).paths for number in range(3)] == before
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.locate(image_id(2), Location(root="/a", path="x.png", mtime_ns=1, size=2))
    with index.writer() as writer:
        move_root(writer, Path("/a"), tmp_path / "b")  # the same picture: it is there already


def test_a_picture_moves_to_where_one_was_removed(make_index: MakeIndex, tmp_path: Path) -> None:
    """What was removed is remembered by its path, which is no reason to forget the picture that lies there now."""
    index = make_index(vectors(3))
    here = tmp_path / "b"
    here.mkdir()
    (here / "x.png").write_bytes(b"of the first image")
    with index.writer() as writer:
        with writer.transaction() as transaction:
            transaction.locate(image_id(2), Location(root=str(here), path="x.png", mtime_ns=1, size=2))
        writer.remove([image_id(2)])
        with writer.transaction() as transaction:
            transaction.locate(image_id(1), Location(root="/a", path="x.png", mtime_ns=1, size=2))
        move_root(writer, Path("/a"), here)
    assert str(here / "x.png") in index.image(image_id(1)).paths


def test_an_index_that_is_moved_while_it_is_open_takes_no_change(make_index: MakeIndex, tmp_path: Path) -> None:
    """A server wrote on: to the one that was gone, with the lock and the checksums of the one put in its place."""
    data = vectors(6)
    index = make_index(data[:5])
    place, copied, away = index.path, tmp_path / "copy.index", tmp_path / "away.index"
    with backup(index, copied):
        pass
    place.rename(away)

    def refused() -> None:
        changes: list[Callable[[], object]] = [
            lambda: Writer(index).remove([image_id(3)]),
            lambda: Writer(index).describe(image_id(3), labels=["a"]),
            index.publish,
            index.compact,
            lambda: index.search(Query(parts=[QueryPart(vector=data[0])])),
        ]
        for change in changes:
            with pytest.raises(IndexMoved, match="was moved"):
                change()
        with pytest.raises(IndexMoved), index.writer():
            pass

    refused()
    assert not place.exists(), "it was made again, for its lock"
    copied.rename(place)
    kept = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    refused()
    with pytest.raises(IndexMoved), Writer(index).transaction() as transaction:
        transaction.add(new_image(5, data[5]))
    index.close()
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == kept
    for path in (place, away):
        with Index.open(path) as opened:
            assert verify(opened).findings == []
            assert opened.info().images == 5


def test_what_was_written_to_an_index_that_went_away_meanwhile_is_not_acknowledged(
    make_index: MakeIndex, tmp_path: Path
) -> None:
    index = make_index(vectors(5))

    def change() -> None:
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.describe(image_id(3), labels=["a"], metadata=None)
            index.path.rename(tmp_path / "away.index")

    with pytest.raises(IndexMoved):
        change()


def test_roots_in_a_folder_that_moved_move_with_it_and_into_a_root_around_them(
    make_index: MakeIndex, tmp_path: Path
) -> None:
    index = make_index(vectors(2))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.locate(image_id(1), Location(root="/old/drive/2024", path="a.png", mtime_ns=1, size=2))
        transaction.locate(image_id(1), Location(root=str(tmp_path), path="b.png", mtime_ns=1, size=2))
    (tmp_path / "in" / "2024").mkdir(parents=True)
    (tmp_path / "in" / "2024" / "a.png").write_bytes(b"there")
    with index.writer() as writer:
        assert move_root(writer, Path("/old/drive"), tmp_path / "in") == [str(tmp_path / "in" / "2024")]
    assert index.catalog.roots() == ["/photos", str(tmp_path)]
    assert str(tmp_path / "in" / "2024" / "a.png") in index.image(image_id(1)).paths
