"""Promises of `eval --calibrate`: hits say how probable it is that they are alike, and do not exaggerate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import image_id, new_image, run_cli, vectors

from analysis.calibrate import _curve, calibrate, isotonic
from analysis.errors import LabelsInvalid
from analysis.evaluate import evaluate
from analysis.labels import Relevance, relevance
from search.calibration import Calibration
from search.errors import SearchError, UnknownSpace
from search.feedback import Marks, TaughtQuestion
from search.index import Index
from search.types import Encoding, Hit, Query, QueryPart, Space
from search.vectors import normalise

MakeIndex = Callable[..., Index]

CLASSES, EACH = 20, 15


def fill(index: Index, numbers: range) -> None:
    """Images of classes that overlap: some of the nearest are of another one."""
    centres = np.repeat(vectors(CLASSES, seed=1), EACH, axis=0)
    data = normalise(centres + 0.8 * vectors(CLASSES * EACH, seed=2))
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number in numbers:
                image = new_image(number, data[number])
                folder = f"class{number // EACH:02}"
                transaction.add(replace(image, location=replace(image.location, path=f"{folder}/{number}.png")))
        index.publish()
        index.refresh()


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    index = make_index(vectors(0), publish=False)
    fill(index, range(CLASSES * EACH))
    return index


def calibrated(index: Index) -> Calibration:
    found = calibrate(index, relevance(index, "folder"), "folder", index.space())
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.set_calibration(index.space(), found)
    return found


def ask(index: Index, number: int) -> list[Hit]:
    return index.search(Query(parts=[QueryPart(id=image_id(number))], k=100))


def test_isotonic_regression_pools_neighbours_in_the_wrong_order() -> None:
    assert isotonic([0.1, 0.4, 0.2, 0.6], [1, 1, 3, 1]).tolist() == pytest.approx([0.1, 0.25, 0.25, 0.6])
    assert isotonic([3, 2, 1], [1, 1, 1]).tolist() == [2, 2, 2]
    assert isotonic([1, 2, 3], [1, 1, 1]).tolist() == [1, 2, 3]


def test_hits_say_what_share_of_such_hits_is_alike(index: Index) -> None:
    assert {hit.probability for hit in ask(index, 3)} == {None}
    found = calibrated(index)
    assert found.images == found.queries == CLASSES * EACH
    assert all(one <= other for one, other in pairwise(found.probabilities))
    assert found.error < 0.05
    said, true = [], []
    for number in range(CLASSES * EACH):
        hits = ask(index, number)
        known = [hit.probability for hit in hits]
        assert known == sorted(known, key=lambda one: -(one or 0))
        said += known
        true += [int(hit.id in {image_id(other) for other in range(CLASSES * EACH) if other // EACH == number // EACH})
                 for hit in hits]  # fmt: skip
    held, right = np.array(said, dtype=np.float64), np.array(true)
    assert held.min() < 0.1
    assert held.max() > 0.9
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1.01)):
        chosen = (held >= low) & (held < high)
        assert chosen.sum() > 100
        assert held[chosen].mean() == pytest.approx(right[chosen].mean(), abs=0.05)


def test_a_line_in_log_rate_joins_the_points_of_a_curve_and_its_ends_go_on() -> None:
    curve = Calibration(labels="label", images=9, queries=9, error=0, rates=(0.1, 0.001), probabilities=(0.2, 0.8))
    assert [curve.of(rate) for rate in (1, 0.1, 0.01, 0.001, 1e-9)] == [0.2, 0.2, 0.5, 0.8, 0.8]
    assert Calibration.from_json(json.loads(json.dumps(curve.to_json()))) == curve


def test_another_process_follows_and_a_new_generation_keeps_it(index: Index) -> None:
    with Index.open(index.path) as other:
        assert ask(other, 3)[0].probability is None
        calibrated(index)
        assert ask(other, 3)[0].probability is not None
        index.publish(anew=True)
        other.refresh()
        assert ask(other, 3)[0].probability is not None


def test_a_space_of_the_same_name_does_not_inherit_the_calibration(index: Index) -> None:
    first = index.space()
    calibrated(index)
    second = Space(name="other", recipe=replace(first.recipe, layers=(3,)), encoding=Encoding())
    for _ in range(2):
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.add_space(second)
        index.refresh()
        there = index.space("other")
        assert there.identity not in index.catalog.calibrations()
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.set_calibration(there, index.catalog.calibrations()[first.identity])
        assert there.identity in index.catalog.calibrations()
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.drop_space("other")
    with pytest.raises(UnknownSpace), index.writer() as writer, writer.transaction() as transaction:
        transaction.set_calibration(there, None)
    assert first.identity in index.catalog.calibrations()


def test_too_few_labels_are_refused(make_index: MakeIndex) -> None:
    small = make_index(vectors(0), publish=False)
    fill(small, range(2 * EACH))
    with pytest.raises(LabelsInvalid, match="30 images have a label that another one has, and probabilities need 50"):
        calibrate(small, relevance(small, "folder"), "folder", small.space())
    fill(small, range(2 * EACH, 4 * EACH))
    with pytest.raises(LabelsInvalid, match="has no false-match rates"):
        calibrate(small, relevance(small, "folder"), "folder", small.space())


def test_labels_that_all_images_share_are_refused(index: Index) -> None:
    everything = {image_id(number): frozenset(["one"]) for number in range(CLASSES * EACH)}
    with pytest.raises(LabelsInvalid, match="30 that are, and 30 that are not"):
        calibrate(index, Relevance(classes=everything), "label", index.space())


def test_pairs_tell_what_is_alike_and_all_others_are_not(index: Index) -> None:
    partner = {image_id(number): frozenset([image_id(number ^ 1)]) for number in range(CLASSES * EACH)}
    found = calibrate(index, Relevance(classes={}, pairs=partner), "pairs.csv", index.space())
    assert found.queries == CLASSES * EACH
    assert 0.02 < found.probabilities[-1] < 0.3, "one of fourteen of a class"


def test_what_is_not_labelled_is_passed_over(index: Index) -> None:
    whole = calibrate(index, relevance(index, "folder"), "folder", index.space())
    some = {name: held for name, held in relevance(index, "folder").classes.items() if int(name, 16) % 2}
    half = calibrate(index, Relevance(classes=some), "folder", index.space())
    assert half.images == len(some) < whole.images
    assert half.probabilities[-1] == pytest.approx(whole.probabilities[-1], abs=0.1)


@pytest.mark.parametrize("hits", [80, 300, 2_000])
def test_luck_is_no_probability(hits: int) -> None:
    """Where the rate tells nothing, every probability is that of all hits."""
    said = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        rates = 10 ** -generator.uniform(0, 6, hits)
        said.append(_curve(rates, (generator.random(hits) < 0.5).astype(np.float64)).probabilities)
    assert np.mean([one[-1] for one in said]) < 0.62
    assert np.mean([one[0] for one in said]) > 0.38


def test_hits_of_equal_rate_are_equally_probable() -> None:
    rates = np.where(np.arange(4_000) % 5 == 0, 1e-7, 10.0 ** -np.random.default_rng(1).uniform(0, 4, 4_000))
    alike = (np.random.default_rng(2).random(4_000) < np.where(rates < 1e-6, 0.8, 0.1)).astype(np.float64)
    curve = _curve(rates, alike)
    assert curve.of(1e-7) == pytest.approx(alike[rates == 1e-7].mean(), abs=0.01)
    assert list(curve.rates) == sorted({*curve.rates}, reverse=True)


def test_an_image_that_is_removed_meanwhile_asks_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    search_many = index.search_many

    def remove_first(queries: Sequence[Query]) -> list[list[Hit] | SearchError]:
        with index.writer() as writer, writer.transaction() as transaction:
            transaction.remove([image_id(3), image_id(4)])
        return search_many(queries)

    monkeypatch.setattr(index, "search_many", remove_first)
    assert calibrate(index, relevance(index, "folder"), "folder", index.space()).error < 0.1


def test_the_command_calibrates_and_takes_it_back(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run_cli("eval", index.path, "--calibrate").stdout
    assert "each hit has a probability now" in printed
    assert "hits have probabilities, by folder of 300 images" in run_cli("spaces", index.path).stdout
    (space,) = json.loads(run_cli("spaces", index.path, "--json").stdout)["spaces"]
    assert space["calibration"]["queries"] == CLASSES * EACH
    (found,) = json.loads(run_cli("eval", index.path, "--calibrate", "--json").stdout)["calibrations"]
    assert found["name"] == index.space().name
    assert found["queries"] == CLASSES * EACH
    search = ["search", "--index", index.path, "--id", image_id(3), "-k", "1", "--max-fmr", "1"]
    (hit,) = json.loads(run_cli(*search, "--json").stdout)["hits"]
    assert hit["probability"] == ask(index, 3)[0].probability > 0.5
    assert run_cli(*search).stdout.split()[1] == f"{hit['probability']:.0%}"
    run_cli("eval", index.path, "--no-calibrate")
    assert "%" not in run_cli("search", "--index", index.path, "--id", image_id(3), "-k", "1").stdout
    again = run_cli("eval", index.path, "--no-calibrate", "--json")
    assert "nothing was changed" in again.stderr
    assert json.loads(again.stdout) == {"calibrations": [], "forgotten": []}
    told = run_cli("eval", index.path, "--calibrate", "--labels", "none", check=2).stderr
    assert "labels that say what is alike" in told
    assert "measures nothing" in run_cli("eval", index.path, "--no-calibrate", "--labels", "label", check=2).stderr


def teach(index: Index, number: int, step: int) -> None:
    """A session of somebody who looks for a class: its images are more, as many of its neighbours less."""
    of_class = [one for one in range(CLASSES * EACH) if one // EACH == number]
    others = [hit.id for hit in ask(index, of_class[0]) if hit.id not in {*map(image_id, of_class)}]
    marks = Marks(more=tuple(map(image_id, of_class[1::step])), less=tuple(others[:EACH]))
    question = TaughtQuestion(space=index.space().name, parts=(QueryPart(id=image_id(of_class[0])),))
    with index.writer() as writer, writer.transaction() as transaction:
        session = transaction.start_session(question, None)
        transaction.add_round(session, session, marks)


def test_marks_of_kept_sessions_calibrate(index: Index) -> None:
    with pytest.raises(LabelsInvalid, match="No feedback is kept"):
        relevance(index, "marks")
    for number in range(0, CLASSES, 2):
        teach(index, number, step=1)
    alike = relevance(index, "marks")
    assert alike.alike(image_id(0), image_id(1))
    assert not alike.alike(image_id(0), image_id(EACH))
    assert not alike.judges(image_id(0), image_id(2 * EACH + 1))  # liked by another session, or not marked at all
    by_marks = calibrate(index, alike, "marks", index.space())
    by_folders = calibrated(index)
    assert by_marks.queries == CLASSES * EACH // 2
    assert by_marks.probabilities[-1] > 0.5 > by_marks.probabilities[0]
    assert by_marks.probabilities[-1] - by_folders.probabilities[-1] < 0.2
    told = run_cli("eval", index.path, "--labels", "marks", "--calibrate")
    assert "290 marks of 10 sessions of feedback say what is alike." in told.stdout
    assert "alike by marks" in told.stdout
    assert ask(index, 0)[0].probability is not None


def test_what_was_not_marked_is_not_ranked(index: Index) -> None:
    teach(index, 0, step=2)
    wanted = [image_id(0), *map(image_id, range(1, EACH, 2))]
    alike = relevance(index, "marks")
    found = evaluate(index, alike, [index.space()])
    assert found.queries == len(wanted)
    (scores,) = found.spaces
    less = set(alike.against[image_id(0)]) if alike.against else set()
    for one in scores.answers:
        assert set(one.hits) <= {*wanted} | less
