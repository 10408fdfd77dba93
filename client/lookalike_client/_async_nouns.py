"""What a client has under names of its own. `_nouns.py` is made of `_async_nouns.py`: change this one."""

from __future__ import annotations

from lookalike_client._async_boards import AsyncBoards
from lookalike_client._async_explain import AsyncExplaining
from lookalike_client._async_feedback import AsyncFeedback
from lookalike_client._async_watches import AsyncWatches


class AsyncNouns(AsyncExplaining):
    """A connection, and the calls that it groups by what they are about."""

    @property
    def feedback(self) -> AsyncFeedback:
        """More and less like this: questions that marks adapt, kept in sessions, made labels."""
        return AsyncFeedback(self)

    @property
    def boards(self) -> AsyncBoards:
        """Boards: collections of images and questions, with comments, votes, and links for guests."""
        return AsyncBoards(self)

    @property
    def watches(self) -> AsyncWatches:
        """Watches: questions whose new matches are told to an address."""
        return AsyncWatches(self)
