"""Promises of a group of photos: what is kept is the same photo as each other, and shows most of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from test_photo import framed, on_a_page, scene, small

from analysis.duplicates.agreement import Compared
from analysis.duplicates.candidates import candidate_pairs
from analysis.duplicates.changes import laid
from analysis.duplicates.groups import File
from analysis.duplicates.medoids import around_medoids
from analysis.duplicates.photo import match, photo_groups
from analysis.duplicates.plain import certainty
from analysis.duplicates.reading import Reduced
from analysis.duplicates.small import Place, Small
from search.index import Index
from search.types import ImageFacts, ImageRecord, Location


class Pictures:
    """Pictures by rowid."""

    def __init__(self, *pictures: Image.Image) -> None:
        self._pictures = pictures

    def of(self, rowid: int) -> Small | None:
        return small(self._pictures[rowid])

    def full(self, rowid: int) -> Image.Image | None:
        return self._pictures[rowid]

    def records(self, *taken_at: str | None) -> dict[int, ImageRecord]:
        """The images, with the times at which they were taken."""
        times = [*taken_at, *[None] * len(self._pictures)]
        return {number: record(number, one.size, times[number]) for number, one in enumerate(self._pictures)}


def record(number: int, size: tuple[int, int], taken_at: str | None = None) -> ImageRecord:
    facts = ImageFacts(width=size[0], height=size[1], format="png", bytes=1, taken_at=taken_at)
    return ImageRecord(
        id=f"{number:064x}",
        paths=(f"/photos/{number}.png",),
        path_count=1,
        missing=False,
        facts=facts,
        labels=(),
        metadata={},
    )


def largest(shown: Mapping[int, int]) -> int:
    return max(shown, key=lambda one: (shown[one], -one))


def every_pair(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([(one, other) for one in range(count) for other in range(one + 1, count)], dtype=np.int64)


def test_what_is_kept_is_proved_against_every_member() -> None:
    whole = scene(0)
    left, right = whole.crop((0, 0, 210, 300)), whole.crop((190, 0, 400, 300))
    pictures = Pictures(whole, left, right)
    assert match(small(left), small(right)) is None
    ((kept, members, _),) = photo_groups(pictures.records(), every_pair(3), pictures, largest, {})
    assert (kept, sorted(members)) == (0, [1, 2])
    ((kept, members, _),) = photo_groups(
        pictures.records(), every_pair(3), pictures, lambda shown: 1 if 1 in shown else 0, {}
    )
    assert (kept, sorted(members)) == (1, [0])  # not the other cut, which shares nothing with it


@pytest.mark.parametrize("edit", [framed, on_a_page, lambda image: image.resize((1200, 900))])
@pytest.mark.parametrize("first", [True, False])
def test_no_pixels_of_a_frame_or_of_enlarging_make_a_copy_the_better_one(
    edit: Callable[[Image.Image], Image.Image], first: bool
) -> None:
    pair = [scene(1), edit(scene(1))]
    pictures = Pictures(*pair if first else reversed(pair))
    ((_, _, shown),) = photo_groups(pictures.records(), every_pair(2), pictures, largest, {})
    assert shown[0 if first else 1] == 2


@pytest.mark.parametrize("first", [True, False])
def test_the_whole_is_kept_and_not_an_enlarged_part_of_it(first: bool) -> None:
    pair = [scene(2), scene(2).crop((60, 30, 380, 280)).resize((1280, 1000))]
    pictures = Pictures(*pair if first else reversed(pair))
    ((kept, _, shown),) = photo_groups(pictures.records(), every_pair(2), pictures, largest, {})
    assert kept == (0 if first else 1)
    assert sorted(shown.values()) == [0, 2]


def test_a_sharper_copy_shows_more_than_a_smaller_one() -> None:
    pictures = Pictures(scene(3).resize((200, 150)), scene(3))
    ((kept, _, shown),) = photo_groups(pictures.records(), every_pair(2), pictures, largest, {})
    assert (kept, shown) == (1, {0: 1, 1: 2})


@pytest.mark.parametrize("first", [True, False])
def test_a_soft_photo_is_not_taken_for_its_small_copy_enlarged(first: bool) -> None:
    soft = scene(3).resize((1900, 1425)).filter(ImageFilter.GaussianBlur(2))
    pair = [soft, soft.resize((900, 675))]
    pictures = Pictures(*pair if first else reversed(pair))
    ((kept, _, shown),) = photo_groups(pictures.records(), every_pair(2), pictures, largest, {})
    assert kept == (0 if first else 1)
    assert shown == {kept: 2, 1 - kept: 1}


def test_no_two_times_are_in_one_group() -> None:
    pictures = Pictures(*[scene(0)] * 3)
    images = pictures.records(None, "2026-05-01T10:00:00", "2026-05-01T10:00:03")
    ((kept, members, _),) = photo_groups(images, every_pair(3), pictures, lambda shown: 0, {})
    assert {kept, *members} in ({0, 1}, {0, 2})


def none_surely(_: int, others: Sequence[int]) -> list[float]:
    return [0.0] * len(others)


def test_many_images_are_grouped_in_time_that_grows_with_their_pairs() -> None:
    count = 60_000
    pairs = [(one, one + 1, 0.9) for one in range(0, count, 2)]
    assert len(around_medoids(pairs, none_surely)) == count // 2  # in an hour, if each looked through all others


def test_plain_borders_hide_no_candidate(make_index: Callable[..., Index]) -> None:
    vectors = np.eye(40, 384, dtype=np.float32)  # nothing is near
    index = make_index(vectors)
    rowids = index.searched(index.space())[0].tolist()[20:22]
    squared = ImageOps.pad(scene(0), (500, 500), color="black")
    one, other = small(scene(0)), small(squared)
    assert one.bare_hash is None
    plain = [(rowids[0], whole_hash(scene(0))), (rowids[1], whole_hash(squared))]
    assert [rowids[0], rowids[1]] not in hashed(index, plain)
    assert [rowids[0], rowids[1]] in hashed(index, [*plain, (rowids[1], other.bare_hash or 0)])


def whole_hash(image: Image.Image) -> int:
    from indexer.pictures.facts import perceptual_hash

    return perceptual_hash(image)


def hashed(index: Index, hashes: list[tuple[int, int]]) -> list[list[int]]:
    found: list[list[int]] = candidate_pairs(index, hashes).tolist()
    return found


def file_of(path: Path) -> File:
    import hashlib

    data = path.read_bytes()
    held = record(1, (400, 300))
    facts = path.stat()
    location = Location(root=str(path.parent), path=path.name, mtime_ns=facts.st_mtime_ns, size=facts.st_size)
    image = ImageRecord(
        id=hashlib.sha256(data).hexdigest(),
        paths=held.paths,
        path_count=1,
        missing=False,
        facts=held.facts,
        labels=(),
        metadata={},
    )
    return File(image=image, location=location)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JXL"])
def test_each_kind_that_the_index_reads_is_compared(kind: str, tmp_path: Path) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    path = tmp_path / f"scene.{kind.lower()}"
    scene(0).save(path, kind)
    pictures = Reduced(lambda _: [file_of(path)], lambda *_: None)
    found = pictures.of(1)
    assert found is not None
    assert match(found, small(scene(0))) is not None


def test_a_file_that_has_lost_its_end_is_not_compared(tmp_path: Path) -> None:
    data = io.BytesIO()
    scene(0).save(data, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data.getvalue()[: int(0.85 * len(data.getvalue()))])
    assert Reduced(lambda _: [file_of(path)], lambda *_: None).of(1) is None


@pytest.mark.parametrize(("agree", "proved"), [(179, False), (180, True)])
def test_seven_blocks_of_ten_must_agree_in_a_plain_drawing(agree: int, proved: bool) -> None:
    flat = small(Image.new("RGB", (300, 300), "white"))  # no corners
    place = Place(whole=flat, part=flat, turn=0, matrix=np.eye(2, 3), score=1.0)
    everywhere, agrees = np.ones((16, 16), dtype=np.bool_), np.arange(256).reshape(16, 16) < agree
    colours, levels = np.zeros((16, 16, 3)), np.zeros((16, 16), dtype=np.float32)
    blocks = Compared(
        correlation=levels,
        shown=everywhere,
        agrees=agrees,
        added=~everywhere,
        lost=~everywhere,
        weights=levels,
        colours=colours,
        other_colours=colours,
        inside=everywhere,
    )
    assert (certainty(place, blocks, laid(place)) > 0) is proved
