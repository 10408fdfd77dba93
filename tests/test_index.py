"""Promises of the index: exact answers, nothing lost, nothing invented, whatever happens to the generation."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DIM, another_writer, image_id, new_image, recipe, run_cli, vectors
from numpy.typing import NDArray

from search.catalog.schema import state
from search.errors import (
    IndexDamaged,
    IndexExists,
    IndexLocked,
    IndexMissing,
    IndexTooNew,
    QueryInvalid,
    StorageFailed,
    UnknownImage,
    UnknownSpace,
    VectorsMissing,
)
from search.files import storage_errors
from search.index import Index
from search.recipe import Recipe
from search.types import Encoding, Failure, Hit, Location, Query, QueryPart, Space
from search.upkeep.verify import verify

MakeIndex = Callable[..., Index]


def ask(index: Index, vector: NDArray[np.float32], k: int = 10, **options: object) -> list[Hit]:
    return index.search(Query(parts=[QueryPart(vector=vector)], k=k, **options))  # type: ignore[arg-type]


def brute_force(data: NDArray[np.float32], query: NDArray[np.float32], numbers: list[int], k: int) -> list[str]:
    scores = {number: float(data[number].astype(np.float64) @ query.astype(np.float64)) for number in numbers}
    return [image_id(number) for number in sorted(scores, key=lambda number: (-scores[number], image_id(number)))[:k]]


def test_search_equals_brute_force_over_generation_delta_and_deletions(make_index: MakeIndex) -> None:
    data, queries = vectors(600), vectors(20, seed=1)
    index = make_index(data[:400])
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number in range(400, 600):
                transaction.add(new_image(number, data[number]))
        writer.remove([image_id(number) for number in (*range(50), *range(450, 480))])
    left = [*range(50, 450), *range(480, 600)]
    for query in queries:
        assert [hit.id for hit in ask(index, query)] == brute_force(data, query, left, 10)
    assert index.info().images == len(left)


def test_a_change_by_another_process_is_seen_by_the_next_search(make_index: MakeIndex) -> None:
    data = vectors(30)
    index = make_index(data[:20])
    with Index.open(index.path) as reader:
        assert len(ask(reader, data[25], k=50)) == 20
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.add(new_image(25, data[25]))
        assert ask(reader, data[25], k=1)[0].id == image_id(25)
        with index.writer() as writer:
            writer.remove([image_id(25)])
            index.publish()
        assert len(ask(reader, data[25], k=50)) == 20


def test_adding_the_same_image_twice_changes_nothing(make_index: MakeIndex) -> None:
    data = vectors(5)
    index = make_index(data)
    before = index.info()
    with index.writer() as writer, writer.transaction() as transaction:
        assert not transaction.add(new_image(3, data[4]))
    assert index.info().seq == before.seq
    assert np.array_equal(index.vector(image_id(3), index.space()), data[3])


def test_equal_scores_are_ordered_by_id_even_beyond_k(make_index: MakeIndex) -> None:
    one = vectors(1)
    index = make_index(np.repeat(one, 200, axis=0))
    hits = ask(index, one[0], k=10)
    assert [hit.id for hit in hits] == sorted(image_id(number) for number in range(200))[:10]
    assert {hit.score for hit in hits} == {hits[0].score}


def test_images_that_are_parts_are_no_hits_and_k_is_still_filled(make_index: MakeIndex) -> None:
    data = vectors(30)
    index = make_index(data)
    hits = index.search(Query(parts=[QueryPart(id=image_id(3)), QueryPart(id=image_id(4))], k=28))
    assert len(hits) == 28
    assert {image_id(3), image_id(4)}.isdisjoint(hit.id for hit in hits)


def test_weights_steer_and_negative_ones_push_away(make_index: MakeIndex) -> None:
    data = vectors(50)
    index = make_index(data)
    towards = index.search(Query(parts=[QueryPart(vector=data[7]), QueryPart(vector=data[9], weight=0.9)], k=2))
    assert [hit.id for hit in towards] == [image_id(7), image_id(9)]
    away = index.search(Query(parts=[QueryPart(vector=data[7]), QueryPart(vector=data[9], weight=-1)], k=50))
    assert away[-1].id == image_id(9)
    light = index.search(Query(parts=[QueryPart(vector=data[7], weight=1e-9)], k=2))
    assert light == ask(index, data[7], k=2), "only the proportion of weights counts"


def test_offset_and_min_score_cut_the_same_list(make_index: MakeIndex) -> None:
    data = vectors(100)
    index = make_index(data)
    everything = ask(index, data[0], k=100)
    assert ask(index, data[0], k=10, offset=5) == everything[5:15]
    threshold = everything[20].score
    assert ask(index, data[0], k=100, min_score=threshold) == everything[:21]


@pytest.mark.parametrize(
    "query",
    [
        Query(parts=[]),
        Query(parts=[QueryPart()]),
        Query(parts=[QueryPart(vector=np.zeros(DIM, np.float32))]),
        Query(parts=[QueryPart(vector=np.full(DIM, np.nan, np.float32))]),
        Query(parts=[QueryPart(vector=np.ones(DIM + 1, np.float32))]),
        Query(parts=[QueryPart(vector=np.ones(DIM, np.float32), weight=0.0)]),
        Query(parts=[QueryPart(vector=np.ones(DIM, np.float32), weight=weight) for weight in (1e6, -1e6)]),
        Query(parts=[QueryPart(vector=np.ones(DIM, np.float32))], k=0),
        Query(parts=[QueryPart(vector=np.ones(DIM, np.float32))], k=10_001),
        Query(parts=[QueryPart(vector=np.ones(DIM, np.float32))], min_score=2.0),
    ],
)
def test_a_query_without_direction_or_bounds_is_refused(make_index: MakeIndex, query: Query) -> None:
    with pytest.raises(QueryInvalid):
        make_index(vectors(3)).search(query)


def test_unknown_names_are_told_apart(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    with pytest.raises(UnknownImage):
        index.search(Query(parts=[QueryPart(id=image_id(99))]))
    with pytest.raises(UnknownSpace, match="layer2"):
        index.search(Query(parts=[QueryPart(id=image_id(1))], space="layer99"))


@pytest.mark.parametrize("victim", ["layer2.vectors", "layer2.rowids", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_generation_is_never_answered_from(make_index: MakeIndex, victim: str, damage: str) -> None:
    data = vectors(200)
    index = make_index(data)
    file = index.path / "generations" / "000001" / victim
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0x40
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with Index.open(index.path) as reopened:
        assert reopened.info().generation is None, "the damage went unnoticed"
        assert [hit.id for hit in ask(reopened, data[5])] == brute_force(data, data[5], list(range(200)), 10)
    with index.writer():
        assert index.publish() == "000002"
    assert index.info().generation == "000002"


def test_a_damaged_generation_falls_back_to_the_one_before(make_index: MakeIndex) -> None:
    data = vectors(40)
    index = make_index(data[:20])
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number in range(20, 40):
                transaction.add(new_image(number, data[number]))
        assert index.publish() == "000002"
    (index.path / "generations" / "000002" / "layer2.rowids").write_bytes(b"nonsense")
    with Index.open(index.path) as reopened:
        assert reopened.info().generation == "000001"
        assert [hit.id for hit in ask(reopened, data[30])] == brute_force(data, data[30], list(range(40)), 10)


def test_a_generation_of_another_catalog_is_never_answered_from(make_index: MakeIndex) -> None:
    index = make_index(vectors(50))
    index.publish(anew=True)
    index.close()
    assert [path.name for path in (index.path / "generations").iterdir()] == ["000002"]
    for file in index.path.glob("catalog.sqlite*"):
        file.unlink()
    other = vectors(50, seed=1)
    rebuilt = make_index(other, fresh=True)
    assert [path.name for path in (rebuilt.path / "generations").iterdir()] == ["000001"]
    assert ask(rebuilt, other[7])[0].score == pytest.approx(1)
    manifest = rebuilt.path / "generations" / "000001" / "manifest.json"
    rebuilt.close()
    with Index.open(rebuilt.path, writable=True) as reopened, reopened.catalog.writing() as transaction:
        # what putting another catalog into the folder amounts to
        transaction._connection.execute(state.update().where(state.c.key == "catalog").values(value="another"))
    assert manifest.exists()
    with Index.open(rebuilt.path) as reopened:
        assert reopened.info().generation is None
        assert ask(reopened, other[7])[0].score == pytest.approx(1)


def test_a_generation_of_another_future_of_the_catalog_is_never_answered_from(
    make_index: MakeIndex, tmp_path: Path
) -> None:
    """A backup was put back, or a copy went on by itself: same catalog, same seq, same name, other images."""
    data = vectors(300)
    index = make_index(data[:100])
    index.close()
    other = tmp_path / "other.index"
    shutil.copytree(index.path, other)
    for path, numbers in ((index.path, range(100, 200)), (other, range(200, 300))):
        with Index.open(path, writable=True) as opened, opened.writer() as writer:
            with writer.transaction() as transaction:
                for number in numbers:
                    transaction.add(new_image(number, data[number]))
            assert opened.publish() == "000002"
    shutil.rmtree(other / "generations")
    shutil.copytree(index.path / "generations", other / "generations")
    with Index.open(other) as opened:
        expected = brute_force(data, data[150], [*range(100), *range(200, 300)], 10)
        assert [hit.id for hit in ask(opened, data[150])] == expected
        assert opened.info().generation == "000001", "what both have in common"
        assert any("another catalog" in finding.problem for finding in verify(opened).findings)


def test_a_closed_index_says_so(make_index: MakeIndex) -> None:
    data = vectors(3)
    index = make_index(data)
    index.close()
    with pytest.raises(StorageFailed, match="closed"):
        ask(index, data[0])
    with pytest.raises(StorageFailed, match="closed"), index.writer() as writer, writer.transaction():
        pass


def test_reads_that_fail_keep_no_connection_and_no_state(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    failed = []  # with their tracebacks, which hold what they had
    for _ in range(20):
        with pytest.raises(StorageFailed, match="UTF-8") as one:
            index.catalog.rows("SELECT CAST(x'ff' AS TEXT) FROM images", {})
        failed.append(one)
    with index.writer() as writer:
        writer.remove([record.id for record in index.catalog.page(0, 1)[0]])
    assert index.catalog.rows("SELECT count(*) FROM images", {}) == [(2,)]


def test_generations_are_disposable_and_only_two_are_kept(make_index: MakeIndex) -> None:
    data = vectors(34)
    index = make_index(data[:30])
    for number in range(30, 33):
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.add(new_image(number, data[number]))
        index.publish()
    assert sorted(path.name for path in (index.path / "generations").iterdir()) == ["000003", "000004"]
    shutil.rmtree(index.path / "generations")
    with Index.open(index.path) as reopened:
        assert ask(reopened, data[3], k=1)[0].id == image_id(3)


def test_a_killed_publication_leaves_the_old_state(make_index: MakeIndex) -> None:
    index = make_index(vectors(30))
    (index.path / "generations" / "000002.tmp").mkdir()
    (index.path / "generations" / "000002.tmp" / "layer2.vectors").write_bytes(b"half")
    with Index.open(index.path) as reopened:
        assert reopened.info().generation == "000001"
    with index.writer():
        assert index.publish(anew=True) == "000002"
    assert not (index.path / "generations" / "000002.tmp").exists()


def test_a_vector_with_a_wrong_checksum_is_damage_not_an_answer(make_index: MakeIndex) -> None:
    index = make_index(vectors(10), publish=False)
    with sqlite3.connect(index.path / "catalog.sqlite") as connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE image_rowid = 3")
    with Index.open(index.path) as reopened, pytest.raises(IndexDamaged, match="checksum"):
        ask(reopened, vectors(1)[0])


def test_a_second_writer_is_refused_at_once_and_says_why(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    with another_writer(index.path), pytest.raises(IndexLocked, match="Another process"), index.writer():
        pass
    with index.writer():
        pass


def test_threads_of_one_process_wait_for_one_another_to_write(make_index: MakeIndex) -> None:
    index = make_index(vectors(3))
    happened = []

    def write() -> None:
        with index.writer():
            happened.append("second")

    with index.writer(), index.writer():
        other = threading.Thread(target=write)
        other.start()
        other.join(0.2)
        happened.append("first")
    other.join()
    assert happened == ["first", "second"]


def test_opening_says_what_is_wrong(tmp_path: Path, make_index: MakeIndex) -> None:
    with pytest.raises(IndexMissing, match="lookalike build"):
        Index.open(tmp_path / "nowhere")
    index = make_index(vectors(3))
    with pytest.raises(IndexExists):
        Index.create(index.path, index.spaces)
    foreign = tmp_path / "foreign.index"
    foreign.mkdir()
    (foreign / "catalog.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(IndexDamaged):
        Index.open(foreign)
    with sqlite3.connect(foreign / "other.sqlite") as connection:
        connection.execute("CREATE TABLE images (x)")
    (foreign / "other.sqlite").rename(foreign / "catalog.sqlite")
    with pytest.raises(IndexDamaged, match="not a Lookalike catalog"):
        Index.open(foreign)
    with sqlite3.connect(index.path / "catalog.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(IndexTooNew, match="Upgrade"):
        Index.open(index.path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX rights")
def test_a_folder_that_may_not_be_written_to_is_refused_with_advice(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    index.close()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        path = Path(folder) / "x.index"
        shutil.copytree(index.path, path, ignore=shutil.ignore_patterns("*-wal", "*-shm"))  # SQLite must make them
        me = os.geteuid()
        Path(folder).chmod(0o755)
        path.chmod(0o555)
        try:
            if me == 0:  # who may do anything
                os.seteuid(65_534)
            with pytest.raises(StorageFailed, match="Check its permissions and those of its folder"):
                Index.open(path)
        finally:
            os.seteuid(me)
            path.chmod(0o755)
        with Index.open(path) as opened:
            assert opened.info().images == 20


def test_only_a_refusal_to_write_is_called_one(tmp_path: Path) -> None:
    for fault in (RuntimeError("basic_ios::clear: iostream error []"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(StorageFailed), storage_errors(tmp_path):
            raise fault
    with pytest.raises(RuntimeError, match="of our own"), storage_errors(tmp_path):
        raise RuntimeError("a mistake of our own")


def test_every_stored_vector_has_unit_length(make_index: MakeIndex) -> None:
    index = make_index(vectors(300))
    for _, block in index.catalog.all_vectors(index.space(), upto=10**9):
        assert np.abs(np.linalg.norm(block.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_recipes_are_equal_by_what_they_compute_not_by_where_the_model_lies() -> None:
    here, there = recipe(), Recipe.from_json({**recipe().to_json(), "model": "/elsewhere"})
    assert here == there
    assert hash(here) == hash(there)
    assert recipe(layer=1) != here
    assert recipe(weights="b") != here


def test_an_image_needs_a_vector_for_every_space(tmp_path: Path) -> None:
    spaces = [Space(name=f"layer{layer}", recipe=recipe(layer), encoding=Encoding()) for layer in (1, 2)]
    data = vectors(2)
    with Index.create(tmp_path / "two.index", spaces) as index, index.writer() as writer:
        with pytest.raises(VectorsMissing, match="lacks its own"), writer.transaction() as transaction:
            transaction.add(new_image(0, data[0], spaces=("layer1",)))
        assert index.info().images == 0
        with writer.transaction() as transaction:
            transaction.add(new_image(0, data[0], spaces=("layer1", "layer2")))
        index.publish()
        assert [entry.count for entry in index.info().spaces] == [1, 1]
        assert ask(index, data[0], k=1, space="layer2")[0].score == pytest.approx(1)


def test_two_files_that_swap_names_lose_nothing(make_index: MakeIndex) -> None:
    index = make_index(vectors(2))
    a, b = (Location(root="/photos", path=f"{number}/{number}.png", mtime_ns=9, size=9) for number in (0, 1))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.locate(image_id(1), a)
        transaction.locate(image_id(0), b)
        assert transaction.remove_unlocated() == 0
    assert index.image(image_id(1)).paths == (str(Path("/photos/0/0.png")),)


def test_a_catalog_that_may_not_be_read_is_told(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(vectors(3))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, under which tests may run, may read everything
    with pytest.raises(StorageFailed, match="permissions"):
        Index.open(index.path)


def test_an_erased_image_leaves_no_trace(make_index: MakeIndex) -> None:
    data = vectors(60)
    index = make_index(data)
    with index.writer() as writer:
        writer.describe(image_id(7), labels=["somebody's name"], metadata={"secret": "nobody's business"})
        with writer.transaction() as transaction:  # its file was changed since, and is broken now
            transaction.fail(Failure(root="/photos", path="7/7.png", mtime_ns=2, size=2, reason="cut off"))
        index.publish(anew=True)
    traces = [data[7].astype("<f4").tobytes(), b"somebody's name", b"nobody's business", b"7/7.png"]

    def traced() -> list[bytes]:
        content = b"".join(path.read_bytes() for path in index.path.rglob("*") if path.is_file())
        return [trace for trace in traces if trace in content]

    assert traced() == traces
    index.close()
    run_cli("remove", index.path, "--erase", image_id(7))
    assert traced() == []
    assert index.path.joinpath("catalog.sqlite").stat().st_size > 0
    with Index.open(index.path) as reopened:
        assert len(ask(reopened, data[7], k=100)) == 59
        assert verify(reopened).findings == []
        with reopened.catalog.lookup() as lookup:
            assert lookup.content(image_id(7)).barred, "a later build would add it again"


def test_what_was_removed_before_is_erased_by_its_path(make_index: MakeIndex) -> None:
    index = make_index(vectors(20))
    failure = Failure(root="/photos", path="7/7.png", mtime_ns=2, size=2, reason="cut off")
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.fail(failure)  # its file was changed since, and is broken now
    index.close()
    run_cli("remove", index.path, image_id(7), image_id(8))

    def traced(path: bytes) -> bool:
        return any(path in file.read_bytes() for file in index.path.rglob("*") if file.is_file())

    told = run_cli("remove", index.path, "--erase", image_id(7), check=3).stderr
    assert told == f"not in the index: {image_id(7)} (removed before: to erase the paths that it had, name them)\n"
    assert run_cli("remove", index.path, "/photos/7/7.png", check=3).stderr == "not in the index: /photos/7/7.png\n"
    assert traced(b"7/7.png")
    names = ("/photos/7/7.png", "/photos/7/../7/7.png", image_id(9))
    answer = json.loads(run_cli("remove", index.path, "--erase", *names, "--json").stdout)
    assert answer == {"index": str(index.path), "removed": 1, "erased_paths": 1, "unknown": []}
    assert not traced(b"7/7.png")
    assert traced(b"8/8.png"), "nobody asked for it"
    shown = run_cli("remove", index.path, "--erase", "/photos/8/8.png").stdout
    assert "Removed 0 images, and 1 path of what was removed before" in shown
    run_cli("remove", index.path, "--erase", "/photos/8/8.png", check=3)
    with Index.open(index.path) as reopened, reopened.catalog.lookup() as lookup:
        assert reopened.info().images == 17
        assert verify(reopened).findings == []
        assert lookup.content(image_id(7)).barred, "a later build would add it again"


def test_erasing_a_picture_that_is_still_a_file_warns_of_the_next_build(
    built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    photos, index, _ = built
    shutil.copytree(index, tmp_path / "copy.index")
    photo, other = sorted(photos.rglob("*.png"))[:2]
    warned = run_cli("remove", tmp_path / "copy.index", "--erase", photo).stderr
    assert f"still on the disk: {photo}" in warned
    assert run_cli("remove", tmp_path / "copy.index", other).stderr == "", "nobody asked for no trace"


@pytest.mark.slow
def test_compact_gives_back_the_room_of_what_was_removed(make_index: MakeIndex) -> None:
    data = vectors(2000, dim=256)
    index = make_index(data)
    before = index.bytes_on_disk()
    with index.writer() as writer:
        writer.remove([image_id(number) for number in range(1500)])
        index.compact()
    assert index.bytes_on_disk() < before / 2
    assert [hit.id for hit in ask(index, data[1700], k=1)] == [image_id(1700)]
    assert verify(index).findings == []
