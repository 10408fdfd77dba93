"""A gate: a limit of what may be under way at once, without a queue in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import Overloaded


class Gate:
    """Lets in what its limit has room for, and refuses the rest at once."""

    def __init__(self, limit: int) -> None:
        """limit: the sum of the weights that may be inside."""
        self._limit = limit
        self.inside = 0

    @contextmanager
    def entered(self, weight: int = 1, *, held: int = 0) -> Iterator[None]:
        """While a block runs. Whoever is alone always enters. held: what the same request holds of it.

        Raises Overloaded where there is no room.
        """
        more = max(0, weight - held)
        if more and self.inside > held and self.inside + more > self._limit:
            raise Overloaded
        self.inside += more
        try:
            yield
        finally:
            self.inside -= more
