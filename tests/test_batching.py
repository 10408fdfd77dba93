"""Promises of batching and of the precision check, with a deterministic encoder in the model's place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder, HeldEncoder
from numpy.typing import NDArray

from api.serving.batching import Closed, Stage
from indexer.encoders.checked import BF16_SAMPLE_IMAGES, MIN_COSINE, CheckedEncoder
from search.types import Encoding


def image(number: int) -> NDArray[np.uint8]:
    return np.full((32, 32, 3), number, dtype=np.uint8)


@pytest.fixture
def encoder() -> HeldEncoder:
    held = HeldEncoder()
    held.free.clear()
    return held


@pytest.fixture
def stage(encoder: HeldEncoder) -> Iterator[Stage[NDArray[np.uint8], NDArray[np.float32]]]:
    made = Stage("test", lambda pictures: list(encoder.encode(np.stack(pictures))[0]), most=encoder.batch_size)
    yield made
    encoder.free.set()
    made.close()
    assert not any(thread.is_alive() for thread in made._threads)


Made = Stage[NDArray[np.uint8], NDArray[np.float32]]


async def taken(encoder: HeldEncoder) -> None:
    """Wait until the encoder is at work."""
    assert await asyncio.to_thread(encoder.entered.wait, 30)


def test_waiting_images_share_a_forward_pass_and_each_gets_its_own_vector(encoder: HeldEncoder, stage: Made) -> None:
    async def asked() -> list[NDArray[np.float32]]:
        first = asyncio.create_task(stage(image(0)))
        await taken(encoder)  # the first is taken at once: nothing waits for company
        others = [asyncio.create_task(stage(image(number))) for number in range(1, 9)]
        await asyncio.sleep(0)
        encoder.free.set()
        return await asyncio.gather(first, *others)

    for number, vector in enumerate(asyncio.run(asked())):
        assert np.array_equal(vector, FakeEncoder().encode(image(number)[None])[0][0])
    assert encoder.batches == [1, 4, 4]


def test_one_poisoned_image_does_not_fail_its_neighbours(encoder: HeldEncoder, stage: Made) -> None:
    async def asked() -> list[Any]:
        first = asyncio.create_task(stage(image(0)))
        await taken(encoder)
        others = [asyncio.create_task(stage(image(number))) for number in (1, 255, 2)]
        await asyncio.sleep(0)
        encoder.free.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, one, poisoned, two = asyncio.run(asked())
    assert isinstance(poisoned, RuntimeError)
    for number, vector in ((0, first), (1, one), (2, two)):
        assert np.array_equal(vector, FakeEncoder().encode(image(number)[None])[0][0])


def test_who_gives_up_leaves_the_queue_and_costs_no_forward_pass(encoder: HeldEncoder, stage: Made) -> None:
    async def asked() -> None:
        first = asyncio.create_task(stage(image(0)))
        await taken(encoder)
        given_up, late = asyncio.create_task(stage(image(1))), asyncio.create_task(stage(image(2)))
        await asyncio.sleep(0)
        given_up.cancel()
        first.cancel()  # it is being encoded: nobody waits for what comes of it
        await asyncio.sleep(0)
        encoder.free.set()
        assert np.array_equal(await late, FakeEncoder().encode(image(2)[None])[0][0])

    asyncio.run(asked())
    assert encoder.batches == [1, 1]


def test_a_stage_that_closes_answers_everybody_and_takes_no_more(encoder: HeldEncoder, stage: Made) -> None:
    async def asked() -> None:
        waiting = [asyncio.create_task(stage(image(number))) for number in range(6)]
        await taken(encoder)
        encoder.free.set()
        await asyncio.to_thread(stage.close)
        await asyncio.gather(*waiting)
        with pytest.raises(Closed):
            await stage(image(7))

    asyncio.run(asked())


@pytest.fixture
def cores() -> list[HeldEncoder]:
    return [HeldEncoder(), HeldEncoder()]


@pytest.fixture
def wide(encoder: HeldEncoder, cores: list[HeldEncoder]) -> Iterator[Made]:
    def work(one: HeldEncoder) -> Any:
        return lambda pictures: list(one.encode(np.stack(pictures))[0])

    made = Stage("test", work(encoder), most=encoder.batch_size, beside=[work(one) for one in cores], share=3)
    yield made
    for one in (encoder, *cores):
        one.free.set()
    made.close()
    assert not any(thread.is_alive() for thread in made._threads)


def test_what_waits_is_shared_by_cores_side_by_side_and_who_is_alone_has_all_of_them(
    encoder: HeldEncoder, cores: list[HeldEncoder], wide: Made
) -> None:
    for core in cores:
        core.free.clear()

    async def asked() -> list[NDArray[np.float32]]:
        tasks = [asyncio.create_task(wide(image(0)))]
        await taken(encoder)
        tasks += [asyncio.create_task(wide(image(number))) for number in range(1, 7)]
        await asyncio.sleep(0.1)
        assert not any(core.entered.is_set() for core in cores), "beside what has all cores"
        encoder.free.set()
        for core in cores:  # neither waits for the other
            await taken(core)
        assert not tasks[1].done()
        for core in cores:
            core.free.set()
        found = await asyncio.gather(*tasks)
        return [*found, await wide(image(7))]

    for number, vector in enumerate(asyncio.run(asked())):
        assert np.array_equal(vector, FakeEncoder().encode(image(number)[None])[0][0])
    assert encoder.batches == [1, 1]
    assert [core.batches for core in cores] == [[3], [3]]


def test_few_are_shared_evenly(encoder: HeldEncoder, cores: list[HeldEncoder], wide: Made) -> None:
    async def asked() -> None:
        tasks = [asyncio.create_task(wide(image(0)))]
        await taken(encoder)
        for core in cores:
            core.free.clear()
        tasks += [asyncio.create_task(wide(image(number))) for number in range(1, 4)]
        await asyncio.sleep(0)
        encoder.free.set()
        for core in cores:
            await taken(core)
        for core in cores:
            core.free.set()
        await asyncio.gather(*tasks)

    asyncio.run(asked())
    assert sorted(core.batches for core in cores) == [[1], [2]]


def test_a_core_that_fails_tries_each_alone_and_works_on(
    encoder: HeldEncoder, cores: list[HeldEncoder], wide: Made
) -> None:
    async def asked() -> list[Any]:
        first = asyncio.create_task(wide(image(0)))
        await taken(encoder)
        others = [asyncio.create_task(wide(image(number))) for number in (1, 255, 2, 3, 4)]
        await asyncio.sleep(0)
        encoder.free.set()
        return await asyncio.gather(first, *others, wide(image(5)), return_exceptions=True)

    found = asyncio.run(asked())
    assert [isinstance(one, RuntimeError) for one in found] == [False, False, True, False, False, False, False]
    assert cores[0].batches + cores[1].batches
    assert all(thread.is_alive() for thread in wide._threads)


@pytest.mark.parametrize(
    ("noise", "may_fall_back", "used"),
    [(0.001, True, "bf16"), (0.5, True, "fp32"), (0.5, False, "bf16"), (np.inf, True, "fp32")],
)
def test_bf16_is_used_only_where_the_users_images_survive_it(noise: float, may_fall_back: bool, used: str) -> None:
    settled: list[Encoding] = []
    checked = CheckedEncoder(FakeEncoder("bf16", noise), FakeEncoder, settled.append, may_fall_back=may_fall_back)
    pixels = np.stack([image(number) for number in range(BF16_SAMPLE_IMAGES + 3)])
    vectors = checked.encode(pixels)[0]
    checked.encode(pixels)
    assert checked.precision == used
    assert [encoding.precision for encoding in settled] == [used], "settled once"
    check = settled[0].check
    assert check["images"] == BF16_SAMPLE_IMAGES
    assert (check["min_cosine"] >= MIN_COSINE) == (noise < 0.1)
    assert np.array_equal(vectors, FakeEncoder(noise=0.0 if used == "fp32" else noise).encode(pixels)[0])


class Alike(FakeEncoder):
    """Embeddings that have most in common, as those of real images do."""

    def _vector(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        vector = super()._vector(image)
        vector[0] += 30
        return vector


@pytest.mark.parametrize(("whitened", "used"), [((), "bf16"), (("layer2",), "fp32")], ids=["plain", "whitened"])
def test_what_images_have_in_common_hides_no_error_where_it_is_taken_away(whitened: tuple[str, ...], used: str) -> None:
    settled: list[Encoding] = []
    checked = CheckedEncoder(Alike("bf16", noise=0.4), Alike, settled.append, may_fall_back=True, whitened=whitened)
    checked.encode(np.stack([image(number) for number in range(BF16_SAMPLE_IMAGES)]))
    assert settled[0].check["min_cosine"] >= MIN_COSINE
    assert checked.precision == used


def test_fp32_needs_no_check() -> None:
    settled: list[Encoding] = []
    checked = CheckedEncoder(
        FakeEncoder(), lambda: pytest.fail("the reference was loaded"), settled.append, may_fall_back=True
    )
    checked.encode(image(1)[None])
    assert settled == [Encoding(precision="fp32")]


def test_waiting_loops_of_different_threads_each_get_their_own_results(encoder: HeldEncoder, stage: Made) -> None:
    async def wait(number: int) -> NDArray[np.float32]:
        return await stage(image(number))

    expected = [FakeEncoder().encode(image(number)[None])[0][0] for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(asyncio.run, wait(0))]
        assert encoder.entered.wait(30)
        waiting += [pool.submit(asyncio.run, wait(number)) for number in range(1, 6)]
        while len(stage._waiting) < 5:  # they share the next batch
            time.sleep(0.01)
        encoder.free.set()
        for one, vector in zip(waiting, expected, strict=True):
            np.testing.assert_array_equal(one.result(30), vector)
