"""A file of a generation while it is written, perhaps going on in the last generation's: its size and SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.errors import GenerationDamaged
from search.generations.generation import hash_start
from search.types import JsonObject


class HashedFile:
    """A file that knows the size and SHA-256 of what was written to it, whatever the disk makes of that."""

    def __init__(self, path: Path, digest: Any = None, size: int = 0) -> None:
        """digest, size: SHA-256 so far, and how many bytes, of what the file begins with."""
        self.path = path
        self._file = path.open("ab")
        self.digest = hashlib.sha256() if digest is None else digest
        self.size = size

    @classmethod
    def go_on(cls, old: Path, new: Path, entry: JsonObject) -> HashedFile:
        """A file `new` that begins with the bytes that a manifest's entry names of the file `old`.

        It is the same file, by a hard link, unless something follows there: that may be another generation's, or a
        killed writer's. Raises GenerationDamaged.
        """
        size = int(entry["bytes"])
        digest = hash_start(old, size)
        if digest.hexdigest() != entry["sha256"]:
            raise GenerationDamaged(f"{old} is not what its manifest says.")
        if old.stat().st_size == size:
            with suppress(OSError):  # a file system without hard links
                new.hardlink_to(old)
                return cls(new, digest, size)
        shutil.copyfile(old, new)
        os.truncate(new, size)
        return cls(new, digest, size)

    def write(self, data: bytes) -> int:
        """Append; returns how many bytes."""
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
