"""Promises of `eval`: metrics are the textbooks', labels come from where one says, and errors say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture, image_id, new_image, recipe, run_cli, vectors, write_photos

from analysis.errors import LabelsInvalid
from analysis.evaluate import KNN, evaluate
from analysis.labels import Relevance, relevance
from analysis.metrics import METRICS, estimates, of_rankings
from analysis.perturbations import PERTURBATIONS
from analysis.report import FINDS_ITSELF, PLOTTED, confusions, write_report
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


def test_the_nearest_vote_for_a_class(index: Index) -> None:
    alike = relevance(index, "folder")
    (scores,) = evaluate(index, alike, index.spaces).spaces
    by_hand = []
    for name, held in alike.classes.items():
        votes = [alike.classes[hit.id] for hit in index.search(Query(parts=[QueryPart(id=name)], k=10))]
        winner = max(votes, key=votes.count)
        by_hand.append(winner == held)
        (answer,) = (one for one in scores.answers if one.image == name)
        assert frozenset([answer.voted]) == winner
        assert answer.hits == tuple(hit.id for hit in index.search(Query(parts=[QueryPart(id=name)], k=5)))
    assert scores.metrics[KNN].value == pytest.approx(np.mean(by_hand))
    assert 0.5 < scores.metrics[KNN].value < 1


def test_pairs_have_no_votes(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(f"query,relevant\n{image_id(0)},{image_id(7)}\n")
    (scores,) = evaluate(index, relevance(index, str(file)), index.spaces).spaces
    assert KNN not in scores.metrics
    assert [one.voted for one in scores.answers] == [None]


def test_confusions_count_every_wrong_vote(index: Index) -> None:
    alike = relevance(index, "folder")
    (scores,) = evaluate(index, alike, index.spaces).spaces
    table = confusions(scores, alike)
    assert table is not None
    wrong = round(len(scores.answers) * (1 - scores.metrics[KNN].value))
    assert sum(total for _, total, _ in table.rows) == wrong > 0
    for name, total, cells in table.rows:
        assert (sum(cells), cells[table.classes.index(name)]) == (total, 0)


def test_a_report_plots_every_metric() -> None:
    assert {*PLOTTED} == {*METRICS, KNN}


def test_a_report_is_one_file_without_links_and_escapes_names(index: Index, tmp_path: Path) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        for number in (30, 31):
            image = new_image(number, vectors(1, seed=3)[0])
            location = replace(image.location, path=f"<b>&/{number}.png")
            transaction.add(replace(image, location=location, labels=("<script>alert(1)</script>",)))
    for labels in ("folder", "label"):
        alike = relevance(index, labels)
        write_report(index, evaluate(index, alike, index.spaces), [], alike, labels, tmp_path / "report.html")
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "<b>&" not in text
        assert "<script" not in text
        assert "&lt;" in text
        assert not re.search(r"(?:src|href)=.(?!data:)", text)
        assert text.count("<svg") >= 8
        assert "the file cannot be read" in text  # these images have none


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
    with pytest.raises(LabelsInvalid, match=r"folder, label, metadata\.KEY, marks, or a CSV file"):
        relevance(index, "foldr")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """An index of pictures in several folders, and of two layers."""
    base = tmp_path_factory.mktemp("eval")
    write_photos(base / "photos", variants=range(2))
    run_cli(
        "build",
        base / "photos",
        "--index",
        base / "photos.index",
        "--model",
        checkpoint,
        "--layer",
        "1",
        "--layer",
        "2",
    )
    return base / "photos.index"


def test_without_labels_perturbed_pictures_look_for_their_originals(pictures: Path, tmp_path: Path) -> None:
    command = ["eval", pictures, "--labels", "none", "--report", tmp_path / "report.html"]
    answer = json.loads(run_cli(*command, "--json").stdout)
    assert (answer["images"], answer["queries"], answer["spaces"]) == (36, 0, [])
    assert [one["name"] for one in answer["proxy"]] == ["layer1", "layer2"]
    for one in answer["proxy"]:
        assert [*one["kinds"]] == [*PERTURBATIONS]
        assert one["value"] == pytest.approx(np.mean([*one["kinds"].values()]), abs=1e-3)
        assert one["low"] <= one["value"] <= one["high"]
        assert one["kinds"]["compression"] > 0.5
    assert json.loads(run_cli(*command, "--json").stdout) == answer  # the same pictures are drawn again
    told = run_cli(*command).stdout
    assert "finds itself" in told
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert FINDS_ITSELF in text
    assert text.count("<svg") == 2 * (1 + len(PERTURBATIONS))


def test_one_folder_is_no_label_and_pictures_that_are_gone_say_so(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "photos").mkdir()
    for shape in ("circle", "square", "stripes"):
        draw_picture("red", shape, 0).save(tmp_path / "photos" / f"{shape}.png")
    run_cli("build", tmp_path / "photos", "--index", tmp_path / "photos.index", "--model", checkpoint)
    measured = run_cli("eval", tmp_path / "photos.index", "--json")
    assert "one folder" in measured.stderr
    assert "--labels label, metadata.KEY or FILE" in measured.stderr
    answer = json.loads(measured.stdout)
    assert (answer["labels"], len(answer["proxy"])) == ("none", 1)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert "None of the index's pictures" in run_cli("eval", tmp_path / "photos.index", check=2).stderr


def test_a_report_shows_pictures_and_what_they_are_confused_with(pictures: Path, tmp_path: Path) -> None:
    told = run_cli("eval", pictures, "--report", tmp_path / "report.html").stdout
    assert "R@1" in told
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") > 2 * 12
    assert "kNN" in text
    refused = run_cli("eval", pictures, "--report", pictures / "catalog.sqlite" / "report.html", check=74)
    assert "Name another file" in refused.stderr
    assert "R@1" in refused.stdout  # what was measured is not lost


def test_perturbed_pictures_differ_and_keep_their_look() -> None:
    picture = draw_picture("red", "stripes", 1, size=200)
    seen = set()
    for name, perturb in PERTURBATIONS.items():
        changed = perturb(picture, np.random.default_rng(1))
        assert changed.mode == "RGB"
        assert changed.size == picture.size or name in ("crop", "turn", "mixed")
        assert perturb(picture, np.random.default_rng(1)).tobytes() == changed.tobytes()
        seen.add(changed.tobytes())
    assert len(seen | {picture.tobytes()}) == len(PERTURBATIONS) + 1
    for size in ((1, 1), (3, 900), (900, 2)):
        for perturb in PERTURBATIONS.values():
            assert min(perturb(picture.resize(size), np.random.default_rng(2)).size) >= 1


def test_the_command_prints_a_table_and_json(index: Index) -> None:
    path = index.path
    told = run_cli("eval", path).stdout
    assert told.startswith("30 queries among 30 images, alike by folder\nspace ")
    assert "found worst: c (" in told
    answer = json.loads(run_cli("eval", path, "--labels", "label", "--space", "layer2", "--json").stdout)
    assert (answer["images"], answer["queries"], answer["spaces"][0]["name"]) == (29, 29, "layer2")
    assert answer["spaces"][0]["r_at_1"].keys() == {"value", "low", "high"}
    refused = run_cli("eval", path, "--labels", "metadata.none", check=2).stderr
    assert "No two images" in refused
    assert "--labels none measures without labels" in refused
