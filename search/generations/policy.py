"""Policy: the figures by which generations are made and searched. Handed to `Index.open` and `Index.create`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search.errors import PolicyInvalid


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The figures by which an index is published and searched; each default says what it was chosen for.

    Raises PolicyInvalid.
    """

    exact_search_bytes: int = 64 << 20
    """Bytes of a space's vectors up to which a search compares all of them: two cores read that in 3 ms, a tenth of
    what encoding a picture takes. Beyond, a graph is built."""
    exact_filtered_images: int = 50_000
    """Images that a filter lets through, up to which a search compares all of them: 8 ms at 384 numbers."""
    visited_per_candidate: int = 20
    """Nodes that a search of a graph compares for each candidate it keeps: tells when comparing all is no more work."""

    links: int = 32
    """Links of a graph's node to others (`M`); twice as many on the bottom layer."""
    ef_construction: int = 100
    """Candidates from which a new node's links are chosen."""
    ef_choices: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
    """Candidates that a search may keep (`ef`), ascending: the first at which recall suffices is taken. Where the last
    is not enough, no graph is published."""
    held_out_vectors: int = 512
    """New vectors that are queries before they, and their near copies, join a graph, at most: recall is that of images
    it has not seen."""
    min_held_out_vectors: int = 64
    """Queries below which recall is not measured: with fewer, it is known to a few hundredths only."""
    remeasure_growth: float = 1.1
    """Growth of a space, as a factor, from which on its recall is measured again."""

    min_delta_images: int = 5_000
    """Images newer than the generation that are not worth another one: they are searched in a millisecond."""
    max_delta_share: float = 0.05
    """The same, as a share of the generation's images: the larger of both counts."""
    max_dead_share: float = 0.2
    """Share of removed images above which a generation is written from scratch, without them."""
    probe_vectors: int = 16
    """Stored vectors searched for before a generation is published: each must find itself, but for a few of a graph."""

    def __post_init__(self) -> None:
        for name, allowed, wanted in self._limits():
            if not allowed:  # NaN is not
                raise PolicyInvalid(f"{name} must be {wanted}, not {getattr(self, name)}.")

    def _limits(self) -> Iterator[tuple[str, bool, str]]:
        for name in ("exact_search_bytes", "exact_filtered_images", "min_delta_images", "max_delta_share"):
            yield name, getattr(self, name) >= 0, "at least 0"
        for name in ("visited_per_candidate", "ef_construction", "held_out_vectors", "probe_vectors"):
            yield name, getattr(self, name) >= 1, "at least 1"
        yield "links", self.links >= 2, "at least 2"
        ascending = tuple(sorted({*self.ef_choices})) == (*self.ef_choices,)
        yield "ef_choices", bool(self.ef_choices) and ascending and self.ef_choices[0] >= 1, "ascending, from 1 on"
        few = 1 <= self.min_held_out_vectors <= self.held_out_vectors
        yield "min_held_out_vectors", few, f"between 1 and held_out_vectors ({self.held_out_vectors})"
        yield "remeasure_growth", self.remeasure_growth > 1, "greater than 1"
        yield "max_dead_share", 0 <= self.max_dead_share <= 1, "between 0 and 1"


DEFAULT_POLICY = Policy()
