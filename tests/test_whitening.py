"""Promises of whitening: what it evens out, that few images do not ruin it, and when it is fitted again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import image_id, new_image, recipe, vectors
from numpy.typing import NDArray

from search.errors import PolicyInvalid
from search.generations.policy import Policy
from search.generations.whitening import Whitening, fit, principal
from search.index import Index
from search.recipe import Recipe, TransformSpec
from search.types import Aspect, Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.vectors import BLOB_DTYPES, concatenate, normalise

MakeIndex = Callable[..., Index]
Vectors = NDArray[np.float32]
OWN, BESIDE, SEARCHED = 48, 32, 64
SPEC = TransformSpec(kind="whitening", floor=0.03, companion_weight=1.0, max_dim=SEARCHED)


def space_of(*dims: int, spec: TransformSpec = SPEC) -> Space:
    made_of: Recipe = recipe(dim=sum(dims))
    if len(dims) > 1:
        made_of = replace(made_of, companion=recipe(dim=dims[1]))
    return Space(name="layer2-whitened", recipe=made_of, encoding=Encoding(), storage="float16", transform=spec)


def skewed(count: int, dim: int = OWN, seed: int = 0, mean: int = 0) -> Vectors:
    """Unit vectors around one of the axes, `mean`, whose dimensions have very different variances."""
    return normalise(vectors(count, dim=dim, seed=seed) * np.geomspace(1, 0.03, dim) + 2 * np.eye(1, dim, mean))


def both(count: int, seed: int = 0) -> Vectors:
    return concatenate([skewed(count, OWN, seed), skewed(count, BESIDE, seed + 100)])


def fitted(data: Vectors, *dims: int, spec: TransformSpec = SPEC) -> Whitening:
    return fit(space_of(*dims, spec=spec), lambda count: data[:count])


def directly(data: Vectors, floor: float) -> Vectors:
    """The textbook's way, by the whole covariance: each eigenvalue is floored, and scaled to the floor."""
    wide = data.astype(np.float64)
    centred = wide - wide.sum(axis=0) / (len(wide) + 4)
    values, directions = np.linalg.eigh(centred.T @ centred / len(wide))
    lowest = floor * values.max()
    return normalise(centred @ directions * np.sqrt(lowest / np.maximum(values, lowest)))


def test_whitened_cosines_are_those_of_the_textbook() -> None:
    data = skewed(900)
    found = fitted(data, OWN, spec=replace(SPEC, max_dim=OWN)).apply(data)
    expected = directly(data, SPEC.floor)
    assert found.shape == (900, OWN)
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1e-6


def test_both_networks_count_alike_and_the_companion_is_only_centred() -> None:
    data = both(900)
    whole = replace(SPEC, max_dim=OWN + BESIDE)
    found = fitted(data, OWN, BESIDE, spec=whole).apply(data)
    beside = data[:, OWN:].astype(np.float64)
    parts = [directly(data[:, :OWN], SPEC.floor), normalise(beside - beside.sum(axis=0) / 904)]
    assert np.abs(found @ found.T - sum(part @ part.T for part in parts) / 2).max() < 1e-6
    heavier = fitted(data, OWN, BESIDE, spec=replace(whole, companion_weight=2.0)).apply(data)
    assert np.abs(heavier @ heavier.T - (parts[0] @ parts[0].T + 4 * parts[1] @ parts[1].T) / 5).max() < 1e-6


def test_fewer_numbers_keep_the_cosines_of_images_that_it_was_fitted_to_and_of_others() -> None:
    """There are fewer images than numbers: what others have besides them is kept too, on average."""
    data, others = skewed(100, dim=400), skewed(60, dim=400, seed=7)
    spec = replace(SPEC, max_dim=160)
    whole = fitted(data, 400, spec=replace(spec, max_dim=400))
    less = fitted(data, 400, spec=spec)
    assert (less.dim, whole.dim) == (160, 400)
    for one, other, most in ((data, data, 1e-6), (others, data, 0.05), (others, others, 0.1)):
        errors = less.apply(one) @ less.apply(other).T - whole.apply(one) @ whole.apply(other).T
        assert np.sqrt(np.mean(errors**2)) < most
        assert abs(errors.mean()) < 0.01


@pytest.mark.parametrize("count", [1, 2, 12])
def test_few_images_are_told_apart_from_others(count: int) -> None:
    data, stranger = skewed(count), skewed(1, seed=50)
    transform = fitted(data, OWN, spec=replace(SPEC, max_dim=OWN))
    searched, other = transform.apply(data), transform.apply(stranger)
    assert np.allclose(np.linalg.norm(searched, axis=1), 1)
    nearest = (other @ searched.T).max()
    for row in range(count):
        assert np.argmax(searched @ searched[row]) == row
    resaved = transform.apply(normalise(data + 0.01 * vectors(count, dim=OWN, seed=9)))
    assert (searched * resaved).sum(axis=1).min() > nearest + 0.01


def test_copies_count_once() -> None:
    data = skewed(50)
    flooded = np.concatenate([data, np.repeat(data[:1], 500, axis=0)])
    assert fitted(flooded, OWN).to_bytes() == fitted(data, OWN).to_bytes()
    only = fitted(np.repeat(data[:1], 30, axis=0), OWN)
    assert only.apply(data[:1]) @ only.apply(data[:1]).T == pytest.approx(1)
    assert only.apply(data[:1]) @ only.apply(data[1:2]).T < data[0] @ data[1]


def test_a_space_without_images_has_a_transform_too() -> None:
    transform = fitted(both(1)[:0], OWN, BESIDE)
    assert transform.apply(both(3)).shape == (3, SEARCHED)


def test_what_has_no_direction_gets_one_and_resembles_nothing() -> None:
    data = skewed(200)
    transform = fitted(data, OWN)
    transform = replace(transform, parts=(replace(transform.parts[0], mean=data[0].astype(np.float64)),))
    found = transform.apply(data)
    assert found[0].tolist() == [1.0] + [0.0] * (transform.dim - 1)
    assert np.abs(found[1:] @ found[0]).max() < 0.9
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_equal_vectors_stay_equal_in_batches_of_any_size() -> None:
    data = both(1_500)
    data[[1, 77, 1_024, 1_499]] = data[1]
    transform = fitted(data, OWN, BESIDE)
    together = transform.apply(data)
    assert len(np.unique(together[[1, 77, 1_024, 1_499]], axis=0)) == 1
    for size in (1, 2, 3, 8, 100):
        assert (transform.apply(data[1 : 1 + size])[0] == together[1]).all()


def test_its_file_is_read_back_and_nothing_else_is() -> None:
    transform = fitted(both(300), OWN, BESIDE)
    content = transform.to_bytes()
    assert (Whitening.read(OWN + BESIDE, content).apply(both(9)) == transform.apply(both(9))).all()
    for dim, broken in ((OWN, content), (OWN + BESIDE, content[:-3]), (OWN + BESIDE, b"")):
        with pytest.raises(ValueError, match=r"it is not"):
            Whitening.read(dim, broken)


# ---- in an index


@pytest.fixture
def make_whitened(tmp_path: Path) -> Callable[..., Index]:
    def make(data: Vectors, **options: Any) -> Index:
        index = Index.create(tmp_path / "w.index", [space_of(OWN, BESIDE)], **options)
        add(index, data, range(len(data)))
        index.publish()
        index.refresh()
        return index

    return make


def add(index: Index, data: Vectors, numbers: Sequence[int]) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        for number in numbers:
            image = new_image(number, data[number])
            transaction.add(replace(image, vectors={"layer2-whitened": data[number]}))


def manifest(index: Index, generation: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((index.path / "generations" / generation / "manifest.json").read_text())
    return read


def test_vectors_are_stored_in_half_the_bytes_and_keep_their_direction(make_whitened: MakeIndex) -> None:
    data = both(40)
    index = make_whitened(data)
    ((blob,),) = index.catalog.rows("SELECT vector FROM embeddings WHERE image_rowid = 1", {})
    assert len(blob) == (OWN + BESIDE) * BLOB_DTYPES["float16"].itemsize
    stored = np.stack([index.vector(image_id(number), index.space()) for number in range(40)])
    assert np.abs(np.linalg.norm(stored, axis=1) - 1).max() < 1e-6
    assert (stored * data).sum(axis=1).min() > 1 - 1e-3
    assert index.search(Query(parts=[QueryPart(vector=data[7])], k=1))[0].id == image_id(7)
    assert verify(index).findings == []


def test_a_collection_that_grows_alike_keeps_its_transform_and_one_that_changes_gets_another(
    make_whitened: MakeIndex,
) -> None:
    data = np.concatenate([both(1_200), concatenate([skewed(900, OWN, 5, mean=9), skewed(900, BESIDE, 6, mean=4)])])
    index = make_whitened(data[:1_000], policy=Policy(min_delta_images=0))
    first = manifest(index, "000001")["spaces"]["layer2-whitened"]["transform"]
    assert first == {**SPEC.to_json(), "fitted": 1_000, "checked": 1_000, "drift": 0.0}
    add(index, data, range(1_000, 1_100))
    index.publish()
    assert manifest(index, "000002")["spaces"]["layer2-whitened"]["transform"] == first, "not looked at yet"
    add(index, data, range(1_100, 1_200))
    index.publish()
    add(index, data, range(1_200, 2_100))
    index.publish()
    index.refresh()
    last = manifest(index, "000004")["spaces"]["layer2-whitened"]["transform"]
    assert (last["fitted"], last["checked"]) == (2_100, 2_100), "fitted again"
    assert index.search(Query(parts=[QueryPart(vector=data[1_500])], k=1))[0].id == image_id(1_500)
    assert verify(index).findings == []


def test_more_images_of_the_same_kind_are_no_reason_to_fit_again(make_whitened: MakeIndex) -> None:
    data = both(2_600)
    index = make_whitened(data[:2_000])
    add(index, data, range(2_000, 2_600))
    index.publish()
    facts = manifest(index, "000002")["spaces"]["layer2-whitened"]["transform"]
    assert (facts["fitted"], facts["checked"]) == (2_000, 2_600)
    assert 0 < facts["drift"] <= 0.02


def test_parts_are_weighed_as_they_are_searched(make_whitened: MakeIndex) -> None:
    """The opposite of a whitened vector is not the whitened opposite: the mean was taken away from both."""
    data, queries = both(300), both(2, seed=40)
    index = make_whitened(data)
    snapshot, _ = index._follower.newest()
    transform = snapshot.spaces["layer2-whitened"].transform
    first, second = transform.apply(queries)
    searched = transform.apply(np.stack([index.vector(image_id(number), index.space()) for number in range(300)]))
    parts = [QueryPart(vector=queries[0]), QueryPart(vector=queries[1], weight=-0.5)]
    for query, wanted in (
        (Query(parts=parts, k=5), normalise((first - 0.5 * second)[None])[0]),
        (Query(aspects=[Aspect(parts=parts[:1], weight=-2.0)], k=5), -first),
    ):
        scores = searched @ wanted
        best = np.argsort(-scores, kind="stable")[:5]
        hits = index.search(query)
        assert [hit.id for hit in hits] == [image_id(number) for number in best]
        assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-5)


def test_few_of_many_directions_are_found_as_exactly_as_needed() -> None:
    data = vectors(900, dim=700).astype(np.float64) * np.geomspace(1, 1e-3, 700)
    exact, squares = principal(data, 699)
    few, fewer = principal(data, 60)
    assert fewer == pytest.approx(squares[:60], rel=3e-2)
    assert fewer[:20] == pytest.approx(squares[:20], rel=1e-3)
    assert np.abs(few @ few.T - np.eye(60)).max() < 1e-12
    assert np.linalg.norm(exact[:20] @ few.T, axis=1).min() > 1 - 1e-3


def test_a_flat_spectrum_is_evened_out_completely() -> None:
    """There are more directions above the floor than are looked at first."""
    data = normalise(vectors(1_500, dim=900) * np.geomspace(1, 0.2, 900) + 0.5 * np.eye(1, 900))
    found = fitted(data, 900, spec=replace(SPEC, floor=0.05, max_dim=900)).apply(data[:100])
    expected = directly(data, 0.05)[:100]
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1e-4


def test_the_projections_random_directions_are_no_reason_to_fit_again(tmp_path: Path) -> None:
    """Numbers are left out here: the random directions of two fits differ, and with them the cosines."""
    spec = replace(SPEC, max_dim=48)
    space = space_of(600, spec=spec)
    data = skewed(1_300, dim=600)
    with Index.create(tmp_path / "w.index", [space]) as index:
        add(index, data, range(1_000))
        index.publish()
        add(index, data, range(1_000, 1_300))
        index.publish()
        facts = manifest(index, "000002")["spaces"]["layer2-whitened"]["transform"]
    assert (facts["fitted"], facts["checked"]) == (1_000, 1_300)


def test_a_space_that_is_fitted_again_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    graph = Policy(exact_search_bytes=0, min_delta_images=0)
    whitened = space_of(OWN, BESIDE)
    plain = Space(name="layer2", recipe=recipe(), encoding=Encoding())
    data = np.concatenate([both(300), concatenate([skewed(300, OWN, 5, mean=9), skewed(300, BESIDE, 6, mean=4)])])
    beside = vectors(600)
    with Index.create(tmp_path / "w.index", [whitened, plain], policy=graph) as index:
        for numbers in (range(300), range(300, 600)):
            with index.writer() as writer, writer.transaction() as transaction:
                for number in numbers:
                    made = {"layer2-whitened": data[number], "layer2": beside[number]}
                    transaction.add(replace(new_image(number, data[number]), vectors=made))
            index.publish()
        index.refresh()
        first, second = (index.path / "generations" / name / "layer2.vectors" for name in ("000001", "000002"))
        assert first.stat().st_ino == second.stat().st_ino, "it went on in the same file"
        spaces = manifest(index, "000002")["spaces"]
        assert spaces["layer2-whitened"]["transform"]["fitted"] == spaces["layer2"]["count"] == 600
        for space, of_space in (("layer2-whitened", data), ("layer2", beside)):
            for number in (5, 450):
                (hit,) = index.search(Query(parts=[QueryPart(vector=of_space[number])], k=1, space=space))
                assert hit.id == image_id(number)
        with index.writer() as writer:
            writer.remove([image_id(5)])
        index.publish(anew=True)
        index.refresh()
        assert verify(index).findings == []


def test_a_few_images_more_are_worth_a_generation_while_the_transform_knows_few(make_whitened: MakeIndex) -> None:
    """A served index that began with three pictures searched thousands by what it knew of three."""
    data = both(40)
    index = make_whitened(data[:20])
    assert not index.unpublished()
    add(index, data, range(20, 24))
    index.refresh()
    assert not index.unpublished()
    add(index, data, range(24, 30))
    index.refresh()
    assert index.unpublished()
    index.publish()
    index.refresh()
    assert not index.unpublished()


def test_a_transform_that_there_is_not_is_refused_by_name(tmp_path: Path, make_whitened: MakeIndex) -> None:
    unknown = space_of(OWN, spec=TransformSpec(kind="whitten"))
    with pytest.raises(PolicyInvalid, match=r"'whitten'.*identity, whitening"):
        Index.create(tmp_path / "other.index", [unknown])
    with make_whitened(both(2)).writer() as writer, pytest.raises(PolicyInvalid):
        writer.add_space(replace(unknown, name="other"))
