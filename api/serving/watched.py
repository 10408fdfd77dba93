"""Questions that watches ask: what they may be, and the cut that each needs."""

from __future__ import annotations

from collections.abc import Sequence

from api.errors import QuestionInvalid
from api.serving.prompts import resolved
from api.serving.questions import Question, SearchOptions
from api.serving.saved import SavedQuestion, settled
from indexer.encoders.words import spaces_of_words
from search.index import Index
from search.types import Hit

ALLOWED = frozenset(("parts", "prompt", "filter", "space", "min_score", "max_fmr"))
ALL_MATCH = "Without a cut, every new image is a match."


def checked_watch(saved: SavedQuestion, index: Index) -> SavedQuestion:
    """A question that can be watched: with a cut, and, where it has words, in a space that knows them.

    The catalog's words have ranks, which say nothing of a single new image. Raises QuestionInvalid, PromptInvalid.
    """
    if saved.model_fields_set - ALLOWED:
        raise QuestionInvalid(
            "The question of a watch has parts or a prompt, filter, space, min_score and max_fmr, and no more."
        )
    if saved.min_score is None and saved.max_fmr in (None, 1):
        raise QuestionInvalid(f"A watch needs a cut: min_score, or max_fmr below 1. {ALL_MATCH}")
    asked = saved.question()
    if asked.prompt is not None and asked.prompt.style:
        raise QuestionInvalid("A watch looks in one space. Leave `--style` out of its prompt.")
    if saved.space is None and resolved(asked, index).texts:
        known = [space.name for space in spaces_of_words(index.spaces)]
        if not known:
            raise QuestionInvalid(
                "A watch looks for words in a space that knows them. Add one: lookalike spaces INDEX add --words."
            )
        saved = saved.model_copy(update={"space": known[0]})
    _check_rates(saved, watched(saved, index))
    return settled(saved, index)


def watched(saved: SavedQuestion, index: Index) -> Question:
    """The question of a watch, to ask of the index. Raises QuestionInvalid, PromptInvalid."""
    return resolved(saved.question(), index)


def check_cut(question: Question, hits: Sequence[Hit]) -> None:
    """Raise QuestionInvalid where `max_fmr` alone is to cut, and cut nothing, as the space knows no rates yet."""
    _check_rates(question.options, question)
    if question.options.min_score is None and any(hit.fmr is None for hit in hits):
        raise QuestionInvalid(
            "The space has no false-match rates, which max_fmr needs: it was published with too few images. Run "
            f"lookalike rebuild once there are 100, or send min_score. {ALL_MATCH}"
        )


def _check_rates(options: SearchOptions, question: Question) -> None:
    """Raise QuestionInvalid where `max_fmr` cuts nothing, whatever the space knows."""
    parts = [part for side in question.sides for part in side.parts]
    if options.max_fmr is None or options.min_score is not None:
        return
    if len(parts) != 1 or parts[0].text is not None or parts[0].weight < 0:
        raise QuestionInvalid(
            "Words and mixtures have no false-match rates, which max_fmr needs. Send min_score: a search with the same "
            f"question and space {_named(question)}shows which scores its hits have. {ALL_MATCH}"
        )


def _named(question: Question) -> str:
    space = question.sides[0].space
    return f"{space} " if space else ""
