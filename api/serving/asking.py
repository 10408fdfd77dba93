"""From a question to a query: its prompt resolved, its pictures and texts embedded, each in the space it is looked for
in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from api.serving.embedding import Embedding
from api.serving.prompts import resolved
from api.serving.questions import Question
from api.serving.timing import Timing
from api.serving.words import WordsEmbedding
from search.index import Index
from search.types import Query, Vector

Read = Callable[[Callable[[Index], Question]], Awaitable[Question]]


async def query_of(
    question: Question, index: Index, embedding: Embedding, embeds_words: WordsEmbedding, timing: Timing, *, read: Read
) -> tuple[Query, str]:
    """The query, and the name of its space, or of its first aspect's. read: reads the index beside the event loop.

    Raises QuestionInvalid, PromptInvalid, Overloaded, and what `Embedding.look` raises.
    """
    if question.prompt is not None:  # its ids are looked up
        question = await read(partial(resolved, question))
    draft = question.draft(index)
    look = partial(embedding.look, timing=timing, turns=question.options.turns)
    looked = [await look(one.data, space=space, box=one.box) for one, space in question.pictures_in(draft)]
    words: list[Vector | None] = []
    for text, space in question.texts_in(draft):
        words += await embeds_words.embed_or_none([text], space, timing, needed=draft.words is None) or [None]
    return question.query(draft, looked, words), question.spaces(draft)[0].name
