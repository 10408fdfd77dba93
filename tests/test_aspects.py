"""Promises of queries with several aspects: one ranking over spaces, exactly, whatever else is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import image_id, new_image, recipe, vectors
from numpy.typing import NDArray

from search.errors import NotInSpace, QueryInvalid, UnknownSpace
from search.filters import parse_filter
from search.index import Index
from search.types import Aspect, Encoding, NewImage, Query, QueryPart, Space

COUNT, DIMS = 300, {"layer1": 8, "layer2": 16}
DATA = {name: vectors(COUNT, dim=dim, seed=dim) for name, dim in DIMS.items()}


def image(number: int) -> NewImage:
    plain = new_image(number, DATA["layer1"][number])
    return NewImage(
        id=plain.id,
        facts=plain.facts,
        location=plain.location,
        vectors={name: data[number] for name, data in DATA.items()},
        labels=plain.labels,
        metadata=plain.metadata,
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Two spaces, most of their images in a generation, some in the delta, some removed."""
    spaces = [Space(name=name, recipe=recipe(dim=dim), encoding=Encoding()) for name, dim in DIMS.items()]
    with Index.create(tmp_path_factory.mktemp("aspects") / "i.index", spaces) as made:
        with made.writer() as writer:
            with writer.transaction() as transaction:
                for number in range(COUNT - 40):
                    transaction.add(image(number))
            made.publish()
            with writer.transaction() as transaction:
                for number in range(COUNT - 40, COUNT):
                    transaction.add(image(number))
            writer.remove([image_id(number) for number in (5, 6, COUNT - 1)])
        yield made


ALIVE = [number for number in range(COUNT) if number not in (5, 6, COUNT - 1)]


GENERATION = dict.fromkeys(DIMS, COUNT - 40)


def spread(space: str, vector: NDArray[np.float32], images: int) -> float:
    """Of the cosines with the first images, but for the highest hundredth."""
    return float(np.sort(DATA[space][:images].astype(np.float64) @ vector)[: images - images // 100].std())


def brute_force(
    asked: list[tuple[str, NDArray[np.float32], float]], among: list[int], k: int, known: Mapping[str, int] = GENERATION
) -> list[str]:
    scaled = [(space, vector, weight / spread(space, vector, known[space])) for space, vector, weight in asked]
    sums = sum(weight * (DATA[space].astype(np.float64) @ vector) for space, vector, weight in scaled)
    return [image_id(number) for number in sorted(among, key=lambda one: (-sums[one], image_id(one)))[:k]]


def aspects(asked: list[tuple[str, NDArray[np.float32], float]]) -> list[Aspect]:
    return [Aspect(parts=[QueryPart(vector=vector)], space=space, weight=weight) for space, vector, weight in asked]


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, -1), (-2, 0.5), (-1, -1), (1, 0.001)], ids=str)
def test_several_aspects_find_what_brute_force_finds(index: Index, weights: tuple[float, float]) -> None:
    for seed in range(40):
        asked = [
            (name, vectors(1, dim=dim, seed=1000 + seed)[0], weight)
            for (name, dim), weight in zip(DIMS.items(), weights, strict=True)
        ]
        query = Query(aspects=aspects(asked), k=10, offset=seed % 3)
        hits = index.search(query)
        assert [hit.id for hit in hits] == brute_force(asked, ALIVE, 10 + seed % 3)[seed % 3 :]
        assert all(-1 <= hit.score <= 1 for hit in hits)


def test_a_filter_and_a_cut_hold_for_sums(index: Index) -> None:
    asked = [(name, vectors(1, dim=dim, seed=3)[0], 1.0) for name, dim in DIMS.items()]
    odd = [number for number in ALIVE if number % 2]
    query = Query(aspects=aspects(asked), k=len(odd), filter=parse_filter({"label": "odd"}))
    hits = index.search(query)
    assert [hit.id for hit in hits] == brute_force(asked, odd, len(odd))
    cut = hits[20].score
    above = index.search(Query(aspects=aspects(asked), k=1000, min_score=cut, filter=query.filter))
    assert [hit.id for hit in above] == [hit.id for hit in hits if hit.score >= cut - 1e-6]


def test_an_image_may_be_a_part_of_one_aspect_and_is_not_a_hit(index: Index) -> None:
    query = Query(
        aspects=[
            Aspect(parts=[QueryPart(id=image_id(7))], space="layer1"),
            Aspect(parts=[QueryPart(vector=DATA["layer2"][9])], space="layer2", weight=2),
        ],
        k=5,
    )
    asked = [("layer1", DATA["layer1"][7], 1.0), ("layer2", DATA["layer2"][9], 2.0)]
    among = [number for number in ALIVE if number != 7]
    assert [hit.id for hit in index.search(query)] == brute_force(asked, among, 5)


def test_one_aspect_is_a_plain_query(index: Index) -> None:
    part = QueryPart(vector=DATA["layer2"][11])
    plain = index.search(Query(parts=[part], space="layer2", k=7))
    assert index.search(Query(aspects=[Aspect(parts=[part], space="layer2", weight=0.3)], k=7)) == plain


def test_an_image_without_a_vector_in_one_of_the_spaces_is_not_a_hit(tmp_path: Path) -> None:
    space = Space(name="layer1", recipe=recipe(dim=8), encoding=Encoding())
    with Index.create(tmp_path / "i.index", [space]) as index:
        with index.writer() as writer:
            with writer.transaction() as transaction:
                for number in range(20):
                    transaction.add(new_image(number, DATA["layer1"][number], spaces=("layer1",)))
            late = writer.add_space(Space(name="layer2", recipe=recipe(layer=3, dim=16), encoding=Encoding()))
            with writer.transaction() as transaction:
                assert transaction.fill(late, {image_id(number): DATA["layer2"][number] for number in range(5)}) == 5
        asked = [(name, vectors(1, dim=dim, seed=5)[0], 1.0) for name, dim in DIMS.items()]
        hits = index.search(Query(aspects=aspects(asked), k=20))
        assert [hit.id for hit in hits] == brute_force(asked, list(range(5)), 20, {"layer1": 20, "layer2": 5})
        bare = [Aspect(parts=[QueryPart(id=image_id(9))], space=name) for name in DIMS]
        with pytest.raises(NotInSpace):
            index.search(Query(aspects=bare))


def test_aspects_that_cannot_be_meant_are_refused(index: Index) -> None:
    part = [QueryPart(vector=DATA["layer1"][0])]
    one = Aspect(parts=part, space="layer1")
    for query in (
        Query(),
        Query(parts=part, aspects=[one]),
        Query(aspects=[one], space="layer1"),
        Query(aspects=[one] * 9),
        Query(aspects=[one, Aspect(parts=part, space="layer1", weight=0)]),
        Query(aspects=[one, Aspect(parts=part, space="layer1", weight=float("nan"))]),
        Query(aspects=[one, Aspect(parts=part, space="layer2")]),  # another dimension
        Query(parts=[QueryPart(id=image_id(1), weight=-1)], combine="best"),
        Query(parts=[QueryPart(id=image_id(1)), QueryPart(id=image_id(2), weight=0)], combine="best"),
        Query(aspects=[Aspect(parts=part * 33, space="layer1")] * 2, combine="best"),
    ):
        with pytest.raises(QueryInvalid):
            index.search(query)
    with pytest.raises(UnknownSpace):
        index.search(Query(aspects=[one, Aspect(parts=part, space="layer9")]))
