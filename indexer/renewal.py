"""Spaces of words that this version of Lookalike cannot fill or read any more: new ones take their places."""

from __future__ import annotations

from collections.abc import Callable

from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.words import head_sha256, is_known
from indexer.errors import ModelUnavailable
from indexer.new_space import space_to_add
from search.index import Index
from search.writer import Writer


def is_renewable(index: Index) -> bool:
    """Whether the index has a space, not its default, whose words this version does not know."""
    default = index.space().name
    return any(space.name != default and not is_known(space.recipe, index.models) for space in index.spaces)


def renew_words(index: Index, writer: Writer, *, warn: Callable[[str], None]) -> None:
    """Drop the spaces of words that this version does not know, and add the one that it does, still empty.

    Without it no image could be added any more: an image needs a vector in each complete space. The vectors are made of
    those in another space where it has them, which takes seconds; `Fill` does it. What captions taught stays where it
    is known; where it is not, only they can teach it again. Raises as `Writer.drop_space` does.
    """
    default = index.space().name
    outdated = [space for space in index.spaces if space.name != default and not is_known(space.recipe, index.models)]
    for space in outdated:
        writer.drop_space(space.name)
        again = (
            "" if space.name.endswith("words") else f" To learn it again from captions: lookalike align {index.path}"
        )
        warn(f"The space {space.name} is dropped: another version of Lookalike made it, or its head is lost.{again}")
    told = [space.recipe.words for space in index.spaces if space.recipe.words is not None]
    if not outdated or any(words.head_sha256 == head_sha256() for words in told):
        return
    try:
        writer.add_space(space_to_add(index.catalog.spaces(), SpaceRequest(words=True)))
        warn("A space of words that this version knows takes its place, and is filled now.")
    except ModelUnavailable as error:
        warn(f"Words are looked for in the catalog alone. {error}")
