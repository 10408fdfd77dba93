"""Candidates: pairs of images that may be copies, by the nearest neighbours of embeddings and by perceptual hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from indexer.report import Progress
from search.index import Index
from search.types import ImageRecord

Rowids = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NEIGHBOURS = 8
"""Nearest images of each that are looked at, however far off they are: cut copies may be further than others are by
chance. Larger groups are found by way of copies of copies."""
MAX_BITS = 10
"""Bits of 64 by which the perceptual hashes of candidates differ at most; a crop changes more, a turn a few."""
WORD, WORDS = 16, 4
"""Bits of a part of a hash, and how many there are: candidates have one in common."""
BESIDE = 8
"""Hashes that each is compared with in an order by one of these parts, or the nearest of another index that are looked
at: blank pictures all have the same."""
CELLS = 1 << 24
"""Pairs of hashes of two indexes that are compared at once: 128 MB."""


def comparable_hashes(
    images: Mapping[int, ImageRecord], bare_hash: Callable[[int], int | None], progress: Progress
) -> list[tuple[int, int]]:
    """Rowids and perceptual hashes, signed: of each image, and of what is left of it without plain borders. bare_hash:
    that of a rowid; None where the image has no such borders."""
    whole = [(rowid, record.facts.phash or 0) for rowid, record in images.items()]
    progress.start(len(whole), what="Reading")
    bare = []
    for rowid, _ in whole:
        bits = bare_hash(rowid)
        bare += [] if bits is None else [(rowid, bits)]
        progress.done(1)
    return whole + bare


def candidate_pairs(index: Index, hashes: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Pairs of images to compare, (p, 2) rowids, ascending, each pair once, the smaller rowid first.

    hashes: rowids of the images that can be compared, and their perceptual hashes, signed; one may have several, as
    that of what is left of it without plain borders. Memory grows with the number of images, by some kilobytes
    for each, never with its square.
    """
    rowids, bits = _split(hashes)
    known = np.unique(rowids)
    with ThreadPoolExecutor(1, "hashes") as pool:  # beside the cells' centroids, which leave a core free
        near_hashes = pool.submit(_near_hashes, bits)
        numbers = [_numbered(places, len(known)) for places in _near_vectors(index, known)]
        numbers.append(_numbered(np.searchsorted(known, rowids)[near_hashes.result()], len(known)))
    pairs = np.concatenate(numbers)
    pairs.sort()
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    places = np.stack(np.divmod(pairs, max(1, len(known))), axis=1)
    apart: NDArray[np.int64] = known[places[places[:, 0] != places[:, 1]]]
    return apart


def _numbered(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """One number for each pair of places (p, 2) below `count`, whichever comes first: to sort rows takes twenty times
    as long, and twice the memory."""
    numbers: NDArray[np.int64] = places.min(axis=1) * count + places.max(axis=1)
    return numbers


def _near_vectors(index: Index, known: Rowids) -> Iterator[NDArray[np.int64]]:
    """Places in `known`, ascending rowids, of pairs of near vectors, (p, 2)."""
    if not len(known):
        return
    for pair in index.neighbours(NEIGHBOURS).pairs():
        rowids = np.stack(pair[:2], axis=1)
        places = np.minimum(np.searchsorted(known, rowids), len(known) - 1)
        yield places[(known[places] == rowids).all(axis=1)]


def _near_hashes(hashes: Hashes) -> NDArray[np.int64]:
    """Positions of pairs of near hashes, (p, 2), in any of the eight orientations of one of them."""
    count = len(hashes)
    turned = np.concatenate(turned_hashes(hashes)) if count else hashes
    found = [np.empty((0, 2), dtype=np.int64)]
    for _ in range(WORDS):
        order = ascending(turned)
        ordered = turned[order]
        words = (ordered >> np.uint64(64 - WORD)).astype(np.uint16)
        for apart in range(1, BESIDE + 1):
            one = np.flatnonzero(words[:-apart] == words[apart:])
            one = one[np.bitwise_count(ordered[one] ^ ordered[one + apart]) <= MAX_BITS]
            pairs = np.stack([order[one], order[one + apart]], axis=1)
            pairs = pairs[(pairs < count).any(axis=1)] % max(1, count)
            found.append(pairs[pairs[:, 0] != pairs[:, 1]])
        turned = (turned << np.uint64(WORD)) | (turned >> np.uint64(64 - WORD))
    return np.concatenate(found)


def ascending(hashes: Hashes) -> NDArray[np.int64]:
    """The order of hashes, (n,) uint64, equal ones as they stand: (n,) int64. NumPy's stable sort takes three times as
    long, where few are equal."""
    order = np.argsort(hashes)
    same = np.diff(hashes[order]) == 0
    equal = np.flatnonzero(np.append(same, False) | np.append(False, same))
    order[equal] = order[equal][np.lexsort((order[equal], hashes[order[equal]]))]
    return order


def near_across(hashes: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Pairs of an image and another, (p, 2) rowids: for each of the others the images whose hashes are nearest, in any
    orientation. hashes, others: rowids and hashes, as of `candidate_pairs`.

    All are compared with all, which finds more than an order by parts of the hashes does.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    if not hashes or not others:
        return found[0]
    ones, here = _split(hashes)
    rowids, there = _split(others)
    turned, nearest = turned_hashes(here), min(BESIDE, len(here))
    rows = max(1, CELLS // len(here))
    for start in range(0, len(there), rows):
        asked = there[start : start + rows, None]
        bits = np.bitwise_count(asked ^ turned[0][None])
        for turn in turned[1:]:
            np.minimum(bits, np.bitwise_count(asked ^ turn[None]), out=bits)
        places = np.argpartition(bits, nearest - 1, axis=1)[:, :nearest]
        near = np.take_along_axis(bits, places, axis=1) <= MAX_BITS
        pairs = np.stack([ones[places], np.broadcast_to(rowids[start : start + rows, None], places.shape)], axis=-1)
        found.append(pairs[near])
    return np.concatenate(found)


def _split(hashes: Sequence[tuple[int, int]]) -> tuple[Rowids, Hashes]:
    rowids = np.array([rowid for rowid, _ in hashes], dtype=np.int64)
    return rowids, np.array([bits for _, bits in hashes], dtype=np.int64).view(np.uint64)


def turned_hashes(hashes: Hashes) -> list[Hashes]:
    """The perceptual hashes that pictures would have in all eight orientations, but for a few bits, the first upright.

    A hash holds which of 8 x 8 frequencies are above their median, nearly zero. Mirroring changes the sign of those
    that are odd across, turning upside down of those that are odd downwards, and transposing exchanges both.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).reshape(-1, 8, 8)
    odd = (np.arange(8) % 2).astype(np.uint8)
    made = []
    for grid in (bits, bits.transpose(0, 2, 1)):
        for down in (0, 1):
            for across in (0, 1):
                flipped = grid ^ (down * odd[:, None]) ^ (across * odd[None, :])
                made.append(np.packbits(flipped.reshape(-1, 64), axis=1).view(">u8")[:, 0].astype(np.uint64))
    return made
