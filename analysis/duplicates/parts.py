"""Parts: where a picture lies inside another one, by normalised cross-correlation through Fourier transforms.

Lewis, "Fast Normalized Cross-Correlation" (1995), in all eight orientations and at several sizes at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.small import SIDE, Floats, Place, Small, resized, scaled, turned

COARSE = 36
"""Pixels of the longer side of a picture in which a part is looked for."""
PADDED = 40
"""Pixels a side of its Fourier transform: a border of a pixel around the picture, and a size that is fast."""
SIZES = tuple(0.93**step for step in range(14))
"""Sizes at which a part is looked for, as shares of the whole: from 1 to .39."""
MIN_PIXELS = 8
"""Pixels of a part's shorter side, at least."""


def part_in_whole(whole: Small, part: Small) -> Place:
    """The likeliest place of a picture inside another one, upright, mirrored or turned, at any of SIZES; -1 as its
    score where the picture is too narrow for any."""
    inner = whole.at(COARSE)
    searched = np.pad(inner, 1)
    height, width = searched.shape
    sizes = [tuple(scaled(side, size * COARSE / SIDE) for side in part.edges.shape) for size in SIZES]
    sizes = [size for size in sizes if min(size) >= MIN_PIXELS]
    products = _products(searched, [_template(part, size) for size in sizes])
    sums = np.zeros((2, height + 1, width + 1))
    sums[:, 1:, 1:] = np.stack([searched, searched**2]).cumsum(axis=1).cumsum(axis=2)
    best = Place(whole=whole, part=part, turn=0, matrix=np.eye(2, 3), score=-1.0)
    for number, size in enumerate(sizes):
        for lying in (0, 1):
            h, w = size if not lying else size[::-1]
            if h > height or w > width:
                continue
            windows = sums[:, h:, w:] - sums[:, :-h, w:] - sums[:, h:, :-w] + sums[:, :-h, :-w]
            spread = np.sqrt(np.maximum(windows[1] - windows[0] ** 2 / (h * w), 1.0))
            found = products[number, lying::2, : height - h + 1, : width - w + 1] / spread
            turn, top, left = map(int, np.unravel_index(int(found.argmax()), found.shape))
            score = float(found[turn, top, left])
            if score > best.score:
                matrix = np.array([[(width - 2) / w, 0, (1 - left) / w], [0, (height - 2) / h, (1 - top) / h]])
                best = Place(whole=whole, part=part, turn=lying + 2 * turn, matrix=matrix, score=score)
    return best


def _template(part: Small, size: tuple[int, ...]) -> Floats:
    template = resized(part.edges, *size)
    template = template - template.mean()
    unit: Floats = template / max(float(np.linalg.norm(template)), 1e-3)
    return unit


def _products(searched: Floats, templates: list[Floats]) -> NDArray[np.float32]:
    """The correlation of each template, in eight orientations, with what lies under it, wherever its first pixel is
    put: (templates, 8, PADDED, PADDED), not divided by the spread of what lies under it."""
    laid = np.zeros((len(templates), 8, PADDED, PADDED), dtype=np.float32)
    for number, template in enumerate(templates):
        for turn in range(8):
            oriented = turned(template, turn)
            laid[number, turn, : oriented.shape[0], : oriented.shape[1]] = oriented
    spectra = np.conj(np.fft.rfft2(laid)) * np.fft.rfft2(searched, s=(PADDED, PADDED))
    return np.asarray(np.fft.irfft2(spectra, s=(PADDED, PADDED)), dtype=np.float32)
