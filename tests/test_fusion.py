"""One ranking of what words find in the catalog and what vectors find, against a ranking by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import image_id, new_image, vectors

from search.catalog.words import shares
from search.errors import QueryInvalid
from search.filters import parse_filter
from search.index import Index
from search.query.fusion import DEPTH, LEAST, MEANING_SHARE, RANK_OFFSET, WORDS_SHARE, ByWords, fused
from search.types import Aspect, Query, QueryPart

COLOURS = ("red", "green", "blue", "black")
COUNT = 60


@pytest.fixture
def index(make_index: Callable[..., Index]) -> Index:
    """Images of random vectors, each with a colour as its label, of which every third is striped too."""
    made = make_index(vectors(COUNT))
    with made.writer() as writer, writer.transaction() as transaction:
        for number in range(COUNT):
            labels = [COLOURS[number % 4], *(["striped"] if number % 3 == 0 else [])]
            transaction.annotate(image_id(number), labels=labels, metadata={"year": str(2000 + number % 2)})
    made.refresh()
    return made


def by_hand(index: Index, query: Query) -> list[tuple[str, float]]:
    """The fused ranking: every image's rank by words and by its cosine, looked up one by one."""
    assert query.words is not None
    matching = None if query.filter is None else index.catalog.matching(query.filter)
    names = {rowid: name for name, rowid in index.catalog.rowids({image_id(n) for n in range(COUNT)}).items()}
    scores = dict.fromkeys(names.values(), 0.0)
    weight = WORDS_SHARE * query.words_share
    found = index.catalog.find_words(query.words, DEPTH, matching)
    shares = index.catalog.words_shares(query.words, [rowid for rowid, _ in found])
    rank, before = 0, None
    for place, ((rowid, score), share) in enumerate(zip(found, shares, strict=True), 1):
        rank, before = (rank if score == before else place), score
        scores[names[rowid]] += weight * (LEAST + (1 - LEAST) * float(share)) / (RANK_OFFSET + rank)
    if query.parts:
        cosines = {hit.id: hit.score for hit in index.search(replace(query, words=None, k=COUNT, offset=0))}
        for name, cosine in cosines.items():
            rank = 1 + sum(other > cosine for other in cosines.values())
            scores[name] += (1 - weight) / (RANK_OFFSET + rank)
    there = {*names.values()} if query.parts else {name for name, score in scores.items() if score}
    ranked = [(name, scores[name] * (RANK_OFFSET + 1)) for name in there if matching is None or scores[name]]
    return sorted(ranked, key=lambda one: (-round(one[1], 6), one[0]))


def test_generated_queries_are_answered_as_by_hand(index: Index) -> None:
    generator = np.random.default_rng(0)
    for number in range(200):
        words = " ".join(generator.choice([*COLOURS, "striped", "2001", "nothing"], size=generator.integers(1, 4)))
        query = Query(
            parts=[QueryPart(vector=vectors(1, seed=number)[0])] if number % 4 else [],
            words=words,
            words_share=float(generator.choice([1.0, 0.5, 0.0])) if number % 4 else 1.0,
            k=int(generator.integers(1, COUNT)),
            offset=int(generator.integers(0, 10)),
            filter=parse_filter({"label": "striped"}) if number % 5 == 0 else None,
        )
        expected = by_hand(index, query)[query.offset : query.offset + query.k]
        found = [(hit.id, hit.score) for hit in index.search(query)]
        assert [name for name, _ in found] == [name for name, _ in expected], query
        np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-6)


def by_words(rowids: list[int], scores: list[float] | None = None, share: float = 1.0) -> ByWords:
    """What words find: rowids, best first, each of which has so much of the words."""
    return ByWords(
        rowids=np.array(rowids, np.int64),
        scores=np.array(range(len(rowids), 0, -1) if scores is None else scores, np.float64),
        shares=np.full(len(rowids), share, np.float32),
    )


def test_what_is_first_in_both_has_the_score_one() -> None:
    found, scores = fused(np.array([5, 3]), np.array([0.9, 0.8], np.float32), by_words([5, 7]))
    assert found.tolist() == [5, 7, 3]
    assert scores[0] == pytest.approx(1)


def test_letters_meaning_and_pictures_share_the_weight() -> None:
    told = replace(by_words([5, 7]), meant=np.array([5, 9, 8]), cosines=np.array([0.8, 0.3, 0.3], np.float32))
    found, scores = fused(np.array([5, 3]), np.array([0.9, 0.8], np.float32), told)
    second, meaning = (RANK_OFFSET + 1) / (RANK_OFFSET + 2), WORDS_SHARE * MEANING_SHARE
    expected = {5: 1.0, 7: (WORDS_SHARE - meaning) * second, 9: meaning * second, 8: meaning * second}
    expected[3] = (1 - WORDS_SHARE) * second
    assert dict(zip(found.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)
    alone, _ = fused(np.array([5, 3]), np.array([0.9, 0.8], np.float32), told.without([5, 7]))
    assert {*alone.tolist()} == {3, 5, 8, 9}


def test_equal_cosines_have_equal_ranks() -> None:
    _, scores = fused(np.array([1, 2, 3]), np.array([0.9, 0.9, 0.5], np.float32), by_words([]))
    assert scores[0] == scores[1] > scores[2]


def test_words_with_a_filter_find_only_what_it_lets_through(index: Index) -> None:
    hits = index.search(Query(words="red", filter=parse_filter({"label": "striped"}), k=COUNT))
    assert hits
    assert all({"red", "striped"} <= {*hit.labels} for hit in hits)


def test_words_that_are_nowhere_find_nothing(index: Index) -> None:
    assert list(index.search(Query(words="unheard-of", k=5))) == []


def test_folding_works_with_words_and_a_least_score_is_refused(index: Index) -> None:
    query = Query(words="red", parts=[QueryPart(vector=vectors(1)[0])], k=10)
    folded = index.search(replace(query, fold=True))
    assert len(folded) == 10
    with pytest.raises(QueryInvalid, match="words have ranks"):
        index.search(replace(query, min_score=0.5))


@pytest.mark.parametrize("words", ["", "  "])
def test_empty_words_are_refused(index: Index, words: str) -> None:
    with pytest.raises(QueryInvalid, match="empty"):
        index.search(Query(words=words))
    with pytest.raises(QueryInvalid, match="parts, or words"):
        index.search(Query())


def test_an_image_without_a_vector_yet_is_found_by_words_and_folded_with_none(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        late = replace(new_image(COUNT, vectors(1, seed=9)[0]), labels=("teal",))
        transaction.add(late)
    for fold in (False, True):
        hits = index.search(Query(words="teal", parts=[QueryPart(vector=vectors(1)[0])], k=3, fold=fold))
        assert hits[0].id == late.id


def test_an_aspect_without_parts_is_refused(index: Index) -> None:
    with pytest.raises(QueryInvalid, match="no parts"):
        index.search(Query(aspects=[Aspect(parts=())], words="red"))


def test_small_words_alone_decide_nothing(index: Index) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        transaction.annotate(image_id(1), labels=["of a"])
    found = list(index.search(Query(words="a striped of", k=COUNT)))
    assert found[-1].id == image_id(1)
    assert all("striped" in hit.labels for hit in found[:-1])


def test_the_beginning_of_another_word_is_not_the_word() -> None:
    assert shares("car", ["milk carton", "two cars", "car 01", "card", "wagon"]) == [0, 1, 1, 0, 0]
    assert shares("box", ["boxes", "boxing"]) == [1, 0]
    assert shares("penguin", ["penguins"]) == [1]
    (found, _) = fused(np.array([2]), np.ones(1, np.float32), by_words([1], share=0))
    assert found[0] == 2


def test_small_words_do_not_come_before_what_vectors_find() -> None:
    found = shares("the flag of a country", ["mug of 01", "flag spain"])
    assert found == [0, pytest.approx(4 / 7.5)]
    assert shares("the letter d", ["d 12", "letters"]) == [pytest.approx(1 / 7), pytest.approx(6 / 7)]
    assert shares("of a", ["mug of 01"]) == [1]
    for share, first in zip(found, (1, 2), strict=True):
        assert fused(np.array([1]), np.ones(1, np.float32), by_words([2], share=share))[0][0] == first


def test_an_image_that_has_all_words_comes_before_what_vectors_find() -> None:
    seen = np.arange(100, 200)
    found, _ = fused(seen, np.linspace(0.9, 0.1, len(seen)).astype(np.float32), by_words([*range(20)]))
    assert found[:20].tolist() == [*range(20)]


def test_of_images_that_words_do_not_tell_apart_vectors_choose() -> None:
    """A folder of `photo_1.png` to `photo_99.png`, asked for `a photo of a dog`."""
    found, _ = fused(
        np.array([7, 3, 900]), np.array([0.9, 0.8, 0.7], np.float32), by_words([*range(1, 100)], scores=[2.0] * 99)
    )
    assert found[:2].tolist() == [7, 3]
