"""Spaces come and go on a live index: each is searched as far as it goes, alone, and no vector is ever lost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import image_id, new_image, recipe, vectors

from search.errors import (
    NotInSpace,
    QueryInvalid,
    RecipeMismatch,
    SpaceExists,
    SpaceIncomplete,
    SpaceNeeded,
    UnknownImage,
    UnknownSpace,
    VectorsMissing,
)
from search.index import SWEPT_VECTORS, Index
from search.types import Encoding, Query, QueryPart, Space
from search.upkeep.backup import backup
from search.upkeep.verify import verify

COUNT = 60
DATA = {name: vectors(COUNT, seed=seed) for seed, name in enumerate(("layer2", "layer1", "layer0"))}
MakeIndex = Callable[..., Index]


def space(name: str, *, weights: str = "a") -> Space:
    return Space(name=name, recipe=recipe(int(name[-1]), weights=weights), encoding=Encoding())


def add_space(index: Index, name: str, **options: str) -> Space:
    with index.writer() as writer:
        return writer.add_space(space(name, **options))


def fill(index: Index, name: str, numbers: range | list[int]) -> int:
    with index.writer() as writer, writer.transaction() as transaction:
        return transaction.fill(index.space(name), {image_id(number): DATA[name][number] for number in numbers})


def drop_space(index: Index, name: str) -> None:
    with index.writer() as writer:
        writer.drop_space(name)
    index.sweep_dropped()


def add(index: Index, number: int, *names: str) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        image = new_image(number, DATA["layer2"][number])
        transaction.add(replace(image, vectors={name: DATA[name][number] for name in names}))


def ask(index: Index, name: str | None, number: int, k: int = COUNT, data: str | None = None) -> list[str]:
    parts = [QueryPart(vector=DATA[data or name or "layer2"][number])]
    return [hit.id for hit in index.search(Query(parts=parts, k=k, space=name))]


def brute_force(name: str, held: range | list[int], number: int) -> list[str]:
    products = {one: float(DATA[name][one].astype("f8") @ DATA[name][number].astype("f8")) for one in held}
    return [image_id(one) for one in sorted(held, key=lambda one: -products[one])]


def fills(index: Index) -> dict[str, tuple[int, bool]]:
    return {info.space.name: (info.count, info.space.complete) for info in index.info().spaces}


@pytest.fixture
def index(make_index: MakeIndex) -> Iterator[Index]:
    """Forty images in layer2, published."""
    made = make_index(DATA["layer2"][:40])
    yield made
    assert [finding.problem for finding in verify(made).findings] == []


def test_a_space_is_searched_as_far_as_it_is_filled(index: Index) -> None:
    assert ask(index, "layer2", 3) == brute_force("layer2", range(40), 3)
    add_space(index, "layer1")
    assert fills(index) == {"layer2": (40, True), "layer1": (0, False)}
    assert ask(index, "layer1", 3) == []
    fill(index, "layer1", range(10, 25))
    assert ask(index, "layer1", 3) == brute_force("layer1", range(10, 25), 3)
    assert ask(index, "layer2", 3) == brute_force("layer2", range(40), 3)
    index.publish()
    index.refresh()
    assert ask(index, "layer1", 3) == brute_force("layer1", range(10, 25), 3)
    fill(index, "layer1", range(12))
    assert ask(index, "layer1", 3) == brute_force("layer1", range(25), 3)
    assert fills(index)["layer1"] == (25, False)


@pytest.mark.parametrize("published", [True, False])
def test_the_last_vector_completes_a_space(index: Index, published: bool) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(39))
    if published:
        index.publish()
    assert not index.space("layer1").complete
    fill(index, "layer1", [39, 38])
    assert index.space("layer1").complete
    assert fills(index)["layer1"] == (40, True)
    add(index, 41, "layer2", "layer1")
    held = [*range(40), 41]
    assert ask(index, "layer1", 41) == brute_force("layer1", held, 41)
    with Index.open(index.path) as again:
        assert ask(again, "layer1", 41) == brute_force("layer1", held, 41)
    index.publish()
    with Index.open(index.path) as again:
        assert again.info().delta == 0
        assert ask(again, "layer1", 41) == brute_force("layer1", held, 41)


def test_what_is_filled_already_is_left_as_it_is(index: Index) -> None:
    add_space(index, "layer1")
    assert fill(index, "layer1", range(20)) == 20
    assert fill(index, "layer1", range(10, 30)) == 10
    assert fill(index, "layer1", [COUNT - 1]) == 0, "no such image"
    assert ask(index, "layer1", 5) == brute_force("layer1", range(30), 5)


def test_new_images_may_come_with_or_without_a_vector_in_an_incomplete_space(index: Index) -> None:
    add_space(index, "layer1")
    add(index, 40, "layer2")
    add(index, 41, "layer2", "layer1")
    assert fills(index) == {"layer2": (42, True), "layer1": (1, False)}
    assert ask(index, "layer1", 0) == [image_id(41)]
    with pytest.raises(VectorsMissing, match="layer2"):
        add(index, 42, "layer1")
    fill(index, "layer1", range(42))
    assert fills(index)["layer1"] == (42, True)
    with pytest.raises(VectorsMissing, match="layer1"):
        add(index, 42, "layer2")
    assert ask(index, "layer1", 0) == brute_force("layer1", range(42), 0)


def test_removing_the_last_image_without_a_vector_completes_a_space(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(37))
    with index.writer() as writer:
        assert writer.remove([image_id(number) for number in (3, 38, 39)]) == 3
    assert fills(index)["layer1"] == (36, False)
    with index.writer() as writer:
        writer.remove([image_id(37)])
    held = [number for number in range(37) if number != 3]
    assert fills(index) == {"layer2": (36, True), "layer1": (36, True)}
    add(index, 50, "layer2", "layer1")
    assert ask(index, "layer1", 50) == brute_force("layer1", [*held, 50], 50)


def test_a_space_added_to_an_index_without_images_is_complete(tmp_path: Path) -> None:
    with Index.create(tmp_path / "x.index", [space("layer2")]) as index:
        assert add_space(index, "layer1").complete
        add(index, 1, "layer2", "layer1")
        index.publish()
        assert ask(index, "layer1", 1) == [image_id(1)]
        assert verify(index).findings == []


def test_a_dropped_space_vanishes_at_once_and_its_vectors_go_little_by_little(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(40))
    index.publish()
    assert len(ask(index, "layer1", 0)) == 40
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.drop_space("layer1")
    assert [one.name for one in index.spaces] == ["layer2"]
    with pytest.raises(UnknownSpace, match="layer2"):
        ask(index, "layer1", 0)
    assert index.catalog.dropped() != []
    index.sweep_dropped()
    assert index.catalog.dropped() == []
    assert verify(index).vectors == 40
    assert len(ask(index, "layer2", 0)) == 40


def test_a_sweep_that_was_killed_goes_on(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(40))
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.drop_space("layer1")
        (number,) = [2]
        assert transaction.delete_dropped(number, 0, 15) is not None
    with Index.open(index.path, writable=True) as again:
        again.compact()
        assert again.catalog.dropped() == []
        assert verify(again).vectors == 40
    assert SWEPT_VECTORS > 100


def test_a_space_of_the_same_name_has_nothing_of_the_one_before(index: Index) -> None:
    first = add_space(index, "layer1")
    fill(index, "layer1", range(40))
    index.publish()
    drop_space(index, "layer1")
    second = add_space(index, "layer1", weights="b")
    assert first.identity != second.identity
    fill(index, "layer1", range(5))
    assert ask(index, "layer1", 0) == brute_force("layer1", range(5), 0)
    with Index.open(index.path) as again:
        assert ask(again, "layer1", 0) == brute_force("layer1", range(5), 0)
    with pytest.raises(UnknownSpace):
        index.search(Query(parts=[QueryPart(vector=DATA["layer1"][0])], space=first))
    assert len(index.search(Query(parts=[QueryPart(vector=DATA["layer1"][0])], space=second))) == 5
    index.publish()
    with Index.open(index.path) as again:
        assert again.info().delta == 0
        assert ask(again, "layer1", 0) == brute_force("layer1", range(5), 0)


def test_vectors_made_for_a_space_that_was_dropped_are_not_taken_for_its_successor(index: Index) -> None:
    first = add_space(index, "layer1")
    drop_space(index, "layer1")
    second = add_space(index, "layer1", weights="b")
    image = replace(new_image(50, DATA["layer2"][50]), vectors={name: DATA[name][50] for name in ("layer2", "layer1")})
    with index.writer() as writer, writer.transaction() as transaction:
        with pytest.raises(UnknownSpace):
            transaction.fill(first, {image_id(1): DATA["layer1"][1]})
        transaction.add(image, made_for=[index.space("layer2"), first])
    assert fills(index) == {"layer2": (41, True), "layer1": (0, False)}
    assert second.complete_seq is None


def test_the_default_is_stored(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(39))
    with index.writer() as writer:
        with pytest.raises(SpaceIncomplete, match="layer1 is not complete"):
            writer.set_default("layer1")
        with pytest.raises(UnknownSpace):
            writer.set_default("layer9")
        fill(index, "layer1", [39])
        writer.set_default("layer1")
    assert index.space().name == "layer1"
    assert ask(index, None, 7, data="layer1") == brute_force("layer1", range(40), 7)
    with Index.open(index.path) as again:
        assert again.space().name == "layer1"
        assert [info.space.name for info in again.info().spaces if info.default] == ["layer1"]
        assert ask(again, None, 7, data="layer1") == brute_force("layer1", range(40), 7)
    with pytest.raises(SpaceNeeded, match="default"):
        drop_space(index, "layer1")
    drop_space(index, "layer2")
    with pytest.raises(SpaceNeeded, match="only space"):
        drop_space(index, "layer1")


def test_an_incomplete_space_becomes_the_default_by_force(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(4))
    with index.writer() as writer:
        writer.set_default("layer1", force=True)
    assert ask(index, None, 1, data="layer1") == brute_force("layer1", range(4), 1)


def test_no_space_is_added_twice(index: Index) -> None:
    with pytest.raises(SpaceExists, match="layer2 already"):
        add_space(index, "layer2")
    with index.writer() as writer, pytest.raises(SpaceExists, match="called layer2"):
        writer.add_space(replace(space("layer2"), name="other"))


def test_an_image_that_is_not_in_a_space_yet_is_told_from_an_unknown_one(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(5))
    known = Query(parts=[QueryPart(id=image_id(3))], space="layer1")
    assert [hit.id for hit in index.search(known)] == brute_force("layer1", range(5), 3)[1:]
    with pytest.raises(NotInSpace, match="layer1"):
        index.search(Query(parts=[QueryPart(id=image_id(20))], space="layer1"))
    with pytest.raises(UnknownImage):
        index.search(Query(parts=[QueryPart(id=image_id(59))], space="layer1"))
    with pytest.raises(NotInSpace):
        index.vector(image_id(20), index.space("layer1"))


def test_a_query_of_another_dimension_is_refused_in_each_space(index: Index) -> None:
    with index.writer() as writer:
        writer.add_space(Space(name="wide", recipe=recipe(1, dim=64), encoding=Encoding()))
    with pytest.raises(QueryInvalid, match="64"):
        ask(index, "wide", 0, data="layer2")


def test_another_process_sees_spaces_come_and_go(index: Index) -> None:
    with Index.open(index.path) as reader:
        assert len(ask(reader, "layer2", 0)) == 40
        add_space(index, "layer1")
        assert [one.name for one in reader.spaces] == ["layer2", "layer1"]
        fill(index, "layer1", range(8))
        assert ask(reader, "layer1", 0) == brute_force("layer1", range(8), 0)
        fill(index, "layer1", range(40))
        with index.writer() as writer:
            writer.set_default("layer1")
        assert reader.space().name == "layer1"
        assert ask(reader, None, 0, data="layer1") == brute_force("layer1", range(40), 0)
        drop_space(index, "layer2")
        with pytest.raises(UnknownSpace):
            ask(reader, "layer2", 0)


def test_filters_and_offsets_keep_their_promises_in_an_incomplete_space(index: Index) -> None:
    from search.filters import parse_filter

    add_space(index, "layer1")
    fill(index, "layer1", range(30))
    even = [image_id(number) for number in range(0, 30, 2)]
    query = Query(
        parts=[QueryPart(vector=DATA["layer1"][0])], k=10, filter=parse_filter({"label": "even"}), space="layer1"
    )
    hits = [hit.id for hit in index.search(query)]
    assert hits == [found for found in brute_force("layer1", range(30), 0) if found in even][:10]


def test_a_copy_has_every_space_as_far_as_it_is_filled(index: Index, tmp_path: Path) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(8))
    with backup(index, tmp_path / "copy.index") as copy:
        assert ask(copy, "layer1", 0) == brute_force("layer1", range(8), 0)
        fill(copy, "layer1", range(40))
        assert copy.space("layer1").complete
        assert verify(copy).findings == []


def test_verify_names_what_is_not_complete_and_what_is_wrong(index: Index) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(8))
    result = verify(index)
    assert result.findings == []
    assert any("32 images have no vector" in remark.problem for remark in result.remarks)
    with index.catalog.writing() as transaction:
        transaction._connection.exec_driver_sql("UPDATE spaces SET missing = 31 WHERE name = 'layer1'")
    assert any("31 are said to have none" in finding.problem for finding in verify(index).findings)
    with index.catalog.writing() as transaction:
        transaction._connection.exec_driver_sql("UPDATE spaces SET missing = 32 WHERE name = 'layer1'")


def test_late_vectors_are_found_by_an_index(index: Index) -> None:
    """However many images there are, a catch-up reads the new vectors only."""
    add_space(index, "layer1")
    fill(index, "layer1", range(8))
    connection = sqlite3.connect(index.path / "catalog.sqlite")
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT image_rowid FROM embeddings WHERE seq > ? AND space_id = (SELECT 2)", (3,)
    ).fetchall()
    connection.close()
    assert "USING COVERING INDEX embeddings_by_seq" in json.dumps(plan)


def test_a_generation_of_before_the_spaces_still_answers(index: Index) -> None:
    """Manifests that do not say which space of a name they hold are of spaces that came with the index."""
    manifest = index.path / "generations" / "000001" / "manifest.json"
    told = json.loads(manifest.read_bytes())
    del told["spaces"]["layer2"]["added_seq"], told["sha256"]
    from search.generations.generation import manifest_digest

    told["sha256"] = manifest_digest(told)
    manifest.write_text(json.dumps(told))
    with index.catalog.writing() as transaction:
        transaction.set_generation("000001", {"000001": told["sha256"]})
    with Index.open(index.path) as again:
        assert again.info().generation == "000001"
        assert again.info().delta == 0
        assert len(ask(again, "layer2", 0)) == 40


def test_all_vectors_come_once_whatever_the_order_of_changes(index: Index) -> None:
    add_space(index, "layer1")
    states: list[tuple[int, set[int]]] = []
    held: set[int] = set()
    for step in ([5, 6], [41], [7], list(range(42))):
        if step == [41]:
            add(index, 40, "layer2")
            add(index, 41, "layer2", "layer1")
        else:
            fill(index, "layer1", step)
        held |= set(step)
        states.append((index.catalog.changes(since=0).seq, {number + 1 for number in held}))
    add(index, 50, "layer2", "layer1")
    here = index.space("layer1")
    for seq, expected in states:
        rowids = np.concatenate([ids for ids, _ in index.catalog.all_vectors(here, upto=seq)]).tolist()
        assert sorted(rowids) == sorted(expected)
        assert sorted(index.catalog.members(here, seq).tolist()) == sorted(expected)


@pytest.mark.parametrize("reopened", [False, True])
def test_the_default_outlives_a_publication(index: Index, reopened: bool) -> None:
    add_space(index, "layer1")
    fill(index, "layer1", range(40))
    with index.writer() as writer:
        writer.set_default("layer1")
    index.publish()
    index.refresh()
    with Index.open(index.path) as again:
        asked = again if reopened else index
        assert asked.info().delta == 0
        assert ask(asked, None, 7, data="layer1") == brute_force("layer1", range(40), 7)


@pytest.mark.parametrize("shape", [(31,), (1, 32), ()], ids=str)
def test_a_vector_of_another_length_is_never_stored(index: Index, shape: tuple[int, ...]) -> None:
    """It would have made every search, and every publication, find a damaged index."""
    wrong = np.ones(shape, dtype=np.float32)
    add_space(index, "layer1")
    with index.writer() as writer:
        with pytest.raises(RecipeMismatch, match=r"layer2 .* 32 numbers"), writer.transaction() as transaction:
            transaction.add(new_image(50, wrong))
        with pytest.raises(RecipeMismatch, match=r"layer1 .* 32 numbers"), writer.transaction() as transaction:
            transaction.fill(index.space("layer1"), {image_id(3): wrong})
    assert ask(index, "layer2", 3) == brute_force("layer2", range(40), 3)
    assert ask(index, "layer1", 3) == []


@pytest.mark.parametrize("vector", [np.float32(1), np.ones((1, 1, 32), "f4"), np.ones((0, 32), "f4")], ids=np.shape)
def test_a_part_that_is_not_a_vector_is_refused(index: Index, vector: np.ndarray) -> None:
    with pytest.raises(QueryInvalid, match="Part 1"):
        index.search(Query(parts=[QueryPart(vector=vector)]))
