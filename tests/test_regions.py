"""Parts of images: where each of them lies, and what a recipe says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import new_image
from numpy.typing import NDArray

from analysis.evaluate import complete_spaces
from search.errors import QueryInvalid, SpaceOfRegions
from search.feedback import Marks, TaughtQuestion
from search.filters import parse_filter
from search.generations.policy import Policy
from search.index import Index
from search.recipe import IDENTITY, Preprocessing, Recipe, TransformSpec, squares
from search.teaching import Teacher
from search.types import Aspect, Combine, Encoding, Query, QueryPart, Space
from search.upkeep.verify import verify
from search.vectors import normalise

PARTS = squares(4, 2, (0, 1, 2), (4,))
PREPROCESSING = Preprocessing(geometry="square", resize=448, size=448, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)
PLAIN = Recipe(
    model="m", weights_sha256="0", layers=(1,), pooling="mean", final_norm=(True,), preprocessing=PREPROCESSING, dim=4
)


def test_boxes_are_pixels_of_the_upright_image() -> None:
    assert PARTS.count == 10
    assert PARTS.box(0, 640, 480) == (0, 0, 640, 480)
    assert PARTS.box(1, 640, 480) == (0, 0, 320, 240)
    assert PARTS.box(5, 640, 480) == (160, 120, 320, 240)
    assert PARTS.box(9, 640, 480) == (320, 240, 320, 240)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (641, 479)])
def test_boxes_lie_inside_images_of_any_size(size: tuple[int, int]) -> None:
    for number in range(PARTS.count):
        x, y, width, height = PARTS.box(number, *size)
        assert width >= 1
        assert height >= 1
        assert 0 <= x <= x + width <= size[0]
        assert 0 <= y <= y + height <= size[1]


def test_a_vector_that_there_is_not_has_no_box() -> None:
    for number in (-1, PARTS.count):
        with pytest.raises(IndexError):
            PARTS.box(number, 10, 10)


def test_a_recipe_with_parts_is_another_one_and_is_read_back() -> None:
    parted = replace(PLAIN, regions=PARTS)
    assert parted != PLAIN
    assert Recipe.from_json(json.loads(json.dumps(parted.to_json()))) == parted


def test_recipes_without_parts_are_written_as_before() -> None:
    with_companion = replace(PLAIN, companion=PLAIN, dim=8)
    assert "regions" not in json.dumps([PLAIN.to_json(), with_companion.to_json()])
    assert Recipe.from_json(with_companion.to_json()) == with_companion


COUNT, DIM = 300, 16
FOUR = replace(PLAIN, dim=DIM, regions=squares(4, 2, (0, 2), (DIM,)))


def parts_of_images() -> NDArray[np.float32]:
    """Five vectors an image, (COUNT, 5, DIM)."""
    drawn = np.random.default_rng(3).standard_normal((COUNT * FOUR.count, DIM))
    return normalise(drawn).reshape(COUNT, FOUR.count, DIM)


def found(index: Index, vector: NDArray[np.float32], k: int = 3) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 4)) for hit in index.search(Query(parts=[QueryPart(vector=vector)], k=k))]


def expected(parts: NDArray[np.float32], vector: NDArray[np.float32], gone: int | None = None) -> list[float]:
    best = (parts @ vector).max(axis=1)
    if gone is not None:
        best[gone] = -1
    return [round(float(score), 4) for score in np.sort(best)[::-1][:3]]


@pytest.mark.parametrize(
    ("published", "policy"),
    [(0, Policy()), (COUNT // 2, Policy()), (COUNT, Policy()), (COUNT, Policy(exact_search_bytes=0))],
    ids=["delta", "both", "exact", "graph"],
)
def test_an_image_is_found_once_by_its_best_part(tmp_path: Path, published: int, policy: Policy) -> None:
    parts = parts_of_images()
    space = Space(name="regions", recipe=FOUR, encoding=Encoding(), storage="float16")
    with Index.create(tmp_path / "i", [space], policy=policy) as index:
        with index.writer() as writer:
            for numbers in (range(published), range(published, COUNT)):
                with writer.transaction() as transaction:
                    for number in numbers:
                        image = new_image(number, parts[number, 0])
                        transaction.add(replace(image, vectors={"regions": parts[number]}))
                if published and numbers.start == 0:
                    index.publish()
        for number, part in ((7, 0), (200, 3), (299, 4)):
            hits = found(index, parts[number, part])
            assert hits[0][0] == new_image(number, parts[0, 0]).id
            assert [score for _, score in hits] == pytest.approx(expected(parts, parts[number, part]), abs=2e-3)
            assert len({name for name, _ in hits}) == 3
        for below in (20, 290):  # few matches, and most
            query = Query(parts=[QueryPart(vector=parts[250, 2])], k=3, filter=parse_filter({"width": {"lt": below}}))
            scores = [hit.score for hit in index.search(query)]
            assert scores == pytest.approx(expected(parts[:below], parts[250, 2]), abs=2e-3)
        with index.writer() as writer:
            writer.remove([new_image(200, parts[0, 0]).id])
        hits = found(index, parts[200, 3])
        assert [score for _, score in hits] == pytest.approx(expected(parts, parts[200, 3], 200), abs=2e-3)
        index.publish()
        assert found(index, parts[200, 3]) == hits
        assert len(found(index, parts[7, 0], COUNT)) == COUNT - 1
        assert verify(index).findings == []


def added(index: Index, numbers: range) -> None:
    parts = parts_of_images()
    with index.writer() as writer, writer.transaction() as transaction:
        for number in numbers:
            image = new_image(number, parts[number, 0])
            transaction.add(replace(image, vectors={"regions": parts[number]}))


def test_vectors_and_not_images_decide_whether_there_is_a_graph(tmp_path: Path) -> None:
    space = Space(name="regions", recipe=FOUR, encoding=Encoding(), storage="float16")
    images, vectors = 4 * DIM * COUNT, 4 * DIM * COUNT * FOUR.count
    policy = Policy(exact_search_bytes=(images + vectors) // 2)
    with Index.create(tmp_path / "i", [space], policy=policy) as index:
        for numbers in (range(250), range(250, COUNT)):
            added(index, numbers)
            index.publish()
            index.refresh()
            base = index.snapshot().spaces["regions"].base
            assert base is not None
            assert base.graph is not None


def test_images_and_not_vectors_decide_when_to_publish(tmp_path: Path) -> None:
    space = Space(name="regions", recipe=FOUR, encoding=Encoding(), storage="float16")
    with Index.create(tmp_path / "i", [space], policy=Policy(min_delta_images=10, max_delta_share=0.2)) as index:
        added(index, range(100))
        index.publish()
        index.refresh()
        assert not index.unpublished()
        added(index, range(100, 130))
        assert index.unpublished()


@pytest.mark.parametrize(("weights", "aspect"), [((-1.0,), 1.0), ((1.0,), -1.0), ((-1.0, -0.5), 1.0)])
def test_nothing_is_only_pushed_away_where_images_have_parts(
    tmp_path: Path, weights: tuple[float, ...], aspect: float
) -> None:
    parts = parts_of_images()
    with Index.create(tmp_path / "i", [Space(name="regions", recipe=FOUR, encoding=Encoding())]) as index:
        added(index, range(10))
        asked = [QueryPart(vector=parts[number, 0], weight=weight) for number, weight in enumerate(weights)]
        with pytest.raises(QueryInvalid, match="nothing is pushed away"):
            index.search(Query(aspects=[Aspect(parts=asked, weight=aspect)]))
        mixed = [*asked, QueryPart(vector=parts[5, 1], weight=9.0)]
        if aspect > 0:
            assert index.search(Query(aspects=[Aspect(parts=mixed)], k=1))[0].id == new_image(5, parts[0, 0]).id


IMAGES, GIVEN = 150, 90
"""Images of the random changes, and how many are published before them."""


def crowded() -> NDArray[np.float32]:
    """Five vectors an image, (IMAGES, 5, DIM). All parts of some images are equal."""
    parts = parts_of_images()[:IMAGES].copy()
    parts[::10] = parts[0, 0]
    parts[1::10, 2] = parts[1, 2]
    return parts


@pytest.mark.parametrize("transform", [IDENTITY, TransformSpec(kind="whitening", floor=0.1, max_dim=DIM)])
def test_random_changes_and_queries_agree_with_brute_force(tmp_path: Path, transform: TransformSpec) -> None:
    parts, random = crowded(), np.random.default_rng(5)
    ids = [new_image(number, parts[number, 0]).id for number in range(IMAGES)]
    space = Space(name="regions", recipe=FOUR, encoding=Encoding(), transform=transform)
    there: set[int] = set()
    with Index.create(tmp_path / "i", [space], policy=Policy(max_dead_share=0.2)) as index:
        for step in range(25):
            few = set(range(GIVEN)) if step == 0 else {*random.choice(IMAGES, 12, replace=False).tolist()}
            with index.writer() as writer, writer.transaction() as transaction:
                for number in sorted(few - there):
                    image = new_image(number, parts[number, 0])
                    transaction.add(replace(image, vectors={"regions": parts[number]}))
            gone = [] if step == 0 else [number for number in few & there if random.random() < 0.7]
            there = (there | few) - set(gone)
            with index.writer() as writer:
                writer.remove([ids[number] for number in gone])
            if random.random() < 0.4 or step == 0:
                index.publish()
            if step in (9, 17):
                index.compact()
            index.refresh()
            searched = index.snapshot().spaces["regions"].transform.apply
            here = searched(parts.reshape(-1, DIM)).reshape(parts.shape)
            for _ in range(8):
                asked = int(random.choice(sorted(there)))
                by_id = random.random() < 0.3
                vector = parts[asked, int(random.integers(FOUR.count))]
                wanted = here[asked, 0] if by_id else searched(normalise(vector[None]))[0]
                below = int(random.choice([20, 75, IMAGES]))
                least = float(random.choice([-1, 0.2, 0.6]))
                k, offset = int(random.integers(1, 12)), int(random.integers(0, 4))
                query = Query(
                    parts=[QueryPart(id=ids[asked]) if by_id else QueryPart(vector=vector)],
                    k=k,
                    offset=offset,
                    min_score=least,
                    filter=parse_filter({"width": {"lt": below}}),
                )
                best = (here @ wanted).max(axis=1)
                ranked = [
                    (-float(best[number]), ids[number], number)
                    for number in there
                    if number < below and best[number] >= least and not (by_id and number == asked)
                ]
                expected = sorted(ranked)[offset : offset + k]
                hits = index.search(query)
                assert [hit.score for hit in hits] == pytest.approx([-score for score, *_ in expected], abs=1e-5)
                for hit in hits:  # equal scores may be rounded apart
                    number = ids.index(hit.id)
                    assert hit.score == pytest.approx(best[number], abs=1e-5)
                    cosines = here[number] @ wanted
                    assert FOUR.regions is not None
                    boxes = [FOUR.regions.box(part, hit.width, hit.height) for part in range(FOUR.count)]
                    nearest = {boxes[part] for part in np.flatnonzero(cosines > cosines.max() - 1e-5)}
                    assert hit.box in nearest
                assert len({hit.id for hit in hits}) == len(hits)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Index]:
    """Twenty images in a space of regions, and in the default one."""
    parts = parts_of_images()
    spaces = [
        Space(name="layer2", recipe=replace(PLAIN, dim=DIM), encoding=Encoding()),
        Space(name="regions", recipe=FOUR, encoding=Encoding()),
    ]
    with Index.create(tmp_path / "i", spaces) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number in range(20):
                image = new_image(number + 4, parts[number, 0])
                transaction.add(replace(image, vectors={"layer2": parts[number, 0], "regions": parts[number]}))
        index.publish()
        yield index


def test_hits_of_other_spaces_have_no_box(held: Index) -> None:
    vector = parts_of_images()[3, 0]
    assert {hit.box for hit in held.search(Query(parts=[QueryPart(vector=vector)], k=5))} == {None}
    for hit in held.search(Query(parts=[QueryPart(vector=vector)], k=5, space="regions", fold=True)):
        assert hit.box is not None


@pytest.mark.parametrize("combine", ["sum", "best"])
def test_regions_are_an_aspect_beside_others(held: Index, combine: Combine) -> None:
    parts = parts_of_images()
    aspects = [
        Aspect(parts=[QueryPart(vector=parts[7, 0])]),
        Aspect(parts=[QueryPart(vector=parts[7, 3])], space="regions"),
    ]
    first = held.search(Query(aspects=aspects, combine=combine, k=3))[0]
    assert first.width == 11
    assert FOUR.regions is not None
    if combine == "sum":
        assert first.box == FOUR.regions.box(3, first.width, first.height)


def test_what_needs_one_vector_an_image_is_refused_in_a_space_of_regions(held: Index) -> None:
    regions = held.space("regions")
    name = new_image(4, parts_of_images()[0, 0]).id

    def made_default() -> None:
        with held.writer() as writer:
            writer.set_default("regions")

    def taught() -> None:
        question = TaughtQuestion(parts=(QueryPart(id=name),), space="regions")
        Teacher(held).learn(question, Marks(more=(name,), less=()))

    for refused in (lambda: held.searched(regions), lambda: held.neighbours(3, space="regions"), made_default, taught):
        with pytest.raises(SpaceOfRegions, match="several, of its parts"):
            refused()
    assert [space.name for space in complete_spaces(held)] == ["layer2"]
    with pytest.raises(QueryInvalid, match="not of regions"):
        held.search(Query(parts=[QueryPart(id=name)], space="regions", max_fmr=0.01))
