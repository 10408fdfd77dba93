"""A decoder that does what bad files do to decoders. Workers import it, and so it imports no more than they may."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
from PIL import Image

from indexer.pictures.decode import Decoded, DecodeLimits, decode
from search.types import ImageFacts


def rigged(data: bytes, inputs: Any, *, limits: DecodeLimits) -> Decoded:
    """`decode`, but for files that say what is to happen."""
    if data.startswith(b"abort"):
        os.abort()
    if data.startswith(b"exit"):
        os._exit(3)
    if data.startswith(b"hang"):
        time.sleep(60)
    if data.startswith(b"sleep"):
        time.sleep(1)
        return decode(data[5:], inputs, limits=limits)
    if data.startswith(b"spin"):
        while True:
            pass
    if data.startswith(b"swell"):
        return decode(b"x" * (2 * limits.max_memory), inputs, limits=limits)
    if data.startswith(b"memory"):
        for _ in range(3):
            decode(data[6:], inputs, limits=limits)
        pillow: Any = Image
        facts = ImageFacts(width=pillow.core.get_stats()["reused_blocks"], height=1, format="memory", bytes=1)
        return Decoded(facts=facts, pixels=np.zeros((1, 1, 3), "u1"))
    if data.startswith(b"modules"):
        loaded = ",".join(name for name in ("torch", "faiss", "transformers", "PIL") if name in sys.modules)
        return Decoded(facts=ImageFacts(width=1, height=1, format=loaded, bytes=1), pixels=np.zeros((1, 1, 3), "u1"))
    return decode(data, inputs, limits=limits)


def slow(data: bytes, inputs: Any, *, limits: DecodeLimits) -> Decoded:
    """`decode` on a machine that needs a second for anything."""
    time.sleep(1)
    return decode(data, inputs, limits=limits)
