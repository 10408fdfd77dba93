"""Folding: near-equal images are one hit with its copies beneath, on disk, over HTTP, by client and command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Server, draw_picture, image_id, new_image, run_cli, start_server, stop_server, vectors
from lookalike_client import Client
from numpy.typing import NDArray

from search.errors import QueryInvalid
from search.filters import parse_filter
from search.generations.transform import Identity
from search.index import Index
from search.query import fold as folding
from search.types import Query, QueryPart
from search.vectors import normalise

GROUPS, COPIES = 30, 10
COPY_COSINE = Identity(2).copy_cosine
fold = partial(folding.fold, min_cosine=COPY_COSINE)


def near(centres: NDArray[np.float32], count: int, seed: int = 3) -> NDArray[np.float32]:
    """`count` vectors around each centre, in turn, with cosines of more than .99 to one another."""
    noise = np.random.default_rng(seed).normal(size=(count * len(centres), centres.shape[1]))
    return normalise(np.repeat(centres, count, axis=0) + 0.01 * normalise(noise))


def add(index: Index, data: NDArray[np.float32], hashes: Sequence[int | None], first: int = 0) -> None:
    with index.writer() as writer, writer.transaction() as transaction:
        for number, (vector, phash) in enumerate(zip(data, hashes, strict=True), start=first):
            image = new_image(number, vector)
            transaction.add(replace(image, facts=replace(image.facts, phash=phash)))


@pytest.fixture
def library(make_index: Callable[..., Index]) -> Index:
    """Thirty pictures, ten times each: image n is a copy of picture n // 10. A third is newer than the generation."""
    index = make_index(vectors(0), publish=False)
    data = near(vectors(GROUPS, seed=1), COPIES)
    hashes = [picture << 40 for picture in np.random.default_rng(2).integers(0, 2**20, GROUPS).tolist()]
    hashes = [one * 2_654_435_761 % 2**63 for one in hashes]
    each = [hashes[number // COPIES] ^ (number % 2) for number in range(len(data))]
    add(index, data[:200], each[:200])
    with index.writer():
        index.publish()
    add(index, data[200:], each[200:], first=200)
    return index


def picture_of(hit_id: str) -> int:
    return {image_id(number): number // COPIES for number in range(GROUPS * COPIES)}[hit_id]


def query(seed: int = 1, **options: object) -> Query:
    return Query(parts=[QueryPart(vector=vectors(GROUPS, seed=seed)[4])], **options)  # type: ignore[arg-type]


def test_each_hit_is_another_picture_with_its_copies_beneath(library: Index) -> None:
    plain = library.search(query(k=10))
    assert {picture_of(hit.id) for hit in plain} == {4}
    assert all(hit.copies == () and hit.copy_count == 0 for hit in plain)
    hits = library.search(query(k=10, fold=True))
    pictures = [picture_of(hit.id) for hit in hits]
    assert len(set(pictures)) == 10
    assert pictures[0] == 4
    assert hits[0].id == plain[0].id
    assert list(hits[0].copies) == [hit.id for hit in plain[1:]], "best first"
    for hit, picture in zip(hits, pictures, strict=True):
        assert hit.copy_count == len(hit.copies) == COPIES - 1
        assert {picture_of(copy) for copy in hit.copies} == {picture}
        assert hit.id not in hit.copies


def test_there_are_as_many_folded_hits_as_pictures_and_pages_agree(library: Index) -> None:
    everything = library.search(query(k=100, fold=True))
    assert len(everything) == GROUPS
    assert sum(1 + hit.copy_count for hit in everything) == GROUPS * COPIES
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    pages = [hit for offset in range(0, 40, 7) for hit in library.search(query(k=7, offset=offset, fold=True))]
    assert pages == everything


def test_filters_cuts_and_parts_by_id_hold_for_copies_too(library: Index) -> None:
    even = library.search(query(k=100, fold=True, filter=parse_filter({"label": "even"})))
    assert len(even) == GROUPS
    assert {hit.copy_count for hit in even} == {COPIES // 2 - 1}
    (only,) = library.search(query(k=100, fold=True, min_score=0.9))
    assert only.copy_count == COPIES - 1
    asked = image_id(47)
    similar = library.search(Query(parts=[QueryPart(id=asked)], k=3, fold=True))
    assert picture_of(similar[0].id) == 4
    assert similar[0].copy_count == COPIES - 2
    assert asked not in (similar[0].id, *similar[0].copies)


def test_removed_copies_are_no_copies_any_more(library: Index) -> None:
    gone = library.search(query(k=1, fold=True))[0]
    with library.writer() as writer:
        writer.remove([gone.id, gone.copies[0]])
    (left,) = library.search(query(k=1, fold=True))
    assert left.id == gone.copies[1]
    assert left.copies == gone.copies[2:]


def test_views_are_folded_by_their_best_score(library: Index) -> None:
    views = vectors(GROUPS, seed=1)[[4, 9]]
    hits = library.search(Query(parts=[QueryPart(vector=views)], k=4, fold=True))
    assert {picture_of(hit.id) for hit in hits[:2]} == {4, 9}
    assert len({picture_of(hit.id) for hit in hits}) == 4


def test_folds_have_no_chains_and_need_both_cosine_and_hash() -> None:
    step = np.arccos(COPY_COSINE) * 0.9
    chain = np.array([[np.cos(step * number), np.sin(step * number)] for number in range(4)], dtype=np.float32)
    assert fold(chain, [7] * 4, 9) == [[0, 1], [2, 3]]
    assert fold(chain[:2], [7, ~7], 9) == [[0], [1]], "other hashes"
    assert fold(chain[:2], [0, 2**16 - 1], 9) == [[0, 1]]
    assert fold(chain[:2], [0, 2**17 - 1], 9) == [[0], [1]]
    assert fold(chain[:2], [-1, -2], 9) == [[0, 1]]
    assert fold(chain[:2], [None, 7], 9) == fold(chain[:2], [7, None], 9) == [[0], [1]], "of which nothing is known"
    assert fold(chain, [7] * 4, 1) == [[0, 1]]
    assert fold(chain[:0], [], 5) == []


def test_what_a_folded_search_looks_through_is_bounded(library: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.query.searcher.MAX_FOLD_CANDIDATES", 25)
    hits = library.search(query(k=10, fold=True))
    assert len(hits) == 3
    assert sum(1 + hit.copy_count for hit in hits) == 25
    monkeypatch.setattr("search.query.searcher.MAX_COPIES", 4)
    first = library.search(query(k=10, fold=True))[0]
    assert (len(first.copies), first.copy_count) == (4, COPIES - 1)
    with pytest.raises(QueryInvalid, match="1,000"):
        library.search(query(k=1_000, offset=1, fold=True))


def test_images_whose_files_are_gone_take_no_candidates_from_a_folded_search(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.query.searcher.MAX_FOLD_CANDIDATES", 60)
    data = near(vectors(1, seed=1), 200)
    index = make_index(data)
    nearest = np.argsort(-(data @ data[0]))
    with index.writer() as writer, writer.transaction() as transaction:
        gone = [new_image(int(number), data[number]).location.path for number in nearest[:150]]
        transaction.mark_missing("/photos", gone, missing=True)
    plain, folded = (index.search(Query(parts=[QueryPart(vector=data[0])], k=8, fold=one)) for one in (False, True))
    assert len(plain) == 8
    assert folded == plain, "images without a perceptual hash are nobody's copies"


def test_an_index_without_images_folds_to_nothing(make_index: Callable[..., Index]) -> None:
    assert make_index(vectors(0)).search(query(fold=True)) == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    """A server over six pictures, saved four times each."""
    base = tmp_path_factory.mktemp("fold")
    (base / "photos").mkdir()
    for colour in ("red", "green", "blue"):
        for shape in ("circle", "stripes"):
            picture = draw_picture(colour, shape, 1)
            picture.save(base / "photos" / f"{colour}-{shape}.png")
            picture.save(base / "photos" / f"{colour}-{shape}.bmp")
            picture.save(base / "photos" / f"{colour}-{shape}.jpg", quality=95)
            picture.save(base / "photos" / f"{colour}-{shape}.webp", lossless=True)
    run_cli("build", base / "photos", "--index", base / "fold.index", "--model", checkpoint)
    draw_picture("red", "circle", 1).save(base / "query.png", optimize=True)
    process, url = start_server(base / "fold.index")
    yield Server(url=url, photos=base / "photos", queries=base, index=base / "fold.index")
    assert stop_server(process) == 0


def test_all_doors_fold_alike(served: Server) -> None:
    query_file = served.queries / "query.png"
    form = {"fold": "true", "k": 6}
    image = {"image": ("q", query_file.read_bytes())}
    hits = httpx.post(f"{served.url}/v1/search/image", files=image, data=form).json()["hits"]
    assert [hit["copy_count"] for hit in hits] == [3] * 6
    assert len({Path(hit["path"]).stem for hit in hits}) == 6
    with Client(served.url) as client:
        found = client.search(query_file, k=6, fold=True)
        assert found.to_json()["hits"] == hits
        assert found[0].copies == tuple(hits[0]["copies"])
        (many,) = client.search_many([query_file], k=6, fold=True)
        assert many.result() == found
        similar = client.similar(found[0].id, k=6, fold=True)
        assert [hit.copy_count for hit in similar] == [2, 3, 3, 3, 3, 3]
        assert client.search(id=found[0].id, k=6, fold=True) == similar
        assert client.search(query_file, k=1)[0].copies == ()
    for door in (["--index", served.index], ["--server", served.url]):
        answer = json.loads(run_cli("search", query_file, "--fold", "-k", 6, "--json", *door).stdout)
        assert [(hit["id"], hit["copies"]) for hit in answer["hits"]] == [(hit["id"], hit["copies"]) for hit in hits]
        assert "(+3 alike)" in run_cli("search", query_file, "--fold", *door).stdout
        assert "alike" not in run_cli("search", query_file, *door).stdout
    batch = {"queries": [{"parts": [{"id": found[0].id}], "k": 6, "fold": True}]}
    answers = httpx.post(f"{served.url}/v1/search/batch", json=batch).json()["answers"]
    assert [hit["id"] for hit in answers[0]["answer"]["hits"]] == [hit.id for hit in similar]
    refused = httpx.post(f"{served.url}/v1/search", json={"parts": [{"id": found[0].id}], "k": 1_001, "fold": True})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-query")
