"""The check before an index is built in less than fp32: the user's own images, embedded both ways and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encoder import Encoder, Precision
from search.recipe import Recipe

SAMPLE = 8
"""Images compared: bf16's error is rounding noise, the same for all, so a handful shows it."""
MIN_COSINE = 0.995
"""Below this, bf16 is not rounding noise any more (measured on 785 images: at worst .9993), and fp32 is used."""

Settled = Callable[[Precision, dict[str, Any]], None]


class CheckedEncoder:
    """An encoder that compares itself with fp32 on the first batch, and goes on in fp32 if it is not good enough."""

    def __init__(
        self, encoder: Encoder, reference: Callable[[], Encoder], settled: Settled, *, may_fall_back: bool
    ) -> None:
        """reference: loads the same model in fp32. settled: told once which precision is used, and the figures."""
        self._encoder = encoder
        self._reference = reference
        self._settled: Settled | None = settled
        self._may_fall_back = may_fall_back

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """As `Encoder`."""
        return self._encoder.recipes

    @property
    def names(self) -> tuple[str, ...]:
        """As `Encoder`."""
        return self._encoder.names

    @property
    def precision(self) -> Precision:
        """As `Encoder`; it may change with the first batch."""
        return self._encoder.precision

    @property
    def batch_size(self) -> int:
        """As `Encoder`."""
        return self._encoder.batch_size

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """As `Encoder`."""
        if self._settled is not None and len(pixels):
            self._check(pixels[:SAMPLE], self._settled)
            self._settled = None
        return self._encoder.encode(pixels)

    def _check(self, sample: NDArray[np.uint8], settled: Settled) -> None:
        if self._encoder.precision == "fp32":
            settled("fp32", {})
            return
        reference = self._reference()
        pairs = zip(self._encoder.encode(sample), reference.encode(sample), strict=True)
        worst = min(float((ours * exact).sum(axis=1).min()) for ours, exact in pairs)
        if worst < MIN_COSINE and self._may_fall_back:
            self._encoder = reference
        settled(self._encoder.precision, {"images": len(sample), "min_cosine": round(worst, 6)})
