"""The part of a write transaction that holds what names images by their ids, indexed or not."""

from __future__ import annotations

from search.catalog.boards import BoardChanges
from search.catalog.decisions import DecisionChanges
from search.catalog.feedback import FeedbackChanges
from search.catalog.shares import ShareChanges
from search.catalog.watches import WatchChanges


class MentionChanges(DecisionChanges, FeedbackChanges, BoardChanges, ShareChanges, WatchChanges):
    """Decisions, marks, boards with their links, and watches."""

    def forget_mentions(self, image_id: str) -> None:
        """Forget what names an image: decisions, marks, boards, watches and their messages."""
        self.clear_not_duplicates([image_id])
        self.forget_marks(image_id)
        self.take_from_boards(image_id)
        self.take_from_watches(image_id)
