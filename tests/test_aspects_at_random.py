"""Generated queries of several aspects, with filters, cuts and folding, against NumPy's brute force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pytest
from conftest import image_id, new_image, recipe, vectors
from numpy.typing import NDArray

from search.filters import Filter, parse_filter
from search.index import Index
from search.types import Aspect, Encoding, Hit, Query, QueryPart, Space
from search.vectors import normalise

COUNT, PUBLISHED = 240, 180
DIMS = {"layer1": 8, "layer2": 16, "layer3": 12}
LATE = "layer3"
COPIES = 60
"""Images, from the first on, of which each third is what the two after it are copies of."""
QUERIES, AT_ONCE = 2_000, 50
NEAR = 3e-6


def _data() -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, dim in DIMS.items():
        made = vectors(COUNT, dim=dim, seed=dim) + (0.5 if name == "layer2" else 0)  # one space is crowded
        firsts = np.arange(COPIES) // 3 * 3
        made[:COPIES] = made[firsts] + 1e-3 * (np.arange(COPIES)[:, None] % 3) * vectors(COPIES, dim=dim, seed=9)
        found[name] = normalise(made)
    return found


DATA = _data()
HASHES = np.random.default_rng(1).integers(-(2**62), 2**62, size=COUNT)
HASHES[:COPIES] = HASHES[np.arange(COPIES) // 3 * 3]
GONE = (5, 100, COUNT - 1)
FILLED = np.array([n < COPIES or n % 5 > 0 for n in range(COUNT)])
"""The images that have a vector in the late space."""
IDS = [image_id(number) for number in range(COUNT)]
NUMBERS = {name: number for number, name in enumerate(IDS)}
HELD = {name: np.array([n not in GONE and (name != LATE or FILLED[n]) for n in range(COUNT)]) for name in DIMS}
FILTERS: dict[str, Any] = {"odd": {"label": "odd"}, "wide": {"width": {"gte": 120}}, "few": {"width": {"lt": 30}}}
PASS = {
    "odd": np.arange(COUNT) % 2 == 1,
    "wide": np.arange(COUNT) >= 120,
    "few": np.arange(COUNT) < 30,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a server: to wake others for so few vectors takes longer than the work."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Two complete spaces and one that lacks images; some images in the delta, some removed, some copies of others."""
    early = [name for name in DIMS if name != LATE]
    spaces = [Space(name=name, recipe=recipe(dim=DIMS[name]), encoding=Encoding()) for name in early]
    with Index.create(tmp_path_factory.mktemp("random") / "i.index", spaces) as made, made.writer() as writer:
        late: Space | None = None
        for numbers in (range(PUBLISHED), range(PUBLISHED, COUNT)):
            with writer.transaction() as transaction:
                for number in numbers:
                    plain = new_image(number, DATA["layer1"][number])
                    facts = replace(plain.facts, phash=int(HASHES[number]))
                    own = {name: DATA[name][number] for name in early}
                    transaction.add(replace(plain, facts=facts, vectors=own))
            late = late or writer.add_space(Space(name=LATE, recipe=recipe(3, DIMS[LATE]), encoding=Encoding()))
            with writer.transaction() as transaction:
                transaction.fill(late, {image_id(n): DATA[LATE][n] for n in numbers if FILLED[n]})
            if numbers.stop == PUBLISHED:
                made.publish()
        writer.remove([image_id(number) for number in GONE])
        yield made


def sample(name: str) -> NDArray[np.float64]:
    """The images of the generation, by which cosines are made comparable."""
    there = FILLED[:PUBLISHED] if name == LATE else slice(PUBLISHED)
    return DATA[name][:PUBLISHED][there].astype(np.float64)


def vector(part: QueryPart, name: str) -> NDArray[np.float64]:
    if part.vector is not None:
        return part.vector.astype(np.float64)
    assert part.id is not None
    return DATA[name][NUMBERS[part.id]].astype(np.float64)


def chance(name: str, asked: NDArray[np.float64]) -> tuple[float, float]:
    cosines = np.sort(sample(name) @ asked)
    cosines = cosines[: len(cosines) - len(cosines) // 100]
    return float(cosines.mean()), float(cosines.std())


def cosines(name: str, asked: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(HELD[name], DATA[name].astype(np.float64) @ asked, -np.inf)


def by_sum(query: Query) -> NDArray[np.float64]:
    sought = []
    for aspect in query.aspects:
        assert isinstance(aspect.space, str)
        total = sum(part.weight * vector(part, aspect.space) for part in aspect.parts)
        asked = total / np.linalg.norm(total)
        scale = abs(aspect.weight) / chance(aspect.space, asked)[1]
        sought.append((aspect.space, asked * np.sign(aspect.weight), scale))
    if len(sought) == 1:
        return cosines(sought[0][0], sought[0][1])
    weights = sum(weight for *_, weight in sought)
    return np.asarray(sum(weight / weights * cosines(name, asked) for name, asked, weight in sought))


def by_best(query: Query) -> NDArray[np.float64]:
    parts = [
        (str(aspect.space), vector(part, str(aspect.space)), part.weight * aspect.weight, part.of_words)
        for aspect in query.aspects
        for part in aspect.parts
    ]
    kinds = {(name, of_words) for name, _, _, of_words in parts}
    means = {
        kind: np.mean([chance(name, asked) for name, asked, _, words in parts if (name, words) == kind], axis=0)
        for kind in kinds
    }
    highest = max((1 - mean) / spread for mean, spread in means.values())
    wanted, unwanted = np.full(COUNT, -np.inf), np.full(COUNT, -np.inf)
    for name, asked, weight, of_words in parts:
        found = cosines(name, asked)
        if len(kinds) > 1:
            mean, spread = means[name, of_words]
            found = (found - mean) / spread / highest
        np.maximum(wanted if weight > 0 else unwanted, found, out=wanted if weight > 0 else unwanted)
    return np.where(unwanted > wanted, -np.inf, wanted)


def generated(number: int) -> tuple[Query, str | None]:
    random = np.random.default_rng(number)

    def part(name: str, sign: int) -> QueryPart:
        weight = float(sign * random.choice([0.5, 1.0, 2.0]))
        if random.random() < 0.3:
            known = np.flatnonzero(HELD[name])
            return QueryPart(id=image_id(int(random.choice(known))), weight=weight)
        asked = normalise(random.normal(size=(1, DIMS[name])) + (0.5 if name == "layer2" else 0))[0]
        return QueryPart(vector=asked, weight=weight, of_words=bool(random.random() < 0.2))

    best = random.random() < 0.5
    aspects = []
    for name in random.choice([*DIMS], size=random.integers(1, 4), replace=False).tolist():
        signs = [1, *random.choice([1, -1], size=random.integers(0, 4), p=[0.6, 0.4]).tolist()]
        weight = float(random.choice([1.0, 0.3, 4.0, *([] if best else [-1.0])]))
        aspects.append(Aspect(parts=[part(name, sign) for sign in signs], space=name, weight=weight))
    chosen = str(random.choice([*FILTERS])) if random.random() < 0.4 else None
    matching: Filter | None = None if chosen is None else parse_filter(FILTERS[chosen])
    query = Query(
        aspects=aspects,
        combine="best" if best else "sum",
        k=int(random.choice([1, 5, 20, 300])),
        offset=int(random.choice([0, 0, 3])),
        fold=bool(random.random() < 0.3),
        min_score=float(random.choice([0.1, 0.3])) if random.random() < 0.3 else None,
        filter=matching,
    )
    return query, chosen


def folded(query: Query, ranked: list[int]) -> list[tuple[int, list[int]]]:
    """Each image that is a hit, and its copies, as the space of the first aspect shows them."""
    if not query.fold:
        return [(number, []) for number in ranked]
    first = min(query.aspects, key=lambda one: all(part.weight * one.weight < 0 for part in one.parts))
    space = str(first.space)
    groups: list[tuple[int, list[int]]] = []
    for number in ranked:
        for head, copies in groups:
            near = HASHES[head] == HASHES[number] and DATA[space][head] @ DATA[space][number] >= 0.98
            if near and HELD[space][head] and HELD[space][number]:
                copies.append(number)
                break
        else:
            groups.append((number, []))
    return groups


def check(query: Query, chosen: str | None, hits: list[Hit]) -> None:
    scores = by_best(query) if query.combine == "best" else by_sum(query)
    excluded = {part.id for aspect in query.aspects for part in aspect.parts}
    hidden = np.array([name in excluded for name in IDS])
    scores[hidden | (False if chosen is None else ~PASS[chosen])] = -np.inf
    least = -np.inf if query.min_score is None else query.min_score
    ranked = sorted(np.flatnonzero(np.isfinite(scores) & (scores >= least)).tolist(), key=lambda n: -scores[n])
    groups = folded(query, ranked)[query.offset : query.offset + query.k]
    np.testing.assert_allclose([hit.score for hit in hits], [scores[first] for first, _ in groups], atol=NEAR)
    for hit, (first, copies) in zip(hits, groups, strict=True):
        own = NUMBERS[hit.id]
        assert own == first or abs(scores[own] - scores[first]) < NEAR
        assert abs(scores[own] - hit.score) < NEAR
        assert own != first or sorted(hit.copies) == sorted(IDS[copy] for copy in copies)
        assert sum(reason.share for reason in hit.why) == pytest.approx(hit.score, abs=NEAR)
        assert [reason.space for reason in hit.why] == [aspect.space for aspect in query.aspects]


@pytest.mark.slow
def test_2000_generated_queries_agree_with_brute_force(index: Index) -> None:
    for start in range(0, QUERIES, AT_ONCE):
        asked = [generated(number) for number in range(start, start + AT_ONCE)]
        answers = index.search_many([query for query, _ in asked])
        for (query, chosen), hits in zip(asked, answers, strict=True):
            assert isinstance(hits, list), (query, hits)
            check(query, chosen, hits)
