"""Questions: what a client looks for and its options, on the way to a query of the index.

Forms, addresses, JSON bodies and the command line share `SearchOptions`; only here does a question become a `Query`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from api.errors import QuestionInvalid, QuestionUnreadable
from api.serving.looked import Looked
from indexer.encoders.words import spaces_of_words
from indexer.pictures.decode import Box
from search.filters import KeyTwice, parse_filter, parse_json
from search.index import Index
from search.query.parts import MAX_WINDOW, check_window
from search.query.prompt import Prompt
from search.types import Aspect, Combine, Query, QueryPart, Space, Vector

MAX_TEXT = 4_000
"""Characters of all texts of a question: each sentence takes 10 to 100 ms to embed."""
_WHITE_SPACE = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _whole(value: object) -> object:
    """JSON has one kind of number: 10.0 is 10."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _from_json(value: object) -> object:
    """The filter object of a string. Raises QuestionUnreadable, FilterInvalid."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        expression = read_json(value)
    except (ValueError, RecursionError) as error:
        raise QuestionUnreadable('`filter` is not JSON. Send an object such as {"label": "cat"}.') from error
    parse_filter(expression)
    return expression


Name = Annotated[str, StringConstraints(max_length=200)]
Whole = Annotated[int, BeforeValidator(_whole)]
_FilterString = {"type": "string", "description": 'JSON, e.g. {"label": "cat"}.'}


class SearchOptions(BaseModel):
    """How to look, and what to answer with."""

    model_config = ConfigDict(extra="forbid")

    k: Whole = Field(default=10, ge=1, le=MAX_WINDOW, description="How many hits.")
    offset: Whole = Field(default=0, ge=0, le=MAX_WINDOW, description="How many hits to pass over first.")
    min_score: float | None = Field(
        default=None, ge=-1, le=1, allow_inf_nan=False, description="Leave out hits below this score."
    )
    max_fmr: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = Field(
        default=None, description="Leave out hits with a higher false-match rate; `auto` chooses it."
    )
    filter: dict[str, Any] | None = Field(default=None, description="Which images may be hits; see docs/http.md.")
    space: Name | None = Field(
        default=None, description="Default: the index's default; of words, the one that knows them."
    )
    fold: bool = Field(default=False, description="Near-equal images are one hit, the best of them, with its copies.")
    turns: bool = Field(
        default=False, description="Ask with each image in all eight orientations; an image's best score counts."
    )
    rerank: bool = Field(
        default=False,
        description="In a space of regions: look where the image lies in the ten best, and order them so.",
    )


class WrittenOptions(SearchOptions):
    """The same where every value is a string: in forms and addresses."""

    filter: Annotated[dict[str, Any] | None, BeforeValidator(_from_json), WithJsonSchema(_FilterString)] = None


@dataclass(frozen=True, kw_only=True)
class QueryPicture:
    """The bytes of an image file. box: look at this part only, (x, y, width, height) in pixels."""

    data: bytes
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class QuestionPart:
    """One weighted part: exactly one of a picture, a text, the id of an indexed image, and an embedding ((dim,)
    float32); searched: as `QueryPart` has it."""

    picture: QueryPicture | None = None
    text: str | None = None
    id: str | None = None
    vector: Vector | None = None
    searched: bool = False
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class QuestionAspect:
    """Weighted parts that are looked for in one space. space: None as in SearchOptions."""

    parts: Sequence[QuestionPart]
    space: str | None = None
    weight: float = 1.0

    @property
    def texts(self) -> list[str]:
        """The texts among its parts."""
        return [part.text for part in self.parts if part.text is not None]

    @property
    def words_share(self) -> float:
        """The texts' share of the weights that are not negative."""
        given = [(max(0.0, part.weight), part.text is not None) for part in self.parts]
        total = sum(weight for weight, _ in given)
        return sum(weight for weight, text in given if text) / total if total else 1.0

    def in_space(self, index: Index) -> Space:
        """The space that is asked for; of parts with words, by default the first that knows any. Where none does, words
        are looked for in the catalog alone."""
        if not self.texts:
            return index.space(self.space)
        known = spaces_of_words(index.spaces)
        less = any(part.text is not None and part.weight * self.weight <= 0 for part in self.parts)
        # An image may have no vector of words yet: then it is asked for in the default space, and words in the catalog.
        ids = any(part.id is not None for part in self.parts)
        usable = [space for space in known if space.complete or less or not ids]
        wanted = index.space(self.space or (usable[0].name if usable else None))
        if wanted.recipe.knows_words or (self.space is None and not less):
            return wanted
        advice = (
            f"Leave the space out, or name {known[0].name}."
            if known
            else "Add one: lookalike spaces INDEX add --words."
        )
        raise QuestionInvalid(f"The space {wanted.name} knows no words. {advice}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """Weighted parts, or several aspects, each with its own, or a prompt; and how to look for them.

    A prompt becomes parts or aspects by `prompts.resolved`, before a draft; images: those that it names, by name.
    """

    parts: Sequence[QuestionPart] = ()
    aspects: Sequence[QuestionAspect] = ()
    prompt: Prompt | None = None
    images: Mapping[str, QueryPicture] = field(default_factory=dict)
    combine: Combine = "sum"
    options: SearchOptions

    @property
    def sides(self) -> Sequence[QuestionAspect]:
        """The aspects; one of the parts, in the space of the options, where there are none."""
        return self.aspects or (QuestionAspect(parts=self.parts, space=self.options.space),)

    @property
    def pictures(self) -> list[QueryPicture]:
        """All pictures."""
        parts = (part for side in self.sides for part in side.parts)
        return [*self.images.values(), *(part.picture for part in parts if part.picture is not None)]

    @property
    def shown(self) -> QueryPicture | str | None:
        """The only picture, or id, that is looked for, and nothing beside it; None where it is not so."""
        if len(self.parts) != 1 or self.parts[0].weight <= 0:
            return None
        return self.parts[0].picture or self.parts[0].id

    @property
    def texts(self) -> list[str]:
        """All texts."""
        return [text for side in self.sides for text in side.texts]

    def spaces(self, draft: Query) -> list[Space]:
        """The space of each of the `sides`."""
        return [
            space for space in (draft.space, *(aspect.space for aspect in draft.aspects)) if isinstance(space, Space)
        ]

    def pictures_in(self, draft: Query) -> list[tuple[QueryPicture, Space]]:
        """The pictures whose embeddings `query` wants, in this order, and the space of each."""
        sides = zip(self.sides, self.spaces(draft), strict=True)
        return [(part.picture, space) for side, space in sides for part in side.parts if part.picture is not None]

    def texts_in(self, draft: Query) -> list[tuple[str, Space]]:
        """The texts whose embeddings `query` wants, in this order, and the space of each: those that know words."""
        sides = zip(self.sides, self.spaces(draft), strict=True)
        return [(text, space) for side, space in sides if space.recipe.knows_words for text in side.texts]

    def draft(self, index: Index) -> Query:
        """The query without its parts: what is wrong with the options is known before a picture is decoded.

        Raises QuestionInvalid, QueryInvalid, FilterInvalid, UnknownSpace.
        """
        options = self.options
        if self.aspects and (self.parts or options.space is not None):
            raise QuestionInvalid("A question has either parts, and perhaps a space, or aspects, each with its own.")
        for part in (part for side in self.sides for part in side.parts):
            if sum(value is not None for value in (part.picture, part.text, part.id, part.vector)) != 1:
                raise QuestionInvalid("Each part needs exactly one of image, text, id and vector.")
            if part.text is not None and not any(letter.isalnum() for letter in part.text):
                raise QuestionInvalid("The text of a part has no word. Say what to look for.")
        if sum(map(len, self.texts)) > MAX_TEXT:
            raise QuestionInvalid(f"The texts of a question have {MAX_TEXT:,} characters at most.")
        if options.turns and not self.pictures:
            raise QuestionInvalid("Only an image can be turned: a question with `turns` needs one.")
        spaces = [side.in_space(index) for side in self.sides]
        if options.rerank and (self.shown is None or options.turns or spaces[0].recipe.regions is None):
            raise QuestionInvalid(
                "`rerank` takes one image, or one id, in a space of regions: without other parts, a negative weight or "
                "`turns`."
            )
        query = Query(
            combine=self.combine,
            aspects=[
                Aspect(parts=(), space=space, weight=side.weight)
                for side, space in zip(self.aspects, spaces, strict=False)
            ],
            k=options.k,
            offset=options.offset,
            fold=options.fold,
            min_score=options.min_score,
            max_fmr=options.max_fmr,
            filter=None if options.filter is None else parse_filter(options.filter),
            space=None if self.aspects else spaces[0],
            words=self._words(),
            words_share=self._words_share(),
        )
        check_window(query)
        return query

    def _words(self) -> str | None:
        """What is looked for in the catalog; nothing where a space is named."""
        texts = [
            part.text
            for side in self.sides
            for part in side.parts
            if part.text is not None and part.weight * side.weight > 0 and side.space is None
        ]
        return " ".join(texts) if texts else None

    def _words_share(self) -> float:
        """The texts' share of what is wanted, where a space is not named."""
        if not self.aspects:
            return self.sides[0].words_share
        wanted = [(side.weight, side.words_share if side.space is None else 0.0) for side in self.aspects]
        total = sum(max(0.0, weight) for weight, _ in wanted)
        return sum(max(0.0, weight) * share for weight, share in wanted) / total if total else 1.0

    def query(self, draft: Query, looked: Iterable[Looked] = (), words: Iterable[Vector | None] = ()) -> Query:
        """The draft with its parts. looked: at `pictures_in`, in their order; words: of `texts_in`, each (dim,),
        None where it is looked for in the catalog alone."""
        pictures, texts = iter(looked), iter(words)
        sides: list[list[QueryPart]] = []
        for side, space in zip(self.sides, self.spaces(draft), strict=True):
            knows = space.recipe.knows_words
            parts = []
            for part in side.parts:
                vector, phash = part.vector, None
                if part.picture is not None:
                    vector, phash = next(pictures)
                elif part.text is not None:
                    vector = next(texts, None) if knows else None
                made = QueryPart(id=part.id, vector=vector, phash=phash, weight=part.weight, searched=part.searched)
                parts.append(replace(made, of_words=part.text is not None))
            sides.append([part for part in parts if part.id is not None or part.vector is not None])
        if not self.aspects:
            return replace(draft, parts=sides[0])
        found = [replace(aspect, parts=parts) for aspect, parts in zip(draft.aspects, sides, strict=True) if parts]
        return replace(draft, aspects=found)


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, RecursionError; QuestionInvalid where an object has a key twice."""
    try:
        return parse_json(text)
    except KeyTwice as error:
        raise QuestionInvalid("An object of the JSON has a key twice. Send each key once.") from error


def read_base64(text: str) -> bytes:
    """The bytes of a base64 string, in the standard or the URL-safe alphabet, with or without padding and white space.

    A data URI is taken too. Raises QuestionInvalid.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        text = text.lstrip()
        if text[:5].lower() == "data:":
            text = _payload(text)
        data = text.encode("ascii").translate(_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise QuestionInvalid("An image in JSON is the bytes of its file in base64.") from error


def _payload(uri: str) -> str:
    """The bytes behind a data URI's comma, as base64 (RFC 2397). Raises ValueError where that is not base64."""
    kind, comma, payload = uri.partition(",")
    if not comma or not kind.rstrip().lower().endswith(";base64"):
        raise ValueError("not base64")
    for escaped, character in (("%2B", "+"), ("%2F", "/"), ("%3D", "="), ("%2b", "+"), ("%2f", "/"), ("%3d", "=")):
        payload = payload.replace(escaped, character)
    return payload


def read_vector(numbers: Sequence[float]) -> Vector:
    """An embedding as it is written ((dim,) float32). What is beyond float32 becomes infinite, which queries refuse."""
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float32)


def read_box(values: Sequence[str | float]) -> Box:
    """A box of four numbers or strings. Raises QuestionInvalid."""
    try:
        x, y, width, height = (float(value) for value in values)
    except ValueError as error:
        raise QuestionInvalid("`box` is four numbers: x,y,width,height in pixels.") from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise QuestionInvalid("`box` is four finite numbers: x,y,width,height in pixels.")
    return x, y, width, height
