"""Promises of `eval`: metrics are the textbooks', labels come from where one says, and errors say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import image_id, new_image, recipe, run_cli, vectors

from analysis.errors import LabelsInvalid
from analysis.evaluate import evaluate
from analysis.labels import Relevance, relevance
from analysis.metrics import METRICS, estimates, of_rankings
from search.index import Index
from search.types import Encoding, Query, QueryPart, Space
from search.vectors import normalise

MakeIndex = Callable[..., Index]


def test_metrics_are_those_of_the_textbook() -> None:
    relevant = np.array([[0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=np.bool_)
    found = of_rankings(relevant)
    assert list(found) == list(METRICS)
    assert found["r_at_1"].tolist() == [0, 1, 0]
    assert found["r_at_5"].tolist() == [1, 1, 0]
    assert found["p_at_5"].tolist() == [0.4, 0.2, 0]
    assert found["map"] == pytest.approx([(1 / 2 + 2 / 4) / 2, 1, 1 / 6])
    assert found["ndcg_at_10"] == pytest.approx(
        [(1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)), 1, 1 / np.log2(7)]
    )
    with pytest.raises(ValueError, match="relevant"):
        of_rankings(np.zeros((1, 3), dtype=np.bool_))


def test_intervals_hold_the_mean_and_shrink_with_the_root_of_queries() -> None:
    generator = np.random.default_rng(4)
    widths = []
    for count in (100, 10_000):
        estimate = estimates({"r_at_1": (generator.random(count) < 0.7).astype(float)})["r_at_1"]
        assert estimate.low < estimate.value < estimate.high
        assert estimate.low < 0.7 < estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.2)
    assert estimates({"r_at_1": np.ones(3)})["r_at_1"].low == 1


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    """Thirty images of three classes, of which the last is found nowhere near; four are newer than the generation."""
    centres = vectors(3, seed=1)
    near = normalise(np.repeat(centres[:2], 10, axis=0) + 0.1 * vectors(20, seed=2))
    data = np.concatenate([near, vectors(10, seed=3)])
    index = make_index(data[:0], publish=False)
    for numbers in (range(26), range(26, 30)):
        with index.writer() as writer, writer.transaction() as transaction:
            for number in numbers:
                folder = "abc"[number // 10]
                image = new_image(number, data[number])
                location = replace(image.location, path=f"{folder}/{number}.png")
                transaction.add(
                    replace(
                        image, location=location, labels=(folder,) if number != 5 else (), metadata={"kind": folder}
                    )
                )
        if numbers.start == 0:
            index.publish()
    index.refresh()
    return index


@pytest.mark.parametrize("source", ["folder", "label", "metadata.kind"])
def test_each_image_asks_for_the_others_of_its_class(index: Index, source: str) -> None:
    found = evaluate(index, relevance(index, source), index.spaces)
    assert found.images == found.queries == (29 if source == "label" else 30)
    (scores,) = found.spaces
    assert (scores.classes["a"], scores.classes["b"]) == (1, 1)
    assert scores.classes["c"] < 0.7
    by_hand = []
    labels = {image_id(number): "abc"[number // 10] for number in range(30) if source != "label" or number != 5}
    for name, held in labels.items():
        hits = index.search(Query(parts=[QueryPart(id=name)], k=30))
        by_hand.append(labels[next(hit.id for hit in hits if hit.id in labels)] == held)
    assert scores.metrics["r_at_1"].value == pytest.approx(np.mean(by_hand))


def test_removed_images_are_neither_asked_nor_found(index: Index) -> None:
    with index.writer() as writer:
        writer.remove([image_id(3), image_id(28)])
    index.refresh()
    assert evaluate(index, relevance(index, "folder"), index.spaces).images == 28


def test_spaces_are_compared_on_the_images_that_all_of_them_have(index: Index) -> None:
    with index.writer() as writer:
        space = writer.add_space(Space(name="layer1", recipe=recipe(1), encoding=Encoding()))
        late = {image_id(number): vector for number, vector in enumerate(vectors(20, seed=9))}
        with writer.transaction() as transaction:
            transaction.fill(space, late)
    index.refresh()
    found = evaluate(index, relevance(index, "folder"), index.spaces)
    assert (found.images, [one.space for one in found.spaces]) == (20, ["layer2", "layer1"])
    assert found.spaces[0].metrics["r_at_1"].value > found.spaces[1].metrics["r_at_1"].value


def test_pairs_are_read_from_a_file_by_path_or_id(index: Index, tmp_path: Path) -> None:
    record = index.image(image_id(0))
    file = tmp_path / "pairs.csv"
    rows = [f"{record.paths[0]},{image_id(7)}", f"{image_id(12)},{image_id(13)}", f"{image_id(12)},{image_id(12)}"]
    file.write_text("query,relevant\n" + "\n".join(rows) + "\n")
    found = evaluate(index, relevance(index, str(file)), index.spaces)
    assert (found.images, found.queries) == (30, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [("a,b\n1,2\n", "columns query and relevant"), ("query,relevant\nnone.png,x\n", r"line 2: 'none.png' is not in")],
)
def test_a_file_of_pairs_that_cannot_be_used_says_where(index: Index, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(LabelsInvalid, match=says):
        relevance(index, str(tmp_path / "pairs.csv"))


def test_without_two_alike_there_is_nothing_to_measure(index: Index) -> None:
    alone = Relevance(classes={image_id(number): frozenset([str(number)]) for number in range(30)})
    with pytest.raises(LabelsInvalid, match="No two images"):
        evaluate(index, alone, index.spaces)
    with pytest.raises(LabelsInvalid, match=r"folder, label, metadata\.KEY, or a CSV file"):
        relevance(index, "foldr")


def test_the_command_prints_a_table_and_json(index: Index) -> None:
    path = index.path
    told = run_cli("eval", path).stdout
    assert told.startswith("30 queries among 30 images, alike by folder\nspace ")
    assert "found worst: c (" in told
    answer = json.loads(run_cli("eval", path, "--labels", "label", "--space", "layer2", "--json").stdout)
    assert (answer["images"], answer["queries"], answer["spaces"][0]["name"]) == (29, 29, "layer2")
    assert answer["spaces"][0]["r_at_1"].keys() == {"value", "low", "high"}
    assert "No two images" in run_cli("eval", path, "--labels", "metadata.none", check=2).stderr
