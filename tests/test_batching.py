"""Promises of batching and of the precision check, with a deterministic encoder in the model's place."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from conftest import FakeEncoder
from numpy.typing import NDArray

from api.batching import Batcher, QueueFull
from indexer.precision import MIN_COSINE, SAMPLE, CheckedEncoder
from search.types import Encoding


def image(number: int) -> NDArray[np.uint8]:
    return np.full((32, 32, 3), number, dtype=np.uint8)


class HeldEncoder(FakeEncoder):
    """Waits in each batch until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def encode(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """As FakeEncoder, later."""
        self.entered.set()
        assert self.let_go.wait(30)
        return super().encode(pixels)


def test_waiting_images_share_a_forward_pass_and_each_gets_its_own_vector() -> None:
    encoder = HeldEncoder()
    batcher = Batcher(encoder, max_waiting=64)
    futures = [batcher.submit(image(0))]
    assert encoder.entered.wait(30)  # the first is taken at once: nothing waits for company
    futures += [batcher.submit(image(number)) for number in range(1, 9)]
    encoder.let_go.set()
    for number, future in enumerate(futures):
        vector = future.result(30)[0]
        assert np.array_equal(vector, FakeEncoder().encode(image(number)[None])[0][0])
        assert vector.base is None, "it keeps its whole batch in memory"
    batcher.close()
    assert encoder.batches == [1, 4, 4]


def test_one_poisoned_image_does_not_fail_its_neighbours() -> None:
    encoder = HeldEncoder()
    batcher = Batcher(encoder, max_waiting=64)
    first = batcher.submit(image(0))
    assert encoder.entered.wait(30)
    others = [batcher.submit(image(number)) for number in (1, 255, 2)]
    encoder.let_go.set()
    assert first.result(30)
    assert others[0].result(30)
    assert others[2].result(30)
    with pytest.raises(RuntimeError, match="poisoned"):
        others[1].result(30)
    batcher.close()


def test_a_full_queue_refuses_at_once_and_closing_answers_everybody() -> None:
    encoder = HeldEncoder()
    batcher = Batcher(encoder, max_waiting=3)
    futures: list[Future[Any]] = [batcher.submit(image(0))]
    assert encoder.entered.wait(30)
    futures += [batcher.submit(image(number)) for number in (1, 2, 3)]
    with pytest.raises(QueueFull):
        batcher.submit(image(4))
    encoder.let_go.set()
    batcher.close()
    assert all(future.result(0) for future in futures)
    assert not batcher.alive


def test_a_cancelled_image_costs_no_forward_pass() -> None:
    encoder = HeldEncoder()
    batcher = Batcher(encoder, max_waiting=8)
    batcher.submit(image(0))
    assert encoder.entered.wait(30)
    assert batcher.submit(image(1)).cancel()
    encoder.let_go.set()
    batcher.close()
    assert encoder.batches == [1]


@pytest.mark.parametrize(
    ("noise", "may_fall_back", "used"),
    [(0.001, True, "bf16"), (0.5, True, "fp32"), (0.5, False, "bf16"), (np.inf, True, "fp32")],
)
def test_bf16_is_used_only_where_the_users_images_survive_it(noise: float, may_fall_back: bool, used: str) -> None:
    settled: list[Encoding] = []
    checked = CheckedEncoder(FakeEncoder("bf16", noise), FakeEncoder, settled.append, may_fall_back=may_fall_back)
    pixels = np.stack([image(number) for number in range(SAMPLE + 3)])
    vectors = checked.encode(pixels)[0]
    checked.encode(pixels)
    assert checked.precision == used
    assert [encoding.precision for encoding in settled] == [used], "settled once"
    check = settled[0].check
    assert check["images"] == SAMPLE
    assert (check["min_cosine"] >= MIN_COSINE) == (noise < 0.1)
    assert np.array_equal(vectors, FakeEncoder(noise=0.0 if used == "fp32" else noise).encode(pixels)[0])


def test_fp32_needs_no_check() -> None:
    settled: list[Encoding] = []
    checked = CheckedEncoder(
        FakeEncoder(), lambda: pytest.fail("the reference was loaded"), settled.append, may_fall_back=True
    )
    checked.encode(image(1)[None])
    assert settled == [Encoding(precision="fp32")]
