"""From a prompt to the question that it asks of an index: its ids looked up, its pictures put in, its style apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api.errors import QuestionInvalid
from api.serving.questions import Question, QuestionAspect, QuestionPart
from search.errors import PromptInvalid, UnknownImage
from search.index import Index
from search.query.prompt import Prompt, PromptPart

STYLE = "style"
"""What names of spaces in which images of one style are near begin with, or end with, after the name of a model."""


def resolved(question: Question, index: Index) -> Question:
    """The same question with parts, or aspects, in the place of its prompt; one that has none as it is.

    Pictures are looked for in the index's default space, words in one that knows words: that finds more than both in
    one (docs/relevance.md). With a `space` both are looked for there. Raises PromptInvalid, QuestionInvalid.
    """
    prompt = question.prompt
    if prompt is None:
        return question
    if question.parts or question.aspects:
        raise QuestionInvalid("A question has exactly one of parts, aspects and a prompt.")
    if question.options.rerank:
        raise QuestionInvalid("The hits of a prompt are not reranked. Ask with one image, or one id.")
    spare = question.images.keys() - {part.value for part in prompt.paths}
    if spare:
        raise QuestionInvalid(f"The prompt names no image {min(spare)!r}. Send the images that it names.")
    of_words = [_part(part, question, index) for part in prompt.parts if part.kind == "words"]
    of_images = [_part(part, question, index) for part in prompt.parts if part.kind != "words"]
    style = [_part(part, question, index) for part in prompt.style]
    space = question.options.space
    if space is not None or not (of_words and of_images):
        sides = [_aspect([*of_images, *of_words], space)]
    else:
        sides = [_aspect(of_images, None), _aspect(of_words, None)]
    if not style:
        (first, *others) = sides
        if not others:
            return replace(question, prompt=None, images={}, parts=first.parts)
        return replace(question, prompt=None, images={}, aspects=sides)
    sides = [side for side in sides if side.parts]
    weight = prompt.style_weight * (sum(side.weight for side in sides) or 1.0)
    sides.append(QuestionAspect(parts=style, space=_style_space(index, prompt.style[0]), weight=weight))
    options = question.options.model_copy(update={"space": None})
    return replace(question, prompt=None, images={}, aspects=sides, options=options)


def with_whole_ids(prompt: Prompt, index: Index) -> Prompt:
    """The same prompt, in which ids are whole. Raises PromptInvalid."""

    def whole(part: PromptPart) -> PromptPart:
        return replace(part, value=_id(part, index)) if part.kind == "id" else part

    return replace(prompt, parts=tuple(map(whole, prompt.parts)), style=tuple(map(whole, prompt.style)))


def _aspect(parts: Sequence[QuestionPart], space: str | None) -> QuestionAspect:
    """An aspect that counts as much as its parts do together."""
    return QuestionAspect(parts=parts, space=space, weight=sum(abs(part.weight) for part in parts))


def _part(part: PromptPart, question: Question, index: Index) -> QuestionPart:
    if part.kind == "words":
        return QuestionPart(text=part.value, weight=part.weight)
    if part.kind == "id":
        return QuestionPart(id=_id(part, index), weight=part.weight)
    if part.value not in question.images:
        raise PromptInvalid(
            f"{part.value} is a path, which a server does not open. Send the image under this name in `images`; or put "
            "it in quotes if it is words.",
            part.position,
        )
    return QuestionPart(picture=question.images[part.value], weight=part.weight)


def _id(part: PromptPart, index: Index) -> str:
    try:
        return whole_id(part.value, index)
    except (UnknownImage, QuestionInvalid) as error:
        raise PromptInvalid(str(error), part.position) from error


def whole_id(beginning: str, index: Index) -> str:
    """The only id that begins so. Raises UnknownImage, QuestionInvalid where there are several."""
    found = index.catalog.ids_beginning(beginning, 2)
    if not found:
        raise UnknownImage(f"The index has no image whose id begins with {beginning}.")
    if len(found) > 1:
        raise QuestionInvalid(f"Several images' ids begin with {beginning}. Add digits.")
    return found[0]


def _style_space(index: Index, part: PromptPart) -> str:
    for space in index.spaces:
        if space.name.startswith(STYLE) or space.name.endswith(f"-{STYLE}"):
            return space.name
    raise PromptInvalid("The index has no space of style. Add one: lookalike spaces INDEX add --style.", part.position)
