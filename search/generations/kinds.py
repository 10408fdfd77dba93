"""The kinds of transforms: how each is fitted to a space, and read from its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from search.errors import PolicyInvalid
from search.generations.transform import Identity, Sample, Transform
from search.generations.whitening import Whitening, fit
from search.types import Space


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of transform. fit: makes one for a space, as its `transform` says; read: one from its file's bytes, for
    so many stored numbers, and raises ValueError where they are not what `to_bytes` gave."""

    fit: Callable[[Space, Sample], Transform]
    read: Callable[[int, bytes], Transform]


def check_kinds(spaces: Iterable[Space]) -> None:
    """Raise PolicyInvalid where a space asks for a transform that there is not."""
    for space in spaces:
        if space.transform.kind not in KINDS:
            raise PolicyInvalid(f"There is no transform {space.transform.kind!r}. Use one of: {', '.join(KINDS)}.")


KINDS: dict[str, Kind] = {
    "identity": Kind(fit=lambda space, _: Identity(space.recipe.dim), read=lambda dim, _: Identity(dim)),
    "whitening": Kind(fit=fit, read=Whitening.read),
}
"""By name: what `TransformSpec.kind` and manifests call them."""
