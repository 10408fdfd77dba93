"""Saved questions: what boards and watches keep, as a search over HTTP without pictures."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from api.errors import QuestionInvalid
from api.serving.prompts import resolved, with_whole_ids
from api.serving.questions import MAX_TEXT, Question, QuestionPart, SearchOptions, read_vector
from search.errors import PromptInvalid
from search.filters import parse_filter
from search.index import Index
from search.query.parts import MAX_PARTS
from search.query.prompt import read_prompt
from search.types import JsonObject

MAX_QUESTION = 256 * 1024
"""Bytes of a saved question's JSON: boards are read as a whole. A vector of 2,304 numbers takes 50,000."""
_STRICT = ConfigDict(extra="forbid", strict=True)
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class SavedPart(BaseModel):
    """One weighted part of a saved question: words, the id of an indexed image, or an embedding."""

    model_config = _STRICT

    text: str | None = Field(default=None, max_length=2_000, description="Words: what the images show.")
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)] | None = Field(
        default=None, description="An indexed image."
    )
    vector: list[_Finite] | None = Field(default=None, max_length=10_000, description="An embedding of the space.")
    weight: _Finite = Field(default=1.0, description="May be negative: less like this.")


class SavedQuestion(SearchOptions):
    """A question as it is kept: parts or a prompt, and options of searches."""

    model_config = _STRICT

    parts: list[SavedPart] | None = Field(default=None, min_length=1, max_length=MAX_PARTS)
    prompt: str | None = Field(
        default=None, max_length=MAX_TEXT, description="E.g. `red bicycle --no people`, or `id:3fa9 + snow`; no paths."
    )

    def question(self) -> Question:
        """The question to ask. Raises QuestionInvalid, PromptInvalid."""
        if (self.parts is None) == (self.prompt is None):
            raise QuestionInvalid(
                "A saved question has exactly one of `parts` (each with text, id or vector) and `prompt`. A filter and "
                "other options may stand beside it."
            )
        if self.prompt is not None:
            prompt = read_prompt(self.prompt)
            for path in prompt.paths:
                raise PromptInvalid(
                    "A saved question keeps no pictures. Name an indexed one by its id: id:3fa9. Or put it in quotes "
                    "if it is words.",
                    path.position,
                )
            return Question(prompt=prompt, options=self)
        parts = [
            QuestionPart(
                text=part.text,
                id=part.id,
                vector=None if part.vector is None else read_vector(part.vector),
                weight=part.weight,
            )
            for part in self.parts or ()
        ]
        return Question(parts=parts, options=self)

    def to_json(self) -> dict[str, Any]:
        """What is kept: the fields that were given. Raises QuestionInvalid, FilterInvalid."""
        for part in self.parts or ():
            if sum(value is not None for value in (part.text, part.id, part.vector)) != 1:
                raise QuestionInvalid("Each part of a saved question needs exactly one of text, id and vector.")
        if self.filter is not None:
            parse_filter(self.filter)
        if self.rerank:
            raise QuestionInvalid("A question is kept without `rerank`. Ask for that when you look.")
        body = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        try:
            size = len(json.dumps(body, ensure_ascii=False, allow_nan=False).encode())
        except (ValueError, RecursionError) as error:
            raise QuestionInvalid("A saved question must be valid Unicode, with finite numbers.") from error
        if size > MAX_QUESTION:
            raise QuestionInvalid(f"A saved question has at most {MAX_QUESTION:,} bytes of JSON.")
        return body


def settled(saved: SavedQuestion, index: Index) -> SavedQuestion:
    """A question to keep, which can be asked now. The ids of its prompt are whole: they stay those of one image.

    Raises QuestionInvalid, PromptInvalid, and what `Question.draft` raises.
    """
    question = saved.question()
    resolved(question, index).draft(index)
    if question.prompt is None:
        return saved
    return saved.model_copy(update={"prompt": str(with_whole_ids(question.prompt, index))})


def read_given(body: JsonObject, where: str) -> SavedQuestion:
    """A question that somebody wrote; where: into what. Raises QuestionInvalid, which names the first wrong field."""
    try:
        return SavedQuestion.model_validate(dict(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise QuestionInvalid(
            f"{where}: {field}: {first['msg']}. A question has `parts`, each with text, id or vector, or a `prompt`; "
            "and perhaps a filter, and options of a search."
        ) from error


def read_saved(body: JsonObject) -> SavedQuestion:
    """A question that was kept. Raises QuestionInvalid where this version cannot ask it."""
    try:
        return SavedQuestion.model_validate(dict(body))
    except ValueError as error:
        raise QuestionInvalid("The saved question cannot be read. Delete it, and save it again.") from error


def checked_name(text: str) -> str:
    """A name as `checked_text`, and not an empty one. Raises QuestionInvalid."""
    name = checked_text(text, "A name")
    if not name:
        raise QuestionInvalid("A name has at least one character that is not white space.")
    return name


def checked_text(text: str, what: str) -> str:
    """A text that people wrote, without space around it, as the catalog can hold it. Raises QuestionInvalid."""
    kept = text.strip()
    if any("\ud800" <= one <= "\udfff" or (one < " " and one not in "\n\r\t") or one == "\x7f" for one in kept):
        raise QuestionInvalid(f"{what} must be valid Unicode without control characters.")
    return kept
