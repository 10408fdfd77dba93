"""One search from the command line: asked of an index on disk, or of a server, answered in the same JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from lookalike_client import (
    Client,
    LookalikeError,
    SearchResult,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnsupportedImage,
)

from api.errors import FileGone, ServerFailed
from api.http.search_schemas import SearchAnswer
from api.serving.looked import Looked
from api.serving.pictures import open_original
from api.serving.prompts import resolved
from api.serving.questions import QueryPicture, Question, QuestionPart, SearchOptions
from api.serving.reranking import rerank_here, reranks, widened
from api.serving.timing import Timing
from indexer.encoders.encoder import Encoder
from indexer.encoders.words import TextEncoder, load_text_encoder
from indexer.errors import ImageRejected, ModelUnavailable, ModelUnsupported, SourceMissing
from indexer.index_encoder import load_index_encoder
from indexer.names import learn_words
from indexer.pictures.decode import Box, DecodeLimits, decode, thumbnail
from indexer.pictures.preprocess import inputs_of, orientations
from indexer.pictures.sheet import CELL, Picture, draw_sheet
from indexer.sources import as_on_disk
from search.errors import IndexLocked, IndexMoved, PromptInvalid, StorageFailed, UnknownImage
from search.index import Index
from search.query.prompt import Prompt, PromptPart, read_prompt
from search.types import Combine, Query, Space, Vector
from search.vectors import views

Answer = TypeVar("Answer")
LEARN_WORDS = 1_024
"""Of names, that a search learns at most: some 3 seconds, as long as it takes to load the encoder. Not so many seconds:
what is found would depend on the machine."""
SENT_SIDE = 2_048
"""Pixels of the longer side of what is sent in the place of a picture that is too large for a server: models look at a
few hundred."""
REFUSALS = (TooLarge, UnsupportedImage, Unprocessable)
REFUSED_PICTURE = ("unreadable-image", "unsupported-image")
"""Codes of refusals of a picture that a search of an index may take: its limits are wider, and it may read other kinds.
So it is with what is too large, whatever the code: a proxy's own limit is often below the server's."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of the command line: an image file, words, an id or a prompt, and how to look.

    combine: how the parts of a prompt make one score.
    """

    image: Path | None = None
    text: str | None = None
    id: str | None = None
    prompt: str | None = None
    box: Box | None = None
    combine: Combine = "sum"
    options: SearchOptions

    def question(self) -> Question:
        """With the bytes of its images. Raises SourceMissing, PromptInvalid."""
        if self.prompt is not None:
            prompt = read_prompt(self.prompt)
            images = {part.value: QueryPicture(data=_read_part(part)) for part in prompt.paths}
            return Question(prompt=prompt, images=images, combine=self.combine, options=self.options)
        picture = None if self.image is None else QueryPicture(data=_read(self.image), box=self.box)
        part = QuestionPart(picture=picture, text=self.text, id=self.id)
        return Question(parts=[part], combine=self.combine, options=self.options)


def ask_index(path: Path, asked: Asked, *, warn: Callable[[str], None]) -> dict[str, Any]:
    """Answer from an index on disk, in the HTTP answer's form. Loads its encoder where the question is a picture.

    warn: told where another encoder stands in for the index's own.
    """
    began = time.perf_counter()
    timing = Timing()
    with Index.open(path) as index:
        query, space = query_of(index, asked, timing, warn=warn)
        rerank = asked.options.rerank and reranks(query)
        start = time.perf_counter()
        hits = index.search(widened(query) if rerank else query)
        timing.search = time.perf_counter() - start
        if rerank:
            shown = asked.question().shown
            assert shown is not None
            with _named(asked.image or Path(asked.id or "")):
                hits = rerank_here(index, index.space(space), shown, hits, timing)
            hits = hits[query.offset : query.offset + query.k]
    timing.total = time.perf_counter() - began
    return SearchAnswer.of(hits, space, timing).model_dump()


def query_of(index: Index, asked: Asked, timing: Timing, *, warn: Callable[[str], None]) -> tuple[Query, str]:
    """A question as a query of an index, its pictures and words embedded, and the name of its first space.

    warn: as of `ask_index`.
    """
    given = asked.question()
    names = {id(picture): Path(name) for name, picture in given.images.items()}
    question = resolved(given, index)
    draft = question.draft(index)
    pictures = question.pictures_in(draft)
    spaces = {space.name: space for _, space in pictures}
    encoders = {name: load_index_encoder(index, [space], warn=warn) for name, space in spaces.items()}
    looked = [
        _looked(one, names.get(id(one), asked.image), asked.options, space, encoders[space.name], timing)
        for one, space in pictures
    ]
    start = time.perf_counter()
    texts = question.texts_in(draft)
    words: list[Vector | None] = [None] * len(texts)
    try:
        encoders_of_texts = {one: load_text_encoder(one, index.models) for one in {space.recipe for _, space in texts}}
        words = [encoders_of_texts[space.recipe].encode([text])[0] for text, space in texts]
        if draft.words is not None:
            for space in {space.name: space for _, space in texts}.values():
                _learn(index, space, encoders_of_texts[space.recipe])
    except (ModelUnavailable, ModelUnsupported) as error:
        if draft.words is None:
            raise
        warn(f"Words are looked for in labels, metadata and names alone. {error}")
    timing.encode += time.perf_counter() - start
    return question.query(draft, looked, words), question.spaces(draft)[0].name


def _learn(index: Index, space: Space, encoder: TextEncoder) -> None:
    """Learn what some words of names mean: the rest at the next search, or by a server. An index that others write to,
    or that cannot be written to, is searched by what it knows."""
    if space.recipe.words is not None and index.catalog.unlearned(space.recipe.words.head_sha256, 1):
        with suppress(IndexLocked, IndexMoved, StorageFailed), Index.open(index.path, writable=True) as writable:
            learn_words(writable, space, encoder, most=LEARN_WORDS)


def _looked(
    picture: QueryPicture,
    name: Path | None,
    options: SearchOptions,
    space: Space,
    encoder: Encoder,
    timing: Timing,
) -> Looked:
    start, inputs = time.perf_counter(), inputs_of([space.recipe])
    with _named(name):
        decoded = decode(picture.data, inputs, limits=DecodeLimits(), box=picture.box)
    timing.decode += time.perf_counter() - start
    start = time.perf_counter()
    turned = orientations(decoded.pixels, inputs) if options.turns else (decoded.pixels,)
    vectors = views(encoder.encode(np.stack(turned))[0], space.recipe.count)
    timing.encode += time.perf_counter() - start
    return Looked(vectors if len(vectors) > 1 else vectors[0], None if picture.box else decoded.facts.phash)


def ask_server(url: str, api_key: str | None, asked: Asked) -> dict[str, Any]:
    """Ask a server, which gets smaller JPEGs where it refuses a picture that a search of an index takes.

    Raises ServerFailed with its own words.
    """
    if asked.prompt is not None:
        asked.question()  # what is wrong with it, and files that are not there, are said alike, wherever it is asked
    with server_errors(url), Client(url, api_key=api_key) as client:
        if asked.prompt is not None:
            return _prompted(client, asked, asked.prompt).to_json()
        return sent(asked, lambda data, box: _search(client, asked, data, box)).to_json()


@contextmanager
def server_errors(url: str) -> Iterator[None]:
    """Raise what a server refuses, or the client, as ServerFailed."""
    try:
        yield
    except Unauthorized as error:
        raise ServerFailed(f"{url} wants a key, or another one: --api-key KEY, or LOOKALIKE_API_KEY.") from error
    except (LookalikeError, ValueError) as error:  # ValueError: an address or a key that cannot be one
        text = str(error).replace("base_url", "--server")
        raise ServerFailed(text if url in text else f"{url}: {text}") from error


def sent(asked: Asked, send: Callable[[bytes | None, Box | None], Answer]) -> Answer:
    """Send a question's picture and box, or a smaller picture of the box where a server refuses the picture.

    Raises SourceMissing, ImageRejected, and what `send` raises.
    """
    data = None if asked.image is None else _read(asked.image)
    try:
        return send(data, asked.box)
    except REFUSALS as error:
        if data is None or not _is_of_picture(error):
            raise
        return send(_smaller(asked.image, data, asked.box), None)


def _prompted(client: Client, asked: Asked, prompt: str) -> SearchResult:
    """The same of a prompt, whose pictures are made smaller."""
    try:
        return _search(client, asked, None, None)
    except REFUSALS as error:
        read = read_prompt(prompt)
        if not read.paths or not _is_of_picture(error):
            raise
        with TemporaryDirectory() as folder:
            return _search(client, replace(asked, prompt=str(_made_smaller(read, folder))), None, None)


def _is_of_picture(error: TooLarge | UnsupportedImage | Unprocessable) -> bool:
    return isinstance(error, TooLarge) or error.code in REFUSED_PICTURE


def _smaller(path: Path | None, data: bytes, box: Box | None = None) -> bytes:
    with _named(path):
        return thumbnail(data, SENT_SIDE, limits=DecodeLimits(), box=box)


def _made_smaller(prompt: Prompt, folder: str) -> Prompt:
    """A prompt that says the same of smaller pictures, which are put into a folder."""
    files: dict[str, str] = {}
    for number, part in enumerate(prompt.paths):
        if part.value not in files:
            made = Path(folder, f"{number}.jpg")
            made.write_bytes(_smaller(Path(part.value), _read_part(part)))
            files[part.value] = str(made)

    def named(part: PromptPart) -> PromptPart:
        return replace(part, value=files[part.value]) if part.kind == "path" else part

    parts, style = (tuple(named(part) for part in one) for one in (prompt.parts, prompt.style))
    return replace(prompt, parts=parts, style=style)


def _search(client: Client, asked: Asked, data: bytes | None, box: Box | None) -> SearchResult:
    options = asked.options
    return client.search(
        data,
        text=asked.text,
        id=asked.id,
        prompt=asked.prompt,
        combine=asked.combine,
        box=box,
        k=options.k,
        min_score=options.min_score,
        max_fmr=options.max_fmr,
        filter=options.filter,
        space=options.space,
        fold=options.fold,
        turns=options.turns,
        rerank=options.rerank,
    )


@contextmanager
def _named(picture: Path | None) -> Iterator[None]:
    """Name the picture that cannot be used."""
    try:
        yield
    except ImageRejected as error:
        raise ImageRejected(f"{picture} cannot be used: {error}.") from error


Fetch = Callable[[str], bytes | None]
"""An indexed picture's bytes by its id; None where it is not available."""


@contextmanager
def pictures_of_index(path: Path) -> Iterator[Fetch]:
    """The pictures of an index on this machine: the files themselves."""
    with Index.open(path) as index:

        def fetch(image_id: str) -> bytes | None:
            try:
                with open_original(index, image_id).file as file:
                    return file.read()
            except (UnknownImage, FileGone):
                return None

        yield fetch


@contextmanager
def pictures_of_server(url: str, api_key: str | None) -> Iterator[Fetch]:
    """The pictures of a server, whose files are not on this machine: its thumbnails."""
    with Client(url, api_key=api_key) as client:

        def fetch(image_id: str) -> bytes | None:
            try:
                return client.thumbnail(image_id, size=CELL)
            except LookalikeError:
                return None

        yield fetch


def draw(asked: Asked, answer: Mapping[str, Any], out: Path, fetch: Fetch) -> None:
    """Draw query and hits as a contact sheet. Raises StorageFailed where it cannot be written."""
    if asked.image is not None:
        query = Picture(data=_read(asked.image), heading="query", caption=asked.image.name)
    elif asked.id is not None:
        query = Picture(data=fetch(asked.id), heading="query", caption="an indexed image")
    else:
        query = Picture(data=None, heading="query", caption="", words=asked.text or asked.prompt)
    hits = [
        Picture(data=fetch(hit["id"]), heading=f"{hit['score']:.3f}", caption=hit["path"] or hit["id"])
        for hit in answer["hits"]
    ]
    try:
        draw_sheet(query, hits, out)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageFailed(
            f"The sheet {out} cannot be written: {reason}. Name a .png or .jpg file in a folder that is there."
        ) from error


def _read_part(part: PromptPart) -> bytes:
    try:
        return as_on_disk(Path(part.value)).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PromptInvalid(
            f"{part.value} cannot be read: {reason}. Put it in quotes if it is words, or name it whole: "
            f'file:"my photo.jpg".',
            part.position,
        ) from error


def _read(path: Path) -> bytes:
    try:
        return as_on_disk(path).read_bytes()
    except OSError as error:
        raise SourceMissing(f"{path} cannot be read: {error.strerror}.") from error
