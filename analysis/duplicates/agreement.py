"""Agreement: whether two pictures, laid over one another, show one photo, with or without something added.

They are compared block by block where they overlap. A copy agrees in all blocks, or as evenly badly as its compression
or noise makes it; what was added to it stands in some blocks, and in others nothing differs. Where something moved, it
is missing in one place and added in another; where a drawing of a series has another sign, both have something there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.duplicates.alignment import is_whole
from analysis.duplicates.blocks import BLOCK, blocks, correlations, cut, soft, warp
from analysis.duplicates.colours import follow_one_rule
from analysis.duplicates.small import LUMA, Floats, Place, Small

Blocks = NDArray[np.bool_]

PIXELS = BLOCK * BLOCK
MIN_BLOCKS = 12
"""Blocks with something in them that must agree, in three rows and three columns or more: with fewer, pictures are too
plain to be told from others."""
MIN_LINES = 3
MIN_BLOCKS_BESIDE = 16
"""The same, outside of an edge or corner that was painted over."""
MIN_VARIANCE = 20.0
"""Variance of a block's colours, all three together, below which it shows nothing: of 8-bit levels, squared."""
SHARE_OF_MEAN = 0.04
"""A block also shows nothing with less than this share of the mean variance."""
AGREES, NEARLY = 0.8, 0.6
"""Correlations of blocks that agree; of those that nearly do, which count half."""
NOISE, MIN_NOISY = 6.0, 0.35
"""A block agrees, too, that differs no more than so many times as much as the best quarter do, at this correlation."""
TYPICAL, TYPICAL_IF_ADDED = 0.6, 0.95
"""The median correlation that a copy has, and one with something painted on it, where nothing is."""
ALLOWED = 0.75
"""Blocks that may differ, and more of them as the median correlation is worse: half of what that lacks, .05 at most."""
MIN_SHARE = 0.25
"""Of the blocks that must agree, where something was added all over, as a watermark is."""
MAX_CHANGED = 0.15
"""Of the blocks that differ where something was added all over, the share that it may have changed."""
PERSISTS = 0.75
"""Share of a block's edges that are found in the other picture, so that something was only added to it."""
EQUALLY_SHARP = 0.8
"""The sharpness of a picture, as a share of another one's, below which that one is blurred before they are compared."""
EDGE, SIDE_EDGE, CORNER = 0.27, 0.2, 0.36
"""Shares of height and width that a caption, or a strip, or a logo in a corner, may take."""
RIM, MIN_MIDDLE = 0.18, 24
"""Share of a side that is rim, and blocks inside of it that must agree where something was painted on a picture."""
MIN_PAINTED, MIN_FILLED = 6, 0.7
"""Blocks that differ in such a zone, and the share that they are of those in the box around them."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is known of each block, (rows, columns). shown: blocks with something in them; weights: 1 of those that
    differ, half of what nearly agrees. added, lost: where one picture has all that the other has, and more."""

    correlation: Floats
    shown: Blocks
    agrees: Blocks
    added: Blocks
    lost: Blocks
    weights: Floats
    colours: NDArray[np.float64]
    other_colours: NDArray[np.float64]
    inside: Blocks

    @property
    def share(self) -> float:
        """The share of the blocks with something in them that agree."""
        return float(self.agrees.sum() / self.shown.sum())

    @property
    def differs(self) -> Blocks:
        """Blocks with something in them that do not agree."""
        return self.shown & ~self.agrees

    def count(self, chosen: Blocks) -> float:
        """How many of the chosen blocks differ."""
        return float(self.weights[chosen & self.differs].sum())

    def both(self, chosen: Blocks) -> float:
        """How many of them differ in a way that is not one addition: changed, or added here and lost there."""
        changed = self.count(chosen & ~self.added & ~self.lost)
        return changed + min(self.count(chosen & self.added), self.count(chosen & self.lost))


def is_copy(compared: Compared) -> bool:
    """Whether two pictures agree so well that they are one photo, if nothing in full detail speaks against it."""
    return _agree(compared) and follows_its_colours(compared)


def follows_its_colours(compared: Compared) -> bool:
    """Whether the colours are one picture's, changed by one rule, where nothing was painted on it."""
    plain = unpainted(compared)
    return bool(plain.sum() >= MIN_BLOCKS) and follow_one_rule(compared.colours[plain], compared.other_colours[plain])


def unpainted(compared: Compared) -> Blocks:
    """Blocks on which nothing was painted, nor beside them, if many differ."""
    count = compared.differs.sum()
    painted = compared.differs if count <= MIN_LINES else _grown(compared.differs)
    return compared.inside & ~painted


def _grown(chosen: Blocks) -> Blocks:
    """The chosen blocks and those above, below and beside them."""
    padded = np.pad(chosen, 1)
    grown: Blocks = chosen | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown


def typical(compared: Compared) -> float:
    """The median correlation of blocks in which nothing was added; 0 where too few are left."""
    core = compared.shown & ~compared.added & ~compared.lost
    return float(np.median(compared.correlation[core])) if core.sum() >= MIN_BLOCKS / 2 else 0.0


def _agree(compared: Compared) -> bool:
    agrees, shown = compared.agrees, compared.shown
    if agrees.sum() < MIN_BLOCKS or min(agrees.any(axis=0).sum(), agrees.any(axis=1).sum()) < MIN_LINES:
        return False
    alike = typical(compared)
    if alike < TYPICAL:
        return False
    count, everywhere = int(shown.sum()), np.ones_like(shown)
    differing = compared.count(everywhere)
    allowed = ALLOWED + count * min(0.05, (1 - alike) / 2)
    if differing <= allowed:
        return True
    if alike < TYPICAL_IF_ADDED or (agrees & middle(shown.shape)).sum() < MIN_MIDDLE:
        return False
    if compared.both(everywhere) <= max(allowed, MAX_CHANGED * differing) and agrees.sum() >= MIN_SHARE * count:
        return True
    zone = min(zones(shown.shape), key=lambda one: compared.both(~one) + 0.01 * compared.count(~one))
    return (
        (agrees & ~zone).sum() >= MIN_BLOCKS_BESIDE
        and compared.count(~zone) <= allowed
        and (compared.differs & zone).sum() >= MIN_PAINTED
        and _filled(compared.differs & zone, shown & zone) >= MIN_FILLED
    )


def middle(shape: tuple[int, ...]) -> Blocks:
    """All but the rim: two pictures of which only the frame agrees are not proved to be one."""
    y, x = _positions(shape)
    inner: Blocks = (np.abs(y - 0.5) < 0.5 - RIM) & (np.abs(x - 0.5) < 0.5 - RIM)
    return inner


def _positions(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How far down and across the middle of each block is, 0..1."""
    positions: NDArray[np.float64] = (np.indices(shape) + 0.5) / np.array(shape)[:, None, None]
    return positions


def zones(shape: tuple[int, ...]) -> list[Blocks]:
    """Where a caption or a logo may be: along each edge, and in each corner."""
    y, x = _positions(shape)
    edges = [y < EDGE, y > 1 - EDGE, x < SIDE_EDGE, x > 1 - SIDE_EDGE]
    return edges + [down & across for down in (y < CORNER, y > 1 - CORNER) for across in (x < CORNER, x > 1 - CORNER)]


def _filled(differs: Blocks, shown: Blocks) -> float:
    """The share of the blocks in the box around those that differ that do."""
    rows, columns = np.nonzero(differs)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return float(differs[box].sum() / shown[box].sum())


def compared(place: Place) -> Compared | None:
    """The blocks where both pictures are; None where too few are, or show anything."""
    whole, part = _equally_sharp(place)
    shape = whole.edges.shape
    one = cut(whole.pixels.astype(np.float32))
    other, inside = warp(part.pixels, place.matrix, shape)
    other = cut(other)
    here = _without_rim(blocks(cut(inside).astype(np.float32)) >= 0.9 * PIXELS)
    if not is_whole(place.matrix):
        here[0] = here[-1] = here[:, 0] = here[:, -1] = False  # a frame may reach into them
    if here.sum() < MIN_BLOCKS:
        return None
    edges, there = warp(soft(part.edges), place.matrix, shape)
    lines = correlations(soft(whole.edges), cut(edges * there), 0, floor=32.0)[0, 0]
    first, second = soft(one @ LUMA), soft(other @ LUMA)
    luma = np.abs(correlations(first, second, 0, floor=32.0)[0, 0])
    correlation = np.clip(np.maximum(luma, lines), 0, 1)
    variance, other_variance = _variance(one), _variance(other)
    same = here & (correlation > AGREES) & (variance > MIN_VARIANCE)
    ratio = np.log((other_variance[same] + 1) / (variance[same] + 1))
    contrast = float(np.clip(np.exp(np.median(ratio)), 0.02, 50)) if same.sum() >= MIN_LINES else 1.0
    other_variance = other_variance / contrast
    least = max(MIN_VARIANCE, SHARE_OF_MEAN * float(variance[here].mean()), 0.6 * MIN_VARIANCE / contrast)
    shown_one, shown_other = here & (variance > least), here & (other_variance > least)
    shown = shown_one | shown_other
    if shown.sum() < MIN_BLOCKS:
        return None
    unlike = (1 - correlation**2) * np.maximum(variance, other_variance)
    noise = np.partition(unlike[shown], shown.sum() // 4)[shown.sum() // 4]
    agrees = shown & ((correlation > AGREES) | ((unlike <= NOISE * noise) & (correlation > MIN_NOISY)))
    kept, kept_other = _persisting(first, second)
    differs = shown & ~agrees
    added = differs & (~shown_one | (kept > PERSISTS))
    return Compared(
        correlation=correlation,
        shown=shown,
        agrees=agrees,
        added=added,
        lost=differs & ~added & (~shown_other | (kept_other > PERSISTS)),
        weights=np.where(correlation > NEARLY, 0.5, 1.0).astype(np.float32),
        colours=_means(one),
        other_colours=_means(other),
        inside=here,
    )


def _equally_sharp(place: Place) -> tuple[Small, Small]:
    """The whole, and the part as it is turned: a thumbnail agrees with what its photo is when made as small."""
    whole, part = place.whole, place.part.oriented(place.turn)
    sizes = np.prod(part.edges.shape) / np.prod(whole.edges.shape)
    enlarged = float(np.sqrt(abs(np.linalg.det(place.matrix[:, :2])) * sizes))  # pixels of the part, for one of it
    sharpness = enlarged * part.sharpness / whole.sharpness
    if sharpness < EQUALLY_SHARP:
        return whole.blurred(sharpness * whole.sharpness), part
    if 1 / sharpness < EQUALLY_SHARP:
        return whole, part.blurred(part.sharpness / sharpness)
    return whole, part


def _without_rim(inside: Blocks) -> Blocks:
    """Blocks whose neighbours are inside too, or beyond the border of the picture."""
    padded = np.pad(inside, 1, constant_values=True)
    kept: Blocks = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return kept


def _means(pixels: Floats) -> NDArray[np.float64]:
    return np.stack([blocks(pixels[..., channel]) for channel in range(3)], axis=-1).astype(np.float64) / PIXELS


def _variance(pixels: Floats) -> Floats:
    """The variance of each block's colours, the three channels' together, once smoothed."""
    channels = np.stack([soft(pixels[..., channel]) for channel in range(3)])
    variance: Floats = (blocks(channels**2) / PIXELS - (blocks(channels) / PIXELS) ** 2).sum(axis=0)
    return variance


def _persisting(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """The share of each block's edges, in grey, that run the same way in the other picture, of either."""
    gradients = [np.gradient(np.pad(values, 1, mode="edge"))[:2] for values in (one, other)]
    (down, across), (other_down, other_across) = ([axis[1:-1, 1:-1] for axis in pair] for pair in gradients)
    length, other_length = np.hypot(down, across), np.hypot(other_down, other_across)
    alike = np.abs(down * other_down + across * other_across) > PERSISTS * length * other_length
    shares = [
        (blocks(mine * (alike & (theirs > mine / 4))) / np.maximum(blocks(mine), 1e-3)).astype(np.float32)
        for mine, theirs in ((length, other_length), (other_length, length))
    ]
    return shares[0], shares[1]
