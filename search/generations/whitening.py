"""Whitening: centres a space's vectors, evens out the directions in which they vary most, and shortens them.

Embeddings of one collection share a large mean and a few directions of large variance: these say what the collection
is about, not what tells its images apart. Both are taken out, without labels. See Jégou and Chum, "Negative evidences
and co-occurrences in image retrieval", ECCV 2012, and Su et al., "Whitening sentence representations", 2021
(arXiv:2103.15316).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from search.generations.transform import Sample, Vectors
from search.types import Space

FIT_VECTORS = 2_048
"""Vectors that a transform is fitted to, at most."""
ROWS = 1_024
"""Vectors that are transformed at once: 26 MB of float64 at 3,200 numbers."""
FEW = 8
"""Vectors, such as those of a query, that are transformed in one thread: beside other work, BLAS's threads wait for one
another, and take 16 ms for what one does in one."""
MEAN_PRIOR_VECTORS = 4
"""Vectors at the origin that the mean is taken with: of a single image, four fifths are left, and not nothing."""
FLOOR_PRIOR_VECTORS = 3
"""Of n images, a direction is evened out down to this share over n of the largest variance, or to the floor where that
is more: a dozen images vary in a dozen directions, and say little about them."""
LEADING = 256
"""Directions that are looked at for those to even out: of real images, some thirty are."""
MANY_PER_WANTED = 3
"""Directions for each wanted one, from which on iteration is faster than all of them at once."""
OVERSAMPLED = 32
ITERATIONS = 3
"""Directions besides the wanted ones that an iteration carries on, and its rounds."""
MAX_FITTED_SHARE = 7 / 8
"""Share of the searched numbers that are principal components of the images at hand. The rest are random directions
besides them, for what later images and queries have that these had not."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What becomes of the numbers that one network gave.

    mean: (d,) float64, subtracted. directions: (r, d) float64, orthonormal; scales: (r,) float64, 0..1: the variation
    along each is scaled so, the rest is kept. The result has the length `weight`.
    """

    mean: Doubles
    directions: Doubles
    scales: Doubles
    weight: float

    def apply(self, vectors: Doubles) -> Doubles:
        """(n, d) float64 of the length `weight` for (n, d) float64; zero where nothing is left of a row."""
        centred = vectors - self.mean
        along = _products(centred, self.directions) * (1 - self.scales)
        centred -= np.einsum("ij,jk->ik", along, self.directions) if len(along) <= FEW else along @ self.directions
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        zero = np.zeros_like(centred)  # what is left where there is no direction
        scaled: Doubles = np.divide(self.weight * centred, lengths, out=zero, where=lengths > 0)
        return scaled


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """Each network's part whitened, all parts joined and projected. Its numbers are float32's, in float64.

    projection: (dim, stored dim) float64.

    It computes in float64 and rounds to float32: equal vectors stay equal in batches of any size, as they do not in
    float32 (but for one number in a billion, where a copy is searched twice).
    """

    parts: tuple[Part, ...]
    projection: Doubles
    kind: str = "whitening"
    copy_cosine: float = 0.78

    @property
    def dim(self) -> int:
        """How many numbers a searched vector has."""
        return len(self.projection)

    @cached_property
    def _ends(self) -> list[int]:
        ends: list[int] = np.cumsum([len(part.mean) for part in self.parts])[:-1].tolist()
        return ends

    def apply(self, vectors: Vectors) -> Vectors:
        """Searched vectors, (n, dim) float32 of unit length, for stored ones or queries, (n, stored dim) float32."""
        result = np.empty((len(vectors), self.dim), dtype=np.float32)
        for start in range(0, len(vectors), ROWS):
            result[start : start + ROWS] = self._applied(vectors[start : start + ROWS].astype(np.float64))
        return result

    def unprojected(self, vectors: Vectors) -> Doubles:
        """Whitened vectors before the projection, (n, stored dim) float64 of unit length, for (n, stored dim)."""
        whole = joined(self.parts, np.split(vectors.astype(np.float64), self._ends, axis=1))
        lengths = np.linalg.norm(whole, axis=1, keepdims=True)
        scaled: Doubles = whole / np.maximum(lengths, np.finfo(np.float64).tiny)
        return scaled

    def _applied(self, vectors: Doubles) -> Doubles:
        projected = _products(joined(self.parts, np.split(vectors, self._ends, axis=1)), self.projection)
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        projected[lengths[:, 0] == 0, 0] = 1  # any direction: it resembles nothing
        return projected / np.where(lengths > 0, lengths, 1)

    def to_bytes(self) -> bytes:
        """A safetensors file: `mean0`, `directions0`, `scales0` and so on of each part, `weights` and `projection`."""
        arrays = {"weights": np.array([part.weight for part in self.parts]), "projection": self.projection}
        for number, part in enumerate(self.parts):
            arrays |= {
                f"mean{number}": part.mean,
                f"directions{number}": part.directions,
                f"scales{number}": part.scales,
            }
        content: bytes = save({name: np.ascontiguousarray(array, dtype="<f4") for name, array in arrays.items()})
        return content

    @classmethod
    def read(cls, stored_dim: int, content: bytes) -> Whitening:
        """The transform of `to_bytes`'s answer, of so many stored numbers. Raises ValueError."""
        try:
            arrays = {name: array.astype(np.float64) for name, array in load(content).items()}
            parts = tuple(
                Part(
                    mean=arrays[f"mean{number}"],
                    directions=arrays[f"directions{number}"],
                    scales=arrays[f"scales{number}"],
                    weight=float(weight),
                )
                for number, weight in enumerate(arrays["weights"])
            )
            read = cls(parts=parts, projection=arrays["projection"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"it is not a whitening: {error}") from error
        if read.projection.shape[1:] != (stored_dim,) or sum(len(part.mean) for part in parts) != stored_dim:
            raise ValueError(f"it is not for vectors of {stored_dim} numbers")
        return read


def _products(rows: Doubles, others: Doubles) -> Doubles:
    """The inner products of (n, d) rows with (m, d) others: (n, m). Of few rows, in one thread."""
    if len(rows) > FEW:
        return rows @ others.T
    found: Doubles = np.vecdot(rows[:, None], others[None])
    return found


def joined(parts: Sequence[Part], vectors: Sequence[Doubles]) -> Doubles:
    """Each network's vectors, (n, d_i) float64, whitened and side by side: (n, sum of d_i)."""
    return np.concatenate([part.apply(block) for part, block in zip(parts, vectors, strict=True)], axis=1)


def fit(space: Space, sample: Sample) -> Whitening:
    """The whitening of a space, as its `transform` says, fitted to some of its vectors, equal ones counted once.

    A space without vectors gets one that only projects.
    """
    recipe, spec = space.recipe, space.transform
    vectors = np.unique(sample(FIT_VECTORS), axis=0).astype(np.float64)
    blocks = np.split(vectors, np.cumsum(recipe.parts)[:-1], axis=1)
    # The companion is only centred: of its directions, those of large variance are what it was trained to tell apart.
    floors, weights = (spec.floor, 1.0), (1.0, spec.companion_weight)
    parts = tuple(_part(block, floor, weight) for block, floor, weight in zip(blocks, floors, weights, strict=False))
    projection = _projection(joined(parts, blocks), min(spec.max_dim, recipe.dim))
    # As everybody reads it from its file: rounded.
    return Whitening.read(recipe.dim, Whitening(parts=parts, projection=projection).to_bytes())


def floor_of(floor: float, count: int) -> float:
    """The share of the largest variance down to which so many vectors are evened out, where `floor` is asked for."""
    return min(1.0, max(floor, FLOOR_PRIOR_VECTORS / max(1, count)))


def _part(vectors: Doubles, floor: float, weight: float) -> Part:
    count = len(vectors)
    mean = vectors.sum(axis=0) / (count + MEAN_PRIOR_VECTORS)
    floor = floor_of(floor, count)
    directions, variances = _above(vectors - mean, floor)
    kept = variances > floor * variances.max(initial=0)
    scales = np.sqrt(floor * variances.max(initial=0) / variances[kept])
    return Part(mean=mean, directions=np.ascontiguousarray(directions[kept]), scales=scales, weight=weight)


def _above(vectors: Doubles, floor: float) -> tuple[Doubles, Doubles]:
    """As `principal`: all directions with more than this share of the largest mean square, and some with less."""
    most = min(vectors.shape) if floor < 1 else 0
    few = min(most, LEADING)
    directions, squares = principal(vectors, few)
    if few < most and squares[-1] > floor * squares[0]:
        return principal(vectors, most)
    return directions, squares


def _projection(vectors: Doubles, dim: int) -> Doubles:
    """(dim, d) float64: principal components of the vectors, (n, d), and random directions at right angles to them.

    The random ones are lengthened, so that they keep the lengths and angles of what is outside the components on
    average (Johnson and Lindenstrauss, 1984).
    """
    width = vectors.shape[1]
    if dim == width:
        return np.eye(width)
    components, _ = principal(vectors, int(dim * MAX_FITTED_SHARE))
    rest = dim - len(components)
    drawn = np.random.default_rng(0).standard_normal((width, rest))
    drawn -= components.T @ (components @ drawn)
    random, _ = np.linalg.qr(drawn)
    return np.concatenate([components, random.T * np.sqrt((width - len(components)) / rest)])


def principal(vectors: Doubles, most: int) -> tuple[Doubles, Doubles]:
    """The directions in which vectors, (n, d), are longest, (m, d) orthonormal, and the mean square along each, (m,).

    m: at most `most`, and no more than there are. Exact, by the smaller one of both Gram matrices; where few of many
    are wanted, by subspace iteration.
    """
    count, dim = vectors.shape
    if not count or not most:
        return np.empty((0, dim)), np.empty(0)
    if MANY_PER_WANTED * most < min(count, dim):
        return _leading(vectors, most)
    if count < dim:
        squares, sides = np.linalg.eigh(vectors @ vectors.T)
    else:
        squares, sides = np.linalg.eigh(vectors.T @ vectors)
    enough = squares > max(count, dim) * np.finfo(np.float64).eps * squares[-1]
    squares, sides = squares[enough][::-1][:most], sides[:, enough][:, ::-1][:, :most]
    directions = (vectors.T @ sides / np.sqrt(squares)).T if count < dim else sides.T
    return np.ascontiguousarray(directions), squares / count


def _leading(vectors: Doubles, most: int) -> tuple[Doubles, Doubles]:
    """As `principal`, by randomised subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4)."""
    basis = np.random.default_rng(0).standard_normal((vectors.shape[1], most + OVERSAMPLED))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(vectors.T @ (vectors @ basis))
    within = vectors @ basis
    squares, sides = np.linalg.eigh(within.T @ within)
    directions = (basis @ sides[:, ::-1][:, :most]).T
    return np.ascontiguousarray(directions), squares[::-1][:most] / len(vectors)
