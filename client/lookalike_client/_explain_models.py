"""Values of explanations: two pictures patch by patch. All are frozen."""

from dataclasses import dataclass

Fractions = tuple[float, ...]
"""x, y, width, height, as fractions of the upright picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGrid:
    """Equal patches of a picture, numbered row by row from 0. box: what all cover; beyond 0..1 where it was padded."""

    rows: int
    columns: int
    box: Fractions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSide:
    """One of both pictures; each sequence has an entry for each of its patches.

    source: `image` (sent), `file`, or `thumbnail` where the file is gone. nearest: the number of the most alike patch
    of the other picture, None outside this one; cosines: with it. margins: how much nearer it is than the nearest
    elsewhere, 0 where it is not mutual. mutual: whether both are each other's most alike.
    """

    source: str
    grid: PatchGrid
    nearest: tuple[int | None, ...]
    cosines: tuple[float | None, ...]
    margins: tuple[float | None, ...]
    mutual: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMatch:
    """Two patches, each the most alike of the other: their numbers and boxes in the query's picture and in the hit.

    margin: how much nearer it is than the nearest elsewhere in the hit.
    """

    query: int
    hit: int
    query_box: Fractions
    hit_box: Fractions
    cosine: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an image is a hit. layers: of the space's vision transformer. matches: the clearest first."""

    space: str
    layers: tuple[int, ...]
    query: ExplainedSide
    hit: ExplainedSide
    matches: tuple[PatchMatch, ...]
