"""Promises of the cut `auto` about edited copies: what it keeps for their perceptual hash, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from conftest import image_id, new_image, vectors

from search.filters import parse_filter
from search.generations.false_matches import auto_rate
from search.index import Index
from search.query.near_copies import MAX_BITS
from search.types import AUTO, Hit, Query, QueryPart

COUNT = 400
HASH = 0x0123_4567_89AB_CDEF
NEAR, FAR = HASH ^ (2**MAX_BITS - 1), HASH ^ (2 ** (MAX_BITS + 1) - 1)
VECTORS = vectors(COUNT)


@pytest.fixture
def hashed(make_index: Callable[..., Index]) -> Callable[[Mapping[int, int | None]], Index]:
    """Makes an index whose images have these perceptual hashes, by their numbers; others have none that is near."""

    def make(hashes: Mapping[int, int | None]) -> Index:
        index = make_index(VECTORS[:0], publish=False)
        with index.writer() as writer:
            with writer.transaction() as transaction:
                for number, vector in enumerate(VECTORS):
                    image = new_image(number, vector)
                    phash = hashes.get(number, ~HASH)
                    transaction.add(replace(image, facts=replace(image.facts, phash=phash)))
            index.publish()
        index.refresh()
        return index

    return make


def ranked() -> list[int]:
    """The numbers of the images from the nearest to image 0 on, without itself."""
    return [number for number in (-VECTORS @ VECTORS[0]).argsort().tolist() if number != 0]


def asked(**options: Any) -> Query:
    return Query(parts=[QueryPart(vector=VECTORS[0], phash=HASH)], k=COUNT, **options)


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def below_the_cut(index: Index) -> list[str]:
    """Ids of the images that `auto` leaves out by their scores, best first."""
    return [hit.id for hit in index.search(asked()) if hit.fmr is None or hit.fmr > auto_rate(COUNT)]


def test_the_cut_keeps_a_near_copy_that_scores_too_low(hashed: Callable[..., Index]) -> None:
    copy, other = ranked()[60], ranked()[61]
    index = hashed({0: HASH, copy: NEAR, other: FAR})
    assert {image_id(copy), image_id(other)} <= {*below_the_cut(index)}
    found = index.search(asked(max_fmr=AUTO))
    plain = index.search(asked(max_fmr=auto_rate(COUNT)))
    assert found[:-1] == plain, "a number is a cut by nothing else"
    assert found[-1].id == image_id(copy)
    assert found[-1].fmr is not None
    assert found[-1].fmr > auto_rate(COUNT), "it says what it is"


def test_an_image_of_the_index_asks_with_its_own_hash(hashed: Callable[..., Index]) -> None:
    copy = ranked()[60]
    index = hashed({0: HASH, copy: NEAR})
    found = index.search(Query(parts=[QueryPart(id=image_id(0))], k=COUNT, max_fmr=AUTO))
    assert ids(found) == ids(index.search(asked(max_fmr=AUTO)))[1:]
    assert found[-1].id == image_id(copy)


def test_without_a_hash_only_scores_count(hashed: Callable[..., Index]) -> None:
    index = hashed({0: None, ranked()[60]: NEAR, ranked()[61]: None})
    plain = index.search(asked(max_fmr=auto_rate(COUNT)))
    assert index.search(Query(parts=[QueryPart(vector=VECTORS[0])], k=COUNT, max_fmr=AUTO)) == plain
    assert index.search(Query(parts=[QueryPart(id=image_id(0))], k=COUNT, max_fmr=AUTO)) == plain[1:]


def test_only_the_nearest_are_looked_at(hashed: Callable[..., Index], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.query.near_copies.NEAREST", 100)
    order = ranked()
    inside, outside = order[98], order[99]  # the image itself is the nearest
    index = hashed({0: HASH, inside: NEAR, outside: NEAR})
    found = ids(index.search(asked(max_fmr=AUTO)))
    assert image_id(inside) in found
    assert image_id(outside) not in found


@pytest.mark.parametrize("fold", [False, True])
def test_pages_are_parts_of_one_list(hashed: Callable[..., Index], *, fold: bool) -> None:
    order = ranked()
    index = hashed({0: HASH} | {order[place]: NEAR for place in (3, 30, 31, 60, 90)})
    whole = index.search(asked(max_fmr=AUTO, fold=fold))
    assert {image_id(order[place]) for place in (3, 30, 31, 60, 90)} <= {*ids(whole)}
    for size in (1, 3, 7, len(whole)):
        pages = [index.search(replace(asked(max_fmr=AUTO, fold=fold), k=size, offset=at)) for at in range(0, 60, size)]
        assert [hit for page in pages for hit in page] == whole


def test_the_least_score_and_a_filter_hold_for_near_copies(hashed: Callable[..., Index]) -> None:
    copy = ranked()[60]
    index = hashed({0: HASH, copy: NEAR})
    score = index.search(asked(max_fmr=AUTO))[-1].score
    assert image_id(copy) in ids(index.search(asked(max_fmr=AUTO, min_score=score)))
    assert image_id(copy) not in ids(index.search(asked(max_fmr=AUTO, min_score=score + 0.01)))
    only = index.search(asked(max_fmr=AUTO, filter=parse_filter({"width": copy})))
    assert ids(only) == [image_id(copy)]
    others = index.search(asked(max_fmr=AUTO, filter=parse_filter({"not": {"width": copy}})))
    assert image_id(copy) not in ids(others)


def test_a_near_copy_that_was_removed_is_no_hit(hashed: Callable[..., Index]) -> None:
    copy = ranked()[60]
    index = hashed({0: HASH, copy: NEAR})
    with index.writer() as writer:
        writer.remove([image_id(copy)])
    assert image_id(copy) not in ids(index.search(asked(max_fmr=AUTO)))


def test_one_search_for_many_answers_as_each_alone(hashed: Callable[..., Index]) -> None:
    order = ranked()
    index = hashed({0: HASH, order[60]: NEAR, order[20]: HASH})
    queries = [
        asked(max_fmr=AUTO),
        asked(max_fmr=0.01),
        replace(asked(max_fmr=AUTO), k=3),
        Query(parts=[QueryPart(id=image_id(order[20]))], k=50, max_fmr=AUTO),
        Query(parts=[QueryPart(vector=VECTORS[5])], max_fmr=AUTO),
    ]
    assert index.search_many(queries) == [index.search(query) for query in queries]


def test_the_best_of_several_pictures_has_no_hash(hashed: Callable[..., Index]) -> None:
    index = hashed({0: HASH, ranked()[60]: NEAR})
    parts = [QueryPart(id=image_id(0)), QueryPart(id=image_id(7))]
    several = Query(parts=parts, combine="best", k=COUNT)
    assert index.search(replace(several, max_fmr=AUTO)) == index.search(replace(several, max_fmr=auto_rate(COUNT)))
