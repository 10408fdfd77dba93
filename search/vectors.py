"""Embeddings as numbers and as bytes: the project's one normalisation, and the catalog's blob format."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOB_DTYPE = np.dtype("<f4")
"""Little-endian float32: a blob reads the same on every machine."""


def normalise(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale each row to unit length.

    vectors: (n, dim), any float type; the length is computed in float64, so that |norm - 1| < 1e-6 after rounding.
    Returns (n, dim) float32, C-contiguous. Raises ValueError on a row of zero or non-finite length: such a row has
    no direction, and a silent zero would be the neighbour of everything.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a vector of zero or non-finite length cannot be normalised")
    return np.ascontiguousarray(wide / lengths, dtype=np.float32)


def concatenate(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    """Join several layers' vectors into one embedding: each normalised, concatenated, normalised again.

    parts: arrays (n, dim_i). Returns (n, sum of dim_i) float32, rows of unit length. With one part, `normalise`.
    """
    if len(parts) == 1:
        return normalise(parts[0])
    return normalise(np.concatenate([normalise(part) for part in parts], axis=1))


def to_blob(vector: NDArray[np.float32]) -> tuple[bytes, int]:
    """The catalog's form of one embedding ((dim,) float32): its bytes, and their CRC-32."""
    blob = np.ascontiguousarray(vector, dtype=BLOB_DTYPE).tobytes()
    return blob, zlib.crc32(blob)


def from_blobs(blobs: Sequence[bytes], dim: int) -> NDArray[np.float32]:
    """(n, dim) float32 from n blobs of `to_blob`. Raises ValueError where a blob is not `dim` floats long."""
    if any(len(blob) != dim * BLOB_DTYPE.itemsize for blob in blobs):
        raise ValueError(f"a stored vector is not {dim} float32 long")
    return np.frombuffer(b"".join(blobs), dtype=BLOB_DTYPE).reshape(len(blobs), dim).astype(np.float32)


def intact(blob: bytes, crc32: int) -> bool:
    """Whether a blob still has the checksum it was stored with."""
    return zlib.crc32(blob) == crc32
