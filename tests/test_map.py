"""Promises of `map`: neighbours stay neighbours, clusters have names, outliers are found, a seed decides all."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import httpx
import numpy as np
import pytest
from conftest import COLOURS, Ended, image_id, new_image, recipe, run_cli, start_server, stop_server, vectors
from lookalike_client import Client, MapCluster, NotFound
from numpy.typing import NDArray

from analysis.errors import LabelsInvalid, MapImpossible
from analysis.maps import make
from analysis.maps.clusters import Clusters, find_clusters, names
from analysis.maps.make import make_map
from analysis.maps.map import FORMAT, Map, keep, kept
from analysis.maps.projection import Neighbours, Vectors, neighbours
from analysis.maps.report import write_report
from api.http.schemas import MapAnswer
from search.index import Index
from search.types import Encoding, Space
from search.vectors import normalise

MakeIndex = Callable[..., Index]
GROUPS = 6
EACH = 25
"""Clustered vectors: so many groups of so many."""


def grouped(seed: int = 1) -> NDArray[np.float32]:
    """Groups of near vectors, one after another, and three vectors that are near none."""
    near = np.repeat(vectors(GROUPS, seed=seed), EACH, axis=0) + 0.5 * vectors(GROUPS * EACH, seed=seed + 1)
    return normalise(np.concatenate([near, vectors(3, seed=seed + 2)]))


def described(index: Index, folders: Callable[[int], str], labels: Callable[[int], tuple[str, ...]]) -> None:
    """Add the grouped vectors to an empty index, in these folders, with these labels."""
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number, vector in enumerate(grouped()):
                image = new_image(number, vector)
                location = replace(image.location, path=f"{folders(number)}/{number}.png")
                transaction.add(replace(image, location=location, labels=labels(number)))
        index.publish()


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    """The grouped vectors in folders by group, below `photos` or `drawings`, with labels of all and of groups."""
    made = make_index(grouped()[:0], publish=False)
    described(
        made,
        lambda number: f"{'photos' if number < 75 else 'drawings'}/kind{number // EACH}",
        lambda number: ("all", f"group {number // EACH}"),
    )
    return made


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Map:
    """A map of grouped vectors without labels, in one folder."""
    space = Space(name="layer2", recipe=recipe(), encoding=Encoding())
    with Index.create(tmp_path_factory.mktemp("mapped") / "test.index", [space]) as index:
        described(index, lambda _: "photos", lambda _: ())
        return make_map(index, index.space())


def test_neighbours_on_the_map_are_neighbours_in_the_space(mapped: Map) -> None:
    data = grouped()
    plane = np.array([[point.x, point.y] for point in mapped.points])
    distances = np.square(plane[:, None] - plane[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    on_map = np.argsort(distances, axis=1)[:, :10]
    in_space, _ = neighbours(data, 10)
    recall = np.mean(
        [len({*one} & {*other}) / 10 for one, other in zip(on_map.tolist(), in_space.tolist(), strict=True)]
    )
    assert recall > 0.4 > 6 * 10 / len(data), "six times what chance finds"
    groups = np.arange(GROUPS * EACH) // EACH
    assert (groups[on_map[:-3].clip(max=GROUPS * EACH - 1)] == groups[:, None]).mean() > 0.95
    assert np.abs(plane).max() == 1


def test_clusters_are_the_groups_and_outliers_the_odd_ones(mapped: Map) -> None:
    assert len(mapped.clusters) == GROUPS
    assert [cluster.size for cluster in mapped.clusters] == sorted((one.size for one in mapped.clusters), reverse=True)
    for number, cluster in enumerate(mapped.clusters):
        held = [place for place, point in enumerate(mapped.points) if point.cluster == number]
        assert len(held) == cluster.size
        own = [place // EACH for place in held if place < GROUPS * EACH]
        assert own.count(max(set(own), key=own.count)) >= 0.95 * len(held)
    assert set(mapped.outliers) == {image_id(GROUPS * EACH + number) for number in range(3)}
    isolations = {point.id: point.isolation for point in mapped.points}
    assert sorted(isolations, key=lambda image: -isolations[image])[:3] == [*mapped.outliers]


def test_the_most_typical_image_is_the_medoid(mapped: Map) -> None:
    data = grouped()
    for number, cluster in enumerate(mapped.clusters):
        held = [place for place, point in enumerate(mapped.points) if point.cluster == number]
        cosines = (data[held] @ data[held].T).mean(axis=1)
        assert cluster.typical[0] == image_id(held[int(cosines.argmax())])
        assert len(set(cluster.typical)) == make.TYPICAL


def test_without_labels_or_folders_a_cluster_is_named_by_its_medoid(mapped: Map) -> None:
    assert mapped.labels == "folder"
    files = {image_id(number): str(number) for number in range(len(mapped.points))}
    assert [cluster.name for cluster in mapped.clusters] == [files[one.typical[0]] for one in mapped.clusters]


def test_the_same_seed_gives_the_same_map(index: Index) -> None:
    first = make_map(index, index.space(), seed=3)
    assert make_map(index, index.space(), seed=3) == first


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [f"group {number}" for number in range(GROUPS)]),
        ("folder", [f"kind{number}" for number in range(GROUPS)]),
    ],
)
def test_clusters_have_the_names_that_tell_them_apart(index: Index, labels: str | None, expected: list[str]) -> None:
    made = make_map(index, index.space(), labels=labels)
    assert sorted(cluster.name for cluster in made.clusters) == expected
    assert made.labels == (labels or "label")


def test_a_few_labels_take_no_folder_name_away(make_index: MakeIndex) -> None:
    opened = make_index(grouped()[:0], publish=False)
    described(opened, lambda number: f"kind{number // EACH}", lambda number: ("mine",) if number < EACH else ())
    made = make_map(opened, opened.space())
    assert made.labels == "folder"
    assert sorted(one.name for one in made.clusters) == [f"kind{number}" for number in range(GROUPS)]


def test_names_are_terms_of_a_third_and_never_the_same() -> None:
    terms = {"a": {"cat", "all"}, "b": {"cat", "all"}, "c": {"all"}, "d": {"dog"}, "e": {"all"}, "f": {"all"}}
    terms = {image: frozenset(held) for image, held in terms.items()}
    assert names([["a", "b"], ["c", "e", "f"], ["d", "x", "y", "z"]], terms, ["1", "2", "3"]) == ["cat", "all", "3"]
    terms = {"a": frozenset({"cat"}), "b": frozenset({"cat"}), "c": frozenset({"cat 2"})}
    assert names([["a"], ["b"], ["c"]], terms, ["", "", ""]) == ["cat", "cat 3", "cat 2"]


@pytest.mark.parametrize("count", [1, 2, 3, 9, 12])
def test_few_images_have_a_map(make_index: MakeIndex, count: int) -> None:
    opened = make_index(vectors(count))
    made = make_map(opened, opened.space())
    places = {(point.x, point.y) for point in made.points}
    assert len(places) == count
    assert np.isfinite([*places]).all()
    if count == 1:
        assert (places, made.clusters, made.outliers) == ({(0.0, 0.0)}, (), ())


def test_equal_images_are_one_place(make_index: MakeIndex) -> None:
    equal = make_index(np.repeat(vectors(1), 40, axis=0), name="equal.index")
    made = make_map(equal, equal.space())
    assert {(point.x, point.y, point.isolation) for point in made.points} == {(0, 0, 0)}
    assert (len(made.points), made.clusters, made.outliers) == (40, (), ())
    some = make_index(np.concatenate([vectors(30), np.repeat(vectors(1, seed=8), 30, axis=0)]), name="some.index")
    made = make_map(some, some.space())
    assert len({(point.x, point.y) for point in made.points[30:]}) == 1
    assert len({(point.x, point.y) for point in made.points}) == 31


def test_near_copies_stay_together_and_are_no_outliers(make_index: MakeIndex) -> None:
    bursts = np.repeat(vectors(10), 20, axis=0) + 1.4e-3 * vectors(200, seed=9)
    made = make_map(opened := make_index(normalise(bursts)), opened.space())
    of_bursts = [{point.cluster for point in made.points[start : start + 20]} for start in range(0, 200, 20)]
    assert [len(found) for found in of_bursts] == [1] * 10
    assert (len(made.clusters), made.outliers) == (10, ())


def test_of_many_images_a_sample_is_projected_and_the_rest_placed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "SAMPLE", 100)
    made = make_map(index, index.space())
    assert len(made.points) == GROUPS * EACH + 3
    own = [
        f"group {number // EACH}" == made.clusters[point.cluster].name
        for number, point in enumerate(made.points[: GROUPS * EACH])
        if point.cluster is not None
    ]
    assert len(own) > 0.8 * GROUPS * EACH
    assert np.mean(own) > 0.93  # by the processor: .949 with AVX-512
    sizes = [cluster.size for cluster in made.clusters]
    assert sizes == sorted(sizes, reverse=True)
    odd = {image_id(GROUPS * EACH + number) for number in range(3)}
    assert odd <= {*made.outliers}
    assert make_map(index, index.space()) == made


def test_removed_images_and_those_without_a_file_are_left_out(index: Index) -> None:
    with index.writer() as writer:
        writer.remove([image_id(0)])
        with writer.transaction() as transaction:
            transaction.mark_missing("/photos", ["photos/kind0/1.png"], missing=True)
    made = make_map(index, index.space())
    assert [point.id for point in made.points] == [image_id(number) for number in range(2, GROUPS * EACH + 3)]


def test_a_space_that_is_being_filled_is_mapped_as_far_as_it_is(index: Index) -> None:
    there = index.space()
    with index.writer() as writer:
        space = writer.add_space(replace(there, name="half", recipe=replace(there.recipe, layers=(1,))))
    with pytest.raises(MapImpossible, match="No image has a vector in half"):
        make_map(index, space)
    some = {image_id(number): vector for number, vector in enumerate(vectors(20))}
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.fill(space, some)
    assert {point.id for point in make_map(index, index.space("half")).points} == some.keys()


def test_images_removed_meanwhile_cost_no_map(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = make_index(grouped())

    def remove(positions: Vectors, near: Neighbours, cosines: Vectors) -> Clusters:
        with opened.writer() as writer:
            writer.remove([image_id(number) for number in range(len(positions))])
        return find_clusters(positions, near, cosines)

    monkeypatch.setattr(make, "find_clusters", remove)
    made = make_map(opened, opened.space())
    assert len(made.points) == GROUPS * EACH + 3
    assert opened.info().images == 0
    write_report(opened, made, {}, tmp_path / "map.html")
    assert "the file cannot be read" in (tmp_path / "map.html").read_text()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("metadata.colour", "No image has a value of metadata.colour"),
        ("metadata.", "cannot be named by 'metadata.'"),
        ("words.csv", "cannot be named by 'words.csv'"),
    ],
)
def test_names_from_nowhere_are_refused(index: Index, labels: str, told: str) -> None:
    with pytest.raises(LabelsInvalid, match=rf"{told}.* folder, label or"):
        make_map(index, index.space(), labels=labels)


def test_a_map_is_kept_for_its_space_and_no_other_of_its_name(index: Index, mapped: Map) -> None:
    space = index.space()
    assert kept(index, space) is None
    keep(index, mapped)
    assert kept(index, space) == mapped
    assert kept(index, replace(space, added_seq=7)) is None
    (place,) = (index.path / "maps").iterdir()
    for damaged in (place.read_text()[:-9], place.read_text().replace(f'"format":{FORMAT}', '"format":0'), "[]", "{}"):
        place.write_text(damaged)
        assert kept(index, space) is None


@pytest.mark.parametrize(("package", "flags"), [("openTSNE", ()), ("pyarrow.parquet", ("--parquet", "map.parquet"))])
def test_without_the_extra_the_command_says_what_to_install(
    built: tuple[Path, Path, Path], tmp_path: Path, package: str, flags: tuple[str, ...]
) -> None:
    index = tmp_path / "photos.index"
    shutil.copytree(built[1], index, ignore=shutil.ignore_patterns("maps"))  # that other tests may have made
    gone = {name: None for name in sys.modules if name.split(".")[0] == package} | {package: None}
    loaded = {name: module for name, module in sys.modules.items() if not name.startswith("analysis.maps.")}
    with mock.patch.dict(sys.modules, {**loaded, **gone}, clear=True):
        ended = run_cli("map", index, *flags, check=2)
    assert "pip install 'lookalike[map]'" in ended.stderr
    assert not (index / "maps").exists(), "before the work"


@pytest.fixture(scope="module")
def drawn(built: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended, Path]:
    """An index of pictures with a map, what the command printed, and the folder of its report and table."""
    folder = tmp_path_factory.mktemp("drawn")
    index = folder / "photos.index"
    shutil.copytree(built[1], index)
    ended = run_cli("map", index, "--json", "--report", folder / "map.html", "--parquet", folder / "map.parquet")
    return index, ended, folder


def test_the_command_prints_keeps_and_writes_the_map(drawn: tuple[Path, Ended, Path]) -> None:
    index, ended, folder = drawn
    printed = json.loads(ended.stdout)
    with Index.open(index) as opened:
        made = kept(opened, opened.space())
        assert made is not None
        assert len(made.points) == opened.info().images
        path = opened.image(made.points[0].id).paths[0]
    assert [point["id"] for point in printed["points"]] == [point.id for point in made.points]
    assert {one["name"] for one in printed["clusters"]} == {one.name for one in made.clusters}
    html = (folder / "map.html").read_text()
    assert html.count("data:image/jpeg;base64,") >= len(made.clusters)
    assert not re.search(r"""(?:src|href)=["']?https?:""", html)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert found is not None
    data = json.loads(found[1])
    assert data["x"] == [point.x for point in made.points]
    assert path.endswith(data["path"][0])
    human = run_cli("map", index).stdout.splitlines()
    assert human[0].startswith(f"{len(made.points)} images of layer")
    assert all(any(one.name in line for line in human[1:]) for one in made.clusters)


def test_the_table_has_a_row_for_each_point(drawn: tuple[Path, Ended, Path]) -> None:
    from pyarrow import parquet

    table = parquet.read_table(drawn[2] / "map.parquet")
    assert table.column_names == [
        *("x", "y", "id", "path", "cluster", "cluster_name", "isolation", "outlier", "labels"),
        *("width", "height", "taken_at"),
    ]
    printed = json.loads(drawn[1].stdout)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [point["id"] for point in printed["points"]]
    assert [row["x"] for row in rows] == pytest.approx([point["x"] for point in printed["points"]])
    assert {row["labels"][0] for row in rows} == {*COLOURS}
    assert all(Path(row["path"]).parent.name == row["labels"][0] for row in rows)
    for row in rows:
        assert row["cluster_name"] == (None if row["cluster"] is None else printed["clusters"][row["cluster"]]["name"])


def test_files_that_cannot_be_written_are_named(drawn: tuple[Path, Ended, Path]) -> None:
    for flag, name in (("--report", "map.html"), ("--parquet", "map.parquet")):
        ended = run_cli("map", drawn[0], flag, drawn[2] / "map.html" / name, check=74)
        assert "cannot be written" in ended.stderr


@pytest.mark.slow
def test_a_server_shows_the_map_that_was_made_last(drawn: tuple[Path, Ended, Path], tmp_path: Path) -> None:
    index = tmp_path / "photos.index"
    shutil.copytree(drawn[0], index)
    printed = json.loads(drawn[1].stdout)
    process, url = start_server(index)
    try:
        with Client(url) as client:
            found = client.map()
            answer = MapAnswer.model_validate(httpx.get(f"{url}/v1/map").json())
            assert answer.model_dump() == {
                **{name: printed[name] for name in ("space", "generation", "seed", "labels", "outliers", "points")},
                "clusters": [
                    {name: value for name, value in one.items() if name != "number"} for one in printed["clusters"]
                ],
            }
            assert [point.id for point in found.points] == [point["id"] for point in printed["points"]]
            assert all(isinstance(one, MapCluster) for one in found.clusters)
            client.delete(found.points[0].id)
            last = time.monotonic() + 20
            while len((fewer := client.map(space=found.space)).points) == len(found.points):
                assert time.monotonic() < last
            assert [point.id for point in fewer.points] == [point.id for point in found.points[1:]]
            run_cli("map", index, "--seed", "5")
            assert client.map().seed == 5
            shutil.rmtree(index / "maps")
            with pytest.raises(NotFound) as missing:
                client.map()
            assert missing.value.code == "no-map"
            with pytest.raises(NotFound) as unknown:
                client.map(space="layer77")
            assert unknown.value.code == "unknown-space"
    finally:
        assert stop_server(process) == 0
