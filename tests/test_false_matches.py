"""Promises of false-match rates: that they hold on other pairs, what they leave out, and that every answer has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import Server, image_id, new_image, run_cli, start_server, stop_server, vectors, write_photos
from lookalike_client import Client, Part, Unprocessable
from numpy.typing import NDArray

from search.errors import QueryInvalid
from search.generations.background import Background
from search.generations.false_matches import AGAINST, FalseMatches, _curve, auto_rate, measure
from search.index import Index
from search.query.near_copies import MAX_BITS
from search.types import AUTO, Aspect, Query, QueryPart
from search.vectors import normalise

MakeIndex = Callable[..., Index]
Vectors = NDArray[np.float32]
COPY_COSINE = 0.98


def clustered(count: int, seed: int) -> Vectors:
    """Unit vectors around 30 centres: most pairs are far apart, some near, as of images of 30 kinds."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(30, 24))
    return normalise(centres[generator.integers(30, size=count)] + 1.5 * generator.normal(size=(count, 24)))


def rates(data: Vectors, hashes: Sequence[int | None] | None = None) -> FalseMatches | None:
    """As a generation measures them."""
    order = np.random.default_rng(1).permutation(len(data))[:AGAINST]
    known = [None if hashes is None else hashes[number] for number in order.tolist()]
    return measure(data[order], known, background=background(data), min_cosine=COPY_COSINE, pause=lambda: None)


def background(data: Vectors) -> Background:
    """As a generation has it."""
    return Background.of(data, copy_cosine=COPY_COSINE)


def share(data: Vectors, score: float, known: Background) -> float:
    """Which share of all pairs has at least a normalised score."""
    pairs = (data @ data.T - known.shifts(data)[:, None])[np.triu_indices(len(data), k=1)]
    return float((pairs >= score).mean())


@pytest.mark.parametrize("count", [700, 3_000])
def test_a_rate_holds_on_images_that_it_was_not_measured_on(count: int) -> None:
    data = clustered(count, seed=1)
    known = rates(data)
    assert known is not None
    others = clustered(4_000, seed=2)
    for rate in (0.5, 1e-1, 1e-2, 1e-3, 1e-4):
        assert rate / 2 <= share(others, known.score(rate), background(data)) <= 2 * rate, rate


def test_score_and_rate_are_each_others_reverse() -> None:
    known = rates(clustered(500, seed=1))
    assert known is not None
    for rate in (0.3, 1e-2, 3e-4, 1e-6):
        assert known.rate(known.score(rate)) == pytest.approx(rate, rel=1e-6)
        assert known.rate(known.score(rate, views=8), views=8) == pytest.approx(rate, rel=1e-6)
    assert known.rate(-2.0) == 1
    assert known.score(1) == known.scores[0]
    assert known.rate(1.0) == known.rates[-1]
    assert known.score(1e-12) == known.scores[-1]


def test_copies_are_no_pairs_of_different_images() -> None:
    data = clustered(300, seed=1)
    copies = normalise(np.repeat(data, 4, axis=0) + 0.001 * vectors(1_200, dim=24))
    hashes = np.repeat(np.random.default_rng(3).integers(2**62, size=300), 4).tolist()
    alone, among, taken = rates(data), rates(copies, hashes), rates(copies)
    assert alone is not None
    assert among is not None
    assert taken is not None
    assert among.score(1e-3) == pytest.approx(alone.score(1e-3), abs=0.03)
    assert taken.score(1e-3) > among.score(1e-3) + 0.2  # of 1,199 others, three are copies


def test_few_images_and_nothing_but_copies_have_no_rates() -> None:
    assert rates(clustered(40, seed=1)) is None
    assert rates(normalise(np.ones((150, 24)) + 1e-4 * vectors(150, dim=24)), [5] * 150) is None


def test_equal_cosines_have_one_rate_and_none_is_above_them() -> None:
    known = rates(np.eye(110, dtype=np.float32))  # of all pairs the cosine is 0
    assert known is not None
    assert (known.rate(-0.1), known.rate(0.0)) == (1, 1)
    assert known.rate(0.1) < 1e-5
    assert 0 < known.score(1e-3) < 0.1


@pytest.mark.parametrize("count", [2_000, 10_000, 33_333])
@pytest.mark.parametrize("high", [0.3, 0.5, 1.0])
def test_a_curve_falls_whatever_the_pairs_are(count: int, high: float) -> None:
    """A gap before the tail, a spike at one score, everything at the end."""
    generator = np.random.default_rng(count)
    few = count // 100
    for highest in (np.full(few, high), generator.uniform(0.3, high, few), high - 0.1 * generator.random(few) ** 9):
        pairs = np.concatenate([generator.uniform(-0.3, 0.3, count - few), highest])
        known = _curve(np.sort(pairs).astype(np.float32))
        assert known is not None
        assert FalseMatches.from_json(json.loads(json.dumps(known.to_json()))) == known
        assert known.rate(0.0) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    "damage",
    [{"scores": [0.1]}, {"rates": [1, 0.5, 0.5]}, {"rates": [0.9, 0.5, 0.1]}, {"scores": [0.3, 0.2, 0.4]}],
)
def test_rates_that_do_not_fall_are_refused(damage: dict[str, list[float]]) -> None:
    facts = {"scores": [0.1, 0.2, 0.3], "rates": [1, 0.5, 0.1]}
    assert FalseMatches.from_json(facts).rate(0.2) == 0.5
    with pytest.raises(ValueError, match="fall from 1"):
        FalseMatches.from_json(facts | damage)


def test_the_automatic_rate_expects_at_most_twenty_images() -> None:
    assert (auto_rate(100), auto_rate(400), auto_rate(20_000), auto_rate(1_000_000)) == (0.05, 0.05, 1e-3, 2e-5)


def query(number: int, **options: object) -> Query:
    return Query(parts=[QueryPart(id=image_id(number))], **options)


def test_every_hit_says_its_rate_and_a_rate_is_a_cut(make_index: MakeIndex) -> None:
    index = make_index(vectors(400))
    found = index.search(query(3, k=399))
    rates_found = [hit.fmr for hit in found]
    assert all(rate is not None for rate in rates_found)
    assert rates_found == sorted(rates_found)
    cut = index.search(query(3, k=399, max_fmr=0.05))
    assert 4 < len(cut) < 60
    assert cut == [hit for hit in found if hit.fmr is not None and hit.fmr <= 0.05]
    assert index.search(query(3, k=399, max_fmr=1)) == found
    assert index.search(query(3, k=399, max_fmr=0.05, min_score=0.99)) == []
    folded = index.search(query(3, k=399, max_fmr=0.05, fold=True))
    assert [hit.fmr for hit in folded] == [hit.fmr for hit in cut]


def test_a_search_with_a_filter_says_that_hits_may_be_left_out(make_index: MakeIndex) -> None:
    asked = [
        "search",
        "--index",
        make_index(vectors(400)).path,
        "--id",
        image_id(3),
        "--filter",
        "width>=1",
        "-k",
        "99",
    ]
    told = run_cli(*asked)
    assert len(told.stdout.splitlines()) < 60
    assert "Matching images whose score random ones reach too often, if any, are left out." in told.stderr
    assert "left out" not in run_cli(*asked, "--max-fmr", "1").stderr


def test_a_picture_in_several_orientations_has_the_sum_of_their_rates(make_index: MakeIndex) -> None:
    index = make_index(vectors(400))
    one, views = vectors(1, seed=5), np.repeat(vectors(1, seed=5), 8, axis=0)
    alone = index.search(Query(parts=[QueryPart(vector=one[0])], k=5))
    turned = index.search(Query(parts=[QueryPart(vector=views)], k=5))
    assert [hit.score for hit in turned] == pytest.approx([hit.score for hit in alone], abs=1e-6)
    for hit, other in zip(turned, alone, strict=True):
        assert hit.fmr is not None
        assert other.fmr is not None
        assert hit.fmr == pytest.approx(min(1, 8 * other.fmr), rel=0.01)


def test_a_mixed_query_has_no_rate(make_index: MakeIndex) -> None:
    index = make_index(vectors(400))
    one, two = QueryPart(id=image_id(1)), QueryPart(id=image_id(2))
    mixed = [
        Query(parts=[one, two]),
        Query(parts=[replace(one, weight=-1)]),
        Query(aspects=[Aspect(parts=[one]), Aspect(parts=[two])]),
        Query(aspects=[Aspect(parts=[one], weight=-1)]),
    ]
    for asked in mixed:
        found = index.search(asked)
        assert len(found) == 10
        assert {hit.fmr for hit in found} == {None}
        assert index.search(replace(asked, max_fmr=AUTO)) == found
        with pytest.raises(QueryInvalid, match="one image"):
            index.search(replace(asked, max_fmr=0.1))


def test_few_images_have_no_rate_and_are_not_cut(make_index: MakeIndex) -> None:
    index = make_index(vectors(12))
    found = index.search(query(1, max_fmr=AUTO))
    assert len(found) == 10
    assert {hit.fmr for hit in found} == {None}
    with pytest.raises(QueryInvalid, match="at least 100 different images"):
        index.search(query(1, max_fmr=0.1))


@pytest.mark.parametrize("wrong", [0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(make_index: MakeIndex, wrong: float) -> None:
    with pytest.raises(QueryInvalid, match="max_fmr"):
        make_index(vectors(110)).search(query(1, max_fmr=wrong))


def _manifest(index: Index) -> dict[str, object]:
    (newest,) = sorted((index.path / "generations").iterdir())[-1:]
    facts: dict[str, object] = json.loads((newest / "manifest.json").read_text())["spaces"]["layer2"]
    return facts


def test_a_limit_of_one_is_none_even_where_no_rate_is_known(make_index: MakeIndex) -> None:
    index = make_index(vectors(12))
    assert index.search(query(1, max_fmr=1)) == index.search(query(1))


def test_rates_change_with_a_generation_that_has_grown_by_a_quarter(make_index: MakeIndex) -> None:
    index = make_index(vectors(100))
    before = _manifest(index)["fmr"]

    def grow(first: int, count: int) -> None:
        with index.writer() as writer, writer.transaction() as transaction:
            for number in range(first, first + count):
                transaction.add(new_image(number, vectors(1, seed=number)[0]))

    grow(100, 20)
    scored = index.search(query(3))
    assert not index.unpublished()
    with index.writer():
        index.publish()
    assert _manifest(index)["fmr"] == before
    index.refresh()
    assert index.search(query(3)) == scored
    grow(120, 10)
    assert index.unpublished()
    with index.writer():
        index.publish()
    assert _manifest(index)["fmr"] != before
    index.refresh()
    assert not index.unpublished()


def test_images_that_are_all_alike_are_measured_once(make_index: MakeIndex) -> None:
    index = make_index(np.repeat(vectors(1), 120, axis=0))
    assert _manifest(index)["fmr"] == {"images": 120}
    assert not index.unpublished()


def test_a_generation_of_an_older_version_gets_its_rates_once(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("search.generations.space_draft.must_measure", lambda *_: False)
        index = make_index(vectors(200), fresh=True)
    assert _manifest(index)["fmr"] == {}
    assert index.unpublished()
    before = index.info().current
    with index.writer():
        assert index.publish() != before
    index.refresh()
    assert not index.unpublished()
    assert index.search(query(1))[0].fmr is not None
    with index.writer():
        assert index.publish() == index.info().current


def test_images_that_were_removed_are_not_measured(make_index: MakeIndex) -> None:
    """Fifty pictures were saved again, and what they replace was removed: those pairs are copies, whoever is left."""
    data = clustered(300, seed=1)
    hashes = np.random.default_rng(3).integers(2**62, size=300).tolist()
    index = make_index(data[:0], publish=False)

    def add(first: int, block: Vectors, known: Sequence[int]) -> None:
        with index.writer() as writer, writer.transaction() as transaction:
            for number, (vector, phash) in enumerate(zip(block, known, strict=True), start=first):
                image = new_image(number, vector)
                transaction.add(replace(image, facts=replace(image.facts, phash=phash)))

    add(0, data, hashes)
    with index.writer():
        index.publish()
    add(300, normalise(data[:50] + 1e-4 * vectors(50, dim=24)), hashes[:50])
    add(350, clustered(60, seed=4), np.random.default_rng(5).integers(2**62, size=60).tolist())
    with index.writer() as writer:
        writer.remove([image_id(number) for number in range(50)])
        index.publish()
    later = FalseMatches.from_json(_manifest(index)["fmr"])
    with index.writer():
        index.publish(anew=True)
    alone = FalseMatches.from_json(_manifest(index)["fmr"])
    assert later.score(1e-3) == pytest.approx(alone.score(1e-3), abs=0.02)


def hashes_of(path: Path) -> dict[str, int]:
    """The perceptual hashes of an index's images by their ids."""
    with Index.open(path) as index:
        records, _ = index.catalog.page(0, 1_000)
    return {record.id: record.facts.phash or 0 for record in records}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    """A server over more pictures than rates need."""
    base = tmp_path_factory.mktemp("rates")
    write_photos(base / "photos", variants=range(8))
    run_cli("build", base / "photos", "--index", base / "rates.index", "--model", checkpoint)
    process, url = start_server(base / "rates.index")
    yield Server(url=url, photos=base / "photos", queries=base / "photos", index=base / "rates.index")
    assert stop_server(process) == 0


def test_all_doors_have_rates_and_cut_alike(served: Server) -> None:
    picture = next(served.photos.rglob("*.png"))
    with Client(served.url) as client:
        nearest = client.search(picture, k=60)
        rates_found = [hit.fmr for hit in nearest]
        assert rates_found[0] is not None
        assert rates_found[-1] is not None
        assert 0 < rates_found[0] < rates_found[-1] <= 1
        assert nearest.to_json()["hits"][0]["fmr"] == rates_found[0]
        few = [hit for hit in nearest if hit.fmr is not None and hit.fmr <= 0.1]
        assert 0 < len(few) < 60
        assert [*client.search(picture, k=60, max_fmr=0.1)] == few
        (many,) = client.search_many([picture], k=60, max_fmr=0.1)
        assert [*many.result()] == few
        alike = client.similar(few[0].id, k=100)
        close = client.similar(few[0].id, k=100, max_fmr=0.1)
        assert 0 < len(close) < len(alike)
        assert [*close] == [hit for hit in alike if hit.fmr is not None and hit.fmr <= 0.1]
        asked = client.search(parts=[Part(image=picture)], k=60, max_fmr=0.1)
        assert [*asked] == few
        assert [*client.search(picture, k=2, offset=1, max_fmr=0.1)] == few[1:3]
        turned = client.search(picture, k=60, turns=True, max_fmr=0.1)
        assert 0 < len(turned) <= len(few)
        mixed = client.search(parts=[Part(id=few[0].id), Part(id=few[-1].id)], k=60, max_fmr="auto")
        assert {hit.fmr for hit in mixed} == {None}
        auto = client.search(picture, k=60, max_fmr="auto")
        hashes = hashes_of(served.index)
        asked_with = hashes[hashlib.sha256(picture.read_bytes()).hexdigest()]
        near = {name for name, known in hashes.items() if ((known ^ asked_with) & (2**64 - 1)).bit_count() <= MAX_BITS}
        every_hit = client.search(picture, k=1_000)
        assert [*auto] == [hit for hit in every_hit if hit.id in near or (hit.fmr is not None and hit.fmr <= 0.05)]
        assert any(hit.fmr is not None and hit.fmr > 0.05 for hit in auto), "a near copy"
        whole = client.search(picture, k=60, max_fmr="auto", box=(0, 0, 96, 80))
        assert [hit for hit in whole if hit.fmr is not None and hit.fmr > 0.05] == [], "a box has no hash"
        assert 0 < len(auto) < 60
        batch = {"queries": [{"parts": [{"id": few[0].id}], "k": 100, "max_fmr": 0.1}]}
        (answered,) = httpx.post(f"{served.url}/v1/search/batch", json=batch).json()["answers"]
        assert [hit["fmr"] for hit in answered["answer"]["hits"]] == [hit.fmr for hit in close]
        with pytest.raises(Unprocessable, match="more than 0"):
            client.search(picture, max_fmr=0)
    for asked in (["--index", served.index], ["--server", served.url]):
        printed = json.loads(run_cli("search", picture, "-k", "60", *asked, "--json").stdout)["hits"]
        assert [hit["id"] for hit in printed] == [hit.id for hit in auto]
        every = json.loads(run_cli("search", picture, "-k", "60", *asked, "--max-fmr", "1", "--json").stdout)["hits"]
        assert [hit["id"] for hit in every] == [hit.id for hit in nearest]
        cut = run_cli("search", picture, "-k", "60", *asked)
        assert "--max-fmr 1 shows them" in cut.stderr
        assert "--max-fmr" not in run_cli("search", picture, "-k", "60", *asked, "--max-fmr", "1").stderr
        strict = run_cli("search", picture, "-k", "60", *asked, "--max-fmr", "1e-9", "--box", "0,0,20,20")
        assert strict.stdout == "No image matches.\n"
        assert "--max-fmr 1 shows them" in strict.stderr


@pytest.mark.parametrize("wrong", ["often", "-1", "0", "2", "nan"])
def test_a_share_that_is_none_is_refused_on_the_command_line(served: Server, wrong: str) -> None:
    refused = run_cli(
        "search", next(served.photos.rglob("*.png")), "--index", served.index, f"--max-fmr={wrong}", check=2
    )
    assert "--max-fmr" in refused.stderr
    assert "above 0" in refused.stderr


def test_a_server_with_few_images_knows_no_rates(server: Server) -> None:
    with Client(server.url) as client:
        (first, *_) = client.images()
        found = client.similar(first.id)
        assert {hit.fmr for hit in found} == {None}
        assert client.similar(first.id, max_fmr="auto") == found
        with pytest.raises(Unprocessable, match="100 different images"):
            client.similar(first.id, max_fmr=0.01)
        assert client.similar(first.id, max_fmr=1) == found
    refused = httpx.get(f"{server.url}/v1/images/{first.id}/similar", params={"max_fmr": "often"})
    assert (refused.status_code, "`auto`" in refused.json()["detail"]) == (422, True)
