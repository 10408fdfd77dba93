"""What a client has under names of its own. `_nouns.py` is made of `_async_nouns.py`: change this one."""

from __future__ import annotations

from lookalike_client._boards import Boards
from lookalike_client._explain import Explaining
from lookalike_client._feedback import Feedback
from lookalike_client._watches import Watches


class Nouns(Explaining):
    """A connection, and the calls that it groups by what they are about."""

    @property
    def feedback(self) -> Feedback:
        """More and less like this: questions that marks adapt, kept in sessions, made labels."""
        return Feedback(self)

    @property
    def boards(self) -> Boards:
        """Boards: collections of images and questions, with comments, votes, and links for guests."""
        return Boards(self)

    @property
    def watches(self) -> Watches:
        """Watches: questions whose new matches are told to an address."""
        return Watches(self)
