"""Where a question's time goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Timing:
    """Seconds by stage, added up while a question is answered."""

    decode: float = 0.0
    encode: float = 0.0
    search: float = 0.0
    total: float = 0.0
