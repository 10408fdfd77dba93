"""The check before an index is built in less than fp32: the user's own images, embedded both ways and compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.encoders.encoder import Encoder, Precision
from indexer.errors import PrecisionTooLow
from indexer.pictures.preprocess import Inputs
from search.recipe import Recipe
from search.types import Encoding
from search.vectors import wholes

BF16_SAMPLE_IMAGES = 8
"""Images that bf16 is compared on: its error is rounding noise, the same for all, so a handful shows it."""
MIN_COSINE = 0.995
"""Below this, bf16 is not rounding noise any more (measured on 785 images: at worst .9993), and fp32 is used."""
MIN_CENTRED_COSINE = 0.98
"""The same where vectors are whitened, without the images' mean: errors are a larger part of what is left. In bf16, the
worst of eight stamps has .995, and 97.5% of the ten nearest are kept; the companion's error is the larger one."""
MIN_CENTRED_IMAGES = 4
"""The mean of fewer is mostly the image itself."""
INT8_SAMPLE_IMAGES = 128
"""Images that int8 is fitted to and judged by."""
MIN_INT8_SAMPLE_IMAGES = 32
"""With fewer images, everything is among the ten nearest, and no overlap tells anything."""
NEIGHBOURS = 10

Item = TypeVar("Item")
OnChoice = Callable[[Encoding], None]
Quantise = Callable[[NDArray[np.uint8]], tuple[Encoder, Callable[[], str]]]
"""Fits an int8 encoder to pixels ((n, size, size, 3) uint8). Returns it, and what stores it and returns its name."""


class CheckedEncoder:
    """An encoder that is chosen with the first images it is given: they are compared with what fp32 makes of them."""

    def __init__(
        self,
        encoder: Encoder,
        reference: Callable[[], Encoder],
        on_choice: OnChoice,
        *,
        may_fall_back: bool,
        quantise: Quantise | None = None,
        min_overlap: float = 0.0,
        whitened: Collection[str] = (),
    ) -> None:
        """encoder: in bf16 or fp32. reference: loads the same model in fp32. on_choice: told once what is used, and the
        figures. may_fall_back: to fp32, where bf16 is not good enough. quantise: makes the encoder of int8, to be used
        if it keeps `min_overlap` of the nearest neighbours. whitened: spaces whose vectors are whitened before they are
        searched: they are compared without their mean."""
        self._encoder = encoder
        self._reference = reference
        self._on_choice: OnChoice | None = on_choice
        self._may_fall_back = may_fall_back
        self._quantise = quantise
        self._min_overlap = min_overlap
        self._whitened = frozenset(whitened)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe of each space, in the order of `encode`'s arrays."""
        return self._encoder.recipes

    @property
    def inputs(self) -> Inputs:
        """The kinds of pixels that it takes."""
        return self._encoder.inputs

    @property
    def names(self) -> tuple[str, ...]:
        """The spaces' names, in the order of `recipes`."""
        return self._encoder.names

    @property
    def backend(self) -> str:
        """The library that runs the encoder: `torch` or `openvino`."""
        return self._encoder.backend

    @property
    def precision(self) -> Precision:
        """The arithmetic that it runs in; the first batch may change it."""
        return self._encoder.precision

    @property
    def batch_size(self) -> int:
        """The number of images in a batch; the first batch is the sample that int8 is fitted to."""
        return (
            INT8_SAMPLE_IMAGES
            if self._quantise is not None and self._on_choice is not None
            else self._encoder.batch_size
        )

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """Compare with fp32, and choose. Raises PrecisionTooLow, with the figures, where int8 loses too much."""
        self._choose(pixels)
        self._encoder.prepare(pixels, remaining)

    def _choose(self, pixels: NDArray[np.uint8]) -> None:
        if self._on_choice is not None and len(pixels):
            self._on_choice(self._check(pixels))
            self._on_choice = None

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Embed pixels as the encoder takes them: one (n, dim) float32 array a space. Chooses first, if need be.

        Raises PrecisionTooLow as `prepare`.
        """
        self._choose(pixels)
        return self._encoder.encode(pixels)

    def per_core(self) -> Sequence[Encoder]:
        """Encoders of the same model on one core each."""
        return self._encoder.per_core()

    def _check(self, pixels: NDArray[np.uint8]) -> Encoding:
        if self._quantise is not None:
            return self._gate(pixels[:INT8_SAMPLE_IMAGES], self._quantise)
        encoding = Encoding(backend=self.backend, precision=self.precision)
        if self.precision == "fp32":
            return encoding
        sample = pixels[:BF16_SAMPLE_IMAGES]
        reference = self._reference()
        worst, enough = self._worst_cosines(reference.encode(sample), sample)
        if not enough and self._may_fall_back:
            self._encoder = reference
        check = {"images": len(sample), "min_cosine": round(worst, 6)}
        return replace(encoding, precision=self.precision, check=check)

    def _worst_cosines(self, exact: Sequence[NDArray[np.float32]], sample: NDArray[np.uint8]) -> tuple[float, bool]:
        """The least cosine with what fp32 gives, and whether those of every space are large enough."""
        try:
            ours = self._encoder.encode(sample)
        except ValueError:  # in fp16 a large model's activations may overflow: no direction at all
            return -1.0, False
        worst, enough = 1.0, True
        for name, one, other in self._judged(ours, exact):
            lowest, least = float((one * other).sum(axis=1).min()), MIN_COSINE
            worst = min(worst, lowest)
            if name in self._whitened and len(sample) >= MIN_CENTRED_IMAGES:
                mean, least = other.mean(axis=0), MIN_CENTRED_COSINE
                lowest = float((_unit(one - mean) * _unit(other - mean)).sum(axis=1).min())
            enough = enough and lowest >= least
        return worst, enough

    def _judged(
        self, ours: Sequence[NDArray[np.float32]], exact: Sequence[NDArray[np.float32]]
    ) -> list[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
        """The name of each space, and both its vectors of whole images. Not of words, which are made of what another
        space holds: of a picture that two classes fit equally, rounding chooses one."""
        of_words = [recipe.words is not None for recipe in self.recipes]
        together = zip(self.names, ours, exact, of_words, strict=True)
        return [(name, wholes(one), wholes(other)) for name, one, other, words in together if not words]

    def _centred(
        self, exact: Sequence[NDArray[np.float32]], of: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Each space's vectors, without the mean of the exact ones where they are whitened."""
        return [
            _unit(one - other.mean(axis=0)) if name in self._whitened else one
            for name, one, other in self._judged(of, exact)
        ]

    def _gate(self, sample: NDArray[np.uint8], quantise: Quantise) -> Encoding:
        if len(sample) < MIN_INT8_SAMPLE_IMAGES:
            raise PrecisionTooLow(
                f"int8 is judged by the neighbours of your own images, and needs {MIN_INT8_SAMPLE_IMAGES} of them; "
                f"there are {len(sample)}. Use --precision bf16."
            )
        exact = self._reference().encode(sample)
        self._encoder, store = quantise(sample[::2])
        ours = self._encoder.encode(sample)
        cosines = np.concatenate([(one * other).sum(axis=1) for _, one, other in self._judged(ours, exact)])
        check: dict[str, float] = {
            "images": len(sample),
            "overlap": round(min(map(overlap, self._centred(exact, exact), self._centred(exact, ours))), 4),
            "mean_cosine": round(float(cosines.mean()), 6),
            "min_cosine": round(float(cosines.min()), 6),
        }
        if check["overlap"] < self._min_overlap:
            raise PrecisionTooLow(
                f"int8 keeps {check['overlap']:.3f} of the {NEIGHBOURS} nearest neighbours that fp32 finds among "
                f"{len(sample)} of your images (mean cosine {check['mean_cosine']:.4f}); {self._min_overlap:.3f} is "
                "asked for. Use --precision bf16, or accept it with --min-overlap."
            )
        return Encoding(backend=self.backend, precision=self.precision, check=check, model=store())


def sample_first(items: Sequence[Item]) -> list[Item]:
    """Items from everywhere first, then the rest in order: by the first images of an index its encoding is judged."""
    step = max(1, -(-len(items) // INT8_SAMPLE_IMAGES))
    return [*items[::step], *(item for number, item in enumerate(items) if number % step)]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def overlap(exact: NDArray[np.float32], ours: NDArray[np.float32]) -> float:
    """The mean share of each row's ten nearest other rows that is the same in both; (n, dim) unit vectors each."""
    shared = [len(set(one) & set(other)) for one, other in zip(_nearest(exact), _nearest(ours), strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS


def _nearest(vectors: NDArray[np.float32]) -> list[list[int]]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    return nearest
