"""Which words fit an image, as an index's own captions teach it: a linear map from whitened features to sentences.

The map is a ridge regression, as in Norouzi et al. and in "LiT"-like linear alignments of frozen encoders (Merullo et
al., "Linearly mapping from image to text space", arXiv:2209.15162). What is recognised without captions is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.generations.whitening import Part, joined
from search.vectors import normalise

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]
Head = Callable[[Floats], Floats]
"""Embeds features (n, features) of unit length: (n, dim) float32 of unit length, of a sentence's kind."""
ROWS = 1_024
"""Features that are whitened at once: 26 MB of float64 at 3,200 numbers."""
_MAP = "aligned.map"


@dataclass(frozen=True, kw_only=True)
class AlignedHead:
    """parts: how each network's features are whitened; mean (features,) of what was learned from, whitened, and map
    (features, dim): of the regression; recognition: what is known without captions, from the last part's features;
    share: of the map in the sum, 0..1."""

    parts: tuple[Part, ...]
    mean: Floats
    map: Floats
    recognition: Head | None
    share: float

    def __call__(self, features: Floats) -> Floats:
        """Embed features (n, features) of unit length: (n, dim) float32 of unit length."""
        mapped = normalise((whitened(self.parts, features) - self.mean) @ self.map)
        if self.recognition is None:
            return mapped
        last = len(self.parts[-1].mean)
        recognised = self.recognition(normalise(features[:, -last:]))
        return normalise((1 - self.share) * recognised + self.share * mapped)


def whitened(parts: Sequence[Part], features: Floats) -> Floats:
    """Features (n, features), each network's whitened: (n, features) float32."""
    ends = np.cumsum([len(part.mean) for part in parts])[:-1]
    found = [
        joined(parts, np.split(features[start : start + ROWS].astype(np.float64), ends, axis=1)).astype(np.float32)
        for start in range(0, len(features), ROWS)
    ]
    return np.concatenate(found)


def is_aligned(stored: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the tensors of a head were learned from captions."""
    return _MAP in stored


def tensors_of(head: AlignedHead) -> Tensors:
    """What `read_aligned` reads, but for the recognition."""
    parts: Tensors = {}
    for number, part in enumerate(head.parts):
        arrays = {"mean": part.mean, "directions": part.directions, "scales": part.scales}
        parts |= {f"aligned.{name}{number}": array.astype(np.float32) for name, array in arrays.items()}
    figures = np.array([head.share, *(part.weight for part in head.parts)], np.float32)
    own: Tensors = {_MAP: head.map.astype(np.float16), "aligned.mean": head.mean, "aligned.figures": figures}
    return parts | own


def read_aligned(stored: Mapping[str, NDArray[Any]], dims: Sequence[int], recognition: Head | None) -> AlignedHead:
    """The head of stored tensors. dims: how many numbers each network gives."""
    share, *weights = stored["aligned.figures"].tolist()

    def doubles(name: str, number: int) -> NDArray[np.float64]:
        return stored[f"aligned.{name}{number}"].astype(np.float64)

    parts = tuple(
        Part(
            mean=doubles("mean", number),
            directions=doubles("directions", number),
            scales=doubles("scales", number),
            weight=weights[number],
        )
        for number in range(len(dims))
    )
    return AlignedHead(
        parts=parts,
        mean=stored["aligned.mean"],
        map=stored[_MAP].astype(np.float32),
        recognition=recognition,
        share=share,
    )
