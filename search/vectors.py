"""Embeddings as numbers and as bytes: the project's one normalisation, and the catalog's blob format."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.recipe import Storage

BLOB_DTYPES: dict[Storage, np.dtype[np.floating]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
"""Little-endian: a blob reads the same on every machine."""


def normalise(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale each row to unit length.

    vectors: (..., dim), any float type; the length is computed in float64, so that |norm - 1| < 1e-6 after rounding.
    Returns (..., dim) float32, C-contiguous. Raises ValueError on a row of zero or non-finite length: such a row has
    no direction, and a silent zero would be the neighbour of everything.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a vector of zero or non-finite length cannot be normalised")
    return np.ascontiguousarray(wide / lengths, dtype=np.float32)


def concatenate(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    """Join several layers' vectors into one embedding: each normalised, concatenated, normalised again.

    parts: arrays (..., dim_i). Returns (..., sum of dim_i) float32, rows of unit length. With one part, `normalise`.
    """
    if len(parts) == 1:
        return normalise(parts[0])
    return normalise(np.concatenate([normalise(part) for part in parts], axis=-1))


def to_blob(vector: NDArray[np.float32], storage: Storage) -> tuple[bytes, int]:
    """The catalog's form of one embedding ((dim,) float32, or (count, dim) of several regions): bytes and CRC-32."""
    blob = np.ascontiguousarray(vector, dtype=BLOB_DTYPES[storage]).tobytes()
    return blob, zlib.crc32(blob)


def from_blobs(blobs: Sequence[bytes], dim: int, storage: Storage, count: int = 1) -> NDArray[np.float32]:
    """(n, dim) float32 of unit length from blobs of `to_blob`, each of `count` vectors; those of float16 have it again,
    after rounding.

    Raises ValueError where a blob is not `count` times `dim` numbers long.
    """
    dtype = BLOB_DTYPES[storage]
    if any(len(blob) != count * dim * dtype.itemsize for blob in blobs):
        raise ValueError(f"a stored vector is not {count * dim} {storage} long")
    stored = np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(blobs) * count, dim)
    return stored.astype(np.float32) if storage == "float32" else normalise(stored)


def intact(blob: bytes, crc32: int) -> bool:
    """Whether a blob still has the checksum it was stored with."""
    return zlib.crc32(blob) == crc32


def vector_ids(rowids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The numbers of the vectors of images, (n * count,), where each has `count`: image by image, that of the whole
    image first. Divided by `count`, they are rowids; where an image has one vector, they are that already."""
    ids: NDArray[np.int64] = (rowids[:, None] * count + np.arange(count)).ravel()
    return ids


def wholes(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors of whole images, (n, dim), of an encoder's answer: (n, dim), or (n, count, dim) where an image has
    several, of which that of the whole is the first."""
    return vectors if vectors.ndim == 2 else np.ascontiguousarray(vectors[:, 0])


def views(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The views of one picture that a query looks for, (v, dim), of an encoder's answer for it, or for its turns: (n,
    dim), or (n, count + more, dim) where images have `count` vectors: of the whole, and in other proportions."""
    if vectors.ndim == 2:
        return vectors
    chosen = [0, *range(count, vectors.shape[1])]
    return np.ascontiguousarray(vectors[:, chosen].reshape(-1, vectors.shape[2]))
