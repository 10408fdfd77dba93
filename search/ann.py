"""The FAISS structure over one space's embeddings: exact inner product, read from a memory-mapped file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_FAISS: Any = faiss
"""Without its types: they describe the C++ constructors, not the Python ones that FAISS puts in their place."""


class ExactIndex:
    """Immutable exact search over n vectors, addressed by position 0..n-1. Any number of threads may search it."""

    def __init__(self, index: Any) -> None:
        self._index = index
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d) if index.ntotal else np.empty(0, np.float32)
        self.vectors: NDArray[np.float32] = flat.reshape(index.ntotal, index.d)
        """(n, dim) float32, a read-only view of the mapped file: what an exact rerank reads."""
        self.vectors.setflags(write=False)

    @classmethod
    def write(cls, path: Path, dim: int, blocks: Iterable[NDArray[np.float32]]) -> None:
        """Write the structure for blocks of (n_i, dim) unit vectors to a file. The caller makes it durable."""
        index = faiss.IndexFlatIP(dim)
        for block in blocks:
            index.add(block)
        faiss.write_index(index, str(path))

    @classmethod
    def read(cls, path: Path) -> ExactIndex:
        """Map a file that `write` made. Check its hash first: FAISS reads damaged files without complaint.

        Raises RuntimeError where FAISS cannot read it at all.
        """
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Positions of the k nearest vectors by inner product, best first; fewer where there are fewer.

        vector: (dim,) float32. allowed: (n,) bool, the positions that may be found, or None for all.
        """
        k = min(k, self._index.ntotal)
        if k == 0:
            return np.empty(0, dtype=np.int64)
        parameters: Any = None
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            parameters = _FAISS.SearchParameters(sel=_FAISS.IDSelectorBitmap(bitmap))
        _, positions = self._index.search(vector[None, :], k, params=parameters)
        found: NDArray[np.int64] = positions[0]
        return found[found >= 0]

    @property
    def count(self) -> int:
        """How many vectors it holds."""
        return int(self._index.ntotal)
