"""Promises of what commands print."""

from __future__ import annotations

import pytest

from search.console import file_size


@pytest.mark.parametrize(
    ("count", "printed"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (47_200, "47.2 kB"),
        (1_500_000, "1.5 MB"),
        (2_340_000_000_000, "2,340.0 GB"),
    ],
)
def test_sizes_are_read_at_a_glance(count: int, printed: str) -> None:
    assert file_size(count) == printed
