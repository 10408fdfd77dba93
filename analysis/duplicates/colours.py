"""Colours: whether one picture's are the other's, changed by one rule for the whole picture.

Brighter, darker, paler, grey, brown, warmer, or with hues turned a little, a photo stays the same photo. A shirt that
is red in one picture and blue in the other, with all else unchanged, is another shirt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MAX_TURN = 0.7
"""Tangent of the angle by which hues may be turned: 35 degrees."""
MAX_STRETCH = 3.0
"""Factor by which colours may be stronger."""
MAX_TINT = 40.0
"""Distance from grey that a tint may make of a grey."""
LEAST_KEPT = 0.3
"""Share of the colours that is left of a picture where the tint may be any; where less is, it is brown."""
MAX_LIGHTER = 85.0
"""Levels by which a colour may be lighter or darker: more makes a line drawing of a coloured one."""
FAR = 36.0
"""Distance of a colour from what the rule makes of the other, in levels of red, green and blue, that is too far."""
SHARE_FAR, FEW_FAR = 0.02, 1.5
"""Blocks that may be so far: a share of all, and as many besides."""
ROUNDS = 3
"""Times that the rule is fitted: those far from it count less the next time."""

TO_OPPONENTS = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
"""From red, green and blue to luma and two differences of colour (BT.601)."""


def follow_one_rule(one: Values, other: Values) -> bool:
    """Whether the colours of blocks, (n, 3) each, red, green and blue of 0..255, come from one another by one rule:
    those of the second from the first, or the other way round, as those of a grey picture do from a coloured one."""
    return _follow(one, other) or _follow(other, one)


def _follow(one: Values, other: Values) -> bool:
    before, after = one @ TO_OPPONENTS.T, other @ TO_OPPONENTS.T
    weights = np.ones(len(one))
    far: Values = np.zeros(len(one))
    for _ in range(ROUNDS):
        guess = np.concatenate([_luma(before, after, weights), _chroma(before, after, weights)], axis=1)
        made = np.clip(guess @ np.linalg.inv(TO_OPPONENTS).T, 0, 255)
        far = np.linalg.norm(made - other, axis=1).astype(np.float64)
        weights = 1 / (1 + (far / 12) ** 2)
    return float((far > FAR).sum()) <= FEW_FAR + SHARE_FAR * len(far)


def _luma(before: Values, after: Values, weights: Values) -> Values:
    """Luma by a curve of the second degree, and by colour, as turned hues are brighter or darker."""
    luma = before[:, :1] / 255
    terms = np.concatenate([np.ones_like(luma), luma, luma**2, before[:, 1:] / 255], axis=1)
    made = terms @ _least_squares(terms, after[:, :1], weights)
    return np.clip(made, before[:, :1] - MAX_LIGHTER, before[:, :1] + MAX_LIGHTER)


def _chroma(before: Values, after: Values, weights: Values) -> Values:
    """Differences of colour by a similarity, hues turned by less than MAX_TURN, and by a tint that grows with luma."""
    b, r = before[:, 1], before[:, 2]
    zero, unit, luma = np.zeros(len(b)), np.ones(len(b)), before[:, 0] / 255
    rows = [
        np.stack([b, -r, unit, luma, zero, zero], axis=1),
        np.stack([r, b, zero, zero, unit, luma], axis=1),
    ]
    terms, wanted = np.concatenate(rows), np.concatenate([after[:, 1], after[:, 2]])[:, None]
    found = _least_squares(terms, wanted, np.tile(weights, 2))
    strength, turn = found[:2, 0]
    if strength < 0 or abs(turn) > MAX_TURN * strength or strength > MAX_STRETCH:
        strength = np.clip(strength, 0, MAX_STRETCH)
        turn = np.clip(turn, -MAX_TURN * strength, MAX_TURN * strength)
        held = np.array([[strength], [turn]])
        rest = _least_squares(terms[:, 2:], wanted - terms[:, :2] @ held, np.tile(weights, 2))
        found = np.concatenate([held, rest])
    kept = terms[:, :2] @ found[:2]
    tint = np.reshape(terms[:, 2:] @ found[2:], (2, -1)).T
    if found[0, 0] < LEAST_KEPT:  # else a red drawing made grey, with a green tint, would be a green one
        tint = np.stack([np.minimum(tint[:, 0], 0), np.maximum(tint[:, 1], 0)], axis=1)
    tint *= np.minimum(1, MAX_TINT / np.maximum(np.linalg.norm(tint, axis=1, keepdims=True), 1e-6))
    return np.reshape(kept, (2, -1)).T + tint


def _least_squares(terms: Values, wanted: Values, weights: Values) -> Values:
    """Coefficients, (k, 1), a little pulled towards zero."""
    weighted = terms * weights[:, None]
    solved = np.linalg.solve(terms.T @ weighted + 1e-2 * np.eye(terms.shape[1]), weighted.T @ wanted)
    return np.asarray(solved, dtype=np.float64)
