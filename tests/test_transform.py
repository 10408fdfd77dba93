"""Promises of transforms: generation, delta and queries go through the same one; what is stored stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import image_id, new_image, vectors
from numpy.typing import NDArray

from search.errors import GenerationDamaged
from search.filters import parse_filter
from search.generations.generation import load
from search.generations.kinds import KINDS, Kind
from search.generations.policy import Policy
from search.generations.transform import Sample
from search.index import Index
from search.recipe import TransformSpec
from search.types import Query, QueryPart, Space
from search.upkeep.verify import verify
from search.vectors import normalise

MakeIndex = Callable[..., Index]
Vectors = NDArray[np.float32]
DIM = 32
WHITENED = TransformSpec(kind="whitened")
EXACT = Policy()
GRAPH = Policy(
    exact_search_bytes=200 * 4 * DIM // 2,
    exact_filtered_images=20,
    visited_per_candidate=1,
    ef_choices=(600,),
    remeasure_growth=2,
)


@dataclass(frozen=True)
class Whitened:
    """Centres, and projects on half of the dimensions, scaled to the same variance."""

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    kind: str = "whitened"
    copy_cosine: float = 0.98

    @property
    def dim(self) -> int:
        return self.matrix.shape[1]

    def apply(self, given: Vectors) -> Vectors:
        projected = (given.astype(np.float64) - self.mean) @ self.matrix
        projected[(projected == 0).all(axis=1), 0] = 1
        return normalise(projected)

    def to_bytes(self) -> bytes:
        return np.vstack([self.mean, self.matrix.T]).astype("<f8").tobytes()

    @classmethod
    def read(cls, stored_dim: int, content: bytes) -> Whitened:
        rows = np.frombuffer(content, "<f8").reshape(-1, stored_dim)
        return cls(rows[0], rows[1:].T)

    @classmethod
    def fit(cls, space: Space, sample: Sample) -> Whitened:
        stored_dim = space.recipe.dim
        drawn = sample(10_000).astype(np.float64)
        values, directions = np.linalg.eigh(np.cov(drawn.T))
        kept = slice(-(stored_dim // 2), None)
        return cls(drawn.mean(axis=0), directions[:, kept] / np.sqrt(values[kept]))


@pytest.fixture(autouse=True)
def whitening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "whitened", Kind(fit=Whitened.fit, read=Whitened.read))


def skewed(count: int, seed: int = 0) -> Vectors:
    """Vectors in a narrow cone, whose dimensions have very different variances."""
    return normalise(vectors(count, seed=seed) * np.linspace(0.05, 1, DIM) + np.eye(1, DIM))


def brute_force(
    transform: Whitened, data: Vectors, numbers: list[int], query: Vectors, k: int
) -> list[tuple[str, float]]:
    cosines = (transform.apply(data[numbers]) @ transform.apply(query[None])[0]).astype(float)
    order = np.argsort(-cosines, kind="stable")[:k]
    return [(image_id(numbers[place]), pytest.approx(cosines[place], abs=1e-5)) for place in order]


def hits(index: Index, query: Vectors, k: int, even: bool = False) -> list[tuple[str, float]]:
    matching = parse_filter({"label": "even"}) if even else None
    found = index.search(Query(parts=[QueryPart(vector=query)], k=k, filter=matching))
    return [(hit.id, hit.score) for hit in found]


def add(index: Index, data: Vectors, numbers: range) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        for number in numbers:
            transaction.add(new_image(number, data[number]))


@pytest.mark.parametrize("policy", [EXACT, GRAPH], ids=["exact", "graph"])
def test_hits_are_those_of_brute_force_after_the_transform(make_index: MakeIndex, policy: Policy) -> None:
    data, queries = skewed(700), skewed(6, seed=5)
    index = make_index(data[:500], policy=policy, transform=WHITENED)
    structure = index.info().spaces[0].structure
    assert structure["structure"] == ("exact" if policy is EXACT else "hnsw")

    def check(numbers: list[int]) -> None:
        snapshot, _ = index._follower.newest()
        assert snapshot.generation is not None
        transform = snapshot.generation.spaces["layer2"].transform
        assert isinstance(transform, Whitened)
        assert (transform.dim, snapshot.generation.spaces["layer2"].vectors.shape[1]) == (DIM // 2, DIM // 2)
        for query in queries:
            assert hits(index, query, 10) == brute_force(transform, data, numbers, query, 10)
            even = [number for number in numbers if number % 2 == 0]
            assert hits(index, query, 10, even=True) == brute_force(transform, data, even, query, 10)

    stored = [image_id(number) for number in np.argsort(-data[:500] @ queries[0])[:10]]
    assert [name for name, _ in hits(index, queries[0], 10)] != stored, "it changes nothing"
    check(list(range(500)))
    add(index, data, range(500, 600))
    check(list(range(600)))  # delta included
    with index.writer() as writer:
        writer.remove(image_id(number) for number in (3, 4, 520))
    left = sorted(set(range(600)) - {3, 4, 520})
    check(left)
    assert index.publish() == "000002"
    index.refresh()
    assert index.info().delta == 0
    check(left)
    first, second = (
        load(index.path / "generations" / name).spaces["layer2"].transform for name in ("000001", "000002")
    )
    assert first.to_bytes() == second.to_bytes(), "a generation that goes on keeps the transform"
    assert verify(index).findings == []
    index.publish(anew=True)
    index.refresh()
    check(left)
    assert load(index.path / "generations" / "000003").spaces["layer2"].transform.to_bytes() != first.to_bytes()
    add(index, data, range(600, 700))
    check(sorted({*left, *range(600, 700)}))
    space = index.space()
    assert index.vector(image_id(7), space).tolist() == data[7].tolist(), "what is stored stays as it was"
    assert verify(index).findings == []


def test_a_folded_search_compares_transformed_vectors(make_index: MakeIndex) -> None:
    data = skewed(300)
    index = make_index(data[:250], transform=WHITENED)
    add(index, data, range(250, 300))
    plain = index.search(Query(parts=[QueryPart(vector=data[5])], k=20))
    assert index.search(Query(parts=[QueryPart(vector=data[5])], k=20, fold=True)) == plain


@pytest.mark.parametrize("damage", ["changed", "short", "gone", "unknown"])
def test_a_generation_whose_transform_is_damaged_is_not_searched(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    data = skewed(100)
    index = make_index(data, transform=WHITENED)
    path: Path = index.path / "generations" / "000001" / "layer2.transform"
    content = path.read_bytes()
    if damage == "unknown":
        monkeypatch.delitem(KINDS, "whitened")
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-8] + bytes(8) if damage == "changed" else content[:-8])
    with pytest.raises(GenerationDamaged):
        load(path.parent)
    with Index.open(index.path) as opened:
        assert [name for name, _ in hits(opened, data[5], 1)] == [image_id(5)]
        assert opened.info().generation is None
